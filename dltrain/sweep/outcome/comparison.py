"""Runs side by side: in which choices they differ, and whether their results do.

Runs that differ in `seed` and `fold` alone are repetitions of one configuration. A configuration gets the mean of its
repetitions with Student's interval, and is tested against the best one: by a paired t-test where both have the same seeds
and folds, else by Welch's t-test; corrected for the number of tests by Holm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dltrain.config.keys import REPLICATES, differences, keys_given, label
from dltrain.config.saved import flat, load_bounded
from dltrain.direction import Mode, direction_of
from dltrain.errors import CheckpointProblem, UserError, listing, nearest, typed
from dltrain.storage.folder_names import SWEEP_RECORD
from dltrain.storage.index import number_of, scan
from dltrain.storage.job_names import job_number
from dltrain.storage.summary import read_json, read_summary
from dltrain.sweep.outcome import statistics

# fields of a summary that a table of runs shows
_SHOWN = ("status", "metric", "objective", "best_epoch", "seconds")
_NO_SCORES = ("epoch", "step", "lr", "seconds", "images_per_second", "grad_norm")


@dataclass
class Member:
    """A run that is compared."""

    path: Path
    label: str = ""

    @cached_property
    def summary(self) -> dict[str, Any]:
        return read_summary(self.path)

    @cached_property
    def config(self) -> dict[str, Any]:
        """Return the configuration by dotted key, with the words by group."""
        saved = self.summary.get("config")
        if isinstance(saved, dict):
            return saved
        if not (self.path / "config.yaml").is_file():
            raise CheckpointProblem(f"{self.path} has no config.yaml: its run has not begun.")
        return flat(load_bounded(self.path / "config.yaml"))

    @cached_property
    def data(self) -> dict[str, Any]:
        """Return data.json; empty where it is missing or damaged."""
        try:
            return read_json(self.path / "data.json")
        except (OSError, ValueError):
            return {}

    @property
    def given(self) -> set[str]:
        overrides = self.summary.get("overrides")
        return keys_given(overrides if isinstance(overrides, list) else [])

    @property
    def replicate(self) -> tuple[Any, ...]:
        """Return the keys in which the repetitions of a configuration differ: seed and fold."""
        return self.summary.get("seed", self.config.get("seed")), self.config.get("fold")

    @cached_property
    def scores(self) -> dict[str, float]:
        """Return the scores at the best evaluation, those of the test split, and the time, by name."""
        best, test = (self.summary.get(key) for key in ("best", "test"))
        found = {
            str(key): value
            for key, value in (best if isinstance(best, dict) else {}).items()
            if key not in _NO_SCORES
        }
        found |= {f"test/{key}": value for key, value in (test if isinstance(test, dict) else {}).items()}
        found |= {key: self.summary.get(key) for key in ("seconds", "images_per_second")}
        if isinstance(metric := self.summary.get("metric"), str):
            found[metric] = self.summary.get("objective", found.get(metric))
        return {key: value for key, item in found.items() if (value := number_of(item)) is not None}


def members_of(folder: Path) -> list[Member]:
    """Return the run of a folder, or the runs of a sweep that have begun."""
    if not (folder / SWEEP_RECORD).is_file():
        return [Member(folder)]
    jobs = [path for path, _, is_sweep, _ in scan(folder) if not is_sweep]
    return [Member(folder / path) for path in sorted(jobs, key=_job_number)]


def _job_number(name: str) -> tuple[int, str]:
    return job_number(name) or 0, name


def choices_of(members: Sequence[Member]) -> list[dict[str, Any]]:
    """Return, for each run, the words and the keys in which the runs differ."""
    given = {key for member in members for key in member.given}
    return differences([member.config for member in members], given) if members else []


def rows_of(members: Sequence[Member]) -> list[dict[str, Any]]:
    """Return a row for each run: its choices, and what came out."""
    rows = []
    for member, choices in zip(members, choices_of(members), strict=True):
        test = member.summary.get("test")
        scores = {f"test/{name}": value for name, value in (test if isinstance(test, dict) else {}).items()}
        rows.append(
            {"run": member.label, **choices, **{name: member.summary.get(name) for name in _SHOWN}, **scores}
        )
    return rows


@dataclass
class Group:
    """A configuration with its repetitions.

    Args:
        p: corrected p of the test against the best configuration; None where there is none
        test: the test: paired, welch, or "" for none
        verdict: the result of the test as text
    """

    choices: dict[str, Any]
    members: list[Member]
    values: list[float]
    mean: float = math.nan
    deviation: float = math.nan
    half_width: float = math.nan
    p: float | None = None
    test: str = ""
    verdict: str = ""

    @property
    def name(self) -> str:
        """Return the choices in one line, those that an override of its runs set first; empty where there are none."""
        return label(self.choices, {key for member in self.members for key in member.given})

    @property
    def seeds(self) -> list[tuple[Any, ...]]:
        return [member.replicate for member in self.members]


@dataclass
class Comparison:
    """Configurations by their mean, the best first; `notes` are what has to be known about them."""

    metric: str
    mode: Mode
    groups: list[Group]
    notes: list[str] = field(default_factory=list)

    @property
    def conclusion(self) -> list[str]:
        """Return sentences that state which differences are distinguishable."""
        best, *others = self.groups
        if not others:
            return ["There is one configuration: nothing to compare it with."]
        if not any(group.test for group in others):
            most = max(len(group.values) for group in self.groups)
            runs = "one run" if most == 1 else f"at most {most} runs"
            return [
                f"{runs} of each configuration: whether the differences are more than chance cannot be said. Repeat "
                f"them with {statistics.ENOUGH} seeds: seed={','.join(map(str, range(statistics.ENOUGH)))}"
            ]
        worse = [group for group in others if group.p is not None and group.p < statistics.LEVEL]
        equal = [group for group in others if group.p is not None and group.p >= statistics.LEVEL]
        found = []
        if worse:
            found.append(
                f"{_name(best)} is better than {_count(worse, others)} by more than chance (5 % level, Holm)."
            )
        if equal:
            names = ", ".join(map(_name, equal[:3])) + (
                f" and {len(equal) - 3} more" if len(equal) > 3 else ""
            )
            found.append(f"{_name(best)} is not distinguishable from {names}.")
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
    done = [member for member in members if member.scores]
    notes = [f"{member.label or member.path} is left out: it has no score ({member.summary['status']})"
             for member in members if not member.scores]  # fmt: skip
    if not done:
        raise CheckpointProblem(
            f"None of these {len(members)} runs has a score. Their states: dltrain runs --jobs"
        )
    metric, mode, told = chosen_metric(done, metric)
    left = [member for member in done if not math.isfinite(member.scores.get(metric, math.nan))]
    notes += told + [f"{member.label or member.path} is left out: it has no {metric}" for member in left]
    kept = [member for member in done if member not in left]
    if not kept:
        raise CheckpointProblem(f"None of these runs has a finite {metric}.")
    groups = grouped(kept, metric)
    sign = 1 if mode == "min" else -1
    groups.sort(key=lambda group: sign * group.mean)
    judge(groups)
    return Comparison(metric, mode, groups, [*notes, *data_notes(kept), *budget_notes(kept)])


def check_tasks(members: Sequence[Member]) -> None:
    """Raise CheckpointProblem where the runs have different tasks."""
    tasks = {
        str(member.data["task"]): member for member in members if isinstance(member.data.get("task"), str)
    }
    if len(tasks) > 1:
        (one, left), (other, right) = list(tasks.items())[:2]
        raise CheckpointProblem(
            f"{left.path} is a {one} and {right.path} a {other}: their scores do not compare. Name runs of one task."
        )


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
        mode = own.get(wanted) or ("min" if wanted == "seconds" else direction_of(wanted))
        if mode is None:
            raise UserError(
                f"`--metric` is {wanted}, of which it is not known whether lower or higher is better. {listing('Scores', known)}"
            )
        return wanted, mode, []
    if len(own) == 1:
        ((name, mode),) = own.items()
        if mode is not None and any(name in member.scores for member in members):
            return name, mode, []
    for name in sorted(common, key=lambda name: (not name.startswith("val/"), name == "val/loss")):
        if (mode := direction_of(name)) is not None and name not in ("seconds", "images_per_second"):
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
        best = (compare(members).groups[0].members if len(metrics) == 1 else members)[0]
        raise UserError(
            f"`--metric` is {wanted}, and none of these runs was scored on the test split (a sweep sets evaluation.test=false).\n"
            f"Score one: {typed('evaluate', best.path)}\n"
            "A new sweep scores its best configuration at its end: dltrain -m … evaluation.test=true"
        )


def _mode(value: Any) -> Mode | None:
    return value if value in ("min", "max") else None


def grouped(members: Sequence[Member], metric: str) -> list[Group]:
    """Return the configurations with the values of their repetitions, in the order of their first runs."""
    groups: dict[str, Group] = {}
    for member, choices in zip(members, choices_of(members), strict=True):
        kept = {key: value for key, value in choices.items() if key not in REPLICATES}
        group = groups.setdefault(repr(kept), Group(kept, [], []))
        group.members.append(member)
        group.values.append(member.scores[metric])
    for group in groups.values():
        group.mean, group.deviation = statistics.mean_and_deviation(group.values)
        group.half_width = statistics.half_width(group.values)
    return list(groups.values())


def judge(groups: Sequence[Group]) -> None:
    """Test each configuration against the first, and set p and verdict."""
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
    if min(len(best.values), len(other.values)) < statistics.ENOUGH:
        return "", None
    if is_paired(best, other):
        values = dict(zip(other.seeds, other.values, strict=True))
        return "paired", statistics.paired_p(best.values, [values[seed] for seed in best.seeds])
    return "welch", statistics.welch_p(best.values, other.values)


def is_paired(left: Group, right: Group) -> bool:
    """Return whether two configurations have the same seeds and folds, each once."""
    return len(set(left.seeds)) == len(left.seeds) == len(right.seeds) and set(left.seeds) == set(right.seeds)


def data_notes(members: Sequence[Member]) -> list[str]:
    """Say where runs were trained on different data, whose scores may not compare."""
    prints = {str(member.data.get("fingerprint")) for member in members if member.data.get("fingerprint")}
    return [f"the runs were trained on {len(prints)} different sets of data"] if len(prints) > 1 else []


def budget_notes(members: Sequence[Member]) -> list[str]:
    """Say which runs are not whole, so that their scores may still change."""
    states = [str(member.summary.get("status")) for member in members]
    return [
        f"{states.count(state)} {state}"
        for state in ("running", "interrupted", "failed", "pruned")
        if state in states
    ]
