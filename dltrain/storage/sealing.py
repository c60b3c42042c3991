"""The last files of a run that has finished, written for one that was killed before it could."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dltrain.storage import event_log, manifest
from dltrain.storage.files import clear_temporary
from dltrain.storage.summary import FINISHED, read_summary


def complete(path: Path) -> bool:
    """Write the event of the end and the hashes of a finished run that has no hashes; return whether they were missing.

    Only the holder of the folder's lock may do so.
    """
    if not is_unsealed(path):
        return False
    # imports torch, which such a run alone needs
    from dltrain.storage.checkpoint import clear_unfinished

    clear_temporary(path)
    # a kill may have come between the last checkpoint and the deletion of an older one
    clear_unfinished(path / "checkpoints")
    event_log.complete(path, read_summary(path))
    manifest.write(path, manifest.covered(path))
    return True


def is_unsealed(path: Path) -> bool:
    """Return whether a run has finished, and was killed before it wrote its hashes; earlier versions wrote none."""
    if os.path.lexists(path / manifest.NAME):
        return False
    summary = read_summary(path)
    return "format" in summary and summary["status"] in FINISHED


def length_before(path: Path, now: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the length of a run and the one that its summary has, where a resume with more was killed before it wrote that.

    `now` is the length in config.yaml, by key. The resume had removed the hashes: a run with hashes was not being lengthened.
    """
    summary = read_summary(path)
    told, steps = summary.get("config"), summary.get("steps")
    if summary["status"] != "completed" or os.path.lexists(path / manifest.NAME):
        return [], []
    if not isinstance(told, dict) or type(steps) is not int:
        return [], []
    then = {key: value for key in now if type(value := told.get(key)) in (int, float)}
    now = {key: value for key, value in now.items() if type(value) in (int, float)}
    # epochs in place of steps, or the other way round, compare once the data are known
    if not then or (now.keys() == then.keys() and not any(now[key] > then[key] for key in now)):
        return [], []
    return [f"{key}={value}" for key, value in now.items()], [f"{key}={value}" for key, value in then.items()]
