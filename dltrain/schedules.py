"""Schedules: functions of the step that scale the learning rate, give the momentum, or scale the penalties.

A factory `(total_steps, steps_per_epoch, **keys)` returns a `Schedule`. A shape s falls from 1 toward 0 and is mapped to
the values from `start` to `end` by end + (start − end)·s. The same factories serve three groups with different defaults:
lr (1 to 0), momentum (0.5 to 0.9) and the strengths of penalties (0 to 1).

The run has the steps 0 to total_steps − 1; `end` is reached at total_steps, so that the last step still moves. A warm-up
of w steps multiplies the first value by 1/(w + 1), 2/(w + 1), …, w/(w + 1); the schedule covers the remaining steps.

The file is long because the docstring of each schedule is its page in the manual: nearly half of the lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from dltrain.declare import declares
from dltrain.direction import Choice, improves, resolve_mode
from dltrain.errors import Unfit
from dltrain.ranges import AtLeastOne, Count, Index, Inner, NonNegative, Part, Positive, Unit


class Schedule(Protocol):
    """Return the value at a step, from 0; valid past the end of the run too."""

    def __call__(self, step: int) -> float: ...


@dataclass(frozen=True)
class _Span:
    """The `length` steps of a schedule, after a warm-up of `warmup` steps."""

    warmup: int
    length: int
    steps_per_epoch: int

    def share(self, step: int) -> float:
        """Return the fraction of the schedule that is completed."""
        return min(step, self.length) / self.length

    def time(self, unit: Unit) -> Callable[[int], int]:
        """Return the map from the steps since the end of the warm-up to these steps or to completed epochs.

        Raises ValueError for epochs where the schedule ends with the first one: its value would never change.
        """
        if unit == "steps":
            return lambda step: step
        if self.length <= self.steps_per_epoch:
            raise Unfit(
                f"unit is epochs, and the schedule has {self.length} steps, none of them after the first epoch of "
                f"{self.steps_per_epoch}, so that its value would never change.",
                "unit=steps",
            )
        return lambda step: step // self.steps_per_epoch

    def schedule(self, value: Callable[[int], float]) -> Schedule:
        """Return the schedule of a function of the steps since the end of the warm-up."""

        def warmed(step: int) -> float:
            if step < self.warmup:
                return value(0) * (step + 1) / (self.warmup + 1)
            return value(step - self.warmup)

        return warmed

    def between(self, start: float, end: float, shape: Callable[[int], float]) -> Schedule:
        """Return the schedule from `start`, where the shape is 1, to `end`, where it is 0."""
        return self.schedule(lambda step: _between(start, end, shape(step)))


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


def _half_wave(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


@declares(needs=frozenset())
def constant(
    total_steps: int,
    steps_per_epoch: int,
    start: NonNegative = 1.0,
    warmup_steps: Index = 0,
    warmup_epochs: NonNegative = 0.0,
) -> Schedule:
    """Constant value.

        value = start; it multiplies lr

    Use: with adaptive optimizers, and as the baseline of other schedules.
    Defaults: lr unchanged.
    Lecture: L3

    Args:
        start: multiple of lr
        warmup_steps: w, steps of a warm-up before the schedule: its first value × 1/(w + 1), …, w/(w + 1)
        warmup_epochs: the same in epochs; at most one of the two may be above 0
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
    """Multiply by a factor at regular intervals.

        s = factor^⌊t/P⌋
        value = end + (start − end)·s; it multiplies lr

    Raises ValueError if the period is not shorter than the schedule, since the value would never change.

    Symbols: t steps since the warm-up; P the steps of the period, every_steps if given, else of every_epochs
    Use: the classic schedule for SGD.
    Defaults: half every 5 epochs, as in L2 (which also gives a tenth every 20, and L3 every 10).
    Lecture: L2 L3

    Args:
        factor: multiplies s after each period
        every_epochs: period in epochs
        every_steps: period in steps, instead of every_epochs
        start: multiple of lr at the start
        end: multiple of lr at s = 0
        warmup_steps: w, steps of a warm-up before the schedule: its first value × 1/(w + 1), …, w/(w + 1)
        warmup_epochs: the same in epochs; at most one of the two may be above 0
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    period = every_steps or every_epochs * steps_per_epoch
    if period >= span.length:
        key, value = ("every_steps", every_steps) if every_steps else ("every_epochs", every_epochs)
        raise ValueError(
            f"{key} is {value}, a period of {period} steps; the schedule has {span.length} and the "
            "first change must come before: lower it or train for more epochs"
        )
    return span.between(start, end, lambda step: factor ** (step // period))


def multistep(
    total_steps: int,
    steps_per_epoch: int,
    factor: Part = 0.1,
    milestones: Sequence[Positive] = (0.5, 0.75),
    unit: Literal["share", "epochs", "steps"] = "share",
    start: NonNegative = 1.0,
    end: NonNegative = 0.0,
    warmup_steps: Index = 0,
    warmup_epochs: NonNegative = 0.0,
) -> Schedule:
    """Multiply by a factor at given milestones.

        s = factor^(number of milestones passed)
        value = end + (start − end)·s; it multiplies lr

    Raises ValueError for a milestone outside the schedule.

    Use: published recipes that name the epochs at which lr drops.
    Defaults: a tenth at half and at three quarters of the run.
    Paper: He et al. 2015, arXiv:1512.03385, section 4.2
    Lecture: L2 L3

    Args:
        factor: multiplies s at each milestone
        milestones: positions in `unit`, from the end of the warm-up
        unit: share of the schedule, epochs, or steps
        start: multiple of lr at the start
        end: multiple of lr at s = 0
        warmup_steps: w, steps of a warm-up before the schedule: its first value × 1/(w + 1), …, w/(w + 1)
        warmup_epochs: the same in epochs; at most one of the two may be above 0
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    scale = {"share": span.length, "epochs": steps_per_epoch, "steps": 1}[unit]
    at = [math.ceil(milestone * scale - 1e-9) for milestone in milestones]
    if not at:
        raise ValueError(
            "milestones is [], so that the value would never change; give some, or use the schedule constant"
        )
    for milestone, position in zip(milestones, at, strict=True):
        if not 0 < position < span.length:
            raise ValueError(
                f"milestones holds {milestone} (unit={unit}), step {position} of {span.length}; "
                f"a milestone must lie inside the run, {_inside(unit, span)}: change it, train for more "
                "epochs, or choose unit=share|epochs|steps"
            )
    return span.between(start, end, lambda step: factor ** sum(step >= position for position in at))


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

        s = exp(−rate·t)
        value = end + (start − end)·s; it multiplies lr

    Raises ValueError for unit=epochs where the schedule ends with the first one, since the value would never change.

    Symbols: t completed epochs, or steps (unit), since the warm-up
    Use: a smooth form of step.
    Defaults: rate 0.1 per epoch, a tenth after 23 epochs.
    Lecture: L2 L3

    Args:
        rate: rate of decay per epoch or step
        unit: unit of t
        start: multiple of lr at the start
        end: multiple of lr at s = 0
        warmup_steps: w, steps of a warm-up before the schedule: its first value × 1/(w + 1), …, w/(w + 1)
        warmup_epochs: the same in epochs; at most one of the two may be above 0
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    time = span.time(unit)
    return span.between(start, end, lambda step: math.exp(-rate * time(step)))


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

        s = 1/(1 + rate·t)
        value = end + (start − end)·s; it multiplies lr

    Raises ValueError for unit=epochs where the schedule ends with the first one, since the value would never change.

    Symbols: t completed epochs, or steps (unit), since the warm-up
    Use: slow decay whose sum diverges, as the theory of SGD requires.
    Defaults: rate 0.1 per epoch, half after 10 epochs.
    Lecture: L3

    Args:
        rate: rate of decay per epoch or step
        unit: unit of t
        start: multiple of lr at the start
        end: multiple of lr at s = 0
        warmup_steps: w, steps of a warm-up before the schedule: its first value × 1/(w + 1), …, w/(w + 1)
        warmup_epochs: the same in epochs; at most one of the two may be above 0
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    time = span.time(unit)
    return span.between(start, end, lambda step: 1 / (1 + rate * time(step)))


