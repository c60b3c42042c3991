"""The configurations of a sweep in a listing: its jobs, those that differ in seed, fold and split seed alone together, by their mean.

A search may draw a configuration again: of copies, whose seed, fold and split seed are the same too, one counts, as in `compare`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dltrain.commands.asked import is_sweep
from dltrain.config.keys import REPLICATES
from dltrain.direction import Mode, mean_of, rank_of_mean
from dltrain.errors import CheckpointProblem, typed
from dltrain.storage.index import Entry, Index, finite, number_of
from dltrain.storage.job_names import job_label, job_number
from dltrain.storage.summary import ENDED, UNRANKED, WHOLE


@dataclass(slots=True)
class Configuration:
    """Jobs that are repetitions of one configuration, by their numbers; of copies one."""

    jobs: list[Entry]

    @property
    def values(self) -> list[float]:
        """Return the objectives of the jobs that have one."""
        return [value for job in self.jobs if (value := objective_of(job)) is not None]

    @property
    def mode(self) -> Mode:
        return "max" if self.jobs[0].facts.get("mode") == "max" else "min"

    def is_whole(self, repetitions: int) -> bool:
        """Return whether all of its repetitions ended, none was pruned, and each gave an objective."""
        return len(self.jobs) >= repetitions and all(map(_counts, self.jobs))

    def entry(self) -> Entry:
        """Return its best job, whose objective and scores are the means over the repetitions, without seed, fold and split seed."""
        sign = -1 if self.mode == "max" else 1
        values = {id(job): objective_of(job) for job in self.jobs}
        best = min(self.jobs, key=lambda job: math.inf if (v := values[id(job)]) is None else sign * v)
        if len(self.jobs) == 1:
            return best
        facts = {key: value for key, value in best.facts.items() if key not in REPLICATES}
        for key in facts:
            if "/" in key:
                scores = [number_of(job.facts.get(key)) for job in self.jobs]
                known = [score for score in scores if score is not None]
                facts[key] = mean_of(known) if len(known) == len(scores) else None
        if self.values:
            facts["objective"] = mean_of(self.values)
        differing = {
            key: None for key in REPLICATES if len({str(job.value_of_config(key)) for job in self.jobs}) > 1
        }
        return replace(best, facts=facts, changes=best.changes | differing)


def objective_of(entry: Entry) -> float | None:
    """Return the objective of a run that neither failed nor diverged; None where it is not finite."""
    return None if entry.facts.get("status") in UNRANKED else finite(entry.facts.get("objective"))


def configurations_of(jobs: Iterable[Entry]) -> list[Configuration]:
    """Return the configurations of jobs as the report of a sweep ranks them, the best first."""
    copies: dict[object, dict[object, list[Entry]]] = {}
    for job in _by_number(jobs):
        configuration, repetition = _keys(job)
        copies.setdefault(configuration, {}).setdefault(repetition, []).append(job)
    found = [Configuration(_by_number(map(_counted, parts.values()))) for parts in copies.values()]
    repetitions = max((len(one.jobs) for one in found), default=1)
    return sorted(found, key=lambda one: rank_of_mean(one.values, one.is_whole(repetitions), one.mode))


def _counted(copies: Sequence[Entry]) -> Entry:
    """Return the copy that counts: the first of those that are whole, else of those that ended with a value, else have one."""
    return copies[0] if len(copies) == 1 else min(copies, key=_shortfall)


def _shortfall(job: Entry) -> tuple[bool, bool, bool]:
    known = _counts(job)
    return not (known and job.facts["status"] in WHOLE), not known, objective_of(job) is None


def _counts(job: Entry) -> bool:
    """Return whether a job ended, was not pruned, and gave an objective."""
    status = job.facts.get("status")
    return status in ENDED and status != "pruned" and objective_of(job) is not None


def _by_number(jobs: Iterable[Entry]) -> list[Entry]:
    """Return jobs by their number; of two folders of one job, which no sweep makes, that which sweeps read."""
    found = {
        job.path if (number := job_number(job.folder_name)) is None else (job.sweep, number): job
        for job in sorted(jobs, key=lambda job: job.path)
    }
    return sorted(found.values(), key=lambda job: job_number(job.folder_name) or 0)


def shown_entry(entry: Entry, jobs: Sequence[Entry]) -> Entry:
    """Return what a listing shows of a sweep: the mean of its best configuration, or the sweep itself before there is one."""
    best = next(iter(configurations_of(jobs)), None)
    return best.entry() if best is not None and best.values else entry


def best_jobs(sweep: Path) -> list[Path]:
    """Return the folders of the repetitions of a sweep's best configuration; none before a job has a result."""
    jobs = [entry for entry in Index(sweep, cached=False).entries if not entry.is_sweep]
    best = next(iter(configurations_of(jobs)), None)
    return [sweep / job.path for job in best.jobs] if best is not None and best.values else []


def _keys(job: Entry) -> tuple[object, object]:
    """Return the overrides that the repetitions of a configuration have in common, and those of seed, fold and split seed.

    A job that failed at once has no configuration in its record, but it has the overrides.
    """
    overrides = job.facts.get("overrides")
    if not isinstance(overrides, list) or not overrides:
        return job.path, ()
    own = frozenset(text for text in overrides if text.lstrip("+").partition("=")[0] in REPLICATES)
    return frozenset(overrides) - own, own


def check_no_sweep(path: Path, done: str, before: Sequence[str], after: Sequence[str]) -> None:
    """Refuse a sweep where a verb takes runs, and name the repetitions of its best configuration.

    Args:
        done: what the verb does with runs, such as `scored`
        before: the words of the command in front of the path
        after: those behind it
    """
    if not is_sweep(path):
        return
    numbered = [path / job_label(job.name) for job in best_jobs(path)]
    best = f" Its best configuration: {typed(*before, *numbered, *after)}" if numbered else ""
    raise CheckpointProblem(
        f"{path} is a sweep, whose runs are {done} one by one, and several as an ensemble.{best}\n"
        f"All of its runs: {typed('runs', path)}"
    )
