"""Checkpoints that somebody else made: tensors of other shapes, files that no hash names, folders put aside; and threads that cannot start."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path
from threading import Thread

import pytest
import torch
from conftest import Run
from faults import at_step, checkpoints, copy_of, edit_manifest, everything
from safetensors.torch import load_file, save_file
from torch import Tensor

from dltrain.errors import CheckpointProblem, FindingsFailure, ResourceProblem
from dltrain.storage import checkpoint
from dltrain.storage.tensors import is_dense


@pytest.fixture
def cut(workdir):
    return copy_of(everything()[1], workdir / "run")


def rehash(folder: Path) -> None:
    sha256 = json.loads((folder / "manifest.json").read_text())["sha256"]
    edit_manifest(
        folder, sha256={name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sha256}
    )


def forge(run: Run, change) -> None:
    """Change the state of every checkpoint, and its hash with it."""
    for folder in checkpoints(run):
        state = torch.load(folder / "state.pt", weights_only=True)
        change(state)
        torch.save(state, folder / "state.pt")
        rehash(folder)


def moments(make):
    def change(state: dict) -> None:
        for values in state["optimizer"]["state"].values():
            values["exp_avg"] = make(values["exp_avg"])

    return change


def steps(state: dict) -> None:
    for values in state["optimizer"]["state"].values():
        values["step"] = torch.zeros(7)


def average(state: dict) -> None:
    state["averaging"]["average"] = [torch.zeros(1) for _ in state["averaging"]["average"]]


def sums(state: dict) -> None:
    state["sums"] = torch.zeros(1, dtype=state["sums"].dtype)


FORGED = {
    "moments of one number": (moments(lambda t: torch.zeros(1)), r"`exp_avg` of an optimizer has shape \[1\]"),
    "moments without a number": (moments(lambda t: torch.zeros(0)), r"`exp_avg` of an optimizer has shape \[0\]"),
    "one number that seems many": (moments(lambda t: torch.zeros(1).expand(t.shape)), "share their memory"),
    "one number that seems billions": (moments(lambda t: torch.zeros(1).expand(3 * 10**9)), "share their memory"),
    "more numbers than the memory has between": (moments(lambda t: torch.zeros(2 * t.numel())[::2].view(t.shape)), "share"),
    "seven counts of steps": (steps, "the count of steps has 7 numbers"),
    "averages of one number": (average, r"state.averaging.average.0 has shape \[1\]"),
    "sums of one number": (sums, r"state.sums has shape \[1\]"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_tensors_of_another_shape_are_refused(dltrain, cut, name):
    """The fused kernels write as many numbers as the parameter has; the averages would be filled with one number."""
    change, says = FORGED[name]
    forge(cut, change)
    with pytest.raises(CheckpointProblem, match=says):
        dltrain("resume", cut.path)


def test_the_order_of_axes_in_memory_is_kept():
    image = torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last)
    for good in (image, torch.zeros(3, 4).t(), torch.zeros(()), torch.zeros(0, 3), torch.zeros(1, 5)):
        assert is_dense(good)
    for bad in (
        image[:, :1],
        torch.zeros(3, 4)[:, ::2],
        torch.zeros(1).expand(4),
        torch.zeros(4).as_strided((3, 2), (1, 1)),
    ):
        assert not is_dense(bad)


def zeros(folder: Path) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(tensor) for name, tensor in load_file(folder / "weights.safetensors").items()
    }


def test_a_file_that_no_hash_names_is_not_read_and_found(dltrain, workdir, train, capsys):
    plain = train("steps=20", "evaluation.every_steps=10", "evaluation.every_epochs=null", "name=plain")
    for folder in checkpoints(plain):
        save_file(zeros(folder), folder / "averaged.safetensors")
    best = checkpoint.newest(plain.path / "checkpoints").weights(averaged=True)
    assert all(tensor.any() for tensor in best.values())
    with pytest.raises(FindingsFailure):
        dltrain("verify", plain.path)
    assert "averaged.safetensors: a file that its manifest does not name" in capsys.readouterr().out


def test_a_checkpoint_that_was_put_aside_is_verified(dltrain, cut, capsys):
    """One of a step that the run never had, with hashes of its own: `resume` would begin there."""
    newest = checkpoints(cut)[0]
    assert dltrain("verify", cut.path) == 0
    planted = newest.with_name(".step-00000045.7.old")
    shutil.copytree(newest, planted)
    state = torch.load(planted / "state.pt", weights_only=True) | {"step": 45}
    torch.save(state, planted / "state.pt")
    save_file(zeros(newest), planted / "weights.safetensors")
    edit_manifest(planted, step=45)
    rehash(planted)
    capsys.readouterr()
    with pytest.raises(FindingsFailure):
        dltrain("verify", cut.path)
    assert "no event says that it was saved" in capsys.readouterr().out
    (planted / "weights.safetensors").write_bytes(b"")
    with pytest.raises(FindingsFailure):
        dltrain("verify", cut.path)
    assert "is damaged (its SHA-256" in capsys.readouterr().out


def test_a_link_in_the_place_of_one_put_aside_is_not_followed(cut, tmp_path):
    other = copy_of(cut, tmp_path / "other")
    link = cut.path / "checkpoints" / ".step-00000099.7.old"
    link.symlink_to(checkpoints(other)[0])
    checkpoint.clear_unfinished(cut.path / "checkpoints")
    assert not (cut.path / "checkpoints" / "step-00000099").exists()
    assert checkpoints(other)


BRIEF = ("steps=12", "evaluation.every_steps=4", "evaluation.every_epochs=null", "quiet=true", "name=brief")


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError(), TypeError("odd")])
def test_whatever_ends_the_saving_is_told(dltrain, workdir, monkeypatch, error):
    """In a thread, an error that nobody takes would leave a run that is complete and has no checkpoint."""

    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(checkpoint, "_write_files", fail)
    with pytest.raises(ResourceProblem, match="A checkpoint could not be written to .*checkpoints"):
        dltrain(*BRIEF)
    (run,) = (workdir / "outputs" / "brief").iterdir()
    assert list((run / "checkpoints").glob(".*")) == [], "nothing half-written is left"


def test_a_thread_that_cannot_start_is_no_traceback(dltrain, workdir, monkeypatch):
    original = Thread.start

    def start(self: Thread) -> None:
        if getattr(self, "_target", None).__name__ == "_save":
            raise RuntimeError("can't start new thread")
        original(self)

    monkeypatch.setattr(Thread, "start", start)
    with pytest.raises(ResourceProblem, match="could not be written .*can't start new thread"):
        dltrain(*BRIEF, "checkpoint.background=true")
    monkeypatch.undo()
    (run,) = (workdir / "outputs" / "brief").iterdir()
    assert dltrain("resume", run) == 0


def test_a_signal_does_not_say_saved_where_nothing_was(dltrain, workdir, monkeypatch, capsys):
    def fail(*arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    def interrupt(trainer) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    at_step(monkeypatch, 5, interrupt)
    monkeypatch.setattr(checkpoint, "_write_files", fail)
    with pytest.raises(ResourceProblem, match="A checkpoint could not be written"):
        dltrain(*BRIEF, "evaluation.every_steps=100")


def test_a_run_below_a_path_that_is_no_utf8(dltrain, workdir, monkeypatch, capsys):
    """The library of safetensors takes paths as text; the run is whole all the same."""
    odd = os.fsdecode(b"a\xffb")
    try:
        os.mkdir(odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    monkeypatch.chdir(odd)
    assert dltrain("epochs=1", "name=x", "quiet=true", "averaging=ema") == 0
    (run,) = Path("outputs/x").iterdir()
    assert dltrain("verify", run) == 0
    assert dltrain("evaluate", run, "evaluation.bootstrap=0") == 0
    assert dltrain("resume", run, "epochs=2") == 0


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(cut, monkeypatch):
    def denied(*arguments: object, **keys: object) -> str:
        raise PermissionError(13, "Permission denied", "manifest.json")

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(PermissionError):
        checkpoint.newest(cut.path / "checkpoints")
