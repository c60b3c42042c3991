"""The configurations of a grid and the numbers of its jobs: by arithmetic where the grid is a product of its axes.

The trials are the configurations without repetitions, in the order in which they first occur in Hydra's order over all
axes. A job is a trial with a repetition; its number is its place in Hydra's order, in which the last axis changes fastest.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

from dltrain.config.keys import REPLICATES
from dltrain.sweep.jobs import Chosen
from dltrain.sweep.plan.space import Axis, check_values_of, grid


@dataclass(frozen=True)
class Digit:
    """An axis as a digit of the numbers.

    Args:
        searched: whether it is an axis of the search rather than of repetitions
        trials: combinations of the axes of the search after it
        repetitions: combinations of the axes of repetitions after it
    """

    axis: Axis
    searched: bool
    trials: int
    repetitions: int

    @property
    def size(self) -> int:
        return len(self.axis.options)

    @property
    def step(self) -> int:
        """How far a value is from the next: in trials for an axis of the search, else in repetitions."""
        return self.trials if self.searched else self.repetitions

    def of(self, place: int) -> int:
        """Return the position of the axis' value in a trial, or in a repetition."""
        return place // self.step % self.size

    @cached_property
    def positions(self) -> dict[str | None, int]:
        return {label: i for i, label in enumerate(self.axis.labels)}


@dataclass(frozen=True)
class Product:
    """The grid of axes without conditions. Nothing is listed: a trial and its numbers follow from mixed radix.

    Args:
        axes: all axes, repetitions included
        limit: number of trials, the first of all; None for all
        order: order in which the trials are tried, as their places among all; empty for their own order
    """

    axes: Sequence[Axis]
    limit: int | None = None
    order: Sequence[int] = ()

    @cached_property
    def digits(self) -> list[Digit]:
        """The axes as digits, the most significant one first."""
        found: list[Digit] = []
        trials = repetitions = 1
        for axis in reversed(self.axes):
            searched = axis.name not in REPLICATES
            found.append(Digit(axis, searched, trials, repetitions))
            trials *= len(axis.options) if searched else 1
            repetitions *= 1 if searched else len(axis.options)
        return found[::-1]

    @cached_property
    def length(self) -> int:
        found = math.prod(digit.size for digit in self.digits if digit.searched)
        return found if self.limit is None else min(found, self.limit)

    @cached_property
    def repetitions(self) -> int:
        return math.prod(digit.size for digit in self.digits if not digit.searched)

    @cached_property
    def turns(self) -> list[int]:
        """The trial of each place, the inverse of `order`."""
        turns = [0] * len(self.order)
        for trial, place in enumerate(self.order):
            turns[place] = trial
        return turns

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Chosen]:
        return (self[trial] for trial in range(self.length))

    def __getitem__(self, trial: int) -> Chosen:
        """Return the configuration of a trial."""
        place = self.place(trial)
        return {
            digit.axis.name: digit.axis.options[digit.of(place)][0] for digit in self.digits if digit.searched
        }

    def place(self, trial: int) -> int:
        if not 0 <= trial < self.length:
            raise IndexError(trial)
        return self.order[trial] if self.order else trial

    def find(self, chosen: Chosen) -> int | None:
        """Return the trial of a configuration; None for one that is not of this grid."""
        place = 0
        for digit in self.digits:
            if digit.searched:
                position = digit.positions.get(chosen.get(digit.axis.name))
                if position is None:
                    return None
                place += position * digit.step
        if place >= self.length:
            return None
        return self.turns[place] if self.order else place

    def blocks(self) -> Iterator[list[Axis]]:
        """Yield the axes of the products that together are this grid: `limit` cuts it inside the values of its first axes."""
        searched = [digit for digit in self.digits if digit.searched]
        kept = {digit.axis.name: digit.axis for digit in self.digits}
        if self.length == math.prod(len(digit.axis.options) for digit in searched):
            yield list(kept.values())
            return
        for digit in searched:
            name, options, end = digit.axis.name, digit.axis.options, digit.of(self.length)
            if end:
                yield list((kept | {name: replace(digit.axis, options=options[:end])}).values())
            kept[name] = replace(digit.axis, options=options[end : end + 1])

    def number(self, trial: int, repetition: int) -> int:
        """Return the number of a job: how many jobs come before it in Hydra's order."""
        place, passed, number = self.place(trial), 0, 0
        for digit in self.digits:
            if digit.searched:
                step = digit.of(place) * digit.trials
                number += step * digit.repetitions
                passed += step
            else:
                # fewer than all where `limit` cuts the last values
                trials = min(digit.trials, self.length - passed)
                number += digit.of(repetition) * digit.repetitions * trials
        return number

    def job(self, number: int) -> tuple[int, int]:
        """Return the trial and the repetition of a number."""
        place = repetition = 0
        for digit in self.digits:
            trials = digit.trials if digit.searched else min(digit.trials, self.length - place)
            position, number = divmod(number, digit.repetitions * trials)
            if digit.searched:
                place += position * digit.step
            else:
                repetition += position * digit.step
        return (self.turns[place] if self.order else place), repetition


