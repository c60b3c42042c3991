"""The fork server of a sweep's jobs: what signals leave it alive, and what follows where it is killed all the same."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing import forkserver, get_all_start_methods
from multiprocessing.connection import Connection

import pytest

from dltrain.sweep.backends import pool

pytestmark = pytest.mark.skipif(
    "forkserver" not in get_all_start_methods(), reason="there is no fork server on this system"
)


@pytest.fixture(autouse=True)
def new_server() -> None:
    """Stop the server that an earlier test of this process started, perhaps for something else than jobs."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def number_of_parent(channel: Connection) -> None:
    channel.send(os.getppid())


def waits(channel: Connection) -> None:
    channel.send(os.getppid())
    time.sleep(60)


def server() -> int:
    """Return the process number of the fork server, asked through a job."""
    worker = pool.start(number_of_parent)
    number: int = worker.channel.recv()
    assert worker.end() == 0
    return number


def test_a_sigterm_to_all_processes_leaves_the_server_alive_and_ends_its_jobs() -> None:
    pool.warm_up()
    before = server()
    worker = pool.start(waits)
    worker.channel.recv()
    os.kill(before, signal.SIGTERM)
    worker.signal(signal.SIGTERM)
    assert worker.end() == -signal.SIGTERM
    assert server() == before


@pytest.mark.ci
def test_a_killed_server_is_replaced_by_the_next_start() -> None:
    pool.warm_up()
    before = server()
    os.kill(before, signal.SIGKILL)
    after = server()
    assert after != before
    assert forkserver._forkserver._forkserver_pid == after  # type: ignore[attr-defined]
