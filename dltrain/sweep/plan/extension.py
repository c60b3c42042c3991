"""More trials, values or repetitions of a sweep: what is done keeps its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dltrain.sweep.jobs import Chosen
from dltrain.sweep.plan import space
from dltrain.sweep.plan.grid import Table, grid_of, grown, key_of, repetitions_of
from dltrain.sweep.plan.plan import Plan

# what a sweep may have more of
GROWING = ("trials", "seeds")


def extends(plan: Plan, then: dict[str, Any]) -> bool:
    """Return whether a plan only adds trials, values or repetitions to a sweep of identity `then`.

    Of a search only the trials can grow: its job numbers depend on the count of seeds, and its study on the values.
    """
    former = former_plan(plan, then)
    if former.identity() | {"files": None} != then | {"files": None}:
        return False
    if former.search_axes == plan.search_axes and plan.configurations is None:
        return former.replicates == plan.replicates and former.trials <= plan.trials
    return has_more_values(former, plan) and joined(former, plan) is not None


def has_more_values(former: Plan, plan: Plan) -> bool:
    """Return whether the axes are those of a former grid, with the same or more values; a pruner's study takes no more."""
    pairs = list(zip(former.search_axes, plan.search_axes, strict=False))
    same = len(former.search_axes) == len(plan.search_axes) == len(pairs) and all(
        (old.name, old.when) == (new.name, new.when) for old, new in pairs
    )
    more = any(old.options != new.options for old, new in pairs)
    return (
        same
        and plan.configurations is not None
        and all(set(old.options) <= set(new.options) for old, new in pairs)
        and not (more and plan.settings["pruner"] != "none")
    )


def former_plan(plan: Plan, then: dict[str, Any]) -> Plan:
    """Return the plan with the axes and the numbers of trials and seeds of a sweep of identity `then`."""
    axes = space.from_plain(then["axes"])
    settings = plan.settings | {key: then["settings"].get(key) for key in GROWING}
    found = replace(plan, axes=axes, replicates=repetitions_of(axes), settings=settings)
    if plan.configurations is not None:
        found.configurations = grid_of(axes, settings["trials"], settings["pruner"] != "none")
    return found


def keep_numbers(plan: Plan, stages: Sequence[dict[str, Any]]) -> None:
    """Assign the job numbers of a grid that was extended: each stage's jobs keep theirs, later ones follow.

    Args:
        stages: the identities that the sweep had, the first one first
    """
    former: Plan | None = None
    for stage in [former_plan(plan, then) for then in stages] + [plan] if stages else []:
        stage.configurations = stage.configurations if former is None else joined(former, stage)
        former = stage


def joined(former: Plan, plan: Plan) -> Table | None:
    """Return the grid of a plan with the numbers of a former one; None where it lacks a job of that."""
    places = {key_of(replicate): r for r, replicate in enumerate(plan.replicates)}
    repeated = [places.get(key_of(explicit(replicate, plan))) for replicate in former.replicates]
    known = [r for r in repeated if r is not None]
    assert former.configurations is not None and plan.configurations is not None
    return grown(former.configurations, plan.configurations, known) if len(known) == len(repeated) else None


def explicit(replicate: Chosen, plan: Plan) -> Chosen:
    """Return a repetition of a sweep without repetitions, whose runs have the default seed, as that of one over seeds."""
    seeded = not replicate and any(axis.name == "seed" for axis in plan.axes)
    return {"seed": str(plan.first.seed)} if seeded else replicate
