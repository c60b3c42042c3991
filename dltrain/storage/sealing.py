"""The last files of a run that has finished, written for one that was killed before it could."""

from __future__ import annotations

import os
from pathlib import Path

from dltrain.errors import CheckpointProblem, FolderInUse
from dltrain.storage import event_log, manifest
from dltrain.storage.files import clear_temporary
from dltrain.storage.lock import Lock
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


def complete_job(path: Path) -> None:
    """Complete a job of a sweep as `complete` does; one that another process holds, or that is no run, stays as it is."""
    try:
        if is_unsealed(path):
            lock = Lock(path)
            try:
                complete(path)
            finally:
                lock.release()
    except (CheckpointProblem, FolderInUse, OSError):
        return
