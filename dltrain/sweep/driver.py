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

from dltrain.config import saved
from dltrain.config.schema import Config
from dltrain.sweep import pool
from dltrain.sweep.job import Task, work
from dltrain.sweep.jobs import Job
from dltrain.sweep.plan import Plan
from dltrain.sweep.pool import Worker
from dltrain.sweep.stacked import LARGEST, StackTask, stack_key, why_alone, work_together

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
    """A place where one job, or one stack of jobs, at a time runs: some cores, or a share of a GPU."""

    device: str | None
    threads: int


@dataclass
class Running:
    """A process with the jobs that it still has to end."""

    jobs: dict[int, Job]
    worker: Worker
    slot: Slot
    stacked: bool
    begun: float


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
        self.running: list[Running] = []
        self.configs: dict[int, Config] = {}  # of the jobs that wait for others to share a stack with
        self.lonely: set[str] = set()  # keys of stacks that did not pay, or died
        self.solo: set[int] = set()  # jobs that must have a process of their own
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
            self.start([job, *self.mates(job)], self.free.pop())

    def next_job(self) -> Job | None:
        """A job that waits, or the first of a new trial; a job that needs all memory comes when nothing else runs."""
        if self.timed_out():
            return None
        while not self.waiting and self.asked < self.plan.trials:
            self.ask()
        if self.waiting:
            alone = any(job.retried for process in self.running for job in process.jobs.values())
            return None if alone else self.waiting.popleft()
        return self.alone.popleft() if self.alone and not self.running else None

    def ask(self) -> None:
        self.asked += 1
        self.begin_trial(*self.study.ask())

    def timed_out(self) -> bool:
        limit = self.plan.settings["timeout"]
        return limit is not None and time.monotonic() - self.begun > limit

    # Stacks -------------------------------------------------------------------------------------------------------

    def mates(self, job: Job) -> list[Job]:
        """Jobs to train together with this one as one model: this slot's share of those that can."""
        if self.plan.settings["vectorize"] == "never" or (key := self.key(job)) is None:
            return []
        if self.plan.settings["vectorize"] == "auto" and self.plan.settings["pruner"] == "median":
            return []  # it compares with jobs that are done, and in a stack none is before the end
        while (
            self.plan.blind and self.asked < self.plan.trials and len(self.waiting) < LARGEST * self.num_slots
        ):
            self.ask()
        equal = [other for other in self.waiting if self.key(other) == key]
        share = min(LARGEST, math.ceil((len(equal) + 1) / len(self.free)))
        mates = equal[: share - 1]
        for mate in mates:
            self.waiting.remove(mate)
        return mates

    def key(self, job: Job) -> str | None:
        """What a job has in common with those that can share a stack with it; None where it runs alone."""
        if job.number in self.solo or any((job.folder / "checkpoints").glob("step-*/manifest.json")):
            return None  # what was begun goes on as a run of its own
        key = stack_key(self.config(job))
        return None if key in self.lonely else key

    def why_alone(self, job: Job) -> str:
        """In words, for the job's log."""
        if self.plan.settings["vectorize"] == "never":
            return ""
        if job.number in self.solo:
            return "its stack ended without it, see stacks.log, or it ran out of memory"
        if (why := why_alone(self.config(job))) or self.key(job) is None:
            return why or "it was begun already, or its stack did not pay"
        return (
            "no other job was left to share it with, or sweep.pruner=median compares with jobs that are done"
        )

    def config(self, job: Job) -> Config:
        if job.number not in self.configs:
            self.configs[job.number] = self.plan.composer.config(job.overrides)
        return self.configs[job.number]

    def scatter(self, process: Running) -> None:
        """What a stack did not end is run job by job: it did not pay, or its process died."""
        for job in process.jobs.values():
            if (key := self.key(job)) is not None:
                self.lonely.add(key)
            self.solo.add(job.number)
            job.read()
            job.state = "interrupted" if self.interrupts else "waiting"
        self.waiting.extendleft(reversed(process.jobs.values()))

    # Processes ----------------------------------------------------------------------------------------------------

    def start(self, jobs: list[Job], slot: Slot) -> None:
        """Make the jobs' folders and their process."""
        alone = self.why_alone(jobs[0]) if len(jobs) == 1 else ""
        tasks = tuple(self.task(job, slot, alone) for job in jobs)
        begun = time.monotonic()
        if len(jobs) == 1:
            worker = pool.start(work, tasks[0])
        else:
            always = self.plan.settings["vectorize"] == "always"
            worker = pool.start(work_together, StackTask(tasks, self.folder.resolve() / "stacks.log", always))
        process = Running({job.number: job for job in jobs}, worker, slot, len(jobs) > 1, begun)
        self.running.append(process)
        for job in jobs:
            job.state, job.reason = "running", ""
            self.display.changed(job)

    def task(self, job: Job, slot: Slot, alone: str) -> Task:
        job.folder.mkdir(exist_ok=True)
        config = placed(self.config(job), slot, job.folder)
        self.configs.pop(job.number)
        write_hydra_folder(job, config)
        return Task(
            job.number,
            job.folder.resolve(),
            config,
            self.targets,
            self.command,
            tuple(job.overrides),
            str(Path.cwd()),
            self.plan.settings["pruner"] != "none",
            alone,
        )

    def wait(self) -> None:
        """Take in what the jobs say, until one of them says something or it is time to draw."""
        processes: dict[Any, Running] = {process.worker.channel: process for process in self.running}
        for channel in connection.wait([*processes], timeout=0.2):
            process = processes[channel]
            try:
                self.hear(process, *process.worker.channel.recv())
            except (EOFError, OSError):
                self.gone(process)
        running = [job for process in self.running for job in process.jobs.values()]
        for job in running if self.interrupts else ():
            job.state = "saving"
        self.display.tick(self.jobs, running, self.seconds_left())

    def gone(self, process: Running) -> None:
        """A process ended; a job that did not say how is told by its exit code, one of a stack runs again alone."""
        self.running.remove(process)
        self.free.append(process.slot)
        code = process.worker.end()
        if process.stacked:
            self.scatter(process)
            return
        for job in process.jobs.values():
            self.ended(job, code, "", process.begun)

    def hear(self, process: Running, number: int, event: str, *news: Any) -> None:
        """A message of a job: it began, it was evaluated, or it ended."""
        if event == "begun":
            process.jobs[number].evaluations = news[0]
            self.set_pruner(*news)
        elif event == "ended":
            code, said = news
            self.ended(process.jobs.pop(number), code, said, process.begun)
        else:
            self.evaluated(process, process.jobs[number], *news)

    def evaluated(
        self, process: Running, job: Job, step: int, epoch: float, value: float, best: float | None
    ) -> None:
        """Report an evaluation to the study, and answer whether the job goes on where it asks."""
        job.epoch, job.value, job.best = epoch, value, best
        job.share = min(1.0, step / max(job.evaluations, 1))
        if self.plan.objectives or len(self.plan.replicates) > 1:
            return
        trial = self.open[job.trial].trial
        self.study.report(trial, step, value)
        if self.plan.settings["pruner"] == "none":
            return
        prune = math.isfinite(value) and self.study.should_prune(trial)
        reason = f"{self.plan.settings['pruner']}: {self.plan.metric} {value:.6g} fell behind after {step} evaluations"
        try:
            process.worker.channel.send(reason if prune else None)
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

    def ended(self, job: Job, code: int, said: str, begun: float) -> None:
        """Read the job's summary and write down what it cannot say itself: a crash, a kill, an exit."""
        job.state, job.reason = "waiting", ""
        job.read()
        if self.interrupts and not job.is_done:
            job.state = "interrupted"
        elif ran_out_of_memory(code, said) and not job.retried and self.num_slots > 1:
            job.retried, job.state = True, "waiting"
            self.solo.add(job.number)
            (job.folder / "summary.json").unlink(missing_ok=True)
            self.alone.append(job)
        elif code != 0 or not job.is_done:
            job.fail(said or (job.reason if job.failed else "") or how_it_died(code))
        job.seconds = job.seconds or time.monotonic() - begun
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
        """From the time that the work done so far took, in jobs and shares of those that run; None at the beginning."""
        total = self.plan.trials * len(self.plan.replicates)
        under_way = sum(job.share for process in self.running for job in process.jobs.values())
        done = self.done_here + under_way
        missing = total - sum(job.is_done for job in self.jobs) - under_way
        return (time.monotonic() - self.begun) / done * missing if done > 0 else None

    # Ctrl-C -------------------------------------------------------------------------------------------------------

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Once: the running jobs save and stop. Twice: they are killed. Their trials stay open for the next driver."""

        def on_signal(number: int, frame: Any) -> None:
            self.interrupts += 1
            for process in list(self.running):
                process.worker.signal(signal.SIGINT if self.interrupts == 1 else signal.SIGKILL)

        before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, on_signal)
        try:
            yield
        finally:
            for process in self.running:
                process.worker.signal(signal.SIGKILL)
            for number, handler in before.items():
                signal.signal(number, handler)


def placed(config: Config, slot: Slot, folder: Path) -> Config:
    """The configuration with the slot's device and threads, where the user left them open.

    A job that goes on from a checkpoint keeps those that it had: with others it would be another run.
    """
    had = saved.placement(folder) if any((folder / "checkpoints").glob("step-*/manifest.json")) else {}
    changes: dict[str, Any] = {}
    if config.threads is None:
        changes["threads"] = had.get("threads") or slot.threads
    if slot.device is not None:
        changes["device"] = had.get("device") or slot.device
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


def write_hydra_folder(job: Job, config: Config) -> None:
    """`.hydra/`: config.yaml, hydra.yaml and overrides.yaml, as Hydra leaves them."""
    folder = job.folder / ".hydra"
    folder.mkdir(exist_ok=True)
    saved.write(config, folder / "config.yaml")
    sweep = {"dir": str(job.folder.parent), "subdir": job.folder.name}
    hydra = {
        "job": {"name": "dltrain", "num": job.number, "override_dirname": ",".join(job.overrides)},
        "mode": "MULTIRUN",
        "overrides": {"hydra": [], "task": job.overrides},
        "runtime": {"cwd": str(Path.cwd()), "output_dir": str(job.folder.resolve())},
        "sweep": sweep,
    }
    for name, content in (("hydra.yaml", {"hydra": hydra}), ("overrides.yaml", job.overrides)):
        (folder / name).write_text(saved.dump(content), encoding="utf-8")
