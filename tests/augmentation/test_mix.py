"""Cutout, mixup and cutmix against per-sample loops, and their marginals."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dltrain.augmentation.draws import Draw, draw_for
from dltrain.augmentation.mix import CutMix, Cutout, Mixup
from dltrain.data.spec import DataSpec

MEAN = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)
STD = torch.tensor([0.25, 0.2, 0.3]).view(3, 1, 1)
SPEC = DataSpec((3, 17, 12), 10, "classification", MEAN, STD)
TABLE = DataSpec((30,), 3, "classification", torch.zeros(30), torch.ones(30))
REAL = DataSpec((3, 17, 12), 2, "regression", MEAN, STD)
OBJECTIVE = DataSpec((1, 1, 1), 1, "objective", torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
N = 10_000


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(spec: DataSpec = SPEC, size: int = 16) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(size, *spec.input_shape, generator=generator(1))
    return inputs, torch.randint(spec.num_classes, (size,), generator=generator(2))


def one_hot(label: Tensor, classes: int) -> Tensor:
    row = torch.zeros(classes)
    row[int(label)] = 1
    return row


@pytest.mark.parametrize("spec", [SPEC, TABLE], ids=["pictures", "table"])
def test_mixup_equals_a_loop(spec: DataSpec) -> None:
    inputs, targets = batch(spec)
    mixup = Mixup(spec, alpha=1.0)
    partner, lam = mixup.parameters(draw_for(inputs, generator()))
    mixed, labels = mixup(inputs, targets, generator())
    assert sorted(partner.tolist()) == list(range(16)) and len(set(lam.tolist())) == 16
    for i, (j, share) in enumerate(zip(partner, lam, strict=True)):
        torch.testing.assert_close(mixed[i], share * inputs[i] + (1 - share) * inputs[j])
        classes = spec.num_classes
        twin = share * one_hot(targets[i], classes) + (1 - share) * one_hot(targets[j], classes)
        torch.testing.assert_close(labels[i], twin, atol=1e-6, rtol=0)
    torch.testing.assert_close(labels.sum(1), torch.ones(16))


def test_cutmix_equals_a_loop() -> None:
    inputs, targets = batch()
    cutmix = CutMix(SPEC, p=0.8)
    partner, edges = cutmix.parameters(draw_for(inputs, generator()))
    mixed, labels = cutmix(inputs, targets, generator())
    for i, (j, (top, left, bottom, right)) in enumerate(zip(partner, edges.tolist(), strict=True)):
        twin, pasted = inputs[i].clone(), 0
        for y in range(max(top, 0), min(bottom, 17)):
            for x in range(max(left, 0), min(right, 12)):
                twin[:, y, x] = inputs[j][:, y, x]
                pasted += 1
        kept = 1 - pasted / (17 * 12)
        assert torch.equal(mixed[i], twin)
        label = kept * one_hot(targets[i], 10) + (1 - kept) * one_hot(targets[j], 10)
        torch.testing.assert_close(labels[i], label, atol=1e-6, rtol=0)
    assert len(set(edges.flatten().tolist())) > 8


def test_cutout_equals_a_loop() -> None:
    inputs, targets = batch()
    mean = torch.tensor([0.3, 0.4, 0.6]).view(3, 1, 1)
    raw = replace(SPEC, mean=torch.zeros_like(MEAN), std=torch.ones_like(STD), average=mean)
    for spec, fill, cover in (
        (SPEC, "mean", torch.zeros(3)),
        (SPEC, "black", (-MEAN / STD).flatten()),
        (raw, "mean", mean.flatten()),
        (raw, "black", torch.zeros(3)),
    ):
        cutout = Cutout(spec, 5, fill)  # type: ignore[arg-type]
        tops, lefts = cutout.parameters(draw_for(inputs, generator()))
        covered, same = cutout(inputs, targets, generator())
        assert same is targets
        for i, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True)):
            twin = inputs[i].clone()
            for y in range(max(top, 0), min(top + 5, 17)):
                for x in range(max(left, 0), min(left + 5, 12)):
                    twin[:, y, x] = cover
            assert torch.equal(covered[i], twin)


def test_cutout_centers_are_uniform() -> None:
    tops, lefts = Cutout(SPEC, 4).parameters(Draw(N, 17, 12, generator(), torch.device("cpu")))
    for edge, side in ((tops + 2, 17), (lefts + 2, 12)):
        shares = torch.bincount(edge, minlength=side) / N
        assert len(shares) == side
        assert (shares - 1 / side).abs().max() < 4.5 * math.sqrt(1 / side / N)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 4.0])
def test_shares_are_beta(alpha: float) -> None:
    from scipy import stats

    values = Draw(N, 1, 1, generator(), torch.device("cpu")).beta(alpha).double()
    assert values.isfinite().all() and values.min() >= 0 and values.max() <= 1
    assert abs(values.mean() - 0.5) < 4 / math.sqrt(4 * (2 * alpha + 1) * N)
    inner = values[(values > 1e-3) & (values < 1 - 1e-3)].numpy()  # float32 rounds the rest onto 0 and 1
    low, high = stats.beta.cdf([1e-3, 1 - 1e-3], alpha, alpha)
    share = len(inner) / N
    assert abs(share - (high - low)) < 4 * math.sqrt(0.25 / N)
    test = stats.kstest(inner, lambda x: (stats.beta.cdf(x, alpha, alpha) - low) / (high - low))
    assert test.pvalue > 1e-3


def test_cutmix_areas() -> None:
    _, edges = CutMix(SPEC, p=0.25).parameters(Draw(N, 17, 12, generator(), torch.device("cpu")))
    area = (edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])
    assert abs((area > 17 * 12 / 10).float().mean() - 0.25 * 0.9) < 0.03  # uniform shares, rounded down
    middle = (edges[:, 2] + edges[:, 0])[area > 0].double() / 2
    assert abs(middle.mean() - 8) < 0.5


def test_mixing_twice_keeps_probabilities() -> None:
    inputs, targets = batch()
    both = CutMix(SPEC)(*Mixup(SPEC)(inputs, targets, generator()), generator())[1]
    torch.testing.assert_close(both.sum(1), torch.ones(16))
    assert both.min() >= 0


@pytest.mark.parametrize("make", [Mixup, CutMix])
@pytest.mark.parametrize("shape", [(16,), (16, 2)])
def test_regression_targets_mix_when_asked(make: Any, shape: tuple[int, ...]) -> None:
    inputs, targets = batch()[0], torch.randn(shape, generator=generator())
    transform = make(REAL, regression=True)
    partner = transform.parameters(draw_for(inputs, generator()))[0]
    _, mixed = transform(inputs, targets, generator())
    assert mixed.shape == shape
    low, high = torch.minimum(targets, targets[partner]), torch.maximum(targets, targets[partner])
    assert ((mixed >= low - 1e-6) & (mixed <= high + 1e-6)).all()


@pytest.mark.parametrize(
    "make, spec, keys, message",
    [
        (Mixup, REAL, {}, r"mixup on a regression .*augmentation\.mixup\.regression=true"),
        (Mixup, OBJECTIVE, {}, r"mixup mixes targets, but dataset=none has none"),
        (CutMix, REAL, {}, r"augmentation\.cutmix\.regression=true"),
        (CutMix, TABLE, {}, r"augmentation=cutmix needs pictures"),
        (Cutout, TABLE, {}, r"augmentation=cutout needs pictures"),
        (Cutout, SPEC, {"size": 13}, r"cutout\.size is 13; it must be <= 12, the shorter side"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_words(make: Any, spec: DataSpec, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(spec, **keys)
