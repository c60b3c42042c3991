"""A disk that keeps a name from the sync of its folder on, and a content from its own; kills inside of `prune`.

The order of operations is what such a disk can be trusted with: each test records them, or dies between two.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from dltrain.errors import CheckpointProblem
from dltrain.storage import checkpoint, files, run_folder


class Killed(BaseException):
    """Stands in for SIGKILL."""


class Tape:
    """Records (operation, path) of syncs, renamings, removals and writes that are renamed over another file."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.done: list[tuple[str, str]] = []
        self.synced: dict[int, bytes] = {}  # the content of each inode at its last sync
        fsync = os.fsync

        def sync(handle: int) -> None:
            fsync(handle)
            path = Path(os.readlink(f"/proc/self/fd/{handle}"))
            if path.is_file():
                self.synced[path.stat().st_ino] = path.read_bytes()
            self.done.append(("sync", path.name))

        patch.setattr(os, "fsync", sync)
        for owner, name in ((Path, "rename"), (os, "replace"), (Path, "unlink"), (shutil, "rmtree")):
            self.watch(patch, owner, name)

    def watch(self, patch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        original = getattr(owner, name)

        def recording(path, *rest, **named):
            if name in ("rename", "replace") and Path(path).is_file():
                content = Path(path).read_bytes()
                assert self.synced.get(Path(path).stat().st_ino) == content, (
                    f"{path} is renamed before its sync"
                )
            if Path(path).exists():
                self.done.append((name, Path(path).name))
            return original(path, *rest, **named)

        patch.setattr(owner, name, recording)

    def place(self, operation: str, name: str) -> int:
        return self.done.index((operation, name))

    def last(self, operation: str, name: str) -> int:
        return len(self.done) - 1 - self.done[::-1].index((operation, name))


@pytest.fixture
def tape(monkeypatch):
    return Tape(monkeypatch)


def save(parent: Path, step: int, best: int, averaged: bool = False) -> Path:
    weights = {"w": torch.full((3,), float(step))}
    facts = {"best_step": best, "best": {"val/loss": 1.0}}
    return checkpoint.save(parent, step, {"step": step}, weights, weights if averaged else None, facts)


@pytest.mark.parametrize("again", [False, True], ids=["new", "over another of this step"])
def test_checkpoint_is_named_when_all_of_it_is_on_the_disk(tmp_path, tape, again):
    parent = tmp_path / "checkpoints"
    parent.mkdir()
    if again:
        save(parent, 4, 4)
        tape.done.clear()
    save(parent, 4, 4, averaged=True)
    beside = f".step-00000004.{os.getpid()}.tmp"
    renamed = tape.last("rename", beside)
    for file in ("state.pt", "weights.safetensors", "averaged.safetensors", "manifest.json", beside):
        assert tape.last("sync", file) < renamed
    named = tape.last("sync", "checkpoints")
    assert renamed < named
    if again:  # the former one is removed when the new name is on the disk
        former = f".step-00000004.{os.getpid()}.old"
        assert tape.place("rename", "step-00000004") < renamed
        assert named < tape.place("rmtree", former)


def test_older_ones_are_removed_after_the_newer_is_on_the_disk(tmp_path, tape):
    folder = run_folder.RunFolder(tmp_path, 1, {})
    for step in (1, 2):
        folder.save_checkpoint(step, {"best_row": {"step": step}}, {"w": torch.ones(2)}, None)
    folder.close()
    gone = f".step-00000001.{os.getpid()}.tmp"
    assert (
        tape.last("sync", "checkpoints") < tape.place("rename", "step-00000001") < tape.place("rmtree", gone)
    )


def test_half_written_files_of_a_killed_process_are_removed_from_each_folder_of_a_run(tmp_path):
    """Not through a link, as a folder of somebody else may hold, and not those of tags, which have a lock of their own."""
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    left = [
        run / ".summary.json.1a.tmp",
        run / "checkpoints" / ".best.safetensors.tmp",
        run / ".hydra" / ".config.yaml.1a.tmp",
    ]
    kept = [run / ".tags.json.1a.tmp", elsewhere / ".mine.tmp"]
    for file in (*left, *kept):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("half")
    run_folder.RunFolder(run, 2, {}).close()
    assert [file for file in (*left, *kept) if file.exists()] == kept
    (run / ".hydra").rmdir()
    (run / ".hydra").symlink_to(elsewhere)
    run_folder.RunFolder(run, 2, {}).close()
    assert all(file.exists() for file in kept)


def test_rows_and_summary_are_on_the_disk_before_the_checkpoint(tmp_path, tape):
    folder = run_folder.RunFolder(tmp_path, 2, {})
    folder.append_row({"epoch": 1.0, "step": 3.0})
    folder.write_summary({"status": "running"})
    folder.save_checkpoint(3, {"best_row": {}}, {"w": torch.ones(2)}, None)
    folder.close()
    renamed = tape.place("rename", f".step-00000003.{os.getpid()}.tmp")
    for file in ("metrics.csv", "summary.json", tmp_path.name):
        assert tape.place("sync", file) < renamed
    assert tape.synced[(tmp_path / "metrics.csv").stat().st_ino] == b"epoch,step\n1,3\n"


def test_records_are_synced_again_only_if_they_changed(tmp_path, tape):
    folder = run_folder.RunFolder(tmp_path, 2, {})
    folder.write_summary({"status": "running"})
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    for step in (1, 2):
        folder.append_row({"epoch": 1.0, "step": float(step)})
        tape.done.clear()
        folder.save_checkpoint(step, {"best_row": {}}, {"w": torch.ones(2)}, None)
        synced = {name for operation, name in tape.done if operation == "sync"}
        assert ("mine.txt" in synced, "metrics.csv" in synced) == (step == 1, True)
    folder.close()


@pytest.mark.parametrize(
    "write",
    [
        lambda file: files.replace(file, b"new"),
        lambda file: checkpoint.write_safetensors(file, {"w": torch.ones(2)}),
    ],
    ids=["replace", "write_safetensors"],
)
def test_replaced_file_is_the_former_or_the_new_one(tmp_path, monkeypatch, write):
    """Dying at the sync or at the renaming leaves the former content; the tape checks that the new one was synced."""
    file = tmp_path / "file"
    for owner, name in ((os, "fsync"), (os, "replace")):
        file.write_bytes(b"former")
        with monkeypatch.context() as patch:

            def die(*_: object) -> None:
                raise Killed

            patch.setattr(owner, name, die)
            with pytest.raises(Killed):
                write(file)
        assert file.read_bytes() == b"former"
    Tape(monkeypatch)
    write(file)
    assert file.read_bytes() != b"former"
    files.clear_temporary(tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


# Kills inside of prune ----------------------------------------------------------------------------------------------

STEPS = {10: 10, 20: 20, 30: 20, 40: 20, 50: 20}  # step: the best one by then


def five(parent: Path) -> None:
    parent.mkdir()
    for step, best in STEPS.items():
        save(parent, step, best)


def kept(parent: Path) -> list[int]:
    return sorted(int(folder.name[5:]) for folder in checkpoint.folders(parent))


def test_prune_keeps_the_newest_and_the_best_of_each(tmp_path):
    five(tmp_path / "checkpoints")
    checkpoint.prune(tmp_path / "checkpoints", 2)
    assert kept(tmp_path / "checkpoints") == [20, 40, 50]
    checkpoint.prune(tmp_path / "checkpoints", 1)
    assert kept(tmp_path / "checkpoints") == [20, 50]


@pytest.mark.parametrize("removals", range(8))
def test_kill_inside_of_prune_leaves_no_half(tmp_path, monkeypatch, removals):
    """Files vanish one by one, in the order of the folder; the process dies after so many of them."""
    parent = tmp_path / "checkpoints"
    five(parent)
    before = {step: digest(parent, step) for step in STEPS}
    done = 0
    unlink = Path.unlink

    def count() -> None:
        nonlocal done
        if done == removals:
            raise Killed
        done += 1

    def unlinking(self, missing_ok=False):
        count()
        unlink(self, missing_ok)

    def removing(folder, ignore_errors=False):
        for file in sorted(Path(folder).iterdir(), key=lambda f: f.name != "weights.safetensors"):
            count()
            os.remove(file)
        count()
        os.rmdir(folder)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlinking)
        patch.setattr(shutil, "rmtree", removing)
        try:
            checkpoint.prune(parent, 2)
        except Killed:
            pass
        else:
            assert removals >= 7, "the prune was over before the kill"
    checkpoint.clear_unfinished(parent)
    assert [checkpoint.verified(folder) for folder in parent.iterdir()]
    # the newest are as they were, and damage to them finds an older one or is refused; half of one is never taken
    for step in (20, 40, 50):
        assert digest(parent, step) == before[step]
    assert checkpoint.newest(parent).manifest["step"] == 50
    for step in (50, 40, 20):
        with open(parent / f"step-{step:08d}" / "state.pt", "ab") as stream:
            stream.write(b"damage")
        try:
            found = checkpoint.newest(parent)
        except CheckpointProblem:
            continue
        assert found is not None and digest(parent, found.manifest["step"]) == before[found.manifest["step"]]


def test_prune_goes_on_after_a_kill(tmp_path, monkeypatch):
    parent = tmp_path / "checkpoints"
    five(parent)
    with monkeypatch.context() as patch:

        def die(*_: object, **__: object) -> None:
            raise Killed

        patch.setattr(shutil, "rmtree", die)
        with pytest.raises(Killed):
            checkpoint.prune(parent, 2)
    checkpoint.prune(parent, 2)
    assert kept(parent) == [20, 40, 50]


def test_prune_beside_a_damaged_one_removes_nothing(tmp_path):
    """What a damaged one needs is not known: its best may be any."""
    parent = tmp_path / "checkpoints"
    five(parent)
    (parent / "step-00000050" / "manifest.json").write_text("{")
    checkpoint.prune(parent, 2)
    assert kept(parent) == [*STEPS]


def digest(parent: Path, step: int) -> dict[str, bytes]:
    folder = parent / f"step-{step:08d}"
    return {file.name: file.read_bytes() for file in folder.iterdir()}
