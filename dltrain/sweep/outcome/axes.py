"""The axes of the pictures in report.html: their range, their ticks and labels, and where a value is drawn."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dltrain.direction import Mode
from dltrain.sweep.outcome.extent import Extent, is_logarithmic

Tick = tuple[float, str]
# width of a character and least distance of two ticks, in the units of the pictures
CHARACTER, APART = 7.0, 14.0
LONGEST = 16  # characters of a label


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return the linear map of [low, high] on [start, end]."""
    span = high - low or 1.0
    return lambda v: start + (v - low) / span * (end - start)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return the multiples of 1, 2 or 5 times a power of ten in a range, at most about `most`."""
    rough = (high - low) / most
    if not rough > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(k * power for k in (1, 2, 5, 10) if k * power >= 0.999 * rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)]


def objective_range(values: Sequence[float], mode: Mode) -> tuple[float, float]:
    """Return the range to draw: the worst tenth may run off the picture's edge rather than flatten the rest."""
    ordered = sorted(values, reverse=mode == "max")
    best, worst = ordered[0], ordered[min(len(ordered) - 1, math.ceil(0.9 * len(ordered)))]
    return min(best, worst), max(best, worst)


@dataclass(frozen=True)
class ValueAxis:
    """An axis of objectives from the pixel `start` (low) to `end` (high).

    Args:
        cut: which end has values beyond: "≥", "≤" or ""
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    cut: str = ""

    @classmethod
    def of(cls, values: Sequence[float], mode: Mode, start: float, end: float) -> ValueAxis:
        """Return the axis of some values: logarithmic where a loss is positive and spans more than two decades."""
        least, most = min(values), max(values)
        if is_logarithmic(least, most, mode):
            return cls(least, most, start, end, log=True)
        low, high = objective_range(values, mode)
        # cut only where that gives the others at least twice the room
        if most - least < 2 * (high - low) or high == low:
            low, high = least, most
        return cls(low, high, start, end, cut="≥" if most > high else "≤" if least < low else "")

    def at(self, value: float) -> float:
        """Return where a value is drawn: at the edge where it lies beyond."""
        known = math.log if self.log else float
        place = scale(known(self.low), known(self.high), self.start, self.end)
        return place(known(min(self.high, max(self.low, value))))

    @property
    def marks(self) -> list[Tick]:
        """Return the places and the labels of the ticks; an end with values beyond says so."""
        if self.log:
            decades = Extent(
                10 ** math.floor(math.log10(self.low)), 10 ** math.ceil(math.log10(self.high))
            ).decades
            return [(self.at(v), f"{v:g}") for v in decades if 0.999 * self.low <= v <= 1.001 * self.high]
        found = [(self.at(v), f"{v:g}") for v in ticks(self.low, self.high, 5)]
        if self.cut:
            edge = self.high if self.cut == "≥" else self.low
            place = self.at(edge)
            found = [(y, text) for y, text in found if abs(y - place) > APART] + [
                (place, f"{self.cut} {edge:.3g}")
            ]
        return found


def width_of(labels: Sequence[str]) -> float:
    """Return about the width of the widest label."""
    return CHARACTER * max(map(len, labels), default=0)


def labels_left(axis: ValueAxis, right: float, grid: float = 0.0) -> str:
    """Draw the ticks of a vertical axis, their labels ending at `right`, with lines of so much length."""
    return "".join(
        (f'<path class="axis" d="M{right + 6:.1f} {y:.1f}h{grid:.1f}"/>' if grid else "")
        + f'<text x="{right:.1f}" y="{y + 4:.1f}" text-anchor="end">{html.escape(label)}</text>'
        for y, label in axis.marks
    )


def labels_below(ticks: list[Tick], y: float) -> tuple[str, float]:
    """Draw the labels of a horizontal axis, slanted where they would touch, and return the height of the picture."""
    places = sorted(x for x, _ in ticks)
    gap = min((b - a for a, b in pairwise(places)), default=math.inf)
    labels = [(x, shortened(label)) for x, label in ticks]
    width = width_of([label for _, label in labels])
    if width + 6 <= gap:
        return "".join(
            f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{html.escape(label)}</text>'
            for x, label in labels
        ), y + 7
    return "".join(
        f'<text transform="translate({x + 4:.1f} {y - 4}) rotate(-35)" text-anchor="end">{html.escape(label)}</text>'
        for x, label in labels
    ), y + 4 + 0.6 * width


def shortened(label: str) -> str:
    """Return a label that is not longer than `LONGEST`."""
    return label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"


def label_beside(x: float, y: float, label: str, first: bool, last: bool) -> str:
    """Draw the label of a tick of parallel coordinates, where lines do not strike through it."""
    if first:
        return f'<text x="{x - 6:.1f}" y="{y:.1f}" text-anchor="end">{html.escape(label)}</text>'
    width = width_of([label]) + 6
    ground = (
        ""
        if last
        else f'<rect class="ground" x="{x + 4:.1f}" y="{y - 11:.1f}" width="{width:.1f}" height="15" rx="2"/>'
    )
    return f'{ground}<text x="{x + 7:.1f}" y="{y:.1f}">{html.escape(label)}</text>'
