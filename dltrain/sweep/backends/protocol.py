"""The interface between the driver of a sweep and what runs its jobs: a backend, a word of `sweep.backend`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dltrain.config.catalogue import Catalogue
from dltrain.config.door import Rights
from dltrain.config.schema import Config
from dltrain.errors import UNWRITABLE, UserError
from dltrain.sweep.jobs import Job

CANCELED = 130  # code of a job that was canceled before it started


@dataclass(frozen=True)
class Started:
    """A job runs. A job that a backend starts again sends it again."""

    job: Job


@dataclass(frozen=True)
class Evaluated:
    """A running job was evaluated.

    Args:
        number: number of this evaluation, from 1
        total: evaluations that the job will have
        epoch: epochs until now
        value: the metric of early stopping
        best: the best value until now, by the settings of early stopping
    """

    job: Job
    number: int
    total: int
    epoch: float
    value: float
    best: float | None = None


@dataclass(frozen=True)
class Ended:
    """A job's process ended. Its summary.json states the result.

    Args:
        code: exit code of the process, negative for a signal
        reason: message of an error, if it is known
    """

    job: Job
    code: int
    reason: str = ""

    @property
    def is_out_of_memory(self) -> bool:
        """Return whether a job ended for lack of memory, by its message: a kill by the system looks like one by a user."""
        return self.code == 6 and "memory" in self.reason.lower()

    @property
    def is_disk_full(self) -> bool:
        """Return whether a job ended because nothing more can be written, by its message."""
        return self.code == 6 and any(os.strerror(number) in self.reason for number in UNWRITABLE)

    @property
    def how_it_died(self) -> str:
        """Return the reason for the end of a job that sent no message."""
        if self.code < 0:
            return f"killed by signal {-self.code} ({signal.Signals(-self.code).name})"
        return f"its process ended by itself with exit code {self.code} before the run was done"


Event = Started | Evaluated | Ended


class Backend(Protocol):
    """Runs the jobs of a sweep; the driver decides which ones, and writes the files of the sweep.

    Optional attributes:

    places      jobs that run at a time; by default `sweep.jobs`
    capacity    jobs to submit at most, where they do not depend on results of others; by default `places`
    gives       {"evaluations"} for a backend whose events contain `Evaluated`, which `sweep.pruner` needs
    preview     preview(jobs) returns lines about how jobs would run, for `sweep.dry_run`
    stays       for jobs that go on without the driver: a sentence on how to end them. A signal then ends the driver only
    """

    def submit(self, job: Job) -> None:
        """Start a job, or queue it, and return at once."""

    def events(self) -> Iterable[Event]:
        """Return what happened since the last call; wait for at most some tenths of a second where nothing did.

        Each job that was submitted ends with one `Ended`, also if it was canceled before it started.
        """

    def cancel(self, job: Job) -> None:
        """Ask a job to save and to stop, as SIGINT does; remove one that waits. `job.pruned` is the pruner's reason."""

    def close(self) -> None:
        """Kill the jobs that still run, unless they stay, and release everything. Called once, at the end."""


class CompleteBackend(Backend, Protocol):
    """A backend with the optional attributes."""

    places: int
    capacity: int
    gives: frozenset[str]
    preview: Callable[[Sequence[Job]], list[str]]
    stays: str


@dataclass(frozen=True)
class Sweep:
    """The facts about a sweep that its backend is built with.

    Args:
        jobs: jobs that run at a time, from `sweep.jobs` and the number of cores or GPUs
        settings: the keys of `sweep`
        device: the knob `device`
        gpus: GPUs that the sweep may use, each with its free bytes
        configs: configurations that were checked beforehand: those of a grid; of a search or a large grid, a selection
        rights: what the configurations may name
        command: the command line of the sweep
        catalogue: the words of the sweep
    """

    jobs: int
    settings: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    gpus: dict[str, int] = field(default_factory=dict)
    configs: Sequence[Config] = ()
    rights: Rights = Rights(frozenset())
    command: str = ""
    catalogue: Catalogue | None = None

    @property
    def prunes(self) -> bool:
        return self.settings.get("pruner", "none") != "none"


def complete(backend: Any, sweep: Sweep, key: str) -> CompleteBackend:
    """Set the optional attributes that a backend leaves out. Raises UserError where a pruner needs evaluations."""
    places = getattr(backend, "places", sweep.jobs)
    defaults: dict[str, Any] = {
        "places": places,
        "capacity": places,
        "gives": frozenset(),
        "preview": lambda jobs: [],
        "stays": "",
    }
    for name, default in defaults.items():
        if not hasattr(backend, name):
            setattr(backend, name, default)
    if sweep.prunes and "evaluations" not in backend.gives:
        raise UserError(
            f"`sweep.pruner` is {sweep.settings['pruner']}, and `{key}` does not report evaluations, by which jobs are "
            'pruned.\nUse sweep.pruner=none, or yield `Evaluated` and declare: gives = {"evaluations"}'
        )
    found: CompleteBackend = backend
    return found


def checked(event: object, key: str) -> Event:
    """Return an event. Raises UserError for another object."""
    if not isinstance(event, Started | Evaluated | Ended):
        raise UserError(
            f"`events` of `{key}` gave {event!r:.80}; it must give Started(job), Evaluated(job, …) or Ended(job, code) of "
            "dltrain.sweep.backends.protocol"
        )
    return event
