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

from dltrain.direction import improves, resolve_mode
from dltrain.ranges import AtLeastOne, Count, Index, Inner, NonNegative, Part, Positive, Unit


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
    start: NonNegative = 1.0,
    warmup_steps: Index = 0,
    warmup_epochs: NonNegative = 0.0,
) -> Schedule:
    """The same value throughout.

        value = start; it multiplies lr

    The same value throughout (L3).

    Use: with adaptive optimizers, and to see what a schedule is worth.
    Defaults: the plain value.
    Lecture: L3

    Args:
        start: multiple of lr throughout
        warmup_steps: steps of linear warm-up, from start/(w+1)
        warmup_epochs: the same in epochs; give only one of the two
    """
    return _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs).schedule(lambda step: start)


def step(
    total_steps: int,
    steps_per_epoch: int,
    factor: Part = 0.5,
    every_epochs: Count = 5,
    every_steps: Count | None = None,
    start: NonNegative = 1.0,
    end: NonNegative = 0.0,
    warmup_steps: Index = 0,
    warmup_epochs: NonNegative = 0.0,
) -> Schedule:
    """Multiply by a factor every few epochs.

        value = end + (start − end)·s(t), s = factor^⌊t/T⌋; it multiplies lr

    Multiply by `factor` every so many epochs, or steps where `every_steps` is given (L2, L3).

    Raises ValueError when the period is as long as the run, since nothing would ever happen.

    Symbols: T = every_epochs or every_steps
    Use: the classic for SGD.
    Defaults: half every 5 epochs (L2; also a tenth every 20, or every 10 in L3).
    Lecture: L2 L3

    Args:
        factor: s is multiplied by it each time
        every_epochs: period in epochs; it must be shorter than the run
        every_steps: period in steps, in place of every_epochs
        start: multiple of lr at the first step
        end: multiple of lr that s = 0 stands for
        warmup_steps: steps of linear warm-up, from start/(w+1)
        warmup_epochs: the same in epochs; give only one of the two
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
    factor: Part = 0.1,
    milestones: list[Positive] = (0.5, 0.75),
    unit: Literal["share", "epochs", "steps"] = "share",
    start: NonNegative = 1.0,
    end: NonNegative = 0.0,
    warmup_steps: Index = 0,
    warmup_epochs: NonNegative = 0.0,
) -> Schedule:
    """Multiply by a factor at chosen points of the run.

        value = end + (start − end)·s(t), s = factor^(milestones passed); it multiplies lr

    Multiply by `factor` at each milestone, counted from the end of the warm-up (L2, L3; He 2015).

    Raises ValueError for a milestone that is not inside the run.

    Use: as published recipes say when to drop.
    Defaults: a tenth at half and at three quarters of the run.
    Paper: He et al. 2015, arXiv:1512.03385, section 4.2
    Lecture: L2 L3

    Args:
        factor: s is multiplied by it at each milestone
        milestones: where, in the unit below, counted from the end of the warm-up
        unit: share of the run, epochs, or steps
        start: multiple of lr at the first step
        end: multiple of lr that s = 0 stands for
        warmup_steps: steps of linear warm-up, from start/(w+1)
        warmup_epochs: the same in epochs; give only one of the two
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
    rate: NonNegative = 0.1,
    unit: Unit = "epochs",
    start: NonNegative = 1.0,
    end: NonNegative = 0.0,
    warmup_steps: Index = 0,
    warmup_epochs: NonNegative = 0.0,
) -> Schedule:
    """Exponential decay.

        value = end + (start − end)·s(t), s = exp(−rate·t); it multiplies lr

    exp(-rate * t), with t the completed epochs or the steps (L2, L3).

    Use: a smooth form of step.
    Defaults: rate 0.1 per epoch: a tenth after 23 epochs.
    Lecture: L2 L3

    Args:
        rate: how fast s falls, per unit of t
        unit: t counts completed epochs or steps
        start: multiple of lr at the first step
        end: multiple of lr that s = 0 stands for
        warmup_steps: steps of linear warm-up, from start/(w+1)
        warmup_epochs: the same in epochs; give only one of the two
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    return span.schedule(lambda step: _between(start, end, math.exp(-rate * span.elapsed(step, unit))))


def inverse(
    total_steps: int,
    steps_per_epoch: int,
    rate: NonNegative = 0.1,
    unit: Unit = "epochs",
    start: NonNegative = 1.0,
    end: NonNegative = 0.0,
    warmup_steps: Index = 0,
    warmup_epochs: NonNegative = 0.0,
) -> Schedule:
    """Inverse decay.

        value = end + (start − end)·s(t), s = 1/(1 + rate·t); it multiplies lr

    1 / (1 + rate * t), with t the completed epochs or the steps (L3).

    Use: slow decay whose sum diverges, as the theory of SGD asks.
    Defaults: rate 0.1 per epoch: half after 10 epochs.
    Lecture: L3

    Args:
        rate: how fast s falls, per unit of t
        unit: t counts completed epochs or steps
        start: multiple of lr at the first step
        end: multiple of lr that s = 0 stands for
        warmup_steps: steps of linear warm-up, from start/(w+1)
        warmup_epochs: the same in epochs; give only one of the two
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    return span.schedule(lambda step: _between(start, end, 1 / (1 + rate * span.elapsed(step, unit))))


