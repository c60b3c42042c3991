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
from typing import Any

from dltrain.config.schema import Config


@dataclass(frozen=True)
class Task:
    """What a job needs to know; it travels to the job's process as data."""

    number: int
    folder: Path
    config: Config
    targets: frozenset[str]  # what the trusted door may build
    command: str
    overrides: tuple[str, ...]
    cwd: str
    asks: bool  # whether the driver decides after each evaluation if the job goes on


class Watch:
    """Tells the driver of every evaluation, and asks it whether to go on."""

    def __init__(self, channel: connection.Connection, metric: str, every: int, asks: bool) -> None:
        self.channel, self.metric, self.every, self.asks = channel, metric, every, asks

    def __call__(self, row: Mapping[str, float], best: float | None) -> str | None:
        """Report a row of metrics.csv; returns the reason to stop, or None."""
        number = -(-int(row["step"]) // self.every)  # counted from the run's beginning, also after a resume
        value = row["val/loss"] - row["train/loss"] if self.metric == "gap" else row[self.metric]
        self.channel.send((number, row["epoch"], value, best))
        if not self.asks:
            return None
        reason: str | None = self.channel.recv()
        return reason


def work(task: Task, channel: connection.Connection) -> None:
    """Train one configuration in its folder; the process ends with the exit code of a single run."""
    begun = time.perf_counter()
    os.setsid()  # a Ctrl-C of the terminal goes to the driver alone, which passes it on once
    os.chdir(task.cwd)
    _write_to(task.folder / "run.log")
    threading.Thread(target=_end_with_driver, daemon=True).start()
    code = _run(task, channel, begun)
    sys.stdout.flush()
    sys.stderr.flush()
    channel.close()
    os._exit(code)  # nothing of the fork server's is to be taken down by a job


def _run(task: Task, channel: connection.Connection, begun: float) -> int:
    """The exit code of the run, as TRUST.md's table has it."""
    from dltrain.errors import UserError

    try:
        _train(task, channel, begun)
        return 0
    except UserError as error:
        print(f"dltrain: {error}", flush=True)
        _say(channel, str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except SystemExit as end:
        _say(channel, f"the job ended itself by sys.exit({end.code})")
        return end.code if isinstance(end.code, int) else 1
    except BaseException as error:
        traceback.print_exc()
        _say(channel, f"{type(error).__name__}: {error}")
        return 6 if isinstance(error, MemoryError) else 1


def _train(task: Task, channel: connection.Connection, begun: float) -> None:
    from dltrain import experiment
    from dltrain.config.door import Door

    folder = task.folder
    config = replace(
        task.config, quiet=True
    )  # the driver has the terminal; the folder keeps the user's setting
    logging.getLogger().setLevel(logging.INFO)
    door = Door(set(task.targets), config.trust)
    started = {"fork": round(time.perf_counter() - begun, 4)}
    built = experiment.prepare(config, door, task.command, list(task.overrides), started)
    watch = Watch(channel, built.parts.early_stopping.metric, built.plan.evaluate_every, task.asks)
    channel.send(("begun", -(-built.plan.total_steps // built.plan.evaluate_every)))
    resume = any((folder / "checkpoints").glob("step-*/manifest.json")) and (folder / "config.yaml").is_file()
    if not resume:
        (folder / "metrics.csv").unlink(missing_ok=True)
    with experiment.logging_to(folder):
        experiment.run(built, folder, resume=resume, watch=watch)


def _say(channel: connection.Connection, reason: str) -> None:
    try:
        channel.send(("failed", reason))
    except OSError:  # the driver is gone: run.log has it
        pass


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


def score_winner(path: str, config: Config, targets: frozenset[str], cwd: str, channel: Any) -> None:
    """Score the test split of one finished job, once, with its best weights."""
    os.setsid()
    os.chdir(cwd)
    _write_to(Path(path) / "run.log")
    from dltrain import scoring
    from dltrain.config.door import Door

    scores = scoring.score_runs([Path(path)], [config], [Door(set(targets), config.trust)])
    channel.send({s.split: s.values for s in scores}.get("test"))
    os._exit(0)
