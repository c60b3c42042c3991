"""What the fault tests share: short runs that are cut at a step, and their comparison with the undisturbed run."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run, assert_equal

from dltrain.cli import dispatch
from dltrain.storage import checkpoint, files
from dltrain.training.trainer import Trainer

# dropout, mixup, EMA, plateau and accumulation together
EVERYTHING = (
    "optimizer=adam", "schedule=plateau", "averaging=ema", "regularization=[l2,dropout]", "augmentation=[shift,mixup]",
    "accumulate=2", "steps=60", "checkpoint.every_steps=10", "early_stopping=none", "quiet=true",
)  # fmt: skip


class Killed(BaseException):
    """Stands in for SIGKILL: nothing of the product catches it and goes on."""


def at_step(patch: pytest.MonkeyPatch, step: int, action: Callable[[Trainer], None]) -> None:
    """Do something in the loop right after a step, before anything of it is logged or saved."""
    original = Trainer.observe

    def observe(self: Trainer) -> None:
        if self.step == step:
            action(self)
        original(self)

    patch.setattr(Trainer, "observe", observe)


def die(trainer: Trainer) -> None:
    raise Killed


def cut_run(workdir: Path, step: int, *arguments: str, name: str = "cut") -> Run:
    """A run that died after a step."""
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, step, die)
        with pytest.raises(Killed):
            dispatch([*arguments, f"name={name}"])
    return only_run(workdir, name)


@functools.cache
def everything() -> tuple[Run, Run]:
    """EVERYTHING undisturbed, and EVERYTHING dead at step 47: trained once for all tests, which copy the second."""
    folder, before = Path(tempfile.mkdtemp(prefix="dltrain-faults-")), os.getcwd()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.chdir(folder)
    try:
        return golden_run(folder, *EVERYTHING), cut_run(folder, 47, *EVERYTHING)
    finally:
        os.chdir(before)


@functools.cache
def swept() -> Run:
    """A sweep of two short jobs, run once for all tests, which copy its folder."""
    folder, before = Path(tempfile.mkdtemp(prefix="dltrain-faults-")), os.getcwd()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.chdir(folder)
    try:
        arguments = [
            "lr=0.01,0.001",
            "epochs=1",
            "threads=1",
            "name=swept",
            "quiet=true",
            "sweep.backend=local",
        ]
        assert dispatch(["-m", *arguments]) == 0
        (record,) = folder.glob("outputs/swept/*/sweep.json")
        return Run(record.parent)
    finally:
        os.chdir(before)


def only_run(workdir: Path, name: str) -> Run:
    (config,) = workdir.glob(f"outputs/{name}/*/config.yaml")
    return Run(config.parent)


def golden_run(workdir: Path, *arguments: str) -> Run:
    assert dispatch([*arguments, "name=golden"]) == 0
    return only_run(workdir, "golden")


def copy_of(run: Run, to: Path) -> Run:
    shutil.copytree(run.path, to)
    return Run(to)


TIMES = ("seconds", "images_per_second")


def timeless(value: object) -> object:
    """Nested plain data without what no two runs share."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    return value


def equal(run: Run, golden: Run) -> None:
    """Final weights, averages, all of the state, best weights, metrics and test scores, to the last bit."""
    assert_equal(timeless(run.last_state()), timeless(golden.last_state()))
    assert_equal(run.best_weights, golden.best_weights)
    assert_equal(run.timeless_rows, golden.timeless_rows)
    assert run.summary["test"] == golden.summary["test"]


def checkpoints(run: Run) -> list[Path]:
    """The newest first."""
    return sorted((run.path / "checkpoints").glob("step-*"), reverse=True)


def edit_manifest(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


def flip_byte(file: Path, position: int = -100) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def tree(path: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes, the log aside (it says what was found)."""
    return {str(f): f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file() and f.name != "run.log"}


class Disk:
    """A model of a disk whose plug is pulled: names are there at once, the content of a file from its sync on.

    What was appended since is lost, and all of a file that was written anew.
    """

    def __init__(self, patch, pictures):
        self.pictures, self.lock = pictures, threading.Lock()
        self.synced: dict[int, bytes] = {}  # what each inode held when it was synced
        self.run, self.whole = None, 0
        self.promised: dict[Path, int] = {}  # the step that each picture must be able to go on from
        self.watch(patch, files, "sync", self.mark)
        for owner, name in ((Path, "rename"), (Path, "unlink"), (os, "rmdir"), (os, "replace")):
            self.watch(patch, owner, name)
        self.watch(patch, checkpoint, "save", self.done)

    def watch(self, patch, owner, name, note=lambda *a: None):
        original = getattr(owner, name)

        def watching(*arguments, **options):
            answer = original(*arguments, **options)
            note(*arguments)
            self.take()
            return answer

        patch.setattr(owner, name, watching)

    def mark(self, path):
        if path.is_file():
            self.synced[path.stat().st_ino] = path.read_bytes()

    def done(self, parent, step, *rest):
        self.run, self.whole = parent.parent, step

    def kept(self, file):
        synced = self.synced.get(file.stat().st_ino, b"")
        return synced if file.read_bytes().startswith(synced) else b""

    def take(self):
        """What would be left if the plug was pulled now."""
        if self.whole == 0 or not self.lock.acquire(blocking=False):  # no picture of the taking of a picture
            return
        picture = self.pictures / str(len(self.promised))
        for file in [f for f in self.run.rglob("*") if f.is_file()]:
            copy = picture / file.relative_to(self.run)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(self.kept(file))
        self.promised[picture] = self.whole
        self.lock.release()