def inverse_sqrt(
    total_steps: int,
    steps_per_epoch: int,
    unit: Unit = "epochs",
    start: NonNegative = 1.0,
    end: NonNegative = 0.0,
    warmup_steps: Index = 0,
    warmup_epochs: NonNegative = 0.0,
) -> Schedule:
    """Decay with the root of the time.

        value = end + (start − end)·s(t), s = 1/√k, k = 1, 2, …; it multiplies lr

    1 / sqrt(k), with k the number of the epoch or of the step, from 1 (L0, L1, L3).

    Use: convex problems; the rate for SGD on them.
    Defaults: k in epochs; the theory counts steps (unit=steps), with a larger lr.
    Lecture: L0 L1 L3

    Args:
        unit: k is the number of the epoch or of the step, from 1
        start: multiple of lr at the first step
        end: multiple of lr that s = 0 stands for
        warmup_steps: steps of linear warm-up, from start/(w+1)
        warmup_epochs: the same in epochs; give only one of the two
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    return span.schedule(lambda step: _between(start, end, (1 + span.elapsed(step, unit)) ** -0.5))


def inverse_k(
    total_steps: int,
    steps_per_epoch: int,
    unit: Unit = "epochs",
    start: NonNegative = 1.0,
    end: NonNegative = 0.0,
    warmup_steps: Index = 0,
    warmup_epochs: NonNegative = 0.0,
) -> Schedule:
    """Decay with the time.

        value = end + (start − end)·s(t), s = 1/k, k = 1, 2, …; it multiplies lr

    1 / k, with k the number of the epoch or of the step, from 1 (L0, L3).

    Use: strongly convex problems; the rate for SGD on them.
    Defaults: k in epochs; the theory counts steps (unit=steps), with a larger lr.
    Paper: Robbins & Monro 1951
    Lecture: L0 L3

    Args:
        unit: k is the number of the epoch or of the step, from 1
        start: multiple of lr at the first step
        end: multiple of lr that s = 0 stands for
        warmup_steps: steps of linear warm-up, from start/(w+1)
        warmup_epochs: the same in epochs; give only one of the two
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    return span.schedule(lambda step: _between(start, end, 1 / (1 + span.elapsed(step, unit))))


