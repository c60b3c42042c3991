"""Processes for jobs, from a fork server that has imported torch: 25 to 40 ms from start to training."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, forkserver, get_context
from multiprocessing.process import BaseProcess
from typing import Any

from dltrain.training.signals import hangup_ignored


@dataclass
class Worker:
    """A job's process and the line to it."""

    process: BaseProcess
    channel: connection.Connection

    def signal(self, number: int) -> None:
        """Send a signal to the job and whatever it started; nothing when it is gone."""
        assert self.process.pid is not None
        try:
            os.kill(self.process.pid, number)
        except ProcessLookupError:
            pass

    def end(self) -> int:
        """Wait for the end; the exit code, negative for a signal."""
        self.process.join()
        code = self.process.exitcode
        self.process.close()
        self.channel.close()
        return -signal.SIGKILL if code is None else code


def warm_up() -> None:
    """Start the fork server; it imports in the background."""
    get_context("forkserver").set_forkserver_preload(["dltrain.sweep.backends.preload"])
    # The server restores SIGINT in its children; it ignores it itself, so a Ctrl-C of the terminal leaves it alive.
    with hangup_ignored():
        forkserver.ensure_running()


def start(target: Callable[..., None], *arguments: Any) -> Worker:
    """Start `target(*arguments, channel)` in a process of its own."""
    context = get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=_begin, args=(dict(os.environ), target, *arguments, theirs))
    process.start()
    theirs.close()
    return Worker(process, ours)


def _begin(environment: dict[str, str], target: Callable[..., None], *arguments: Any) -> None:
    """Call the target in the caller's environment: the fork server, which may be older, has that of its start."""
    os.environ.clear()
    os.environ.update(environment)
    target(*arguments)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ask_gpus(channel: connection.Connection) -> None:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    channel.send([torch.cuda.mem_get_info(i)[0] for i in range(count)])
    os._exit(0)


def gpus() -> list[int]:
    """The free bytes of each GPU that torch sees; asked of a child, so that the driver needs no torch."""
    if not os.path.exists("/dev/nvidiactl"):
        return []
    worker = start(_ask_gpus)
    try:
        free: list[int] = worker.channel.recv()
    except EOFError:
        free = []
    worker.end()
    return free
