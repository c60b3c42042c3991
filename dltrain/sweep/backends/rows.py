"""Evaluations of a job that runs elsewhere, read from its metrics.csv."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from dltrain.defaults import DEFAULT_EPOCHS
from dltrain.direction import resolve_mode, value_of
from dltrain.errors import CheckpointProblem
from dltrain.storage.summary import read_rows
from dltrain.sweep.backends.protocol import Evaluated
from dltrain.sweep.jobs import Job


class Rows:
    """The rows of a job's metrics.csv that were not reported yet."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.reported = 0
        self.size = -1  # of the file at the last look

    @property
    def file(self) -> Path:
        return self.job.folder / "metrics.csv"

    def new(self) -> Iterator[Evaluated]:
        """Yield the evaluations since the last call."""
        try:
            size = self.file.stat().st_size
            if size == self.size:
                return
            rows = read_rows(self.file)
        except (OSError, CheckpointProblem):
            return
        self.size = size
        for number in range(self.reported + 1, len(rows) + 1):
            yield evaluated(self.job, rows[:number])
        self.reported = max(self.reported, len(rows))


def evaluated(job: Job, rows: Sequence[dict[str, float]]) -> Evaluated:
    """Return the event of the last of some rows; evaluations are evenly spaced, but for the last one of a run."""
    assert job.config is not None
    row, config = rows[-1], job.config
    stopping = config.early_stopping
    metric = str(stopping.get("metric", "val/loss"))
    share = row["step"] / config.steps if config.steps else row["epoch"] / (config.epochs or DEFAULT_EPOCHS)
    values = [value_of(row, metric) for row in rows]
    better = min if resolve_mode(metric, stopping.get("mode", "auto"), config.metrics) == "min" else max
    best = better((value for value in values if math.isfinite(value)), default=None)
    total = len(rows) if share >= 1 else math.ceil(round(len(rows) / share, 6))
    return Evaluated(job, len(rows), total, row["epoch"], values[-1], best)
