"""Rules that change the gradient: clipping in three ways, and noise."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from dltrain.ranges import NonNegative, Positive
from dltrain.regularization.selection import require

Mode = Literal["norm", "value", "adaptive"]


class ClipNorm:
    """Shorten the whole gradient to the norm `limit` (Pascanu et al. 2013, arXiv:1211.5063; L4)."""

    order = 0

    def __init__(self, model: nn.Module, limit: float = 1.0) -> None:
        self.parameters, self.limit = list(model.parameters()), limit

    def change_gradients(self, generator: torch.Generator, scale: float = 1.0, step: int = 0) -> None:
        nn.utils.clip_grad_norm_(self.parameters, self.limit)


class ClipValue:
    """Clip every entry of the gradient to ±limit."""

    order = 0

    def __init__(self, model: nn.Module, limit: float = 0.5) -> None:
        self.parameters, self.limit = list(model.parameters()), limit

    def change_gradients(self, generator: torch.Generator, scale: float = 1.0, step: int = 0) -> None:
        moving = [parameter for parameter in self.parameters if parameter.grad is not None]
        if moving:  # torch's own fails on none
            nn.utils.clip_grad_value_(moving, self.limit)


class ClipAdaptive:
    """Shorten each unit's gradient to `limit` times the norm of its weights (Brock et al. 2021,
    arXiv:2102.06171).

    A unit is one row of a linear layer, one filter of a convolution, or a whole bias or gain; its weights
    count as at least `eps`. The last layer is left alone, as in the paper.
    """

    order = 0

    def __init__(self, model: nn.Module, limit: float = 0.01, eps: float = 1e-3) -> None:
        self.limit, self.eps = limit, eps
        last = last_layer(model)
        kept = {id(parameter) for parameter in (last.parameters() if last else ())}
        self.parameters = [parameter for parameter in model.parameters() if id(parameter) not in kept]

    @torch.no_grad()
    def change_gradients(self, generator: torch.Generator, scale: float = 1.0, step: int = 0) -> None:
        for parameter in self.parameters:
            if parameter.grad is not None:
                allowed = self.limit * unit_norms(parameter).clamp_min(self.eps)
                length = unit_norms(parameter.grad).clamp_min(1e-6)
                parameter.grad.mul_((allowed / length).clamp_max(1))


class GradientNoise:
    """Gradient noise that fades over the steps.

        g ← g + σ·z,  σ² = η/(1 + t)^γ
        z standard normal, t the step from 0

    Add Gaussian noise of variance eta/(1 + step)^gamma to the gradient.

    Neelakantan et al. 2015, arXiv:1511.06807. A function of the step alone, so that nothing needs saving;
    after clipping, as in the paper.

    Symbols: η = eta; γ = gamma
    Use: deep nets that stick at the start of training.
    Defaults: the paper's γ and the smallest of its three η.
    Paper: Neelakantan et al. 2015, arXiv:1511.06807

    Args:
        eta: variance of the noise at step 0
        gamma: how fast it fades; 0 keeps it
    """

    order = 1

    def __init__(self, model: nn.Module, eta: Positive = 0.01, gamma: NonNegative = 0.55) -> None:
        cure = "leave gradient_noise away to have none"
        require(0 < eta < math.inf, "gradient_noise.eta", eta, "> 0", cure)
        require(0 <= gamma < math.inf, "gradient_noise.gamma", gamma, ">= 0", "0.55 is the paper's")
        self.parameters, self.eta, self.gamma = list(model.parameters()), eta, gamma

    @torch.no_grad()
    def change_gradients(self, generator: torch.Generator, scale: float = 1.0, step: int = 0) -> None:
        sigma = math.sqrt(self.eta / (1 + step) ** self.gamma)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if gradients:
            noise = [
                torch.randn(g.shape, generator=generator, device=g.device, dtype=g.dtype) for g in gradients
            ]
            torch._foreach_add_(gradients, noise, alpha=sigma)


def gradient_clipping(
    model: nn.Module,
    mode: Literal["norm", "value", "adaptive"] = "norm",
    limit: Positive | Literal["auto"] = "auto",
    eps: Positive = 1e-3,
) -> ClipNorm | ClipValue | ClipAdaptive:
    """Gradient clipping: no step is longer than allowed.

        norm: g ← g·min(1, c/‖g‖)
        value: g ← clip(g, ±c)
        adaptive: each unit's g ← g·min(1, c·max(‖w‖, eps)/‖g‖)

    Clip the gradient's norm, its entries, or each unit's gradient against its weights.

    `limit` auto: 1 for norm, 0.5 for value, 0.01 for adaptive. `eps` is for adaptive alone.

    Symbols: c = limit; ‖g‖ over all parameters together (norm) or over the weights of one output unit
        (adaptive)
    Use: norm for exploding gradients; adaptive for large batches without normalisation layers.
    Defaults: norm 1; auto is 1 for norm, 0.5 for value, the paper's 0.01 for adaptive.
    Paper: Pascanu et al. 2013, arXiv:1211.5063; Brock et al. 2021, arXiv:2102.06171 (adaptive)
    Lecture: L4

    Args:
        mode: what is limited
        limit: greatest norm, absolute value, or ratio of a unit's gradient to its weights
        eps: adaptive only: smallest norm that a unit's weights count as
    """
    automatic = {"norm": 1.0, "value": 0.5, "adaptive": 0.01}
    require(
        mode in automatic, "gradient_clipping.mode", mode, "norm, value or adaptive", "norm is the usual one"
    )
    bound = automatic[mode] if limit == "auto" else limit
    cure = "leave gradient_clipping away to clip nothing"
    good = isinstance(bound, float | int) and 0 < bound < math.inf
    require(good, "gradient_clipping.limit", limit, "> 0 or auto", cure)
    require(0 < eps < math.inf, "gradient_clipping.eps", eps, "> 0", "0.001 is the paper's")
    if mode == "adaptive":
        return ClipAdaptive(model, float(bound), eps)
    return (ClipNorm if mode == "norm" else ClipValue)(model, float(bound))


def unit_norms(values: Tensor) -> Tensor:
    """Norms over all axes but the first, of shape (units, 1, …); of a vector as a whole."""
    if values.ndim <= 1:
        return values.norm()
    return torch.linalg.vector_norm(values, dim=tuple(range(1, values.ndim)), keepdim=True)


def last_layer(model: nn.Module) -> nn.Module | None:
    """The last module that owns a parameter with two or more axes."""
    layers = [
        module for module in model.modules() if any(p.ndim >= 2 for p in module.parameters(recurse=False))
    ]
    return layers[-1] if layers else None
