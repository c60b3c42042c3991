"""One sweep on processes, stacked, on Ray, on Slurm and on Ray inside Slurm; begun on one and finished on another.

Needs the extra `ray`, and a Slurm on PATH whose nodes run jobs of this folder: `pytest -m cluster tests/cluster/test_five_backends.py`,
about 10 minutes on two cores.
"""

from __future__ import annotations

import csv
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from sweeping import finished, is_alive, sweep_folder, wait_for

from dltrain.storage.job_names import job_folders

pytest.importorskip("ray", reason="needs the extra ray: pip install 'dltrain[ray]'")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not shutil.which("sbatch"), reason="needs Slurm on PATH"),
]

REPOSITORY = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "dltrain"]
# short and long jobs in turns, so that some are done and some have just begun as the driver is killed
COMMAND = [
    *PROGRAM, "-m", "dataset=digits", "model=linear", "lr=0.1,0.03,0.01", "steps=20,4000", "early_stopping=none", "threads=1",
    "checkpoint.every_epochs=10", "quiet=true",
]  # fmt: skip
JOBS = 6
IN_SLURM = "ray in slurm"
BACKENDS = ("local", "stacked", "ray", "slurm", IN_SLURM)
STACKED = 1e-4  # relative tolerance of the numbers of stacked jobs


@pytest.fixture(autouse=True)
def _environment(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    # the commands `ray` and `python` of the script
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)


# Running ----------------------------------------------------------------------------------------------------------


def script() -> str:
    """The script of docs/clusters.md for Ray inside an allocation, with the command of this sweep."""
    text = (REPOSITORY / "docs" / "clusters.md").read_text()
    (found,) = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", text, re.DOTALL)
    changed, count = re.subn(
        r"^dltrain -m .*? (?=sweep\.backend=ray)", shlex.join(COMMAND) + " ", found, flags=re.M
    )
    assert count == 1
    return changed


def start(backend: str) -> subprocess.Popen[bytes]:
    """The command on a backend; its process ends with the exit code of the sweep."""
    command = [*COMMAND, f"sweep.backend={backend}"]
    if backend == IN_SLURM:
        Path("ray.sbatch").write_text(script())
        command = ["sbatch", "--wait", "--output=output.txt", "ray.sbatch"]
    return subprocess.Popen(command, stdout=open("output.txt", "ab"), stderr=subprocess.STDOUT)


def run(backend: str) -> None:
    assert start(backend).wait(timeout=300) == 0, Path("output.txt").read_text()


def end(number: signal.Signals) -> None:
    """Send a signal to the driver, which may run inside an allocation of Slurm, and wait for its end."""
    (driver,) = re.findall(r"process (\d+)", (sweep_folder(Path.cwd()) / "sweep.lock").read_text())
    os.kill(int(driver), number)
    wait_for(lambda: not is_alive(int(driver)))


def queued() -> list[str]:
    lines = subprocess.run(["squeue", "--noheader", "--format=%Z %j"], capture_output=True, text=True).stdout
    return [line for line in lines.splitlines() if line.startswith(f"{Path.cwd()} ")]


def cancel_queued() -> None:
    """What docs/sweeps.md says for a sweep that is to go on elsewhere."""
    subprocess.run(["scancel", f"--name=dltrain-{sweep_folder(Path.cwd()).name}"], check=True)
    wait_for(lambda: not queued())


# What came out ----------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """The numbers of a sweep, without times and folders."""

    rows: dict[int, list[dict[str, float]]]
    table: list[dict[str, str]]  # results.csv
    books: list[tuple[Any, ...]]
    ranking: list[tuple[str, ...]]  # place, job and configuration in report.html
    report: str  # report.html
    best: str  # best.yaml


def outcome(workdir: Path) -> Outcome:
    folder = sweep_folder(workdir)
    with open(folder / "results.csv") as file:
        table = [row | {"folder": Path(row["folder"]).name, "seconds": ""} for row in csv.DictReader(file)]
    with closing(sqlite3.connect(folder / "books.sqlite")) as books:
        states = books.execute("SELECT number, folder, state FROM jobs ORDER BY number").fetchall()
    report = (folder / "report.html").read_text().replace(folder.name, "SWEEP")
    return Outcome(
        {number: Run(path).timeless_rows for number, path in job_folders(folder).items()},
        table,
        states,
        re.findall(r"<tr[^>]*><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>", report),
        report,
        (folder / "best.yaml").read_text(),
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Outcome:
    """The sweep on `local`, without a disturbance."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        run("local")
    found = outcome(folder)
    assert len(found.table) == len(found.books) == len(found.rows) == len(found.ranking) == JOBS
    return found


def assert_same(found: Outcome, alone: Outcome, tolerance: float) -> None:
    assert found.books == alone.books
    assert found.ranking == alone.ranking
    assert close(found.rows, alone.rows, tolerance)
    assert close(found.table, alone.table, tolerance)
    # they show numbers
    assert tolerance or (found.report, found.best) == (alone.report, alone.best)


def close(left: Any, right: Any, tolerance: float) -> bool:
    """Whether all numbers are equal within a relative tolerance, and everything else is equal."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(close(left[key], right[key], tolerance) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(
            close(*pair, tolerance) for pair in zip(left, right, strict=True)
        )
    try:
        return float(left) == pytest.approx(float(right), rel=tolerance, abs=tolerance * 1e-2)
    except ValueError:
        return left == right


# The tests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_the_same_command_with_one_more_word_gives_the_same_report(workdir, alone, backend):
    run(backend)
    assert_same(outcome(workdir), alone, STACKED if backend == "stacked" else 0.0)


CHAINS = [
    ("local", "stacked", signal.SIGKILL),
    ("local", "ray", signal.SIGTERM),
    ("local", "slurm", signal.SIGKILL),
    ("stacked", "local", signal.SIGKILL),
    ("stacked", "slurm", signal.SIGTERM),
    ("ray", "stacked", signal.SIGKILL),
    ("ray", "local", signal.SIGTERM),
    ("slurm", "ray", signal.SIGKILL),
    ("slurm", "local", signal.SIGTERM),
    ("slurm", "stacked", signal.SIGKILL),
    (IN_SLURM, "local", signal.SIGKILL),
    ("local", IN_SLURM, signal.SIGTERM),
]


def test_jobs_that_are_left_in_the_queue_of_slurm_disturb_no_other_backend(workdir, alone):
    """Both work in the same folders: each job is trained by one of them."""
    driver = start("slurm")
    wait_for(lambda: len(finished(workdir)) >= 1)
    end(signal.SIGKILL)
    driver.wait(timeout=120)
    assert queued()
    run("local")
    wait_for(lambda: not queued())
    assert_same(outcome(workdir), alone, 0.0)


@pytest.mark.parametrize("first, second, number", CHAINS)
def test_a_sweep_begun_on_one_backend_is_finished_on_another(workdir, alone, first, second, number):
    driver = start(first)
    wait_for(lambda: len(finished(workdir)) >= 2)
    end(number)
    driver.wait(timeout=120)
    if first == "slurm":
        cancel_queued()
    done = finished(workdir)
    assert 2 <= len(done) < JOBS
    wait_for(lambda: not queued())
    run(second)
    after = finished(workdir)
    # what was done is not run again
    assert {job: after[job] for job in done} == done
    assert_same(outcome(workdir), alone, STACKED if "stacked" in (first, second) else 0.0)