def linear(
    total_steps: int,
    steps_per_epoch: int,
    start: NonNegative = 1.0,
    end: NonNegative = 0.0,
    warmup_steps: Index = 0,
    warmup_epochs: NonNegative = 0.0,
) -> Schedule:
    """A straight line over the run.

        value = end + (start − end)·s(t), s = 1 − t/T; it multiplies lr

    A straight line from `start` to `end` over the run.

    Symbols: T = steps of the run
    Use: fine-tuning; an end of 0 takes the noise out.
    Defaults: from start to end.

    Args:
        start: multiple of lr at the first step
        end: multiple of lr that s = 0 stands for
        warmup_steps: steps of linear warm-up, from start/(w+1)
        warmup_epochs: the same in epochs; give only one of the two
    """
    return polynomial(total_steps, steps_per_epoch, 1.0, start, end, warmup_steps, warmup_epochs)


def polynomial(
    total_steps: int,
    steps_per_epoch: int,
    power: Positive = 2.0,
    start: NonNegative = 1.0,
    end: NonNegative = 0.0,
    warmup_steps: Index = 0,
    warmup_epochs: NonNegative = 0.0,
) -> Schedule:
    """A power of the time left.

        value = end + (start − end)·s(t), s = (1 − t/T)^power; it multiplies lr

    (1 - t/T) ** power over the run.

    Symbols: T = steps of the run
    Use: a drop that flattens towards the end.
    Defaults: power 2.

    Args:
        power: 1 is the straight line
        start: multiple of lr at the first step
        end: multiple of lr that s = 0 stands for
        warmup_steps: steps of linear warm-up, from start/(w+1)
        warmup_epochs: the same in epochs; give only one of the two
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    return span.schedule(lambda step: _between(start, end, (1 - span.share(step)) ** power))


def cosine(
    total_steps: int,
    steps_per_epoch: int,
    start: NonNegative = 1.0,
    end: NonNegative = 0.0,
    warmup_steps: Index = 0,
    warmup_epochs: NonNegative = 0.0,
) -> Schedule:
    """Half a cosine wave over the run.

        value = end + (start − end)·s(t), s = (1 + cos(πt/T))/2; it multiplies lr

    Half a cosine wave from `start` to `end` over the run (Loshchilov & Hutter 2017, arXiv:1608.03983).

    Symbols: T = steps of the run
    Use: the first schedule to try when the length of training is known.
    Defaults: from start to end in one wave.
    Paper: Loshchilov & Hutter 2017, arXiv:1608.03983

    Args:
        start: multiple of lr at the first step
        end: multiple of lr that s = 0 stands for
        warmup_steps: steps of linear warm-up, from start/(w+1)
        warmup_epochs: the same in epochs; give only one of the two
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    return span.schedule(lambda step: _between(start, end, _half_wave(span.share(step))))


