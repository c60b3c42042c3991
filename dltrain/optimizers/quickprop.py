"""The Quickprop optimizer."""

from __future__ import annotations

import torch
from torch import Tensor

from dltrain.optimizers.groups import (
    Closure,
    Params,
    buffers,
    evaluate,
    gradients,
    with_gradient,
)
from dltrain.ranges import NonNegative, Positive


class Quickprop(torch.optim.Optimizer):
    """Quickprop: each weight steps to the minimum of a parabola through its last two slopes.

        Δ ← Δ·g/(g′ − g), with |Δ| at most μ times its last value
        Δ ← Δ − lr·g, unless the last step was along g
        w ← w + Δ

    Where the parabola opens downward, the first statement is Δ ← μΔ. The first step is −lr·g.

    Symbols: μ = growth; Δ = the step; g′ = the previous gradient
    Use: full batches only, since both slopes must belong to the same function.
    Defaults: growth of the paper; lr from benchmarks/default_lr.md.
    Paper: Fahlman 1988, CMU-CS-88-162
    Lecture: L2

    Args:
        lr: factor of the gradient in the step
        growth: largest ratio of two successive steps of a weight
        weight_decay: λ of the penalty λ/2·‖w‖², whose gradient is added to g
    """

    def __init__(
        self, params: Params, lr: Positive = 0.03, growth: Positive = 1.75, weight_decay: NonNegative = 0.0
    ) -> None:
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
            onward = [product.le_(0.0) for product in torch._foreach_mul(last, slopes)]
            _jump_to_minima(last, slopes, before, group["growth"])
            torch._foreach_addcmul_(last, slopes, onward, value=-group["lr"])
            torch._foreach_copy_(before, slopes)
            torch._foreach_add_(parameters, last)
        return loss


def _jump_to_minima(last: list[Tensor], slopes: list[Tensor], before: list[Tensor], growth: float) -> None:
    """Compute d ← d S/(S' - S), clamped to ±growth d, where the slope S rose along d, else d ← growth d; in place.

    `before` is overwritten. Conditions are the numbers 1 and 0: boolean masks and `where` cost 30 times as much on
    a CPU.
    """
    torch._foreach_sub_(before, slopes)
    rose = [product.lt_(0.0) for product in torch._foreach_mul(last, before)]
    # avoid 0/0
    torch._foreach_add_(before, torch.finfo(slopes[0].dtype).tiny)
    for slope, ratio in zip(slopes, before, strict=True):
        torch.div(slope, ratio, out=ratio).clamp_(-growth, growth).sub_(growth)
    # now the difference from growth d where the parabola opens upward
    torch._foreach_mul_(before, last)
    torch._foreach_mul_(last, growth)
    torch._foreach_addcmul_(last, before, rose)
