"""The rows of one file or two, those without a target or with missing values left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dltrain.data.class_names import as_known
from dltrain.data.contract import check_columns
from dltrain.data.errors import DataError
from dltrain.data.tables.columns import ODD_SHARE, Column, Columns, known_marks
from dltrain.data.tables.encode import class_notes, coded_targets
from dltrain.data.tables.read import Table, read
from dltrain.data.tables.reading import Reading
from dltrain.data.tables.rules import Rule
from dltrain.data.tables.targets import Targets
from dltrain.data.tables.text import Flags

_TOLD = 20  # rows that are left out and named one by one


@dataclass(frozen=True)
class Part:
    """The rows of one file that are used."""

    table: Table
    columns: tuple[Column, ...]
    targets: Tensor
    rows: NDArray[np.int64]
    incomplete: int = 0  # rows that were left out since a feature was missing
    untold: int = 0  # rows that were left out since a target was missing
    untold_words: tuple[str, ...] = ()  # by which it was
    broken: tuple[str, ...] = ()  # rows that were left out for a value that does not fit, and why
    notes: tuple[str, ...] = ()  # how values are written otherwise than in the training

    def without(self, leave: Flags) -> Part:
        """Leave out rows that lack a value."""
        if not leave.any():
            return self
        if leave.all():
            raise DataError(
                f"every row of {self.table.path} lacks a value, so that dataset.missing=drop leaves none; use auto"
            )
        kept = np.flatnonzero(~leave)
        columns = tuple(column.take(kept) for column in self.columns)
        targets = self.targets[torch.from_numpy(kept)]
        return replace(
            self, columns=columns, targets=targets, rows=self.rows[kept], incomplete=int(leave.sum())
        )


def part_of_table(table: Table, columns: Sequence[Column], targets: Tensor, kept: Flags) -> Part:
    """The rows that have a target, whose targets are `targets`."""
    rows = np.flatnonzero(kept)
    fewer = tuple(columns) if len(rows) == len(kept) else tuple(column.take(rows) for column in columns)
    return Part(table, fewer, targets, rows)


def incomplete(part: Part, missing: str) -> Flags:
    """Return which rows to leave out for their missing features: none unless `missing` is drop; DataError for refuse."""
    leave: Flags = np.zeros(len(part.rows), bool)
    if missing == "auto":
        return leave
    for column in part.columns:
        holes = column.missing
        if missing == "refuse" and holes.any():
            count = int(holes.sum())
            more = f" ({count} rows lack it)" if count > 1 else ""
            raise DataError(
                f"column {column.name!r} has no value in {part.table.row(int(part.rows[np.flatnonzero(holes)[0]]))}{more}; fill it "
                "in, leave the column out (dataset.drop), or set dataset.missing=auto"
            )
        leave |= holes
    return leave


def part_by_formats(
    path: Path,
    key: str,
    delimiter: str,
    reading: Reading,
    chosen: Sequence[Column | Rule],
    goal: Targets,
    tolerant: bool = False,
) -> Part:
    """Read the rows of a file, named by `dataset.<key>`, by the formats that another file had: a test file, or one to score.

    tolerant: leave out rows with a value that does not fit its column, unless that would be all.
    """
    table = read(path, delimiter, key, tolerant)
    names = [*(column.name for column in chosen), *goal.names]
    table = table.named_as(names)
    check_columns(table.columns, names, str(path))
    commas = {name: "," for name, form in zip(goal.names, goal.formats, strict=True) if form.decimal == ","}
    reading = replace(reading, marks=known_marks(chosen) | commas)
    columns = Columns(table, reading, names, tolerant=tolerant)
    found = [columns.parse(column.name, column.format) for column in chosen]
    targets = [columns.parse(name, form) for name, form in zip(goal.names, goal.formats, strict=True)]
    if tolerant and goal.task == "classification":
        columns.broken |= _unknown_classes(targets[0], goal.class_names)
    if len(columns.broken) == len(table):
        return part_by_formats(path, key, delimiter, reading, chosen, goal)
    kept: Flags = ~np.any([column.missing for column in targets], axis=0)
    untold = len(kept) - int(kept.sum()) - sum(not kept[row] for row in columns.broken)
    kept[list(columns.broken)] = False
    if goal.task == "classification":
        labels = targets[0].take(np.flatnonzero(kept))
        values = torch.from_numpy(
            coded_targets(
                labels,
                goal.class_names,
                lambda i: table.row(int(np.flatnonzero(kept)[i])),
                reading.missing_words,
            )
        )
    else:
        values = torch.from_numpy(np.stack([column.values[kept] for column in targets], 1))
    notes = class_notes(targets[0], goal.class_names) if goal.task == "classification" else ()
    reasons = {int(table.numbers[row]): reason for row, reason in columns.broken.items()} | dict(table.broken)
    first = sorted(reasons.items())[:_TOLD]
    lines = table.lines_of({number for number, _ in first})
    broken = tuple(
        f"row {number} of {path}{lines.get(number, '')} is left out: {reason}" for number, reason in first
    )
    if len(reasons) > _TOLD:
        broken += (f"{len(reasons) - _TOLD:,} more rows of {path} are left out",)
    part = part_of_table(table, found, values, kept)
    words = [
        f"{word!r} ({count:,})"
        for name, form in zip(goal.names, goal.formats, strict=True)
        if untold
        for word, count in columns.missing_words(name, form.kind != "category").items()
    ]
    part = replace(part, untold_words=tuple(words))
    return replace(part, untold=untold, broken=broken, notes=(*columns.notes, *notes))


def _unknown_classes(column: Column, known: Sequence[str]) -> dict[int, str]:
    """Return the rows with a class that is not known, if these are few; many are another naming of the classes."""
    names = {*known, *as_known(column.levels, known)}
    unknown = np.array([level not in names for level in column.levels] + [False])[column.values]
    if unknown.sum() > max(1, ODD_SHARE * len(unknown)):
        return {}
    return {
        row: f"column {column.name!r} holds {column.levels[column.values[row]]!r}, which is none of the classes"
        for row in np.flatnonzero(unknown).tolist()
    }


def joined(columns: tuple[Column, ...]) -> Column:
    """The same column of several files as one."""
    if len(columns) == 1:
        return columns[0]
    first = columns[0]
    if first.format.kind != "category":
        return Column(first.name, first.format, np.concatenate([column.values for column in columns]))
    levels = tuple(dict.fromkeys(level for column in columns for level in column.levels))
    place = {level: i for i, level in enumerate(levels)}
    codes = [np.array([*(place[level] for level in c.levels), -1], np.int32)[c.values] for c in columns]
    return Column(first.name, first.format, np.concatenate(codes), levels)
