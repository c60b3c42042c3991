"""The best evaluation so far of a run that was not completed, whose summary.json names none, from its metrics.csv."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dltrain.direction import Mode, direction_of, improves, value_in, value_of
from dltrain.errors import CheckpointProblem
from dltrain.storage.folder_names import METRICS
from dltrain.storage.summary import Row, column_of, read_rows

# values of `status` of runs whose summary has no scores
UNSCORED = ("running", "interrupted", "failed")
# what says how far a run came
EXTENT = ("epochs", "steps", "seconds")
# a listing reads whole tables, and some hundred thousand rows take a second
MOST_BYTES = 20_000_000


def best_row(rows: Sequence[Row], metric: str, mode: object) -> Row:
    """Return the first row with the best finite value of a metric; empty where there is none.

    mode: `min` or `max`; anything else follows from the metric's name
    """
    direction: Mode = "max" if (mode if mode in ("min", "max") else direction_of(metric)) == "max" else "min"
    best, score = {}, None
    for row in rows:
        if improves(value := value_in(row, metric), score, direction):
            best, score = row, value
    return best


def record_of(folder: Path, metric: object, mode: object) -> dict[str, Any]:
    """Return `best`, `objective`, `best_epoch`, `epochs`, `steps` and `seconds` as a summary has them; {} before an evaluation.

    A table that is damaged, or of more than `MOST_BYTES`, has none.
    """
    name = metric if isinstance(metric, str) else "val/loss"
    with suppress(OSError, CheckpointProblem):
        if (folder / METRICS).stat().st_size <= MOST_BYTES and (rows := read_rows(folder / METRICS)):
            best, last = best_row(rows, name, mode), rows[-1]
            found = {"epochs": last.get("epoch"), "steps": last.get("step")}
            # a row has the time since the one before it
            found["seconds"] = math.fsum(column_of(rows, "seconds", 0.0))
            if best:
                found |= {"objective": value_of(best, name), "best_epoch": best.get("epoch")}
            return {key: value for key, value in found.items() if value is not None} | {"best": best}
    return {}


def with_progress(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """Return a summary with what the run reached so far, where it has no scores."""
    if summary.get("status") not in UNSCORED:
        return summary
    return record_of(folder, summary.get("metric"), summary.get("mode")) | summary


def stamp_of(folder: Path) -> tuple[int, ...]:
    """Return the time and the size of the table; () where there is none."""
    with suppress(OSError):
        status = (folder / METRICS).stat()
        return status.st_mtime_ns, status.st_size
    return ()
