"""Every word of conf/model builds a network that fits the data, learns, and has the common keys."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml

from dltrain.config.catalogue import Catalogue
from dltrain.config.conflicts import part_of
from dltrain.models.parts import ACTIVATIONS
from dltrain.ranges import Activation, Norm

CONF = Path(__file__).parents[2] / "conf" / "model"
PARTS = {word: part_of(found) for word, found in sorted(Catalogue(CONF.parent).words["model"].items())}
WORDS = list(PARTS)
OBJECTIVES = [word for word, part in PARTS.items() if "an objective" in part.gives]
HEAVY = ["torchvision", "timm"]  # have tests of their own
IMAGES = [word for word, part in PARTS.items() if "images" in part.needs and word not in HEAVY]
TABLES = [word for word in WORDS if word not in OBJECTIVES + IMAGES + HEAVY]
SMALL = {
    "resnet32": {"depth": 8},
    "resnet56": {"depth": 8},
    "wide_resnet": {"depth": 10, "width": 1},
    "speed_cnn": {"widths": [16, 32]},
    "vit_tiny": {"depth": 2},
}


def read(word):
    keys = yaml.safe_load((CONF / f"{word}.yaml").read_text())
    module, _, name = keys.pop("_target_").rpartition(".")
    return getattr(importlib.import_module(module), name), keys


def build(word, shape=(1, 8, 8), classes=10, **changes):
    target, keys = read(word)
    torch.manual_seed(0)
    return target(shape, classes, **(keys | changes))


@pytest.mark.parametrize("word", WORDS)
def test_the_first_arguments_are_the_shape_and_the_classes(word):
    target, _ = read(word)
    assert list(inspect.signature(target).parameters)[:2] == ["input_shape", "num_classes"]


@pytest.mark.parametrize("depth", [20, 32, 56])
def test_the_depth_of_a_resnet_is_that_of_its_name(depth):
    assert read(f"resnet{depth}")[1] == {"depth": depth}


def test_activations_are_those_of_the_annotation():
    assert list(ACTIVATIONS) == list(get_args(Activation))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (2, 20, 12)], ids=str)
@pytest.mark.parametrize("word", TABLES + IMAGES)
def test_any_image_gives_logits_and_gradients(word, shape):
    model = build(word, shape, 7, **SMALL.get(word, {}))
    logits = model(torch.randn(3, *shape))
    assert logits.shape == (3, 7)
    logits.square().sum().backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert trained and all(torch.isfinite(parameter.grad).all() for parameter in trained)


@pytest.mark.parametrize("word", TABLES + IMAGES)
def test_learns_eight_samples_by_heart(word):
    model = build(word, (1, 8, 8), 4, **SMALL.get(word, {}))
    generator = torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(8, 1, 8, 8, generator=generator), torch.arange(8) % 4
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 5e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("word", TABLES)
def test_tables_are_taken_as_they_are(word):
    assert build(word, (5,), 1)(torch.randn(3, 5)).shape == (3, 1)


@pytest.mark.parametrize("word", [word for word in WORDS if word in [*IMAGES, *HEAVY]])
def test_a_table_is_refused_by_networks_for_images(word):
    with pytest.raises(
        ValueError, match=r"needs images .*has the shape \(5,\); use model=mlp or model=linear"
    ):
        build(word, (5,), 3)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("word", ["mlp", "lenet", "cnn", "resnet20", "wide_resnet", "vit_tiny", "speed_cnn"])
def test_activation_is_a_key_and_an_attribute(word, activation):
    model = build(word, activation=activation, **SMALL.get(word, {"depth": 8} if word == "resnet20" else {}))
    assert model.activation == activation
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("norm", get_args(Norm))
@pytest.mark.parametrize("word", ["mlp", "cnn", "resnet20", "wide_resnet"])
def test_norm_is_a_key(word, norm):
    model = build(word, norm=norm, **SMALL.get(word, {"depth": 8} if word == "resnet20" else {}))
    kinds = {"batch": torch.nn.modules.batchnorm._BatchNorm, "group": torch.nn.GroupNorm}
    kinds["layer"] = torch.nn.LayerNorm if word == "mlp" else torch.nn.GroupNorm
    if norm in kinds:
        assert any(isinstance(layer, kinds[norm]) for layer in model.modules())
    outputs = model(3 * torch.randn(4, 1, 8, 8) + 1)
    assert torch.isfinite(outputs).all() and outputs.std() > 0


@pytest.mark.parametrize("word", [word for word in TABLES + IMAGES if "no dropout" not in PARTS[word].gives])
def test_dropout_acts_in_training_alone(word):
    model = build(word, dropout=0.5, **SMALL.get(word, {}))
    inputs = torch.randn(4, 1, 8, 8)
    assert not torch.equal(model(inputs), model(inputs))
    model.eval()
    torch.testing.assert_close(model(inputs), model(inputs), rtol=0, atol=0)


@pytest.mark.parametrize("word", TABLES + IMAGES)
def test_the_head_is_the_last_weight_layer(word):
    model = build(word, classes=7, **SMALL.get(word, {}))
    weights = [layer.weight for layer in model.modules() if getattr(layer, "weight", None) is not None]
    assert [weight for weight in weights if weight.ndim >= 2][-1].shape[0] == 7


@pytest.mark.parametrize("word", ["mlp", "cnn", "resnet20", "vit_tiny"])
def test_second_derivatives_exist(word):
    model = build(word, **({"depth": 8} if word == "resnet20" else SMALL.get(word, {}))).double()
    parameters = list(model.parameters())
    loss = model(torch.randn(4, 1, 8, 8, dtype=torch.float64)).square().mean()
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    products = torch.autograd.grad(sum(g.square().sum() for g in gradients), parameters)
    assert all(torch.isfinite(product).all() for product in products)


def test_construction_draws_from_the_global_generator_alone():
    first, second = build("mlp").state_dict(), build("mlp").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
