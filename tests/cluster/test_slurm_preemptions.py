"""A sweep of 100 jobs on a real Slurm: 30 preemptions and time limits, two killed drivers, and no number changes.

The folder needs a Slurm on PATH with two partitions, of which `high` preempts `low` by requeueing:
`pytest -m slow tests/cluster/test_slurm_preemptions.py`, about 20 minutes on two cores.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Run

AXES = ("optimizer=sgd,adam", "lr=0.1,0.03,0.01,0.003,0.001", "seed=0,1,2,3,4,5,6,7,8,9")
FIXED = ("epochs=100", "early_stopping=none", "threads=1", "quiet=true", "logger=[]")
SLURM = ("sweep.backend=slurm", "sweep.backend.time=0:10:00", "sweep.backend.partition=low")
DISTURBED = 30  # starts after the first one, over all jobs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("sbatch"), reason="needs Slurm on PATH"),
]


def test_thirty_preemptions_and_time_limits_change_no_number(workdir: Path) -> None:
    command = [sys.executable, "-m", "dltrain", "-m", *AXES, *FIXED]
    alone = subprocess.run([*command, "sweep.backend=local", "output=alone"], capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr
    driver = subprocess.Popen([*command, *SLURM])
    restarts: dict[str, int] = {}
    # the rows that a job had when it was first seen after a start
    begun: dict[tuple[str, int], int] = {}
    drivers = 1
    turn = 0
    while driver.poll() is None:
        time.sleep(0.5)
        jobs = running()
        restarts |= {job.number: job.restarts for job in jobs}
        hasten()
        advanced = [
            job for job in jobs if job.rows > begun.setdefault((job.number, job.restarts), job.rows) + 3
        ]
        if sum(restarts.values()) < DISTURBED and advanced:
            turn += 1
            disturb(turn, advanced[0])
        if drivers <= 2 and sum(restarts.values()) >= 10 * drivers:
            driver.kill()
            driver.wait()
            driver, drivers = subprocess.Popen([*command, *SLURM]), drivers + 1
    assert driver.returncode == 0
    assert drivers == 3 and sum(restarts.values()) >= DISTURBED
    (swept,) = (file.parent for file in workdir.glob("outputs/*/*/sweep.json"))
    (twin,) = (file.parent for file in workdir.glob("alone/*/*/sweep.json"))
    folders = [file.parent for file in swept.glob("*/summary.json")]
    assert len(folders) == 100
    assert all(json.loads((f / "summary.json").read_text())["status"] == "completed" for f in folders)
    for folder in folders:
        assert Run(folder).timeless_rows == Run(twin / folder.name).timeless_rows
    print(f"{sum(restarts.values())} restarts of {sum(map(bool, restarts.values()))} jobs, {drivers} drivers")


class Running:
    """A running job: its id in Slurm, how often it was started again, the rows of its metrics.csv."""

    def __init__(self, text: str) -> None:
        fields = dict(re.findall(r"(\w+)=(\S+)", text))
        self.number = fields["JobId"]
        self.restarts = int(fields["Restarts"])
        folder = Path(fields["StdOut"]).parent
        file = folder / "metrics.csv"
        self.rows = file.read_text().count("\n") if file.exists() and "TimeLimit=00:10:00" in text else 0


def running() -> list[Running]:
    blocks = call("scontrol", "show", "job").split("\n\n")
    return [Running(b) for b in blocks if "JobState=RUNNING" in b and "JobName=dltrain" in b]


def hasten() -> None:
    """Let jobs that wait after a requeue start now, with the whole time limit: Slurm would wait for two minutes."""
    for block in call("scontrol", "show", "job").split("\n\n"):
        if "JobState=PENDING" in block and "JobName=dltrain" in block and "Restarts=0" not in block:
            number = re.search(r"JobId=(\d+)", block)
            assert number
            call("scontrol", "update", f"jobid={number[1]}", "StartTime=now", "TimeLimit=10")


def disturb(turn: int, job: Running) -> None:
    """Preempt the running jobs of `low`, cut the time limit of one, or requeue one: in turns."""
    if turn % 3 == 0:
        call("sbatch", "--partition=high", "--ntasks=2", "--output=/dev/null", "--wrap=sleep 1")
    elif turn % 3 == 1:
        call("scontrol", "update", f"jobid={job.number}", "TimeLimit=1")
    else:
        call("scontrol", "requeue", job.number)
    time.sleep(3)


def call(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout
