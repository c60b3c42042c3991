"""`dltrain resume RUN [key=value …]`: go on from the newest complete checkpoint."""

from __future__ import annotations

import time
from pathlib import Path

from dltrain.cli import STARTED
from dltrain.config import saved
from dltrain.config.compose import open_catalogue
from dltrain.config.door import Door, all_targets
from dltrain.errors import CheckpointProblem, UserError, nearest

# What cannot change the past: everything else would make the resumed run another one.
SAFE = ("log.every_steps", "log.profile", "checkpoint.every_epochs", "checkpoint.every_steps", "checkpoint.every_minutes",
        "checkpoint.keep", "workers", "quiet", "tags", "notes", "trust")  # fmt: skip


def run(arguments: list[str]) -> int:
    """Resume one run in its own folder."""
    paths, overrides = split_arguments(arguments)
    if len(paths) != 1:
        raise UserError("Name one run folder: dltrain resume outputs/NAME/DATE_TIME-xxxx")
    for override in overrides:
        key = override.partition("=")[0]
        if key not in SAFE:
            raise UserError(
                f"`{key}` cannot change in a resumed run: it would be another run.{nearest(key, SAFE)}\n"
                f"What can: {', '.join(SAFE)}. For a new run with a change: dltrain rerun {paths[0]} {override}"
            )
    catalogue = open_catalogue()
    config = saved.read(paths[0], catalogue, overrides)
    startup = {"compose": round(time.perf_counter() - STARTED, 4)}

    from dltrain import experiment

    earlier = experiment.check_resumable(paths[0])
    door = Door(all_targets(catalogue), config.trust, local=False)
    built = experiment.prepare(
        config, door, earlier.get("command", ""), earlier.get("overrides", []), startup, paths[0]
    )
    with experiment.logging_to(paths[0]):
        experiment.run(built, paths[0], resume=True)
    return 0


def split_arguments(arguments: list[str]) -> tuple[list[Path], list[str]]:
    """Run folders and `key=value` changes. Raises CheckpointProblem for a folder that is not there."""
    overrides = [a for a in arguments if "=" in a and not Path(a).exists()]
    paths = [Path(a) for a in arguments if a not in overrides]
    for path in paths:
        if str(path).startswith("-"):
            raise UserError(f"`{path}` is no option of this command. Give run folders and key=value changes.")
        if not path.is_dir():
            raise CheckpointProblem(f"{path} is no folder. Run folders lie in outputs/NAME/DATE_TIME-xxxx.")
    return paths, overrides
