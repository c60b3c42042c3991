"""Processes for jobs, from a fork server that has imported torch: 25 to 40 ms from start to training.

Where the system cannot fork (Windows), each job imports torch itself, which takes seconds.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_all_start_methods, get_context
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from dltrain.children import outside_working_folder
from dltrain.training.signals import hangup_ignored, held, released

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

ATTEMPTS, PAUSE = 50, 0.1  # seconds between two attempts to reach the fork server


@dataclass
class Worker:
    """A job's process and the line to it."""

    process: BaseProcess
    channel: connection.Connection

    def signal(self, number: int) -> None:
        """Send a signal to the job, if it still runs."""
        assert self.process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        """End the job at once."""
        self.process.kill()

    def end(self) -> int:
        """Wait for the end and return the exit code, negative for a signal."""
        self.process.join()
        code = self.process.exitcode
        self.process.close()
        self.channel.close()
        # the fork server itself was killed
        return -9 if code is None else code


def warm_up() -> None:
    """Start the fork server, which imports torch in the background."""
    context = _context()
    if context.get_start_method() != "forkserver":
        return
    from multiprocessing import forkserver, resource_tracker

    # its start unblocks SIGTERM
    with outside_working_folder():
        resource_tracker.ensure_running()
    context.set_forkserver_preload(["dltrain.sweep.backends.preload"])
    # The server restores SIGINT in its children; it ignores it itself, so a Ctrl-C of the terminal leaves it alive. A
    # SIGTERM to the whole group (`timeout`, `kill 0`) leaves it alive, too: a job that starts just then is not lost.
    with hangup_ignored(), held(signal.SIGTERM), outside_working_folder():
        forkserver.ensure_running()


def _context() -> ForkServerContext | SpawnContext:
    forks = hasattr(os, "fork") and "forkserver" in get_all_start_methods()
    return get_context("forkserver") if forks else get_context("spawn")


def start(target: Callable[..., None], *arguments: object) -> Worker:
    """Start `target(*arguments, channel)` in a new process."""
    context = _context()
    ours, theirs = context.Pipe()
    process = context.Process(target=_begin, args=(dict(os.environ), target, *arguments, theirs))
    for attempt in range(ATTEMPTS):
        try:
            with outside_working_folder():
                process.start()
            break
        except (EOFError, ConnectionError):
            # the server was killed, and takes a moment to die; the start after that begins another
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(PAUSE)
    theirs.close()
    return Worker(process, ours)


def _begin(environment: dict[str, str], target: Callable[..., None], *arguments: object) -> None:
    """Call the target in the caller's environment: the fork server, which may be older, has that of its start."""
    os.environ.clear()
    os.environ.update(environment)
    released(signal.SIGTERM)
    target(*arguments)


def _ask_gpus(channel: connection.Connection) -> None:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    channel.send([torch.cuda.mem_get_info(i)[0] for i in range(count)])
    os._exit(0)


def gpus() -> list[int]:
    """Return the free bytes of each GPU that torch sees; a child is asked, so that the driver needs no torch."""
    if not os.path.exists("/dev/nvidiactl"):
        return []
    worker = start(_ask_gpus)
    try:
        free: list[int] = worker.channel.recv()
    except EOFError:
        free = []
    worker.end()
    return free
