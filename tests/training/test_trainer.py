"""The loop: what must not change a result, and what must."""

from __future__ import annotations

import pytest
import torch
from conftest import Run, assert_equal, every

from dltrain.errors import NumericalFailure

EVERYTHING = (
    "model=cnn",
    "optimizer=momentum",
    "schedule=plateau",
    "averaging=ema",
    "regularization=[l2,dropout]",
    "augmentation=[shift,mixup]",
    "accumulate=2",
    "epochs=3",
)


def test_default_run_learns_digits(train):
    run = train()
    assert run.summary["test"]["accuracy"] >= 0.96
    assert run.summary["status"] in ("completed", "early_stopped")
    assert run.summary["objective"] == min(row["val/loss"] for row in run.rows)


def test_same_seed_same_weights_and_another_seed_others(train):
    first, second, other = (
        train("seed=0", "epochs=2"),
        train("seed=0", "epochs=2"),
        train("seed=1", "epochs=2"),
    )
    assert_equal(first.best_weights, second.best_weights)
    assert_equal(first.timeless_rows, second.timeless_rows)
    assert not torch.equal(first.best_weights["layers.0.0.weight"], other.best_weights["layers.0.0.weight"])


@pytest.mark.ci
@pytest.mark.parametrize(
    "interval",
    [
        "evaluation.every_epochs=2",
        "evaluation.every_steps=5",
        "log.every_steps=3",
        "checkpoint.every_steps=7",
    ],
)
def test_intervals_leave_training_weights_bit_equal(train, interval):
    usual = train(
        "epochs=4",
        "model=cnn",
        "regularization=[dropout]",
        "augmentation=[shift,mixup]",
        "early_stopping=none",
    )
    changed = train(
        "epochs=4",
        "model=cnn",
        "regularization=[dropout]",
        "augmentation=[shift,mixup]",
        "early_stopping=none",
        interval,
    )
    assert_equal(usual.last_state()["weights"], changed.last_state()["weights"])


