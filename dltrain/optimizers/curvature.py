"""Hessian-vector products, and sums over all parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dltrain.optimizers.groups import ParamGroup

# one tensor per parameter
Vector = list[Tensor]


def losses_with_graph(closure: Any, parameters: Vector, optimizer: str) -> tuple[Tensor, Vector]:
    """Return the loss and gradients that can be differentiated again.

    Raises ValueError for a closure without the method `gradients`.
    """
    if not hasattr(closure, "gradients"):
        raise ValueError(
            f"optimizer={optimizer} needs second derivatives, which this closure cannot give; it must have "
            "gradients(params, create_graph=True): use no wrap around it, or a first-order optimizer"
        )
    loss, grads = closure.gradients(parameters, create_graph=True)
    return loss, list(grads)


def hessian_vector(grads: Vector, parameters: Vector, vector: Vector) -> Vector:
    """Compute H v by differentiating gᵀv (Pearlmutter 1994); keep the graph.

    The cost is about that of one gradient.
    """
    curved = [(grad, v) for grad, v in zip(grads, vector, strict=True) if grad.requires_grad]
    # a loss that is linear in all weights
    if not curved:
        return [torch.zeros_like(parameter) for parameter in parameters]
    outputs, directions = zip(*curved, strict=True)
    product = torch.autograd.grad(
        outputs, parameters, grad_outputs=directions, retain_graph=True, materialize_grads=True
    )
    return list(product)


def dot(left: Vector, right: Vector) -> Tensor:
    """Compute the inner product over all parameters, a scalar on their device."""
    return torch.stack([torch.sum(a * b) for a, b in zip(left, right, strict=True)]).sum()


def trainable(param_groups: list[ParamGroup]) -> tuple[Vector, list[float]]:
    """Return all parameters that are not frozen, and for each the lr of its group."""
    pairs = [(p, group["lr"]) for group in param_groups for p in group["params"] if p.requires_grad]
    return [parameter for parameter, _ in pairs], [lr for _, lr in pairs]
