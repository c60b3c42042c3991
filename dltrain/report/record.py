"""Read what the report shows from a run folder, which may be of another version, cut short, or come from elsewhere."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from dltrain.errors import CheckpointProblem
from dltrain.loggers.events import shown_name
from dltrain.storage.folder_names import SWEEP_RECORD, size_of
from dltrain.storage.index import KILLED, finite
from dltrain.storage.job_names import job_number
from dltrain.storage.lock import is_held
from dltrain.storage.progress import best_row
from dltrain.storage.summary import column_of, read_rows, read_summary, read_text

Row: TypeAlias = dict[str, float]

MOST_BYTES = 20_000_000  # of a table by class
# a folder may hold thousands of other files
MOST_FILES = 200


@dataclass(frozen=True)
class Record:
    """A run folder, read.

    classes: rows of per_class.csv without the means; confusion: (C, C) counts of true class (row) and predicted class
    """

    path: Path
    summary: dict[str, Any]
    rows: Sequence[Row]
    classes: list[dict[str, str]]
    confusion: list[list[int]]

    @cached_property
    def metric(self) -> str:
        return str(self.summary.get("metric") or "val/loss")

    @cached_property
    def best(self) -> Row:
        """Return the row of the best evaluation, from metrics.csv; empty where there is none.

        The summary of a run that did not end names none: the first row with the best value of the metric then.
        """
        step = number_in(self.summary.get("best"), "step")
        if step is not None:
            places = (k for k, found in enumerate(column_of(self.rows, "step")) if found == step)
            place = next(places, None)
            return {} if place is None else self.rows[place]
        return best_row(self.rows, self.metric, self.summary.get("mode"))

    @cached_property
    def is_job(self) -> bool:
        """Return whether the run is a job of a sweep."""
        folder = self.path.absolute()
        return job_number(folder.name) is not None and (folder.parent / SWEEP_RECORD).is_file()

    @property
    def tests(self) -> dict[str, float]:
        return numbers_of(self.summary.get("test"))

    @property
    def scored_split(self) -> str:
        """Return the split of the report by class and of the constant guess: validation, where the test split was not scored."""
        return "test" if self.tests else "validation"

    @cached_property
    def constant(self) -> dict[str, float]:
        """Return the scores of a constant guess: those that the run measured, or the best ones that the scored classes allow.

        Of class frequencies p, always the most frequent class is right max(p) of the time, and the probabilities p have the
        cross-entropy −Σ p log p; no other constant has more or less.
        """
        measured = numbers_of(self.summary.get("constant"))
        if measured or not self.scored:
            return measured
        shares = [share for row in self.classes if (share := float(row["support"]) / self.scored) > 0]
        return {"accuracy": max(shares), "loss": -sum(p * math.log(p) for p in shares)}

    @property
    def scored(self) -> int:
        """Return the number of samples in the report by class."""
        return round(sum(float(row["support"]) for row in self.classes))

    def column(self, name: str) -> list[tuple[float, float]]:
        """Return (epoch, value) of a column where the value is finite."""
        places = column_of(self.rows, "epoch" if "epoch" in columns_of(self.rows) else "step")
        values = column_of(self.rows, name)
        return [pair for pair in zip(places, values, strict=True) if math.isfinite(pair[1])]

    @cached_property
    def files(self) -> list[tuple[str, int]]:
        """Return the files and folders of the run with their sizes in bytes."""
        sizes: dict[str, int] = {}
        for path in sorted(self.path.iterdir(), key=lambda path: path.name):
            if not path.name.startswith("."):
                name = shown_name(path.name) + "/" * path.is_dir()
                sizes[name] = sizes.get(name, 0) + size_of(path)
        return list(sizes.items())[:MOST_FILES]


def read(path: Path) -> Record:
    """Read a run folder. Raises CheckpointProblem for a folder, summary.json or metrics.csv that is not of a run."""
    summary = read_summary(path)
    if summary["status"] == "running" and not is_held(path / "run.lock"):
        summary["status"] = KILLED
    return Record(
        path,
        summary,
        read_rows(path / "metrics.csv"),
        [row for row in read_classes(path / "per_class.csv") if not row["class"].endswith(" mean")],
        read_confusion(path / "confusion_matrix.csv"),
    )


def read_table(file: Path) -> list[list[str]]:
    """Return the cells of a CSV file; none where there is no such file. Raises CheckpointProblem for a damaged one."""
    if not file.is_file():
        return []
    try:
        return list(csv.reader(io.StringIO(read_text(file, MOST_BYTES))))
    except (OSError, ValueError, csv.Error) as error:
        raise CheckpointProblem(f"{file} cannot be read: {str(error)[:100]}") from None


def read_classes(file: Path) -> list[dict[str, str]]:
    """Return the rows of per_class.csv, whose numbers are checked. Raises CheckpointProblem for a file that no run wrote."""
    head, *lines = read_table(file) or [[]]
    rows = [dict(zip(head, line, strict=False)) for line in lines]
    try:
        for row in rows:
            _ = row["class"], [float(row[name]) for name in ("precision", "recall", "f1", "support")]
    except (KeyError, ValueError) as error:
        raise CheckpointProblem(f"{file} is no report by class: {str(error)[:100]}") from None
    return rows


def read_targets(file: Path) -> list[dict[str, Any]]:
    """Return the rows of per_target.csv: target and its scores. Raises CheckpointProblem for a file that no run wrote."""
    head, *lines = read_table(file) or [[]]
    try:
        found = [dict(zip(head, line, strict=True)) for line in lines]
        rows = [
            {"target": row["target"], **{name: float(row[name]) for name in ("mae", "rmse", "r2")}}
            for row in found
        ]
    except (KeyError, ValueError) as error:
        raise CheckpointProblem(f"{file} is no report by target: {str(error)[:100]}") from None
    if not rows:
        raise CheckpointProblem(f"{file} is no report by target: it has no row")
    return rows


def read_confusion(file: Path) -> list[list[int]]:
    """Return the counts of confusion_matrix.csv. Raises CheckpointProblem for a file that no run wrote."""
    lines = read_table(file)[1:]
    try:
        counts = [[int(cell) for cell in line[1:]] for line in lines]
    except ValueError as error:
        raise CheckpointProblem(f"{file} is no confusion matrix: {str(error)[:100]}") from None
    if any(len(line) != len(counts) for line in counts):
        raise CheckpointProblem(f"{file} is no confusion matrix: it is not square")
    return counts


def columns_of(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows[:1] for name in row))


def numbers_of(value: object) -> dict[str, float]:
    """Return the finite numbers of a mapping from a file."""
    if not isinstance(value, Mapping):
        return {}
    return {str(key): number for key in value if (number := number_in(value, key)) is not None}


def number_in(value: object, key: str) -> float | None:
    """Return a finite number of a mapping from a file, None where there is none."""
    return finite(value.get(key)) if isinstance(value, Mapping) else None
