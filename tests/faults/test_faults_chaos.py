"""Rows 1 and 46: SIGKILL at random moments of real processes, resumed each time, equal to the undisturbed run.

One run has everything at once; the others are configurations that are drawn from the catalogue, new words among them.
`DLTRAIN_KILLS=200 pytest -m slow -s tests/faults/test_faults_chaos.py` for the full number; the default is 60.
`DLTRAIN_SEED=1` draws other configurations and moments, `DLTRAIN_CONFIGURATIONS=30` more of them.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress

import pytest
from conftest import Run
from covering import Words
from faults import TIMES, equal
from test_together import DOWNLOADED, catalogue_words, overrides, write_files

from dltrain.storage.summary import FINISHED

KILLS = int(os.environ.get("DLTRAIN_KILLS", "60"))
CONFIGURATIONS, SEED = (
    int(os.environ.get(f"DLTRAIN_{name}", usual)) for name, usual in (("CONFIGURATIONS", "14"), ("SEED", "0"))
)
ARGUMENTS = (
    "dataset=image_folder", "dataset.root=photos", "dataset.resident_share=0", "workers=1", "model=cnn", "optimizer=adam",
    "schedule=plateau", "averaging=ema", "regularization=[dropout]", "augmentation=[shift,mixup]", "accumulate=2",
    "batch_size=32", "epochs=40", "early_stopping=none", "checkpoint.every_steps=5", "threads=1", "quiet=true",
    "dataset.val_fraction=0.3", "evaluation.every_steps=3", "evaluation.batch_size=6",
)  # fmt: skip
FRESH = (
    4  # one process in so many is a fresh interpreter, the others are forked from one that has imported all
)

# datasets that are downloaded, and models of which a run takes more than a few seconds
NOT_HERE = {name for names, _ in DOWNLOADED.values() for name in names} | {
    "resnet20", "resnet32", "resnet56", "wide_resnet", "vit_tiny", "speed_cnn", "torchvision", "timm",
}  # fmt: skip

# Tells in one byte what the process is doing, and in another whether it saves; the fault points live here only.
WATCHED = """
import json, os, sys
file = None
def start_of(arguments):
    global file
    file = os.open("phase", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.pwrite(file, b"b-", 0)
    sys.argv = ["dltrain", *arguments]
if "fork" not in sys.argv:
    start_of(sys.argv[1:])
import dltrain.training.trainer as t, dltrain.storage.run_folder as r
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
if "fork" not in sys.argv:
    main()
import dltrain.commands.resume, dltrain.commands.train, dltrain.data.streaming, dltrain.run.experiment, dltrain.models.cnn
import PIL.Image, hydra, safetensors.torch, torch.utils.data
dltrain.data.streaming._context = lambda: "fork"  # a fork server of its own would import torch in every process
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(2, 1)
        start_of(json.loads(line))
        main()
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Interpreter:
    """Starts every process by itself."""

    def __init__(self, workdir):
        self.errors = open(workdir / "err", "a")

    def run(self, arguments, delay=None):
        """The exit code; -9 where the process was killed after `delay` seconds."""
        process = subprocess.Popen(
            [sys.executable, "-c", WATCHED, *arguments], stdout=self.errors, stderr=self.errors
        )
        try:
            return process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def close(self):
        self.errors.close()


class Forks(Interpreter):
    """Forks every process from one that has imported torch and dltrain, and has no threads."""

    def __init__(self, workdir):
        super().__init__(workdir)
        self.process = subprocess.Popen(
            [sys.executable, "-c", WATCHED, "fork"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            bufsize=1,
        )

    def run(self, arguments, delay=None):
        self.process.stdin.write(json.dumps(arguments) + "\n")
        pid = int(self.process.stdout.readline())
        if not select.select([self.process.stdout], [], [], delay)[0]:
            with suppress(ProcessLookupError):  # it ended in this very moment
                os.kill(pid, signal.SIGKILL)
        return int(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        super().close()


def make_photos(folder):
    from PIL import Image

    for label in range(3):
        (folder / str(label)).mkdir(parents=True)
        for i in range(60):
            draw = random.Random(100 * label + i)
            pixels = bytes(min(255, 60 * label + draw.randrange(120)) for _ in range(8 * 8 * 3))
            Image.frombytes("RGB", (8, 8), pixels).save(folder / str(label) / f"{i}.png")


def scalars(run):
    """Every scalar of TensorBoard's files by tag, what a resume purges left out; without the times.

    A process that was killed between its last chart and its summary writes the values of the best weights twice.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path), size_guidance={"scalars": 0})
    events.Reload()
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return {
        tag: sorted(set(points)) if tag.startswith("best/") else points
        for tag, points in found.items()
        if tag not in TIMES
    }


def left_open(run):
    return [f for f in run.path.rglob("*") if f.name.endswith((".tmp", ".old"))]


def phase(workdir):
    """What the process that was killed was doing."""
    loop, saving = (workdir / "phase").read_bytes().decode() or "b-"  # killed before it said a word
    return "save" if saving == "s" else {"b": "start", "v": "validation"}.get(loop, "step")


def folder_of(workdir, name):
    """The run's folder, once there is something to resume in it."""
    return next((file.parent for file in workdir.glob(f"outputs/{name}/*/config.yaml")), None)


def killed(process, workdir, name, arguments, delay, phases):
    """Start or resume a run, kill it after `delay` seconds, and count what it was doing; return its exit code, -9 where it goes on."""
    folder = folder_of(workdir, name)
    (workdir / "phase").unlink(missing_ok=True)
    code = process.run(["resume", str(folder)] if folder else [*arguments, f"name={name}"], delay)
    if code != -signal.SIGKILL:
        return code
    phases[phase(workdir) if (workdir / "phase").exists() else "start"] += 1
    folder = folder_of(workdir, name)
    whole = folder is not None and (folder / "manifest.json").is_file()
    # killed on its way out
    return 0 if whole and Run(folder).summary["status"] in FINISHED else code


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_01_46_killed_at_random_and_resumed_each_time_equals_golden(workdir, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    make_photos(workdir / "photos")
    forks, interpreter = Forks(workdir), Interpreter(workdir)
    seconds = {}
    for process, name in ((forks, "first"), (interpreter, "warm"), (forks, "golden")):
        begun = time.monotonic()
        assert process.run([*ARGUMENTS, f"name={name}"]) == 0, (workdir / "err").read_text()
        seconds[process] = time.monotonic() - begun
    golden = Run(folder_of(workdir, "golden"))
    draw, phases, starts, runs = random.Random(0), Counter(), 0, 0
    while phases.total() < KILLS:
        runs += 1
        name, code = f"killed{runs}", -signal.SIGKILL
        while code == -signal.SIGKILL:
            starts += 1
            process = forks if starts % FRESH else interpreter
            # uniform over the wall time of the undisturbed run
            code = killed(process, workdir, name, ARGUMENTS, draw.uniform(0.0, seconds[process]), phases)
        assert code == 0, (workdir / "err").read_text()[-2000:]
        run = Run(folder_of(workdir, name))
        equal(run, golden)
        assert scalars(run) == scalars(golden)
        assert not left_open(run)
    print(f"{phases.total()} kills of {runs} runs: {dict(phases)}; {seconds[forks]:.1f} s undisturbed")
    forks.close()
    interpreter.close()
    if KILLS >= 200:
        assert all(phases[kind] >= 5 for kind in ("start", "step", "save", "validation")), phases


# Configurations of the catalogue ------------------------------------------------------------------------------------

SMALL = "steps=18 batch_size=16 dataset.limit=96 evaluation.every_steps=4 checkpoint.every_steps=3 threads=1 quiet=true"


def drawn(draw):
    """Yield configurations of one word for each group, of those that need neither a download nor a package."""
    words = catalogue_words()
    table = Words({group: [word for word in names if word not in NOT_HERE] for group, names in words.items()})
    while True:
        row = next(table.completions({}, set(), draw))
        yield row, overrides(row, SMALL)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_01_configurations_of_the_catalogue_killed_at_random_equal_golden(workdir, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_files(workdir)
    forks, draw, phases, tried, refused = Forks(workdir), random.Random(SEED), Counter(), 0, Counter()
    words = set()
    for number, (row, arguments) in enumerate(drawn(draw)):
        if tried == CONFIGURATIONS:
            break
        begun = time.monotonic()
        if code := forks.run([*arguments, f"name=golden{number}"]):
            # it diverges, say
            refused[code] += 1
            assert code != 1 and refused.total() < CONFIGURATIONS, (
                row,
                (workdir / "err").read_text()[-2000:],
            )
            continue
        tried += 1
        words |= set(row.items())
        seconds, golden = time.monotonic() - begun, Run(folder_of(workdir, f"golden{number}"))
        runs, before = 0, phases.total()
        while phases.total() - before < KILLS / CONFIGURATIONS:
            runs += 1
            name, code = f"killed{number}_{runs}", -signal.SIGKILL
            begun = time.monotonic()
            while code == -signal.SIGKILL:
                code = killed(forks, workdir, name, arguments, draw.uniform(0.0, seconds), phases)
            # other work may have lengthened the undisturbed run
            seconds = min(seconds, time.monotonic() - begun)
            assert code == 0, (row, (workdir / "err").read_text()[-2000:])
            run = Run(folder_of(workdir, name))
            try:
                equal(run, golden)
                assert run.summary["status"] == golden.summary["status"]
                assert not left_open(run)
            except AssertionError as error:
                raise AssertionError(f"{run.path} is another than {golden.path}: {arguments}") from error
        print(
            f"{phases.total() - before} kills, {seconds:.1f} s undisturbed: {' '.join(f'{g}={w}' for g, w in row.items())}",
            flush=True,
        )
    print(
        f"{phases.total()} kills of {tried} configurations with {len(words)} words: {dict(phases)}; not trained: {dict(refused)}"
    )
    forks.close()
