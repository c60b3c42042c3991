"""The driver: asks the study for configurations, keeps every slot busy, and writes down how each job ended."""

from __future__ import annotations

import math
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dltrain.config.schema import Config
from dltrain.sweep import pool
from dltrain.sweep.job import Task, work
from dltrain.sweep.jobs import Job
from dltrain.sweep.plan import Plan
from dltrain.sweep.pool import Worker

if TYPE_CHECKING:
    from optuna.trial import Trial

    from dltrain.sweep.study import Study

GRACE = 30.0  # seconds that running jobs have to save after a Ctrl-C


class Display(Protocol):
    """Shows the sweep while it runs."""

    def changed(self, job: Job) -> None:
        """A job began or ended."""

    def tick(self, jobs: list[Job], running: list[Job], left: float | None) -> None:
        """Time to draw; `left` is the seconds that the sweep still needs."""


@dataclass
class Open:
    """A trial with jobs that are not done."""

    trial: Trial
    chosen: dict[str, Any]
    jobs: list[Job]


@dataclass
class Slot:
    """A place where one job at a time runs: some cores, or a share of a GPU."""

    device: str | None
    threads: int


def slots_of(settings: dict[str, Any], device: str, num_jobs: int) -> list[Slot]:
    """As many slots as `sweep.jobs` says: one for each core, or `jobs_per_gpu` for each GPU."""
    cores = pool.cores()
    found = pool.gpus() if device in ("auto", "cuda") else 0
    automatic = found * settings["jobs_per_gpu"] if found else cores
    count = max(1, min(automatic if settings["jobs"] == "auto" else settings["jobs"], num_jobs))
    threads = max(1, cores // count)
    return [Slot(f"cuda:{i % found}" if found else None, threads) for i in range(count)]


class Driver:
    """Runs a plan in a folder. `jobs` lists every job that has a number, those of an earlier driver included."""

    def __init__(
        self,
        plan: Plan,
        study: Study,
        folder: Path,
        slots: list[Slot],
        targets: frozenset[str],
        command: str,
        display: Display,
    ) -> None:
        self.plan, self.study, self.folder, self.display = plan, study, folder, display
        self.free, self.targets, self.command = list(slots), targets, command
        self.num_slots = len(slots)
        self.jobs: list[Job] = []
        self.waiting: deque[Job] = deque()
        self.alone: deque[Job] = deque()  # ran out of memory beside others: once more, alone
        self.open: dict[int, Open] = {}
        self.running: dict[int, tuple[Job, Worker, Slot, float]] = {}  # by job number
        self.asked = 0
        self.interrupts = 0
        self.pruner_is_set = plan.settings["pruner"] == "none"
        self.begun = time.monotonic()
        self.done_here = 0
        self.take_up()

    # What an earlier driver left ----------------------------------------------------------------------------------

    def take_up(self) -> None:
        """Read the trials of the study and the summaries of their jobs; what is not done waits."""
        for frozen in self.study.trials():
            self.asked += 1
            if frozen.state.is_finished():
                chosen = {
                    a.name: frozen.params[a.name] for a in self.plan.search_axes if a.name in frozen.params
                }
                jobs = self.plan.jobs(frozen.number, chosen, self.folder)
                for job in jobs:
                    job.read()
                self.jobs += jobs
            else:
                self.begin_trial(*self.study.take_up(frozen))

    def begin_trial(self, trial: Trial, chosen: dict[str, Any]) -> None:
        """Number the jobs of a trial; those that are not done wait for a slot."""
        jobs = self.plan.jobs(trial.number, chosen, self.folder)
        for job in jobs:
            job.read()
            if not job.is_done:
                job.state = "waiting"
                self.waiting.append(job)
        self.jobs += jobs
        self.open[trial.number] = Open(trial, chosen, jobs)
        self.close_if_done(trial.number)

    # The loop -----------------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Run what is missing; False when it was interrupted."""
        with self.interruptible():
            while True:
                self.fill()
                if not self.running:
                    break
                self.wait()
        return self.interrupts == 0

    def fill(self) -> None:
        """Give every free slot a job, as long as there are jobs, time and no interrupt."""
        while self.free and not self.interrupts:
            job = self.next_job()
            if job is None:
                return
            self.start(job, self.free.pop())

    def next_job(self) -> Job | None:
        """A job that waits, or the first of a new trial; a job that needs all memory comes when nothing else runs."""
        if self.timed_out():
            return None
        while not self.waiting and self.asked < self.plan.trials:
            self.asked += 1
            self.begin_trial(*self.study.ask())
        if self.waiting:
            return None if any(job.retried for job, *_ in self.running.values()) else self.waiting.popleft()
        return self.alone.popleft() if self.alone and not self.running else None

    def timed_out(self) -> bool:
        limit = self.plan.settings["timeout"]
        return limit is not None and time.monotonic() - self.begun > limit

    def start(self, job: Job, slot: Slot) -> None:
        """Make the job's folder and its process."""
        job.folder.mkdir(exist_ok=True)
        _write_overrides(job)
        config = placed(self.plan.composer.config(job.overrides), slot)
        task = Task(
            job.number,
            job.folder.resolve(),
            config,
            self.targets,
            self.command,
            tuple(job.overrides),
            str(Path.cwd()),
            self.plan.settings["pruner"] != "none",
        )
        job.state, job.reason = "running", ""
        self.running[job.number] = (job, pool.start(work, task), slot, time.monotonic())
        self.display.changed(job)

    def wait(self) -> None:
        """Take in what the jobs say, until one of them says something or it is time to draw."""
        lines = {worker.channel: number for number, (_, worker, *_) in self.running.items()}
        ready = connection.wait([*lines], timeout=0.2)
        for channel in ready:
            number = lines[channel]  # type: ignore[index]
            job, worker, slot, begun = self.running[number]
            try:
                self.hear(job, worker, worker.channel.recv())
            except (EOFError, OSError):
                del self.running[number]
                self.free.append(slot)
                job.seconds = time.monotonic() - begun
                self.ended(job, worker.end())
        self.display.tick(self.jobs, [job for job, *_ in self.running.values()], self.seconds_left())

    def hear(self, job: Job, worker: Worker, message: tuple[Any, ...]) -> None:
        """A message of a job: it began, it failed with a reason, or it was evaluated."""
        if message[0] == "begun":
            self.set_pruner(message[1])
            return
        if message[0] == "failed":
            job.reason = message[1]
            return
        step, job.epoch, job.value, job.best = message
        if self.plan.objectives or len(self.plan.replicates) > 1:
            return
        trial = self.open[job.trial].trial
        self.study.report(trial, step, job.value)
        if self.plan.settings["pruner"] == "none":
            return
        prune = math.isfinite(job.value) and self.study.should_prune(trial)
        reason = f"{self.plan.settings['pruner']}: {self.plan.metric} {job.value:.6g} fell behind after {step} evaluations"
        try:
            worker.channel.send(reason if prune else None)
        except OSError:  # it was killed meanwhile
            pass

    def set_pruner(self, evaluations: int) -> None:
        """The pruner counts in evaluations, and how many there are a job tells when it is built."""
        if self.pruner_is_set:
            return
        from dltrain.sweep.study import make_pruner

        settings = self.plan.settings
        pruner = make_pruner(settings["pruner"], evaluations, settings["min_evaluations"], self.plan.mode)
        assert pruner is not None
        self.study.use_pruner(pruner)
        self.pruner_is_set = True

    # How a job ended ----------------------------------------------------------------------------------------------

    def ended(self, job: Job, code: int) -> None:
        """Read the job's summary and write down what it cannot say itself: a crash, a kill, an exit."""
        said, seconds = job.reason, job.seconds
        job.state, job.reason = "waiting", ""
        job.read()
        if self.interrupts and not job.is_done:
            job.state = "interrupted"
        elif ran_out_of_memory(code, said) and not job.retried and self.num_slots > 1:
            job.retried, job.state = True, "waiting"
            (job.folder / "summary.json").unlink(missing_ok=True)
            self.alone.append(job)
        elif code != 0 or not job.is_done:
            job.fail(said or (job.reason if job.failed else "") or how_it_died(code))
        job.seconds = job.seconds or seconds
        if job.is_done:
            self.done_here += 1
            self.close_if_done(job.trial)
        self.display.changed(job)

    def close_if_done(self, trial: int) -> None:
        """Tell the study a trial's value once all its jobs are done."""
        entry = self.open[trial]
        if not all(job.is_done for job in entry.jobs):
            return
        del self.open[trial]
        if any(job.state == "pruned" for job in entry.jobs):
            self.study.finish(entry.trial, None, pruned=True)
        else:
            self.study.finish(entry.trial, values_of(entry.jobs, self.plan.objectives))

    def seconds_left(self) -> float | None:
        """From the mean time of the jobs that ended; None before the first."""
        if not self.done_here:
            return None
        total = self.plan.trials * len(self.plan.replicates)
        missing = total - sum(job.is_done for job in self.jobs)
        return (time.monotonic() - self.begun) / self.done_here * missing

    # Ctrl-C -------------------------------------------------------------------------------------------------------

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Once: the running jobs save and stop. Twice: they are killed. Their trials stay open for the next driver."""

        def on_signal(number: int, frame: Any) -> None:
            self.interrupts += 1
            for _, worker, *_ in list(self.running.values()):
                worker.signal(signal.SIGINT if self.interrupts == 1 else signal.SIGKILL)

        before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, on_signal)
        try:
            yield
        finally:
            for _, worker, *_ in self.running.values():
                worker.signal(signal.SIGKILL)
            for number, handler in before.items():
                signal.signal(number, handler)


def placed(config: Config, slot: Slot) -> Config:
    """The configuration with the slot's device and threads, where the user left them open."""
    changes: dict[str, Any] = {}
    if config.threads is None:
        changes["threads"] = slot.threads
    if slot.device is not None:
        changes["device"] = slot.device
    return replace(config, **changes, plain={**config.plain, **changes}) if changes else config


def ran_out_of_memory(code: int, said: str) -> bool:
    """Whether a job ended for want of memory, by what it said: a kill by the system cannot be told from a user's."""
    return code == 6 and ("memory" in said.lower())


def how_it_died(code: int) -> str:
    """A job that ended without a word."""
    if code < 0:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    return f"its process ended by itself with exit code {code} before the run was done"


def values_of(jobs: list[Job], objectives: list[str]) -> list[float] | None:
    """The mean over the repetitions of each objective; None when a job failed."""
    rows = [
        [job.objective] if not objectives else [number_of(job, name) for name in objectives] for job in jobs
    ]
    if any(job.failed or None in row for job, row in zip(jobs, rows, strict=True)):
        return None
    return [sum(v for v in column if v is not None) / len(rows) for column in zip(*rows, strict=True)]


def number_of(job: Job, name: str) -> float | None:
    """A column at the best epoch, or a number of the summary."""
    value = (job.summary.get("best") or {}).get(name, job.summary.get(name))
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _write_overrides(job: Job) -> None:
    """`.hydra/overrides.yaml`, as Hydra leaves it."""
    import yaml

    (job.folder / ".hydra").mkdir(exist_ok=True)
    text = yaml.safe_dump(job.overrides, allow_unicode=True)
    (job.folder / ".hydra" / "overrides.yaml").write_text(text, encoding="utf-8")