def inverse_sqrt(
    total_steps: int,
    steps_per_epoch: int,
    unit: Unit = "epochs",
    start: NonNegative = 1.0,
    end: NonNegative = 0.0,
    warmup_steps: Index = 0,
    warmup_epochs: NonNegative = 0.0,
) -> Schedule:
    """Decay with the inverse square root of time.

        s = 1/√k
        value = end + (start − end)·s; it multiplies lr

    Raises ValueError for unit=epochs where the schedule ends with the first one, since the value would never change.

    Symbols: k = 1, 2, … the number of the epoch, or of the step (unit)
    Use: the rate of SGD for convex problems.
    Defaults: k counts epochs; the theory counts steps, with a larger lr.
    Lecture: L0 L1 L3

    Args:
        unit: unit of k
        start: multiple of lr at the start
        end: multiple of lr at s = 0
        warmup_steps: w, steps of a warm-up before the schedule: its first value × 1/(w + 1), …, w/(w + 1)
        warmup_epochs: the same in epochs; at most one of the two may be above 0
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    time = span.time(unit)
    return span.between(start, end, lambda step: (1 + time(step)) ** -0.5)


def inverse_k(
    total_steps: int,
    steps_per_epoch: int,
    unit: Unit = "epochs",
    start: NonNegative = 1.0,
    end: NonNegative = 0.0,
    warmup_steps: Index = 0,
    warmup_epochs: NonNegative = 0.0,
) -> Schedule:
    """Decay with the inverse of time.

        s = 1/k
        value = end + (start − end)·s; it multiplies lr

    Raises ValueError for unit=epochs where the schedule ends with the first one, since the value would never change.

    Symbols: k = 1, 2, … the number of the epoch, or of the step (unit)
    Use: the rate of SGD for strongly convex problems.
    Defaults: k counts epochs; the theory counts steps, with a larger lr.
    Paper: Robbins & Monro 1951
    Lecture: L0 L3

    Args:
        unit: unit of k
        start: multiple of lr at the start
        end: multiple of lr at s = 0
        warmup_steps: w, steps of a warm-up before the schedule: its first value × 1/(w + 1), …, w/(w + 1)
        warmup_epochs: the same in epochs; at most one of the two may be above 0
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    time = span.time(unit)
    return span.between(start, end, lambda step: 1 / (1 + time(step)))


