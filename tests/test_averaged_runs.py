"""Averaged weights in a run: their batch-norm statistics, and that looking at them disturbs nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import Run, assert_equal
from torch import nn

from dltrain.data.batches import ResidentSplit
from dltrain.training.trainer import Trainer
from dltrain.training.validation import Validation

SCHEDULE_FREE = ("optimizer=schedule_free", "optimizer.betas=[0,0.999]", "lr=0.1")
NORMED = ("model.hidden=[16]", "model.norm=batch", "optimizer=momentum", "epochs=3", "early_stopping=none")


def statistics_by_hand(model: nn.Module, inputs: torch.Tensor) -> list[torch.Tensor]:
    """Mean and unbiased variance in front of each batch norm of an MLP over all inputs, layer by layer in float64."""
    found, hidden = [], inputs.double().flatten(1)
    for layer in (m for block in model.layers for m in block.modules() if not list(m.children())):
        if isinstance(layer, nn.BatchNorm1d):
            mean, variance = hidden.mean(0), hidden.var(0)
            found += [mean, variance]
            hidden = (hidden - mean) / (
                variance + layer.eps
            ).sqrt() * layer.weight.double() + layer.bias.double()
        elif isinstance(layer, nn.Linear):
            hidden = hidden @ layer.weight.double().T + layer.bias.double()
        elif isinstance(layer, nn.ReLU):
            hidden = hidden.clamp(min=0)
        else:
            raise AssertionError(layer)
    return found


@pytest.mark.parametrize(
    "choice",
    [
        "averaging=ema",
        "averaging=polyak",
        "averaging=swa",
        "optimizer=schedule_free optimizer.betas=[0,0.999] lr=0.1",
        "optimizer=schedule_free averaging=ema averaging.start_step=30",
        "optimizer=schedule_free wrap=[sam]",
    ],
)
@pytest.mark.parametrize("hidden", ["[16]", "[16,12]"])
def test_statistics_are_those_of_the_evaluated_weights(train, monkeypatch, choice, hidden):
    """Over all training samples, which are fewer than the sample that would be taken."""
    compared: list[float] = []
    evaluate = Trainer.evaluate_and_judge

    def compare(trainer: Trainer) -> None:
        evaluate(trainer)
        if trainer.parts.averaging is None or trainer.parts.averaging.started:
            with trainer.validation.evaluated(trainer.step), torch.no_grad():
                model = trainer.parts.model
                norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
                measured = [t for norm in norms for t in (norm.running_mean, norm.running_var)]
                wanted = statistics_by_hand(model, trainer.parts.train.inputs)
                for one, other in zip(measured, wanted, strict=True):
                    torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-6)
            compared.append(trainer.step)

    monkeypatch.setattr(Trainer, "evaluate_and_judge", compare)
    train(*NORMED, f"model.hidden={hidden}", *choice.split())
    assert compared


def test_an_average_of_the_optimizer_has_its_own_statistics_in_scores_and_files(train, dltrain, capsys):
    """Those of training are of the weights y at which schedule_free computes gradients."""
    run = train(*NORMED, *SCHEDULE_FREE, "diagnostics=[layers]")
    dltrain("evaluate", run.path)
    assert f"{run.summary['best']['val/loss']:.4f}" in capsys.readouterr().out
    name = "layers.0.1.running_mean"
    assert not torch.allclose(run.best_weights[name], run.last_state()["weights"][name])
    assert dltrain("verify", run.path) == 0
    assert dltrain("reproduce", run.path) == 0


def test_evaluating_an_average_of_the_optimizer_disturbs_no_training(train):
    often = train(*NORMED, *SCHEDULE_FREE, "evaluation.every_steps=5")
    once = train(*NORMED, *SCHEDULE_FREE, "evaluation.every_epochs=3")
    assert_equal(often.last_state()["weights"], once.last_state()["weights"])
    assert often.rows[-1]["val/loss"] == once.rows[-1]["val/loss"]


def test_without_batch_norm_an_average_of_the_optimizer_costs_no_pass(train, monkeypatch):
    asked = []
    monkeypatch.setattr(Validation, "set_statistics", lambda self, step, averaged: asked.append(step))
    train("model.hidden=[16]", *SCHEDULE_FREE, "epochs=1")
    assert not asked


@pytest.fixture
def sorted_file(workdir):
    """6,400 samples in four classes, sorted by class: any first thousand of them is of one class alone."""
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(4), 1600)
    inputs = rng.normal(size=(6400, 4)).astype("f4")
    for k in (1, 2, 3):
        inputs[:, k - 1] += 6 * (targets == k)
    np.savez(workdir / "sorted.npz", inputs=inputs, targets=targets)
    return ("dataset=npz", "dataset.path=sorted.npz", "model=mlp", "model.norm=batch", "early_stopping=none")


def test_averaged_weights_do_not_depend_on_the_order_of_the_file(train, sorted_file):
    """With the statistics of the first 4,096 samples the averaged weights lost five times what the last ones lose."""
    last = train(*sorted_file, "epochs=2").rows[-1]["val/loss"]
    averaged = train(*sorted_file, "epochs=2", "averaging=ema").rows[-1]["val/loss"]
    assert averaged < 1.3 * last


def test_averaged_weights_do_not_depend_on_the_batch_size_of_evaluation(train, sorted_file):
    runs = [
        train(*sorted_file, "epochs=1", "averaging=ema", f"evaluation.batch_size={size}")
        for size in (100, 5000)
    ]
    assert_equal(runs[0].best_weights, runs[1].best_weights)


def test_what_stands_for_the_training_data_is_a_random_sample_of_them(train, sorted_file, monkeypatch):
    """Batch-norm statistics, initializers and diagnostics: none asks for the first samples of the file."""
    asked = []
    batches = ResidentSplit.batches

    def record(split, order, batch_size, start=0):
        if order is not None and 4 < len(order) < len(split):
            asked.append(order.clone())
        return batches(split, order, batch_size, start)

    monkeypatch.setattr(ResidentSplit, "batches", record)
    monkeypatch.setattr("dltrain.training.validation.STATISTICS_SAMPLES", 1000)
    train(*sorted_file, "steps=2", "averaging=ema", "initializer=lsuv", "diagnostics=[layers,batch_noise]")
    assert {len(order) for order in asked} >= {512, 1000}
    for order in asked:
        # 4,608 training samples or so: the sample of a quarter has about a quarter of each class
        assert len(order.unique()) == len(order)
        assert (order < len(order)).float().mean() < 0.5


def test_evaluating_averaged_weights_disturbs_no_training(train):
    run = (*NORMED, "regularization=[dropout]")
    often = train(*run, "averaging=ema", "evaluation.every_steps=5")
    once = train(*run, "averaging=ema", "evaluation.every_epochs=3")
    without = train(*run)
    assert_equal(often.last_state()["weights"], once.last_state()["weights"])
    assert_equal(often.last_state()["weights"], without.last_state()["weights"])
    assert often.rows[-1]["val/loss"] == once.rows[-1]["val/loss"]


def test_the_kept_weights_score_as_they_did_when_they_were_validated(train, dltrain, capsys):
    run = train(*NORMED, "averaging=ema")
    dltrain("evaluate", run.path)
    assert f"{run.summary['best']['val/loss']:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "choice", ["optimizer=sgd averaging=ema", "optimizer=sgd", "optimizer=momentum wrap=[lookahead]"]
)
def test_exact_zeros_are_counted_in_the_weights_that_are_evaluated(train, choice):
    sparse = ("regularization=[l1]", "regularization.l1.strength=0.03", "model.hidden=[16]", "epochs=3")
    run = train(*sparse, *choice.split(), "lr=0.1")
    matrices = [run.best_weights[name] for name in ("layers.0.0.weight", "head.weight")]
    zeros = sum(int((matrix == 0).sum()) for matrix in matrices) / sum(matrix.numel() for matrix in matrices)
    assert run.summary["best"]["zero_share"] == pytest.approx(zeros, abs=1e-6)


class Killed(BaseException):
    """Stands in for SIGKILL."""


@pytest.mark.parametrize("choice", [("averaging=swa", "averaging.start_step=20"), SCHEDULE_FREE])
@pytest.mark.parametrize("step", [22, 44, 60])
def test_a_killed_run_with_averaged_batch_norms_resumes_bit_for_bit(
    train, dltrain, workdir, monkeypatch, step, choice
):
    arguments = (*NORMED, *choice, "checkpoint.every_steps=15")
    golden = train(*arguments)
    observe = Trainer.observe

    def dying(self):
        if self.step == step:
            raise Killed
        observe(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "observe", dying)
        with pytest.raises(Killed):
            train(*arguments, "name=killed")
    (file,) = workdir.glob("outputs/killed/*/config.yaml")
    dltrain("resume", file.parent)
    killed = Run(file.parent)
    assert_equal(killed.last_state()["weights"], golden.last_state()["weights"])
    assert_equal(killed.best_weights, golden.best_weights)
    assert_equal(killed.timeless_rows, golden.timeless_rows)


def test_swa_begins_at_three_quarters_of_the_run_once_an_epoch(train):
    run = train("averaging=swa", "epochs=8", "early_stopping=none")
    assert run.last_state()["averaging"]["count"] == 3  # after the epochs 6, 7 and 8


@pytest.mark.parametrize(
    "length, averaged",
    [("epochs=3", (42, 63)), ("steps=50", (21, 42, 50))],
    ids=["whole epochs", "a part of an epoch"],
)
def test_swa_begins_at_the_end_of_an_epoch_and_covers_the_last_step(train, length, averaged):
    """A constant lr makes a shorter run the beginning of a longer one."""
    constant = ("model=linear", "early_stopping=none")
    ends = [train(*constant, f"steps={step}").last_state()["weights"] for step in averaged]
    average = train(*constant, "averaging=swa", length).last_state()["averaging"]
    assert average["count"] == len(averaged)
    for found, name in zip(average["average"], ("head.weight", "head.bias"), strict=True):
        torch.testing.assert_close(found, torch.stack([end[name] for end in ends]).mean(0))
