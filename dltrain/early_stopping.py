"""Early stopping: which evaluation was the best so far, and when to give up (L0, L1, L2, L3)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any, Literal

from dltrain.direction import improves, resolve_mode
from dltrain.errors import CheckpointProblem
from dltrain.ranges import Count, Fraction, NonNegative


class KeepBest:
    """Train to the end; the weights of the best evaluation are kept nevertheless.

        best = argmin (or argmax) of metric over the evaluations

    Keep track of the best evaluation; stop only when the weights stand still, where `tolerance` is given
    (L4).

    metric: a column of metrics.csv, or "gap" for val/loss - train/loss (L1). NaN and inf are never the best.
    mode: whether lower (`min`) or higher (`max`) is better; `auto` follows the metric. Raises ValueError
    where the direction of the metric is not known.

    Use: when the length of training is chosen beforehand, as with most schedules.
    Defaults: the validation loss.
    Lecture: L0 L1 L2 L3

    Args:
        metric: column of metrics.csv, or gap for val/loss − train/loss
        mode: whether lower or higher is better; auto follows the metric
        tolerance: end as converged when ‖W_{t+1} − W_t‖ is below it (L4)
    """

    def __init__(
        self,
        metric: str = "val/loss",
        mode: Literal["auto", "min", "max"] = "auto",
        tolerance: NonNegative | None = None,
    ) -> None:
        self.metric, self.mode, self.tolerance = metric, resolve_mode(metric, mode), tolerance
        self.best: float | None = None
        self.best_step: int | None = None
        self.stop_reason: str | None = None

    def observe(self, row: Mapping[str, float], step: int) -> bool:
        """Take in one evaluation; True if it is the best so far.

        Raises ValueError when the row does not hold the metric.
        """
        return self._is_best(_score(row, self.metric), step)

    def converged(self, update_norm: float) -> bool:
        """Whether one step moved the weights by less than `tolerance` (L4); sets `stop_reason`."""
        if self.tolerance is None or not update_norm < self.tolerance:
            return False
        self.stop_reason = (
            f"one step moved the weights by {update_norm:.3g}, below tolerance {self.tolerance:g}"
        )
        return True

    def state_dict(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key in self._STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update({key: state[key] for key in self._STATE})

    _STATE: tuple[str, ...] = ("best", "best_step", "stop_reason")

    def _is_best(self, score: float, step: int) -> bool:
        if not improves(score, self.best, self.mode):
            return False
        self.best, self.best_step = score, step
        return True


class Patience(KeepBest):
    """Stop when a metric has not improved for a number of evaluations; the best weights are kept.

        stop after patience evaluations without m̂ < (lowest m̂) − min_delta; m ← s·m + (1−s)·metric, m̂ =
        m/(1−sᵗ)

    Stop after `patience` evaluations in a row that do not improve the metric by more than `min_delta`.

    The best evaluation is the one with the best metric; `min_delta` and `smoothing` affect the decision to
    stop only. `min_delta` is absolute, whatever the metric's sign. `smoothing` s counts an improvement of the
    moving average m/(1 - s^t) with m ← s m + (1 - s) metric and m = 0 at first, against stopping on one bad
    evaluation of a fluctuating curve (L1). `tolerance` ends the run as converged when ‖W_{t+1} - W_t‖ falls
    below it (L4). NaN and inf are no improvement and do not enter the moving average.

    Symbols: s = smoothing, t = number of evaluations; best = the evaluation with the best metric, not
        smoothed
    Use: against overfitting, and to spend no more time than needed; smoothing for fluctuating curves (L1).
    Defaults: patience 10 evaluations, no smoothing.
    Paper: Prechelt 1998
    Lecture: L0 L1 L2 L3 L4

    Args:
        metric: column of metrics.csv, or gap for val/loss − train/loss (L1)
        mode: whether lower or higher is better; auto follows the metric
        patience: evaluations in a row without improvement
        min_delta: an improvement must exceed it; absolute, whatever the sign of the metric
        smoothing: share of the moving average that is kept, for the decision to stop alone; 0 = none
        tolerance: end as converged when ‖W_{t+1} − W_t‖ is below it (L4)
    """

    _STATE = ("best", "best_step", "stop_reason", "reference", "stale", "average", "averaged")

    def __init__(
        self,
        metric: str = "val/loss",
        mode: Literal["auto", "min", "max"] = "auto",
        patience: Count = 10,
        min_delta: NonNegative = 0.0,
        smoothing: Fraction = 0.0,
        tolerance: NonNegative | None = None,
    ) -> None:
        super().__init__(metric, mode, tolerance)
        self.patience, self.min_delta, self.smoothing = patience, min_delta, smoothing
        self.reference: float | None = None  # the smoothed score that must be beaten by min_delta
        self.stale = 0  # evaluations since it was
        self.average = 0.0  # m, biased towards its start at 0
        self.averaged = 0  # t, the number of scores in it

    def observe(self, row: Mapping[str, float], step: int) -> bool:
        """Take in one evaluation; True if it is the best so far. Sets `stop_reason` when patience has run out.

        Raises ValueError when the row does not hold the metric.
        """
        score = _score(row, self.metric)
        smoothed = self.smooth(score)
        if improves(smoothed, self.reference, self.mode, self.min_delta):
            self.reference, self.stale = smoothed, 0
        else:
            self.stale += 1
        best = self._is_best(score, step)
        if self.stale >= self.patience:
            what = f"smoothed {self.metric}" if self.smoothing else self.metric
            self.stop_reason = f"{what} has not improved for {self.stale} evaluations{self._where()}"
        return best

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a saved state. Raises CheckpointProblem for one whose best evaluation was chosen by a smoothed metric."""
        super().load_state_dict(_without_first_format(state, self.smoothing))

    def _where(self) -> str:
        return "" if self.best is None else f" (best {self.best:.6g} at step {self.best_step})"

    def smooth(self, score: float) -> float:
        """Take a score into the moving average, and return that without the bias of its start; NaN and inf as they are."""
        if not math.isfinite(score) or self.smoothing == 0:
            return score
        self.averaged += 1
        self.average = self.smoothing * self.average + (1 - self.smoothing) * score
        return self.average / (1 - self.smoothing**self.averaged)


def _without_first_format(state: dict[str, Any], smoothing: float) -> dict[str, Any]:
    """Return a state in today's format; the first one kept a moving average that also chose the best evaluation."""
    if "smoothed" not in state:
        return state
    if smoothing > 0 and state["smoothed"] is not None:
        raise CheckpointProblem(
            "an earlier version began it, which took the lowest or highest moving average (early_stopping.smoothing="
            f"{smoothing:g}) for the best evaluation; now the average decides when to stop only."
        )
    return {key: value for key, value in state.items() if key != "smoothed"} | {"average": 0.0, "averaged": 0}


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