def linear(
    total_steps: int,
    steps_per_epoch: int,
    start: NonNegative = 1.0,
    end: NonNegative = 0.0,
    warmup_steps: Index = 0,
    warmup_epochs: NonNegative = 0.0,
) -> Schedule:
    """Linear decay over the run.

        s = 1 − t/T
        value = end + (start − end)·s; it multiplies lr

    Symbols: t of T steps since the warm-up
    Use: fine-tuning; an end of 0 removes the noise of the gradient.

    Args:
        start: multiple of lr at the start
        end: multiple of lr at s = 0
        warmup_steps: w, steps of a warm-up before the schedule: its first value × 1/(w + 1), …, w/(w + 1)
        warmup_epochs: the same in epochs; at most one of the two may be above 0
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
    """Polynomial decay over the run.

        s = (1 − t/T)^power
        value = end + (start − end)·s; it multiplies lr

    Symbols: t of T steps since the warm-up
    Use: a decay that flattens toward the end.
    Defaults: quadratic.

    Args:
        power: exponent; 1 is linear decay
        start: multiple of lr at the start
        end: multiple of lr at s = 0
        warmup_steps: w, steps of a warm-up before the schedule: its first value × 1/(w + 1), …, w/(w + 1)
        warmup_epochs: the same in epochs; at most one of the two may be above 0
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    return span.between(start, end, lambda step: (1 - span.share(step)) ** power)


