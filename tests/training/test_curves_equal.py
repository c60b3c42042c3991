"""What TensorBoard shows is what metrics.csv says, also after a kill and a resume; the folder holds what was promised."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import Run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dltrain.errors import NumericalFailure

CNN = ("model=cnn", "augmentation=[shift,mixup]", "schedule=cosine", "epochs=3", "batch_size=256")


def events_of(run: Run) -> EventAccumulator:
    # size_guidance 0: keep every value
    accumulator = EventAccumulator(str(run.path), size_guidance={"scalars": 0})
    return accumulator.Reload()


def check_scalars(run: Run) -> None:
    """Every column at every step, once, to single precision."""
    events = events_of(run)
    rows = run.rows
    for tag in set(rows[0]) - {"step"}:
        shown = [(event.step, event.value) for event in events.Scalars(tag)]
        # beyond single precision it is infinite
        kept = [(int(row["step"]), torch.tensor(row[tag], dtype=torch.float32).item()) for row in rows]
        assert [step for step, _ in shown] == [step for step, _ in kept], tag
        assert [v for _, v in shown] == pytest.approx([v for _, v in kept], rel=1e-6, nan_ok=True), tag


def files_of(run: Run) -> set[str]:
    return {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}


def promised(files: set[str]) -> set[str]:
    """The names with what differs from run to run replaced."""
    return {
        "/".join(part if not part.startswith(("step-", "events.out")) else "*" for part in Path(f).parts)
        for f in files
    }


FOLDER = {
    ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "config.yaml", "manifest.json", "metrics.csv", "events.jsonl", "run.log",
    "summary.json", "data.json", "per_class.csv", "confusion_matrix.csv", "checkpoints/best.safetensors",
    "checkpoints/normalization.safetensors", "checkpoints/*/manifest.json", "checkpoints/*/state.pt",
    "checkpoints/*/weights.safetensors", "*",
}  # fmt: skip


def test_scalars_pictures_and_files_of_a_run(train):
    run = train(*CNN)
    check_scalars(run)
    tags = events_of(run).Tags()
    assert set(tags["images"]) == {"samples", "confusion_matrix"}
    assert {"_hparams_/session_start_info", "custom_scalars__config__", "run/text_summary"} <= {
        *tags["tensors"], *events_of(run).summary_metadata, "run/text_summary"}  # fmt: skip
    assert promised(files_of(run)) == FOLDER
    for split in ("train", "val"):
        assert f"{split}/loss" in run.rows[0]
        assert f"{split}/accuracy" in run.rows[0]
    assert {"lr", "grad_norm", "images_per_second", "seconds"} <= set(run.rows[0])


def test_hparams_hold_the_choices_and_their_metrics(train):
    run = train(*CNN, "optimizer=sgd", "lr=0.05")
    metadata = events_of(run).summary_metadata["_hparams_/session_start_info"]
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    hparams = HParamsPluginData.FromString(metadata.plugin_data.content).session_start_info.hparams
    assert hparams["optimizer"].string_value == "sgd"
    assert hparams["lr"].number_value == 0.05
    shown = {tag: events_of(run).Scalars(tag)[-1].value for tag in ("best/val/loss", "best/test/accuracy")}
    assert shown["best/val/loss"] == pytest.approx(run.summary["best"]["val/loss"])
    assert shown["best/test/accuracy"] == pytest.approx(run.summary["test"]["accuracy"])


def test_hparams_hold_every_key_that_was_given_lists_too(train):
    run = train(
        "model.hidden=[16,8]",
        "regularization=[l2]",
        "dataset.limit=300",
        "shuffle=once",
        "steps=2",
        "name=mine",
    )
    metadata = events_of(run).summary_metadata["_hparams_/session_start_info"]
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    hparams = HParamsPluginData.FromString(metadata.plugin_data.content).session_start_info.hparams
    assert hparams["model.hidden"].string_value == "[16,8]"
    assert (hparams["dataset.limit"].number_value, hparams["shuffle"].string_value) == (300, "once")
    assert not {"name", "quiet"} & set(hparams)


def test_no_chart_of_a_run_has_one_point(train):
    events = events_of(train("epochs=3", "model=linear", "log.every_steps=20"))
    assert [tag for tag in events.Tags()["scalars"] if len(events.Scalars(tag)) < 2] == []


def test_a_sweep_s_folder_has_a_folder_for_each_job(dltrain, workdir):
    assert dltrain("-m", "seed=0,1", "steps=2", "quiet=true") == 0
    (sweep,) = (workdir / "outputs" / "digits_mlp").iterdir()
    assert {path.name for path in sweep.iterdir() if path.is_dir()} == {"0-seed=0", "1-seed=1"}
    assert {"best.yaml", "report.html", "results.csv"} <= {path.name for path in sweep.iterdir()}
    for job in ("0-seed=0", "1-seed=1"):
        assert promised(files_of(Run(sweep / job))) >= FOLDER - {"run.log"}


def test_a_diverged_run_keeps_its_curves(dltrain, workdir):
    with pytest.raises(NumericalFailure):
        dltrain("optimizer=sgd", "lr=3", "epochs=40", "model.norm=none", "model.hidden=[64,64,64]", "quiet=true", "loss=mse",
                "dataset=diabetes", "evaluation.every_steps=1", "evaluation.every_epochs=null")  # fmt: skip
    (path,) = (file.parent for file in workdir.rglob("summary.json"))
    run = Run(path)
    assert run.summary["status"] == "failed"
    check_scalars(run)


@pytest.mark.ci
def test_curves_after_a_kill_and_a_resume(dltrain, workdir):
    """SIGKILL in the middle of a real process; the resumed run's curves have every step once."""
    arguments = [
        "epochs=8",
        "early_stopping=none",
        "evaluation.every_steps=3",
        "evaluation.every_epochs=null",
        "checkpoint.every_steps=10",
        "threads=1",
    ]
    process = subprocess.Popen([sys.executable, "-m", "dltrain", *arguments, "quiet=true"], cwd=workdir,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    deadline = time.monotonic() + 60
    while (
        not list(workdir.glob("outputs/*/*/checkpoints/step-*/manifest.json")) and time.monotonic() < deadline
    ):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (config,) = workdir.glob("outputs/*/*/config.yaml")
    run = Run(config.parent)
    assert run.summary["status"] == "running", "it ended before it could be killed"
    assert dltrain("resume", run.path, "quiet=true") == 0
    assert run.summary["status"] == "completed"
    assert [row["step"] for row in run.rows] == [*range(3, 169, 3)]
    check_scalars(run)
    assert promised(files_of(run)) == FOLDER
