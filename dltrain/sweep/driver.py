"""The driver: asks the study for configurations, keeps every slot busy, and writes down how each job ended."""

from __future__ import annotations

import errno
import math
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import connection
from pathlib import Path
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any, Protocol

from dltrain.config import saved
from dltrain.config.door import Rights
from dltrain.config.schema import Config
from dltrain.errors import ResourceProblem
from dltrain.sweep import pool
from dltrain.sweep.job import Task, work
from dltrain.sweep.jobs import Job
from dltrain.sweep.live import Quiet
from dltrain.sweep.plan import Plan
from dltrain.sweep.pool import Worker
from dltrain.sweep.reuse import WHOLE, Finished, take_over
from dltrain.sweep.slots import Slot
from dltrain.sweep.stacked import LARGEST, StackTask, stack_key, why_alone, work_together
from dltrain.training.signals import ENDINGS, heard, leave_closed_terminal

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

    from dltrain.config.catalogue import Catalogue
    from dltrain.sweep.study import Study

GRACE = 30.0  # seconds that running jobs have to save when the driver cannot go on


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
class Running:
    """A process with the jobs that it still has to end."""

    jobs: dict[int, Job]
    worker: Worker
    slot: Slot
    stacked: bool
    begun: float
    told: bool = False  # that the sweep is to end


class Driver:
    """Runs a plan in a folder. `jobs` lists every job that has a number, those of an earlier driver included."""

    def __init__(
        self,
        plan: Plan,
        study: Study,
        folder: Path,
        slots: list[Slot],
        rights: Rights,
        command: str,
        display: Display,
    ) -> None:
        self.plan, self.study, self.folder, self.display = plan, study, folder, display
        self.free, self.rights, self.command = list(slots), rights, command
        self.num_slots = len(slots)
        self.on_gpu = any(slot.device is not None for slot in slots)
        self.jobs: list[Job] = []
        self.waiting: deque[Job] = deque()
        self.alone: deque[Job] = deque()  # ran out of memory beside others: once more, alone
        self.open: dict[int, Open] = {}
        self.running: list[Running] = []
        self.configs: dict[int, Config] = {}  # of the jobs that wait for others to share a stack with
        self.lonely: set[str] = set()  # keys of stacks that did not pay, or died
        self.solo: set[int] = set()  # jobs that must have a process of their own
        self.twins: dict[tuple[str, ...], Path] = {}  # finished runs of this sweep by their overrides
        self.earlier = Finished(Path(plan.first.output)) if plan.settings["reuse"] else None
        self.asked = 0
        self.interrupts = 0
        self.received: signal.Signals | None = None  # the first one that asked for the end
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
                jobs = self.finished_jobs(frozen)
                for job in jobs:
                    job.read()
                    self.remember(job)
                self.jobs += jobs
            else:
                self.begin_trial(*self.study.take_up(frozen))

    def finished_jobs(self, frozen: FrozenTrial) -> list[Job]:
        """The jobs of a trial that is done. Raises CheckpointProblem for one with values that no axis has."""
        axes = [axis for axis in self.plan.search_axes if axis.name in frozen.params]
        chosen = {axis.name: frozen.params[axis.name] for axis in axes}
        if not all(axis.holds(chosen[axis.name]) for axis in axes):
            from dltrain.sweep.study import damaged

            raise damaged(self.study.file, f" at trial {frozen.number}")
        return self.plan.jobs(frozen.number, chosen, self.folder)

    def begin_trial(self, trial: Trial, chosen: dict[str, Any]) -> None:
        """Number the jobs of a trial; those that are not done wait for a slot."""
        jobs = self.plan.jobs(trial.number, chosen, self.folder)
        for job in jobs:
            job.read()
            if not job.is_done and not job.folder.exists() and (twin := self.twin_of(job)):
                take_over(job, twin)
                self.tell(job)
            if not job.is_done:
                job.state = "waiting"
                self.waiting.append(job)
            self.remember(job)
        self.jobs += jobs
        self.open[trial.number] = Open(trial, chosen, jobs)
        self.close_if_done(trial.number)

    def remember(self, job: Job) -> None:
        if job.state in WHOLE and self.plan.configurations is None:  # a grid has no job twice
            self.twins.setdefault(tuple(job.overrides), job.folder)

    def twin_of(self, job: Job) -> Path | None:
        """A finished run of the same configuration: a search may draw one again, and `sweep.reuse` looks elsewhere."""
        twin = self.twins.get(tuple(job.overrides))
        if twin is None and self.earlier is not None:
            twin = self.earlier.find(self.config(job), self.on_gpu)
            if twin is not None:
                self.configs.pop(job.number)
        return twin

    # The loop -----------------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Run what is missing; False when it was interrupted, by the signal in `received`.

        Raises OSError and ResourceProblem where the disk gives out, after the running jobs have saved.
        """
        with self.interruptible():
            try:
                while True:
                    self.fill()
                    if not self.running:
                        break
                    self.wait()
            except (OSError, ResourceProblem):
                self.stop_running()
                raise
        return self.interrupts == 0

    def stop_running(self) -> None:
        """Let the running jobs save and stop, and write nothing down: the next driver reads their folders."""
        self.interrupts = max(1, self.interrupts)
        end = time.monotonic() + GRACE
        for process in self.running:
            process.worker.signal(signal.SIGINT)
        while self.running and time.monotonic() < end:
            processes: dict[Any, Running] = {process.worker.channel: process for process in self.running}
            for channel in connection.wait([*processes], timeout=1.0):
                worker = processes[channel].worker
                try:
                    _, event, *_ = worker.channel.recv()
                    if event == "row" and self.plan.settings["pruner"] != "none":
                        worker.channel.send(None)  # it waits for an answer
                except (EOFError, OSError):
                    self.running.remove(processes[channel])
                    worker.end()

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
            self.tell(job)

    def task(self, job: Job, slot: Slot, alone: str) -> Task:
        job.folder.mkdir(exist_ok=True)
        config = placed(self.config(job), slot, job.folder, self.plan.composer.catalogue)
        self.configs.pop(job.number)
        write_hydra_folder(job, config)
        return Task(
            job.number,
            job.folder.resolve(),
            config,
            self.rights,
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
                message = process.worker.channel.recv()
            except (EOFError, OSError):
                self.gone(process)
            else:  # an OSError in here is one of the disk
                self.hear(process, *message)
        running = [job for process in self.running for job in process.jobs.values()]
        for job in running if self.interrupts else ():
            job.state = "saving"
        self.show(lambda: self.display.tick(self.jobs, running, self.seconds_left()))

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
            if self.interrupts and not process.told:  # the signal came while its process was being started
                process.told = True
                process.worker.signal(signal.SIGINT)
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
        pruner = make_pruner(settings["pruner"], evaluations, settings["min_evaluations"])
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
        elif disk_is_full(code, said) and job.state != "degraded":  # the other jobs would fail, too
            (job.folder / "summary.json").unlink(missing_ok=True)  # the next driver goes on with it
            job.state = "interrupted"
            raise ResourceProblem(f"job {job.number}: {said}")
        elif not job.is_done or (code != 0 and job.state != "degraded"):
            job.fail(said or (job.reason if job.failed else "") or how_it_died(code))
        job.seconds = job.seconds or time.monotonic() - begun
        if job.is_done:
            self.done_here += 1
            self.remember(job)
            self.close_if_done(job.trial)
        self.tell(job)

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

    def tell(self, job: Job) -> None:
        """Show that a job began or ended."""
        self.show(lambda: self.display.changed(job))

    def show(self, draw: Callable[[], None]) -> None:
        """Draw; where nobody reads any more, as in `| head` or in a closed terminal, the sweep goes on in silence."""
        try:
            draw()
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            self.display = Quiet()

    # Signals ------------------------------------------------------------------------------------------------------

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Once: the running jobs save and stop. Twice: they are killed. Their trials stay open for the next driver."""

        def on_signal(number: int, frame: Any) -> None:
            self.interrupts += 1
            self.received = self.received or signal.Signals(number)
            if signal.Signals(number).name == "SIGHUP":
                leave_closed_terminal()
            for process in list(self.running):
                process.told = True
                process.worker.signal(signal.SIGINT if self.interrupts == 1 else signal.SIGKILL)

        before = {}
        # elsewhere Python allows no handlers
        for number in heard(ENDINGS) if current_thread() is main_thread() else ():
            before[number] = signal.signal(number, on_signal)
        try:
            yield
        finally:
            for process in self.running:
                process.worker.signal(signal.SIGKILL)
            for number, handler in before.items():
                signal.signal(number, handler)


