"""What every test may use: a working folder of its own, and runs of the real program in this process."""

from __future__ import annotations

import csv
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from torch import Tensor

from dltrain.cli import dispatch
from dltrain.storage.job_names import job_folders

# no test writes to the user's caches
CACHES = tempfile.TemporaryDirectory(prefix="dltrain-caches-")
os.environ["DLTRAIN_CACHE"] = CACHES.name


def every(step: int, cases: Iterable[Any]) -> list[Any]:
    """Return parametrized cases of which each `step`-th runs by default, and the others with `pytest -m ci`."""
    return [case if k % step == 0 else as_ci(case) for k, case in enumerate(cases)]


def as_ci(case: Any) -> Any:
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.ci)


@dataclass(frozen=True)
class Run:
    """A run folder, read."""

    path: Path

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.path / "summary.json").read_text())

    @property
    def rows(self) -> list[dict[str, float]]:
        with open(self.path / "metrics.csv") as stream:
            return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]

    @property
    def timeless_rows(self) -> list[dict[str, float]]:
        """The rows without their time columns, which no two runs share."""
        return [
            {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in self.rows
        ]

    @property
    def timeless_events(self) -> list[list[Any]]:
        """Steps, evaluations and checkpoints of events.jsonl, without their times; a checkpoint may be told some steps late."""
        lines = (self.path / "events.jsonl").read_text().splitlines()
        times = ("time", "seconds", "images_per_second")
        events = [{k: v for k, v in json.loads(line).items() if k not in times} for line in lines]
        return sorted([e["step"], e["event"], str(e)] for e in events if not e["event"].startswith("run_"))

    @property
    def best_weights(self) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        return load_file(self.path / "checkpoints" / "best.safetensors")

    def last_state(self) -> dict[str, Any]:
        from dltrain.storage import checkpoint

        newest = checkpoint.newest(self.path / "checkpoints")
        assert newest is not None
        averaged = newest.weights(averaged=True)
        return {"weights": newest.weights(), "averaged": averaged, **newest.state()}


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs from all tests but those marked `gpu`: the right values are those of float32 on a CPU."""
    if "not gpu" in config.option.markexpr:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, which the test works in."""
    monkeypatch.chdir(tmp_path)
    # Byte code is told from its source by size and second: a module written again within a second would stay the old one.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    # building a word of the folder puts it there: other tests would find its modules
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.fixture(scope="module")
def opened() -> tuple[Any, Any]:
    """Open the catalogue and Hydra, as the program does once."""
    from dltrain.config.compose import open_catalogue, open_hydra

    catalogue = open_catalogue()
    return catalogue, open_hydra(catalogue)


@pytest.fixture
def own_module(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], Callable[..., None]]]:
    """Write a module of the user's; return a function that makes an object of it the word `mine` of a group."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    names = []

    def choose(group: str, target: str) -> None:
        folder = workdir / "conf" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mine.yaml").write_text(f"_target_: {target}\n")

    def write(name: str, code: str) -> Callable[..., None]:
        names.append(name)
        sys.modules.pop(name, None)
        (workdir / f"{name}.py").write_text(code)
        return choose

    yield write
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def dltrain(workdir: Path) -> Callable[..., int]:
    """The command line in this process: returns the exit code, raises UserError for a refusal."""
    return lambda *arguments: dispatch([str(a) for a in arguments])


@pytest.fixture
def train(workdir: Path) -> Callable[..., Run]:
    """Train with overrides, quietly; returns the run."""

    def run(*overrides: str) -> Run:
        before = run_folders(workdir)
        assert dispatch([*overrides, "quiet=true"]) == 0
        (new,) = run_folders(workdir) - before
        return Run(new)

    return run


@contextmanager
def no_host_sync() -> Iterator[None]:
    """Inside, an operation of a GPU that makes the host wait is an error."""
    with warnings.catch_warnings():
        # the mode itself warns that it is a prototype
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


LAUNCH = (
    "import os, signal, sys\n"
    "terminal = os.open(sys.argv[1], os.O_RDWR)\n"
    "for number in range(3): os.dup2(terminal, number)\n"
    "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])\n"
)


class InTerminal:
    """A Python program as the leader of a session whose terminal is ours: to close it is what a lost ssh session does."""

    def __init__(self, *arguments: str) -> None:
        self.terminal, other = os.openpty()
        command = [sys.executable, "-c", LAUNCH, os.ttyname(other), *arguments]
        self.process = subprocess.Popen(command, start_new_session=True, cwd=os.getcwd())
        self.slave: int | None = other
        self.printed = b""

    def wait_for(self, condition: Callable[[], bool], seconds: float = 120.0) -> None:
        """Read what is printed until the condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end and self.process.returncode is None, self.printed.decode(
                errors="replace"
            )
            if select.select([self.terminal], [], [], 0.02)[0]:
                self.printed += os.read(self.terminal, 4096)

    def close(self) -> int:
        """Close the terminal; returns the exit code."""
        assert self.slave is not None
        os.close(self.slave)
        os.close(self.terminal)
        return self.process.wait(60)

    def end(self) -> int:
        """Wait for the end with the terminal open; returns the exit code."""
        self.wait_for(lambda: self.process.poll() is not None)
        self.close()
        return self.process.returncode


def job_at(sweep: Path, number: int) -> Path:
    """Return the folder of a job, whose name shows its axes."""
    return job_folders(sweep)[number]


def run_folders(workdir: Path) -> set[Path]:
    return {file.parent for file in workdir.glob("**/summary.json")}


def assert_equal(left: Any, right: Any) -> None:
    """Equality to the last bit of nested dicts and lists of tensors and numbers."""
    if isinstance(left, Tensor):
        assert isinstance(right, Tensor)
        assert left.dtype == right.dtype
        # NaN stands for what was not seen yet, such as losses of sampler=hard: it equals itself
        torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_equal(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_equal(a, b)
    else:
        assert left == right or (left != left and right != right)
