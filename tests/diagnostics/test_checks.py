"""`dltrain check`: each check passes on what is right, and fails, by name, on the mistake that it is for."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from dltrain.data.spec import Batch
from dltrain.diagnostics import checks
from dltrain.errors import UserError

LOSS = nn.CrossEntropyLoss(reduction="none")


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3))


def data(samples=16):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, 6, generator=generator), torch.arange(samples) % 3


class WrongSquare(torch.autograd.Function):
    """x², with the slope of x³: the mistake of a layer written by hand."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, grad):
        return 3 * ctx.saved_tensors[0] ** 2 * grad


class Wrong(nn.Module):
    def __init__(self):
        super().__init__()
        self.below, self.above = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, inputs):
        return self.above(WrongSquare.apply(self.below(inputs)))


class Split:
    def __init__(self, inputs):
        self.inputs = inputs

    def __len__(self):
        return len(self.inputs)

    def batches(self, order, size):
        for part in order.split(size):
            yield Batch(self.inputs[part], torch.zeros(len(part)), part)


def test_right_gradients_pass_and_wrong_ones_are_named():
    assert all(check.passed for check in checks.gradients(net(), LOSS, *data()))
    found = {check.name: check.passed for check in checks.gradients(Wrong(), LOSS, *data())}
    assert found == {
        "gradient of below.weight": False, "gradient of below.bias": False,
        "gradient of above.weight": True, "gradient of above.bias": True,
    }  # fmt: skip


def test_the_first_loss_is_that_of_a_guess_unless_the_last_layer_is_large():
    model = net()
    check = checks.first_loss(model, LOSS, *data())
    assert check.passed and check.wanted.startswith("1.0986")
    model[3].weight.data *= 30
    assert not checks.first_loss(model, LOSS, *data()).passed


def test_what_can_be_learnt_by_heart_and_what_cannot():
    inputs, targets = data()
    model = net()
    before = [p.detach().clone() for p in model.parameters()]
    assert checks.overfit(model, LOSS, inputs, targets).passed
    assert model.training and model[2].p == 0.5  # on a copy
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert not checks.overfit(model, LOSS, torch.zeros_like(inputs), targets).passed  # all samples look alike


def test_a_sample_in_two_splits_is_counted():
    inputs, _ = data(20)
    assert checks.no_leak({"train": Split(inputs[:15]), "test": Split(inputs[15:])}).passed
    check = checks.no_leak({"train": Split(inputs[:15]), "test": Split(inputs[13:])})
    assert not check.passed and check.found == "2 of train in test"


def test_inputs_with_a_mean_are_told_unless_they_are_meant():
    assert not checks.inputs_are_centred(Split(torch.ones(5, 4)), normalized=True).passed
    assert checks.inputs_are_centred(Split(torch.ones(5, 4)), normalized=False).passed
    assert checks.inputs_are_centred(Split(torch.tensor([[1.0, -1.0]])), normalized=True).passed


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "dataset=diabetes",
        "dataset=breast_cancer loss=bce dataset.class_weights=balanced",
        "model=cnn regularization=[dropout]",
    ],
)
def test_the_shipped_words_pass(dltrain, workdir, capsys, arguments):
    assert dltrain("check", *arguments.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 6 and all(line.startswith("ok ") for line in lines)
    assert not list(workdir.iterdir())


def test_a_failed_check_is_seen_in_the_exit_code(dltrain, capsys):
    assert dltrain("check", "model=linear", "initializer=normal", "initializer.std=9") == 10
    assert re.search(r"^FAILED +first loss", capsys.readouterr().out, re.MULTILINE)


def test_study_problems_have_nothing_to_check(dltrain):
    with pytest.raises(UserError, match="dataset=none has none"):
        dltrain("check", "dataset=none", "model=quadratic")
