"""More trials or more repetitions of a sweep: what is done keeps its numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dltrain.config.keys import REPLICATES
from dltrain.sweep.plan import space
from dltrain.sweep.plan.plan import Plan
from dltrain.sweep.plan.reading import enumerate_grid


def extend(plan: Plan, then: dict[str, Any]) -> bool:
    """Return whether a plan only adds trials or repetitions to a sweep of identity `then`; if so, keep its job numbers.

    The seeds of a search cannot grow, since its job numbers depend on their count.
    """
    former = former_plan(plan, then)
    if former is None or not grows(former, plan):
        return False
    if plan.configurations is not None:
        keep_numbers(former, plan)
    return True


def former_plan(plan: Plan, then: dict[str, Any]) -> Plan | None:
    """Return the plan that a sweep was begun with; None where more than trials and repetitions differ."""
    axes = space.from_plain(then["axes"])
    repeated = [axis for axis in axes if axis.name in REPLICATES]
    settings = plan.settings | {key: then["settings"].get(key) for key in ("trials", "seeds")}
    replicates = list(space.grid(repeated)) if repeated else [{}]
    former = replace(plan, axes=axes, replicates=replicates, settings=settings, trial_of={})
    same = former.identity() | {"files": None} == then | {"files": None}
    if not same or former.search_axes != plan.search_axes:
        return None
    if plan.configurations is not None:
        enumerate_grid(former)
    return former


def grows(former: Plan, plan: Plan) -> bool:
    """Return whether everything of the former plan is in the new one."""
    if plan.configurations is None:
        return former.replicates == plan.replicates and former.trials <= plan.trials
    kept = all(chosen in plan.configurations for chosen in former.configurations or [])
    return kept and all(explicit(replicate, plan) in plan.replicates for replicate in former.replicates)


def explicit(replicate: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Return a repetition of a sweep without repetitions, whose runs have the default seed, as that of one over seeds."""
    seeded = not replicate and any("seed" in found for found in plan.replicates)
    return {"seed": str(plan.first.seed)} if seeded else replicate


def keep_numbers(former: Plan, plan: Plan) -> None:
    """Assign job numbers to a grid: the former plan's jobs keep theirs, the others follow in the order of the grid."""
    assert former.configurations is not None and plan.configurations is not None
    configurations = [
        *former.configurations,
        *(c for c in plan.configurations if c not in former.configurations),
    ]
    trial = {index: configurations.index(chosen) for index, chosen in enumerate(plan.configurations)}
    repetition = {
        plan.replicates.index(explicit(found, plan)): r for r, found in enumerate(former.replicates)
    }
    # former numbers by the trial and the repetition of the new plan
    numbers = {
        (t, r): former.trial_of[t, repetition[r]]
        for t in range(len(former.configurations))
        for r in repetition
    }
    for (t, r), _ in sorted(plan.trial_of.items(), key=lambda item: item[1]):
        numbers.setdefault((trial[t], r), len(numbers))
    plan.configurations, plan.trial_of = configurations, numbers
