"""Finished runs that need not be run again: of this sweep, and of earlier ones where `sweep.reuse` asks for it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dltrain import __version__
from dltrain.config import saved
from dltrain.config.catalogue import Catalogue, leaves
from dltrain.config.data_files import PLACES, beside
from dltrain.config.door import Rights
from dltrain.config.keys import SAFE
from dltrain.config.own_code import changed_since, digests_of
from dltrain.config.schema import Config
from dltrain.data.nested import contents
from dltrain.direction import resolved_modes
from dltrain.errors import CheckpointProblem, UserError
from dltrain.loggers.events import EVENT_FILES, Best
from dltrain.storage import manifest
from dltrain.storage.files import copy
from dltrain.storage.folder_names import CONTRACT, FILES, METRICS, check_files
from dltrain.storage.summary import WHOLE, read_json, read_rows
from dltrain.sweep.jobs import Job, write_summary
from dltrain.text import first_line, say

if TYPE_CHECKING:
    from dltrain.data.contract import Contract

# What makes no difference to a result beyond the last digits: threads among them, which follow sweep.jobs.
FREE = frozenset([*SAFE, "name", "output", "threads", "device", "words"])

# files that loggers write in the folder of a run
LOGS = ("run.log", f"{EVENT_FILES}.*")


def weighty(plain: dict[str, Any]) -> dict[str, Any]:
    """Return the values, by dotted key, on which the result of a configuration depends."""
    return {
        path: value
        for path, value in (dict(leaves(plain)) | resolved_modes(plain)).items()
        if path.partition(".")[0] not in FREE and path not in FREE and value != {}
    }


def key_of(plain: dict[str, Any], on_gpu: bool) -> str:
    """Return a key that is equal for runs with equal results."""
    return json.dumps([on_gpu, weighty(plain)], sort_keys=True, default=str)


def digest_of(config: Config) -> str:
    """Return the SHA-256 of what determines the result of a configuration; empty for one with secrets, which are not stored."""
    return "" if config.secrets else hashlib.sha256(key_of(config.plain, False).encode()).hexdigest()


class Finished:
    """Finished runs by their configuration: those of the sweeps in `output`, by the same versions of dltrain and torch.

    A sweep may come from somebody else, whose data and code have the same names as the user's: a run counts only if both are
    equal here. rights: by which the data of a configuration are read.
    """

    def __init__(self, output: Path, rights: Rights, catalogue: Catalogue) -> None:
        self.runs = dict(finished_runs(output))
        self.rights, self.catalogue = rights, catalogue
        self.changes: dict[str, float] = {}
        # of the data here, by what divides them; or why they cannot be read
        self.contracts: dict[str, Contract | str | None] = {}

    def find(self, config: Config, on_gpu: bool) -> Path | None:
        """Return the folder of an equal run with the same code on the same data; says why an equal configuration is not one.

        None for a configuration with secrets, which no folder stores.
        """
        run = None if config.secrets else self.runs.get(key_of(config.plain, on_gpu))
        if run is None:
            return None
        if (
            why := code_changed(config, run)
            or self.data_written(config, run)
            or other_weights(config, run)
            or self.data_differ(config, run)
        ):
            say(f"{why}, so that its job is not taken over")
            return None
        return run

    def data_written(self, config: Config, run: Path) -> str:
        """Return which file or folder that the dataset names was written, moved or replaced after a run read it."""
        try:
            # written when the data are read; a copy of the run keeps its time
            read = os.stat(run / CONTRACT).st_mtime
        except OSError:
            return ""
        keys = (*PLACES, "test_path", *beside(config, self.catalogue))
        named = (config.dataset.get(key) for key in keys)
        places = [os.path.expanduser(value) for value in named if isinstance(value, str)]
        for place in filter(os.path.exists, places):
            if place not in self.changes:
                self.changes[place] = newest_change(place)
            if self.changes[place] > read:
                return f"{place} was changed after {run} was trained on it"
        return ""

    def data_differ(self, config: Config, run: Path) -> str:
        """Return how the data here differ from those of a run. They are read once for each division; it costs an import of torch."""
        from dltrain.data.changes import data_changes
        from dltrain.run.other_data import divides
        from dltrain.storage.run_folder import read_contract

        # a table has the features of the run whose weights are loaded
        key = repr((divides(config), config.initializer.get("path")))
        if key not in self.contracts:
            self.contracts[key] = self.contract_here(config)
        here = self.contracts[key]
        try:
            known = read_contract(run)
        except CheckpointProblem as error:
            return first_line(error)
        if isinstance(here, str):
            return f"the data of {run} cannot be read here ({here})"
        if (here is None) != (known is None):
            return f"{run} does not say what it was trained on"
        changed = data_changes(known, here)
        return f"{run} was trained on other data ({changed})" if changed else ""

    def contract_here(self, config: Config) -> Contract | str | None:
        """Return the contract of the data that a configuration names, or why there is none."""
        import torch

        from dltrain.run.data import build_data
        from dltrain.run.other_data import quiet

        try:
            door = self.rights.door(config.trust)
            return build_data(quiet(config), door, torch.device("cpu"), None).contract
        except UserError as error:
            return first_line(error)


def code_changed(config: Config, run: Path) -> str:
    """Return how the user's code that a configuration names differs from that of a run; empty where it does not."""
    known = read_json(run / "summary.json").get("code") or {}
    if known == digests_of(dict(leaves(config.plain))):
        return ""
    changed = changed_since(known)
    return (
        f"{changed[0]} since {run} was trained"
        if changed
        else f"{run} does not say by which code it was trained"
    )


