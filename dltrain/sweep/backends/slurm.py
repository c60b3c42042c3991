"""`sweep.backend=slurm`: each job as a batch job of a Slurm cluster, by a plain script and Slurm's own commands."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from dltrain.errors import UserError
from dltrain.storage.files import unshare
from dltrain.storage.summary import is_ended, read_json
from dltrain.sweep.backends.protocol import CANCELED, Ended, Event, Started, Sweep
from dltrain.sweep.backends.rows import Rows
from dltrain.sweep.backends.slurm_script import check_path, name_of, script_of
from dltrain.sweep.jobs import Job, write
from dltrain.text import SayOnce

POLL = 5.0  # seconds between two looks at the queue
SOON = 1.0  # the same, where a job waits to be submitted
PAUSE = 0.2  # seconds that `events` waits where nothing is due
RETRY = 60.0  # seconds until a refused submission is tried again
# looks at a job that left the queue without a summary, which another machine may not see at once
PATIENCE = 3
LIMIT = 60.0  # seconds that a command of Slurm may take
# states in which Slurm does nothing more with a job
OVER = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT".split()
)
# reasons to wait that end without the user's help
PASSING = frozenset(
    "None Priority Resources BeginTime Dependency Licenses Reservation Cleaning Prolog JobArrayTaskLimit ReqNodeNotAvail".split()
)


class SlurmError(Exception):
    """A command of Slurm failed; the message is its own, in one line."""


def call(*command: str) -> str:
    """Run a command of Slurm and return its output. Raises SlurmError."""
    try:
        # a Ctrl-C in the terminal must not end it half-way
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, start_new_session=True)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(str(error)) from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"{command[0]} ended with exit code {done.returncode}"]
        raise SlurmError(lines[0].removeprefix(f"{command[0]}: ").removeprefix("error: "))
    return done.stdout


@dataclass(frozen=True)
class Row:
    """A job as `squeue` shows it; `folder` is the name of the folder of its script."""

    state: str
    reason: str
    folder: str

    @property
    def is_over(self) -> bool:
        return self.state in OVER


def queue(name: str) -> dict[str, Row]:
    """Return the jobs of a name by their ids, those of the last minutes included. Raises SlurmError."""
    lines = call(
        "squeue", "--noheader", "--states=all", f"--name={name}", "--format=%i|%T|%r|%o"
    ).splitlines()
    fields = [line.strip().split("|", 3) for line in lines]
    return {f[0]: Row(f[1], f[2], Path(f[3]).parent.name) for f in fields if len(f) == 4}


@dataclass
class Submitted:
    """A job in Slurm's queue."""

    job: Job
    rows: Rows
    runs: bool = False
    canceled: bool = False
    looks: int = 0  # since it left the queue


