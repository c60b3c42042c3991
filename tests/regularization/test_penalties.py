"""Penalties and proximal steps against autograd, closed forms and the coordinate-wise minimum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dltrain.regularization.penalties import L2, ElasticNet, L1Penalty, ProximalL1, l1
from dltrain.regularization.projections import MaxNorm
from dltrain.regularization.protocols import Penalty, WeightRule
from dltrain.regularization.selection import decayed_parameters


def model(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.LayerNorm([12, 1]), nn.Linear(12, 4))
    return nn.Sequential(*layers).to(dtype)


def weights(net: nn.Sequential) -> list[Tensor]:
    return [net[0].weight, net[4].weight]


def test_only_weights_outside_normalization_are_chosen() -> None:
    net = model()
    assert [id(p) for p in decayed_parameters(net, "l2")] == [id(p) for p in weights(net)]
    everything = decayed_parameters(net, "l2", all_parameters=True)
    assert {id(p) for p in everything} == {id(p) for p in net.parameters()}


def test_tied_weights_count_once() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    assert len(decayed_parameters(net, "l2")) == 1


def test_a_model_without_matrices_is_refused_and_the_cure_works() -> None:
    net = nn.BatchNorm1d(3)
    with pytest.raises(
        ValueError, match=r"regularization=l2 finds no weights.*regularization\.l2\.all_parameters=true"
    ):
        L2(net)
    assert L2(net, strength=2.0, all_parameters=True).penalty() == 3


@pytest.mark.parametrize(
    "make, value, slope",
    [
        (lambda m: L2(m, 0.3), lambda w: 0.15 * (w * w).sum(), lambda w: 0.3 * w),
        (lambda m: L1Penalty(m, 0.3), lambda w: 0.3 * w.abs().sum(), lambda w: 0.3 * w.sign()),
        (
            lambda m: ElasticNet(m, 0.3, 0.25),
            lambda w: 0.3 * (0.25 * w.abs().sum() + 0.375 * (w * w).sum()),
            lambda w: 0.3 * (0.25 * w.sign() + 0.75 * w),
        ),
    ],
    ids=["l2", "l1", "elastic_net"],
)
def test_values_and_gradients_have_their_closed_forms(make: Any, value: Any, slope: Any) -> None:
    net = model()
    rule = make(net)
    assert isinstance(rule, Penalty) and not isinstance(rule, WeightRule)
    penalty = rule.penalty()
    torch.testing.assert_close(penalty, sum(value(w) for w in weights(net)))
    penalty.backward()
    for w in weights(net):
        torch.testing.assert_close(w.grad, slope(w.detach()))
    assert net[0].bias.grad is None and net[3].weight.grad is None


def test_penalties_have_second_derivatives() -> None:
    net = nn.Linear(3, 2, dtype=torch.float64)
    (slope,) = torch.autograd.grad(L2(net, 0.3).penalty(), net.weight, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), net.weight)
    torch.testing.assert_close(second, torch.full_like(second, 0.3))


def gd_on_a_parabola(rule: Any, center: Tensor, lr: float, steps: int) -> Tensor:
    """Gradient descent on ½‖w − center‖² with the rule after each step; the final weights."""
    weight = rule.parameters[0]
    group = [{"params": [weight], "lr": lr}]
    for _ in range(steps):
        weight.grad = weight.detach() - center
        with torch.no_grad():
            weight -= lr * weight.grad
        rule.after_update(group)
    return weight.detach()


def test_proximal_l1_finds_the_soft_threshold_with_exact_zeros() -> None:
    """The minimum of ½(w − c)² + λ|w| is sign(c)·max(|c| − λ, 0)."""
    net = nn.Linear(40, 5, bias=False, dtype=torch.float64)
    center = torch.randn(5, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rule = ProximalL1(net, 0.7)
    found = gd_on_a_parabola(rule, center, 0.1, 400)
    torch.testing.assert_close(found, center.sign() * (center.abs() - 0.7).clamp_min(0))
    share = (center.abs() <= 0.7).double().mean()
    assert rule.zero_share() == share.float() and 0.3 < share < 0.8
    assert L1Penalty(net).zero_share() == rule.zero_share()


@pytest.mark.parametrize("tensor_lr", [False, True])
def test_proximal_l1_takes_each_groups_lr_and_the_scale(tensor_lr: bool) -> None:
    net = model()
    before = [w.detach().clone() for w in weights(net)]
    bias = net[4].bias.detach().clone()
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    lrs = (torch.tensor(0.5), torch.tensor(0.1)) if tensor_lr else (0.5, 0.1)
    groups = [
        {"params": list(net[:4].parameters()), "lr": lrs[0]},
        {"params": list(net[4].parameters()), "lr": lrs[1]},
    ]
    ProximalL1(net, 0.2).after_update(groups, 0.5)
    for w, old, lr in zip(weights(net), before, (0.5, 0.1), strict=True):
        torch.testing.assert_close(w.detach(), nn.functional.softshrink(old, lr * 0.2 * 0.5))
    assert torch.equal(net[4].bias, bias)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.5},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.8, "dampening": 0.4},
    ],
)
def test_proximal_l1_finds_the_soft_threshold_with_any_momentum(keys: dict[str, Any]) -> None:
    """The minimum of Σ(w − a)²/2 + λ·‖w‖₁ is a, moved by λ toward 0."""
    net = nn.Linear(30, 2, bias=False, dtype=torch.float64)
    goal = torch.randn(2, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    optimizer, rule = torch.optim.SGD(net.parameters(), lr=0.02, **keys), ProximalL1(net, 0.5)
    for _ in range(1500):
        optimizer.zero_grad()
        ((net.weight - goal) ** 2 / 2).sum().backward()
        optimizer.step()
        rule.after_update(optimizer.param_groups)
    wanted = goal.sign() * (goal.abs() - 0.5).clamp_min(0)
    torch.testing.assert_close(net.weight.detach(), wanted, rtol=0, atol=1e-8)
    assert torch.equal(net.weight == 0, wanted == 0)


def test_what_is_not_updated_is_not_shrunk() -> None:
    net = model()
    before = net[0].weight.detach().clone()
    ProximalL1(net, 1.0).after_update([{"params": list(net.parameters()), "lr": 1.0}])
    assert torch.equal(net[0].weight, before)  # no gradient: frozen or unused


def test_l1_gives_the_rule_of_its_mode() -> None:
    assert isinstance(l1(model()), ProximalL1) and isinstance(l1(model()), WeightRule)
    assert isinstance(l1(model(), mode="subgradient"), L1Penalty)


def test_max_norm_shortens_long_units_and_leaves_the_rest_to_the_last_bit() -> None:
    net = model()
    with torch.no_grad():
        net[0].weight[1] *= 20
        net[4].weight[2] *= 30
    before = [w.detach().clone() for w in weights(net)]
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    MaxNorm(net, 1.7).after_update([{"params": list(net.parameters()), "lr": 0.1}])
    for w, old in zip(weights(net), before, strict=True):
        for unit, old_unit in zip(w.detach(), old, strict=True):
            if old_unit.norm() <= 1.7:
                assert torch.equal(unit, old_unit)
            else:
                torch.testing.assert_close(unit, old_unit * 1.7 / old_unit.norm())
    assert sum(float(u.norm()) > 1.7 for old in before for u in old) >= 2