def placed(config: Config, slot: Slot, folder: Path, catalogue: Catalogue) -> Config:
    """The configuration with the slot's device and threads, where the user left them open.

    A job that goes on from a checkpoint keeps those that it had: with others it would be another run.
    """
    had = (
        saved.placement(folder, catalogue)
        if any((folder / "checkpoints").glob("step-*/manifest.json"))
        else {}
    )
    changes: dict[str, Any] = {}
    if config.threads is None:
        changes["threads"] = had.get("threads") or slot.threads
    if slot.device is not None:
        changes["device"] = had.get("device") or slot.device
    return replace(config, **changes, plain={**config.plain, **changes}) if changes else config


def ran_out_of_memory(code: int, said: str) -> bool:
    """Whether a job ended for want of memory, by what it said: a kill by the system cannot be told from a user's."""
    return code == 6 and ("memory" in said.lower())


def disk_is_full(code: int, said: str) -> bool:
    """Whether a job ended because nothing more can be written, by what it said."""
    return code == 6 and any(os.strerror(n) in said for n in (errno.ENOSPC, errno.EDQUOT, errno.EROFS))


def how_it_died(code: int) -> str:
    """A job that ended without a word."""
    if code < 0:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    return f"its process ended by itself with exit code {code} before the run was done"


def values_of(jobs: list[Job], objectives: list[str]) -> list[float] | None:
    """The mean over the repetitions of each objective; None when a job failed."""
    rows = [
        [job.objective] if not objectives else [job.number_at_best(name) for name in objectives]
        for job in jobs
    ]
    if any(job.failed or None in row for job, row in zip(jobs, rows, strict=True)):
        return None
    return [sum(v for v in column if v is not None) / len(rows) for column in zip(*rows, strict=True)]


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