class Slurm:
    """Each job as a batch job of a Slurm cluster.

        job → job.sbatch in its folder → sbatch → squeue every 5 s; before the time limit: save, requeue, resume

    Use: on a login node, with the sweep's folder on a disk that all nodes see. Ctrl-C leaves the jobs in the queue; the same
    command finds them again.

    Args:
        partition: partition to submit to; null is that of the cluster
        time: time limit of a job, such as 8:00:00 or 1-12:00:00, in YAML files in quotes; a longer job is saved a minute
            before it, requeued and resumed
        cpus: cores of a job
        gpus: GPUs of a job
        memory: memory of a job, such as 8G; null is that of the cluster
        extra: further options of sbatch, such as ["--account=me","--constraint=a100"]
        max_submitted: jobs in the queue at most
    """

    gives = frozenset({"evaluations"})

    def __init__(
        self,
        sweep: Sweep,
        partition: str | None = None,
        time: str | None = None,
        cpus: Annotated[int, ">= 1"] = 1,
        gpus: Annotated[int, ">= 0"] = 0,
        memory: int | str | None = None,
        extra: list[str] | None = None,
        max_submitted: Annotated[int, ">= 1"] = 100,
    ) -> None:
        options = {"partition": partition, "time": time, "cpus-per-task": cpus, "mem": memory}
        self.options = [
            f"--{key}={shlex.quote(str(value))}" for key, value in options.items() if value is not None
        ]
        self.options += [f"--gres=gpu:{gpus}"] if gpus else []
        self.options += extra or []
        self.cpus = cpus
        asked = sweep.settings.get("jobs", "auto")
        self.places = self.capacity = max_submitted if asked == "auto" else min(asked, max_submitted)
        self.waiting: deque[Job] = deque()
        self.submitted: dict[str, Submitted] = {}  # by Slurm's id
        self.news: list[Event] = []
        self.tell = SayOnce()
        self.name = ""
        self.looked = self.refused = -math.inf  # when
        check(self.options, sweep.settings)

    def submit(self, job: Job) -> None:
        self.name = name_of(job)
        self.waiting.append(job)

    def cancel(self, job: Job) -> None:
        if job in self.waiting:
            self.waiting.remove(job)
            self.news.append(Ended(job, CANCELED))
        for entry in self.submitted.values():
            if entry.job is job:
                entry.canceled = True
                # the next look cancels it
                self.looked = -math.inf

    def events(self) -> Iterator[Event]:
        news, self.news = self.news, []
        yield from news
        if time.monotonic() < self.looked + (SOON if self.waiting else POLL):
            time.sleep(PAUSE)
            return
        self.looked = time.monotonic()
        try:
            rows = queue(self.name)
            for number, entry in list(self.submitted.items()):
                yield from self.look(number, entry, rows.get(number))
            yield from self.submit_waiting(rows)
        except SlurmError as error:
            self.tell(f"Slurm does not answer, and is asked again: {error}")

    def close(self) -> None:
        """Leave the jobs in the queue: the next driver finds them there."""

    @property
    def stays(self) -> str:
        return f"The jobs stay in Slurm's queue; to cancel them: scancel --name={self.name}"

    def preview(self, jobs: Sequence[Job]) -> list[str]:
        return [
            f"job.sbatch of job {job.number}:\n\n{script_of(job, self.options, self.cpus)}"
            for job in jobs[:1]
        ]

    # Submission ---------------------------------------------------------------------------------------------------

    def submit_waiting(self, rows: dict[str, Row]) -> Iterator[Event]:
        """Submit the jobs that wait, but for those that an earlier driver submitted; report those that ended meanwhile."""
        present = {row.folder: number for number, row in rows.items() if not row.is_over}
        while self.waiting and time.monotonic() > self.refused + RETRY:
            job = self.waiting[0]
            number = present.get(job.folder.name) or recorded_number(job, rows)
            if number is None and is_ended(job.folder):
                self.waiting.popleft()
                yield Ended(job, 0)
                continue
            if number is None:
                try:
                    number = self.sbatch(job)
                except SlurmError as error:
                    self.refused = time.monotonic()
                    self.tell(f"sbatch refuses job {job.number}, and is asked again every minute: {error}")
                    return
            self.waiting.popleft()
            self.submitted[number] = Submitted(job, Rows(job))

    def sbatch(self, job: Job) -> str:
        """Write a job's script, submit it, and return Slurm's id. Raises SlurmError."""
        job.folder.mkdir(parents=True, exist_ok=True)
        script = job.folder.resolve() / "job.sbatch"
        write(script, script_of(job, self.options, self.cpus))
        # slurmd and the script append to them, and a stranger's folder may hold hard links
        for name in ("slurm.log", "requeues.txt"):
            unshare(job.folder / name)
        number = call("sbatch", "--parsable", str(script)).strip().split(";")[0]
        record = {
            "format": 1,
            "id": number,
            "submitted": f"{datetime.now().astimezone():%Y-%m-%dT%H:%M:%S%z}",
        }
        write(job.folder / "slurm.json", json.dumps(record) + "\n")
        return number

    # What happened ------------------------------------------------------------------------------------------------

    def look(self, number: str, entry: Submitted, row: Row | None) -> Iterator[Event]:
        """Report what happened to a job since the last look. Raises SlurmError."""
        if row is not None and not row.is_over:
            yield from self.look_at_queued(number, entry, row)
            return
        yield from entry.rows.new()
        entry.looks += 1
        done = is_ended(entry.job.folder)
        if done or entry.canceled or entry.looks >= PATIENCE:
            del self.submitted[number]
            yield self.end(entry, "left the queue" if row is None else row.state, done)

    def look_at_queued(self, number: str, entry: Submitted, row: Row) -> Iterator[Event]:
        """Report the start and the evaluations of a job that is in the queue, and cancel it where asked to."""
        entry.looks = 0
        if entry.canceled and row.state != "COMPLETING":
            call("scancel", number)
        if row.state == "RUNNING" and not entry.runs:
            yield Started(entry.job)
        if row.state == "PENDING" and row.reason.strip("()").split(",")[0] not in PASSING:
            self.tell(f"job {entry.job.number} waits in Slurm's queue (id {number}): {row.reason}")
        entry.runs = row.state == "RUNNING"
        yield from entry.rows.new()

    def end(self, entry: Submitted, state: str, done: bool) -> Ended:
        """Return the event for a job that Slurm has finished with."""
        if entry.canceled:
            return Ended(entry.job, CANCELED)
        if done:
            return Ended(entry.job, int(state == "FAILED"))
        return Ended(
            entry.job,
            1,
            ": ".join(filter(None, [f"Slurm: {state}", last_line(entry.job.folder / "slurm.log")])),
        )


def check(options: list[str], settings: dict[str, object]) -> None:
    """Raise UserError where Slurm's commands are missing, or refuse the options, or the working folder has no usable name."""
    check_path(Path.cwd())
    for option in options:
        if not option.startswith("-") or "\n" in option or "\r" in option:
            raise UserError(
                f"`sweep.backend.extra` has {option!r:.60}; each entry is one option of sbatch, such as --account=me"
            )
    if settings.get("jobs_per_gpu", 1) != 1:
        raise UserError(
            "`sweep.jobs_per_gpu` has no effect with sweep.backend=slurm: each job gets the GPUs of sweep.backend.gpus"
        )
    if shutil.which("sbatch") is None:
        if settings.get("dry_run"):
            return
        raise UserError(
            "`sweep.backend=slurm` needs the commands of Slurm, and `sbatch` is not on PATH.\n"
            "Type the command on a login node of the cluster, or use sweep.backend=local"
        )
    try:
        call(
            "sbatch",
            "--test-only",
            *(word for option in options for word in shlex.split(option)),
            "--wrap=true",
        )
    except SlurmError as error:
        # it would wait in the queue
        if "down, drained or reserved" not in str(error):
            raise UserError(f"`sweep.backend=slurm`: sbatch refuses: {error}") from None


def recorded_number(job: Job, rows: dict[str, Row]) -> str | None:
    """Return the id of a job's last submission, unless Slurm has ended it before it was done."""
    with suppress(OSError, ValueError):
        number = str(read_json(job.folder / "slurm.json").get("id"))
        if number in rows and (not rows[number].is_over or rows[number].state == "COMPLETED"):
            return number
    return None


def last_line(log: Path) -> str:
    with suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")[:300]
    return ""
