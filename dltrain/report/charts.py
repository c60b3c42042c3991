"""Arrange the columns of metrics.csv in charts, as the data that charts.js draws."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from dltrain.report.record import Record, Row, columns_of
from dltrain.storage.summary import column_of

# numbers in the page, which bound its size; a curve has at most as many points as a wide screen has columns
MOST_NUMBERS = 100_000
MOST_POINTS = 2_000
FEWEST_POINTS = 50
LONGEST_NAME = 80
CURVES, DIAGNOSTICS, SPEED = "curves", "diagnostics", "speed"
AXES = ("epoch", "step", "seconds")


def charts_of(record: Record) -> dict[str, Any]:
    """Return the data of all charts: x, the best epoch, and for each chart its place, title and series.

    A column with fewer than two finite values has no curve. Of long runs the rows are thinned out evenly (`every`), and the
    columns that do not fit are named in `left_out`.
    """
    columns = [name for name in columns_of(record.rows) if name not in AXES and len(record.column(name)) > 1]
    shown = sorted(columns, key=lambda name: place_of(name)[0] != CURVES)[: MOST_NUMBERS // FEWEST_POINTS]
    points = min(MOST_POINTS, MOST_NUMBERS // max(1, len(shown)))
    every = max(1, math.ceil(len(record.rows) / points))
    rows = thinned(record.rows, every, record.best)
    charts: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name in sorted(shown, key=lambda name: order_of(name, record.metric)):
        place, title, series = place_of(name)
        values = [rounded(row.get(name, math.nan)) for row in rows]
        charts.setdefault((place, title), []).append({"name": series[:LONGEST_NAME], "values": values})
    return {
        "x": [rounded(row.get("epoch", row["step"])) for row in rows],
        "best": rounded(record.best.get("epoch", math.nan)),
        "every": every,
        "left_out": [name for name in columns if name not in shown],
        "charts": [
            {"place": place, "title": title[:LONGEST_NAME], "series": series}
            for (place, title), series in charts.items()
        ],
    }


def place_of(column: str) -> tuple[str, str, str]:
    """Return the section, the chart and the name of the curve of a column.

    >>> place_of("val/loss"), place_of("layers/head/gradient")
    (('curves', 'loss', 'val'), ('diagnostics', 'layers: gradient', 'head'))
    """
    first, *others = column.split("/")
    if column == "images_per_second":
        return SPEED, "samples/s", "samples/s"
    if not others:
        return CURVES, column, column
    if first in ("train", "val"):
        return CURVES, "/".join(others), first
    if len(others) == 1:
        return DIAGNOSTICS, column, others[0]
    return DIAGNOSTICS, f"{first}: {others[-1]}", "/".join(others[:-1])


def order_of(column: str, metric: str) -> tuple[object, ...]:
    """Return the sort key of a column: loss first, then the metric, other metrics, lr and gradient norm; train before val."""
    _, title, series = place_of(column)
    first = [title != "loss", title != metric.rpartition("/")[2], "/" not in column, title == "grad_norm"]
    return (*first, series != "train")


def thinned(rows: Sequence[Row], every: int, best: Row) -> list[Row]:
    """Return every k-th row, and the last and the best one."""
    steps = column_of(rows, "step")
    found = next((i for i, step in enumerate(steps) if step == best.get("step")), 0)
    return [rows[i] for i in sorted({*range(0, len(rows), every), *range(len(rows))[-1:], found}) if rows]


def rounded(value: float) -> float | None:
    """Return a number with six significant digits; None where it is not finite, which JSON does not know."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def layer_table(row: Row) -> tuple[list[str], dict[str, dict[str, float]]]:
    """Return quantities and, by layer, their values in a row, from the columns `layers/LAYER/QUANTITY`."""
    found: dict[str, dict[str, float]] = {}
    for name, value in row.items():
        parts = name.split("/")
        if parts[0] == "layers" and len(parts) > 2:
            found.setdefault("/".join(parts[1:-1]), {})[parts[-1]] = value
    return unique(quantity for values in found.values() for quantity in values), found


def unique(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))
