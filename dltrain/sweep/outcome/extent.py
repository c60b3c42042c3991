"""What fits into a figure of curves: the range of its value axis, and the place and the lines of its legend."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dltrain.direction import Mode

DECADES = 2
# interquartile ranges beyond which a value is an outlier (Tukey's far out values), and how much of the axis the others must lose
FAR, FLATTENED = 3.0, 4.0
# share of the height that belongs to the plot, and of the width that the legend may take
PLOT, LEGEND = 0.6, 0.45
# height in points of the stroke that stands for a curve, with its box
SYMBOL = 15.0


@dataclass(frozen=True)
class Extent:
    """The range of the value axis.

    Args:
        note: what is not seen, as text; "" where all is
    """

    low: float
    high: float
    log: bool = False
    note: str = ""

    @property
    def decades(self) -> list[float]:
        """Return the ticks of a logarithmic axis: powers of ten, at most eight."""
        first, last = round(math.log10(self.low)), round(math.log10(self.high))
        return [10.0**power for power in range(first, last + 1, math.ceil((last - first) / 7))]


def extent_of(rows: Sequence[Mapping[str, Any]], mode: Mode | None) -> Extent:
    """Return the range in which curves are drawn, from their `mean`, `low`, `high` and `least`, the smallest single value.

    A loss that is positive and spans more than two decades gets a logarithmic scale. Else values are cut that are more than three
    interquartile ranges beyond the quartiles, where they would leave the others less than a quarter of the axis. Intervals extend the
    range by half at most, not below zero where no value is, and not above one for a score such as the accuracy; the note counts those
    that reach beyond.
    """
    means = [row["mean"] for row in rows]
    floor = 0.0 if min(row["least"] for row in rows) >= 0 else -math.inf
    least, most = min(means), max(means)
    ceiling = 1.0 if mode == "max" and most <= 1 else math.inf
    if is_logarithmic(least, most, mode):
        low, high = 10 ** math.floor(math.log10(least)), 10 ** math.ceil(math.log10(most))
        return Extent(low, high, log=True, note=_cut(rows, low, high))
    low, high = _without_outliers(means)
    margin = (high - low or abs(high) or 1.0) / 2
    ends = (
        max(floor, low - margin, min(row["low"] for row in rows)),
        min(ceiling, high + margin, max(row["high"] for row in rows)),
    )
    # a cut axis ends where the text says
    low = low if least < low else min(low, ends[0])
    high = high if most > high else max(high, ends[1])
    return Extent(low, high, note=_cut(rows, low, high))


def _cut(rows: Sequence[Mapping[str, Any]], low: float, high: float) -> str:
    """Return how many values, and how many intervals, reach beyond a range; "" where none does."""
    parts = []
    for what, top, bottom in (("values", "mean", "mean"), ("intervals", "high", "low")):
        # where the interval is not known, its ends are the mean
        known = [row for row in rows if what == "values" or row["low"] < row["high"]]
        above, below = sum(row[top] > high for row in known), sum(row[bottom] < low for row in known)
        found = [f"{above} above {high:.3g}"] * (above > 0) + [f"{below} below {low:.3g}"] * (below > 0)
        if found:
            parts.append(f"{' and '.join(found)} of {len(known)} {what}")
    return f"cut: {', '.join(parts)}" if parts else ""


def is_logarithmic(least: float, most: float, mode: Mode | None) -> bool:
    """Return whether an axis of objectives is logarithmic: a loss that is positive and spans more than two decades."""
    return mode == "min" and least > 0 and most > 10**DECADES * least


def _without_outliers(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of the values, without outliers where they flatten the others."""
    low, high = min(values), max(values)
    if len(values) < 4:
        return low, high
    first, _, third = statistics.quantiles(values, n=4)
    inner = [v for v in values if first - FAR * (third - first) <= v <= third + FAR * (third - first)]
    if not inner or max(inner) == min(inner) or high - low < FLATTENED * (max(inner) - min(inner)):
        return low, high
    return min(inner), max(inner)


@dataclass(frozen=True)
class Legend:
    """Where a legend is, and how many curves it has place for.

    Args:
        columns: of a legend below the plot
        limit: greatest length of a label in points; 0 for none
    """

    beside: bool
    columns: int
    most: int
    limit: float = 0.0


def legend_of(names: Sequence[str], width: float, height: float, font_size: float, titled: bool) -> Legend:
    """Return a legend beside the plot, or below it where the names are long; the plot keeps 60 % of the height.

    Args:
        width: of the figure in points
        height: of the figure in points
        font_size: in points
        titled: whether a title is above
    """
    line, symbol = max(1.25 * font_size, SYMBOL) + 1.2, 34.0
    entry = 0.55 * font_size * max(map(len, names)) + symbol
    if entry <= LEGEND * width:
        return Legend(True, 1, max(2, int(height / line)))
    room = width - 5 * font_size
    columns = max(1, int(room / entry))
    axis = 3.9 * font_size + (2 * font_size if titled else 0)
    return Legend(
        False, columns, max(2, columns * int(((1 - PLOT) * height - axis) / line)), max(20.0, room - symbol)
    )
