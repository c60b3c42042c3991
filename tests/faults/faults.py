"""What the fault tests share: short runs that are cut at a step, and their comparison with the undisturbed run."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run, assert_equal

from dltrain.cli import dispatch
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

    def observe(self: Trainer, update_norm: list) -> None:
        if self.step == step:
            action(self)
        original(self, update_norm)

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


def only_run(workdir: Path, name: str) -> Run:
    (config,) = workdir.glob(f"outputs/{name}/*/config.yaml")
    return Run(config.parent)


def golden_run(workdir: Path, *arguments: str) -> Run:
    assert dispatch([*arguments, "name=golden"]) == 0
    return only_run(workdir, "golden")


def copy_of(run: Run, to: Path) -> Run:
    shutil.copytree(run.path, to)
    return Run(to)


def equal(run: Run, golden: Run) -> None:
    """Final weights, optimizer, best weights, metrics and test scores, to the last bit."""
    assert_equal(run.last_state()["weights"], golden.last_state()["weights"])
    assert_equal(run.last_state()["optimizer"], golden.last_state()["optimizer"])
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