def test_augmentation_leaves_the_order_of_samples(train, monkeypatch):
    from dltrain.training.trainer import Trainer

    seen: list[list[int]] = []
    original = Trainer.augment

    def spy(self, batch, epoch):
        seen[-1].extend(batch.indices.tolist())
        return original(self, batch, epoch)

    monkeypatch.setattr(Trainer, "augment", spy)
    for words in ("none", "[mixup,shift]"):
        seen.append([])
        train("epochs=2", f"augmentation={words}")
    assert seen[0] == seen[1]
    assert sorted(seen[0][: len(seen[0]) // 2]) == list(range(len(seen[0]) // 2))


def test_evaluation_is_the_mean_over_samples_also_with_a_ragged_last_batch(train):
    whole = train("epochs=1", "evaluation.batch_size=100000")
    ragged = train("epochs=1", "evaluation.batch_size=37")
    assert whole.rows[0]["val/loss"] == pytest.approx(ragged.rows[0]["val/loss"], rel=1e-6)
    assert whole.rows[0]["val/accuracy"] == ragged.rows[0]["val/accuracy"]


def test_accumulated_gradients_are_those_of_the_whole_batch(train):
    whole = train("steps=3", "optimizer=sgd", "lr=0.1")
    parts = train("steps=3", "optimizer=sgd", "lr=0.1", "accumulate=4")
    for name, tensor in whole.best_weights.items():
        torch.testing.assert_close(tensor, parts.best_weights[name], rtol=1e-4, atol=1e-6)


def test_early_stopping_restores_the_weights_of_a_run_stopped_at_the_best_epoch(train):
    """skorch's oracle: a second run of exactly `best_epoch` epochs has the same weights, bit for bit."""
    stopped = train("optimizer=adam", "lr=0.02", "epochs=40", "early_stopping.patience=3")
    assert stopped.summary["status"] == "early_stopped"
    best_epoch = int(stopped.summary["best_epoch"])
    assert best_epoch < stopped.summary["epochs"]
    exact = train("optimizer=adam", "lr=0.02", f"epochs={best_epoch}", "early_stopping=none")
    assert_equal(stopped.best_weights, exact.last_state()["weights"])


def test_best_is_the_lowest_not_the_latest(train):
    run = train("optimizer=adam", "lr=0.05", "epochs=12", "early_stopping=none")
    losses = [row["val/loss"] for row in run.rows]
    assert run.summary["best_epoch"] == 1 + losses.index(min(losses))


@pytest.mark.parametrize("early_stopping", ["none", "patience"])
def test_a_run_that_converges_between_evaluations_is_evaluated_where_it_stops(train, dltrain, early_stopping):
    """It had no row, no best weights and no objective."""
    words = ("dataset.limit=200", f"early_stopping={early_stopping}")
    run = train(*words, "early_stopping.tolerance=1e9", "epochs=3")
    assert (run.summary["status"], run.summary["steps"]) == ("converged", 1)
    assert "below tolerance" in run.summary["stop_reason"]
    # second truth: a run that ends at this step, and is evaluated there
    whole = train(*words, "steps=1")
    assert run.timeless_rows == whole.timeless_rows and len(run.rows) == 1
    assert run.summary["objective"] == whole.summary["objective"] == run.rows[0]["val/loss"]
    assert_equal(run.best_weights, whole.best_weights)
    assert dltrain("reproduce", run.path) == 0


def test_tolerance_ends_a_run_as_converged(train):
    run = train("early_stopping.tolerance=1e9", "epochs=3")
    assert run.summary["status"] == "converged"
    assert run.summary["steps"] == 1


def test_diverged_run_stops_before_the_bad_update(train, workdir):
    with pytest.raises(NumericalFailure, match=r"not finite at step \d+.*\nMost often lr is too large"):
        train("optimizer=sgd", "lr=1e9", "epochs=3")
    (file,) = workdir.glob("outputs/*/*/summary.json")
    run = Run(file.parent)
    assert run.summary["status"] == "failed"
    assert "not finite" in run.summary["error"]
    assert not (run.path / "metrics.csv").exists()  # it died in the first epoch, before any evaluation


def test_validation_split_of_every_seed_is_the_same(train):
    from dltrain.training.trainer import Trainer

    kept = []
    original = Trainer.fit

    def spy(self):
        kept.append((self.parts.val.targets.clone(), self.parts.test.targets.clone()))
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "fit", spy)
        train("seed=0", "epochs=1")
        train("seed=1", "epochs=1")
    assert_equal(kept[0], kept[1])


# Resume -----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands in for SIGKILL: nothing of the product catches it and goes on."""


def kill_at(monkeypatch, step):
    """Let the run die right after a step, before anything of it is logged or saved."""
    from dltrain.training.trainer import Trainer

    original = Trainer.observe

    def dying(self):
        if self.step == step:
            raise Killed
        original(self)

    monkeypatch.setattr(Trainer, "observe", dying)


@pytest.mark.parametrize("step", every(3, [1, 21, 22, 30, 42, 50, 62]))
def test_resumed_run_equals_the_undisturbed_one(train, dltrain, workdir, step):
    """Plateau, EMA, dropout, mixup and accumulation together; killed at, before and after an epoch's end."""
    often = ("checkpoint.every_steps=10", "log.every_steps=4")
    golden = train(*EVERYTHING, *often)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, step)
        with pytest.raises(Killed):
            train(*EVERYTHING, *often, "name=killed")
    (file,) = workdir.glob("outputs/killed/*/config.yaml")
    killed = Run(file.parent)
    dltrain("resume", killed.path)
    assert_equal(killed.last_state()["weights"], golden.last_state()["weights"])
    assert_equal(killed.last_state()["optimizer"], golden.last_state()["optimizer"])
    assert_equal(killed.best_weights, golden.best_weights)
    assert_equal(killed.timeless_rows, golden.timeless_rows)
    assert killed.timeless_events == golden.timeless_events
    assert killed.summary["test"] == golden.summary["test"]


SCHEDULES = "constant step multistep exponential inverse inverse_sqrt inverse_k linear polynomial cosine one_cycle triangular".split()
WITH_A_MEMORY_OR_CYCLES = ["plateau", "cosine_restarts"]


@pytest.mark.parametrize(
    "word", [*WITH_A_MEMORY_OR_CYCLES, *(pytest.param(word, marks=pytest.mark.slow) for word in SCHEDULES)]
)
def test_every_schedule_goes_on_in_mid_epoch_as_if_nothing_had_happened(train, dltrain, workdir, word):
    """The same word as lr, momentum and strength of a penalty; 17 steps an epoch, killed at the 25th of 51."""
    choices = ("dataset=breast_cancer", "batch_size=28", "model=linear", "optimizer=momentum", "regularization=[l2]", "epochs=3",
               "evaluation.every_steps=5", "checkpoint.every_steps=4", "early_stopping=none", "diagnostics=[layers,prediction]")  # fmt: skip
    choices += tuple(f"{group}={word}" for group in ("schedule", "momentum_schedule", "penalty_schedule"))
    choices += tuple(
        f"{group}.{key}"
        for group in ("schedule", "momentum_schedule", "penalty_schedule")
        for key in {"step": ["every_steps=9"], "multistep": ["milestones=[0.3,0.6]"]}.get(word, ())
    )
    golden = train(*choices)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, 25)
        with pytest.raises(Killed):
            train(*choices, "name=killed")
    (file,) = workdir.glob("outputs/killed/*/config.yaml")
    dltrain("resume", file.parent)
    assert_equal(Run(file.parent).timeless_rows, golden.timeless_rows)
    assert_equal(Run(file.parent).last_state()["weights"], golden.last_state()["weights"])
    rates = {row["lr"] for row in golden.rows}
    assert len(rates) == 1 if word in ("constant", "plateau") else len(rates) > 1
