"""The runs that provided the initial weights of a run, and which of its val and test samples they were trained on."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dltrain.config.catalogue import leaves
from dltrain.config.keys import REPLICATES, SPLIT_BY
from dltrain.config.saved import load_bounded
from dltrain.config.schema import Config
from dltrain.data.changes import data_changes
from dltrain.data.contract import Contract
from dltrain.errors import CheckpointProblem, assigned, typed
from dltrain.initializers.pretrained import weights_file
from dltrain.run.source import run_of, same_outputs
from dltrain.storage.index import CONFIG
from dltrain.storage.manifest import digest
from dltrain.storage.run_folder import read_contract
from dltrain.storage.summary import read_json
from dltrain.text import first_line

# runs that are followed back
MOST = 20
# keys that decide which samples of the same data are those of training
DIVISION = (*SPLIT_BY, *(key for key in REPLICATES if key != "seed"), "dataset.limit")


def digest_of_weights(config: Config, earlier: Path | None = None) -> str:
    """Return the SHA-256 of the file of initial weights, empty without one; for a run to resume, the recorded one."""
    if earlier is not None:
        return recorded_digest(earlier)
    path = config.initializer.get("path")
    file = weights_file(path) if isinstance(path, str) else None
    return digest(file) if file is not None and file.is_file() else ""


def recorded_digest(run: Path) -> str:
    """Return the digest of the initial weights that a run recorded; empty where it says nothing."""
    try:
        return str(read_json(run / "summary.json").get("first_weights") or "")
    except (OSError, ValueError):
        return ""


def weights_changed(config: Config, run: Path) -> str:
    """Return a message if the file of initial weights has changed since a run read it; empty otherwise, or if not known."""
    known = recorded_digest(run)
    if not known or known == digest_of_weights(config):
        return ""
    return f"the weights at initializer.path={config.initializer.get('path')} are others than those that {run} began with"


def seen_before(config: Config, contract: Contract | None) -> tuple[str, ...]:
    """Return a line for each earlier run that may have been trained on val or test samples of these data.

    No line for the same data split in the same way, or for data with other outputs.
    """
    lines = []
    for run in sources(config.initializer.get("path")):
        try:
            known = read_contract(run)
        except CheckpointProblem as error:
            lines.append(f"seen     what {run} was trained on is not known: {first_line(error)}")
            continue
        if known is None or contract is None or not same_outputs(known, contract):
            continue
        if data_changes(known, contract):
            lines.append(f"seen     {_unknown(run, config)}")
        elif changed := _other_division(run, config):
            lines.append(
                f"seen     val and test hold samples that {run} was trained on, whose weights are continued: their scores are too "
                f"good. Split the data as there: {changed}"
            )
    return tuple(lines)


def sources(path: object) -> Iterator[Path]:
    """Yield the run that a file of weights belongs to, the run that provided the initial weights of that one, and so on."""
    met: set[Path] = set()
    while len(met) < MOST and (run := run_of(path)) is not None and run.resolve() not in met:
        yield run
        met.add(run.resolve())
        path = _plain(run).get("initializer.path")


def runs_before(run: Path) -> list[Path]:
    """Return the runs that provided the initial weights of a run, the most recent first."""
    return list(sources(_plain(run).get("initializer.path")))


def _unknown(run: Path, config: Config) -> str:
    text = f"whether val and test hold samples that {run} was trained on, whose weights are continued, is not known"
    key = next((key for key in ("path", "root") if config.dataset.get(key)), "")
    # a value from the environment may be a secret
    if not key or config.secrets:
        return text
    count = typed("evaluate", run, assigned(f"dataset.{key}", config.dataset[key]))
    return f"{text}; how many of all samples are: {count}"


def _other_division(run: Path, config: Config) -> str:
    """Return the overrides that split the data as an earlier run did; empty if they are split so."""
    there, here = _plain(run), dict(leaves(config.plain))
    changed = [key for key in DIVISION if there.get(key) != here.get(key)]
    return " ".join(shlex.quote(assigned(key, _text(there.get(key)))) for key in changed)


def _text(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _plain(run: Path) -> Mapping[str, Any]:
    """Return the values of a run's configuration by dotted key; none where its file cannot be read."""
    try:
        return dict(leaves(load_bounded(run / CONFIG)))
    except (OSError, CheckpointProblem):
        return {}
