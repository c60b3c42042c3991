"""Rows 19 to 21: numbers that are not finite stop, skip or roll back, by choice; and NaN is never best."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import assert_equal
from faults import checkpoints, cut_run, equal, golden_run, only_run

from dltrain.cli import dispatch
from dltrain.errors import NumericalFailure
from dltrain.storage import checkpoint
from dltrain.training.objective import Objective

USUAL = ("optimizer=adam", "steps=60", "checkpoint.every_steps=10", "early_stopping=none", "quiet=true")


def poison(patch, what, *steps):
    """Let the loss, or one gradient, of some steps (counted from 1) be NaN or Inf."""
    name = "losses" if what == "loss" else "loss_gradient"
    original = getattr(Objective, name)

    def losses(self):
        factor = float("nan") if self.step + 1 in steps else 1.0
        for values, mean in original(self):
            yield values * factor, mean * factor

    def loss_gradient(self):
        value = original(self)
        if self.step + 1 in steps:
            # of layers.1.0.weight
            self.terms.parameters[2].grad[0, 0] = float("inf")
        return value

    patch.setattr(Objective, name, losses if what == "loss" else loss_gradient)


@pytest.mark.parametrize("what, first", [("loss", r"the gradient of layers\.0\.0\.weight"),
                                         ("gradient", r"the gradient of layers\.1\.0\.weight")])  # fmt: skip
def test_19_20_stop_names_step_loss_samples_and_tensor(dltrain, workdir, monkeypatch, what, first):
    poison(monkeypatch, what, 37)
    with pytest.raises(NumericalFailure) as failed:
        dltrain(*USUAL, "name=bad")
    message = str(failed.value)
    assert failed.value.exit_code == 5
    for part in (
        "not finite at step 37",
        "samples ",
        "First of all: ",
        "Try a tenth of it",
        "non_finite=skip",
    ):
        assert part in message
    assert pytest.importorskip("re").search(first, message)
    run = only_run(workdir, "bad")
    assert run.summary["status"] == "failed"
    newest = checkpoint.newest(run.path / "checkpoints")
    assert newest.manifest["step"] == 30
    assert all(torch.isfinite(tensor).all() for tensor in newest.weights().values())


def test_19_inputs_that_are_not_finite_are_named(dltrain, workdir, monkeypatch):
    from dltrain.training.trainer import Trainer

    original = Trainer.augment

    def augment(self, batch, epoch):
        batch = original(self, batch, epoch)
        return batch._replace(inputs=batch.inputs * float("nan")) if self.step == 5 else batch

    monkeypatch.setattr(Trainer, "augment", augment)
    with pytest.raises(NumericalFailure, match=r"at step 6 .*First of all: the inputs\."):
        dltrain(*USUAL)


def test_19_samples_are_rows_of_the_file(dltrain, workdir):
    """They were places in the training split, from 0: nobody could find them."""
    values = np.random.default_rng(0).normal(size=(60, 3))
    values[36] = 3e38
    path = workdir / "house.csv"
    path.write_text("a,b,y\n" + "".join(f"{a},{b},{i % 2}\n" for i, (a, b, _) in enumerate(values.tolist())))
    with pytest.raises(NumericalFailure, match=rf"samples 37 of {path}\)"):
        dltrain("dataset=csv", f"dataset.path={path}", "dataset.target=y", "dataset.normalize=none", "dataset.split_seed=1",
                "batch_size=1", "epochs=1", "quiet=true")  # fmt: skip


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_20_skip_and_rollback_go_on_count_and_resume(workdir, what, policy):
    arguments = (*USUAL, "model.norm=batch", f"non_finite={policy}")
    if what == "gradient":
        arguments = (*USUAL, f"non_finite={policy}")
    with pytest.MonkeyPatch.context() as patch:
        poison(patch, what, 7, 37)
        golden = golden_run(workdir, *arguments)
        cut = cut_run(workdir, 45, *arguments)
        dispatch(["resume", str(cut.path)])
    assert golden.summary["status"] == "completed"
    assert golden.rows[-1]["bad_steps"] == 2
    assert all(math.isfinite(value) for row in golden.rows for value in row.values())
    equal(cut, golden)


def test_20_skip_leaves_everything_as_it_was_but_the_step(workdir):
    """The run with a step left out equals one whose optimizer did nothing at that step."""
    from dltrain.training.trainer import Trainer

    with pytest.MonkeyPatch.context() as patch:
        poison(patch, "loss", 9)
        skipped = golden_run(workdir, *USUAL, "non_finite=skip", "steps=20")
    kept = {}
    original = Trainer.set_rates

    def set_rates(self):
        original(self)
        state = self.parts.optimizer.state_dict()
        if self.step == 8:
            kept["weights"] = {k: v.clone() for k, v in self.parts.model.state_dict().items()}
            kept["optimizer"] = {k: {n: t.clone() for n, t in s.items()} for k, s in state["state"].items()}
        if self.step == 9:
            self.parts.model.load_state_dict(kept["weights"])
            self.parts.optimizer.load_state_dict(state | {"state": kept["optimizer"]})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "set_rates", set_rates)
        dispatch([*USUAL, "steps=20", "name=undone"])
    assert_equal(skipped.last_state()["weights"], only_run(workdir, "undone").last_state()["weights"])


ELSEWHERE = (("optimizer=schedule_free",), ("optimizer=newton_cg",), ("optimizer=momentum", "wrap=[sam]"))


@pytest.mark.parametrize("words", ELSEWHERE, ids=" ".join)
def test_20_a_skipped_step_leaves_the_weights_wherever_its_optimizer_evaluates(dltrain, monkeypatch, words):
    """Schedule-free moves the weights to y before the closure; they stayed there where the step was skipped."""
    from dltrain.training.trainer import Trainer

    weights = []
    original = Trainer.set_rates

    def set_rates(self):
        original(self)
        weights.append({k: v.clone() for k, v in self.parts.model.state_dict().items()})

    monkeypatch.setattr(Trainer, "set_rates", set_rates)
    poison(monkeypatch, "loss", 1, 4)
    dltrain(*words, "dataset.limit=200", "steps=6", "early_stopping=none", "quiet=true", "non_finite=skip")
    assert_equal(weights[0], weights[1])
    assert_equal(weights[3], weights[4])
    assert not all(torch.equal(weights[2][k], weights[3][k]) for k in weights[2])


def test_20_where_every_step_was_skipped_there_is_no_training_loss(dltrain, workdir, monkeypatch):
    """The means over no samples were 0, which early stopping on train/loss took for the best."""
    poison(monkeypatch, "loss", 1, 4)
    dltrain("dataset.limit=200", "steps=6", "evaluation.every_steps=1", "early_stopping.metric=train/loss",
            "early_stopping.tolerance=1e-12", "quiet=true", "non_finite=skip", "name=gaps",
            "diagnostics=[layers]")  # fmt: skip
    run = only_run(workdir, "gaps")
    for row in run.rows:
        skipped = row["step"] in (1, 4)
        for key in ("train/loss", "train/accuracy", "grad_norm"):
            assert math.isnan(row[key]) == skipped, (row["step"], key)
        assert math.isfinite(row["val/loss"])
    assert run.summary["status"] == "completed"
    assert run.summary["best"]["step"] not in (1, 4)


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_20_what_does_not_end_stops(dltrain, monkeypatch, policy):
    poison(monkeypatch, "loss", *range(12, 61))
    # `non_finite=skip leaves such a step out` was the cure of a run that had it
    with pytest.raises(
        NumericalFailure,
        match=rf"not finite at step(.*\n)*With non_finite={policy} the run ends after more than",
    ):
        dltrain(*USUAL, f"non_finite={policy}")


def test_21_divergence_never_becomes_best(dltrain, workdir):
    with pytest.raises(NumericalFailure):
        dltrain(
            "optimizer=sgd",
            "lr=1e6",
            "epochs=5",
            "schedule=plateau",
            "evaluation.every_steps=1",
            "quiet=true",
            "name=bad",
        )
    run = only_run(workdir, "bad")
    best = checkpoint.newest(run.path / "checkpoints").manifest["best"]
    assert math.isfinite(best["val/loss"])
    assert best["val/loss"] == min(row["val/loss"] for row in run.rows if math.isfinite(row["val/loss"]))


def test_21_weights_that_are_not_finite_are_not_saved(dltrain, workdir, monkeypatch):
    from faults import at_step

    def spoil(trainer):
        with torch.no_grad():
            trainer.parameters[0][0] = float("inf")

    at_step(monkeypatch, 20, spoil)
    with pytest.raises(NumericalFailure, match=r"the weight layers\.0\.0\.weight"):
        dltrain(*USUAL, "name=bad")
    assert [folder.name for folder in checkpoints(only_run(workdir, "bad"))] == ["step-00000010"]
