"""The process of a stack: several jobs that train together as one model."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING

from dltrain.storage.files import open_appending
from dltrain.sweep.backends import worker
from dltrain.sweep.backends.worker import Task, Watch
from dltrain.sweep.jobs import has_checkpoint
from dltrain.text import show

if TYPE_CHECKING:
    from dltrain.data.prepare import Splits
    from dltrain.run.built import Experiment
    from dltrain.training.stack import Member


@dataclass(frozen=True)
class StackTask:
    """The data that a stack's process gets from the driver."""

    tasks: tuple[Task, ...]
    log: Path
    always: bool  # also where it is not faster


def work_together(stack: StackTask, channel: connection.Connection) -> None:
    """Train several configurations as one stack, each in its folder. Jobs that it did not end must be run alone."""
    begun = time.perf_counter()
    worker.enter(stack.tasks[0].cwd, stack.log)
    channel.send((stack.tasks[0].number, "listens"))
    for task in stack.tasks:
        worker.write_hydra_folder(task.folder, task.number, task.overrides, task.config)
    workers = Workers(stack, channel)
    workers.prepare(begun)
    if workers.worth_it():
        workers.train()
    worker.leave(channel, 0)


class Log(logging.Handler):
    """Send log records to the log of the current run."""

    file: logging.Handler | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.file is not None:
            self.file.emit(record)


class Workers:
    """The runs of a stack, from their configurations to their summaries."""

    def __init__(self, stack: StackTask, channel: connection.Connection) -> None:
        self.stack, self.channel = stack, channel
        self.ready: list[tuple[Task, Experiment]] = []
        self.of: dict[int, tuple[Task, Experiment, logging.Handler]] = {}  # by id of the member
        self.log = Log()

    def prepare(self, begun: float) -> None:
        """Build every run; the data are loaded once for all that begin with weights of one run. A run that cannot be built has failed."""
        from dltrain.run import experiment

        # a table has the features of the run whose weights are loaded
        splits: dict[str, Splits | None] = {}
        for task in self.stack.tasks:
            config = replace(task.config, quiet=True)
            door = task.rights.door(config.trust)
            started = {"fork": round(time.perf_counter() - begun, 4)}
            source = str(config.initializer.get("path"))
            with self.reporting(task):
                built = experiment.prepare(
                    config,
                    door,
                    task.command,
                    list(task.overrides),
                    started,
                    splits=splits.get(source),
                    trial=False,
                )
                splits[source] = built.parts.prepared
                self.ready.append((task, built))

    @contextmanager
    def reporting(self, task: Task) -> Iterator[None]:
        """End the run whose error is raised inside."""
        try:
            yield
        except MemoryError:
            raise
        except Exception as error:
            with open_appending(task.folder / "run.log") as log:
                self.channel.send((task.number, "ended", *worker.outcome_of(error, log)))

    def worth_it(self) -> bool:
        """Return whether training together is possible for these data and models, and faster; says why not."""
        from dltrain.data.batches import ResidentSplit
        from dltrain.training.stack import is_faster
        from dltrain.training.stacked_layers import leaves

        if not self.ready:
            return False
        parts, plan = self.ready[0][1].parts, self.ready[0][1].plan
        assert leaves(parts.model)
        why = ""
        if not isinstance(parts.train, ResidentSplit) or plan.device.type != "cpu":
            why = "their data are not in the memory of a CPU"
        elif not self.stack.always and not is_faster(parts.model, plan):
            why = "the arithmetic of a step outweighs what a stack saves (sweep.backend=stacked stacks all the same)"
        if why:
            numbers = ", ".join(str(task.number) for task, _ in self.ready)
            show(f"jobs {numbers} have processes of their own: {why}")
        return not why

    def train(self) -> None:
        from dltrain.training.signals import Signals
        from dltrain.training.stack import Stack

        logging.getLogger().addHandler(self.log)
        logging.getLogger().setLevel(logging.INFO)
        members: list[Member] = []
        with Signals() as signals, ExitStack() as folders:
            folders.callback(logging.getLogger().removeHandler, self.log)
            for task, built in self.ready:
                with self.reporting(task):
                    member = self.begin(task, built, folders)
                    if member is not None:
                        member.signals = signals
                        members.append(member)
            if members:
                Stack(members, self.ended, self.current).run()

    def begin(self, task: Task, built: Experiment, folders: ExitStack) -> Member | None:
        """Open a run's folder and tell its loggers; None where another process has trained there meanwhile."""
        from dltrain.run import experiment
        from dltrain.run.record import log_of, note_failures
        from dltrain.storage.lock import Lock
        from dltrain.storage.run_folder import forget_rows
        from dltrain.storage.summary import is_ended
        from dltrain.training.stack import Member

        built.stacked = True
        stopping, every = built.parts.early_stopping, built.plan.evaluate_every
        watch = Watch(self.channel, task.number, stopping.metric, every, task.asks)
        self.channel.send((task.number, "begun", -(-built.plan.total_steps // every)))
        lock = Lock(task.folder, patience=worker.ORPHAN_SECONDS)
        folders.callback(lock.release)
        # such a job is run alone after the stack, from there
        if has_checkpoint(task.folder) or is_ended(task.folder):
            lock.release()
            return None
        forget_rows(task.folder)
        folder = experiment.open_folder(built, task.folder, lock=lock)
        folders.callback(folder.close)
        member = Member(built.parts, built.plan, folder, experiment.observers(built, folder), watch)
        handler = log_of(task.folder)
        folders.callback(handler.close)
        note_failures(handler, folder)
        self.of[id(member)] = (task, built, handler)
        self.current(member)
        info = experiment.begin(built, member)
        member.loggers.tell("run_started", info)
        member.begin()
        return member

    def current(self, member: Member) -> None:
        self.log.file = self.of[id(member)][2]

    def ended(self, member: Member, error: Exception | None) -> None:
        """Conclude a run that left the stack, as a run alone concludes, and tell the driver."""
        from dltrain.run import experiment
        from dltrain.run.failures import explain, problem_of

        task, built, handler = self.of[id(member)]
        report: BaseException | None
        try:
            if error is not None:
                raise error
            member.end()
            result = experiment.finish(built, member)
        except Exception as raised:
            report = explain(raised, built)
            experiment.close(built, member, report)
        else:
            report = problem_of(member.folder, result)
        handler.close()
        member.folder.close()
        with open_appending(task.folder / "run.log") as log:
            self.channel.send((task.number, "ended", *worker.outcome_of(report, log)))
