"""Plateau schedules that cannot act before the run ends: at its last step, or by early stopping."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

from dltrain.config.schema import Config
from dltrain.early_stopping import Patience
from dltrain.errors import UserError
from dltrain.run.data import SCHEDULES
from dltrain.schedules import Plateau
from dltrain.text import counted
from dltrain.training.parts import Parts, Plan

# evaluations until early stopping, in units of those until the schedule acts: it acts twice, and has an evaluation after that
ROOM = 3


def plateaus_of(parts: Parts) -> Iterator[tuple[str, Plateau]]:
    """Yield the plateau schedules with their keys."""
    schedules = (parts.schedule, parts.momentum_schedule, parts.penalty_schedule)
    for key, schedule in zip(SCHEDULES, schedules, strict=True):
        if isinstance(schedule, Plateau):
            yield key, schedule


def idle_plateaus(parts: Parts, plan: Plan, config: Config, given: Collection[str]) -> tuple[str, ...]:
    """Return a line for each plateau schedule that cannot act in this run, with a key that lets it.

    A run that early stopping always ends before may be as long as it likes; it raises UserError where a key of the command line,
    of which `given` are all, chose so.
    """
    lines = []
    for key, plateau in plateaus_of(parts):
        stopped = outrun_by(plateau, parts, plan)
        if stopped and given and {key, f"{key}.patience", "early_stopping.patience"} & set(given):
            raise UserError(outrun(key, plateau, stopped, "\n"))
        if stopped:
            lines.append(f"plateau  {outrun(key, plateau, stopped, ' ')}")
        elif plateau.patience > counting(plateau, plan):
            lines.append(f"plateau  {too_short(key, plateau, plan, config)}")
    return tuple(lines)


def counting(plateau: Plateau, plan: Plan) -> int:
    """Return how many evaluations in a row may count for patience before the last step that a change could reach."""
    # the first evaluation is an improvement, those of the warm-up do not count, and after the last one there is no step
    last = math.ceil(plan.total_steps / plan.evaluate_every) - 1
    return max(0, last - first_counting(plateau, plan) + 1)


def first_counting(plateau: Plateau, plan: Plan) -> int:
    """Return the number of the first evaluation that may count for patience, from 1."""
    return max(2, plateau.warmup // plan.evaluate_every + 1)


def too_short(key: str, plateau: Plateau, plan: Plan, config: Config) -> str:
    """Return that the run is too short for a schedule to change anything, and what is not."""
    evaluations = math.ceil(plan.total_steps / plan.evaluate_every)
    warm = min(plateau.warmup // plan.evaluate_every, evaluations)
    during = f", {warm} of them in the warm-up, which do not count" if warm else ""
    room = counting(plateau, plan)
    steps = plan.evaluate_every * (first_counting(plateau, plan) + plateau.patience - 1) + 1
    longer = f"steps={steps}" if config.steps else f"epochs={math.ceil(steps / plan.steps_per_epoch)}"
    cure = f"{key}.patience={room}" if room else longer
    return f"patience {plateau.patience} changes nothing within {counted(evaluations, 'evaluation')}{during} · it may with {cure}"


def outrun_by(plateau: Plateau, parts: Parts, plan: Plan) -> Patience | None:
    """Return the early stopping if it ends every run before the schedule acts.

    Both compare the same metric, an improvement for early stopping is always one for the schedule, and early stopping counts from
    the first evaluation on, so that its count is never the smaller one.
    """
    stopping = parts.early_stopping
    if not isinstance(stopping, Patience):
        return None
    outruns = (
        (stopping.metric, stopping.mode) == (plateau.metric, plateau.mode)
        and stopping.smoothing == 0
        and plateau.min_delta in (0, stopping.min_delta)
        and not any(one.is_pending(plan.evaluate_every) for one in parts.planned)
        and plateau.patience >= stopping.patience
    )
    return stopping if outruns else None


def outrun(key: str, plateau: Plateau, stopping: Patience, between: str) -> str:
    """Return that early stopping ends the run before a schedule changes anything, and what to type."""
    patience = stopping.patience
    lower = f"{key}.patience={math.ceil(patience / ROOM)} or " if patience > 1 else ""
    return (
        f"{key}.patience={plateau.patience} changes nothing: early stopping ends the run after "
        f"{counted(patience, 'evaluation')} without an improvement of {plateau.metric}.{between}"
        f"Use {lower}early_stopping.patience={ROOM * plateau.patience}"
    )
