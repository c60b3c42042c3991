"""Closed-form initializers: torch.nn.init as second truth, moments, exact counts, and what they are for."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import nn

from dltrain.initializers import closed_form
from dltrain.initializers.closed_form import CLOSED_FORMS
from dltrain.initializers.layers import resolve_gain
from dltrain.ranges import InitializerWord
from dltrain.weight_layers import GAINS, weight_layers

RELU, TANH = math.sqrt(2), 5 / 3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def net():
    """Linear layers and convolutions, normalization, an activation and a head."""
    torch.manual_seed(0)
    convolution = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*convolution, nn.Linear(8 * 36, 20), nn.LayerNorm(20), nn.Linear(20, 10))


def wide(inner=400, outer=300):
    return nn.Sequential(nn.Linear(inner, outer), nn.ReLU())


def mlp(widths, activation=nn.ReLU):
    torch.manual_seed(0)
    layers = []
    for inner, outer in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(inner, outer), activation()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize(
    "word, keys, twin",
    [
        ("zeros", {}, lambda w, g: nn.init.zeros_(w)),
        ("constant", {"value": 0.3}, lambda w, g: nn.init.constant_(w, 0.3)),
        ("uniform", {"a": -0.2, "b": 0.3}, lambda w, g: nn.init.uniform_(w, -0.2, 0.3, generator=g)),
        ("normal", {"mean": 0.1, "std": 0.2}, lambda w, g: nn.init.normal_(w, 0.1, 0.2, generator=g)),
        (
            "truncated_normal",
            {"mean": 0.1, "std": 0.2, "bound": 1.5},
            lambda w, g: nn.init.trunc_normal_(w, 0.1, 0.2, 0.1 - 0.3, 0.1 + 0.3, generator=g),
        ),
        # torch's layers draw from kaiming_uniform_(a=√5), which is U(±1/√fan_in)
        ("fan_in_uniform", {}, lambda w, g: nn.init.kaiming_uniform_(w, math.sqrt(5), generator=g)),
        ("xavier_uniform", {}, lambda w, g: nn.init.xavier_uniform_(w, RELU, generator=g)),
        ("xavier_uniform", {"gain": 1.0}, lambda w, g: nn.init.xavier_uniform_(w, generator=g)),
        ("xavier_normal", {"gain": 0.7}, lambda w, g: nn.init.xavier_normal_(w, 0.7, generator=g)),
        ("kaiming_uniform", {}, lambda w, g: nn.init.kaiming_uniform_(w, nonlinearity="relu", generator=g)),
        ("kaiming_normal", {}, lambda w, g: nn.init.kaiming_normal_(w, nonlinearity="relu", generator=g)),
        (
            "kaiming_normal",
            {"mode": "fan_out"},
            lambda w, g: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu", generator=g),
        ),
        (
            "kaiming_uniform",
            {"gain": TANH},
            lambda w, g: nn.init.kaiming_uniform_(w, nonlinearity="tanh", generator=g),
        ),
        ("orthogonal", {}, lambda w, g: nn.init.orthogonal_(w, RELU, generator=g)),
    ],
)
def test_equals_torch_under_the_same_generator(word, keys, twin):
    own, expected, draws = net(), net(), generator(3)
    getattr(closed_form, word)(own, generator(3), None, **keys)
    for layer in weight_layers(expected):
        with torch.no_grad():
            twin(layer.weight, draws)
            layer.bias.zero_()
    for name, tensor in own.state_dict().items():
        torch.testing.assert_close(tensor, expected.state_dict()[name], rtol=1e-6, atol=0)


@pytest.mark.parametrize("function", CLOSED_FORMS, ids=lambda function: function.__name__)
def test_zeroes_biases_leaves_norms_and_draws_from_its_generator_alone(function):
    first, second, other, untouched = net(), net(), net(), net()
    with torch.no_grad():
        for model in (first, second, other, untouched):
            model[1].weight.fill_(3)
            model[1].bias.fill_(4)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    function(first, generator(1), None)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    function(second, generator(1), None)
    function(other, generator(2), None)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])
    assert (first[1].weight == 3).all() and (first[1].bias == 4).all()
    if function is closed_form.default:
        assert torch.equal(first[4].bias, untouched[4].bias) and torch.equal(
            first[4].weight, untouched[4].weight
        )
        return
    assert not any(layer.bias.any() for layer in weight_layers(first))
    drawn = function not in (closed_form.zeros, closed_form.constant)
    equal = [torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True)]
    assert all(equal) != drawn


@pytest.mark.parametrize(
    "word, keys, mean, variance",
    [
        ("uniform", {"a": -0.1, "b": 0.3}, 0.1, 0.4**2 / 12),
        ("normal", {"mean": 0.5, "std": 0.2}, 0.5, 0.04),
        ("truncated_normal", {"std": 0.1}, 0, 0.01 * 0.7737),  # 1 − 2·2φ(2)/(2Φ(2) − 1)
        ("fan_in_uniform", {}, 0, 1 / 400 / 3),
        ("xavier_uniform", {"gain": 1.0}, 0, 2 / 700),
        ("xavier_normal", {"gain": 1.0}, 0, 2 / 700),
        ("kaiming_uniform", {}, 0, 2 / 400),
        ("kaiming_normal", {}, 0, 2 / 400),
        ("kaiming_normal", {"mode": "fan_out", "gain": 1.0}, 0, 1 / 300),
        ("orthogonal", {"gain": 1.0}, 0, 1 / 400),
        ("sparse", {"connections": 16}, 0, 2 / 400),  # as He's
    ],
)
def test_moments(word, keys, mean, variance):
    model = wide()
    getattr(closed_form, word)(model, generator(), None, **keys)
    weight = model[0].weight.detach().double()
    assert weight.mean().item() == pytest.approx(mean, abs=5 * math.sqrt(variance / weight.numel()))
    assert weight.var().item() == pytest.approx(variance, rel=0.05)


def test_truncated_normal_keeps_its_bound():
    model = wide()
    closed_form.truncated_normal(model, generator(), None, mean=0.2, std=0.1, bound=1.5)
    assert (model[0].weight - 0.2).abs().max().item() == pytest.approx(0.15, rel=0.01)


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (8, 4, 3, 3)])
def test_orthogonal_columns_or_rows(shape):
    layer = nn.Linear(shape[1], shape[0]) if len(shape) == 2 else nn.Conv2d(shape[1], shape[0], 3)
    closed_form.orthogonal(layer, generator(), None, gain=1.0)
    matrix = layer.weight.detach().flatten(1)
    narrow = matrix if len(matrix) > matrix.shape[1] else matrix.T
    torch.testing.assert_close(narrow.T @ narrow, torch.eye(narrow.shape[1]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", [nn.Linear(100, 40), nn.Conv2d(8, 20, 3), nn.Linear(7, 5)], ids=str)
def test_sparse_counts_exactly_for_each_unit(layer):
    closed_form.sparse(layer, generator(), None, connections=15, std=1.0)
    rows = layer.weight.detach().flatten(1)
    assert (rows != 0).sum(1).tolist() == [min(15, rows.shape[1])] * len(rows)
    if rows.shape[1] > 15:
        assert len((rows != 0).unique(dim=0)) > 1  # other places for other units


def test_sparse_reaches_every_input():
    layer = nn.Linear(50, 2000)
    closed_form.sparse(layer, generator(), None, connections=10)
    share = (layer.weight != 0).float().mean(0)
    assert share.min() > 0.15 and share.max() < 0.25


def test_dirac_passes_images_and_tables_on():
    image = torch.randn(2, 4, 6, 6)
    convolution = nn.Conv2d(4, 6, 3, padding=1)
    closed_form.dirac(convolution, generator(), None, last=None)
    torch.testing.assert_close(convolution(image)[:, :4], image)
    assert convolution.weight[4:].std() > 0
    twin = nn.init.dirac_(torch.empty(6, 4, 3, 3))
    assert torch.equal(convolution.weight[:4], twin[:4])
    linear = nn.Linear(5, 3)
    closed_form.dirac(linear, generator(), None, last=None)
    assert torch.equal(linear.weight, torch.eye(3, 5))


def test_variance_survives_fifty_relu_layers_with_he_and_not_with_xavier():
    inputs = torch.randn(64, 512, generator=generator(1))

    def ratio(function, **keys):
        model = mlp([512] * 51)
        function(model, generator(), None, **keys)
        with torch.no_grad():
            return (model(inputs).square().mean() / model[0](inputs).square().mean()).item()

    assert 0.25 < ratio(closed_form.kaiming_normal) < 4
    assert 0.25 < ratio(closed_form.kaiming_uniform) < 4
    assert ratio(closed_form.xavier_normal, gain=1.0) < 10 * 2**-49.0
    assert ratio(closed_form.fan_in_uniform) < 1e-30


@pytest.mark.parametrize("word", ["zeros", "constant"])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_symmetry_lasts(word, activation):
    model = mlp([6, 8, 8, 3], activation)
    function = getattr(closed_form, word)
    function(model, generator(), None)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    inputs, targets = torch.randn(32, 6, generator=generator(1)), torch.arange(32) % 3
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    for layer in (model[0], model[2]):  # all hidden units stay equal, up to rounding in sums
        assert (layer.weight - layer.weight[:1]).abs().max() < 1e-5
    assert (model[0].weight.abs().max() > 0) == (word == "constant")


@pytest.mark.parametrize("word", [function.__name__ for function in CLOSED_FORMS])
def test_the_last_layer_may_have_its_own(word):
    if word == "default":
        return
    model, alone = net(), net()
    function = getattr(closed_form, word)
    function(model, generator(), None, last="constant")
    assert (model[6].weight == 0.1).all() and not model[6].bias.any()
    function(alone, generator(), None)
    assert torch.equal(model[0].weight, alone[0].weight)


def test_the_last_layer_keeps_torchs_start_and_needs_no_activation():
    model, start = net(), net()
    closed_form.orthogonal(model, generator(), None, last="default")
    assert torch.equal(model[6].weight, start[6].weight) and torch.equal(model[6].bias, start[6].bias)
    closed_form.zeros(model, generator(), None, last="kaiming_normal")
    twin = nn.init.kaiming_normal_(torch.empty(10, 20), nonlinearity="linear", generator=generator())
    torch.testing.assert_close(model[6].weight.detach(), twin)


@pytest.mark.parametrize("activation", GAINS)
def test_gains(activation):
    model = nn.Linear(2, 2)
    model.activation = activation
    names = {"identity": "linear", "gelu": "relu", "silu": "relu"}
    slope = 0.01 if activation == "leaky_relu" else None
    expected = nn.init.calculate_gain(names.get(activation, activation), slope)
    assert resolve_gain(model, "auto") == pytest.approx(expected)
    assert resolve_gain(model, 3) == 3.0


def test_gain_of_a_foreign_net_is_that_of_its_first_activation():
    assert resolve_gain(nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.ReLU()), "auto") == TANH
    assert resolve_gain(nn.Linear(2, 2), "auto") == 1


def test_weights_are_found_once_and_norms_positions_and_scalars_are_none():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.position_embedding = nn.Parameter(torch.ones(1, 5, 8))
            self.norm = nn.LayerNorm([4, 8])
            self.attention = nn.MultiheadAttention(8, 2)
            self.first = nn.Linear(8, 8)
            self.tied = nn.Linear(8, 8)
            self.tied.weight = self.first.weight

    model = Model()
    names = [layer.name for layer in weight_layers(model)]
    assert names == ["attention.in_proj_weight", "attention.out_proj.weight", "first.weight"]
    closed_form.constant(model, generator(), None)
    assert (model.attention.in_proj_weight == 0.1).all() and (model.norm.weight == 1).all()
    assert (model.position_embedding == 1).all() and not model.attention.in_proj_bias.any()


def test_float64_and_frozen_weights_and_memory_format():
    model = net().double().to(memory_format=torch.channels_last)
    model[0].weight.requires_grad_(False)
    closed_form.kaiming_normal(model, generator(), None)
    plain = net().double()
    closed_form.kaiming_normal(plain, generator(), None)
    assert model[0].weight.dtype == torch.float64 and not model[0].weight.requires_grad
    assert torch.equal(model[0].weight, plain[0].weight)


def test_a_model_without_weights_is_left_alone():
    model = nn.ParameterDict({"w": nn.Parameter(torch.ones(3))})
    for function in CLOSED_FORMS:
        function(model, generator(), None)
    assert (model["w"] == 1).all()


@pytest.mark.gpu
@pytest.mark.parametrize("function", CLOSED_FORMS, ids=lambda function: function.__name__)
def test_a_net_on_a_gpu_starts_with_the_same_bits(function):
    here, there = net(), net().cuda()
    function(here, generator(), None)
    function(there, generator(), None)
    for name, tensor in here.state_dict().items():
        assert torch.equal(tensor, there.state_dict()[name].cpu())


def test_bounds_in_the_wrong_order():
    message = "initializer.a is 0.2 and initializer.b is 0.1; a must be below b, as in a=-0.1 b=0.1"
    with pytest.raises(ValueError, match=message):
        closed_form.uniform(net(), generator(), None, a=0.2, b=0.1)


def test_the_annotation_of_last_lists_the_closed_forms():
    assert get_args(InitializerWord) == tuple(function.__name__ for function in CLOSED_FORMS)
