"""The fork server of a sweep's jobs: what signals leave it alive, and what follows where it is killed all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver, get_all_start_methods, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from PIL import Image

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


# modules that the servers of multiprocessing import, and jobs after them
SHADOWS = (
    "socket",
    "signal",
    "multiprocessing",
    "struct",
    "tempfile",
    "pickle",
    "selectors",
    "torch",
    "numpy",
)


def shadow(folder: Path) -> None:
    for name in SHADOWS:
        (folder / f"{name}.py").write_text(f"open('hacked-{name}', 'w')\nraise SystemExit\n")


def test_no_server_imports_from_the_working_folder(workdir, monkeypatch) -> None:
    """Found in review: `cd FOLDER; dltrain -m sweep.resume=.` ran a stranger's socket.py; a harmless one ended every sweep."""
    shadow(workdir)
    monkeypatch.setattr(resource_tracker, "_resource_tracker", resource_tracker.ResourceTracker())
    for name in ("ensure_running", "register", "unregister", "getfd"):
        monkeypatch.setattr(resource_tracker, name, getattr(resource_tracker._resource_tracker, name))
    environment = dict(os.environ)
    pool.warm_up()
    assert server() > 0 and dict(os.environ) == environment
    assert [path.name for path in workdir.glob("hacked*")] == []


def environment_of_job(channel: Connection) -> None:
    channel.send(os.environ.get("PYTHONSAFEPATH"))


def test_a_job_has_the_environment_of_the_command(workdir) -> None:
    worker = pool.start(environment_of_job)
    assert worker.channel.recv() is None and worker.end() == 0


@pytest.mark.ci
@pytest.mark.parametrize("program", [["-P", "-m", "dltrain"], ["-m", "dltrain"]])
def test_a_sweep_and_streamed_data_beside_files_with_names_of_modules(workdir, program) -> None:
    shadow(workdir)
    for i in range(40):
        (workdir / "photos" / f"{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, 255 * (i % 2), 0)).save(workdir / "photos" / f"{i % 2}" / f"{i}.png")
    photos = ("dataset=image_folder", "dataset.root=photos", "dataset.resident_share=0", "workers=1")
    for texts in (("-m", "lr=0.1,0.2"), (*photos, "batch_size=4")):
        command = [sys.executable, *program, *texts, "model=linear", "steps=2", "quiet=true"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert [path.name for path in workdir.glob("hacked*")] == []


@pytest.mark.ci
def test_a_killed_server_is_replaced_by_the_next_start() -> None:
    pool.warm_up()
    before = server()
    os.kill(before, signal.SIGKILL)
    after = server()
    assert after != before
    assert forkserver._forkserver._forkserver_pid == after  # type: ignore[attr-defined]
