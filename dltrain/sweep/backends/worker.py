"""The process of one job of a sweep: forked by the driver, or `python -m dltrain.sweep.backends.worker FOLDER …`."""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from dltrain.children import python_module
from dltrain.config import saved
from dltrain.config.door import Door, Rights, rights_of_record, rights_of_user
from dltrain.config.schema import Config
from dltrain.direction import value_of
from dltrain.errors import FolderInUse, UserError
from dltrain.storage.files import open_appending
from dltrain.storage.files import replace as replace_file
from dltrain.sweep.jobs import Job, has_checkpoint
from dltrain.text import utf8

if TYPE_CHECKING:
    from dltrain.run.built import Experiment
    from dltrain.training.trainer import Watch as Observer

MODULE = "dltrain.sweep.backends.worker"
ORPHAN_SECONDS = 60.0  # to wait for a job of a driver that was killed, which may still be ending


@dataclass(frozen=True)
class Task:
    """The data that a job's process gets from the driver."""

    number: int
    folder: Path
    config: Config
    rights: Rights
    command: str
    overrides: tuple[str, ...]
    cwd: str
    asks: bool  # whether the driver decides after each evaluation if the job goes on
    alone: str = ""  # why it is not in a stack, where it might have been


class Watch:
    """Report every evaluation to the driver, and ask it whether to continue."""

    def __init__(self, channel: connection.Connection, job: int, metric: str, every: int, asks: bool) -> None:
        self.channel, self.job, self.metric, self.every, self.asks = channel, job, metric, every, asks

    def __call__(self, row: Mapping[str, float], best: float | None) -> str | None:
        """Report a row of metrics.csv; return the reason to stop, or None."""
        # counted from the run's beginning, also after a resume
        number = -(-int(row["step"]) // self.every)
        try:
            self.channel.send((self.job, "row", number, row["epoch"], value_of(row, self.metric), best))
            reason: str | None = self.channel.recv() if self.asks else None
        except (OSError, EOFError):
            # the driver was killed, which is no failure of this job: as in `_end_with_driver`
            os._exit(1)
        return reason


def work(task: Task, channel: connection.Connection) -> None:
    """Train one configuration in its folder; the process ends with the exit code of a single run."""
    begun = time.perf_counter()
    enter(task.cwd, task.folder / "run.log")
    channel.send((task.number, "listens"))
    error: BaseException | None = None
    try:
        _train(task, channel, begun)
    except BaseException as raised:
        error = raised
    code, reason = outcome_of(error, sys.stdout)
    # without a driver, run.log has it
    with suppress(OSError):
        channel.send((task.number, "ended", code, reason))
    leave(channel, code)


def enter(cwd: str, log: Path) -> None:
    """Give a forked process its own session, folder and log, and let it end with the driver."""
    _leave_terminal()
    if hasattr(signal, "SIGHUP"):
        # the fork server ignores SIGHUP; no terminal reaches this session, so that a SIGHUP is meant for this job
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # ignored in a background process
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    _write_to(log)
    threading.Thread(target=_end_with_driver, daemon=True).start()


def _leave_terminal() -> None:
    """Start a session, so that a Ctrl-C in the terminal reaches the driver alone, which passes it on once."""
    if hasattr(os, "setsid"):
        os.setsid()


def leave(channel: connection.Connection, code: int) -> None:
    """End the process at once, without the exit handlers of the fork server."""
    sys.stdout.flush()
    sys.stderr.flush()
    channel.close()
    os._exit(code)


def outcome_of(error: BaseException | None, log: TextIO) -> tuple[int, str]:
    """Return the exit code of a run and the reason, which is written to its log."""
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


def _train(task: Task, channel: connection.Connection, begun: float) -> None:
    write_hydra_folder(task.folder, task.number, task.overrides, task.config)
    started = {"fork": round(time.perf_counter() - begun, 4)}

    def watch_of(built: Experiment) -> Observer:
        every = built.plan.evaluate_every
        channel.send((task.number, "begun", -(-built.plan.total_steps // every)))
        return Watch(channel, task.number, built.parts.early_stopping.metric, every, task.asks)

    door = task.rights.door(task.config.trust)
    train(task.folder, task.config, door, task.command, list(task.overrides), started, watch_of, task.alone)


def train(
    folder: Path,
    config: Config,
    door: Door,
    command: str,
    overrides: list[str],
    started: dict[str, float],
    watch_of: Callable[[Experiment], Observer] | None = None,
    alone: str = "",
) -> None:
    """Train a configuration in a folder; continue from its newest checkpoint where it has one, and leave it if it is done."""
    from dltrain.run import experiment
    from dltrain.run.record import logging_to
    from dltrain.storage.checkpoint import clear_unfinished
    from dltrain.storage.lock import Lock
    from dltrain.storage.run_folder import forget_rows
    from dltrain.storage.summary import is_ended
    from dltrain.training.signals import InterruptedWhenDone, hold_interrupt

    # the driver has the terminal; the folder keeps the user's setting
    config = replace(config, quiet=True)
    logging.getLogger().setLevel(logging.INFO)
    # its folder exists already, and its errors are reported in the same way
    built = experiment.prepare(config, door, command, overrides, started, trial=False)
    hold_interrupt()
    watch = None if watch_of is None else watch_of(built)
    # another process may still work here: that of a killed driver, or a job in Slurm's queue while another backend goes on
    lock = Lock(folder, patience=ORPHAN_SECONDS)
    try:
        if is_ended(folder):
            return
        resume = has_checkpoint(folder) and (folder / "config.yaml").is_file()
        if not resume:
            forget_rows(folder)
        # of a job that was killed, and has no whole one to resume from
        clear_unfinished(folder / "checkpoints")
        with logging_to(folder):
            if alone:
                logging.getLogger(__name__).info("not in a stack: %s", alone)
            # of a job whose end was told to the driver the signal asks for nothing more
            with suppress(InterruptedWhenDone):
                experiment.run(built, folder, resume=resume, watch=watch, lock=lock)
    finally:
        lock.release()


def write_hydra_folder(folder: Path, number: int, overrides: tuple[str, ...], config: Config) -> None:
    """Write `.hydra/`: config.yaml, hydra.yaml and overrides.yaml, as Hydra does for a run."""
    inside = folder / ".hydra"
    inside.mkdir(exist_ok=True)
    saved.write(config, inside / "config.yaml")
    hydra = {
        "job": {"name": "dltrain", "num": number, "override_dirname": ",".join(overrides)},
        "mode": "MULTIRUN",
        "overrides": {"hydra": [], "task": list(overrides)},
        "runtime": {"cwd": str(Path.cwd()), "output_dir": str(folder)},
        "sweep": {"dir": str(folder.parent), "subdir": folder.name},
    }
    for name, content in (("hydra.yaml", {"hydra": hydra}), ("overrides.yaml", list(overrides))):
        replace_file(inside / name, utf8(saved.dump(content)))


def _write_to(log: Path) -> None:
    """Write whatever the job prints, and a crash of the interpreter, to its own log."""
    with open_appending(log) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    faulthandler.enable()


def _end_with_driver() -> None:
    """End this process at once when the driver ends: a resumed sweep continues from the job's last checkpoint."""
    driver = parent_process()
    assert driver is not None
    connection.wait([driver.sentinel])
    os._exit(1)


def score_winner(path: str, config: Config, rights: Rights, cwd: str, channel: connection.Connection) -> None:
    """Score the test split of one finished job with its best weights."""
    _leave_terminal()
    os.chdir(cwd)
    _write_to(Path(path) / "run.log")
    from dltrain.run import scoring

    scores = scoring.score_runs([Path(path)], [config], [rights.door(config.trust)])
    channel.send({s.split: s.values for s in scores}.get("test"))
    os._exit(0)


# As a command ----------------------------------------------------------------------------------------------------


def command_of(job: Job, rights: Rights, config_dir: str | None, config_name: str) -> list[str]:
    """Return the command that runs a job in its folder, from the folder where the sweep was started."""
    options = ["--config-name", config_name]
    if config_dir is not None:
        options += ["--config-dir", config_dir]
    if not rights.local:
        options += ["--record", "stored" if rights.recalled else "trusted"]
    return [*python_module(MODULE), *options, str(job.number), str(job.folder), *job.overrides]


def main(arguments: list[str]) -> int:
    """Train the job of a command line; a failure is recorded in its summary. Return the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    parser.add_argument("--config-dir")
    parser.add_argument("--config-name", default="config")
    parser.add_argument("--record", choices=["stored", "trusted"])
    parser.add_argument("number", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args(arguments)
    begun = time.perf_counter()
    args.folder.mkdir(parents=True, exist_ok=True)
    error: BaseException | None = None
    try:
        _train_overrides(args, begun)
    except BaseException as raised:
        error = raised
    code, reason = outcome_of(error, sys.stderr)
    job = Job(args.number, args.number, {}, args.overrides, args.folder)
    job.read()
    # a summary of another process that works in the folder is left alone
    if reason and code != FolderInUse.exit_code and not job.is_done and job.state != "interrupted":
        job.fail(reason)
    return code


def _train_overrides(args: argparse.Namespace, begun: float) -> None:
    from dltrain.config.compose import compose, open_catalogue, open_hydra
    from dltrain.config.validation import validate

    catalogue = open_catalogue(args.config_dir)
    config = validate(compose(args.overrides, catalogue, open_hydra(catalogue), args.config_name))
    trusted = (
        [] if args.record == "stored" else [text for text in args.overrides if text.startswith("trust=")]
    )
    rights = rights_of_user(catalogue) if args.record is None else rights_of_record(catalogue, trusted)
    door = rights.door(config.trust)
    door.check_names(config.plain)
    folder = args.folder.resolve()
    write_hydra_folder(folder, args.number, tuple(args.overrides), config)
    started = {"compose": round(time.perf_counter() - begun, 4)}
    command = shlex.join(["python", "-m", MODULE, *sys.argv[1:]])
    train(folder, config, door, command, args.overrides, started)


if __name__ == "__main__":
    # the module that other modules import, in place of `__main__`
    from dltrain.sweep.backends import worker

    sys.exit(worker.main(sys.argv[1:]))
