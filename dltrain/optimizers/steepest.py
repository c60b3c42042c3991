"""Steepest descent with an exact line search on the quadratic model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dltrain.optimizers.curvature import dot, hessian_vector, losses_with_graph, trainable
from dltrain.optimizers.groups import Params
from dltrain.ranges import Positive


class Steepest(torch.optim.Optimizer):
    """Steepest descent with the exact minimizer of the quadratic model along the gradient.

        w ← w − lr·α·g
        α = gᵀg/gᵀHg, at most max_step
        where gᵀHg ≤ 0: α = fallback

    α is one number for all parameters. With lr = 1 on a quadratic, each step multiplies the loss by at most
    ((κ − 1)/(κ + 1))², with κ the condition number of H. There is no host sync.

    Use: to compare with the best possible step along the gradient; a step costs a gradient and a
        Hessian-vector product.
    Defaults: lr 1 is the exact step; fallback is a usual learning rate.
    Paper: Cauchy 1847
    Lecture: L0 L4

    Args:
        lr: factor of the step
        fallback: step size if the curvature along g is not positive
        max_step: largest step size
    """

    needs = frozenset({"own evaluations", "second derivatives", "one loss"})

    def __init__(
        self, params: Params, lr: Positive = 1.0, fallback: Positive = 0.1, max_step: Positive = 1e3
    ) -> None:
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
