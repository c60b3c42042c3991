"""lsuv: unit variance of every layer on the batch; whitening: outputs with the identity as covariance."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dltrain.data.spec import Batch
from dltrain.initializers import closed_form
from dltrain.initializers.data_driven import lsuv, whitening, whitening_filters


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch_of(*shape):
    inputs = torch.randn(shape, generator=generator(9))
    inputs = inputs + 0.8 * inputs.roll(1, -1) + 0.5  # neighbors are correlated, as pixels are
    return Batch(inputs, torch.zeros(len(inputs), dtype=torch.long), torch.arange(len(inputs)))


class Residual(nn.Module):
    """Registered in another order than executed; with batch norm and dropout."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 5)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, inputs):
        hidden = torch.tanh(self.norm(self.conv1(inputs)))
        return self.head((hidden + self.drop(self.conv2(hidden))).mean((2, 3)))


def deviations(model, inputs):
    """The standard deviation of each weight layer's outputs, batch norm by the batch, without dropout."""
    seen = {}
    model.eval()
    for name, layer in model.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.train()
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layer.register_forward_hook(
                lambda _, args, outputs, name=name: seen.update({name: outputs.std().item()})
            )
    model(inputs)
    return seen


@pytest.mark.parametrize(
    "model, shape",
    [
        (Residual(), (64, 3, 8, 8)),
        (nn.Sequential(*[layer for _ in range(30) for layer in (nn.Linear(40, 40), nn.Sigmoid())]), (64, 40)),
    ],
    ids=["residual", "sigmoid"],
)
def test_lsuv_gives_every_layer_unit_variance(model, shape):
    batch = batch_of(*shape)
    lsuv(model, generator(), batch)
    measured = deviations(model, batch.inputs)
    assert len(measured) >= 3
    assert list(measured.values()) == pytest.approx([1] * len(measured), rel=1e-3)


def test_lsuv_scales_orthogonal_weights_and_leaves_the_rest_alone():
    model = Residual()
    model.drop.eval()
    running = model.norm.running_mean.clone()
    state = torch.get_rng_state()
    lsuv(model, generator(), batch_of(64, 3, 8, 8))
    matrix = model.conv2.weight.detach().flatten(1)
    gram = matrix @ matrix.T
    torch.testing.assert_close(gram / gram[0, 0], torch.eye(8), rtol=0, atol=1e-4)
    assert torch.equal(model.norm.running_mean, running) and model.norm.num_batches_tracked == 0
    assert model.training and model.norm.training and not model.drop.training
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.conv1.bias.any() and not model._forward_hooks and not model.conv1._forward_hooks


def test_lsuv_leaves_a_layer_that_sees_zeros_finite():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    batch = batch_of(8, 4)
    lsuv(model, generator(), batch._replace(inputs=torch.zeros(8, 4)))
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_lsuv_scales_a_shared_layer_once():
    layer = nn.Linear(6, 6)
    batch = batch_of(32, 6)
    lsuv(nn.Sequential(layer, nn.Tanh(), layer), generator(), batch)
    assert layer(batch.inputs).std().item() == pytest.approx(1, rel=1e-4)


def covariance(outputs):
    """(N, C, H, W) or (N, C) to (C, C)."""
    channels = outputs.transpose(0, 1).flatten(1)
    return torch.cov(channels.double())


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 24, 2),
        nn.Conv2d(3, 30, 3, 2),
        nn.Conv2d(3, 30, 3, dilation=2, bias=False),
        nn.Conv2d(3, 60, 4, 4),
    ],
    ids=str,
)
def test_whitened_patches_have_the_identity_as_covariance(layer):
    dimensions = layer.weight[0].numel()
    batch = batch_of(200, 3, 12, 12)
    whitening(nn.Sequential(layer, nn.GELU()), generator(), batch, eps=1e-7)
    count = min(dimensions, layer.out_channels)
    outputs = layer(batch.inputs).detach()
    torch.testing.assert_close(covariance(outputs[:, :count]), torch.eye(count).double(), rtol=0, atol=1e-3)
    mirrored = min(2 * dimensions, layer.out_channels) - dimensions
    if mirrored > 0:
        assert torch.equal(layer.weight[dimensions : dimensions + mirrored], -layer.weight[:mirrored])


