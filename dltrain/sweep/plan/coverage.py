"""Which configurations of a sweep are composed and validated before the first job starts.

Up to `ALL` jobs: all of them. Of more: rows in which every word and every two values of different axes occur together, where of
an axis of numbers the smallest, the largest, 0 and 1 stand for all, since the rules between keys ask whether a number is set,
not how large it is. The rule of a single key sees every value (`dltrain.sweep.plan.checks.check_each_value`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, TypeAlias

from dltrain.sweep.jobs import Chosen
from dltrain.sweep.plan.composer import Composer
from dltrain.sweep.plan.grid import Product
from dltrain.sweep.plan.plan import Plan
from dltrain.sweep.plan.space import Axis, active, corners

ALL = 1000  # jobs
TEXTS = 100  # texts of one axis that are paired with the values of others

Choice: TypeAlias = tuple[str, str]  # an axis and one of its labels


def to_check(plan: Plan) -> Iterator[Chosen]:
    """Yield the configurations to compose, as values of all axes: existing jobs of a grid, corners of a search."""
    grid = plan.configurations
    if grid is not None and plan.total > ALL:
        blocks = grid.blocks() if isinstance(grid, Product) else [plan.axes]
        found = (row for axes in blocks for row in rows([thinned(axis, plan.composer) for axis in axes]))
        jobs = (row for row in found if is_job(row, plan))
        yield from jobs if isinstance(grid, Product) else with_rest(jobs, plan)
        return
    trials: Iterable[Chosen] | None = grid
    if trials is None:
        axes = plan.search_axes
        many = sum(len(axis.options) for axis in axes) * len(plan.replicates) > ALL
        trials = corners([thinned(axis, plan.composer) for axis in axes] if many else axes)
    for chosen in trials:
        yield from (chosen | replicate for replicate in repetitions(plan))


def repetitions(plan: Plan) -> Sequence[Chosen]:
    """Return the repetitions to check; of many, the first and the last, since only the rule of the key itself depends on a seed."""
    found = plan.replicates
    return found if len(found) <= ALL else [found[0], found[-1]]


def is_job(row: Chosen, plan: Plan) -> bool:
    """Return whether a configuration is one of a grid that `sweep.trials` may have cut."""
    searched = {axis.name: row[axis.name] for axis in plan.search_axes if axis.name in row}
    return plan.configurations is not None and plan.configurations.find(searched) is not None


def with_rest(jobs: Iterable[Chosen], plan: Plan) -> Iterator[Chosen]:
    """Yield some jobs of a listed grid, then others, until every two values that occur together in any job are among them.

    Where `sweep.trials` cuts the grid, the one row of `rows` with a pair may be no job, and other jobs have the pair.
    """
    stand = {axis.name: {*thinned(axis, plan.composer).labels} for axis in plan.axes}

    def pairs(row: Chosen) -> set[tuple[Choice, Choice]]:
        # the values for which others stand count as one
        choices = [
            (name, row[name] if row[name] in kept else "") for name, kept in stand.items() if name in row
        ]
        return {*combinations(choices, 2)}

    seen: set[tuple[Choice, Choice]] = set()
    for row in jobs:
        seen |= pairs(row)
        yield row
    for chosen in plan.configurations or ():
        for row in (chosen | replicate for replicate in repetitions(plan)):
            if not pairs(row) <= seen:
                seen |= pairs(row)
                yield row


# Values that stand for others -----------------------------------------------------------------------------------------


def thinned(axis: Axis, composer: Composer) -> Axis:
    """Return an axis with those of its values that a rule between two keys can tell apart."""
    if not axis.options:
        return axis
    columns = zip(*(texts for _, texts in axis.options), strict=True)
    kept = {i for column in columns for i in distinct(column, composer)}
    return replace(axis, options=tuple(axis.options[i] for i in sorted(kept)))


def distinct(texts: Sequence[str], composer: Composer) -> Iterator[int]:
    """Yield the positions of the overrides of one key that stand for all: of numbers the ends, 0 and 1; of lists one a length."""
    numbers: dict[float, int] = {}
    others: dict[Any, int] = {}
    for i, text in enumerate(texts):
        override = composer.parse(text)
        value = override.value() if composer.is_value(override) else text
        if isinstance(value, int | float) and not isinstance(value, bool):
            numbers.setdefault(value, i)
        elif isinstance(value, list):
            others.setdefault(len(value), i)
        elif len(others) < TEXTS or not composer.is_value(override):
            others.setdefault(text, i)
    yield from others.values()
    if numbers:
        ends = {min(numbers), max(numbers), 0, 1}
        yield from (i for number, i in numbers.items() if number in ends)


# Rows of pairs --------------------------------------------------------------------------------------------------------


def rows(axes: Sequence[Axis]) -> Iterator[Chosen]:
    """Yield configurations in which every two values of different axes occur together, where their conditions let them.

    Greedy, after Cohen et al. 1997 (AETG): a row begins with a pair that is missing, and each other axis takes the value that
    adds the most missing pairs.
    """
    if len(axes) == 1:
        yield from ({axes[0].name: label} for label in axes[0].labels)
    order = {axis.name: axis for axis in axes}
    pairs = [
        ((one.name, left), (other.name, right))
        for one, other in combinations(axes, 2)
        for left in one.labels
        for right in other.labels
    ]
    missing: dict[Choice, set[Choice]] = {}
    for left, right in pairs:
        missing.setdefault(left, set()).add(right)
        missing.setdefault(right, set()).add(left)
    for pair in pairs:
        if pair[1] not in missing[pair[0]] or (values := with_conditions(dict(pair), order)) is None:
            continue
        row = completed(values, order, missing)
        for left, right in [pair, *combinations(row.items(), 2)]:
            missing[left].discard(right)
            missing[right].discard(left)
        yield row


def with_conditions(values: Chosen, axes: dict[str, Axis]) -> Chosen | None:
    """Return some values with those that their conditions ask for; None where they can never be active together."""
    needed = list(values)
    for name in needed:
        needed += [other for other in axes[name].when if other not in needed]
    found: Chosen = {}
    for name in (name for name in axes if name in needed):
        wanted = [axes[other].when[name] for other in needed if name in axes[other].when]
        labels = [values[name]] if name in values else axes[name].labels
        fitting = [label for label in labels if all(label in some for some in wanted)]
        if not fitting:
            return None
        found[name] = fitting[0]
    return found


def completed(values: Chosen, axes: dict[str, Axis], missing: dict[Choice, set[Choice]]) -> Chosen:
    """Return a row with `values`, where the other axes add as many missing pairs as they can."""
    for name, axis in axes.items():
        if name in values or not axis.is_active(values):
            continue
        here = list(values.items())

        def added(label: str, name: str = name, here: list[Choice] = here) -> int:
            left = missing.get((name, label), set())
            return sum(choice in left for choice in here)

        values[name] = max(axis.labels, key=added)
    return active(list(axes.values()), {name: values.get(name) for name in axes})
