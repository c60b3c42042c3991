"""Datasets with a known answer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dltrain.data.errors import DataError
from dltrain.data.raw import RawData
from dltrain.data.synthetic import none, teacher, teacher_network, two_moons


def inputs_of(raw: RawData) -> Tensor:
    assert isinstance(raw.inputs, Tensor)
    return raw.inputs


def test_moons_without_noise_lie_on_their_half_circles() -> None:
    raw = two_moons(samples=101, noise=0.0)
    points = inputs_of(raw)
    centre = torch.where(raw.targets[:, None] == 0, torch.zeros(2), torch.tensor([1.0, 0.5]))
    torch.testing.assert_close((points - centre).norm(dim=1), torch.ones(101))
    assert ((points[:, 1] >= 0) | (raw.targets == 1)).all()
    assert torch.bincount(raw.targets).tolist() == [51, 50]


def test_moons_are_not_linearly_separable_but_nearly_so() -> None:
    raw = two_moons(samples=400, noise=0.05)
    design = torch.cat([inputs_of(raw), torch.ones(400, 1)], 1)
    answer = torch.linalg.lstsq(design, raw.targets.float()[:, None]).solution
    accuracy = float((((design @ answer)[:, 0] > 0.5).long() == raw.targets).float().mean())
    assert 0.8 < accuracy < 0.97


def test_the_noise_has_its_standard_deviation() -> None:
    noisy, clean = two_moons(4000, 0.2, seed=3), two_moons(4000, 0.0, seed=3)
    assert (inputs_of(noisy) - inputs_of(clean)).std().item() == pytest.approx(0.2, rel=0.03)


@pytest.mark.parametrize("make", [two_moons, teacher])
def test_made_from_their_own_seed_alone(make: object) -> None:
    assert callable(make)
    before = torch.get_rng_state()
    first, again, other = make(), make(), make(seed=1)
    assert inputs_of(first).equal(inputs_of(again)) and first.targets.equal(again.targets)
    assert not inputs_of(first).equal(inputs_of(other))
    assert torch.get_rng_state().equal(before)


def test_the_teacher_answers_its_own_questions() -> None:
    generator = torch.Generator().manual_seed(4)
    network = teacher_network(10, 8, 3, generator)
    with torch.no_grad():
        labels = teacher(seed=4)
        outputs = network(inputs_of(labels))
        assert outputs.argmax(1).equal(labels.targets)
        values = teacher(seed=4, task="regression")
        assert network(inputs_of(values)).equal(values.targets)
    torch.testing.assert_close(outputs.var(0), torch.ones(3), atol=0.15, rtol=0)
    assert outputs.mean(0).abs().max() < 0.15
    assert torch.bincount(labels.targets).min() > 300  # no class is rare


def test_noise_on_the_teacher_is_the_error_that_remains() -> None:
    clean, noisy = (teacher(seed=2, task="regression", noise=noise) for noise in (0.0, 0.3))
    assert (clean.targets - noisy.targets).square().mean().item() == pytest.approx(0.09, rel=0.1)


def test_no_data() -> None:
    raw = none()
    assert raw.task == "objective"
    assert inputs_of(raw).shape == (1, 1) and raw.targets.shape == (1,)


def test_a_classification_needs_two_outputs() -> None:
    with pytest.raises(DataError, match="dataset.outputs is 1; it must be at least 2"):
        teacher(outputs=1)
    assert teacher(outputs=1, task="regression").targets.shape == (2000, 1)
