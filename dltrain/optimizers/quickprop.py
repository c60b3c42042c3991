"""Quickprop: each weight jumps to the minimum of a parabola through its last two slopes."""

from __future__ import annotations

import torch
from torch import Tensor

from dltrain.optimizers.groups import (
    Closure,
    Params,
    buffers,
    evaluate,
    gradients,
    require,
    require_decay,
    require_lr,
    with_gradient,
)


class Quickprop(torch.optim.Optimizer):
    """Δw = d S/(S' - S), with d the last step, S and S' the slopes now and then (Fahlman 1988, CMU-CS-88-162; L2).

    Rules of the report: no step exceeds `growth` (its μ) times the last one, which is also the step where the slope
    has hardly fallen or has grown (S beyond μ/(1+μ) S' on the downhill side); -lr S is added while the slope still
    points the way of the last step, and makes the first step. Slopes include `weight_decay` times the weight.
    Meant for full batches: the parabola assumes that both slopes belong to one function.
    """

    def __init__(
        self, params: Params, lr: float = 0.1, growth: float = 1.75, weight_decay: float = 0.0
    ) -> None:
        require_lr(lr)
        require_decay(weight_decay)
        require(growth > 0, "growth", growth, "a number > 0", "Fahlman's value is 1.75")
        super().__init__(params, {"lr": lr, "growth": growth, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor | None:  # type: ignore[override]
        loss = evaluate(closure)
        for group in self.param_groups:
            parameters = with_gradient(group)
            if not parameters:
                continue
            slopes = gradients(parameters)
            if group["weight_decay"]:
                slopes = list(torch._foreach_add(slopes, parameters, alpha=group["weight_decay"]))
            steps, before = buffers(self, parameters, "step_taken"), buffers(self, parameters, "slope")
            for last, slope, slope_before in zip(steps, slopes, before, strict=True):
                last.copy_(_next_step(last, slope, slope_before, group["lr"], group["growth"]))
            torch._foreach_copy_(before, slopes)
            torch._foreach_add_(parameters, steps)
        return loss


def _next_step(last: Tensor, slope: Tensor, before: Tensor, lr: float, growth: float) -> Tensor:
    """Fahlman's three cases for all weights at once; where there was no last step, the gradient step alone."""
    downhill, downhill_before = (
        -last.sign() * slope,
        -last.sign() * before,
    )  # positive: on in the same direction
    parabola = (slope / (before - slope)).clamp_(-growth, growth)
    factor = torch.where(downhill >= growth / (1 + growth) * downhill_before, growth, parabola)
    gradient_step = torch.where((downhill > 0) | (last == 0), slope, 0.0)
    return last * factor - lr * gradient_step
