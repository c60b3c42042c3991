"""Weight decay, beside the gradient or in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from torch import nn

from dltrain.ranges import NonNegative
from dltrain.regularization.selection import decayed_parameters, grouped, require, require_strength


class DecoupledDecay:
    """w ← (1 − lr·strength)·w before the update: turns Adam into AdamW.

    Loshchilov & Hutter 2019, arXiv:1711.05101.
    """

    needs = frozenset({"lr as step size"})
    instead = "regularization=[l2]"

    def __init__(self, model: nn.Module, strength: float = 1e-2, all_parameters: bool = False) -> None:
        require_strength("weight_decay", strength)
        self.strength = strength
        self.parameters = decayed_parameters(model, "weight_decay", all_parameters)

    @torch.no_grad()
    def before_update(self, param_groups: Sequence[dict[str, Any]], scale: float = 1.0) -> None:
        for parameters, lr in grouped(self.parameters, param_groups):
            torch._foreach_mul_(parameters, 1 - lr * self.strength * scale)


class CoupledDecay:
    """gradient ← gradient + strength·w (L0 to L3): what torch calls weight_decay in SGD and Adam.

    After clipping and noise, so that neither sees it.
    """

    order = 2
    instead = "regularization=[l2]"

    def __init__(self, model: nn.Module, strength: float = 1e-2, all_parameters: bool = False) -> None:
        require_strength("weight_decay", strength)
        self.strength = strength
        self.parameters = decayed_parameters(model, "weight_decay", all_parameters)

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
    """Weight decay: weights shrink at every step.

        decoupled: w ← (1 − lr·λ)·w before the update
        coupled: gradient += λ·w

    Weight decay beside the gradient (AdamW's) or in it (L2's).

    Symbols: λ = strength
    Use: decoupled with any optimizer; coupled is torch's weight_decay of SGD and Adam.
    Defaults: AdamW's 0.01.
    Paper: Loshchilov & Hutter 2019, arXiv:1711.05101
    Lecture: L0 L1 L2 L3

    Args:
        strength: decay for each step and unit of lr
        mode: beside the gradient (AdamW), or in it (L2)
        all_parameters: true includes biases and normalisation parameters
    """
    modes: dict[str, type[DecoupledDecay | CoupledDecay]] = {
        "decoupled": DecoupledDecay,
        "coupled": CoupledDecay,
    }
    require(
        mode in modes, "weight_decay.mode", mode, "decoupled or coupled", "decoupled fits every optimizer"
    )
    return modes[mode](model, strength, all_parameters)
