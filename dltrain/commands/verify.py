"""`dltrain verify RUN…`: check hashes, formats and completeness of runs and sweeps, without training."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dltrain.commands.resume import split_arguments, take_config_dir
from dltrain.config import saved
from dltrain.config.asked import left_out
from dltrain.config.catalogue import Catalogue
from dltrain.config.compose import open_catalogue, open_hydra
from dltrain.config.door import Door, door_for_saved, foreign_words
from dltrain.config.schema import Config
from dltrain.errors import CheckpointProblem, FindingsFailure, UserError, split_command
from dltrain.storage.folder_names import SWEEP_RECORD, is_run, runs_in
from dltrain.storage.summary import read_summary
from dltrain.text import counted, show

if TYPE_CHECKING:
    from dltrain.run.verification import Verdict

HELP = """
    dltrain verify outputs/NAME/DATE_TIME-xxxx             a run, also one that somebody else made
    dltrain verify outputs/NAME/DATE_TIME-xxxx data=false  without reading its dataset
    dltrain verify outputs/NAME                            each run of a folder, or a sweep with all of its jobs

Compares every record with its SHA-256, and the records with each other: rows, checkpoints, summary, best weights,
reports, and the dataset where it is at hand. Exit code 10 with a line for each finding. What no hash can show is
whether somebody rewrote all of them: dltrain reproduce RUN trains again.
"""
# keys that are named
MOST_UNSAID = 5
OTHER = "config.yaml has other values than the present defaults"
# what `words` of config.yaml must be
OWN_KEYS = "the word whose keys config.yaml has"


def run(arguments: list[str]) -> int:
    """Print what was checked, what is wrong and what could not be checked."""
    as_json = "--json" in arguments
    arguments, config_dir = take_config_dir([text for text in arguments if text != "--json"])
    paths, given = split_arguments(arguments)
    trust = [text for text in given if text.startswith("trust=")]
    if not paths:
        raise UserError("Name at least one run folder: dltrain verify outputs/NAME/DATE_TIME-xxxx")
    data = with_data([text for text in given if text not in trust])
    catalogue = open_catalogue(config_dir)
    verdicts = [v for path in paths for v in verdicts_of(path, catalogue, data, trust, config_dir)]
    if as_json:
        print(json.dumps([verdict.as_json() for verdict in verdicts], indent=2))
    else:
        for verdict in verdicts:
            print_verdict(verdict, short=len(verdicts) > 3)
    wrong = [verdict for verdict in verdicts if verdict.findings]
    if wrong:
        raise FindingsFailure(
            f"{counted(sum(len(v.findings) for v in wrong), 'finding')} in {len(wrong)} of {len(verdicts)} folders, listed above."
        )
    return 0


def with_data(given: list[str]) -> bool:
    """Return the value of `data=true|false`, the only key that the command takes."""
    for text in given:
        if text not in ("data=true", "data=false"):
            raise UserError(
                f"`{text}` changes nothing here: `dltrain verify` takes data=true or data=false, and trust=[module]."
            )
    return given[-1:] != ["data=false"]


def verdicts_of(
    path: Path,
    catalogue: Catalogue,
    data: bool = True,
    trust: Sequence[str] = (),
    config_dir: str | None = None,
) -> Iterable[Verdict]:
    """Verify a run, each run of a folder, or a sweep with each of its jobs."""
    # a folder that is both is checked as a run, which finds the record of a sweep in it
    if is_run(path) or not (path / SWEEP_RECORD).exists():
        below = runs_in(path)
        for folder in below if below and not is_run(path) else [path]:
            yield verify_run(folder, catalogue, data, trust)
        return
    from dltrain.sweep.sweep import Source
    from dltrain.sweep.verification import jobs_of, verify_sweep

    for folder in jobs_of(path):
        yield verify_run(folder, catalogue, data, trust)
    yield verify_sweep(path, Source(catalogue, open_hydra(catalogue), config_dir))


def verify_run(path: Path, catalogue: Catalogue, data: bool, trust: Sequence[str] = ()) -> Verdict:
    """Verify one run folder. Raises CheckpointProblem for a folder that is none."""
    if not is_run(path):
        raise CheckpointProblem(
            f"{path} is not a run folder: it has no config.yaml. Name one that dltrain made, such as outputs/NAME/DATE_TIME-xxxx."
        )
    config: Config | UserError
    door: Door | UserError
    try:
        config = saved.read(path, catalogue, list(trust))
        door = door_of(config, catalogue, list(trust))
    except UserError as error:
        config = door = error

    # imports torch
    from dltrain.run.verification import Finding, verify

    verdict = verify(path, config, door, data)
    for word in words_of_others(path, catalogue):
        verdict.findings.append(Finding("config.yaml, words", word, OWN_KEYS))
    if missing := unsaid(path, catalogue):
        more = f" and {len(missing) - MOST_UNSAID} more" if len(missing) > MOST_UNSAID else ""
        verdict.open.append(f"overrides: they leave out {', '.join(missing[:MOST_UNSAID])}{more} ({OTHER})")
    return verdict


def unsaid(path: Path, catalogue: Catalogue) -> list[str]:
    """Return what differs from the present defaults in a run that was begun by its overrides, which do not say so."""
    try:
        summary, content = read_summary(path), saved.load_bounded(path / "config.yaml")
        program, *words = split_command(summary.get("command"))
    except (UserError, OSError, ValueError):
        return []
    overrides = summary.get("overrides")
    # `rerun RUN` has the values of another run, and an axis of a sweep may be a word's equal
    is_begun = program == "dltrain" and not any("=" not in word and word[:1] != "-" for word in words)
    if not is_begun or not isinstance(overrides, list) or summary.get("reused"):
        return []
    return left_out(content, list(map(str, overrides)), catalogue, str(summary.get("command")))


def words_of_others(path: Path, catalogue: Catalogue) -> list[str]:
    """Return the words of a run's config.yaml whose keys are those of another word; none of a file that cannot be read."""
    try:
        return foreign_words(saved.load_bounded(path / "config.yaml"), catalogue)
    except (UserError, OSError):
        return []


def door_of(config: Config, catalogue: Catalogue, trust: list[str]) -> Door | UserError:
    """Return what builds the parts of a configuration, or why it may not."""
    try:
        return door_for_saved(config, catalogue, trust)
    except UserError as error:
        return error


def print_verdict(verdict: Verdict, short: bool) -> None:
    """Print a line for each finding, or what was checked."""
    for finding in verdict.findings:
        show(f"✗ {verdict.path}: {finding}")
    if verdict.findings:
        return
    alone = "" if verdict.hashed else "  (no hashes: its records were compared with each other only)"
    show(f"✓ {verdict.path}{alone}" + ("" if short else f"\n  checked      {', '.join(verdict.checked)}"))
    for text in verdict.open if not short else ():
        show(f"  not checked  {text}")
