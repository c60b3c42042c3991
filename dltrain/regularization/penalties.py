"""Penalties: l1, l2 and elastic net in the loss, and l1 as soft thresholding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from dltrain.ranges import NonNegative, Share
from dltrain.regularization.selection import decayed_parameters, grouped, require, require_strength


class L2:
    """L2 penalty in the loss (Tikhonov).

        loss += λ/2·‖w‖²

    strength/2·‖w‖² in the loss (L0 to L3); its decoupled relative is `weight_decay`.

    Symbols: λ = strength
    Use: with sgd and momentum; with adaptive optimizers take weight_decay.
    Defaults: 1e-4, the usual value for convolutional nets.
    Paper: Hoerl & Kennard 1970
    Lecture: L0 L1 L2 L3

    Args:
        strength: weight of the penalty
        all_parameters: true includes biases and normalisation parameters
    """

    def __init__(self, model: nn.Module, strength: NonNegative = 1e-4, all_parameters: bool = False) -> None:
        require_strength("l2", strength)
        self.strength = strength
        self.parameters = decayed_parameters(model, "l2", all_parameters)

    def penalty(self) -> Tensor:
        return self.strength / 2 * flat(self.parameters).square().sum()


class L1Penalty:
    """strength·‖w‖₁ in the loss (L0, L3), subgradient 0 at 0: weights come near zero, rarely onto it."""

    def __init__(self, model: nn.Module, strength: float = 1e-4, all_parameters: bool = False) -> None:
        require_strength("l1", strength)
        self.strength = strength
        self.parameters = decayed_parameters(model, "l1", all_parameters)

    def penalty(self) -> Tensor:
        return self.strength * flat(self.parameters).abs().sum()

    def zero_share(self) -> Tensor:
        """The share of the weights that are exactly zero, a scalar on the device."""
        return zero_share(self.parameters)


class ProximalL1:
    """Soft thresholding by lr·strength after each update: minimises loss + strength·‖w‖₁ with exact zeros.

    The proximal gradient step of Daubechies et al. 2004 (arXiv:math/0307152; L0's solution). Exact for
    gradient descent; behind an adaptive optimizer the threshold still is lr·strength, the same for all
    weights.
    """

    needs = frozenset({"lr as step size"})
    instead = "regularization.l1.mode=subgradient"

    def __init__(self, model: nn.Module, strength: float = 1e-4, all_parameters: bool = False) -> None:
        require_strength("l1", strength)
        self.strength = strength
        self.parameters = decayed_parameters(model, "l1", all_parameters)

    @torch.no_grad()
    def after_update(self, param_groups: Sequence[dict[str, Any]], scale: float = 1.0) -> None:
        for parameters, lr in grouped(self.parameters, param_groups):
            threshold = lr * self.strength * scale
            removed = list(torch._foreach_clamp_max(parameters, bounds(threshold, parameters)))
            torch._foreach_clamp_min_(removed, bounds(-threshold, parameters))
            torch._foreach_sub_(parameters, removed)  # w − clip(w, ±threshold): exactly 0 inside

    def zero_share(self) -> Tensor:
        """The share of the weights that are exactly zero, a scalar on the device."""
        return zero_share(self.parameters)


class ElasticNet:
    """L1 and L2 penalty together in the loss.

        loss += λ·(ρ·‖w‖₁ + (1 − ρ)/2·‖w‖²)

    strength·(l1_ratio·‖w‖₁ + (1 − l1_ratio)/2·‖w‖²) in the loss (Zou & Hastie 2005).

    Symbols: λ = strength; ρ = l1_ratio
    Use: sparse weights in groups of correlated inputs.
    Defaults: 1e-4, half and half (scikit-learn's l1_ratio).
    Paper: Zou & Hastie 2005
    Lecture: L0 L3

    Args:
        strength: weight of both penalties together
        l1_ratio: share of the L1 penalty; 0 is l2, 1 is l1
        all_parameters: true includes biases and normalisation parameters
    """

    def __init__(
        self,
        model: nn.Module,
        strength: NonNegative = 1e-4,
        l1_ratio: Share = 0.5,
        all_parameters: bool = False,
    ) -> None:
        require_strength("elastic_net", strength)
        require(0 <= l1_ratio <= 1, "elastic_net.l1_ratio", l1_ratio, "in [0, 1]", "0 is l2, 1 is l1")
        self.l1, self.l2 = strength * l1_ratio, strength * (1 - l1_ratio)
        self.parameters = decayed_parameters(model, "elastic_net", all_parameters)

    def penalty(self) -> Tensor:
        weights = flat(self.parameters)
        return self.l1 * weights.abs().sum() + self.l2 / 2 * weights.square().sum()


@overload
def l1(
    model: nn.Module,
    strength: float = 1e-4,
    mode: Literal["proximal"] = "proximal",
    all_parameters: bool = False,
) -> ProximalL1: ...
@overload
def l1(
    model: nn.Module,
    strength: float = 1e-4,
    *,
    mode: Literal["subgradient"],
    all_parameters: bool = False,
) -> L1Penalty: ...
def l1(
    model: nn.Module,
    strength: NonNegative = 1e-4,
    mode: Literal["subgradient", "proximal"] = "proximal",
    all_parameters: bool = False,
) -> L1Penalty | ProximalL1:
    """L1 penalty: pulls weights to exactly zero.

        subgradient: loss += λ‖w‖₁
        proximal: w ← sign(w)·max(|w| − lr·λ, 0) after each update

    The L1 penalty in the loss, or as a proximal step after each update.

    Symbols: λ = strength
    Use: sparse weights; proximal gives exact zeros, the subgradient only small weights.
    Defaults: 1e-4, which thins a small net without starving it.
    Paper: Tibshirani 1996; Daubechies et al. 2004, arXiv:math/0307152 (soft thresholding)
    Lecture: L0 L3

    Args:
        strength: weight of the penalty
        mode: in the loss, or as soft thresholding with exact zeros
        all_parameters: true includes biases and normalisation parameters
    """
    modes: dict[str, type[L1Penalty | ProximalL1]] = {"subgradient": L1Penalty, "proximal": ProximalL1}
    require(mode in modes, "l1.mode", mode, "subgradient or proximal", "proximal gives exact zeros")
    return modes[mode](model, strength, all_parameters)


def bounds(value: Any, parameters: Sequence[Tensor]) -> Any:
    """A number as it is; a tensor (of an lr that lives on the device) once for each parameter."""
    return [value] * len(parameters) if isinstance(value, Tensor) else value


def flat(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters as one vector with its graph: three kernels in place of three for each tensor."""
    return torch.cat([parameter.reshape(-1) for parameter in parameters])


def zero_share(parameters: Sequence[Tensor]) -> Tensor:
    """The share of exact zeros among `parameters`, a scalar on the device."""
    zeros = torch.stack([(parameter.detach() == 0).sum() for parameter in parameters]).sum()
    return zeros / sum(parameter.numel() for parameter in parameters)
