"""The interface between the driver of a sweep and what runs its jobs: a backend, a word of `sweep.backend`."""

from __future__ import annotations

import errno
import inspect
import os
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dltrain.config.catalogue import Catalogue
from dltrain.config.door import Rights
from dltrain.config.schema import Config
from dltrain.errors import UserError
from dltrain.sweep.jobs import Job


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
        """Whether a job ended for lack of memory, by its message: a kill by the system looks like one by a user."""
        return self.code == 6 and "memory" in self.reason.lower()

    @property
    def is_disk_full(self) -> bool:
        """Whether a job ended because nothing more can be written, by its message."""
        full = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
        return self.code == 6 and any(os.strerror(number) in self.reason for number in full)

    @property
    def how_it_died(self) -> str:
        """The reason of a job that ended without a message."""
        if self.code < 0:
            return f"killed by signal {-self.code} ({signal.Signals(-self.code).name})"
        return f"its process ended by itself with exit code {self.code} before the run was done"


Event = Started | Evaluated | Ended
EVALUATIONS = "evaluations"


class Backend(Protocol):
    """Runs the jobs of a sweep; the driver decides which ones, and writes the files of the sweep.

    A class of one's own needs the four methods; inherit from this class for the other members, or define them.

    Attributes:
        places: jobs that run at a time; by default `sweep.jobs`
        capacity: jobs to submit at most, where they do not depend on results of others; by default `places`
        gives: {"evaluations"} for a backend whose events contain `Evaluated`, which `sweep.pruner` needs
    """

    places: int
    capacity: int
    gives: frozenset[str] = frozenset()

    def submit(self, job: Job) -> None:
        """Start a job, or queue it, and return at once."""

    def events(self) -> Iterable[Event]:
        """Return what happened since the last call; wait for at most some tenths of a second where nothing did.

        Each job that was submitted ends with one `Ended`, also if it was canceled before it started.
        """

    def cancel(self, job: Job) -> None:
        """Ask a job to save and to stop, as SIGINT does; remove one that waits. `job.pruned` is the pruner's reason."""

    def close(self) -> None:
        """Kill the jobs that still run, and release everything. Called once, at the end."""

    def preview(self, jobs: Sequence[Job]) -> list[str]:
        """Return lines about how these jobs would run, for `sweep.dry_run`."""
        return []


@dataclass(frozen=True)
class Sweep:
    """What a backend is told about the sweep when it is built.

    Args:
        jobs: jobs that run at a time, from `sweep.jobs` and the number of cores or GPUs
        settings: the keys of `sweep`
        device: the knob `device`
        gpus: GPUs that the sweep may use, each with its free bytes
        configs: configurations of a grid; of a search, those that were checked
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


# The arguments that each method is called with.
METHODS = {"submit": ("job",), "events": (), "cancel": ("job",), "close": ()}
OPTIONAL = ("gives", "preview")


def check_target(target: Any, key: str) -> None:
    """Raise UserError for a class that lacks a method of Backend, or whose method takes other arguments."""
    name = getattr(target, "__name__", str(target))
    if not inspect.isclass(target):
        return
    for method, arguments in METHODS.items():
        wanted = f"def {method}({', '.join(('self', *arguments))}):"
        found = inspect.getattr_static(target, method, None)
        if found is None:
            raise UserError(f"`{key}` is {name}, which has no method `{method}`. Write: {wanted}")
        if not callable(getattr(target, method)):
            raise UserError(f"`{key}` is {name}, whose `{method}` is no method. Write: {wanted}")
        check_call(getattr(target, method), method, (None, *arguments), f"`{key}` is {name}, whose", wanted)
    wanted = "def __init__(self, sweep):"
    check_call(target, "__init__", ("sweep",), f"`{key}` is {name}, whose", wanted, partial=True)


def check_call(
    function: Any, method: str, arguments: Sequence[Any], subject: str, wanted: str, partial: bool = False
) -> None:
    """Raise UserError unless a function can be called with these positional arguments; `partial`: and with keywords."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return
    try:
        (signature.bind_partial if partial else signature.bind)(*arguments)
    except TypeError as error:
        reason = str(error).replace("'", "`")
        raise UserError(f"{subject} `{method}{signature}` does not fit: {reason}. Write: {wanted}") from None


def complete(backend: Any, sweep: Sweep, key: str) -> Backend:
    """Return a backend with the members that it leaves out. Raises UserError for an object that is no backend."""
    missing = [method for method in METHODS if not callable(getattr(backend, method, None))]
    if missing:
        raise UserError(
            f"`{key}` built {type(backend).__name__}, which has no method `{missing[0]}`: a backend has "
            f"{', '.join(METHODS)} (docs/extending.md)"
        )
    if not hasattr(backend, "places"):
        backend.places = sweep.jobs
    if not hasattr(backend, "capacity"):
        backend.capacity = backend.places
    for name in OPTIONAL:
        if not hasattr(backend, name):
            default = getattr(Backend, name)
            setattr(backend, name, default.__get__(backend) if callable(default) else default)
    if sweep.prunes and EVALUATIONS not in backend.gives:
        raise UserError(
            f"`sweep.pruner` is {sweep.settings['pruner']}, and `{key}` does not report evaluations, by which jobs are "
            'pruned. Use sweep.pruner=none, or yield `Evaluated` and declare: gives = frozenset({"evaluations"})'
        )
    found: Backend = backend
    return found


def checked(event: object, key: str) -> Event:
    """Return an event. Raises UserError for another object."""
    if not isinstance(event, Started | Evaluated | Ended):
        raise UserError(
            f"`events` of `{key}` gave {event!r:.80}; it must give Started(job), Evaluated(job, …) or Ended(job, code) of "
            "dltrain.sweep.backends.protocol"
        )
    return event
