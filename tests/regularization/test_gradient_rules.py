"""Decay, clipping and noise against torch's optimizers, closed forms and loops."""

from __future__ import annotations

import inspect
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from dltrain.regularization import model_keys
from dltrain.regularization.decay import CoupledDecay, DecoupledDecay, weight_decay
from dltrain.regularization.gradients import (
    ClipAdaptive,
    ClipNorm,
    ClipValue,
    GradientNoise,
    gradient_clipping,
    last_matrix_owner,
)
from dltrain.regularization.protocols import DecayRule, GradientRule, Penalty, WeightRule

CONF = Path(__file__).parents[2] / "conf" / "regularization"
WORDS = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "none")
MODEL_KEYS = [
    name
    for name, value in vars(model_keys).items()
    if inspect.isfunction(value) and value.__module__ == model_keys.__name__
]


def model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()


def set_gradients(net: nn.Module, seed: int, size: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.grad = size * torch.randn(p.shape, dtype=p.dtype, generator=generator)
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def split(net: nn.Sequential, decayed: float) -> list[dict[str, Any]]:
    """Two groups with two rates each, as torch's own decay needs them: only matrices decay."""
    first, rest = list(net[0].parameters()), list(net[1:].parameters())
    return [
        {"params": [p for p in part if (p.ndim >= 2) == matrix], "lr": lr, "weight_decay": decayed * matrix}
        for part, lr in ((first, 0.1), (rest, 0.02))
        for matrix in (True, False)
    ]


@pytest.mark.parametrize(
    "twin, bare, mode",
    [
        (torch.optim.AdamW, torch.optim.Adam, "decoupled"),
        (torch.optim.Adam, torch.optim.Adam, "coupled"),
        (torch.optim.SGD, torch.optim.SGD, "coupled"),
    ],
)
def test_decay_equals_torchs_own_over_ten_steps(twin: Any, bare: Any, mode: Any) -> None:
    """Two groups, a changing lr; bit for bit up to the order of a multiplication."""
    ours, theirs = model(), model()
    reference, optimizer = twin(split(theirs, 0.3)), bare(split(ours, 0.0))
    rule = weight_decay(ours, 0.3, mode)
    for step in range(10):
        for groups in (reference.param_groups, optimizer.param_groups):
            for group, lr in zip(groups, (0.1, 0.1, 0.02, 0.02), strict=True):
                group["lr"] = lr / (1 + step)
        set_gradients(ours, step)
        set_gradients(theirs, step)
        if isinstance(rule, DecoupledDecay):
            rule.before_update(optimizer.param_groups)
        else:
            rule.change_gradients(generator())
        optimizer.step()
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


def test_decoupled_and_coupled_agree_for_plain_descent_only() -> None:
    for make, equal in ((torch.optim.SGD, True), (torch.optim.Adam, False)):
        ends = []
        for mode in ("decoupled", "coupled"):
            net = model()
            optimizer, rule = make(net.parameters(), lr=0.1), weight_decay(net, 0.5, mode)  # type: ignore[arg-type]
            set_gradients(net, 1)
            if isinstance(rule, DecoupledDecay):
                rule.before_update(optimizer.param_groups)
            else:
                rule.change_gradients(generator())
            optimizer.step()
            ends.append(net[0].weight.detach())
        assert torch.allclose(*ends, atol=1e-12) is equal


@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1, dtype=torch.float64)])
def test_decay_follows_the_scale_and_leaves_biases_alone(lr: Any) -> None:
    net = model()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    set_gradients(net, 0)
    DecoupledDecay(net, 0.4).before_update([{"params": list(net.parameters()), "lr": lr}], 0.5)
    for name, p in net.named_parameters():
        factor = 1 - 0.1 * 0.4 * 0.5 if p.ndim >= 2 else 1.0
        torch.testing.assert_close(p.detach(), before[name] * factor)
    gradients = set_gradients(net, 0)
    CoupledDecay(net, 0.4, all_parameters=True).change_gradients(generator(), scale=0.5)
    for p, g in zip(net.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad, g + 0.2 * p.detach())


@pytest.mark.parametrize("size", [1e-3, 10.0])
def test_clipping_by_norm(size: float) -> None:
    net = model()
    gradients = set_gradients(net, 0, size)
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
    gradient_clipping(net, "norm", 0.5).change_gradients(generator())
    for p, g in zip(net.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad, g * min(1.0, 0.5 / norm), atol=0, rtol=1e-5)


def test_clipping_by_value() -> None:
    net = model()
    gradients = set_gradients(net, 0)
    gradient_clipping(net, "value").change_gradients(generator())
    for p, g in zip(net.parameters(), gradients, strict=True):
        assert torch.equal(p.grad, g.clamp(-0.5, 0.5))


