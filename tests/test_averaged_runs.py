"""Averaged weights in a run: their batch-norm statistics, and that looking at them disturbs nothing."""

from __future__ import annotations

import pytest
import torch
from conftest import Run, assert_equal
from torch import nn

from dltrain.training.trainer import Trainer

NORMED = ("model.hidden=[16]", "model.norm=batch", "optimizer=momentum", "epochs=3", "early_stopping=none")


@pytest.mark.parametrize("word", ["ema", "polyak", "swa"])
def test_statistics_are_those_of_the_averaged_weights(train, monkeypatch, word):
    compared: list[float] = []
    evaluate = Trainer.evaluate_and_judge

    def compare(trainer: Trainer) -> None:
        evaluate(trainer)
        if trainer.parts.averaging.started:
            with trainer.averaged(), torch.no_grad():
                norm = next(m for m in trainer.parts.model.modules() if isinstance(m, nn.BatchNorm1d))
                linear = next(m for m in trainer.parts.model.modules() if isinstance(m, nn.Linear))
                hidden = [linear(inputs.flatten(1)) for inputs in trainer.plain_inputs()]
                means = torch.stack([part.mean(0) for part in hidden]).mean(0)
                variances = torch.stack([part.var(0) for part in hidden]).mean(0)
                torch.testing.assert_close(norm.running_mean, means, rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(norm.running_var, variances, rtol=1e-4, atol=1e-5)
            compared.append(trainer.step)

    monkeypatch.setattr(Trainer, "evaluate_and_judge", compare)
    train(*NORMED, f"averaging={word}")
    assert compared


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


class Killed(BaseException):
    """Stands in for SIGKILL."""


@pytest.mark.parametrize("step", [22, 44, 60])
def test_a_killed_run_with_averaged_batch_norms_resumes_bit_for_bit(
    train, dltrain, workdir, monkeypatch, step
):
    arguments = (*NORMED, "averaging=swa", "averaging.start_step=20", "checkpoint.every_steps=15")
    golden = train(*arguments)
    observe = Trainer.observe

    def dying(self, update_norm):
        if self.step == step:
            raise Killed
        observe(self, update_norm)

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
