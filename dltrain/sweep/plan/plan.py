"""The plan of a sweep: its axes, its repetitions and its jobs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dltrain.config.door import Rights
from dltrain.config.keys import REPLICATES
from dltrain.config.schema import Config, Node
from dltrain.direction import Mode, direction_of, resolve_mode
from dltrain.errors import assigned, typed
from dltrain.storage.job_names import JobFolders
from dltrain.storage.proposed import beyond_record
from dltrain.sweep.jobs import Chosen, Job
from dltrain.sweep.plan import space
from dltrain.sweep.plan.composer import Composer
from dltrain.sweep.plan.grid import Grid
from dltrain.sweep.plan.space import Axis

# keys of `sweep` that may differ in a resumed sweep: they state how it runs
HOW = (
    "jobs", "jobs_per_gpu", "timeout", "fail_fast", "retry", "dry_run", "resume", "fresh", "reuse", "vectorize", "backend",
)  # fmt: skip


@dataclass
class Plan:
    """One sweep, checked. `configurations` are those of a grid, None for a search."""

    axes: list[Axis]
    # the repetitions of a configuration, as values of the axes seed, fold and dataset.split_seed
    replicates: list[dict[str, Any]]
    fixed: list[str]  # overrides of every job
    settings: dict[str, Any]  # the keys of conf/sweep
    word: str
    composer: Composer
    first: Config
    test: bool  # whether the winner's test split was asked for
    backend: str = "auto"  # the word of sweep.backend
    configurations: Grid | None = None
    rights: Rights = Rights(frozenset())  # what its configurations may name
    losses: list[Node] = field(
        default_factory=list
    )  # the different losses that its jobs minimize (`check_all`)

    # of the jobs; those of a sweep that was begun keep their names
    folders: JobFolders = field(default_factory=JobFolders)
    # the options that a command needs to find the words of this sweep
    options: list[str] = field(default_factory=list)
    # the user's files from which the configurations come: their digests by path (`check_all`)
    files: dict[str, str] = field(default_factory=dict)

    @property
    def trials(self) -> int:
        if self.configurations is not None:
            return len(self.configurations)
        return int(self.settings["trials"])

    @property
    def total(self) -> int:
        """Number of jobs; of a search, at most."""
        return self.trials * len(self.replicates)

    @property
    def search_axes(self) -> list[Axis]:
        return [axis for axis in self.axes if axis.name not in REPLICATES]

    @property
    def blind(self) -> bool:
        """Whether the configurations do not depend on results, so that they can be asked for beforehand."""
        return self.configurations is not None or self.word in ("random", "qmc")

    @property
    def metric(self) -> str:
        return str(self.first.early_stopping.get("metric", "val/loss"))

    @property
    def mode(self) -> Mode:
        """The direction of the metric."""
        return mode_of(self.first)

    @property
    def objectives(self) -> list[str]:
        """Several objectives; empty for the one of early stopping."""
        return [str(name) for name in self.settings.get("objectives") or []]

    @property
    def modes(self) -> list[Mode]:
        """The direction of each objective; what is no metric, such as parameters, is better the lower."""
        return [direction_of(name, self.first.metrics) or "min" for name in self.objectives] or [self.mode]

    def jobs(self, trial: int, chosen: Chosen, folder: Path) -> list[Job]:
        """Return the jobs of a trial: one for each repetition."""
        return [self.job(trial, r, chosen, folder) for r in range(len(self.replicates))]

    def grid_jobs(self, folder: Path) -> Iterator[Job]:
        """Yield the jobs of a grid in the order in which they are tried."""
        for trial, chosen in enumerate(self.configurations or ()):
            for repetition in range(len(self.replicates)):
                yield self.job(trial, repetition, chosen, folder)

    def job_of(self, number: int, folder: Path) -> Job:
        """Return a job of a grid by its number."""
        assert self.configurations is not None
        trial, repetition = self.configurations.job(number)
        return self.job(trial, repetition, self.configurations[trial], folder)

    def job(self, trial: int, repetition: int, chosen: Chosen, folder: Path) -> Job:
        """Return a job of a trial."""
        number = trial * len(self.replicates) + repetition
        if self.configurations is not None:
            number = self.configurations.number(trial, repetition)
        found = chosen | self.replicates[repetition]
        values = {axis.name: found[axis.name] for axis in self.axes if axis.name in found}
        return Job(number, trial, values, self.overrides(values), self.folders.of(folder, number, values))

    def overrides(self, values: dict[str, Any]) -> list[str]:
        return [*space.overrides_of(self.axes, values), *self.fixed]

    def resume_command(self, folder: Path) -> str:
        """Return the command that continues the sweep in a folder, as bash takes it."""
        return typed("-m", *self.options, assigned("sweep.resume", folder))

    def rerun_command(self, job: Job) -> str:
        """Return the command that runs the configuration of a job by itself, as bash takes it.

        Overrides of a sweep.json do not get the rights of the command line.
        """
        if not self.rights.local and beyond_record(job.overrides, ""):
            return typed("rerun", job.folder)
        return typed(*self.options, *job.overrides)

    def identity(self) -> dict[str, Any]:
        """Return what must be equal for a sweep to continue, as JSON data."""
        settings = {k: v for k, v in self.settings.items() if k not in HOW}
        return {
            "sweep": self.word,
            "fixed": sorted(self.fixed),
            "axes": space.to_plain(self.axes),
            "settings": settings,
            "test": self.test,
            "files": self.files,
        }


def mode_of(config: Config) -> Mode:
    """Return the direction of a run's objective."""
    stopping = config.early_stopping
    return resolve_mode(stopping.get("metric", "val/loss"), stopping.get("mode", "auto"), config.metrics)
