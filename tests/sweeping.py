"""What the tests of sweeps share: a model with faults, and looking at a sweep's folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dltrain.storage.job_names import job_folders, job_number
from dltrain.sweep.backends.protocol import Ended, Started
from dltrain.sweep.driver import Driver
from dltrain.sweep.jobs import Job

MODULE = """
import ctypes, errno, os, signal, sys, time
from pathlib import Path
import torch
from torch import nn

LOTTERY = {0: "raise", 10: "kill", 20: "exit", 30: "not_finite", 40: "hard_exit"}

class Faulty(nn.Module):
    def __init__(self, input_shape, num_classes, fault="none", tag=0):
        super().__init__()
        self.layer = nn.Linear(64, num_classes)
        if fault == "lottery":
            fault = LOTTERY.get(tag % 50, "none")
        self.fault, self.tag = fault, tag
        self.note("built")
        if fault == "exit": sys.exit(0)
        if fault == "exit3": sys.exit(3)
        if fault == "raise": raise RuntimeError("a bug in the model")

    def note(self, event):
        with open("notes.txt", "a") as file:
            file.write(f"{event} {self.fault} {self.tag} {os.getpid()} {time.monotonic()}\\n")

    def forward(self, inputs):
        outputs = self.layer(inputs.flatten(1))
        if self.training:
            if self.fault == "kill": os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "hard_exit": os._exit(3)
            if self.fault == "segfault": ctypes.string_at(0)
            if self.fault == "interrupt": raise KeyboardInterrupt
            if self.fault == "diverge": return outputs * 1e38 * 1e38
            if self.fault == "memory": raise MemoryError
            if self.fault == "memory_beside_others" and Path("others").exists():
                os.unlink("others")
                raise MemoryError
            if self.fault == "degraded":  # its metrics.csv cannot be written
                for folder in Path("outputs").glob("*/*/0-*"): (folder / "metrics.csv").mkdir(exist_ok=True)
            if self.fault == "disk" and not Path("room").exists():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a file")
        else:
            self.note("evaluated")
            if Path("slow").exists(): time.sleep(0.1)
            if self.fault == "not_finite": return outputs * float("nan")
        return outputs
"""
WORD = """_target_: faulty_model.Faulty
fault: none  # str: what goes wrong
tag: 0  # int >= 0: tells jobs apart
"""


def add_faulty_model(workdir: Path) -> None:
    """`model=faulty` in the working folder; what its jobs do stands in notes.txt."""
    (workdir / "faulty_model.py").write_text(MODULE)
    (workdir / "conf" / "model").mkdir(parents=True)
    (workdir / "conf" / "model" / "faulty.yaml").write_text(WORD)


def notes(workdir: Path) -> list[tuple[str, str, int, int, float]]:
    """(event, fault, tag, process, time) of every job that was built or evaluated."""
    file = workdir / "notes.txt"
    lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return [(event, fault, int(tag), int(pid), float(at)) for event, fault, tag, pid, at in lines]


def states(driver: Driver) -> dict[int, str]:
    return {job.number: job.state for job in driver.jobs}


def sweep_folder(workdir: Path) -> Path:
    (record,) = workdir.glob("outputs/*/*/sweep.json")
    return record.parent


def summaries(folder: Path) -> dict[int, dict[str, Any]]:
    files = {number: path / "summary.json" for number, path in job_folders(folder).items()}
    return {number: json.loads(file.read_text()) for number, file in files.items() if file.is_file()}


def start(workdir: Path, *arguments: str) -> subprocess.Popen[str]:
    """The program in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "dltrain", *arguments], cwd=workdir, stdout=subprocess.PIPE, text=True
    )


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def finished(workdir: Path) -> dict[int, int]:
    """The jobs that are done, with the time of their last row."""
    return {
        job_number(f.parent.name): (f.parent / "metrics.csv").stat().st_mtime_ns
        if (f.parent / "metrics.csv").exists()
        else 0
        for f in workdir.glob("outputs/*/*/*/summary.json")
        if json.loads(f.read_text())["status"] not in ("running", "interrupted")
    }


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{process}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


class Instant:
    """A backend whose jobs end at once with a summary as a run writes it; `faults` are exit codes of the next try, by number."""

    def __init__(self, places: int = 8, faults: dict[int, int] | None = None) -> None:
        self.places, self.faults = places, faults or {}
        self.waiting: list[Job] = []
        self.ran: list[int] = []
        self.limit: int | None = None  # number of jobs after which the driver is killed

    def submit(self, job: Job) -> None:
        self.waiting.append(job)

    def events(self) -> Iterator[Started | Ended]:
        while self.waiting:
            job = self.waiting.pop(0)
            yield Started(job)
            job.folder.mkdir(exist_ok=True)
            code = self.faults.pop(job.number, 0)
            if code == 0:
                (job.folder / "summary.json").write_text(json.dumps(summary_of(job)))
                self.ran.append(job.number)
                if len(self.ran) == self.limit:
                    raise Killed
            yield Ended(job, code)

    def cancel(self, job: Job) -> None: ...

    def close(self) -> None: ...


class Killed(BaseException):
    """The driver is killed."""


def summary_of(job: Job) -> dict[str, Any]:
    """A summary with as many entries as that of a run."""
    value = float(job.number * 37 % 101)
    best = {
        name: value for name in ("epoch", "step", "lr", "train/loss", "val/loss", "val/accuracy", "grad_norm")
    }
    config = {f"key{i}": i for i in range(100)}
    return {"status": "completed", "objective": value, "best": best, "best_epoch": 1.0, "seconds": 0.5, "overrides": job.overrides,
            "stop_reason": "all 2 steps done", "test": {}, "parameters": 650, "config": config}  # fmt: skip
