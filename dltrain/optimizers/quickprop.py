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
    """Δw = d S/(S' - S), with d the last step, S and S' the slopes now and then (Fahlman 1988, CMU-CS-88-162;
    L2).

    Rules of the report: no step exceeds `growth` (its μ) times the last one, which is also the step where the
    parabola opens downwards; -lr S is added while the slope still points the way of the last step, and makes
    the first step. Slopes include `weight_decay` times the weight. Meant for full batches: the parabola
    assumes that both slopes belong to one function.
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
            last, before = buffers(self, parameters, "step_taken"), buffers(self, parameters, "slope")
            against = _indicate(torch._foreach_mul(last, slopes))
            _jump_to_minima(last, slopes, before, group["growth"])
            torch._foreach_add_(last, slopes, alpha=-group["lr"])
            torch._foreach_addcmul_(
                last, slopes, against, value=group["lr"]
            )  # not where S points against the step
            torch._foreach_copy_(before, slopes)
            torch._foreach_add_(parameters, last)
        return loss


def _indicate(values: tuple[Tensor, ...] | list[Tensor]) -> list[Tensor]:
    """1 where positive, else 0, in place; comparisons and `where` cost 5 to 30 times as much on a CPU."""
    torch._foreach_sign_(values)
    torch._foreach_clamp_min_(values, 0.0)
    return list(values)


def _jump_to_minima(last: list[Tensor], slopes: list[Tensor], before: list[Tensor], growth: float) -> None:
    """d ← d S/(S' - S), held to ±growth d, where the slope rose along d; d ← growth d elsewhere; in place."""
    rise = torch._foreach_sub(slopes, before)
    convex = _indicate(torch._foreach_mul(last, rise))
    torch._foreach_add_(rise, torch.finfo(slopes[0].dtype).tiny)  # no 0/0
    torch._foreach_reciprocal_(rise)
    torch._foreach_mul_(rise, slopes)
    torch._foreach_clamp_max_(rise, growth)
    torch._foreach_clamp_min_(rise, -growth)
    torch._foreach_add_(rise, growth)  # what to take from growth d, where the parabola opens upwards
    torch._foreach_mul_(rise, convex)
    torch._foreach_mul_(rise, last)
    torch._foreach_mul_(last, growth)
    torch._foreach_sub_(last, rise)
