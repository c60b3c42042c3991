"""The configurations of a sweep in a listing: its jobs, those that differ in seed, fold and split seed alone together, by their mean."""

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
from dltrain.storage.summary import ENDED, UNRANKED


@dataclass(slots=True)
class Configuration:
    """Jobs that are repetitions of one configuration, by their numbers, and the objectives of those that have one."""

    jobs: list[Entry]
    values: list[float]

    @property
    def mode(self) -> Mode:
        return "max" if self.jobs[0].facts.get("mode") == "max" else "min"

    def is_whole(self, repetitions: int) -> bool:
        """Return whether all of its repetitions ended, none was pruned, and each gave an objective."""
        ended = all(job.facts.get("status") in ENDED and job.facts["status"] != "pruned" for job in self.jobs)
        return ended and len(self.values) == len(self.jobs) >= repetitions

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
    found: dict[object, Configuration] = {}
    for job in _by_number(jobs):
        one = found.setdefault(_key(job), Configuration([], []))
        one.jobs.append(job)
        if (value := objective_of(job)) is not None:
            one.values.append(value)
    repetitions = max((len(one.jobs) for one in found.values()), default=1)
    return sorted(
        found.values(), key=lambda one: rank_of_mean(one.values, one.is_whole(repetitions), one.mode)
    )


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


def _key(job: Entry) -> object:
    """Return what the repetitions of a configuration have in common: the overrides, but for seed, fold and split seed."""
    overrides = job.facts.get("overrides")
    if not isinstance(overrides, list) or not overrides:
        return job.path
    return frozenset(text for text in overrides if text.lstrip("+").partition("=")[0] not in REPLICATES)


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
