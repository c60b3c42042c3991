"""`loss` is the same number whatever is minimized, and `objective` what is minimized: formulas in float64 as second truth."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run
from torch import Tensor

from dltrain import api
from dltrain.commands import evaluate
from dltrain.config import saved
from dltrain.config.compose import open_catalogue, open_hydra
from dltrain.config.door import door_for_saved, rights_of_user
from dltrain.data.spec import DataSpec
from dltrain.errors import CheckpointProblem, UserError
from dltrain.losses import BCE, CrossEntropy, combine, is_yardstick
from dltrain.run import build as builder
from dltrain.run.scoring import load_best, score_runs
from dltrain.sweep import sweep
from dltrain.sweep.plan.checks import check_all
from dltrain.sweep.plan.reading import read_plan
from dltrain.sweep.record import check_scale_of
from dltrain.training.parts import Parts
from dltrain.training.running_means import RunningMeans

NET = ("epochs=2", "model.hidden=[16]")
MINE = """
import torch.nn.functional as F
from torch import nn
from dltrain.losses import CrossEntropy

class Own:
    def __init__(self, spec): pass
    def __call__(self, logits, targets): return F.cross_entropy(logits, targets, reduction="none")

class Hinge(nn.Module):  # sees the outputs themselves, not their differences alone
    def __init__(self, spec): super().__init__()
    def forward(self, logits, targets): return (1 - logits.gather(1, targets[:, None])[:, 0]).relu() + logits.abs().mean(1)

class Focal(CrossEntropy):
    def forward(self, logits, targets):
        losses = super().forward(logits, targets)
        return (1 - (-losses).exp()) ** 2 * losses
