"""The driver of a sweep: which job comes next, what is tried again, and what is recorded of each event.

The file is long because every event reads and changes the same state: which jobs wait, run, and are tried again.
"""

from __future__ import annotations

import errno
import gc
import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import current_thread, main_thread
from typing import TYPE_CHECKING

from dltrain.config.schema import Config
from dltrain.errors import FolderInUse, ResourceProblem, UserError
from dltrain.storage.folder_names import SWEEP_STUDY, check_files
from dltrain.storage.summary import WHOLE
from dltrain.sweep.backends.protocol import CompleteBackend, Ended, Evaluated, Event, Started, checked
from dltrain.sweep.begun import begun_jobs, complete_job
from dltrain.sweep.books import Books
from dltrain.sweep.jobs import Chosen, Job, values_of
from dltrain.sweep.journal import damaged
from dltrain.sweep.live import Quiet
from dltrain.sweep.plan.checks import check_job
from dltrain.sweep.plan.plan import Plan
from dltrain.sweep.reuse import Finished, digest_of, take_over
from dltrain.training.signals import ENDINGS, handled, leave_closed_terminal

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

    from dltrain.sweep.study import Study

GRACE = 30.0  # seconds that running jobs have to save when the driver cannot continue
IDLE = 0.05  # seconds to wait for a backend whose `events` returns at once


@dataclass
class Open:
    """A trial with jobs that are not done; `trial` is None where the study knows its value already."""

    trial: Trial | None
    jobs: list[Job]


def jobs_of(plan: Plan, frozen: FrozenTrial, folder: Path) -> list[Job]:
    """Return the jobs of a trial of the study. Raises CheckpointProblem for one with values that no axis has."""
    chosen = {axis.name: frozen.params[axis.name] for axis in plan.search_axes if axis.name in frozen.params}
    if not all(axis.holds(chosen[axis.name]) for axis in plan.search_axes if axis.name in chosen):
        raise damaged(folder / SWEEP_STUDY, f" at trial {frozen.number}")
    return plan.jobs(frozen.number, chosen, folder)


