"""Rows 1 and 46: SIGKILL at random moments of real processes, resumed each time, equal to the undisturbed run.

`DLTRAIN_KILLS=200 pytest -m slow tests/faults/test_faults_chaos.py` for the full number; the default is 60.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from conftest import Run
from faults import equal

KILLS = int(os.environ.get("DLTRAIN_KILLS", "60"))
ARGUMENTS = (
    "dataset=image_folder", "dataset.root=photos", "dataset.resident_share=0", "workers=1", "model=cnn", "optimizer=adam",
    "schedule=plateau", "averaging=ema", "regularization=[dropout]", "augmentation=[shift,mixup]", "accumulate=2",
    "batch_size=32", "epochs=40", "early_stopping=none", "checkpoint.every_steps=5", "threads=1", "quiet=true",
)  # fmt: skip

# Tells in one byte what the process is doing, and in another whether it saves; the fault points live here only.
WATCHED = """
import os, sys
file = os.open(sys.argv.pop(1), os.O_RDWR | os.O_CREAT)
os.pwrite(file, b"b-", 0)
import dltrain.training.trainer as t, dltrain.training.run_folder as r
def marked(owner, name, at, byte, after):
    original = getattr(owner, name)
    def marking(*arguments):
        os.pwrite(file, byte, at)
        try:
            return original(*arguments)
        finally:
            os.pwrite(file, after, at)
    setattr(owner, name, marking)
marked(t.Trainer, "train_epoch", 0, b"t", b"e")
marked(t.Trainer, "validate", 0, b"v", b"t")
marked(r.RunFolder, "_save", 1, b"s", b"-")
from dltrain.cli import main
main()
"""


def make_photos(folder):
    from PIL import Image

    for label in range(3):
        (folder / str(label)).mkdir(parents=True)
        for i in range(60):
            draw = random.Random(100 * label + i)
            pixels = bytes(min(255, 60 * label + draw.randrange(120)) for _ in range(8 * 8 * 3))
            Image.frombytes("RGB", (8, 8), pixels).save(folder / str(label) / f"{i}.png")


def start(workdir, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WATCHED, str(workdir / "phase"), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stderr=open(workdir / "err", "a"))


def scalars(run):
    """Every scalar of TensorBoard's files by tag, what a resume purges left out; without the times."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    tags = [
        t
        for t in events.Tags()["scalars"]
        if t not in ("seconds", "images_per_second") and not t.startswith("best/")
    ]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


def left_open(run):
    return [f for f in run.path.rglob("*") if f.name.endswith((".tmp", ".old"))]


def killed_after(workdir, process, delay):
    """The phase in which the process was killed, or None where it was done before."""
    try:
        process.wait(delay)
        return None
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return (workdir / "phase").read_bytes().decode() if (workdir / "phase").exists() else "b-"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_01_46_killed_at_random_and_resumed_each_time_equals_golden(workdir):
    make_photos(workdir / "photos")
    begun = time.monotonic()
    assert start(workdir, *ARGUMENTS, "name=golden").wait() == 0
    whole = time.monotonic() - begun
    golden = Run(next(workdir.glob("outputs/golden/*")))
    draw, phases, runs = random.Random(0), Counter(), 0
    while phases.total() < KILLS:
        runs += 1
        name = f"killed{runs}"
        folders: list = []
        while True:
            arguments = ["resume", folders[0]] if folders else [*ARGUMENTS, f"name={name}"]
            (workdir / "phase").unlink(missing_ok=True)
            process = start(workdir, *arguments)
            # uniform over the wall time; once in three, aimed at where the training is
            delay = draw.uniform(0.0, whole) if draw.random() < 0.6 else draw.uniform(0.75, 1.0) * whole
            phase = killed_after(workdir, process, delay)
            folders = [file.parent for file in workdir.glob(f"outputs/{name}/*/config.yaml")]
            if phase is None:
                assert process.returncode == 0, (workdir / "err").read_text()[-2000:]
                break
            kind = "save" if phase[1] == "s" else {"b": "start", "v": "validation"}.get(phase[0], "step")
            phases[kind] += 1
            if (
                folders
                and (folders[0] / "summary.json").is_file()
                and Run(folders[0]).summary["status"] == "completed"
            ):
                break  # killed on its way out
        run = Run(folders[0])
        equal(run, golden)
        assert scalars(run) == scalars(golden)
        assert not left_open(run)
    print(f"{phases.total()} kills of {runs} runs: {dict(phases)}")
    if KILLS >= 200:
        assert all(phases[kind] >= 5 for kind in ("start", "step", "save", "validation")), phases