"""


@pytest.fixture
def own(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses of the user's: loss=own, loss=hinge and loss=focal."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("my_losses", None)
    (workdir / "my_losses.py").write_text(MINE)
    (workdir / "conf" / "loss").mkdir(parents=True)
    for name in ("Own", "Hinge", "Focal"):
        (workdir / "conf" / "loss" / f"{name.lower()}.yaml").write_text(f"_target_: my_losses.{name}\n")


# Second truths, in float64 ----------------------------------------------------------------------------------------


def one_hot(logits: Tensor, targets: Tensor) -> Tensor:
    if targets.ndim == 2:
        return targets.double()
    return torch.eye(logits.shape[1], dtype=torch.float64)[targets]


def log_shares(logits: Tensor) -> Tensor:
    return logits.double() - torch.logsumexp(logits.double(), 1, keepdim=True)


def plain_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return -(one_hot(logits, targets) * log_shares(logits)).sum(1)


def smoothed(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return -((0.9 * one_hot(logits, targets) + 0.1 / logits.shape[1]) * log_shares(logits)).sum(1)


def weighed(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return -(weights * one_hot(logits, targets) * log_shares(logits)).sum(1)


def sigmoids(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    share, truth = 1 / (1 + (-logits.double()).exp()), one_hot(logits, targets)
    return -(truth * share.log() + (1 - truth) * (1 - share).log()).mean(1)


def sigmoid_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    share = 1 / (1 + (-logits.double()).exp())
    return -(one_hot(logits, targets) * (share / share.sum(1, keepdim=True)).log()).sum(1)


def weighed_sigmoids(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return (one_hot(logits, targets) @ weights) * sigmoids(logits, targets, weights)


def squares(outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return (outputs.double() - targets.double()).square().mean(1)


def distances(outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return (outputs.double() - targets.double()).abs().mean(1)


def huber(outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    error = (outputs.double() - targets.double()).abs()
    return torch.where(error <= 20, error**2 / 2, 20 * (error - 10)).mean(1)


Formula = Callable[[Tensor, Tensor, Tensor], Tensor]
DIFFERENT: dict[str, tuple[Formula, Formula]] = {
    "loss=bce": (sigmoid_entropy, sigmoids),
    "regularization=[label_smoothing]": (plain_entropy, smoothed),
    "loss=cross_entropy loss.label_smoothing=0.1 regularization=[l2]": (plain_entropy, smoothed),
    "dataset=breast_cancer dataset.class_weights=balanced": (plain_entropy, weighed),
    "dataset=breast_cancer dataset.class_weights=balanced loss=bce": (sigmoid_entropy, weighed_sigmoids),
    "dataset=diabetes loss=mae": (squares, distances),
    "dataset=diabetes loss=huber loss.delta=20": (squares, huber),
}


def rebuilt(run: Run) -> tuple[Parts, Any]:
    catalogue = open_catalogue()
    config = saved.read(run.path, catalogue, [])
    parts, plan = builder.build(config, door_for_saved(config, catalogue, []))
    load_best(parts, run.path)
    return parts, plan


def outputs(parts: Parts, split: Any) -> tuple[Tensor, Tensor]:
    batch = next(iter(split.batches(torch.arange(len(split)), len(split))))
    parts.model.eval()
    with torch.no_grad():
        return parts.model(batch.inputs), batch.targets


@pytest.mark.parametrize("choice", DIFFERENT)
def test_every_split_reports_the_plain_loss_and_what_is_minimized_beside_it(train, monkeypatch, choice):
    seen: list[tuple[Tensor, Tensor]] = []
    add = RunningMeans.add
    monkeypatch.setattr(
        RunningMeans, "add", lambda self, *batch: (seen.append(batch[1:]), add(self, *batch))[1]
    )
    run = train(*NET, *choice.split())
    plain, minimized = DIFFERENT[choice]
    parts, plan = rebuilt(run)
    weights = parts.spec.class_weights
    weights = torch.ones(parts.spec.num_classes).double() if weights is None else weights.double()

    best = run.summary["best"]
    step = int(best["step"])
    logits, targets = (
        torch.cat(column)
        for column in zip(*seen[step - plan.steps_per_epoch : step], strict=True)
    )  # fmt: skip
    for split, prefix, found in (
        ((logits, targets), "train/", best),
        (outputs(parts, parts.val), "val/", best),
        (outputs(parts, parts.test), "", run.summary["test"]),
    ):
        assert found[f"{prefix}loss"] == pytest.approx(float(plain(*split, weights).mean()), rel=1e-5)
        assert found[f"{prefix}objective"] == pytest.approx(
            float(minimized(*split, weights).mean()), rel=1e-5
        )
        assert found[f"{prefix}loss"] != pytest.approx(found[f"{prefix}objective"], rel=1e-3)
    assert run.summary["objective"] == best["val/loss"] == min(row["val/loss"] for row in run.rows)


@pytest.mark.parametrize(
    "words, formula",
    [
        ("augmentation=[mixup]", plain_entropy),
        ("augmentation=[mixup] loss=bce", sigmoid_entropy),
        ("augmentation=[cutmix] regularization=[label_smoothing]", plain_entropy),
    ],
)
def test_mixed_targets_are_scored_by_the_cross_entropy_with_their_shares(train, monkeypatch, words, formula):
    seen: list[tuple[Tensor, Tensor]] = []
    add = RunningMeans.add
    monkeypatch.setattr(
        RunningMeans, "add", lambda self, *batch: (seen.append(batch[1:]), add(self, *batch))[1]
    )
    row = train("epochs=1", "model.hidden=[16]", *words.split()).rows[-1]
    logits, targets = (torch.cat(column) for column in zip(*seen, strict=True))
    assert targets.ndim == 2
    wanted = formula(logits, targets, torch.ones(10))
    assert row["train/loss"] == pytest.approx(float(wanted.mean()), rel=1e-5)


PLAIN = (
    "", "loss=cross_entropy", "regularization=[l2,dropout]", "augmentation=[mixup]", "dataset=diabetes", "dataset=diabetes loss=mse",
    "dataset=none model=quadratic",
)  # fmt: skip


@pytest.mark.parametrize("choice", PLAIN)
def test_a_loss_that_is_the_yardstick_has_no_second_column_and_costs_nothing(train, monkeypatch, choice):
    calls: list[str] = []
    means = RunningMeans.__init__
    monkeypatch.setattr(
        RunningMeans,
        "__init__",
        lambda self, *given: (
            means(self, *given),
            calls.extend(m.__class__.__name__ for m, _ in self.computed),
        )[0],
    )
    run = train("steps=3", *choice.split())
    assert not any("objective" in column for column in run.rows[-1])
    assert "objective" not in run.summary["test"]
    assert all(name == "function" for name in calls)  # accuracy, or the absolute error; no loss a second time


# A loss of one's own ----------------------------------------------------------------------------------------------


def test_a_loss_of_ones_own_is_an_objective_and_changes_no_yardstick(own, train, capsys):
    plain, mine = train(*NET, "loss=cross_entropy"), train(*NET, "loss=own")
    for ours, theirs in zip(plain.timeless_rows, mine.timeless_rows, strict=True):
        assert ours.items() <= theirs.items()  # the same function trained the same weights
        assert {theirs[f"{split}/objective"] for split in ("train", "val")} == {
            ours[f"{split}/loss"] for split in ("train", "val")
        }
    assert evaluate.run([str(mine.path)]) == 0
    assert "objective" in capsys.readouterr().out.splitlines()[0].split()


def test_a_subclass_of_the_yardstick_is_another_loss(own, train):
    row = train(*NET, "loss=focal").rows[-1]
    assert row["val/objective"] < 0.9 * row["val/loss"]
    ones = torch.ones(1)
    spec = DataSpec((4,), 3, "classification", ones, ones)
    assert is_yardstick(CrossEntropy(spec), spec)
    assert not is_yardstick(type("Mine", (CrossEntropy,), {})(spec), spec)
    assert not is_yardstick(BCE(spec), spec)


def test_what_is_minimized_can_be_stopped_on_and_watched_where_it_differs(train, dltrain, workdir):
    run = train(
        *NET,
        "loss=bce",
        "early_stopping.metric=val/objective",
        "schedule=plateau",
        "schedule.metric=val/objective",
    )
    assert run.summary["objective"] == run.summary["best"]["val/objective"]
    with pytest.raises(UserError, match=r"val/objective, which this run does not measure"):
        dltrain(*NET, "early_stopping.metric=val/objective", "quiet=true")


# Sweeps -----------------------------------------------------------------------------------------------------------

DRY = ("-m", "sweep.dry_run=true", "epochs=1")
CHANGES = [
    ("regularization=[],[label_smoothing]", r"loss\.label_smoothing is 0 or 0\.1"),
    ("loss=bce,cross_entropy", r"loss is bce or cross_entropy"),
    ("dataset=diabetes loss=mse,mae", r"loss is mae or mse"),
    ("loss=bce dataset.class_weights=none,balanced", r"dataset\.class_weights is balanced or none"),
    ("sweep=random sweep.trials=3 loss.label_smoothing=interval(0,0.3)", r"loss\.label_smoothing is 0 or 0\.3"),
]  # fmt: skip


@pytest.mark.parametrize("axes, says", CHANGES)
def test_an_axis_that_changes_the_objective_is_not_compared_by_it(dltrain, workdir, capsys, axes, says):
    cure = "early_stopping.metric=val/loss"
    with pytest.raises(UserError, match=f"(?s)val/objective.*{says}.*: {cure}$") as refused:
        dltrain(*DRY, *axes.split(), "early_stopping.metric=val/objective")
    assert len(str(refused.value).splitlines()) <= 3 and not list(workdir.iterdir())
    assert dltrain(*DRY, *axes.split(), cure) == 0
    assert dltrain(*DRY, "loss=bce", "lr=0.1,0.2", "early_stopping.metric=val/objective") == 0


def test_several_objectives_of_a_search_are_checked_alike(dltrain, workdir):
    axes = ("sweep=nsga2", "sweep.trials=3", "loss=bce,cross_entropy")
    with pytest.raises(UserError, match=r"sweep\.objectives=\[val/loss,parameters\]$"):
        dltrain(*DRY, *axes, "sweep.objectives=[val/objective,parameters]")
    assert dltrain(*DRY, *axes, "sweep.objectives=[val/loss,parameters]") == 0


TRAINING = [
    ("train/loss", "augmentation=none,[mixup]", r"augmentation is \[mixup\] or none.*: early_stopping\.metric=val/loss$"),
    ("train/loss", "sampler=none,hard dataset.val_fraction=0",
     r"sampler is hard or none.*: dataset\.val_fraction=0\.1 early_stopping\.metric=val/loss$"),
    ("gap", "lr=0.1,0.2", r"learned nothing has none\.\nRank by the loss: early_stopping\.metric=val/loss$"),
]  # fmt: skip


@pytest.mark.parametrize("metric, axes, says", TRAINING)
def test_a_sweep_is_not_ranked_by_a_metric_of_training_that_its_axes_change(dltrain, metric, axes, says):
    with pytest.raises(UserError, match=f"(?s){says}") as refused:
        dltrain(*DRY, *axes.split(), f"early_stopping.metric={metric}")
    cure = str(refused.value).rpartition(": ")[2].split()
    kept = [text for text in axes.split() if not text.startswith("dataset.val_fraction")]
    assert dltrain(*DRY, *kept, *cure) == 0
    assert dltrain(*DRY, "seed=0,1", f"early_stopping.metric={metric}") == 0


# Several models, or several passes, as one ------------------------------------------------------------------------

ALONE = (
    "loss=bce", "loss=cross_entropy", "regularization=[label_smoothing]", "loss=bce loss.label_smoothing=0.2",
    "dataset=breast_cancer dataset.class_weights=balanced loss=bce", "dataset=breast_cancer dataset.class_weights=balanced",
    "dataset=diabetes", "dataset=diabetes loss=mae", "dataset=diabetes loss=huber", "loss=own", "loss=hinge", "loss=focal",
)  # fmt: skip


def scores(*runs: Run) -> list[Any]:
    catalogue = open_catalogue()
    configs = [saved.read(run.path, catalogue, []) for run in runs]
    doors = [door_for_saved(config, catalogue, []) for config in configs]
    return score_runs([run.path for run in runs], configs, doors)


@pytest.mark.parametrize("choice", ALONE)
def test_two_equal_runs_together_score_what_one_scores(own, train, choice):
    run = train(*NET, "lr=0.03", *choice.split())
    found = scores(run, run)
    alone, together = found[0:2], found[4:6]
    assert [s.run for s in together] == ["ensemble of 2"] * 2
    for one, both in zip(alone, together, strict=True):
        for name, value in one.values.items():
            assert both.values[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name


def test_sigmoids_are_averaged_as_sigmoids_and_softmax_as_softmax(train):
    first, second = (train(*NET, "loss=bce", "lr=0.03", f"seed={seed}") for seed in (0, 1))
    pairs = [outputs(parts, parts.val) for parts, _ in map(rebuilt, (first, second))]
    (one, targets), (other, _) = pairs
    shares = (torch.sigmoid(one.double()) + torch.sigmoid(other.double())) / 2
    wanted = sigmoids((shares / (1 - shares)).log(), targets, torch.ones(10)).mean()
    together = scores(first, second)[4].values
    assert together["objective"] == pytest.approx(float(wanted), rel=1e-5)

    third = train(
        *NET, "lr=0.03"
    )  # another loss: no objective in common, and the mean of the probabilities, as the yardstick takes it
    (last, _), mixed = outputs(rebuilt(third)[0], rebuilt(third)[0].val), scores(first, third)[4].values
    ones = torch.sigmoid(one.double())
    shares = (ones / ones.sum(1, keepdim=True) + last.double().softmax(1)) / 2
    assert "objective" not in mixed
    assert mixed["loss"] == pytest.approx(float(-shares[range(len(targets)), targets].log().mean()), rel=1e-5)


def test_the_optimum_of_bce_predicts_the_probabilities_that_made_the_data(workdir):
    """The tester's data: the softmax of logits that were trained as sigmoids is p²/(p² + (1 − p)²), 0.845 for 0.70."""
    draw = np.random.default_rng(1)
    inputs = draw.normal(size=(4000, 2)).astype("f4")
    truth = 1 / (1 + np.exp(-(0.85 + 0.8 * inputs[:, 0])))
    targets = (draw.random(4000) < truth).astype(int)
    np.savez("two.npz", inputs=inputs, targets=targets)
    keys: dict[str, Any] = {
        "dataset.path": "two.npz",
        "model": "linear",
        "optimizer": "lbfgs",
        "batch_size": "full",
        "quiet": True,
    }
    missed = {}
    for loss in ("cross_entropy", "bce"):
        run = api.train("metrics=[accuracy,calibration_error]", dataset="npz", epochs=20, loss=loss, **keys)
        found = run.predict(split="test")
        rows = np.array(found.where) - 1
        missed[loss] = np.abs(found.probabilities[:, 1] - truth[rows]).mean()
        # evaluate, predict and the run itself have one loss, which beats a constant guess
        scored = run.evaluate()["test"]
        of_truth = found.probabilities[np.arange(len(rows)), targets[rows]]
        assert -np.log(of_truth).mean() == pytest.approx(scored["loss"], rel=1e-6)
        assert run.summary.test["loss"] == pytest.approx(scored["loss"], rel=1e-6)
        assert run.summary.test["loss"] < run.summary.constant["loss"] - 0.03
        assert scored["calibration_error"] < 0.06
        assert scored["calibration_error"] == pytest.approx(run.summary.test["calibration_error"], rel=1e-6)
    assert missed["bce"] == pytest.approx(missed["cross_entropy"], rel=0.05) and missed["bce"] < 0.02


