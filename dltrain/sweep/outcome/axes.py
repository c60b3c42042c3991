"""The value axis of the charts in the report of a sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dltrain.direction import Mode
from dltrain.sweep.outcome.extent import is_logarithmic


def objective_range(values: Sequence[float], mode: Mode) -> tuple[float, float]:
    """Return the range to draw: the worst tenth may run off the chart's edge rather than flatten the rest."""
    ordered = sorted(values, reverse=mode == "max")
    best, worst = ordered[0], ordered[min(len(ordered) - 1, math.ceil(0.9 * len(ordered)))]
    return min(best, worst), max(best, worst)


@dataclass(frozen=True)
class ValueAxis:
    """An axis of objectives.

    Args:
        cut: which end has values beyond, which are drawn along the edge: "≥", "≤" or ""
    """

    low: float
    high: float
    log: bool = False
    cut: str = ""

    @classmethod
    def of(cls, values: Sequence[float], mode: Mode) -> ValueAxis:
        """Return the axis of some values: logarithmic where a loss is positive and spans more than two decades.

        Cut only where that gives the others at least twice the room.
        """
        least, most = min(values), max(values)
        low, high = objective_range(values, mode)
        scale = math.log if is_logarithmic(least, most, mode) else float
        if high == low or scale(most) - scale(least) < 2 * (scale(high) - scale(low)):
            low, high = least, most
        cut = "≥" if most > high else "≤" if least < low else ""
        return cls(low, high, log=is_logarithmic(low, high, mode), cut=cut)

    @property
    def edge(self) -> float:
        """Return the end with values beyond."""
        return self.low if self.cut == "≤" else self.high
