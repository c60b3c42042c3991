"""`sweep.backend=local`: each job in a process of this machine."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

from dltrain.sweep.backends import pool
from dltrain.sweep.backends.memory import check_memory
from dltrain.sweep.backends.pool import Worker
from dltrain.sweep.backends.protocol import CANCELED, Ended, Evaluated, Event, Started, Sweep
from dltrain.sweep.backends.slots import Slot, placed, slots_of
from dltrain.sweep.backends.worker import Task, work
from dltrain.sweep.jobs import Job

PAUSE = 0.2  # seconds to wait for a message


@dataclass
class Running:
    """A process with the jobs that it still has to end."""

    jobs: dict[int, Job]
    worker: Worker
    slot: Slot
    stacked: bool
    listens: bool = False  # an earlier SIGINT would be lost while the process starts
    canceled: bool = False
    told: bool = False
    totals: dict[int, int] = field(default_factory=dict)  # evaluations that each job will have

    def interrupt(self) -> None:
        """Send SIGINT once, as soon as the process listens."""
        if self.canceled and self.listens and not self.told:
            self.told = True
            self.worker.signal(signal.SIGINT)


class Local:
    """Each job in its own process of this machine.

        job → process, sweep.jobs at a time, each with cores / sweep.jobs threads or a share of a GPU

    Use: any job; a crash, `sys.exit` or a kill ends only that job.
    """

    gives = frozenset({"evaluations"})

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.free = slots_of(sweep.jobs, [*sweep.gpus])
        check_memory(self.free, min(sweep.gpus.values(), default=0), sweep.configs, sweep.rights)
        self.places = self.capacity = len(self.free)
        self.waiting: deque[Job] = deque()
        self.running: list[Running] = []
        self.news: list[Event] = []
        self.answers: dict[int, str] = {}  # job → why the pruner stops it

    def submit(self, job: Job) -> None:
        self.waiting.append(job)

    def cancel(self, job: Job) -> None:
        if job.pruned:
            self.answers[job.number] = job.pruned
        elif job in self.waiting:
            self.waiting.remove(job)
            self.news.append(Ended(job, CANCELED))
        else:
            found = [process for process in self.running if job.number in process.jobs]
            for process in found:
                process.canceled = True
                process.interrupt()
            if not found:  # its start failed
                self.news.append(Ended(job, CANCELED))

    def events(self) -> Iterator[Event]:
        self.fill()
        yield from self.take_news()
        processes: dict[Any, Running] = {process.worker.channel: process for process in self.running}
        for channel in connection.wait([*processes], timeout=PAUSE) if processes else ():
            process = processes[channel]
            try:
                message = process.worker.channel.recv()
            except (EOFError, OSError):
                self.running.remove(process)
                self.free.append(process.slot)
                yield from self.left(process, process.worker.end())
            else:
                yield from self.receive(process, *message)
        self.fill()
        yield from self.take_news()

    def close(self) -> None:
        for process in self.running:
            if process.jobs:
                process.worker.kill()
        for process in self.running:
            process.worker.end()
        self.running.clear()

    # Processes ----------------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Start waiting jobs in free slots."""
        while self.free and self.waiting:
            jobs = self.next_group()
            slot = self.free.pop()
            worker = self.start(jobs, slot)
            self.running.append(Running({job.number: job for job in jobs}, worker, slot, len(jobs) > 1))
            self.news += [Started(job) for job in jobs]

    def next_group(self) -> list[Job]:
        """Remove from those that wait the jobs that share the next process."""
        return [self.waiting.popleft()]

    def start(self, jobs: Sequence[Job], slot: Slot) -> Worker:
        """Start the process of some jobs."""
        return pool.start(work, self.task(jobs[0], slot))

    def task(self, job: Job, slot: Slot, alone: str = "") -> Task:
        """Make a job's folder, and collect what its process needs."""
        job.folder.mkdir(exist_ok=True)
        assert self.sweep.catalogue is not None and job.config is not None
        config = placed(job.config, slot, job.folder, self.sweep.catalogue)
        return Task(
            job.number,
            job.folder.resolve(),
            config,
            self.sweep.rights,
            self.sweep.command,
            tuple(job.overrides),
            str(Path.cwd()),
            self.sweep.prunes,
            alone,
        )

    def left(self, process: Running, code: int) -> Iterator[Event]:
        """Report the jobs whose process ended without a message about them."""
        for job in process.jobs.values():
            yield Ended(job, code)

    def take_news(self) -> Iterator[Event]:
        """Yield and forget the events that have not been told."""
        while self.news:
            yield self.news.pop(0)

    def receive(self, process: Running, number: int, event: str, *news: Any) -> Iterator[Event]:
        """Turn the message of a process into an event; a job that was evaluated waits until it has been handled."""
        if event == "listens":
            process.listens = True
            process.interrupt()
        elif event == "begun":
            process.totals[number] = news[0]
        elif event == "ended":
            yield Ended(process.jobs.pop(number), *news)
        else:
            yield Evaluated(process.jobs[number], news[0], process.totals[number], *news[1:])
            if self.sweep.prunes:
                self.answer(process, number)

    def answer(self, process: Running, number: int) -> None:
        """Tell a job that waits after an evaluation whether to continue."""
        # it may have been killed meanwhile
        with suppress(OSError):
            process.worker.channel.send(self.answers.pop(number, None))
