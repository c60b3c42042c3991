"""Early stopping: which evaluation was the best so far, and when to give up (L0, L1, L2, L3)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any, Literal

Mode = Literal["min", "max"]


class KeepBest:
    """Keep track of the best evaluation and never stop.

    metric: a column of metrics.csv, or "gap" for val/loss - train/loss (L1). NaN and inf are never the best.
    """

    def __init__(self, metric: str = "val/loss", mode: Mode = "min") -> None:
        self.metric, self.mode = metric, mode
        self.best: float | None = None
        self.best_step: int | None = None
        self.stop_reason: str | None = None

    def observe(self, row: Mapping[str, float], step: int) -> bool:
        """Take in one evaluation; True if it is the best so far.

        Raises ValueError when the row does not hold the metric.
        """
        return self._is_best(_score(row, self.metric), step)

    def converged(self, update_norm: float) -> bool:
        """Whether training stands still; without a tolerance never."""
        return False

    def state_dict(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key in self._STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update({key: state[key] for key in self._STATE})

    _STATE: tuple[str, ...] = ("best", "best_step", "stop_reason")

    def _is_best(self, score: float, step: int) -> bool:
        if not _better(score, self.best, self.mode, 0.0):
            return False
        self.best, self.best_step = score, step
        return True


class Patience(KeepBest):
    """Stop after `patience` evaluations in a row that do not improve the metric by more than `min_delta`.

    The best evaluation is the best outright; `min_delta` (absolute, whatever the metric's sign) only decides
    whether the count begins anew. `smoothing` s replaces the score by its moving average m ← s m + (1 - s)
    score, against stopping on one bad evaluation of a fluctuating curve (L1). `tolerance` ends the run as
    converged when ‖W_{t+1} - W_t‖ falls below it (L4). NaN and inf are no improvement and do not enter the
    moving average.
    """

    _STATE = ("best", "best_step", "stop_reason", "reference", "stale", "smoothed")

    def __init__(
        self,
        metric: str = "val/loss",
        mode: Mode = "min",
        patience: int = 10,
        min_delta: float = 0.0,
        smoothing: float = 0.0,
        tolerance: float | None = None,
    ) -> None:
        super().__init__(metric, mode)
        self.patience, self.min_delta, self.smoothing, self.tolerance = (
            patience,
            min_delta,
            smoothing,
            tolerance,
        )
        self.reference: float | None = None  # the score that must be beaten by min_delta
        self.stale = 0  # evaluations since it was
        self.smoothed: float | None = None

    def observe(self, row: Mapping[str, float], step: int) -> bool:
        """Take in one evaluation; True if it is the best so far. Sets `stop_reason` when patience has run
        out.

        Raises ValueError when the row does not hold the metric.
        """
        score = self._smooth(_score(row, self.metric))
        if _better(score, self.reference, self.mode, self.min_delta):
            self.reference, self.stale = score, 0
        else:
            self.stale += 1
        best = self._is_best(score, step)
        if self.stale >= self.patience:
            self.stop_reason = f"{self.metric} has not improved for {self.stale} evaluations{self._where()}"
        return best

    def converged(self, update_norm: float) -> bool:
        """Whether one step moved the weights by less than `tolerance` (L4); sets `stop_reason`."""
        if self.tolerance is None or not update_norm < self.tolerance:
            return False
        self.stop_reason = (
            f"one step moved the weights by {update_norm:.3g}, below tolerance {self.tolerance:g}"
        )
        return True

    def _where(self) -> str:
        return "" if self.best is None else f" (best {self.best:.6g} at step {self.best_step})"

    def _smooth(self, score: float) -> float:
        if not math.isfinite(score):
            return score
        before = score if self.smoothed is None else self.smoothed
        self.smoothed = self.smoothing * before + (1 - self.smoothing) * score
        return self.smoothed


def _better(score: float, best: float | None, mode: Mode, min_delta: float) -> bool:
    """Whether a score beats the best by more than `min_delta`; NaN and inf never do."""
    if best is None or not math.isfinite(score):
        return math.isfinite(score)
    return score < best - min_delta if mode == "min" else score > best + min_delta


def _score(row: Mapping[str, float], metric: str) -> float:
    if metric == "gap":
        return _score(row, "val/loss") - _score(row, "train/loss")
    if metric in row:
        return row[metric]
    near = difflib.get_close_matches(metric, row, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(
        f"early_stopping.metric is {metric!r}, which this run does not measure; it must be one of "
        f"{', '.join([*row, 'gap'])}{hint}"
    )