SIGMOIDS = """
import torch.nn.functional as F

class Sigmoids:
    def __init__(self, spec): pass
    def __call__(self, logits, targets):
        return F.binary_cross_entropy_with_logits(logits, F.one_hot(targets, logits.shape[1]).float(), reduction="none").mean(1)
    def to_softmax(self, outputs): return F.logsigmoid(outputs)
"""


def test_a_loss_of_ones_own_says_what_its_probabilities_are(workdir, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("my_sigmoids", None)
    (workdir / "my_sigmoids.py").write_text(SIGMOIDS)
    (workdir / "conf" / "loss").mkdir(parents=True)
    (workdir / "conf" / "loss" / "sigmoids.yaml").write_text("_target_: my_sigmoids.Sigmoids\n")
    own, shipped = (api.train(*NET, loss=word, lr=0.03, quiet=True) for word in ("sigmoids", "bce"))
    np.testing.assert_allclose(
        own.predict(split="val").probabilities, shipped.predict(split="val").probabilities, rtol=1e-5
    )
    assert own.metrics["val/loss"].tolist() == pytest.approx(shipped.metrics["val/loss"].tolist(), rel=1e-6)


@pytest.mark.parametrize("kind", [BCE, CrossEntropy])
def test_outputs_that_saturate_are_combined_without_infinities(kind):
    ones = torch.ones(1)
    loss = kind(DataSpec((4,), 3, "classification", ones, ones))
    logits = torch.tensor([[90.0, -90.0, 0.0], [-200.0, 5.0, 200.0]])
    together, targets = combine(loss, torch.stack([logits, logits, logits])), torch.tensor([1, 0])
    torch.testing.assert_close(loss(together, targets), loss(logits, targets), rtol=1e-6, atol=1e-6)


# Class weights ----------------------------------------------------------------------------------------------------


def weighted_logistic_regression(inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Newton's method in float64 on Σ w_i log(1 + exp(−±(x_i·a + b))); returns (a, b)."""
    design = torch.cat([inputs.double(), torch.ones(len(inputs), 1, dtype=torch.float64)], 1)
    solution = torch.zeros(design.shape[1], dtype=torch.float64)
    for _ in range(30):
        share = torch.sigmoid(design @ solution)
        gradient = design.T @ (weights * (share - targets))
        hessian = design.T @ (design * (weights * share * (1 - share))[:, None])
        solution = solution - torch.linalg.solve(hessian, gradient)
    return solution


@pytest.mark.parametrize("balanced, share", [(True, 0.34), (False, 0.015)])
def test_class_weights_act_on_samples_in_bce(train, workdir, balanced, share):
    """The faulty input `imbalanced.npz`: one sample in ten is of the second class, and a mean apart by 1."""
    draw = np.random.default_rng(0)
    targets = (draw.random(2000) < 0.1).astype(int)
    inputs = draw.normal(size=(2000, 4)).astype("f4")
    inputs[:, 0] += targets
    np.savez(workdir / "imbalanced.npz", inputs=inputs, targets=targets)
    run = train(
        "dataset=npz", "dataset.path=imbalanced.npz", "model=linear", "loss=bce", "optimizer=lbfgs", "batch_size=full",
        "epochs=30", "early_stopping=none", "early_stopping.metric=train/objective",
        f"dataset.class_weights={'balanced' if balanced else 'none'}",
    )  # fmt: skip
    parts, _ = rebuilt(run)
    batch = next(iter(parts.train.batches(torch.arange(len(parts.train)), len(parts.train))))
    truth = batch.targets.double()
    weights = torch.ones(len(truth)).double()
    if balanced:
        weights = torch.where(truth == 1, 1 / (2 * truth.mean()), 1 / (2 * (1 - truth.mean())))
    solution = weighted_logistic_regression(batch.inputs, truth, weights)
    for split in (parts.train, parts.val, parts.test):
        batch = next(iter(split.batches(torch.arange(len(split)), len(split))))
        wanted = batch.inputs.double() @ solution[:-1] + solution[-1]
        found, _ = outputs(parts, split)
        torch.testing.assert_close(found[:, 1].double(), wanted, rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(found[:, 0].double(), -wanted, rtol=1e-2, atol=1e-2)
    found, _ = outputs(parts, parts.train)
    assert float((found[:, 1] > found[:, 0]).double().mean()) == pytest.approx(share, abs=0.03)


def test_class_weights_that_a_loss_of_ones_own_does_not_use_are_refused(own, train, dltrain, workdir):
    balanced = ("dataset=breast_cancer", "dataset.class_weights=balanced", "epochs=1", "quiet=true")
    with pytest.raises(
        UserError, match=r"loss=own does not use .*\n.*dataset\.class_weights=none, or loss=cross_entropy"
    ):
        dltrain(*balanced, "loss=own")
    assert not (workdir / "outputs").exists()
    for cure in (
        "loss=own dataset.class_weights=none",
        "loss=cross_entropy",
        "loss=focal",
    ):  # it inherits their use
        train(*balanced[:-1], *cure.split())


# A sweep of before ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis, mixes", [("loss=bce,cross_entropy", True), ("lr=0.1,0.2", False)])
def test_a_sweep_of_before_is_gone_on_with_where_its_loss_means_the_same(workdir, axis, mixes):
    catalogue = open_catalogue()
    texts = [axis, "epochs=1", "name=s", "quiet=true"]
    plan = read_plan(texts, "config", catalogue, open_hydra(catalogue), rights_of_user(catalogue))
    check_all(plan)
    folder = workdir / "outputs" / "s" / "2026-01-01_00-00-00-aaaa"
    folder.mkdir(parents=True)
    record = {"identity": plan.identity(), "overrides": texts, "finished": False}
    (folder / "sweep.json").write_text(json.dumps(record))
    if mixes:
        with pytest.raises(CheckpointProblem, match=r"earlier version, whose val/loss .*\nBegin a new sweep"):
            check_scale_of(folder, plan)
        assert sweep.folder_for(plan) != folder.relative_to(workdir)
    else:
        check_scale_of(folder, plan)
        assert sweep.folder_for(plan) == folder.relative_to(workdir)
    (folder / "sweep.json").write_text(json.dumps(record | {"loss": "plain"}))
    check_scale_of(folder, plan)
    assert sweep.folder_for(plan) == folder.relative_to(workdir)
