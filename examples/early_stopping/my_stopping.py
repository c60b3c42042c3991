"""A rule of a user's own for when to stop: as soon as a metric is good enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from dltrain.early_stopping import KeepBest


class Enough(KeepBest):
    """Stop at the first evaluation whose metric reaches a value, and keep its weights.

    Args:
        metric: column of metrics.csv
        mode: whether lower (min) or higher (max) is better; auto follows the metric
        goal: value to reach
    """

    _STATE = (*KeepBest._STATE, "evaluations")

    def __init__(
        self,
        metric: str = "val/accuracy",
        mode: Literal["auto", "min", "max"] = "auto",
        goal: float = 0.9,
    ) -> None:
        super().__init__(metric, mode)
        self.goal, self.evaluations = goal, 0

    def observe(self, row: Mapping[str, float], step: int) -> bool:
        """Record one evaluation, and return whether it is the best so far."""
        best = super().observe(row, step)
        self.evaluations += 1
        value = row[self.metric]
        if value >= self.goal if self.mode == "max" else value <= self.goal:
            self.stop_reason = f"{self.metric} is {value:.4g} after {self.evaluations} evaluations"
        return best
