"""Early stopping: track the best evaluation and decide when to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dltrain.direction import Choice, improves, resolve_mode
from dltrain.errors import CheckpointProblem
from dltrain.ranges import Count, Fraction, NonNegative
from dltrain.text import close


class KeepBest:
    """Train to the end and keep the weights of the best evaluation.

        best = argmin (or argmax) of metric over the evaluations
        stop if ‖w_{t+1} − w_t‖ < tolerance

    NaN and inf are never the best. Raises ValueError for mode=auto if the direction of the metric is unknown.

    Symbols: w_t all weights after step t
    Use: when the length of training is chosen in advance, as with most schedules.
    Defaults: the validation loss; no tolerance.
    Lecture: L0 L1 L2 L3 L4

    Args:
        metric: column of metrics.csv, or gap for |val/loss − train/loss|, which does not say how low the loss is; train/loss is
            the mean over the steps since the last evaluation
        mode: whether lower (min) or higher (max) is better; auto follows the metric
        tolerance: smallest norm of an update, below which training stops as converged; the small updates of a warm-up of lr
            count, so that it must be below those of its first steps
    """

    def __init__(
        self,
        metric: str = "val/loss",
        mode: Choice = "auto",
        tolerance: NonNegative | None = None,
    ) -> None:
        self.metric, self.mode, self.tolerance = metric, resolve_mode(metric, mode), tolerance
        self.best: float | None = None
        self.best_step: int | None = None
        self.stop_reason: str | None = None

    def observe(self, row: Mapping[str, float], step: int) -> bool:
        """Record one evaluation and return whether it is the best so far.

        Raises ValueError if the row does not contain the metric.
        """
        return self._is_best(_score(row, self.metric), step)

    def restart(self) -> None:
        """Take back what the last evaluation decided about stopping: it is of weights without all that was planned."""

    def converged(self, update_norm: float) -> bool:
        """Return whether one step moved the weights by less than `tolerance`, and set `stop_reason` if so."""
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

    @property
    def note(self) -> str:
        """Return what the header adds about which weights are kept; nothing where it is the best evaluation by the metric."""
        return ""

    def _is_best(self, score: float, step: int) -> bool:
        if not improves(score, self.best, self.mode):
            return False
        self.best, self.best_step = score, step
        return True


class Patience(KeepBest):
    """Stop when a metric has not improved for a number of evaluations, and keep the best weights.

        m ← s·m + (1 − s)·metric, m̂ = m/(1 − sᵏ)
        improved if m̂ < best m̂ − min_delta (mode=max: m̂ > best m̂ + min_delta)
        stop after patience evaluations without improvement, or if ‖w_{t+1} − w_t‖ < tolerance

    smoothing and min_delta decide when to stop, and nothing else: the weights kept are those of the single evaluation with
    the best metric itself. An evaluation that gives NaN or inf is no improvement, counts for patience, and is left out of m;
    the reason for stopping says how many there were. Evaluations before an average of the weights begins (averaging=swa,
    start_step) and before frozen parameters thaw (thaw_epoch) do not count: patience waits for what was planned, and the
    header names the step. Those during a warm-up of lr count. Raises ValueError for mode=auto if the direction of the metric
    is unknown.

    Symbols: s = smoothing; k the number of the evaluation, from 1; best m̂ at the last improvement; w_t all weights
        after step t
    Use: against overfitting, and to train no longer than needed; smoothing for fluctuating curves.
    Defaults: 10 evaluations, no smoothing, no tolerance.
    Paper: Prechelt 1998
    Lecture: L0 L1 L2 L3 L4

    Args:
        metric: column of metrics.csv, or gap for |val/loss − train/loss|, which does not say how low the loss is; train/loss is
            the mean over the steps since the last evaluation
        mode: whether lower (min) or higher (max) is better; auto follows the metric
        patience: evaluations in a row without improvement
        min_delta: change that an improvement must exceed to reset patience, in the units of the metric; the best weights are
            those of the best metric, by however little
        smoothing: weight of the previous average of the metric that patience compares; 0 disables it; the best weights are
            those of the best single evaluation
        tolerance: smallest norm of an update, below which training stops as converged; the small updates of a warm-up of lr
            count, so that it must be below those of its first steps
    """

    _STATE = ("best", "best_step", "stop_reason", "reference", "stale", "average", "averaged", "not_finite")

    def __init__(
        self,
        metric: str = "val/loss",
        mode: Choice = "auto",
        patience: Count = 10,
        min_delta: NonNegative = 0.0,
        smoothing: Fraction = 0.0,
        tolerance: NonNegative | None = None,
    ) -> None:
        super().__init__(metric, mode, tolerance)
        self.patience, self.min_delta, self.smoothing = patience, min_delta, smoothing
        # best m̂, which must be beaten by min_delta, and the evaluations since
        self.reference: float | None = None
        self.stale = 0
        # those of them whose metric was NaN or inf
        self.not_finite = 0
        # m, which is biased toward 0, and k
        self.average = 0.0
        self.averaged = 0

    def observe(self, row: Mapping[str, float], step: int) -> bool:
        """Record one evaluation and return whether it is the best so far; set `stop_reason` when patience runs out.

        Raises ValueError if the row does not contain the metric.
        """
        score = _score(row, self.metric)
        smoothed = self.smooth(score)
        if improves(smoothed, self.reference, self.mode, self.min_delta):
            self.reference, self.stale, self.not_finite = smoothed, 0, 0
        else:
            self.stale += 1
            self.not_finite += not math.isfinite(score)
        best = self._is_best(score, step)
        if self.stale >= self.patience:
            what = f"smoothed {self.metric}" if self.smoothing else self.metric
            broken = f", {self.not_finite} of them not a finite number" if self.not_finite else ""
            self.stop_reason = f"{what} has not improved for {self.stale} evaluations{broken}{self._where()}"
        return best

    def restart(self) -> None:
        """Count the evaluations without improvement from 0."""
        self.stale = self.not_finite = 0
        self.stop_reason = None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a saved state. Raises CheckpointProblem if its best evaluation was chosen by the smoothed metric."""
        # earlier versions did not count `not_finite`
        super().load_state_dict({"not_finite": 0} | _without_first_format(state, self.smoothing))

    @property
    def note(self) -> str:
        """Return which weights are kept, where patience compares something else than the metric itself; else nothing."""
        settings = {"smoothing": self.smoothing, "min_delta": self.min_delta}
        given = [f"{key} {value:g}" for key, value in settings.items() if value]
        if not given:
            return ""
        return f"{' and '.join(given)} for stopping only; the weights of the best single evaluation are kept"

    def _where(self) -> str:
        return "" if self.best is None else f" (best {self.best:.6g} at step {self.best_step})"

    def smooth(self, score: float) -> float:
        """Update the moving average and return it without its bias toward 0; return NaN and inf unchanged."""
        if not math.isfinite(score) or self.smoothing == 0:
            return score
        self.averaged += 1
        self.average = self.smoothing * self.average + (1 - self.smoothing) * score
        return self.average / (1 - self.smoothing**self.averaged)


def _without_first_format(state: dict[str, Any], smoothing: float) -> dict[str, Any]:
    """Return a state in the current format; in the first one, the moving average also chose the best evaluation."""
    if "smoothed" not in state:
        return state
    if smoothing > 0 and state["smoothed"] is not None:
        raise CheckpointProblem(
            "an earlier version began it, which took the lowest or highest moving average (early_stopping.smoothing="
            f"{smoothing:g}) for the best evaluation; now the average decides when to stop only."
        )
    kept = {key: value for key, value in state.items() if key != "smoothed"}
    return kept | {"average": 0.0, "averaged": 0}


def _score(row: Mapping[str, float], metric: str) -> float:
    if metric == "gap":
        return abs(_score(row, "val/loss") - _score(row, "train/loss"))
    if metric in row:
        return row[metric]
    near = close(metric, row)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(
        f"early_stopping.metric is {metric!r}, which this run does not measure; it must be one of "
        f"{', '.join([*row, 'gap'])}{hint}"
    )
