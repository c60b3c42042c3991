"""Curvature without a Hessian: products of it with a vector, and sums over all parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Vector = list[Tensor]  # one tensor for each parameter


def losses_with_graph(closure: Any, parameters: Vector, optimizer: str) -> tuple[Tensor, Vector]:
    """Loss and gradients that can be differentiated again. Raises ValueError for a closure that has no
    `gradients`.
    """
    if not hasattr(closure, "gradients"):
        raise ValueError(
            f"optimizer={optimizer} needs second derivatives, which this closure cannot give; it must have "
            "gradients(params, create_graph=True): use no wrap around it, or a first-order optimizer"
        )
    loss, grads = closure.gradients(parameters, create_graph=True)
    return loss, list(grads)


def hessian_vector(grads: Vector, parameters: Vector, vector: Vector) -> Vector:
    """H v by differentiating gᵀv (Pearlmutter 1994); costs about one more gradient, the graph is kept."""
    curved = [(grad, v) for grad, v in zip(grads, vector, strict=True) if grad.requires_grad]
    if not curved:  # a loss that is linear in all weights
        return [torch.zeros_like(parameter) for parameter in parameters]
    outputs, directions = zip(*curved, strict=True)
    product = torch.autograd.grad(
        outputs, parameters, grad_outputs=directions, retain_graph=True, materialize_grads=True
    )
    return list(product)


def dot(left: Vector, right: Vector) -> Tensor:
    """The inner product over all parameters, a scalar on their device."""
    return torch.stack([torch.sum(a * b) for a, b in zip(left, right, strict=True)]).sum()


def trainable(param_groups: list[dict[str, Any]]) -> tuple[Vector, list[float]]:
    """All parameters that are not frozen, each with the lr of its group."""
    pairs = [(p, group["lr"]) for group in param_groups for p in group["params"] if p.requires_grad]
    return [parameter for parameter, _ in pairs], [lr for _, lr in pairs]
