"""A real process, really killed: SIGKILL at moments spread over the run, resumed each time, equal to the last bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from conftest import Run, assert_equal, run_folders

ARGUMENTS = (
    "model=cnn", "optimizer=adam", "schedule=cosine", "averaging=ema", "regularization=[dropout]",
    "augmentation=[shift,mixup]", "epochs=6", "early_stopping=none", "checkpoint.every_steps=15", "threads=1", "quiet=true",
)  # fmt: skip


def start(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "dltrain", *map(str, arguments)], env=environment)


def killed_and_resumed(workdir, delay):
    """Start a run, kill it `delay` seconds after its first checkpoint could exist, and resume until it is done."""
    process = start(*ARGUMENTS, "name=killed")
    deadline = time.monotonic() + 60
    while not list(workdir.glob("outputs/killed/*/config.yaml")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (config,) = workdir.glob("outputs/killed/*/config.yaml")
    run = Run(config.parent)
    if not (run.path / "summary.json").exists() or run.summary["status"] == "running":
        assert start("resume", run.path).wait() == 0
    return run


def check_killed(workdir, delay):
    assert start(*ARGUMENTS, "name=golden").wait() == 0
    golden = Run(next(folder for folder in run_folders(workdir) if folder.parent.name == "golden"))
    run = killed_and_resumed(workdir, delay)
    assert_equal(run.last_state()["weights"], golden.last_state()["weights"])
    assert_equal(run.last_state()["optimizer"], golden.last_state()["optimizer"])
    assert_equal(run.best_weights, golden.best_weights)
    assert_equal(run.timeless_rows, golden.timeless_rows)
    assert run.timeless_events == golden.timeless_events


@pytest.mark.ci
def test_killed_run_ends_as_the_undisturbed_one(workdir):
    check_killed(workdir, delay=random.Random(0).uniform(0.05, 0.6))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_any_moment(workdir, seed):
    check_killed(workdir, delay=random.Random(seed).uniform(0, 1.5))
