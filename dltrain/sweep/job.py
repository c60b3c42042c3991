"""One job of a sweep, in a process of its own."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any, TextIO

from dltrain.config.door import Rights
from dltrain.config.schema import Config


@dataclass(frozen=True)
class Task:
    """What a job needs to know; it travels to the job's process as data."""

    number: int
    folder: Path
    config: Config
    rights: Rights  # what the trusted door may build
    command: str
    overrides: tuple[str, ...]
    cwd: str
    asks: bool  # whether the driver decides after each evaluation if the job goes on
    alone: str = ""  # why it does not share its process with others, where it might have


class Watch:
    """Tells the driver of every evaluation, and asks it whether to go on."""

    def __init__(self, channel: connection.Connection, job: int, metric: str, every: int, asks: bool) -> None:
        self.channel, self.job, self.metric, self.every, self.asks = channel, job, metric, every, asks

    def __call__(self, row: Mapping[str, float], best: float | None) -> str | None:
        """Report a row of metrics.csv; returns the reason to stop, or None."""
        number = -(-int(row["step"]) // self.every)  # counted from the run's beginning, also after a resume
        value = row["val/loss"] - row["train/loss"] if self.metric == "gap" else row[self.metric]
        self.channel.send((self.job, "row", number, row["epoch"], value, best))
        if not self.asks:
            return None
        reason: str | None = self.channel.recv()
        return reason


def work(task: Task, channel: connection.Connection) -> None:
    """Train one configuration in its folder; the process ends with the exit code of a single run."""
    begun = time.perf_counter()
    enter(task.cwd, task.folder / "run.log")
    error: BaseException | None = None
    try:
        _train(task, channel, begun)
    except BaseException as raised:
        error = raised
    code, said = outcome_of(error, sys.stdout)
    try:
        channel.send((task.number, "ended", code, said))
    except OSError:  # the driver is gone: run.log has it
        pass
    leave(channel, code)


def enter(cwd: str, log: Path) -> None:
    """Make a forked process one of its own: session, folder, log, and an end with the driver's."""
    os.setsid()  # a Ctrl-C of the terminal goes to the driver alone, which passes it on once
    # the fork server ignores it; no terminal reaches this session, so that whoever sends it means this job
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.chdir(cwd)
    _write_to(log)
    threading.Thread(target=_end_with_driver, daemon=True).start()


def leave(channel: connection.Connection, code: int) -> None:
    """End the process at once: nothing of the fork server's is to be taken down by a job."""
    sys.stdout.flush()
    sys.stderr.flush()
    channel.close()
    os._exit(code)


def outcome_of(error: BaseException | None, log: TextIO) -> tuple[int, str]:
    """The exit code of a run, as TRUST.md's table has it, and the reason, which goes into its log."""
    from dltrain.errors import UserError

    if error is None:
        return 0, ""
    if isinstance(error, UserError):
        print(f"dltrain: {error}", file=log, flush=True)
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 130, ""
    traceback.print_exception(error, file=log)
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1
        return code, f"the job ended itself by sys.exit({error.code})"
    return 6 if isinstance(error, MemoryError) else 1, f"{type(error).__name__}: {error}"


ORPHAN_SECONDS = 60.0


def _train(task: Task, channel: connection.Connection, begun: float) -> None:
    from dltrain.run import experiment
    from dltrain.run.record import logging_to
    from dltrain.storage.checkpoint import clear_unfinished
    from dltrain.storage.lock import Lock
    from dltrain.training.signals import hold_interrupt

    folder = task.folder
    config = replace(
        task.config, quiet=True
    )  # the driver has the terminal; the folder keeps the user's setting
    logging.getLogger().setLevel(logging.INFO)
    door = task.rights.door(config.trust)
    started = {"fork": round(time.perf_counter() - begun, 4)}
    built = experiment.prepare(config, door, task.command, list(task.overrides), started)
    every = built.plan.evaluate_every
    watch = Watch(channel, task.number, built.parts.early_stopping.metric, every, task.asks)
    hold_interrupt()
    channel.send((task.number, "begun", -(-built.plan.total_steps // every)))
    resume = any((folder / "checkpoints").glob("step-*/manifest.json")) and (folder / "config.yaml").is_file()
    if not resume:
        (folder / "metrics.csv").unlink(missing_ok=True)
    Lock(
        folder, patience=ORPHAN_SECONDS
    ).release()  # a job of a driver that was killed may still be ending here
    clear_unfinished(
        folder / "checkpoints"
    )  # and have left half a checkpoint, with no whole one to resume from
    with logging_to(folder):
        if task.alone:
            logging.getLogger(__name__).info("not in a stack: %s", task.alone)
        experiment.run(built, folder, resume=resume, watch=watch)


def _write_to(log: Path) -> None:
    """All that the job prints, a crash of the interpreter too, goes to its own log."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    faulthandler.enable()


def _end_with_driver() -> None:
    """A job does not outlive its driver: the sweep that resumes goes on from the job's last checkpoint."""
    driver = parent_process()
    assert driver is not None
    connection.wait([driver.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def score_winner(path: str, config: Config, rights: Rights, cwd: str, channel: Any) -> None:
    """Score the test split of one finished job, once, with its best weights."""
    os.setsid()
    os.chdir(cwd)
    _write_to(Path(path) / "run.log")
    from dltrain.run import scoring

    scores = scoring.score_runs([Path(path)], [config], [rights.door(config.trust)])
    channel.send({s.split: s.values for s in scores}.get("test"))
    os._exit(0)
