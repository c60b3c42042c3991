"""Real training whose best evaluation is not the last: whatever speaks of the best must speak of that one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Run, assert_equal, run_folders
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dltrain.cli import dispatch

COMMON = ("dataset.limit=150", "lr=0.02", "early_stopping=none", "quiet=true", "threads=1")


def train_in(folder: Path, *words: str) -> Run:
    assert dispatch([*COMMON, *words, f"output={folder}"]) == 0
    (path,) = run_folders(folder)
    return Run(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train_in(tmp_path_factory.mktemp("long"), "epochs=12")


@pytest.fixture(scope="module")
def best_row(run):
    row = min(run.rows, key=lambda row: row["val/loss"])
    assert 1 < row["epoch"] < run.rows[-1]["epoch"] - 2, "the case needs a best that is not the last"
    return row


@pytest.fixture(scope="module")
def exact(run, best_row, tmp_path_factory):
    """A second run that ends where the first was best."""
    return train_in(tmp_path_factory.mktemp("exact"), f"epochs={best_row['epoch']:.0f}")


def test_best_weights_are_those_of_a_run_that_ended_there(run, exact):
    assert_equal(run.best_weights, exact.last_state()["weights"])
    assert not torch.equal(
        run.best_weights["layers.0.0.weight"], run.last_state()["weights"]["layers.0.0.weight"]
    )


def test_test_scores_are_those_of_the_best_weights(run, exact):
    assert run.summary["test"] == exact.summary["test"]


def test_summary_holds_the_best_row(run, best_row):
    assert run.summary["best"] == best_row
    assert run.summary["objective"] == best_row["val/loss"]
    assert run.summary["best_epoch"] == best_row["epoch"]
    assert run.summary["epochs"] == 12


def test_evaluate_scores_the_best_weights(run, exact, capsys):
    dispatch(["evaluate", str(run.path)])
    said = capsys.readouterr().out
    assert (
        f"{exact.summary['test']['loss']:.4f}" in said and f"{exact.summary['test']['accuracy']:.4f}" in said
    )


def test_confusion_matrix_is_that_of_the_best_weights(train, monkeypatch, run, exact):
    from dltrain.loggers.tensorboard import TensorBoard

    seen = []
    original = TensorBoard.run_ended

    def spy(self, result):
        seen.append(result.confusion)
        original(self, result)

    monkeypatch.setattr(TensorBoard, "run_ended", spy)
    train(*COMMON, "epochs=12")
    correct = int(seen[0].diagonal().sum()) / int(seen[0].sum())
    assert correct == pytest.approx(exact.summary["test"]["accuracy"], abs=1e-12)


def scalars(run: Run, tag: str) -> list[float]:
    accumulator = EventAccumulator(str(run.path), size_guidance={"scalars": 0})
    return [event.value for event in accumulator.Reload().Scalars(tag)]


def best_so_far(run: Run) -> list[float]:
    losses = [row["val/loss"] for row in run.rows]
    return [min(losses[: i + 1]) for i in range(len(losses))]


def test_tensorboard_shows_the_best_so_far(run):
    assert scalars(run, "best/val/loss") == pytest.approx(best_so_far(run), rel=1e-6)


class Killed(BaseException):
    """Stands in for SIGKILL."""


@pytest.fixture
def resumed(workdir, monkeypatch, best_row):
    """Killed two evaluations after the best, with a checkpoint in between, and resumed."""
    from dltrain.training.trainer import Trainer

    original, last = Trainer.observe, best_row["step"] + 7

    def dying(self):
        if self.step == last:
            raise Killed
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "observe", dying)
        with pytest.raises(Killed):
            dispatch(
                [
                    *COMMON,
                    "epochs=12",
                    "checkpoint.every_steps=2",
                    "checkpoint.background=false",
                    "name=killed",
                ]
            )
    (file,) = workdir.glob("outputs/killed/*/config.yaml")
    dispatch(["resume", str(file.parent)])
    return Run(file.parent)


def test_best_survives_a_resume(resumed, run):
    assert_equal(resumed.best_weights, run.best_weights)
    assert resumed.timeless_rows == run.timeless_rows
    for key in ("test", "objective", "best_epoch"):
        assert resumed.summary[key] == run.summary[key]
    assert scalars(resumed, "best/val/loss") == pytest.approx(best_so_far(run), rel=1e-6)


@pytest.mark.parametrize("averaging", ["ema", "polyak"])
def test_best_of_averaged_weights(tmp_path, averaging):
    """`best.safetensors` scores on the validation split what the best row says; the raw weights of that step do not."""
    run = train_in(tmp_path, "epochs=14", "lr=0.03", f"averaging={averaging}", "checkpoint.keep=20")
    row = min(run.rows, key=lambda row: row["val/loss"])
    assert row["epoch"] < 14, "the case needs a best that is not the last"
    assert run.summary["objective"] == row["val/loss"]
    parts = built(run)
    parts.model.load_state_dict(run.best_weights)
    assert loss_of(parts) == pytest.approx(row["val/loss"], rel=1e-5)
    raw = run.path / "checkpoints" / f"step-{row['step']:08.0f}" / "weights.safetensors"
    from safetensors.torch import load_file

    parts.model.load_state_dict(load_file(raw))
    assert loss_of(parts) != pytest.approx(row["val/loss"], rel=1e-3)


def built(run: Run):
    from dltrain.config import saved
    from dltrain.config.compose import open_catalogue
    from dltrain.config.door import Door, shipped_targets
    from dltrain.run.build import build

    catalogue = open_catalogue()
    return build(saved.read(run.path, catalogue, []), Door(shipped_targets(catalogue), []))[0]


@torch.no_grad()
def loss_of(parts) -> float:
    parts.model.eval()
    batch = next(iter(parts.val.batches(torch.arange(len(parts.val)), len(parts.val))))
    return float(torch.nn.functional.cross_entropy(parts.model(batch.inputs).double(), batch.targets))