def cosine(
    total_steps: int,
    steps_per_epoch: int,
    start: NonNegative = 1.0,
    end: NonNegative = 0.0,
    warmup_steps: Index = 0,
    warmup_epochs: NonNegative = 0.0,
) -> Schedule:
    """Cosine decay: half a cosine wave over the run.

        s = (1 + cos(π·t/T))/2
        value = end + (start − end)·s; it multiplies lr

    Symbols: t of T steps since the warm-up
    Use: the first schedule to try when the length of training is known.
    Paper: Loshchilov & Hutter 2017, arXiv:1608.03983

    Args:
        start: multiple of lr at the start
        end: multiple of lr at s = 0
        warmup_steps: w, steps of a warm-up before the schedule: its first value × 1/(w + 1), …, w/(w + 1)
        warmup_epochs: the same in epochs; at most one of the two may be above 0
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    return span.between(start, end, lambda step: _half_wave(span.share(step)))


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
    """Cosine decay with warm restarts (SGDR).

        s = (1 + cos(π·u))/2
        value = end + (start − end)·s; it multiplies lr

    The cycles fill the run, so that it ends at the end of a cycle. Raises ValueError if a cycle has no step.

    Symbols: u the completed share of the cycle, from 0 to 1
    Use: several good end points in one run (ensembles, swa).
    Defaults: 3 cycles, each twice as long as the last.
    Paper: Loshchilov & Hutter 2017, arXiv:1608.03983

    Args:
        cycles: number of cycles
        growth: ratio of the lengths of consecutive cycles
        start: multiple of lr at the start
        end: multiple of lr at s = 0
        warmup_steps: w, steps of a warm-up before the schedule: its first value × 1/(w + 1), …, w/(w + 1)
        warmup_epochs: the same in epochs; at most one of the two may be above 0
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    edges = _cycle_edges(span.length, cycles, growth)

    def shape(step: int) -> float:
        cycle = min(sum(step >= edge for edge in edges[1:]), cycles - 1)
        first, last = edges[cycle], edges[cycle + 1]
        return _half_wave(min(step - first, last - first) / (last - first))

    return span.between(start, end, shape)