def test_adaptive_clipping_equals_a_loop_over_units() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 5), nn.Linear(5, 2)
    ).double()
    with torch.no_grad():
        net[3].weight[1] = 0  # counts as eps
    gradients = set_gradients(net, 0, 0.005)
    for p, g in zip(net[4].parameters(), gradients[-2:], strict=True):
        p.grad.mul_(1000)  # far above the limit, which would shorten it
        g.mul_(1000)
    gradient_clipping(net, "adaptive", 0.05, 1e-2).change_gradients(generator())
    clipped = 0
    for (name, p), g in zip(net.named_parameters(), gradients, strict=True):
        if name.startswith("4."):
            assert torch.equal(p.grad, g)  # the last layer is left alone
            continue
        units = range(len(p)) if p.ndim > 1 else [slice(None)]
        for unit in units:
            allowed = 0.05 * max(float(p[unit].detach().norm()), 1e-2)
            length = float(g[unit].norm())
            clipped += length > allowed
            torch.testing.assert_close(p.grad[unit], g[unit] * min(1.0, allowed / length))
    assert 0 < clipped < 11


def test_the_last_layer_is_the_last_with_a_matrix() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    assert last_matrix_owner(net) is net[1][0]
    assert last_matrix_owner(nn.ReLU()) is None


@pytest.mark.parametrize("step, gamma", [(0, 0.55), (1, 0.55), (99, 0.55), (99, 0.0)])
def test_gradient_noise_has_the_papers_variance(step: int, gamma: float) -> None:
    net = nn.Linear(200, 100)
    net.weight.grad, net.bias.grad = torch.ones_like(net.weight), None
    GradientNoise(net, 0.09, gamma).change_gradients(generator(), step=step)
    noise = net.weight.grad - 1
    sigma = 0.3 / (1 + step) ** (gamma / 2)
    assert abs(noise.std() / sigma - 1) < 0.02
    assert abs(noise.mean()) < 4 * sigma / math.sqrt(20_000)
    assert net.bias.grad is None


def test_gradient_noise_comes_from_the_generator_alone() -> None:
    grads = []
    before = torch.random.get_rng_state()
    for seed in (0, 0, 1):
        net = nn.Linear(3, 2)
        net.load_state_dict({"weight": torch.ones(2, 3), "bias": torch.ones(2)})
        torch.random.set_rng_state(before)
        net.weight.grad, net.bias.grad = torch.zeros(2, 3), torch.zeros(2)
        GradientNoise(net).change_gradients(generator(seed))
        assert torch.equal(torch.random.get_rng_state(), before)
        grads.append(net.weight.grad)
    assert torch.equal(grads[0], grads[1]) and not torch.equal(grads[0], grads[2])


def test_rules_survive_a_model_without_gradients() -> None:
    net = model()
    rules = (ClipNorm(net), ClipValue(net), ClipAdaptive(net), GradientNoise(net), CoupledDecay(net))
    for rule in sorted(rules, key=lambda rule: rule.order):
        rule.change_gradients(generator())
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("word", [word for word in WORDS if word not in MODEL_KEYS])
def test_every_yaml_builds_a_rule_of_exactly_one_kind(word: str) -> None:
    node = yaml.safe_load((CONF / f"{word}.yaml").read_text())
    module, name = node.pop("_target_").rsplit(".", 1)
    rule = getattr(import_module(module), name)(model(), **node)
    kinds = (Penalty, GradientRule, DecayRule, WeightRule)
    assert sum(isinstance(rule, kind) for kind in kinds) == 1


@pytest.mark.parametrize("word", MODEL_KEYS)
def test_the_others_set_a_key_of_another_group(word: str) -> None:
    text = (CONF / f"{word}.yaml").read_text()
    node = yaml.safe_load(text)
    target = node.pop("regularization")[word]["_target_"]
    function = getattr(import_module(target.rpartition(".")[0]), word)
    _, key = inspect.signature(function).parameters
    assert text.startswith("# @package _global_\n")
    assert list(node.values()) == [{word: f"${{regularization.{word}.{key}}}"}]
    assert isinstance(function(model()), model_keys.ByKey)


def test_an_automatic_limit_is_the_one_of_its_mode() -> None:
    limits = {mode: gradient_clipping(model(), mode).limit for mode in ("norm", "value", "adaptive")}
    assert limits == {"norm": 1.0, "value": 0.5, "adaptive": 0.01}
    assert gradient_clipping(model(), limit=2).limit == 2.0
