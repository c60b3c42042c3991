"""Rules that change the gradient: clipping and noise."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from dltrain.declare import declares
from dltrain.ranges import NonNegative, Positive
from dltrain.weight_layers import used_matrix


class ClipNorm:
    """Scale the gradient of all parameters down to the norm `limit`."""

    order = 0

    def __init__(self, model: nn.Module, limit: float = 1.0) -> None:
        self.parameters, self.limit = list(model.parameters()), limit

    def change_gradients(self, generator: torch.Generator, scale: float = 1.0, step: int = 0) -> None:
        nn.utils.clip_grad_norm_(self.parameters, self.limit)


class ClipValue:
    """Clip every entry of the gradient to ±`limit`."""

    order = 0

    def __init__(self, model: nn.Module, limit: float = 0.5) -> None:
        self.parameters, self.limit = list(model.parameters()), limit

    def change_gradients(self, generator: torch.Generator, scale: float = 1.0, step: int = 0) -> None:
        moving = [parameter for parameter in self.parameters if parameter.grad is not None]
        # torch's function fails on an empty list
        if moving:
            nn.utils.clip_grad_value_(moving, self.limit)


class ClipAdaptive:
    """Scale each unit's gradient down to `limit` times the norm of its weights.

    A unit is one row of a linear layer, one filter of a convolution, or a whole vector (bias, gain). The last layer is
    not clipped, as in the paper.
    """

    order = 0

    def __init__(self, model: nn.Module, limit: float = 0.01, eps: float = 1e-3) -> None:
        self.limit, self.eps = limit, eps
        last = last_matrix_owner(model)
        # the owner of a matrix that is used last may have other layers inside
        recurse = used_matrix(model) is None
        kept = {id(parameter) for parameter in (last.parameters(recurse) if last else ())}
        self.parameters = [parameter for parameter in model.parameters() if id(parameter) not in kept]

    @torch.no_grad()
    def change_gradients(self, generator: torch.Generator, scale: float = 1.0, step: int = 0) -> None:
        for parameter in self.parameters:
            if parameter.grad is not None:
                allowed = self.limit * unit_norms(parameter).clamp_min(self.eps)
                length = unit_norms(parameter.grad).clamp_min(1e-6)
                parameter.grad.mul_((allowed / length).clamp_max(1))


class GradientNoise:
    """Gradient noise: Gaussian noise that decays over the steps, added after clipping.

        g ← g + σ·z
        σ² = η/(1 + t)^γ

    Symbols: η = eta; γ = gamma; z standard normal; t the step, from 0
    Use: deep networks that do not learn at the start of training.
    Defaults: the paper's γ and the smallest of its three η.
    Paper: Neelakantan et al. 2015, arXiv:1511.06807

    Args:
        eta: variance of the noise at step 0
        gamma: exponent of the decay; 0 keeps the variance constant
    """

    order = 1

    def __init__(self, model: nn.Module, eta: Positive = 0.01, gamma: NonNegative = 0.55) -> None:
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


@declares(needs={"sizes of gradients"})
def gradient_clipping(
    model: nn.Module,
    mode: Literal["norm", "value", "adaptive"] = "norm",
    limit: Positive | Literal["auto"] = "auto",
    eps: Positive = 1e-3,
) -> ClipNorm | ClipValue | ClipAdaptive:
    """Gradient clipping: limit the norm or the entries of the gradient.

        norm: g ← g·min(1, c/‖g‖)
        value: g ← clip(g, ±c)
        adaptive: g ← g·min(1, c·max(‖w‖, eps)/‖g‖) for each unit

    The adaptive mode does not clip the last layer, as in the paper. The column grad_norm is the norm before clipping, by
    which a limit can be chosen.

    Symbols: c = limit; ‖g‖ the norm over all parameters (norm) or over the weights of one output unit, as
        ‖w‖ (adaptive)
    Use: norm for exploding gradients; adaptive for large batches without normalization layers.
    Defaults: limit=auto is 1 for norm, 0.5 for value, and the paper's 0.01 for adaptive.
    Paper: Pascanu et al. 2013, arXiv:1211.5063; Brock et al. 2021, arXiv:2102.06171 (adaptive)
    Lecture: L4

    Args:
        mode: limit the norm, each entry, or each unit's norm relative to its weights
        limit: largest norm, absolute value, or ratio of a unit's gradient to its weights
        eps: lower bound of ‖w‖ (adaptive only)
    """
    automatic = {"norm": 1.0, "value": 0.5, "adaptive": 0.01}
    bound = automatic[mode] if isinstance(limit, str) else float(limit)
    if mode == "adaptive":
        return ClipAdaptive(model, bound, eps)
    return (ClipNorm if mode == "norm" else ClipValue)(model, bound)


def unit_norms(values: Tensor) -> Tensor:
    """Return the norm of each unit, of shape (units, 1, …), or that of a vector as a whole."""
    if values.ndim <= 1:
        return values.norm()
    return torch.linalg.vector_norm(values, dim=tuple(range(1, values.ndim)), keepdim=True)


def last_matrix_owner(model: nn.Module) -> nn.Module | None:
    """Return the owner of the matrix that the model uses last, or the last owner of one where no use is known."""
    used = used_matrix(model)
    if used is not None:
        return used.owner
    layers = [
        module for module in model.modules() if any(p.ndim >= 2 for p in module.parameters(recurse=False))
    ]
    return layers[-1] if layers else None
