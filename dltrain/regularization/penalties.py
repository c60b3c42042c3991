"""L1, L2 and elastic-net penalties of the loss, and L1 as soft thresholding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from dltrain.ranges import NonNegative, Share
from dltrain.regularization.protocols import ABSOLUTE, SQUARED
from dltrain.regularization.selection import ParamGroups, decayed_parameters, grouped, step_size


class L2:
    """L2 penalty of the loss (Tikhonov, ridge).

        loss ← loss + λ/2·‖w‖²

    Symbols: λ = strength
    Use: with sgd and momentum; with adaptive optimizers use weight_decay.
    Defaults: 1e-4, the usual value for convolutional nets.
    Paper: Hoerl & Kennard 1970
    Lecture: L0 L1 L2 L3

    Args:
        strength: weight of the penalty
        all_parameters: true includes biases and normalization parameters
    """

    def __init__(self, model: nn.Module, strength: NonNegative = 1e-4, all_parameters: bool = False) -> None:
        self.strength = strength
        self.parameters = decayed_parameters(model, "l2", all_parameters)

    def terms(self) -> dict[str, float]:
        return {SQUARED: self.strength}

    def penalty(self) -> Tensor:
        return self.strength / 2 * flat(self.parameters).square().sum()


class L1Penalty:
    """Add strength·‖w‖₁ to the loss, with subgradient 0 at 0; weights are rarely exactly zero."""

    def __init__(self, model: nn.Module, strength: float = 1e-4, all_parameters: bool = False) -> None:
        self.strength = strength
        self.parameters = decayed_parameters(model, "l1", all_parameters)

    def terms(self) -> dict[str, float]:
        return {ABSOLUTE: self.strength}

    def penalty(self) -> Tensor:
        return self.strength * flat(self.parameters).abs().sum()

    def zero_share(self) -> Tensor:
        """Return the fraction of weights that are exactly zero, a scalar on the device."""
        return zero_share(self.parameters)


class ProximalL1:
    """Minimize loss + strength·‖w‖₁ by soft thresholding after each update."""

    needs = frozenset({"lr as step size"})
    instead = {
        "lr as step size": "regularization.l1.mode=subgradient, which acts in the loss",
        "constrained weights": "regularization.l1.mode=subgradient, which acts in the loss",
    }

    def __init__(self, model: nn.Module, strength: float = 1e-4, all_parameters: bool = False) -> None:
        self.strength = strength
        self.parameters = decayed_parameters(model, "l1", all_parameters)

    def terms(self) -> dict[str, float]:
        return {ABSOLUTE: self.strength}

    @torch.no_grad()
    def after_update(self, param_groups: ParamGroups, scale: float = 1.0) -> None:
        for parameters, group in grouped(self.parameters, param_groups):
            threshold = step_size(group) * self.strength * scale
            removed = list(torch._foreach_clamp_max(parameters, bounds(threshold, parameters)))
            torch._foreach_clamp_min_(removed, bounds(-threshold, parameters))
            # w − clip(w, ±threshold) is exactly 0 inside the threshold
            torch._foreach_sub_(parameters, removed)

    def zero_share(self) -> Tensor:
        """Return the fraction of weights that are exactly zero, a scalar on the device."""
        return zero_share(self.parameters)


class ElasticNet:
    """Elastic net: L1 and L2 penalty of the loss.

        loss ← loss + λ·(ρ·‖w‖₁ + (1 − ρ)/2·‖w‖²)

    Symbols: λ = strength; ρ = l1_ratio
    Use: sparse weights where inputs are correlated in groups.
    Defaults: 1e-4; scikit-learn's l1_ratio.
    Paper: Zou & Hastie 2005
    Lecture: L0 L3

    Args:
        strength: weight of both penalties together
        l1_ratio: fraction of the L1 penalty; 0 is l2, 1 is l1
        all_parameters: true includes biases and normalization parameters
    """

    def __init__(
        self,
        model: nn.Module,
        strength: NonNegative = 1e-4,
        l1_ratio: Share = 0.5,
        all_parameters: bool = False,
    ) -> None:
        self.l1, self.l2 = strength * l1_ratio, strength * (1 - l1_ratio)
        self.parameters = decayed_parameters(model, "elastic_net", all_parameters)

    def terms(self) -> dict[str, float]:
        return {ABSOLUTE: self.l1, SQUARED: self.l2}

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
    """L1 penalty: sparse weights (lasso).

        subgradient: loss ← loss + λ·‖w‖₁
        proximal: w ← sign(w)·max(|w| − lr·λ, 0) after each update

    The proximal step is exact for gradient descent, and with momentum μ, whose steps along a constant gradient have the size
    lr/(1 − μ): the threshold is lr·λ/(1 − μ). With an adaptive optimizer it is lr·λ for all weights. The column zero_share
    is the fraction of exact zeros in the weights that are evaluated; an average of sparse weights has few.

    Symbols: λ = strength; μ the momentum of a heavy ball or of Nesterov
    Use: proximal gives exact zeros, the subgradient only small weights; beside gradient_clipping the subgradient, which is
        clipped with the loss, as the threshold is not.
    Defaults: 1e-4, which makes a small network sparse without a large loss of accuracy.
    Paper: Tibshirani 1996; Daubechies et al. 2004, arXiv:math/0307152 (soft thresholding)
    Lecture: L0 L3

    Args:
        strength: weight of the penalty
        mode: penalty of the loss, or soft thresholding
        all_parameters: true includes biases and normalization parameters
    """
    modes: dict[str, type[L1Penalty | ProximalL1]] = {"subgradient": L1Penalty, "proximal": ProximalL1}
    return modes[mode](model, strength, all_parameters)


def bounds(value: Any, parameters: Sequence[Tensor]) -> Any:
    """Return a number unchanged; repeat a tensor (an lr on the device) for each parameter."""
    return [value] * len(parameters) if isinstance(value, Tensor) else value


def flat(parameters: Iterable[Tensor]) -> Tensor:
    """Concatenate the parameters to one vector with its graph: three kernels, not three for each tensor."""
    return torch.cat([parameter.reshape(-1) for parameter in parameters])


def zero_share(parameters: Sequence[Tensor]) -> Tensor:
    """Return the fraction of exact zeros in `parameters`, a scalar on the device."""
    zeros = torch.stack([(parameter.detach() == 0).sum() for parameter in parameters]).sum()
    return zeros / sum(parameter.numel() for parameter in parameters)