@dataclass(frozen=True)
class Table:
    """A grid that is listed, since conditions or an extension make it irregular.

    Args:
        configurations: the configuration of each trial
        numbers: the number of each (trial, repetition); empty for repetitions that follow each other
        repetitions: number of repetitions of a configuration
    """

    configurations: Sequence[Chosen]
    numbers: dict[tuple[int, int], int] = field(default_factory=dict)
    repetitions: int = 1

    def __len__(self) -> int:
        return len(self.configurations)

    def __iter__(self) -> Iterator[Chosen]:
        return iter(self.configurations)

    def __getitem__(self, trial: int) -> Chosen:
        return self.configurations[trial]

    @cached_property
    def trials(self) -> dict[Key, int]:
        return {key_of(chosen): trial for trial, chosen in enumerate(self.configurations)}

    @cached_property
    def jobs(self) -> list[tuple[int, int]]:
        """The trial and the repetition of each number."""
        return sorted(self.numbers, key=self.numbers.__getitem__)

    def find(self, chosen: Chosen) -> int | None:
        """Return the trial of a configuration; None for one that is not of this grid."""
        return self.trials.get(key_of(chosen))

    def number(self, trial: int, repetition: int) -> int:
        """Return the number of a job."""
        return self.numbers[trial, repetition] if self.numbers else trial * self.repetitions + repetition

    def job(self, number: int) -> tuple[int, int]:
        """Return the trial and the repetition of a number."""
        return self.jobs[number] if self.numbers else divmod(number, self.repetitions)


Grid: TypeAlias = Product | Table
Key: TypeAlias = tuple[tuple[str, Any], ...]


def key_of(chosen: Chosen) -> Key:
    """Return a configuration as a key."""
    return tuple(sorted(chosen.items()))


def grid_of(axes: Sequence[Axis], limit: int | None, shuffle: bool) -> Grid:
    """Return the grid of some axes; with `shuffle`, its trials are tried in a shuffled order."""
    check_values_of(axes)
    if any(axis.when for axis in axes):
        return listed(axes, limit, shuffle)
    found = Product(axes, limit)
    return replace(found, order=shuffled(len(found))) if shuffle else found


def listed(axes: Sequence[Axis], limit: int | None, shuffle: bool) -> Table:
    """List the grid of axes with conditions."""
    configurations: list[Chosen] = []
    trials: dict[Key, int] = {}
    repetitions = {key_of(chosen): r for r, chosen in enumerate(repetitions_of(axes))}
    numbers: dict[tuple[int, int], int] = {}
    for values in grid(axes):
        chosen = {name: value for name, value in values.items() if name not in REPLICATES}
        trial = trials.get(key_of(chosen))
        if trial is None:
            if limit is not None and len(configurations) >= limit:
                continue
            trial = trials[key_of(chosen)] = len(configurations)
            configurations.append(chosen)
        replicate = {name: value for name, value in values.items() if name in REPLICATES}
        numbers[trial, repetitions[key_of(replicate)]] = len(numbers)
    if shuffle:
        order = shuffled(len(configurations))
        turns = {place: trial for trial, place in enumerate(order)}
        configurations = [configurations[place] for place in order]
        numbers = {(turns[place], r): number for (place, r), number in numbers.items()}
    return Table(configurations, numbers, len(repetitions))


def repetitions_of(axes: Sequence[Axis]) -> list[Chosen]:
    """Return the repetitions of a configuration, as values of the axes seed, fold and dataset.split_seed."""
    return list(grid([axis for axis in axes if axis.name in REPLICATES]))


def shuffled(length: int) -> list[int]:
    """Return the order in which a grid is tried where jobs are pruned: by chance, the same every time.

    A pruner compares with what came before, and the neighbours of a bad configuration are bad: in the order of the axes
    ASHA trained 55 % of a grid's epochs, in this one 24 % (docs/speed.md).
    """
    order = list(range(length))
    random.Random(0).shuffle(order)
    return order


def grown(former: Grid, later: Grid, repeated: Sequence[int]) -> Table | None:
    """Return a grid that holds everything of a former one: its jobs keep their numbers, the others follow in their order.

    Args:
        repeated: the repetition of the later grid for each one of the former

    None where the later grid lacks a configuration of the former one.
    """
    trials = [later.find(chosen) for chosen in former]
    if None in trials:
        return None
    begun = {trial: i for i, trial in enumerate(trials)}
    others = [trial for trial in range(len(later)) if trial not in begun]
    turns = {trial: i for i, trial in enumerate([*trials, *others])}
    count = former.repetitions
    numbers = {
        (trial, repeated[r]): former.number(trial, r) for trial in range(len(former)) for r in range(count)
    }
    for number in range(len(later) * later.repetitions):
        trial, repetition = later.job(number)
        numbers.setdefault((turns[trial], repetition), len(numbers))
    configurations = [*former, *(later[trial] for trial in others)]
    return Table(configurations, numbers, later.repetitions)
