"""The report by class and the confusion matrix, as tables that people and programs read."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dltrain.metrics.counts import averaged, ratio
from dltrain.text import as_cell, shown

PER_CLASS, CONFUSION = "per_class.csv", "confusion_matrix.csv"


@dataclass(frozen=True)
class ClassRow:
    """Scores of one class, or their average; `support` is the number of its samples."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


def class_rows(counts: Tensor, class_names: Sequence[str] = ()) -> list[ClassRow]:
    """Return a row for each class, and the macro and the weighted mean; NaN for a class that occurs nowhere.

    counts: (C, C) of true class (row) and predicted class (column)
    """
    counts = counts.double().cpu()
    hits, support, found = counts.diagonal(), counts.sum(1), counts.sum(0)
    columns = ratio(hits, found), ratio(hits, support), ratio(2 * hits, support + found)
    occurs = support + found > 0
    rows = []
    for k, name in enumerate(names_of(counts, class_names)):
        precision, recall, f1 = (float(column[k]) if occurs[k] else float("nan") for column in columns)
        rows.append(ClassRow(name, precision, recall, f1, int(support[k])))
    for average in ("macro", "weighted"):
        precision, recall, f1 = (float(averaged(column, support, occurs, average)) for column in columns)
        rows.append(ClassRow(f"{average} mean", precision, recall, f1, int(counts.sum())))
    return rows


def names_of(counts: Tensor, class_names: Sequence[str]) -> list[str]:
    """Return the names of the classes; their numbers where they have none."""
    return [str(name) for name in class_names] or [str(k) for k in range(len(counts))]


def per_class_csv(counts: Tensor, class_names: Sequence[str] = ()) -> str:
    """Return the report by class as CSV: class, precision, recall, f1, support."""
    rows = [(r.name, r.precision, r.recall, r.f1, r.support) for r in class_rows(counts, class_names)]
    return as_csv([("class", "precision", "recall", "f1", "support"), *rows])


def confusion_csv(counts: Tensor, class_names: Sequence[str] = ()) -> str:
    """Return the confusion matrix as CSV: a row for each true class, a column for each predicted one."""
    names = names_of(counts, class_names)
    rows = [(name, *row) for name, row in zip(names, counts.tolist(), strict=True)]
    return as_csv([("true \\ predicted", *names), *rows])


def as_csv(rows: Sequence[Sequence[object]]) -> str:
    """Return rows as CSV; texts that a spreadsheet would compute stay texts."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([as_cell(cell) for cell in row] for row in rows)
    return stream.getvalue()


def per_class_lines(counts: Tensor, class_names: Sequence[str] = (), most: int = 40) -> list[str]:
    """Return the report by class as aligned lines; of more than `most` classes, those with the lowest f1."""
    rows = class_rows(counts, class_names)
    classes, means = rows[:-2], rows[-2:]
    left_out = ""
    if len(classes) > most:
        left_out = f"the {most} of {len(classes)} classes with the lowest f1"
        classes = sorted(classes, key=lambda row: (row.f1 != row.f1, row.f1))[:most]
    names = [shown(row.name) for row in (*classes, *means)]
    width = max(map(len, names))
    lines = [f"{'class':<{width}}  {'precision':>9}  {'recall':>9}  {'f1':>9}  {'support':>8}"]
    lines += [f"{left_out}:"] if left_out else []
    for name, row in zip(names, (*classes, *means), strict=True):
        cells = "  ".join(f"{value:>9.4f}" for value in (row.precision, row.recall, row.f1))
        lines.append(f"{name:<{width}}  {cells}  {row.support:>8,}")
    return lines


def confusion_lines(counts: Tensor, class_names: Sequence[str] = (), most: int = 20) -> list[str]:
    """Return the confusion matrix as aligned lines; nothing for more than `most` classes, which no terminal shows."""
    if len(counts) > most:
        return []
    names = [shown(name)[:12] for name in names_of(counts, class_names)]
    cells = [[f"{int(count)}" for count in row] for row in counts.tolist()]
    widths = [max(len(name), *(len(row[k]) for row in cells)) for k, name in enumerate(names)]
    left = max(len("true \\ predicted"), *map(len, names))

    def line(head: str, columns: Sequence[str]) -> str:
        return f"{head:<{left}}  " + "  ".join(f"{c:>{w}}" for c, w in zip(columns, widths, strict=True))

    return [line("true \\ predicted", names), *(line(n, row) for n, row in zip(names, cells, strict=True))]