def _half_wave(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


def cosine_restarts(
    total_steps: int,
    steps_per_epoch: int,
    cycles: Count = 3,
    growth: AtLeastOne = 2.0,
    start: NonNegative = 1.0,
    end: NonNegative = 0.0,
    warmup_steps: Index = 0,
    warmup_epochs: NonNegative = 0.0,
) -> Schedule:
    """Cosine waves with warm restarts.

        value = end + (start − end)·s(t), s = (1 + cos(π·share of the cycle))/2; it multiplies lr

    Half a cosine wave in each of `cycles` cycles, each `growth` times as long as the last (arXiv:1608.03983).

    The cycles fill the run exactly, so that it ends at the end of one. Raises ValueError when one has no
    step.

    Use: several good end points in one run (ensembles, swa).
    Defaults: 3 cycles, each twice as long as the last, which fill the run.
    Paper: Loshchilov & Hutter 2017, arXiv:1608.03983

    Args:
        cycles: cycles that fill the run
        growth: length of a cycle over that of the one before
        start: multiple of lr at the first step
        end: multiple of lr that s = 0 stands for
        warmup_steps: steps of linear warm-up, from start/(w+1)
        warmup_epochs: the same in epochs; give only one of the two
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
    start: NonNegative = 0.04,
    peak: NonNegative = 1.0,
    end: NonNegative = 4e-6,
    rise: Inner = 0.3,
    anneal: Literal["cosine", "linear"] = "cosine",
    warmup_steps: Index = 0,
    warmup_epochs: NonNegative = 0.0,
) -> Schedule:
    """Up to a peak, then far down.

        t/T < rise: start → peak, then peak → end, each half a cosine wave (or a line); it multiplies lr

    From `start` to `peak` in the share `rise` of the run, then down to `end` (Smith & Topin,
    arXiv:1708.07120).

    Symbols: T = steps of the run
    Use: short runs at a large lr.
    Defaults: start = peak/25, end = peak/25·10⁻⁴, rise 0.3 of torch.
    Paper: Smith & Topin 2018, arXiv:1708.07120

    Args:
        rise: share of the run before the peak
        anneal: form of the way up and down
        start: multiple of lr at the first step
        peak: multiple of lr at the turn
        end: multiple of lr at the end
        warmup_steps: steps of linear warm-up, from start/(w+1)
        warmup_epochs: the same in epochs; give only one of the two
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
    start: NonNegative = 0.1,
    peak: NonNegative = 1.0,
    cycles: Count = 3,
    shrink: Part = 1.0,
    warmup_steps: Index = 0,
    warmup_epochs: NonNegative = 0.0,
) -> Schedule:
    """Up and down again, in cycles.

        value = start + (peak − start)·shrink^c·(1 − |2u − 1|), u = share of cycle c; it multiplies lr

    Up to `peak` and back to `start` in each cycle (Smith 2017, arXiv:1506.01186); `shrink` 0.5 is
    triangular2.

    Raises ValueError when a cycle has no step.

    Use: to cross barriers again and again; shrink 0.5 is the triangular2 of the paper.
    Defaults: 3 cycles.
    Paper: Smith 2017, arXiv:1506.01186

    Args:
        cycles: cycles that fill the run
        shrink: height of a cycle over that of the one before
        start: multiple of lr at the ends of a cycle
        peak: multiple of lr in the middle of the first cycle
        warmup_steps: steps of linear warm-up, from start/(w+1)
        warmup_epochs: the same in epochs; give only one of the two
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    _cycle_edges(span.length, cycles, 1.0)

    def value(step: int) -> float:
        cycle, within = divmod(span.share(step) * cycles, 1.0)
        return start + (peak - start) * shrink**cycle * (1 - abs(2 * within - 1))

    return span.schedule(value)


class Plateau:
    """Multiply by a factor when a metric has stopped improving.

        value = end + (start − end)·s(t), s = factor^(times without improvement for patience evaluations); it
        multiplies lr

    Multiply by `factor` after `patience` evaluations in a row without improvement (L2, L3).

    The only schedule with memory: the loop calls `observe` with the value of `metric` after each evaluation.
    An improvement is one of more than `min_delta`, absolute; NaN and inf are none. After a change the count
    begins anew.

    Use: when the length of training is not known beforehand.
    Defaults: half after 3 evaluations.
    Lecture: L2 L3

    Args:
        metric: column of metrics.csv that is watched
        mode: whether lower or higher is better; auto follows the metric
        factor: s is multiplied by it each time
        patience: evaluations in a row without improvement before a change
        min_delta: an improvement must exceed it; absolute, whatever the sign of the metric
        start: multiple of lr at the first step
        end: multiple of lr that s = 0 stands for
        warmup_steps: steps of linear warm-up, from start/(w+1)
        warmup_epochs: the same in epochs; give only one of the two
    """

    def __init__(
        self,
        total_steps: int,
        steps_per_epoch: int,
        metric: str = "val/loss",
        mode: Literal["auto", "min", "max"] = "auto",
        factor: Part = 0.5,
        patience: Count = 3,
        min_delta: NonNegative = 0.0,
        start: NonNegative = 1.0,
        end: NonNegative = 0.0,
        warmup_steps: Index = 0,
        warmup_epochs: NonNegative = 0.0,
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
