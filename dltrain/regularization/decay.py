"""Weight decay: decoupled from the gradient, or added to it."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import nn

from dltrain.ranges import NonNegative
from dltrain.regularization.protocols import SQUARED
from dltrain.regularization.selection import ParamGroups, decayed_parameters, grouped


class DecoupledDecay:
    """Decay the weights before the update, in proportion to lr (AdamW)."""

    needs = frozenset({"lr as step size"})
    gives = frozenset({"decay"})
    instead = {"lr as step size": "regularization=[l2], which acts in the loss"}

    def __init__(self, model: nn.Module, strength: float = 1e-2, all_parameters: bool = False) -> None:
        self.strength = strength
        self.parameters = decayed_parameters(model, "weight_decay", all_parameters)

    def terms(self) -> dict[str, float]:
        return {SQUARED: self.strength}

    @torch.no_grad()
    def before_update(self, param_groups: ParamGroups, scale: float = 1.0) -> None:
        for parameters, group in grouped(self.parameters, param_groups):
            torch._foreach_mul_(parameters, 1 - group["lr"] * self.strength * scale)


class CoupledDecay:
    """Add strength·w to the gradient, as torch's weight_decay of SGD and Adam does."""

    # after clipping (0) and noise (1), which leave the decay alone
    order = 2
    gives = frozenset({"decay"})
    instead = {"changed gradients": "regularization=[l2], which acts in the loss"}

    def __init__(self, model: nn.Module, strength: float = 1e-2, all_parameters: bool = False) -> None:
        self.strength = strength
        self.parameters = decayed_parameters(model, "weight_decay", all_parameters)

    def terms(self) -> dict[str, float]:
        return {SQUARED: self.strength}

    @torch.no_grad()
    def change_gradients(self, generator: torch.Generator, scale: float = 1.0, step: int = 0) -> None:
        pairs = [(parameter.grad, parameter) for parameter in self.parameters if parameter.grad is not None]
        if pairs:
            gradients, weights = (list(column) for column in zip(*pairs, strict=True))
            torch._foreach_add_(gradients, weights, alpha=self.strength * scale)


@overload
def weight_decay(
    model: nn.Module,
    strength: float = 1e-2,
    mode: Literal["decoupled"] = "decoupled",
    all_parameters: bool = False,
) -> DecoupledDecay: ...
@overload
def weight_decay(
    model: nn.Module, strength: float = 1e-2, *, mode: Literal["coupled"], all_parameters: bool = False
) -> CoupledDecay: ...
def weight_decay(
    model: nn.Module,
    strength: NonNegative = 1e-2,
    mode: Literal["decoupled", "coupled"] = "decoupled",
    all_parameters: bool = False,
) -> DecoupledDecay | CoupledDecay:
    """Weight decay: shrink the weights at every step.

        decoupled: w ← (1 − lr·λ)·w before the update
        coupled: g ← g + λ·w after clipping and noise

    Symbols: λ = strength, g the gradient
    Use: decoupled with any optimizer; coupled is torch's weight_decay of SGD and Adam.
    Defaults: AdamW's 0.01.
    Paper: Loshchilov & Hutter 2019, arXiv:1711.05101
    Lecture: L0 L1 L2 L3

    Args:
        strength: rate of decay
        mode: decoupled from the gradient (AdamW), or added to it (L2)
        all_parameters: true includes biases and normalization parameters
    """
    modes: dict[str, type[DecoupledDecay | CoupledDecay]] = {
        "decoupled": DecoupledDecay,
        "coupled": CoupledDecay,
    }
    return modes[mode](model, strength, all_parameters)