def _cycle_edges(length: int, cycles: int, growth: float) -> list[int]:
    lengths = [growth**cycle for cycle in range(cycles)]
    edges = [round(length * sum(lengths[:cycle]) / sum(lengths)) for cycle in range(cycles + 1)]
    if len(set(edges)) <= cycles:
        raise ValueError(
            f"cycles is {cycles}; the schedule has {length} steps and each cycle must have one: lower cycles "
            "or train for more epochs"
        )
    if cycles == length > 1:
        raise Unfit(
            f"cycles is {cycles}, and the schedule has {length} steps, one for each cycle, so that its value would never change.",
            f"cycles={length // 2}",
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
    """One cycle: rise to a peak, then decay far below the start.

        s(u) = (1 + cos(π·u))/2 (anneal=cosine) or 1 − u (linear)
        t/T < rise: value = peak + (start − peak)·s(u), u = t/T/rise
        then: value = end + (peak − end)·s(u), u = (t/T − rise)/(1 − rise); it multiplies lr

    Symbols: t of T steps since the warm-up
    Use: short runs at a large lr.
    Defaults: those of torch: start = peak/25, end = start·10⁻⁴, rise 0.3.
    Paper: Smith & Topin 2018, arXiv:1708.07120

    Args:
        rise: share of the schedule before the peak
        anneal: shape of the rise and of the decay
        start: multiple of lr at the start
        peak: multiple of lr at the peak
        end: multiple of lr at the end
        warmup_steps: w, steps of a warm-up before the schedule: its first value × 1/(w + 1), …, w/(w + 1)
        warmup_epochs: the same in epochs; at most one of the two may be above 0
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
    """Cyclical: linear rise and decay in each of several cycles.

        s = shrink^c·(1 − |2u − 1|)
        value = start + (peak − start)·s; it multiplies lr

    Raises ValueError if a cycle has no step.

    Symbols: u the completed share of the cycle c = 0, 1, …, from 0 to 1
    Use: to cross barriers of the loss repeatedly; shrink=0.5 is the paper's triangular2.
    Defaults: 3 cycles of the same height.
    Paper: Smith 2017, arXiv:1506.01186

    Args:
        cycles: number of cycles
        shrink: ratio of the heights of consecutive cycles
        start: multiple of lr at both ends of each cycle
        peak: multiple of lr in the middle of the first cycle
        warmup_steps: w, steps of a warm-up before the schedule: its first value × 1/(w + 1), …, w/(w + 1)
        warmup_epochs: the same in epochs; at most one of the two may be above 0
    """
    span = _span(total_steps, steps_per_epoch, warmup_steps, warmup_epochs)
    _cycle_edges(span.length, cycles, 1.0)

    def value(step: int) -> float:
        cycle, within = divmod(span.share(step) * cycles, 1.0)
        return start + (peak - start) * shrink**cycle * (1 - abs(2 * within - 1))

    return span.schedule(value)


class Plateau:
    """Multiply by a factor when a metric has stopped improving.

        improved if metric < best − min_delta (mode=max: metric > best + min_delta)
        s ← factor·s after patience evaluations in a row without improvement
        value = end + (start − end)·s; it multiplies lr

    An evaluation whose metric is NaN or inf is left out: it neither improves nor counts, and the run says so. Evaluations of
    the warm-up do not count either. The count of evaluations restarts after each change of s. The only schedule with a state:
    the trainer calls `observe` after each evaluation. Raises ValueError for mode=auto if the direction of the metric is
    unknown. Early stopping counts the evaluations of the same metric: with a patience that is not above this one it ends the
    run before s changes, which is refused; the header names a patience that fits where the run is too short.

    Symbols: s = 1 at the start; best = metric at the last improvement
    Use: when the length of training is not known in advance.
    Defaults: half after 3 evaluations.
    Lecture: L2 L3

    Args:
        metric: column of metrics.csv
        mode: whether lower (min) or higher (max) is better; auto follows the metric
        factor: multiplies s
        patience: evaluations in a row without improvement; fewer than those of early stopping of the same metric, which
            ends the run before
        min_delta: change that an improvement must exceed, in the units of the metric
        start: multiple of lr at the start
        end: multiple of lr at s = 0
        warmup_steps: w, steps of a warm-up before the schedule: its first value × 1/(w + 1), …, w/(w + 1)
        warmup_epochs: the same in epochs; at most one of the two may be above 0
    """

    def __init__(
        self,
        total_steps: int,
        steps_per_epoch: int,
        metric: str = "val/loss",
        mode: Choice = "auto",
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
        # evaluations since the last improvement or change
        self.stale = 0
        self.changes = 0
        self.warmup = span.warmup
        self._schedule = span.between(start, end, lambda step: self.factor**self.changes)

    def __call__(self, step: int) -> float:
        return self._schedule(step)

    def observe(self, metric: float, step: int) -> None:
        """Record the metric of the evaluation after `step` updates; NaN and inf say nothing about progress."""
        if not math.isfinite(metric):
            return
        if improves(metric, self.best, self.mode, self.min_delta):
            self.best, self.stale = metric, 0
            return
        if step <= self.warmup:
            return
        self.stale += 1
        if self.stale >= self.patience:
            self.changes, self.stale = self.changes + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "stale": self.stale, "changes": self.changes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.stale, self.changes = state["best"], state["stale"], state["changes"]
