"""Runs side by side: in which choices they differ, and whether their results do.

Runs that differ in `seed`, `fold` and `dataset.split_seed` alone are repetitions of one configuration; copies, where these are the same, count once.
A configuration gets the mean of its repetitions with Student's interval, and is tested against the best one: by a paired t-test
where both have the same seeds, or the same folds and splits, else by Welch's t-test; corrected for the number of tests by Holm. Configurations are
ranked and tested only among those that were trained on the same data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from dltrain.direction import RATES, Mode
from dltrain.errors import CheckpointProblem, UserError, listing, nearest, typed
from dltrain.storage.summary import UNRANKED
from dltrain.sweep.outcome import statistics
from dltrain.sweep.outcome.groups import (
    COMMANDS,
    Group,
    commands,
    copies_notes,
    data_names,
    division_notes,
    grouped,
    not_proposed_notes,
    number_data,
    rates_notes,
)
from dltrain.sweep.outcome.members import Member
from dltrain.sweep.outcome.metric import (
    check_apart,
    check_tasks,
    differently_computed,
    direction_among,
    label_of,
    plain_metric,
    shared_direction,
)
from dltrain.sweep.outcome.notes import remark_notes

# configurations for which a command that repeats them is printed
REPEATED = 3


@dataclass
class Comparison:
    """Configurations by their mean, the best first, one set of data after the other; `notes` are what has to be known."""

    metric: str
    mode: Mode
    groups: list[Group]
    notes: list[str] = field(default_factory=list)

    def direction(self, column: str) -> Mode | None:
        """Return whether lower or higher values of a column are better; None where the runs do not say."""
        if column == self.metric:
            return self.mode
        return shared_direction([member for group in self.groups for member in group.members], column)

    @property
    def by_data(self) -> list[list[Group]]:
        """Return the configurations of each set of data."""
        return [list(part) for _, part in groupby(self.groups, key=lambda group: group.data)]

    @property
    def warning(self) -> str:
        """Say that the data differ; "" where they are the same."""
        if len(self.by_data) == 1:
            return ""
        parts = [
            f"{name}: {sum(len(group.members) for group in part)}"
            for part, name in zip(self.by_data, data_names(self.by_data), strict=True)
        ]
        return f"The data differ (runs on {', '.join(parts)}): ranked and tested within the same data only."

    @property
    def conclusion(self) -> list[str]:
        """Return sentences that state which differences are distinguishable, for each set of data."""
        if len(self.by_data) == 1:
            return self._conclusion(self.groups)
        return [
            sentence if sentence.startswith(COMMANDS) else f"On {name}: {sentence}"
            for part, name in zip(self.by_data, data_names(self.by_data), strict=True)
            for sentence in self._conclusion(part)
        ]

    def _conclusion(self, groups: Sequence[Group]) -> list[str]:
        best, *others = groups
        if not others:
            return ["There is one configuration: nothing to compare it with."]
        if not any(group.test for group in others):
            most = max(len(group.units) for group in groups)
            runs, again = "one run" if most == 1 else f"at most {most} runs", "seeds"
            if any(group.is_divided for group in groups):
                runs, again = f"at most {most} folds and splits", "or more folds and splits"
            return [
                f"{runs} of each configuration: whether the differences are more than chance cannot be said. "
                f"Repeat each with {statistics.ENOUGH} {again}, the best first:",
                *commands(groups)[:REPEATED],
                *not_proposed_notes(groups[:REPEATED]),
            ]
        worse = [group for group in others if group.p is not None and group.p < statistics.LEVEL]
        equal = [group for group in others if group.p is not None and group.p >= statistics.LEVEL]
        tests = len(worse) + len(equal)
        corrected = f"corrected for {tests} tests by Holm" if tests > 1 else "one test"
        found = []
        if worse:
            found.append(
                f"{_name(best)} is better than {_count(worse, others)} by more than chance (5 % level, {corrected})."
            )
        if equal:
            names = ", ".join(map(_name, equal[:3])) + (
                f" and {len(equal) - 3} more" if len(equal) > 3 else ""
            )
            least = min(group.p or 0.0 for group in equal)
            sign = "=" if len(equal) == 1 else "≥"
            found.append(
                f"{_name(best)} is not distinguishable from {names} (p {sign} {least:.2g}, {corrected})."
            )
        if few := [group for group in others if group.p is None]:
            found.append(
                f"Not tested: {len(few)} of the {len(others)} others, which have fewer than {statistics.ENOUGH} repetitions."
            )
        return found


def _name(group: Group) -> str:
    return group.name or "the configuration"


def _count(worse: Sequence[Group], others: Sequence[Group]) -> str:
    if len(worse) == len(others):
        return "all others" if len(others) > 1 else _name(others[0])
    return f"{len(worse)} of the {len(others)} others"


def compare(members: Sequence[Member], metric: str | None = None) -> Comparison:
    """Group runs by configuration and test which differences are more than chance.

    Args:
        metric: the score to compare; None takes the objective, or the first score with a direction that all runs have

    Raises CheckpointProblem for runs of different tasks and for runs without a common score, UserError for a metric that
    is none.
    """
    if not members:
        raise UserError(
            "Name the runs to compare: dltrain compare outputs/NAME/DATE_TIME-xxxx …\nThe runs: dltrain runs"
        )
    check_tasks(members)
    done = [member for member in members if not _why_not(member)]
    notes = [f"{label_of(member)} is left out: {why}" for member in members if (why := _why_not(member))]
    if not done:
        who = "This run does not have" if len(members) == 1 else f"None of these {len(members)} runs has"
        raise CheckpointProblem(f"{who} a score. The states of all runs: dltrain runs --jobs")
    wanted, (metric, mode, told) = metric, chosen_metric(done, metric)
    if different := differently_computed(done, metric):
        instead = plain_metric(done, metric, different, refused=wanted is not None)
        _, mode, _ = chosen_metric(done, instead)
        metric, told = instead, [*told, f"{different}: compared by {instead}"]
    kept = [member for member in done if math.isfinite(member.scores.get(metric, math.nan))]
    check_apart(kept, metric)
    there = set(map(id, kept))
    notes += told + [
        f"{label_of(member)} is left out: it has no {metric}" for member in done if id(member) not in there
    ]
    if not kept:
        raise CheckpointProblem(f"None of these runs has a finite {metric}.")
    groups = grouped(kept, metric)
    number_data(groups)
    remarked = remark_notes((label_of(member), member.summary) for member in kept)
    sign = 1 if mode == "min" else -1
    groups.sort(key=lambda group: (group.data, sign * group.mean))
    found = Comparison(
        metric,
        mode,
        groups,
        [
            *notes,
            *remarked,
            *copies_notes(groups),
            *division_notes(groups),
            *rates_notes(groups),
            *budget_notes(kept),
        ],
    )
    for part in found.by_data:
        judge(part)
    return found


def _why_not(member: Member) -> str:
    """Return why a run is not compared; "" where it is."""
    status = str(member.summary["status"])
    if not member.scores:
        return f"it has no score ({status})"
    return f"it {status}" if status in UNRANKED else ""


def chosen_metric(members: Sequence[Member], wanted: str | None) -> tuple[str, Mode, list[str]]:
    """Return the metric that is compared, its direction, and what has to be said about the choice."""
    common = [name for name in members[0].scores if all(name in member.scores for member in members)]
    own = {str(member.summary.get("metric")): _mode(member.summary.get("mode")) for member in members}
    if wanted is not None:
        known = dict.fromkeys(name for member in members for name in member.scores)
        if wanted not in known:
            check_tested(members, wanted)
            raise UserError(
                f"`--metric` is {wanted}, which none of these runs has.{nearest(wanted, known)}\n{listing('Scores', known)}"
            )
        return wanted, direction_among(members, wanted), []
    if len(own) == 1:
        ((name, mode),) = own.items()
        if mode is not None and any(name in member.scores for member in members):
            return name, mode, []
    for name in sorted(common, key=lambda name: (not name.startswith("val/"), name == "val/loss")):
        if name not in RATES and (mode := shared_direction(members, name)):
            told = f"the runs have different metrics ({', '.join(sorted(own))}): compared by {name}, which all have"
            return name, mode, [told]
    raise CheckpointProblem(
        f"These runs have different metrics ({', '.join(sorted(own))}) and no common score with a direction. Name one: --metric NAME"
    )


def check_tested(members: Sequence[Member], wanted: str) -> None:
    """Refuse a score of the test split where the runs, as those of a sweep, were not scored on it; say how they are."""
    untested = not any(name.startswith("test/") for member in members for name in member.scores)
    if wanted.startswith("test/") and untested:
        metrics = {str(member.summary.get("metric")) for member in members}
        own = f"val/{wanted[5:]}"
        instead = (
            f"Compare on the val split: --metric {own}. " if any(own in m.scores for m in members) else ""
        )
        best = (compare(members).groups[0].members if len(metrics) == 1 else members)[0]
        raise UserError(
            f"`--metric` is {wanted}, and none of these runs was scored on the test split (a sweep sets evaluation.test=false).\n"
            f"{instead}A new sweep scores its best configuration: dltrain -m … evaluation.test=true\n"
            f"Printed, and not kept, for one: {typed('evaluate', best.path)}"
        )


def _mode(value: Any) -> Mode | None:
    return value if value in ("min", "max") else None


def judge(groups: Sequence[Group]) -> None:
    """Test each configuration against the first, and set p, verdict and place."""
    for place, group in enumerate(groups, start=1):
        group.place = place
    best, *others = groups
    best.verdict = "best" if others else ""
    for group in others:
        group.test, group.p = _test(best, group)
    tested = [group for group in others if group.p is not None]
    for group, p in zip(tested, statistics.holm([group.p or 0.0 for group in tested]), strict=True):
        group.p = p
    for group in others:
        group.verdict = statistics.verdict(group.p)


def _test(best: Group, other: Group) -> tuple[str, float | None]:
    """Return the test that fits two configurations, and its p; "" and None for too few repetitions."""
    if min(len(best.units), len(other.units)) < statistics.ENOUGH:
        return "", None
    if is_paired(best, other):
        values = dict(zip(other.unit_names, other.units, strict=True))
        return "paired", statistics.paired_p(best.units, [values[name] for name in best.unit_names])
    return "welch", statistics.welch_p(best.units, other.units)


def is_paired(left: Group, right: Group) -> bool:
    """Return whether two configurations have the same folds and splits, or, on one, the same seeds, each once."""
    names, others = left.unit_names, right.unit_names
    return len(set(names)) == len(names) == len(others) and set(names) == set(others)


def budget_notes(members: Sequence[Member]) -> list[str]:
    """Say which runs are not whole, so that their scores may still change."""
    states = [str(member.summary.get("status")) for member in members]
    return [
        f"{states.count(state)} {state}"
        for state in ("running", "interrupted", "failed", "pruned")
        if state in states
    ]
