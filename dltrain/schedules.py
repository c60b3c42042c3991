"""Schedules: functions of the step that scale the learning rate, give the momentum, or scale the penalties.

A factory `(total_steps, steps_per_epoch, **keys)` returns a `Schedule`. All of them map one shape, which
falls from 1 to 0, to the values between `start` and `end`: `end + (start - end) * shape(step)`. So one family
serves three knobs: lr (1 to 0), momentum (0.5 to 0.9) and the strength of penalties (0 to 1).

The run has the steps 0 to total_steps - 1; `end` is reached at total_steps, so that the last step still
moves. A warm-up of w steps multiplies `start` by 1/(w+1), 2/(w+1), ... w/(w+1); the schedule then runs over
what is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from dltrain.direction import Choice, improves, resolve_mode

Unit = Literal["epochs", "steps"]


class Schedule(Protocol):
    """The value at a 0-based step; valid past the end of the run too."""

    def __call__(self, step: int) -> float: ...


@dataclass(frozen=True)
class _Span:
    """What the schedule runs over: `length` steps that begin after `warmup` of them."""

    warmup: int
    length: int
    steps_per_epoch: int

    def share(self, step: int) -> float:
        return min(step, self.length) / self.length

    def elapsed(self, step: int, unit: Unit) -> int:
        """Steps taken or epochs completed since the end of the warm-up."""
        return step if unit == "steps" else step // self.steps_per_epoch

    def schedule(self, value: Callable[[int], float]) -> Schedule:
        def warmed(step: int) -> float:
            if step < self.warmup:
                return value(0) * (step + 1) / (self.warmup + 1)
            return value(step - self.warmup)

        return warmed


def _span(total_steps: int, steps_per_epoch: int, warmup_steps: int, warmup_epochs: float) -> _Span:
    if warmup_steps and warmup_epochs:
        raise ValueError(
            f"warmup_steps is {warmup_steps} and warmup_epochs is {warmup_epochs}; at most one may be "
            "above 0: set the other to 0"
        )
    key, value = ("warmup_steps", warmup_steps) if warmup_steps else ("warmup_epochs", warmup_epochs)
    warmup = warmup_steps or round(warmup_epochs * steps_per_epoch)
    if warmup >= total_steps:
        raise ValueError(
            f"{key} is {value}, which takes {warmup} steps; the run has {total_steps} and the warm-up must "
            "end before: lower it or train for more epochs"
        )
    return _Span(warmup, total_steps - warmup, steps_per_epoch)


def _between(start: float, end: float, shape: float) -> float:
    return end + (start - end) * shape


def constant(
    total_steps: int,
    steps_per_epoch: int,
    start: float = 1.0,
    warmup_steps: int = 0,
    warmup_epochs: float = 0.0,
) -> Schedule:
    """The same value throughout (L3)."""
    return _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs).schedule(lambda step: start)


def step(
    total_steps: int,
    steps_per_epoch: int,
    factor: float = 0.5,
    every_epochs: int = 5,
    every_steps: int | None = None,
    start: float = 1.0,
    end: float = 0.0,
    warmup_steps: int = 0,
    warmup_epochs: float = 0.0,
) -> Schedule:
    """Multiply by `factor` every so many epochs, or steps where `every_steps` is given (L2, L3).

    Raises ValueError when the period is as long as the run, since nothing would ever happen.
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    period = every_steps or every_epochs * steps_per_epoch
    if period >= span.length:
        key, value = ("every_steps", every_steps) if every_steps else ("every_epochs", every_epochs)
        raise ValueError(
            f"{key} is {value}, a period of {period} steps; the schedule has {span.length} and the "
            "first change must come before: lower it or train for more epochs"
        )
    return span.schedule(lambda step: _between(start, end, factor ** (step // period)))


def multistep(
    total_steps: int,
    steps_per_epoch: int,
    factor: float = 0.1,
    milestones: list[float] | None = None,
    unit: Literal["share", "epochs", "steps"] = "share",
    start: float = 1.0,
    end: float = 0.0,
    warmup_steps: int = 0,
    warmup_epochs: float = 0.0,
) -> Schedule:
    """Multiply by `factor` at each milestone, counted from the end of the warm-up (L2, L3; He 2015).

    Raises ValueError for a milestone that is not inside the run.
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    given = [0.5, 0.75] if milestones is None else milestones
    scale = {"share": span.length, "epochs": steps_per_epoch, "steps": 1}[unit]
    at = [math.ceil(milestone * scale - 1e-9) for milestone in given]
    for milestone, position in zip(given, at, strict=True):
        if not 0 < position < span.length:
            raise ValueError(
                f"milestones holds {milestone} (unit={unit}), step {position} of {span.length}; "
                f"a milestone must lie inside the run, {_inside(unit, span)}: change it, train for more "
                "epochs, or choose unit=share|epochs|steps"
            )
    return span.schedule(
        lambda step: _between(start, end, factor ** sum(step >= position for position in at))
    )


def _inside(unit: str, span: _Span) -> str:
    last = {"share": 1.0, "epochs": span.length / span.steps_per_epoch, "steps": span.length}[unit]
    return f"above 0 and below {last:g}"


def exponential(
    total_steps: int,
    steps_per_epoch: int,
    rate: float = 0.1,
    unit: Unit = "epochs",
    start: float = 1.0,
    end: float = 0.0,
    warmup_steps: int = 0,
    warmup_epochs: float = 0.0,
) -> Schedule:
    """exp(-rate * t), with t the completed epochs or the steps (L2, L3)."""
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    return span.schedule(lambda step: _between(start, end, math.exp(-rate * span.elapsed(step, unit))))


def inverse(
    total_steps: int,
    steps_per_epoch: int,
    rate: float = 0.1,
    unit: Unit = "epochs",
    start: float = 1.0,
    end: float = 0.0,
    warmup_steps: int = 0,
    warmup_epochs: float = 0.0,
) -> Schedule:
    """1 / (1 + rate * t), with t the completed epochs or the steps (L3)."""
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    return span.schedule(lambda step: _between(start, end, 1 / (1 + rate * span.elapsed(step, unit))))


def inverse_sqrt(
    total_steps: int,
    steps_per_epoch: int,
    unit: Unit = "epochs",
    start: float = 1.0,
    end: float = 0.0,
    warmup_steps: int = 0,
    warmup_epochs: float = 0.0,
) -> Schedule:
    """1 / sqrt(k), with k the number of the epoch or of the step, from 1 (L0, L1, L3)."""
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    return span.schedule(lambda step: _between(start, end, (1 + span.elapsed(step, unit)) ** -0.5))


def inverse_k(
    total_steps: int,
    steps_per_epoch: int,
    unit: Unit = "epochs",
    start: float = 1.0,
    end: float = 0.0,
    warmup_steps: int = 0,
    warmup_epochs: float = 0.0,
) -> Schedule:
    """1 / k, with k the number of the epoch or of the step, from 1 (L0, L3)."""
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    return span.schedule(lambda step: _between(start, end, 1 / (1 + span.elapsed(step, unit))))


def linear(
    total_steps: int,
    steps_per_epoch: int,
    start: float = 1.0,
    end: float = 0.0,
    warmup_steps: int = 0,
    warmup_epochs: float = 0.0,
) -> Schedule:
    """A straight line from `start` to `end` over the run."""
    return polynomial(total_steps, steps_per_epoch, 1.0, start, end, warmup_steps, warmup_epochs)


def polynomial(
    total_steps: int,
    steps_per_epoch: int,
    power: float = 2.0,
    start: float = 1.0,
    end: float = 0.0,
    warmup_steps: int = 0,
    warmup_epochs: float = 0.0,
) -> Schedule:
    """(1 - t/T) ** power over the run."""
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    return span.schedule(lambda step: _between(start, end, (1 - span.share(step)) ** power))


def cosine(
    total_steps: int,
    steps_per_epoch: int,
    start: float = 1.0,
    end: float = 0.0,
    warmup_steps: int = 0,
    warmup_epochs: float = 0.0,
) -> Schedule:
    """Half a cosine wave from `start` to `end` over the run (Loshchilov & Hutter 2017, arXiv:1608.03983)."""
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    return span.schedule(lambda step: _between(start, end, _half_wave(span.share(step))))


def _half_wave(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


def cosine_restarts(
    total_steps: int,
    steps_per_epoch: int,
    cycles: int = 3,
    growth: float = 2.0,
    start: float = 1.0,
    end: float = 0.0,
    warmup_steps: int = 0,
    warmup_epochs: float = 0.0,
) -> Schedule:
    """Half a cosine wave in each of `cycles` cycles, each `growth` times as long as the last
    (arXiv:1608.03983).

    The cycles fill the run exactly, so that it ends at the end of one. Raises ValueError when one has no
    step.
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    edges = _cycle_edges(span.length, cycles, growth)

    def value(step: int) -> float:
        cycle = min(sum(step >= edge for edge in edges[1:]), cycles - 1)
        first, last = edges[cycle], edges[cycle + 1]
        return _between(start, end, _half_wave(min(step - first, last - first) / (last - first)))

    return span.schedule(value)


def _cycle_edges(length: int, cycles: int, growth: float) -> list[int]:
    lengths = [growth**cycle for cycle in range(cycles)]
    edges = [round(length * sum(lengths[:cycle]) / sum(lengths)) for cycle in range(cycles + 1)]
    if len(set(edges)) <= cycles:
        raise ValueError(
            f"cycles is {cycles}; the schedule has {length} steps and each cycle must have one: lower cycles "
            "or train for more epochs"
        )
    return edges


def one_cycle(
    total_steps: int,
    steps_per_epoch: int,
    start: float = 0.04,
    peak: float = 1.0,
    end: float = 4e-6,
    rise: float = 0.3,
    anneal: Literal["cosine", "linear"] = "cosine",
    warmup_steps: int = 0,
    warmup_epochs: float = 0.0,
) -> Schedule:
    """From `start` to `peak` in the share `rise` of the run, then down to `end` (Smith & Topin,
    arXiv:1708.07120).
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    shape = _half_wave if anneal == "cosine" else (lambda share: 1 - share)

    def value(step: int) -> float:
        share = span.share(step)
        if share < rise:
            return _between(start, peak, shape(share / rise))
        return _between(peak, end, shape((share - rise) / (1 - rise)))

    return span.schedule(value)


def triangular(
    total_steps: int,
    steps_per_epoch: int,
    start: float = 0.1,
    peak: float = 1.0,
    cycles: int = 3,
    shrink: float = 1.0,
    warmup_steps: int = 0,
    warmup_epochs: float = 0.0,
) -> Schedule:
    """Up to `peak` and back to `start` in each cycle (Smith 2017, arXiv:1506.01186); `shrink` 0.5 is
    triangular2.

    Raises ValueError when a cycle has no step.
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    _cycle_edges(span.length, cycles, 1.0)

    def value(step: int) -> float:
        cycle, within = divmod(span.share(step) * cycles, 1.0)
        return start + (peak - start) * shrink**cycle * (1 - abs(2 * within - 1))

    return span.schedule(value)


class Plateau:
    """Multiply by `factor` after `patience` evaluations in a row without improvement (L2, L3).

    The only schedule with memory: the loop calls `observe` with the value of `metric` after each evaluation.
    An improvement is one of more than `min_delta`, absolute; NaN and inf are none. After a change the count
    begins anew.
    """

    def __init__(
        self,
        total_steps: int,
        steps_per_epoch: int,
        metric: str = "val/loss",
        mode: Choice = "auto",
        factor: float = 0.5,
        patience: int = 3,
        min_delta: float = 0.0,
        start: float = 1.0,
        end: float = 0.0,
        warmup_steps: int = 0,
        warmup_epochs: float = 0.0,
    ) -> None:
        span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
        self.metric, self.mode = metric, resolve_mode(metric, mode)
        self.factor, self.patience, self.min_delta = factor, patience, min_delta
        self.best: float | None = None
        self.stale = 0  # evaluations since the last improvement or change
        self.changes = 0
        self._schedule = span.schedule(lambda step: _between(start, end, self.factor**self.changes))

    def __call__(self, step: int) -> float:
        return self._schedule(step)

    def observe(self, metric: float) -> None:
        """Take in the metric of one evaluation."""
        if improves(metric, self.best, self.mode, self.min_delta):
            self.best, self.stale = metric, 0
            return
        self.stale += 1
        if self.stale >= self.patience:
            self.changes, self.stale = self.changes + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "stale": self.stale, "changes": self.changes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.stale, self.changes = state["best"], state["stale"], state["changes"]