def test_whitening_covers_the_speed_networks_24_filters_and_starts_the_rest_as_identities():
    model = nn.Sequential(
        nn.Conv2d(3, 24, 2), nn.GELU(), nn.Conv2d(24, 32, 3), nn.Flatten(), nn.Linear(32 * 81, 5)
    )
    whitening(model, generator(), batch_of(50, 3, 12, 12))
    assert torch.equal(model[0].weight[12:], -model[0].weight[:12])
    twin = nn.init.dirac_(torch.empty(32, 24, 3, 3))
    assert torch.equal(model[2].weight[:24], twin[:24]) and model[2].weight[24:].std() > 0
    assert model[4].weight.abs().max().item() <= (32 * 81) ** -0.5 and not model[0].bias.any()


def test_whitening_of_a_linear_first_layer():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 20), nn.ReLU(), nn.Linear(20, 3))
    batch = batch_of(500, 1, 4, 4)
    whitening(model, generator(), batch, eps=1e-7, others="kaiming_normal")
    outputs = model[1](batch.inputs.flatten(1)).detach()
    torch.testing.assert_close(covariance(outputs[:, :16]), torch.eye(16).double(), rtol=0, atol=1e-3)
    assert torch.equal(model[1].weight[16:], -model[1].weight[:4])
    twin = nn.Sequential(nn.Flatten(), nn.Linear(16, 20), nn.ReLU(), nn.Linear(20, 3))
    closed_form.kaiming_normal(twin, generator(), None)
    assert torch.equal(model[3].weight, twin[3].weight)


def test_whitening_leaves_directions_without_variance_to_the_others():
    inputs = batch_of(300, 6).inputs
    inputs[:, 4:] = 0.7  # constant pixels, as at the border of digits
    filters = whitening_filters(inputs, 5e-4)
    assert filters.shape == (4, 6) and filters[:, 4:].abs().max() < 1e-6
    layer = nn.Linear(6, 10)
    whitening(layer, generator(), Batch(inputs, torch.zeros(300), torch.arange(300)))
    assert torch.equal(layer.weight[4:8], -layer.weight[:4]) and layer.weight[8:].std() > 0


def test_whitening_filters_come_largest_first_and_equal_a_singular_value_decomposition():
    patches = batch_of(400, 5).inputs.double()
    filters = whitening_filters(patches, 1e-9)
    _, singular, right = torch.linalg.svd(patches - patches.mean(0), full_matrices=False)
    twin = right / (singular / 399**0.5)[:, None]
    torch.testing.assert_close(filters.abs(), twin.abs(), rtol=1e-5, atol=1e-6)
    assert (filters.norm(dim=1).diff() > 0).all()  # small filters belong to large variances


def test_patches_are_those_that_the_convolution_sees():
    layer = nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False)
    inputs = torch.randn(2, 2, 7, 7)
    from dltrain.initializers.data_driven import _patches

    products = _patches(layer, inputs) @ layer.weight.flatten(1).T
    torch.testing.assert_close(products.view(2, 16, 4).transpose(1, 2), layer(inputs).flatten(2))
    assert F.unfold(inputs, 3).shape[1] == 18


class Objective(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(3))

    def forward(self, inputs):
        return self.w.square().sum().expand(len(inputs))


@pytest.mark.parametrize("function", [lsuv, whitening])
def test_study_problems_are_left_alone(function):
    model = Objective()
    function(model, generator(), batch_of(1, 1))
    assert (model.w == 1).all()


@pytest.mark.parametrize(
    "run, message",
    [
        (
            lambda: lsuv(nn.Linear(2, 2), generator()),
            "initializer=lsuv needs a batch of data and was given none",
        ),
        (lambda: whitening(nn.Linear(2, 2), generator()), "initializer=whitening needs a batch"),
        (
            lambda: whitening(nn.Conv2d(2, 4, 3, groups=2), generator(), batch_of(9, 2, 6, 6)),
            "needs a first convolution without groups .*use initializer=lsuv",
        ),
    ],
)
def test_refusals(run, message):
    with pytest.raises(ValueError, match=message):
        run()


@pytest.mark.gpu
@pytest.mark.parametrize("function", [lsuv, whitening])
def test_on_a_gpu_as_on_the_cpu(function):
    batch = batch_of(64, 3, 8, 8)
    here, there = Residual(), Residual()
    there.load_state_dict(here.state_dict())
    there.cuda()
    function(here, generator(), batch)
    function(there, generator(), batch)
    for name, tensor in here.state_dict().items():
        torch.testing.assert_close(tensor.abs(), there.state_dict()[name].cpu().abs(), rtol=1e-3, atol=1e-4)
