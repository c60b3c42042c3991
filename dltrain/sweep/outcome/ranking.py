"""The configurations of a sweep, ranked; which axes matter, and warnings about their ends."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from dltrain.config.keys import REPLICATES, is_of_problem, may_change_data, same_samples, splits_data
from dltrain.direction import Mode, rank_of_mean
from dltrain.errors import CheckpointProblem
from dltrain.storage.summary import WHOLE
from dltrain.sweep.jobs import Chosen, Job, label
from dltrain.sweep.outcome import statistics
from dltrain.sweep.outcome.members import Member
from dltrain.sweep.plan.plan import Plan
from dltrain.sweep.plan.space import Axis

WORST: dict[Mode, float] = {"min": math.inf, "max": -math.inf}
SEEN = 8  # values of an axis of which it is seen whether they have the same data
MATTERS = 0.01  # share of the variance below which the best value of an axis is accidental


@dataclass(slots=True)
class Row:
    """One configuration with the objectives of its repetitions."""

    chosen: Chosen
    jobs: list[Job]
    values: list[float]  # of the repetitions that gave one
    mean: float
    deviation: float
    half_width: float
    verdict: str = ""
    # the values that vary independently: of several folds and splits one each
    units: list[float] = field(default_factory=list)
    objectives: tuple[float, ...] = ()  # means, where the sweep has several; ±inf for one that is missing

    @property
    def complete(self) -> bool:
        return len(self.values) == len(self.jobs) and all(job.state != "pruned" for job in self.jobs)

    def mean_at_best(self, name: str) -> float | None:
        """Return the mean over the repetitions of `Job.number_at_best`; None where one lacks it."""
        found = [value for job in self.jobs if (value := job.number_at_best(name)) is not None]
        return statistics.mean_and_deviation(found)[0] if len(found) == len(self.jobs) else None

    def label(self) -> str:
        return label(self.chosen) or "(the defaults)"


def rank(plan: Plan, jobs: list[Job]) -> list[Row]:
    """Return the configurations that gave a value, the best first; pruned ones and those with a failed job come after.

    A search may draw a configuration again: its jobs are copies, which count once.
    """
    by_choice: dict[tuple[object, ...], dict[tuple[object, ...], list[Job]]] = {}
    for job in sorted(jobs, key=lambda job: job.number):
        choice = tuple(item for item in job.chosen.items() if item[0] not in REPLICATES)
        repetition = tuple(job.chosen.get(name) for name in REPLICATES)
        by_choice.setdefault(choice, {}).setdefault(repetition, []).append(job)
    rows = []
    for repetitions in by_choice.values():
        members = [min(copies, key=_shortfall) for copies in repetitions.values()]
        values = [job.objective for job in members if job.objective is not None]
        if values and all(job.is_done for job in members):
            known = [job for job in members if job.objective is not None]
            units = statistics.independent(values, list(map(part_of, known)))
            mean, deviation = statistics.mean_and_deviation(units)
            chosen = members[0].chosen
            if any(name in REPLICATES for name in chosen):
                chosen = {name: value for name, value in chosen.items() if name not in REPLICATES}
            rows.append(
                Row(chosen, members, values, mean, deviation, statistics.half_width(units), units=units)
            )
    rows.sort(key=lambda row: rank_of_mean(row.units, row.complete, plan.mode))
    if len(plan.replicates) > 1 and rows and rows[0].complete:
        judge(rows, scoring_axes(plan, jobs))
    if plan.objectives:
        mark_trade_offs(plan, rows)
    return rows


def part_of(job: Job) -> tuple[object, ...]:
    """Return the fold and the seed of the split on which a job was trained and scored."""
    return tuple(job.chosen.get(name) for name in REPLICATES[1:])


def _shortfall(job: Job) -> int:
    """Return a sort key of copies: whole ones first, then those that ended with a value, then those that have one."""
    if job.objective is None:
        return 3
    return 0 if job.state in WHOLE else 1 if job.is_done and job.state != "pruned" else 2


def scoring_axes(plan: Plan, jobs: Iterable[Job]) -> list[str]:
    """Return the axes that decide on which samples, or by which targets, configurations are scored.

    Reads data.json of jobs for each axis of which only the data tell, until two differ.
    """
    jobs = [job for job in jobs if job.is_done and not job.failed]
    return [
        axis.name
        for axis in plan.search_axes
        if splits_data(axis.name)
        or is_of_problem(axis.name, plan.first.words["dataset"])
        or (may_change_data(axis.name, axis.labels) and _changes_data(axis, jobs))
        or (not same_samples(axis.name) and _sets_data(axis, jobs))
    ]


def _changes_data(axis: Axis, jobs: Iterable[Job]) -> bool:
    """Return whether jobs with different values of an axis have other data, or data that are not known."""
    for by_value in _alike(axis, jobs):
        prints = set()
        for job in by_value.values() if len(by_value) > 1 else ():
            prints.add(Member(job.folder).fingerprint)
            if len(prints) > 1 or "" in prints:
                return True
    return False


def _sets_data(axis: Axis, jobs: Iterable[Job]) -> bool:
    """Return whether values of an axis that is not of the dataset give other data, as recipes do, and keys that others follow."""
    by_value = next((found for found in _alike(axis, jobs) if len(found) > 1), {})
    some = list(by_value.values())[:: max(1, len(by_value) // SEEN)]
    known = set()
    for job in some:
        # the folder of one may be gone
        with suppress(CheckpointProblem):
            member = Member(job.folder)
            known |= {member.scored_on} if member.fingerprint or member.problem else set()
    return len(known) > 1


def _alike(axis: Axis, jobs: Iterable[Job]) -> list[dict[str, Job]]:
    """Return jobs that are equal in all else that the data depend on, by the value of an axis: a table is encoded by its fold, too."""
    alike: dict[object, dict[str, Job]] = {}
    for job in jobs:
        rest = tuple(item for item in job.chosen.items() if item[0] != axis.name and _is_of_data(item[0]))
        alike.setdefault(rest, {}).setdefault(str(job.chosen.get(axis.name)), job)
    return list(alike.values())


def _is_of_data(name: str) -> bool:
    return any(key.partition(".")[0] in ("dataset", *REPLICATES) for key in name.split(","))


def judge(rows: list[Row], scoring: Sequence[str] = ()) -> None:
    """Test the best configuration against the others that have the same values of the axes that decide on what is scored."""
    values = [[row.chosen.get(name) for name in scoring] for row in rows]
    alike = [row for row, own in zip(rows[1:], values[1:], strict=True) if own == values[0]]
    # the means of folds and splits are as many where one of their runs failed
    whole = [row for row in alike if row.complete]
    for row in rows[1:]:
        row.verdict = "other samples"
    for row in alike:
        row.verdict = "a repetition failed"
    for row, verdict in zip(
        whole, statistics.verdicts(rows[0].units, [row.units for row in whole]), strict=True
    ):
        row.verdict = verdict


def mark_trade_offs(plan: Plan, rows: list[Row]) -> None:
    """Sort by several objectives: the configurations that no other one beats in all come first."""
    for row in rows:
        numbers = [[job.number_at_best(name) for job in row.jobs] for name in plan.objectives]
        row.objectives = tuple(
            sum(WORST[mode] if number is None else number for number in column) / len(column)
            for column, mode in zip(numbers, plan.modes, strict=True)
        )
    for row in rows:
        beaten = any(dominates(other, row, plan.modes) for other in rows if other.complete)
        row.verdict = "dominated" if beaten else "trade-off"
    rows.sort(key=lambda row: (not row.complete, row.verdict != "trade-off"))


def dominates(left: Row, right: Row, modes: list[Mode]) -> bool:
    """Return whether one is at least as good in every objective, and better in one (Pareto)."""
    return left.objectives != right.objectives and all(
        a <= b if mode == "min" else a >= b
        for a, b, mode in zip(left.objectives, right.objectives, modes, strict=True)
    )


def winner(plan: Plan, rows: list[Row]) -> Job | None:
    """Return the best job of the best configuration."""
    if not rows or not rows[0].complete:
        return None
    sign = 1 if plan.mode == "min" else -1
    return min(rows[0].jobs, key=lambda job: math.inf if job.objective is None else sign * job.objective)


def edges(plan: Plan, rows: list[Row]) -> list[str]:
    """Return warnings where the best value of an axis of numbers that matters is the smallest or largest one tried."""
    if not rows or not rows[0].complete:
        return []
    found = []
    shares = importance(plan, rows)
    scoring = scoring_axes(plan, [job for row in rows for job in row.jobs])
    for axis in plan.search_axes:
        if axis.name in scoring:
            continue
        value = rows[0].chosen.get(axis.name)
        side = _edge(axis, value)
        if side and shares.get(axis.name, 1.0) >= MATTERS:
            shown = f"{value:.4g}" if isinstance(value, float) else value
            found.append(
                f"the best {axis.name} is {shown}, the {side} of its range: look further {'down' if side == 'low end' else 'up'}."
            )
    return found


def _edge(axis: Axis, value: object) -> str:
    number = _number(value)
    if number is None:
        return ""
    if axis.options:
        numbers = [_number(label) for label in axis.labels]
        known = sorted(n for n in numbers if n is not None)
        if len(known) < 3 or len(known) < len(numbers):
            return ""
        return "low end" if number == known[0] else "high end" if number == known[-1] else ""
    low, high = (math.log(axis.low), math.log(axis.high)) if axis.log else (axis.low, axis.high)
    share = ((math.log(number) if axis.log else number) - low) / (high - low)
    return "low end" if share < 0.02 else "high end" if share > 0.98 else ""


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def importance(plan: Plan, rows: list[Row]) -> dict[str, float]:
    """Return the fraction of the objective's variance that each axis explains alone (η²; ranges in four equal parts by rank).

    Of an axis under a condition, that among the configurations in which it is active: the rest is what the condition explains.
    """
    complete = [row for row in rows if row.complete]
    if len(complete) < 3:
        return {}
    shares = {}
    for axis in plan.search_axes:
        parts = _parts(axis, complete)
        values = [value for part in parts for value in part]
        if len(values) < 3:
            continue
        mean = sum(values) / len(values)
        total = sum((value - mean) ** 2 for value in values)
        between = sum(len(part) * (sum(part) / len(part) - mean) ** 2 for part in parts)
        shares[axis.name] = between / total if total > 0 else 0.0
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def uncertainty(plan: Plan, rows: list[Row]) -> dict[str, tuple[float, float, float]]:
    """Return the importance of each axis and its 95 % interval; without axes of which no value has two configurations."""
    complete = [row for row in rows if row.complete]
    found = {}
    for name, share in importance(plan, rows).items():
        axis = next(axis for axis in plan.search_axes if axis.name == name)
        parts = _parts(axis, complete)
        count = sum(map(len, parts))
        if count > len(parts):
            found[name] = (share, *statistics.share_interval(share, len(parts), count))
    return found


def _parts(axis: Axis, complete: list[Row]) -> list[list[float]]:
    """Return the objectives by the value of an axis, of a range by the quarter; rows in which it is not active are left out."""
    groups: dict[object, list[float]] = {}
    values = sorted(row.chosen[axis.name] for row in complete if axis.name in row.chosen)
    for row in complete:
        if axis.name in row.chosen:
            value = row.chosen[axis.name]
            groups.setdefault(value if axis.options else _quarter(value, values), []).append(row.mean)
    return list(groups.values())


def _quarter(value: float, ordered: list[float]) -> int:
    """Return in which quarter of the ordered values a value lies; equal ones lie together, by the middle of their places."""
    return 2 * (bisect_left(ordered, value) + bisect_right(ordered, value) - 1) // len(ordered)
