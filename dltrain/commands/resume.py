"""`dltrain resume RUN [key=value …]`: continue an interrupted run from its newest complete checkpoint."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dltrain.commands import STARTED
from dltrain.config import saved
from dltrain.config.catalogue import Catalogue
from dltrain.config.compose import open_catalogue, say_replaced
from dltrain.config.door import Door, door_for_saved
from dltrain.config.keys import LENGTH, SAFE, is_safe, lengths
from dltrain.config.own_code import changed_since
from dltrain.config.schema import Config
from dltrain.direction import BETTER, direction_of, problems
from dltrain.errors import CheckpointProblem, UserError, nearest, typed
from dltrain.storage import manifest
from dltrain.storage.folder_names import SWEEP_RECORD, check_files, is_run, runs_in
from dltrain.storage.job_names import named_by_number
from dltrain.storage.lock import Lock
from dltrain.storage.sealing import complete, length_before
from dltrain.storage.shelves import check_not_shelved
from dltrain.storage.summary import FINISHED, read_summary, texts
from dltrain.text import say

# sentences on edited code that a record keeps
MOST_EDITS = 20


def run(arguments: list[str]) -> int:
    """Resume one run in its own folder; `strict=true` refuses to skip a damaged checkpoint."""
    arguments, config_dir = take_config_dir(arguments)
    paths, given = split_arguments(arguments)
    if len(paths) != 1:
        raise UserError("Name one run folder: dltrain resume outputs/NAME/DATE_TIME-xxxx")
    path = newest_run(paths[0])
    check_not_shelved(path)
    check_files(path)
    strict, overrides = strictness(given)
    catalogue = open_catalogue(config_dir)
    for override in overrides:
        check_safe(override, path, saved.repeating(path, catalogue))
    # nothing is written beside records that are refused
    read_checked(path, overrides, catalogue)
    # before torch is imported, and until the end: no other process may continue or finish the run meanwhile
    lock = Lock(path)
    try:
        return _resume(path, overrides, strict, catalogue, lock)
    finally:
        lock.release()


def _resume(path: Path, overrides: list[str], strict: bool, catalogue: Catalogue, lock: Lock) -> int:
    """Continue a run whose folder is locked: its records stay as they are read here."""
    config, door = read_checked(path, overrides, catalogue)
    warn_of_direction(path, config)
    begun, former_length = length_before(path, {key: getattr(config, key) for key in LENGTH})
    lengthened = lengths([*begun, *overrides])
    if not lengthened and complete(path):
        say(f"{path} is finished; its {manifest.NAME}, which was missing, is written")
        return 0
    earlier = check_resumable(path, longer=bool(lengthened))
    startup = {"compose": round(time.perf_counter() - STARTED, 4)}

    from dltrain.run import experiment
    from dltrain.run.record import logging_to
    from dltrain.run.resume import check_longer

    command, former = str(earlier.get("command", "")), [str(o) for o in earlier.get("overrides", [])]
    longer = tuple(lengths([*texts(earlier.get("longer")), *lengthened]))
    built = experiment.prepare(config, door, command, former, startup, path, longer=longer)
    edits = *texts(earlier.get("edited"))[:MOST_EDITS], *changed_since(earlier.get("code"))
    built.edited = tuple(dict.fromkeys(edits))
    if overrides or begun:
        check_longer(path, built, saved.read(path, catalogue, former_length), door)
    with logging_to(path):
        experiment.run(built, path, resume=True, strict=strict, lock=lock)
    return 0


def read_checked(path: Path, overrides: list[str], catalogue: Catalogue) -> tuple[Config, Door]:
    """Return the configuration of a run with changes, and the door for what it may name. Raises UserError, CheckpointProblem."""
    config = saved.read(path, catalogue, overrides)
    return config, door_for_saved(config, catalogue, overrides)


def warn_of_direction(path: Path, config: Config) -> None:
    """Warn that a run of an earlier version compares its metric in the wrong direction."""
    for group in problems(config.plain):
        node = config.plain[group]
        better = BETTER[direction_of(node["metric"], config.metrics) or node["mode"]]
        say(
            f"{path} was begun with {group}.mode={node['mode']} for {node['metric']} ({better}), and keeps it. "
            f"In the direction of the metric: {typed('rerun', path, f'{group}.mode=auto')}"
        )


def newest_run(path: Path) -> Path:
    """Return the run folder of a path: the path itself or, for a folder of runs, its newest run by name.

    A sweep is returned as it is, to be refused: none of its jobs is its newest run.
    """
    if is_run(path) or (path / SWEEP_RECORD).is_file():
        return path
    runs = runs_in(path)
    return runs[-1] if runs else path


def strictness(given: list[str]) -> tuple[bool, list[str]]:
    """Return the value of `strict=true|false`, and the other changes."""
    values = [text.partition("=")[2] for text in given if text.startswith("strict=")]
    if any(value not in ("true", "false") for value in values):
        raise UserError(
            f"`strict` is {values[0]}; it must be: true or false. It refuses to step over a damaged checkpoint."
        )
    return "true" in values, [text for text in given if not text.startswith("strict=")]


def check_safe(override: str, path: Path, repeat: Callable[[str], object]) -> None:
    """Refuse a change that would make the resumed run another run; `repeat` raises for one that no run of it can have."""
    key = override.partition("=")[0]
    if key not in LENGTH and not is_safe(key):
        repeat(override)
        raise UserError(
            f"`{key}` cannot change in a resumed run: it would be another run.{nearest(key, SAFE)}\n"
            f"What can: {', '.join(SAFE)}, and epochs or steps where schedule, averaging and last evaluation do not follow from the length. "
            f"For a new run with a change: {typed('rerun', path, override)}"
        )


def check_resumable(path: Path, longer: bool = False) -> dict[str, Any]:
    """Return the summary of a run that can continue. Raises CheckpointProblem if it is finished or not a run."""
    summary = read_summary(path)
    if summary["status"] in FINISHED and not (longer and summary["status"] == "completed"):
        raise CheckpointProblem(
            f"{path} is finished ({summary['status']}): there is nothing to resume. To repeat it: {typed('rerun', path)}"
        )
    return summary


def take_config_dir(arguments: list[str]) -> tuple[list[str], str | None]:
    """Take `--config-dir FOLDER` out of the arguments of a verb: the folder of words that a run was trained with."""
    rest, folder, following = [], None, iter(arguments)
    for argument in following:
        name, equals, value = argument.partition("=")
        if name in ("--config-dir", "-cd"):
            folder = value if equals else next(following, "")
        else:
            rest.append(argument)
    return rest, folder


def found_run(text: str) -> Path:
    """Return the folder that a text names, or the only run below `outputs` whose name ends with it.

    Raises CheckpointProblem for the end of several names.
    """
    path = named_by_number(Path(text))
    if os.path.exists(path) or text.startswith("-"):
        return path
    from dltrain.commands.asked import ambiguous, named

    found = named(text)
    if len(found) > 1:
        raise ambiguous(text, found)
    return found[0] if found else Path(text)


def split_arguments(arguments: list[str]) -> tuple[list[Path], list[str]]:
    """Return run folders and `key=value` changes. Raises CheckpointProblem for a folder that does not exist."""
    overrides = [a for a in arguments if "=" in a and not os.path.exists(a)]
    paths = [found_run(a) for a in arguments if a not in overrides]
    for path in paths:
        if str(path).startswith("-"):
            raise UserError(f"`{path}` is no option of this command. Give run folders and key=value changes.")
        if not os.path.isdir(path):
            from dltrain.commands.asked import check_shelves

            check_shelves(str(path))
            raise CheckpointProblem(f"{path} is no folder. Run folders are in outputs/NAME/DATE_TIME-xxxx.")
    say_replaced(overrides)
    return paths, overrides