def other_weights(config: Config, run: Path) -> str:
    """Return that a run began with other weights than those that its configuration names now; empty where it did not."""
    if not config.initializer.get("path"):
        return ""
    from dltrain.run.lineage import weights_changed

    return weights_changed(config, run)


def newest_change(place: str) -> float:
    """Return the time of the last change of a file, or of anything in a folder."""
    states = map(os.lstat, contents(place))
    own = os.stat(place)
    return max(max(state.st_mtime, state.st_ctime) for state in (own, *states))


def finished_runs(output: Path) -> Iterator[tuple[str, Path]]:
    """Yield every finished job of every sweep with its key; of equal ones the newest comes last."""
    versions = [__version__, metadata.version("torch").partition("+")[0]]
    for record in sorted(output.glob("*/*/sweep.json"), key=lambda file: file.parent.name):
        for file in sorted(record.parent.glob("*/summary.json")) if compares(record) else ():
            try:
                summary = read_json(file)
                then = [summary["versions"][name].partition("+")[0] for name in ("dltrain", "torch")]
                if summary["status"] in WHOLE and then == versions and summary["objective"] is not None:
                    check_files(file.parent)
                    if not manifest.is_whole(file.parent):
                        continue
                    plain = saved.load_bounded(file.parent / "config.yaml")
                    if not follows(summary, file.parent, str(plain["early_stopping"]["_target_"])):
                        continue
                    yield key_of(plain, summary["device"].startswith("cuda")), file.parent
            except (OSError, ValueError, KeyError, TypeError, AttributeError, CheckpointProblem):
                continue  # damaged, or not made by a run: the job is run here


def follows(summary: Mapping[str, Any], folder: Path, rule: str) -> bool:
    """Return whether objective and best row of a summary are those of its metrics.csv; `rule` names the class that chose the row.

    A class of the user's own may choose another row than the first with the best value.
    """
    best, known = summary["best"], Best(summary["metric"], summary["mode"])
    rows = read_rows(folder / METRICS)
    if rule.startswith("dltrain."):
        row = known.of(rows)
    else:
        row = next((row for row in rows if row["step"] == best["step"] and known.improves(row)), {})
    is_row = best.keys() <= row.keys() and all(
        v == row[k] or (v != v and row[k] != row[k]) for k, v in best.items()
    )
    return (
        bool(best) and is_row and (summary["objective"], summary["best_epoch"]) == (known.score, row["epoch"])
    )


def compares(record: Path) -> bool:
    """Return whether the val/loss of a sweep's runs is the plain one; without an entry in sweep.json it is the training objective."""
    try:
        return bool(read_json(record)["loss"] == "plain")
    except (OSError, ValueError, KeyError):
        return False


def take_over(job: Job, source: Path) -> None:
    """Copy a finished run into a job's folder, which is there whole or not at all; its summary says where it is from.

    Records, checkpoints and logs are copied, and nothing else that lies in the folder, which may be a stranger's. Checkpoints become
    second names of the same files: they are replaced, never changed.
    """
    beside = job.folder.with_name(f".{job.folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    for name in files_of(source):
        (beside / name).parent.mkdir(parents=True, exist_ok=True)
        _copy(source / name, beside / name, link=name.startswith("checkpoints/"))
    summary = read_json(beside / "summary.json")
    summary |= {"reused": str(source), "overrides": job.overrides}
    write_summary(beside, summary)
    os.replace(beside, job.folder)
    job.read()


def files_of(run: Path) -> Iterator[str]:
    """Yield the names of the records, checkpoints and logs of a run."""
    covered = [name for name in manifest.covered(run) if (run / name).is_file()]
    # a run whose end met a full disk has no manifest
    yield from [manifest.NAME] if (run / manifest.NAME).is_file() else []
    yield from covered
    for name in (name for name in covered if name.startswith("checkpoints/step-")):
        checkpoint = PurePosixPath(name).parent
        yield from (
            f"{checkpoint}/{part}"
            for part in sorted(FILES - {manifest.NAME})
            if (run / checkpoint / part).is_file()
        )
    for pattern in LOGS:
        yield from (file.name for file in sorted(run.glob(pattern)) if file.is_file())


def _copy(source: Path, target: Path, link: bool) -> None:
    if link:
        try:
            return os.link(source, target)
        except OSError:  # another disk, or one without links
            pass
    copy(source, target)
