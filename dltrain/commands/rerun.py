"""`dltrain rerun RUN [key=value …]`: repeat a run from its config.yaml, optionally with changes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from dltrain.commands import STARTED
from dltrain.commands.resume import split_arguments, take_config_dir, warn_of_direction
from dltrain.config import saved
from dltrain.config.compose import open_catalogue
from dltrain.config.data_files import check_beside
from dltrain.config.door import door_for_saved
from dltrain.config.keys import SAME_DATA, keys_of
from dltrain.config.schema import Config, run_name
from dltrain.errors import UserError, typed
from dltrain.storage.folder_names import SWEEP_RECORD, check_place, new_folder
from dltrain.text import say


def run(arguments: list[str]) -> int:
    """Train the configuration of a run again; equal seeds give equal weights."""
    arguments, config_dir = take_config_dir(arguments)
    paths, overrides = split_arguments(arguments)
    if len(paths) != 1:
        raise UserError("Name one run folder: dltrain rerun outputs/NAME/DATE_TIME-xxxx")
    catalogue = open_catalogue(config_dir)
    config = saved.read(paths[0], catalogue, overrides, again=True)
    if any(text.startswith("dataset.") for text in overrides):
        original = saved.read(paths[0], catalogue, [])
        check_beside("rerun", paths[0], config, original, overrides, catalogue)
    door = door_for_saved(config, catalogue, overrides)
    warn_of_direction(paths[0], config)
    check_place(config.output, run_name(config))
    startup = {"compose": round(time.perf_counter() - STARTED, 4)}

    from dltrain.data.changes import data_changes
    from dltrain.run import experiment
    from dltrain.run.data import check_skipped
    from dltrain.run.lineage import weights_changed
    from dltrain.run.record import logging_to
    from dltrain.run.weights import say_of_code
    from dltrain.storage.run_folder import read_contract

    say_of_code(paths[0], "and this run trains with the present code")
    built = experiment.prepare(config, door, typed("rerun", *arguments), overrides, startup)
    if not any(key.startswith("dataset") and key not in SAME_DATA for key in keys_of(overrides)):
        known, present = read_contract(paths[0]), built.parts.contract
        check_skipped(paths[0], known, present)
        if changed := data_changes(known, present):
            say(
                f"the data have changed since {paths[0]} was trained ({changed}); this run trains on the present ones"
            )
    if changed := weights_changed(config, paths[0]):
        say(f"{changed}; this run begins with the present ones")
    if is_unscored_job(paths[0], config, overrides) and built.parts.test is not None:
        say(
            "the sweep set evaluation.test=false, so that the test split is not scored. To score it: evaluation.test=true"
        )
    folder = new_folder(config.output, run_name(config))
    with logging_to(folder):
        experiment.run(built, folder)
    return 0


def is_unscored_job(run: Path, config: Config, overrides: Iterable[str]) -> bool:
    """Return whether a run is a job of a sweep, which sets evaluation.test=false for its jobs, and no override sets it."""
    is_job = (run.absolute().parent / SWEEP_RECORD).is_file()
    return is_job and not config.evaluation.test and "evaluation.test" not in keys_of(overrides)
