"""The networks against their papers: parameter counts, twins written with torch's functions, refusals."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dltrain.models.cnn import CNN, LeNet
from dltrain.models.mlp import MLP, DeepLinear, Linear
from dltrain.models.parts import StochasticDepth, make_norm
from dltrain.models.resnet import ResNet, WideResNet
from dltrain.models.speed_cnn import SpeedCNN
from dltrain.models.vit import VisionTransformer, math_attention, sine_positions


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    "make, parameters",
    [
        (lambda: ResNet((3, 32, 32), 10, depth=20), 269_722),  # He 2015: 0.27 M
        (lambda: ResNet((3, 32, 32), 10, depth=32), 464_154),  # 0.46 M
        (lambda: ResNet((3, 32, 32), 10, depth=56), 853_018),  # 0.85 M
        (lambda: WideResNet((3, 32, 32), 10, depth=16, width=8), 10_961_370),  # Zagoruyko 2016: 11.0 M
        (lambda: WideResNet((3, 32, 32), 10, depth=40, width=4), 8_949_210),  # 8.9 M
        (lambda: LeNet((1, 28, 28), 10), 61_706),
        (lambda: LeNet((1, 32, 32), 10), 61_706),
        (lambda: MLP((1, 28, 28), 10, hidden=[256, 128]), 784 * 256 + 256 + 256 * 128 + 128 + 1290),
        (lambda: CNN((1, 28, 28), 10), 16 * 9 + 32 * 16 * 9 + 2 * 48 + 32 * 49 * 10 + 10),
        (lambda: DeepLinear((5,), 3, depth=3, width=7), 5 * 7 + 7 * 7 + 7 * 3),
        (lambda: SpeedCNN((3, 32, 32), 10), 1_972_792),  # 1.97 M
    ],
)
def test_parameter_counts(make, parameters):
    assert count(make()) == parameters


def test_wrn_28_10_has_36_million_parameters():
    with torch.device("meta"):  # counting needs no memory
        assert count(WideResNet((3, 32, 32), 10, depth=28, width=10)) == 36_479_194


def test_mlp_equals_the_formula():
    model = MLP((1, 4, 4), 3, hidden=[8, 6], activation="tanh")
    inputs = torch.randn(5, 1, 4, 4)
    first, second = model.layers[0][0], model.layers[1][0]
    hidden = torch.tanh(inputs.flatten(1) @ first.weight.T + first.bias)
    hidden = torch.tanh(hidden @ second.weight.T + second.bias)
    torch.testing.assert_close(model(inputs), hidden @ model.head.weight.T + model.head.bias)


def test_mlp_bottleneck_is_a_linear_layer_between_the_last_two():
    model = MLP((20,), 3, hidden=[16, 8], bottleneck=2)
    shapes = [tuple(layer.weight.shape) for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert shapes == [(16, 20), (2, 16), (8, 2), (3, 8)]
    first, narrow, last = model.layers[0], model.layers[1], model.layers[2]
    assert isinstance(narrow, nn.Linear)
    inputs = torch.randn(4, 20)
    torch.testing.assert_close(model(inputs), model.head(last(narrow(first(inputs)))))
    assert torch.linalg.matrix_rank(narrow(first(torch.randn(50, 20)))) <= 2


def test_mlp_residual_adds_the_input_where_the_width_is_kept():
    model = MLP((6,), 3, hidden=[6, 6, 4], residual=True)
    inputs = torch.randn(4, 6)
    hidden = inputs + F.relu(model.layers[0].branch[0](inputs))
    hidden = hidden + F.relu(model.layers[1].branch[0](hidden))
    hidden = F.relu(model.layers[2][0](hidden))
    torch.testing.assert_close(model(inputs), model.head(hidden))


def test_deep_linear_is_a_product_of_matrices():
    model = DeepLinear((2, 3), 4, depth=5, width=7)
    product = torch.eye(6)
    for matrix in model.matrices:
        product = matrix.weight @ product
    inputs = torch.randn(9, 2, 3)
    torch.testing.assert_close(model(inputs), inputs.flatten(1) @ product.T)


def test_linear_equals_torch():
    model = Linear((2, 3), 4)
    inputs = torch.randn(9, 2, 3)
    torch.testing.assert_close(model(inputs), F.linear(inputs.flatten(1), model.head.weight, model.head.bias))


def test_resnet_block_equals_a_loop_over_channels():
    block = ResNet((3, 8, 8), 10, depth=8).blocks[1].eval()  # 16 to 32 channels, half the side
    inputs = torch.randn(2, 16, 8, 8)
    branch = block.norm2(block.conv2(F.relu(block.norm1(block.conv1(inputs)))))
    for channel in range(16):  # the shortcut fills channels 8 to 23
        branch[:, 8 + channel] += inputs[:, channel, ::2, ::2]
    torch.testing.assert_close(block(inputs), F.relu(branch))


def test_resnet_halves_the_image_twice():
    model = ResNet((3, 32, 32), 10, depth=20)
    sides = [
        block(model.blocks[:index](torch.randn(1, 16, 32, 32))).shape
        for index, block in enumerate(model.blocks)
    ]
    assert [tuple(shape[1:]) for shape in sides] == [(16, 32, 32)] * 3 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean():
    drop = StochasticDepth(0.3)
    torch.manual_seed(0)
    outputs = drop(torch.ones(20_000, 3))
    assert torch.equal(outputs.amin(1), outputs.amax(1))
    assert outputs[:, 0].unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert outputs.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(drop.eval()(torch.ones(5)), torch.ones(5))


@pytest.mark.parametrize(
    "model, blocks",
    [
        (ResNet((1, 8, 8), 10, depth=20, stochastic_depth=0.5), 9),
        (WideResNet((1, 8, 8), 10, depth=10, width=1, stochastic_depth=0.5), 3),
        (MLP((8,), 3, hidden=[8, 8], residual=True, stochastic_depth=0.5), 2),
    ],
    ids=["resnet", "wide_resnet", "mlp"],
)
def test_stochastic_depth_grows_linearly(model, blocks):
    rates = [layer.p for layer in model.modules() if isinstance(layer, StochasticDepth)]
    assert rates == pytest.approx([0.5 * (block + 1) / blocks for block in range(blocks)])


def test_vit_attention_equals_torch_and_its_fused_form():
    queries, keys, values = torch.randn(3, 2, 3, 5, 8)
    torch.testing.assert_close(
        math_attention(queries, keys, values), F.scaled_dot_product_attention(queries, keys, values)
    )
    torch.manual_seed(0)
    plain = VisionTransformer((1, 8, 8), 10, depth=2, attention="math")
    torch.manual_seed(0)
    fused = VisionTransformer((1, 8, 8), 10, depth=2, attention="fused")
    inputs = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(plain(inputs), fused(inputs), rtol=1e-4, atol=1e-5)


def test_vit_attention_equals_torchs_multihead_attention():
    own = VisionTransformer((1, 8, 8), 10, dim=24, heads=3).blocks[0].branch[1]
    twin = nn.MultiheadAttention(24, 3, batch_first=True)
    twin.load_state_dict(
        {
            "in_proj_weight": own.qkv.weight,
            "in_proj_bias": own.qkv.bias,
            "out_proj.weight": own.merge.weight,
            "out_proj.bias": own.merge.bias,
        }
    )
    tokens = torch.randn(2, 5, 24)
    torch.testing.assert_close(own(tokens), twin(tokens, tokens, tokens)[0])


def test_vit_positions_differ_and_equal_a_loop():
    positions = sine_positions(3, 5, 8)
    assert len(positions.unique(dim=0)) == 15
    for row in range(3):
        for column in range(5):
            angles = [row * 1.0, row * 1e-4, column * 1.0, column * 1e-4]
            # for the row and for the column: sines, then cosines
            rows, columns = torch.tensor(angles[:2]), torch.tensor(angles[2:])
            twin = torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()])
            torch.testing.assert_close(positions[row * 5 + column], twin)


@pytest.mark.parametrize("side, patch", [(8, 2), (28, 4), (32, 4), (7, 1), (224, 32), (96, 12)])
def test_vit_patch_follows_the_image(side, patch):
    assert VisionTransformer((1, side, side), 2, depth=1).embed.kernel_size == (patch, patch)


def test_speed_cnn_freezes_the_whitening_and_the_scales():
    model = SpeedCNN((3, 32, 32), 10)
    frozen = {name.split(".")[-1] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"weight"} and not model.whiten.weight.requires_grad and model.whiten.bias.requires_grad
    assert model.whiten.weight.shape == (24, 3, 2, 2)
    scales = [layer.weight for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(scales) == 6 and not any(scale.requires_grad for scale in scales)
    inputs = torch.randn(2, 3, 32, 32)
    features = model.eval().groups(model.whiten(inputs))
    assert features.shape == (2, 256, 3, 3)
    torch.testing.assert_close(model(inputs), model.head(F.max_pool2d(features, 3).flatten(1)) / 9)
    assert SpeedCNN((3, 32, 32), 10, train_whitening=True).whiten.weight.requires_grad


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_norm_of_images_equals_the_loop(norm):
    layer = make_norm(norm, 12, images=True)
    groups = {"layer": 1, "group": 6}[norm]
    inputs = torch.randn(3, 12, 4, 4)
    parts = inputs.view(3, groups, -1)
    twin = (parts - parts.mean(-1, keepdim=True)) / (
        parts.var(-1, unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    torch.testing.assert_close(layer(inputs), twin.view_as(inputs))


TABLE, IMAGE = (5,), (1, 8, 8)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: MLP(TABLE, 3, hidden=[4, 1], norm="layer"),
            "a layer of 1 unit always gives 0; use model.norm=batch",
        ),
        (lambda: MLP(TABLE, 3, hidden=[8], bottleneck=2), r"give two, as in model.hidden=\[256,128\]"),
        (lambda: MLP(TABLE, 3, hidden=[8, 4], bottleneck=4), r"narrower than the two .*\(8 and 4\)"),
        (
            lambda: MLP(TABLE, 3, stochastic_depth=0.2),
            "set model.residual=true with equal neighboring widths",
        ),
        (lambda: ResNet(IMAGE, 3, depth=18), "model.depth is 18; a CIFAR ResNet has 6n . 2 layers: use .*20"),
        (lambda: WideResNet(IMAGE, 3, depth=20), "a wide ResNet has 6n . 4 layers: use one of 10, 16, 22"),
        (lambda: CNN(IMAGE, 3, channels=[]), r"model.channels is \[\]; .*as in model.channels=\[16,32\]"),
        (
            lambda: VisionTransformer(IMAGE, 3, patch=3),
            "model.patch is 3; it must divide .* 1, 2, 4, 8, or auto",
        ),
        (lambda: VisionTransformer(IMAGE, 3, dim=100, heads=3), "model.dim is 100; .*model.heads=3: use 96"),
        (lambda: SpeedCNN((3, 1, 8), 3), "needs images of at least 2×2 pixels, not 1×8; use model=cnn"),
        (lambda: SpeedCNN(IMAGE, 3, widths=[]), r"model.widths is \[\]; .*as in model.widths=\[64,256\]"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "cured",
    [
        lambda: MLP(TABLE, 3, hidden=[4, 1], norm="batch"),
        lambda: MLP(TABLE, 3, hidden=[256, 128], bottleneck=2),
        lambda: MLP(TABLE, 3, hidden=[128, 128, 128], residual=True, stochastic_depth=0.2),
        lambda: ResNet(IMAGE, 3, depth=20),
        lambda: VisionTransformer(IMAGE, 3, dim=96, heads=3, patch=4),
        lambda: SpeedCNN(IMAGE, 3, widths=[64, 256]),
    ],
)
def test_the_cures_work(cured):
    cured()


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 2, 5), (1, 5, 5)])
@pytest.mark.parametrize("model", [CNN, LeNet, ResNet, VisionTransformer], ids=lambda model: model.__name__)
def test_tiny_images_fit(model, shape):
    assert model(shape, 3).eval()(torch.randn(2, *shape)).shape == (2, 3)
