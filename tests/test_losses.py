"""Losses against their formulas in float64 and against torch's own means."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from dltrain.config.catalogue import Catalogue
from dltrain.data.spec import DataSpec
from dltrain.losses import BCE, MAE, MSE, CrossEntropy, Huber, Objective, auto

CONF = Path(__file__).parents[1] / "conf" / "loss"
ONE = torch.ones(1)
CLASSES = DataSpec((4,), 5, "classification", ONE, ONE)
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 0.25, 1.25])
WEIGHTED = DataSpec((4,), 5, "classification", ONE, ONE, class_weights=WEIGHTS)
REAL = DataSpec((4,), 3, "regression", ONE, ONE)
OBJECTIVE = DataSpec((1,), 1, "objective", ONE, ONE)


def logits_and_labels(size: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(size, 5, generator=generator, dtype=torch.float64)
    return logits, torch.randint(5, (size,), generator=generator)


@pytest.mark.parametrize("spec", [CLASSES, WEIGHTED], ids=["plain", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("mixed", [False, True])
def test_cross_entropy_is_its_formula(spec: DataSpec, smoothing: float, mixed: bool) -> None:
    logits, labels = logits_and_labels()
    wanted = F.one_hot(labels, 5).double()
    if mixed:
        wanted = 0.7 * wanted + 0.3 * wanted.flip(0)
    losses = CrossEntropy(spec, smoothing)(logits, wanted if mixed else labels)
    smooth = (1 - smoothing) * wanted + smoothing / 5
    weights = torch.ones(5) if spec.class_weights is None else spec.class_weights
    log_share = logits - logits.exp().sum(1, keepdim=True).log()
    torch.testing.assert_close(losses, -(weights.double() * smooth * log_share).sum(1))


def test_indices_and_one_hot_rows_mean_the_same() -> None:
    logits, labels = logits_and_labels()
    for make in (CrossEntropy, BCE):
        for spec in (CLASSES, WEIGHTED):
            loss = make(spec, 0.1)
            torch.testing.assert_close(loss(logits, labels), loss(logits, F.one_hot(labels, 5).float()))


@pytest.mark.parametrize("spec", [CLASSES, WEIGHTED], ids=["plain", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_bce_is_its_formula(spec: DataSpec, smoothing: float) -> None:
    logits, labels = logits_and_labels()
    losses = BCE(spec, smoothing)(logits, labels)
    y = (1 - smoothing) * F.one_hot(labels, 5).double() + smoothing / 5
    share = 1 / (1 + (-logits).exp())
    weights = torch.ones(5) if spec.class_weights is None else spec.class_weights
    twin = -(y * share.log() + (1 - y) * (1 - share).log()).mean(1)
    torch.testing.assert_close(
        losses, weights.double()[labels] * twin
    )  # the sample is weighed, not the column


@pytest.mark.parametrize(
    "make, twin",
    [
        (MSE, lambda e: e * e),
        (MAE, lambda e: e.abs()),
        (lambda s: Huber(s, 0.6), lambda e: torch.where(e.abs() <= 0.6, e * e / 2, 0.6 * (e.abs() - 0.3))),
    ],
)
def test_regression_losses_are_their_formulas(make: Any, twin: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(make(REAL)(outputs, targets), twin(outputs - targets).mean(1))
    column = make(REAL)(outputs[:, :1], targets[:, 0])  # (B,) beside (B, 1) stays a column
    torch.testing.assert_close(column, twin(outputs[:, 0] - targets[:, 0]))


def test_the_loss_of_a_random_guess() -> None:
    labels = torch.arange(5)
    torch.testing.assert_close(
        CrossEntropy(CLASSES)(torch.zeros(5, 5), labels), torch.full((5,), math.log(5))
    )
    torch.testing.assert_close(BCE(CLASSES)(torch.zeros(5, 5), labels), torch.full((5,), math.log(2)))


@pytest.mark.parametrize(
    "spec, kind", [(CLASSES, CrossEntropy), (REAL, MSE), (OBJECTIVE, Objective)], ids=lambda x: str(x)[:12]
)
def test_auto_fits_the_task(spec: DataSpec, kind: type) -> None:
    assert type(auto(spec)) is kind
    assert type(auto(CLASSES, 0.3)) is CrossEntropy


def test_an_objective_is_the_models_own_output() -> None:
    values = torch.tensor([3.0, 4.0])
    assert torch.equal(auto(OBJECTIVE)(values, torch.zeros(2)), values)
    assert torch.equal(auto(OBJECTIVE)(values[:, None], torch.zeros(2)), values)


@pytest.mark.parametrize(
    "make, spec", [(CrossEntropy, WEIGHTED), (BCE, CLASSES), (MSE, REAL), (MAE, REAL), (Huber, REAL)]
)
def test_half_precision_is_computed_in_float32(make: Any, spec: DataSpec) -> None:
    logits = (5 * torch.randn(6, spec.num_classes)).bfloat16()
    targets = torch.arange(6) % 5 if spec.task == "classification" else torch.randn(6, 3)
    losses = make(spec)(logits, targets)
    assert losses.dtype == torch.float32 and losses.shape == (6,)
    torch.testing.assert_close(losses, make(spec)(logits.float(), targets))


def test_losses_carry_no_state() -> None:
    assert CrossEntropy(WEIGHTED).state_dict() == {} and BCE(WEIGHTED).state_dict() == {}


@pytest.mark.parametrize("word", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_yaml_builds(word: str) -> None:
    node = yaml.safe_load((CONF / f"{word}.yaml").read_text())
    module, name = node.pop("_target_").rsplit(".", 1)
    spec = (
        REAL if "quantities" in (Catalogue(CONF.parent).words["loss"][word].declared.needs or ()) else CLASSES
    )
    loss = getattr(import_module(module), name)(spec, **node)
    targets = torch.randn(4, 3) if spec is REAL else torch.arange(4)
    assert loss(torch.randn(4, spec.num_classes), targets).shape == (4,)


@pytest.mark.parametrize(
    "make, spec, keys, message",
    [
        (CrossEntropy, REAL, {}, r"loss=cross_entropy is for the task classification, .*loss=auto"),
        (BCE, OBJECTIVE, {}, r"loss=bce is for the task classification, but .* objective"),
        (MSE, CLASSES, {}, r"loss=mse is for the task regression, but .* classification; use loss=auto"),
        (MAE, CLASSES, {}, r"loss=mae is for the task regression"),
        (Huber, CLASSES, {}, r"loss=huber is for the task regression"),
        (auto, REAL, {"label_smoothing": 0.1}, r"has no labels to smooth; leave out label_smoothing"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_words(make: Any, spec: DataSpec, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(spec, **keys)
