"""Rows 2, 3, 10, 12 to 18, 31, 33, 35 and 45: what lies on the disk, and every refusal of `resume`."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Run
from faults import (
    EVERYTHING,
    Disk,
    Killed,
    at_step,
    checkpoints,
    copy_of,
    cut_run,
    die,
    edit_manifest,
    equal,
    everything,
    flip_byte,
    golden_run,
    only_run,
    tree,
)

from dltrain.cli import dispatch
from dltrain.errors import CheckpointProblem, DataProblem, FolderInUse, ResourceProblem, UserError
from dltrain.storage import checkpoint, files
from dltrain.storage.folder_names import new_folder
from dltrain.storage.lock import Lock
from dltrain.storage.summary import read_rows

FIXTURE = Path(__file__).parents[1] / "fixtures" / "format-1"


@pytest.fixture(autouse=True, scope="module")
def _trained_before_a_test_patches_anything() -> None:
    everything()


@pytest.fixture
def golden():
    return everything()[0]


@pytest.fixture
def cut(workdir):
    return copy_of(everything()[1], workdir / "run")


# 2, 3, 10: kills and refusals inside of a save --------------------------------------------------------------------

MOMENTS = (
    "write_hashed 1",
    "write_hashed 2",
    "write_hashed 3",
    "sync 1",
    "sync 5",
    "verified 1",
    "_replace 1",
    "prune 1",
)


BY_DEFAULT = ("write_hashed 2", "_replace 1", "prune 1")


@pytest.mark.parametrize(
    "moment", [m if m in BY_DEFAULT else pytest.param(m, marks=pytest.mark.ci) for m in MOMENTS]
)
def test_02_03_kill_inside_of_a_save(dltrain, workdir, golden, moment):
    """Before every stage of the third save: each file, the verification, the renaming, the pruning of older ones."""
    moment, call = moment.split()
    owner = files if moment == "sync" else checkpoint
    original, calls, saves = getattr(owner, moment), [], []
    with pytest.MonkeyPatch.context() as patch:
        save = checkpoint.save
        patch.setattr(checkpoint, "save", lambda *a: (saves.append(1), save(*a))[1])

        def dying(*arguments):
            if len(saves) == 3:
                calls.append(1)
                if len(calls) == int(call):
                    raise Killed
            return original(*arguments)

        patch.setattr(owner, moment, dying)
        with pytest.raises(Killed):
            dltrain(*EVERYTHING, "checkpoint.background=false", "name=cut")
    run = only_run(workdir, "cut")
    dltrain("resume", run.path)
    equal(run, golden)
    assert not list((run.path / "checkpoints").glob(".step-*"))


def test_03_folders_without_manifest_or_of_others_are_ignored_and_kept(dltrain, cut, golden, caplog):
    unfinished = cut.path / "checkpoints" / "step-00000045"
    shutil.copytree(checkpoints(cut)[0], unfinished)
    (unfinished / "manifest.json").unlink()
    others = [cut.path / "checkpoints" / name for name in ("step-one", "mine", "step-00000099.bak")]
    for folder in others:
        folder.mkdir()
        (folder / "precious").write_text("x")
    dltrain("resume", cut.path)
    assert "has no readable manifest" in caplog.text
    assert all((folder / "precious").is_file() for folder in others)
    equal(cut, golden)


@pytest.mark.parametrize("code", [errno.EDQUOT, errno.ENOSPC, errno.EIO])
def test_10_quota_while_replacing_leaves_the_newest_complete(dltrain, workdir, golden, code):
    original = checkpoint._replace

    def refusing(beside, final):
        if final.name == "step-00000030":
            raise OSError(code, os.strerror(code), str(final))
        original(beside, final)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_replace", refusing)
        with pytest.raises(
            ResourceProblem, match=r"could not be written to .*step-00000030 \(.*\n.*dltrain resume"
        ):
            dltrain(*EVERYTHING, "name=cut")
    run = only_run(workdir, "cut")
    assert run.summary["status"] == "failed"
    assert checkpoint.newest(run.path / "checkpoints").manifest["step"] < 30
    dltrain("resume", run.path)
    equal(run, golden)


@pytest.mark.ci
def test_plug_pulled_at_any_moment_costs_the_time_since_the_last_checkpoint(dltrain, workdir, golden):
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, workdir / "plug")
        dltrain(*EVERYTHING, "checkpoint.background=false", "name=pulled")
    # one for each sync, renaming and removal; those that happen at the same time have one picture
    assert len(disk.promised) > 30
    for picture, step in disk.promised.items():
        assert checkpoint.newest(picture / "checkpoints").manifest["step"] >= step
    for share in (0, 0.3, 0.6, 0.9):
        picture = list(disk.promised)[int(share * len(disk.promised))]
        dltrain("resume", picture)
        equal(Run(picture), golden)


# 12 to 15: damage -------------------------------------------------------------------------------------------------


def truncated(share):
    return lambda folder: os.truncate(folder / "state.pt", int((folder / "state.pt").stat().st_size * share))


DAMAGE = {
    "12 truncated to 0 %": truncated(0),
    "12 truncated to 10 %": truncated(0.1),
    "12 truncated to 50 %": truncated(0.5),
    "12 truncated to 99.9 %": truncated(0.999),
    "12 a file is gone": lambda folder: (folder / "weights.safetensors").unlink(),
    "13 a bit flipped in the state": lambda folder: flip_byte(folder / "state.pt", 2000),
    "13 a bit flipped in a weight": lambda folder: flip_byte(folder / "weights.safetensors"),
    "13 a bit flipped in an average": lambda folder: (
        flip_byte(folder / "averaged.safetensors")
        if (folder / "averaged.safetensors").exists()
        else flip_byte(folder / "weights.safetensors")
    ),
    "14 manifest missing": lambda folder: (folder / "manifest.json").unlink(),
    "14 manifest cut": lambda folder: os.truncate(folder / "manifest.json", 40),
    "14 manifest not JSON": lambda folder: (folder / "manifest.json").write_text("{]"),
    "14 manifest a list": lambda folder: (folder / "manifest.json").write_text("[]"),
    "14 manifest deep": lambda folder: (folder / "manifest.json").write_text("[" * 100_000),
    "14 manifest of another step": lambda folder: edit_manifest(folder, step=7),
    "14 manifest without hashes": lambda folder: edit_manifest(folder, sha256={}),
    "14 hash edited": lambda folder: edit_manifest(
        folder, sha256={"weights.safetensors": "0" * 64, "state.pt": "0" * 64}
    ),
    "14 best step is text": lambda folder: edit_manifest(folder, best_step="one"),
    "14 format is text": lambda folder: edit_manifest(folder, format="one"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_12_13_14_damaged_newest_is_stepped_over(dltrain, cut, golden, caplog, damage):
    damage(checkpoints(cut)[0])
    with pytest.raises(CheckpointProblem, match=r"(damaged|manifest).*\nLeave out strict=true"):
        dltrain("resume", cut.path, "strict=true")
    assert dltrain("resume", cut.path) == 0
    assert "looking for an older one" in caplog.text
    equal(cut, golden)


@pytest.mark.parametrize("strict", ["strict=false", "strict=true"])
def test_14_newer_format_is_refused_and_not_stepped_over(dltrain, cut, strict):
    edit_manifest(checkpoints(cut)[0], format=2)
    before = tree(cut.path)
    with pytest.raises(
        CheckpointProblem, match="has format 2, and this dltrain knows up to 1: use a newer dltrain"
    ):
        dltrain("resume", cut.path, strict)
    assert tree(cut.path) == before


def test_15_all_bad_is_refused_and_nothing_is_overwritten(dltrain, cut):
    for folder in checkpoints(cut):
        flip_byte(folder / "state.pt", 2000)
    before = tree(cut.path)
    with pytest.raises(CheckpointProblem, match="No usable checkpoint in") as refused:
        dltrain("resume", cut.path)
    assert refused.value.exit_code == 4
    assert tree(cut.path) == before


def test_damaged_best_weights_are_not_lost_in_silence(dltrain, cut):
    best = json.loads((checkpoints(cut)[0] / "manifest.json").read_text())["best_step"]
    for folder in checkpoints(cut):
        if folder.name == f"step-{best:08d}" or int(folder.name[5:]) < best:
            flip_byte(folder / "weights.safetensors")
    with pytest.raises(CheckpointProblem, match="No usable checkpoint"):
        dltrain("resume", cut.path)


# 16, 33 and the bad input: refusals of resume -------------------------------------------------------------


def refused(dltrain, error, code, match, *arguments):
    with pytest.raises(error, match=match) as caught:
        dltrain("resume", *arguments)
    assert caught.value.exit_code == code
    assert len(str(caught.value).splitlines()) <= 3


def test_resume_of_what_is_not_a_run(dltrain, workdir):
    (workdir / "empty").mkdir()
    refused(dltrain, CheckpointProblem, 4, "missing is no folder", "missing")
    refused(dltrain, CheckpointProblem, 4, "empty is not a run folder: it has no config.yaml", "empty")
    refused(dltrain, UserError, 2, "Name one run folder")


def test_resume_of_a_finished_run(dltrain, golden, workdir):
    run = copy_of(golden, workdir / "run")
    before = tree(run.path)
    refused(dltrain, CheckpointProblem, 4, r"is finished \(completed\).*dltrain rerun", run.path)
    assert tree(run.path) == before


def test_16_resume_of_an_edited_config_lists_the_differences(dltrain, cut):
    file = cut.path / "config.yaml"
    file.write_text(file.read_text().replace("batch_size: null", "batch_size: 32", 1))
    refused(
        dltrain, CheckpointProblem, 4, r"checkpoints were not made with: batch_size: None → 32\n", cut.path
    )


def test_16_resume_with_other_data(dltrain, cut):
    for folder in checkpoints(cut):
        edit_manifest(folder, fingerprint="another")
    refused(dltrain, DataProblem, 3, "the data are not those that the run was trained on", cut.path)


def test_16_resume_with_other_data_in_the_same_file(dltrain, workdir):
    """One target of one sample is another: the fingerprint in the manifest is not that of the file any more."""
    import numpy as np

    inputs, targets = np.random.default_rng(0).random((120, 4)), np.arange(120) % 3
    np.savez(workdir / "a.npz", inputs=inputs, targets=targets)
    run = cut_run(workdir, 5, "dataset=npz", "dataset.path=a.npz", "checkpoint.every_steps=2", "quiet=true")
    targets[7] = (targets[7] + 1) % 3
    np.savez(workdir / "a.npz", inputs=inputs, targets=targets)
    refused(dltrain, DataProblem, 3, "the data are not those that the run was trained on", run.path)
    np.savez(workdir / "a.npz", inputs=inputs[:, :3], targets=targets)
    refused(dltrain, DataProblem, 3, "put the data of the run back", run.path)


@pytest.mark.parametrize(
    "change", ["lr=0.1", "model.hidden=[8]", "evaluation.every_epochs=2", "device=cpu", "threads=2"]
)
def test_16_unsafe_change_is_refused_with_the_safe_ones(dltrain, cut, change):
    refused(
        dltrain, UserError, 2, f"`{change.split('=')[0]}` cannot change in a resumed run", cut.path, change
    )


@pytest.mark.parametrize(
    "change",
    [
        "log.every_steps=5",
        "checkpoint.every_steps=7",
        "workers=0",
        "notes=again",
        "checkpoint.background=false",
    ],
)
def test_16_33_safe_change_keeps_the_result(dltrain, cut, golden, change):
    assert dltrain("resume", cut.path, change) == 0
    equal(cut, golden)


@pytest.mark.parametrize("schedule", ["constant", "step schedule.every_epochs=1", "exponential", "plateau"])
def test_16_more_epochs_where_the_schedule_does_not_look_at_the_end(dltrain, workdir, schedule):
    usual = ("optimizer=momentum", *f"schedule={schedule}".split(), "early_stopping=none", "quiet=true")
    longer = golden_run(workdir, *usual, "epochs=4")
    dltrain(*usual, "epochs=2", "name=cut")
    run = only_run(workdir, "cut")
    dltrain("resume", run.path, "epochs=4")
    equal(run, longer)
    assert run.summary["steps"] == longer.summary["steps"]
    refused(dltrain, CheckpointProblem, 4, "is finished", run.path)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "one_cycle"])
def test_16_more_epochs_are_refused_under_a_schedule_over_the_total(dltrain, workdir, schedule):
    run = cut_run(workdir, 30, f"schedule={schedule}", "optimizer=momentum", "epochs=2", "quiet=true")
    refused(
        dltrain,
        UserError,
        2,
        f"schedule={schedule} depends on the total number of steps",
        run.path,
        "epochs=4",
    )


def test_more_epochs_are_refused_where_the_average_would_hold_other_steps(dltrain, workdir):
    usual = ("averaging=swa", "optimizer=momentum", "epochs=4", "early_stopping=none", "quiet=true")
    cut, longer = cut_run(workdir, 50, *usual), ("epochs=8",)
    refused(dltrain, UserError, 2, "averaging=swa chooses the averaged steps by the total", cut.path, *longer)


@pytest.mark.parametrize(
    "words", ["averaging=ema", "averaging=swa averaging.start_step=9 averaging.every_steps=5"]
)
def test_more_epochs_where_the_average_does_not_look_at_the_end(dltrain, workdir, words):
    usual = (*words.split(), "optimizer=momentum", "early_stopping=none", "quiet=true")
    longer = golden_run(workdir, *usual, "epochs=4")
    dltrain(*usual, "epochs=2", "name=cut")
    run = only_run(workdir, "cut")
    dltrain("resume", run.path, "epochs=4")
    equal(run, longer)


@pytest.mark.parametrize(
    "words",
    [
        "evaluation.every_epochs=2 epochs=3",
        "evaluation.every_steps=7 epochs=2 schedule=plateau schedule.patience=1",
        "steps=22",
    ],
)
def test_more_epochs_are_refused_after_an_evaluation_that_a_longer_run_does_not_do(
    dltrain, workdir, words, capsys
):
    """Its row, its counts and the window of its means stayed, so that `reproduce` found another run."""
    dltrain(*words.split(), "early_stopping.patience=3", "dataset.limit=200", "quiet=true", "name=cut")
    run = only_run(workdir, "cut")
    longer = "steps=40" if words == "steps=22" else "epochs=5"
    end = run.summary["steps"]
    refused(
        dltrain,
        UserError,
        2,
        f"it was evaluated at its end, step {end}, where a longer one is not",
        run.path,
        longer,
    )
    assert run.summary["status"] == "completed"
    # the printed cure
    assert dltrain("rerun", run.path, longer, "name=again") == 0
    assert only_run(workdir, "again").summary["steps"] > end


@pytest.mark.parametrize(
    "words",
    [
        "evaluation.every_epochs=2 epochs=4",
        "evaluation.every_steps=6 epochs=3",
        "evaluation.every_steps=5 steps=20 schedule=plateau schedule.patience=1",
    ],
)
def test_more_epochs_after_an_end_that_is_evaluated_in_any_case(dltrain, workdir, words):
    usual = (*words.split(), "dataset.limit=200", "early_stopping.min_delta=0.2", "quiet=true")
    longer = "steps=40" if "steps=20" in words else "epochs=6"
    golden = golden_run(
        workdir, *(w for w in usual if w.partition("=")[0] != longer.partition("=")[0]), longer
    )
    dltrain(*usual, "name=cut")
    run = only_run(workdir, "cut")
    dltrain("resume", run.path, longer)
    equal(run, golden)


def test_more_epochs_of_a_run_that_ended_before_its_last_evaluation(dltrain, workdir):
    usual = ("evaluation.every_epochs=2", "dataset.limit=200", "early_stopping.min_delta=0.2", "quiet=true")
    golden = golden_run(workdir, *usual, "epochs=6")
    run = cut_run(workdir, 10, *usual, "checkpoint.every_steps=3", "epochs=3")
    dltrain("resume", run.path, "epochs=6")
    equal(run, golden)


def test_fewer_epochs_are_refused(dltrain, workdir):
    run = cut_run(workdir, 30, "epochs=3", "quiet=true")
    refused(dltrain, UserError, 2, "can only grow in a resumed run", run.path, "epochs=2")


@pytest.mark.parametrize("former", [None, [20] * 10])
def test_a_limited_run_of_a_version_that_drew_other_samples_is_refused(dltrain, workdir, former):
    run = cut_run(workdir, 6, "dataset.limit=205", "checkpoint.every_steps=3", "epochs=3", "quiet=true")
    for folder in checkpoints(run):
        assert sum(json.loads((folder / "manifest.json").read_text())["class_counts"]) == 205
        edit_manifest(folder, class_counts=former)
    refused(dltrain, DataProblem, 3, "dataset.limit kept other samples of the training split", run.path)
    assert dltrain("rerun", run.path, "steps=1", "name=again") == 0


def test_33_another_thread_count_is_told(dltrain, cut, capsys):
    for folder in checkpoints(cut):
        edit_manifest(folder, threads=7)
    dltrain("resume", cut.path)
    assert "threads was 7 and is 1: the run goes on, but not equal to the last bit" in capsys.readouterr().err


# 17, 18, 31: folders ----------------------------------------------------------------------------------------------


def test_17_second_process_is_refused_and_a_dead_one_holds_nothing(dltrain, cut):
    code = f"import time; from pathlib import Path; from dltrain.storage.lock import Lock; l = Lock(Path({str(cut.path)!r}))"
    process = subprocess.Popen([sys.executable, "-c", f"{code}; print('held', flush=True); time.sleep(60)"],
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout.readline() == "held\n"
    refused(dltrain, FolderInUse, 9, f"is in use by process {process.pid} on .* since ", cut.path)
    process.kill()
    process.wait()
    assert (cut.path / "run.lock").is_file()
    assert dltrain("resume", cut.path) == 0
    assert not (cut.path / "run.lock").exists()


def test_17_lock_taken_while_its_owner_removes_it_is_taken_again(tmp_path, monkeypatch):
    """The owner unlinks the file between our open and our lock: a newcomer would make, and lock, another one."""
    import fcntl

    original = fcntl.flock
    calls = []

    def flock(stream, how):
        calls.append(1)
        if len(calls) == 1:
            (tmp_path / "run.lock").unlink()
        original(stream, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = Lock(tmp_path)
    assert len(calls) == 2
    with pytest.raises(FolderInUse):
        Lock(tmp_path)
    lock.release()


def test_18_31_runs_of_one_second_and_of_a_clock_that_jumps_have_folders_of_their_own(tmp_path, monkeypatch):
    from dltrain.storage import folder_names

    class Stopped(folder_names.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2020, 1, 1)

    monkeypatch.setattr(folder_names, "datetime", Stopped)
    assert len({new_folder(str(tmp_path), "name") for _ in range(200)}) == 200


@pytest.mark.slow
def test_18_twenty_processes_in_one_second(workdir):
    start = [sys.executable, "-m", "dltrain", "steps=2", "quiet=true", "name=same"]
    processes = [subprocess.Popen(start) for _ in range(20)]
    assert [process.wait() for process in processes] == [0] * 20
    assert len(list(workdir.glob("outputs/same/*/summary.json"))) == 20


def test_31_elapsed_time_is_that_of_a_clock_that_cannot_jump(train, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: -1e9 - time.monotonic())  # runs backwards
    run = train("steps=30")
    assert 0 < run.summary["seconds"] < 60
    assert all(row["seconds"] > 0 for row in run.rows)


# 35, 42: ends and half lines --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "moment", ["validate", "append_row", "save_checkpoint", "wait", "write_best", "write_summary"]
)
def test_35_killed_around_the_end(dltrain, workdir, golden, moment):
    """In the last validation, before and after its row, its checkpoint, the best weights and the summary."""
    from dltrain.storage.run_folder import RunFolder
    from dltrain.training.trainer import Trainer

    owner = Trainer if moment == "validate" else RunFolder
    original = getattr(owner, moment)

    def dying(self, *arguments):
        trainer = self if owner is Trainer else None
        answer = original(self, *arguments)
        reached = trainer.step if trainer else (self.rows() or [{"step": 0}])[-1]["step"]
        if reached == 60:
            raise Killed
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, moment, dying)
        with pytest.raises(Killed):
            dltrain(*EVERYTHING, "name=cut")
    run = only_run(workdir, "cut")
    dltrain("resume", run.path)
    equal(run, golden)


@pytest.mark.parametrize("moment", ["restore", "observers", "describe"])
def test_35_killed_while_resuming(dltrain, cut, golden, moment):
    from dltrain.run import experiment

    with pytest.MonkeyPatch.context() as patch:
        original = getattr(experiment, moment)
        patch.setattr(experiment, moment, lambda *a: (original(*a), die(None)))
        with pytest.raises(Killed):
            dltrain("resume", cut.path)
    dltrain("resume", cut.path)
    equal(cut, golden)


def test_killed_before_the_first_summary_is_a_run_all_the_same(dltrain, cut, golden):
    (cut.path / "summary.json").unlink()
    dltrain("resume", cut.path)
    equal(cut, golden)


@pytest.mark.parametrize("half_written", [True, False])
def test_killed_before_the_statistics_are_written(dltrain, workdir, golden, monkeypatch, half_written):
    """Found by a kill at random: such a run was resumed, but nobody could use its weights afterwards."""
    from dltrain.storage.run_folder import RunFolder

    def dying(self, statistics):
        if half_written:
            self.checkpoints.mkdir()
            (self.checkpoints / ".normalization.safetensors.tmp").write_bytes(b"half")
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "write_statistics", dying)
        with pytest.raises(Killed):
            dltrain(*EVERYTHING, "name=cut")
    run = only_run(workdir, "cut")
    dltrain("resume", run.path)
    equal(run, golden)
    assert not list(run.path.rglob(".*.tmp"))
    assert dltrain("evaluate", run.path) == 0


def test_42_half_a_line_is_dropped_and_no_step_stands_twice(dltrain, cut, golden):
    with open(cut.path / "metrics.csv", "a") as stream:
        stream.write("2.5,47,0.001,0.3")
    dltrain("resume", cut.path)
    equal(cut, golden)
    steps = [row["step"] for row in cut.rows]
    assert len(set(steps)) == len(steps)


# 45: old checkpoints ----------------------------------------------------------------------------------------------


def test_45_checkpoint_of_the_first_format_is_taken_up(dltrain, workdir):
    run = Run(shutil.copytree(FIXTURE, workdir / "run"))
    assert dltrain("resume", run.path, "quiet=true") == 0
    assert run.summary["status"] == "completed"
    assert run.rows[-1]["step"] == 60
    assert [row["step"] for row in run.rows] == [21, 42, 60]


def test_state_loads_with_weights_only_and_holds_plain_data(cut):
    import torch

    state = torch.load(checkpoints(cut)[0] / "state.pt", weights_only=True)
    assert {"step", "optimizer", "early_stopping"} <= state.keys()


def test_at_least_two_checkpoints_and_the_best_of_each_stay(cut):
    kept = checkpoints(cut)
    assert len(kept) >= 2
    for folder in kept[:2]:
        best = checkpoint.read_manifest(folder)["best_step"]
        assert best == 0 or (cut.path / "checkpoints" / f"step-{best:08d}").is_dir()


def test_checkpoint_by_time(train):
    run = train(
        "steps=40", "checkpoint.every_epochs=null", "checkpoint.every_minutes=0.0001", "checkpoint.keep=100"
    )
    assert len(checkpoints(run)) >= 2


def test_at_step_helper_is_exact(workdir):
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 3, lambda trainer: seen.append(trainer.step))
        dispatch(["steps=5", "quiet=true"])
    assert seen == [3]


@pytest.mark.parametrize("content", ["", "epoch,st"], ids=["empty", "half a line"])
def test_a_table_without_rows_is_one_of_no_evaluation(workdir, dltrain, content):
    """Found by random kills: after a kill behind the first evaluation and a signal during the resume, the run could not be resumed again."""
    arguments = (
        "steps=12",
        "checkpoint.every_steps=5",
        "evaluation.every_steps=6",
        "quiet=true",
        "threads=1",
    )
    cut = cut_run(workdir, 6, *arguments)
    (cut.path / "metrics.csv").write_text(content)
    assert list(read_rows(cut.path / "metrics.csv")) == []
    assert dltrain("reproduce", cut.path) == 0
    assert dltrain("resume", cut.path) == 0
    equal(cut, golden_run(workdir, *arguments))
