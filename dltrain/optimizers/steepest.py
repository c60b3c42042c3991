"""Steepest descent with the exact step of the quadratic model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dltrain.optimizers.curvature import dot, hessian_vector, losses_with_graph, trainable
from dltrain.optimizers.groups import Params, require, require_lr
from dltrain.ranges import Positive


class Steepest(torch.optim.Optimizer):
    """Steepest descent with the exact step along the gradient.

        w ← w − lr·α·g, α = gᵀg/gᵀHg
        where gᵀHg ≤ 0: α = fallback

    w ← w - lr α* g with α* = gᵀg / gᵀHg, which minimises the quadratic model along g (Cauchy 1847; L0, L4).

    One Hessian-vector product a step, no Hessian. With lr = 1 on a quadratic the loss falls by at least the
    factor ((κ - 1)/(κ + 1))² each step. Where gᵀHg is not positive the model has no minimum along g: then α =
    `fallback`. α is never above `max_step`, since a small curvature says little about a large step. No host
    sync.

    Use: to see what the best step along the gradient is worth; a step costs a gradient and a Hessian-vector
        product.
    Defaults: lr 1 is the exact step; fallback a plain learning rate.
    Paper: Cauchy 1847
    Lecture: L0 L4

    Args:
        lr: multiplies the exact step
        fallback: step size where the curvature along g is not positive
        max_step: largest step size
    """

    needs = frozenset({"own evaluations", "second derivatives", "one loss"})

    def __init__(
        self, params: Params, lr: Positive = 1.0, fallback: Positive = 0.1, max_step: Positive = 1e3
    ) -> None:
        require_lr(lr)
        require(fallback > 0, "fallback", fallback, "a number > 0", "give a plain learning rate, such as 0.1")
        require(
            max_step > 0, "max_step", max_step, "a number > 0", "give the largest step to trust, such as 1e3"
        )
        super().__init__(params, {"lr": lr, "fallback": fallback, "max_step": max_step})

    @torch.no_grad()
    def step(self, closure: Any) -> Tensor:  # type: ignore[override]
        parameters, lrs = trainable(self.param_groups)
        loss, graph = losses_with_graph(closure, parameters, "steepest")
        grads = [grad.detach() for grad in graph]
        alpha = self._alpha(dot(grads, grads), dot(grads, hessian_vector(graph, parameters, grads)))
        for parameter, grad, lr in zip(parameters, grads, lrs, strict=True):
            parameter.sub_(grad * (alpha * lr))
        return loss.detach()

    def _alpha(self, squared_norm: Tensor, curvature: Tensor) -> Tensor:
        exact = (squared_norm / curvature).clamp(max=self.defaults["max_step"])
        return torch.where(curvature > 0, exact, self.defaults["fallback"])
