"""What `sweep.trials` leaves out of a grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dltrain.data.errors import some
from dltrain.sweep.plan.grid import Grid, Product, grid_of
from dltrain.sweep.plan.plan import Plan
from dltrain.sweep.plan.space import Axis


def left_out(plan: Plan) -> str:
    """Return how many of all combinations of a grid are tried, which values never are, and what to type; empty where all are."""
    if plan.configurations is None or plan.settings["trials"] is None:
        return ""
    tried, whole = len(plan.configurations), len(grid_of(plan.search_axes, None, False))
    if tried >= whole:
        return ""
    untried = "; ".join(untried_values(plan.search_axes, plan.configurations))
    return (
        f"sweep.trials={plan.settings['trials']} tries {tried:,} of {whole:,} combinations, the first ones, in which the last axis "
        f"changes fastest{f', and never {untried}' if untried else ''}. All: sweep.trials=null. By chance: sweep=random"
    )


def untried_values(axes: Sequence[Axis], grid: Grid) -> Iterator[str]:
    """Yield `lr=0.01, 0.001` for each axis with values that no configuration has."""
    tried = tried_values(grid)
    for axis in axes:
        lacking = [label for label in axis.labels if label not in tried.get(axis.name, ())]
        if lacking:
            yield f"{axis.name}={some(lacking, 5)}"


def tried_values(grid: Grid) -> dict[str, set[Any]]:
    """Return the values of each axis that some configuration has."""
    found: dict[str, set[Any]] = {}
    if isinstance(grid, Product):
        for axis in (axis for axes in grid.blocks() for axis in axes):
            found.setdefault(axis.name, set()).update(axis.labels)
        return found
    for chosen in grid:
        for name, value in chosen.items():
            found.setdefault(name, set()).add(value)
    return found