@contextmanager
def without_collection() -> Iterator[None]:
    """Pause the collection of cycles, which would visit all jobs again and again while their number grows."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Driver:
    """Runs a plan in a folder by a backend. `jobs` lists every job with a number, those of an earlier driver included."""

    def __init__(
        self,
        plan: Plan,
        study: Study | None,
        folder: Path,
        backend: CompleteBackend,
        display: Quiet,
        command_of: Callable[[Job], list[str]] = lambda job: [],
        on_gpu: bool = False,
    ) -> None:
        self.plan, self.study, self.folder = plan, study, folder
        self.backend, self.display, self.command_of = backend, display, command_of
        self.on_gpu = on_gpu
        self.books = Books(folder)
        self.jobs: list[Job] = []
        self.upcoming: Iterator[Job] = iter(())  # the jobs of a grid that no driver has begun
        self.digests: dict[int, str] = {}  # of the configurations of the running jobs
        self.num_done = 0
        self.leader: Job | None = None  # the best of the jobs that are done
        self.waiting: deque[Job] = deque()
        self.alone: deque[Job] = deque()  # ran out of memory beside others: once more, alone
        self.running: dict[int, Job] = {}  # submitted and not ended
        self.started: dict[int, float] = {}  # when each of them started
        self.withdrawn: set[int] = set()  # canceled before they started
        self.open: dict[int, Open] = {}
        self.runs: dict[tuple[str, ...], Path] = {}  # finished runs of this sweep by their overrides
        self.earlier = (
            Finished(Path(plan.first.output), plan.rights, plan.composer.catalogue)
            if plan.settings["reuse"]
            else None
        )
        self.asked = 0
        self.interrupts = 0
        self.received: signal.Signals | None = None  # the first one that asked for the end
        self.canceled = False
        self.failure: Job | None = None  # the job at which `sweep.fail_fast` ended the sweep
        self.begun = time.monotonic()
        self.done_here = 0
        self.resume()

    # The state that an earlier driver left ------------------------------------------------------------------------

    def resume(self) -> None:
        """Read what an earlier driver left: jobs that are not done wait."""
        if self.study is None:
            self.resume_grid()
            return
        for frozen in self.study.trials():
            self.asked += 1
            if frozen.state.is_finished():
                # their folders may have been deleted since, or failed jobs are to run again
                self.begin_jobs(jobs_of(self.plan, frozen, self.folder), None)
            else:
                self.begin_trial(*self.study.resume(frozen))

    def resume_grid(self) -> None:
        """Read the jobs of a grid that have a folder: from the books where these know how they ended."""
        with without_collection():
            for job, digest in begun_jobs(self.plan, self.folder):
                self.add(job)
                if job.is_done and digest is not None:
                    complete_job(job.folder)
                    self.books.note(job, digest)
        self.books.flush(now=True)
        begun = {job.number for job in self.jobs}
        self.upcoming = (job for job in self.plan.grid_jobs(self.folder) if job.number not in begun)

    def begin_next(self) -> None:
        """Queue the next job of a grid, or those of the next trial."""
        if self.study is not None:
            self.asked += 1
            self.begin_trial(*self.study.ask())
        elif (job := next(self.upcoming, None)) is not None:
            self.add(job)
        else:
            self.asked = self.plan.trials

    def begin_trial(self, trial: Trial, chosen: Chosen) -> None:
        """Assign numbers to the jobs of a trial, and queue those that are not done."""
        self.begin_jobs(self.plan.jobs(trial.number, chosen, self.folder), trial)

    def begin_jobs(self, jobs: list[Job], trial: Trial | None) -> None:
        """Read what the jobs of one trial have left, and queue those that are not done."""
        for job in jobs:
            check_files(job.folder)
            job.read()
            if job.is_done:
                complete_job(job.folder)
            self.add(job)
        self.open[jobs[0].trial] = Open(trial, jobs)
        self.close_if_done(jobs[0].trial)

    def add(self, job: Job) -> None:
        """Count a job that is done, or queue it."""
        self.jobs.append(job)
        # what diverged once diverges again
        if job.state == "failed" and self.plan.settings["retry"] == "failed":
            job.set_aside()
        if job.is_done:
            self.count(job)
        else:
            job.state = "waiting"
            self.waiting.append(job)

    def count(self, job: Job) -> None:
        """Take note of a job that is done."""
        self.num_done += 1
        sign = 1 if self.plan.mode == "min" else -1
        if job.objective is not None and (
            self.leader is None or sign * job.objective < sign * (self.leader.objective or 0.0)
        ):
            self.leader = job
        if job.state in WHOLE and self.plan.configurations is None:  # a grid has no job twice
            self.runs.setdefault(tuple(job.overrides), job.folder)

    # The loop -----------------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Run what is missing; return False when it was interrupted, by the signal in `received`.

        Raises OSError and ResourceProblem for a full disk, after the running jobs have saved.
        """
        self.begun = time.monotonic()
        try:
            with self.interruptible():
                try:
                    self.loop()
                except (OSError, ResourceProblem):
                    self.stop_running()
                    raise
        finally:
            self.backend.close()
            self.books.close()
        for job in self.running.values():
            job.read_again("interrupted")
        return self.interrupts == 0

    def loop(self) -> None:
        """Submit jobs and handle events until nothing is left; a second signal ends it at once."""
        while self.interrupts < 2 and not self.leaving:
            self.fill()
            if not self.running:
                return
            self.handle_events()
            self.books.flush()
            self.show(self.draw)

    @property
    def ending(self) -> bool:
        """Whether no further job starts and the running ones save, after a signal or a failure."""
        return bool(self.interrupts) or self.failure is not None

    @property
    def leaving(self) -> bool:
        """Whether the driver ends after a signal, and its jobs go on without it."""
        return bool(self.interrupts) and bool(self.backend.stays)

    def handle_events(self) -> None:
        """Handle what happened since the last call; cancel jobs where the sweep is to end."""
        if self.ending and not self.canceled and not self.leaving:
            self.canceled = True
            for job in list(self.running.values()):
                job.state = "saving"
                self.backend.cancel(job)
        begun, idle = time.monotonic(), True
        for event in self.backend.events():
            self.handle(checked(event, f"sweep.backend={self.plan.backend}"))
            idle = False
        if idle and time.monotonic() - begun < IDLE / 5:
            time.sleep(IDLE)
        if self.timed_out():
            late = self.running.keys() - self.started.keys() - self.withdrawn
            self.withdrawn |= late
            for number in late:
                self.backend.cancel(self.running[number])

    def handle(self, event: Event) -> None:
        """Handle one event of the backend."""
        job = self.running.get(event.job.number)
        if job is None:
            return
        if isinstance(event, Started):
            self.started[job.number] = time.monotonic()
            job.state, job.reason = "running", ""
            self.show(lambda: self.display.changed(job))
        elif isinstance(event, Evaluated):
            self.evaluated(job, event)
        else:
            self.ended(job, event)

    def stop_running(self) -> None:
        """Let the running jobs save and stop, and record nothing: the next driver reads their folders."""
        self.interrupts = max(1, self.interrupts)
        end = time.monotonic() + GRACE
        for job in list(self.running.values()):
            self.backend.cancel(job)
        while self.running and time.monotonic() < end:
            for event in self.backend.events():
                if isinstance(event, Ended):
                    self.running.pop(event.job.number, None)

    # Which job is next --------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Submit jobs as long as the backend has room."""
        while (job := self.next_job()) is not None:
            try:
                self.compose(job)
            except UserError as error:
                self.refused(job, error)
                continue
            twin = self.twin_of(job)
            if twin is None:
                self.note(job)
                job.command = self.command_of(job)
                self.running[job.number] = job
                self.backend.submit(job)
            else:
                take_over(job, twin)
                self.done(job)

    def refused(self, job: Job, error: UserError) -> None:
        """Record a job that cannot run: in a large sweep, a conflict between three values is found only here."""
        job.fail(str(error))
        if self.plan.settings["fail_fast"]:
            self.failure = self.failure or job
        self.done(job)

    def done(self, job: Job) -> None:
        """Record a job that is done."""
        self.count(job)
        self.close_if_done(job.trial)
        self.note(job)
        self.show(lambda: self.display.changed(job))

    def note(self, job: Job) -> None:
        """Note a job in the books; of one that is done, keep what the report shows."""
        self.books.note(job, self.digests.get(job.number, ""))
        if job.is_done:
            self.digests.pop(job.number, None)
            if self.study is None:
                job.trim()

    def next_job(self) -> Job | None:
        """Return a job that waits, or one of a new trial; one that needs all memory when nothing else runs."""
        if self.ending or self.timed_out() or any(job.retried for job in self.running.values()):
            return None
        room = self.backend.capacity if self.plan.blind else self.backend.places
        while not self.waiting and self.asked < self.plan.trials and len(self.running) < room:
            self.begin_next()
        if self.waiting and len(self.running) < self.backend.capacity:
            return self.next_waiting()
        return self.alone.popleft() if self.alone and not self.running and not self.waiting else None

    def next_waiting(self) -> Job | None:
        """Return the first job that waits for no equal run of this sweep."""
        if self.plan.configurations is not None:
            return self.waiting.popleft()
        under_way = {tuple(job.overrides) for job in self.running.values()}
        job = next((job for job in self.waiting if tuple(job.overrides) not in under_way), None)
        if job is not None:
            self.waiting.remove(job)
        return job

    def timed_out(self) -> bool:
        limit = self.plan.settings["timeout"]
        return limit is not None and time.monotonic() - self.begun > limit

    def twin_of(self, job: Job) -> Path | None:
        """Return a finished run of the same configuration: a search may repeat one, and `sweep.reuse` looks elsewhere."""
        if job.folder.exists():
            return None
        twin = self.runs.get(tuple(job.overrides))
        if twin is None and self.earlier is not None:
            twin = self.earlier.find(self.compose(job), self.on_gpu)
        return twin

    def compose(self, job: Job) -> Config:
        """Return the configuration of a job, which keeps it until it ends. Raises UserError for one that is not valid."""
        if job.config is None:
            job.config = self.plan.composer.config(job.overrides)
            check_job(self.plan, job.config)
            self.digests[job.number] = digest_of(job.config)
        return job.config

    # Evaluations --------------------------------------------------------------------------------------------------

    def evaluated(self, job: Job, event: Evaluated) -> None:
        """Report an evaluation to the study; stop the job if it falls behind."""
        job.epoch, job.value, job.best = event.epoch, event.value, event.best
        job.share = min(1.0, event.number / max(event.total, 1))
        if self.study is None:
            return
        self.study.set_pruner(self.plan.settings, event.total)
        if self.plan.objectives or len(self.plan.replicates) > 1:
            return
        trial = self.open[job.trial].trial
        if trial is None:
            return
        self.study.report(trial, event.number, event.value)
        word = self.plan.settings["pruner"]
        if word != "none" and math.isfinite(event.value) and self.study.should_prune(trial):
            job.pruned = (
                f"{word}: {self.plan.metric} {event.value:.6g} fell behind after {event.number} evaluations"
            )
            self.backend.cancel(job)

    # How a job ended ----------------------------------------------------------------------------------------------

    def ended(self, job: Job, event: Ended) -> None:
        """Read the job's summary, and record what it cannot contain: a crash, a kill, an exit."""
        del self.running[job.number]
        begun = self.started.pop(job.number, None)
        job.read_again("interrupted" if self.ending and begun is not None else "waiting")
        if job.is_done:
            complete_job(job.folder)
        if not job.is_done and (self.ending or job.number in self.withdrawn):
            pass
        elif not job.is_done and event.code == FolderInUse.exit_code:
            # the next driver reads what that process leaves
            job.state, job.reason = "interrupted", event.reason
        elif job.pruned and not job.is_done:
            job.record("pruned", job.pruned)
        elif event.is_out_of_memory and not job.retried and self.backend.places > 1:
            job.retried, job.state = True, "waiting"
            (job.folder / "summary.json").unlink(missing_ok=True)
            self.alone.append(job)
        # the other jobs would fail, too
        elif event.is_disk_full and job.state != "degraded":
            # the next driver runs it again
            (job.folder / "summary.json").unlink(missing_ok=True)
            job.state = "interrupted"
            raise ResourceProblem(f"job {job.number}: {event.reason}")
        elif not job.is_done or (event.code != 0 and job.state not in ("degraded", "diverged")):
            job.fail(event.reason or (job.reason if job.failed else "") or event.how_it_died)
        job.seconds = job.seconds or (time.monotonic() - begun if begun is not None else 0.0)
        if job.failed and self.plan.settings["fail_fast"]:
            self.failure = self.failure or job
        if job.is_done:
            self.done_here += 1
            self.done(job)
        else:
            self.note(job)
            self.show(lambda: self.display.changed(job))

    def close_if_done(self, trial: int) -> None:
        """Tell the study a trial's value once all its jobs are done."""
        entry = self.open.get(trial)
        if entry is None or self.study is None or not all(job.is_done for job in entry.jobs):
            return
        del self.open[trial]
        if entry.trial is None:
            return
        if any(job.state == "pruned" for job in entry.jobs):
            self.study.finish(entry.trial, None, pruned=True)
        else:
            self.study.finish(entry.trial, values_of(entry.jobs, self.plan.objectives))

    # The display --------------------------------------------------------------------------------------------------

    def seconds_left(self) -> float | None:
        """Estimate the remaining time from that of the jobs done so far; None at the beginning."""
        total = self.plan.total
        under_way = sum(job.share for job in self.running.values())
        done = self.done_here + under_way
        missing = total - self.num_done - under_way
        return (time.monotonic() - self.begun) / done * missing if done > 0 else None

    def draw(self) -> None:
        running = [job for number, job in self.running.items() if number in self.started]
        leading = running if self.leader is None else [self.leader, *running]
        self.display.tick(leading, running, self.seconds_left())

    def show(self, draw: Callable[[], None]) -> None:
        """Draw; without a reader, as in `| head` or in a closed terminal, the sweep continues silently."""
        try:
            draw()
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            self.display = Quiet()

    # Signals ------------------------------------------------------------------------------------------------------

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Count signals that ask for the end. After one the running jobs save and stop; after two they are killed."""

        def on_signal(number: int, frame: object) -> None:
            self.interrupts += 1
            self.received = self.received or signal.Signals(number)
            if signal.Signals(number).name == "SIGHUP":
                leave_closed_terminal()

        before = {}
        # elsewhere Python allows no handlers
        for number in handled(ENDINGS) if current_thread() is main_thread() else ():
            before[number] = signal.signal(number, on_signal)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
