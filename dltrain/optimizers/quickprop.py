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
from dltrain.ranges import NonNegative, Positive


class Quickprop(torch.optim.Optimizer):
    """Quickprop: each weight jumps to the minimum of a parabola through its last two slopes.

        Δ ← Δ·g/(g′ − g), at most μ times the last step
        −lr·g added while g keeps its sign

    Δw = d S/(S' - S), with d the last step, S and S' the slopes now and then (Fahlman 1988, CMU-CS-88-162;
    L2).

    Rules of the report: no step exceeds `growth` (its μ) times the last one, which is also the step where the
    parabola opens downwards; -lr S is added while the slope still points the way of the last step, and makes
    the first step. Slopes include `weight_decay` times the weight. Meant for full batches: the parabola
    assumes that both slopes belong to one function.

    Symbols: μ = growth; g′ = the gradient before
    Use: full batches only, since both slopes must belong to one function; budget on digits: see
        benchmarks/default_lr.md.
    Defaults: growth 1.75 of the paper; lr from benchmarks/default_lr.md.
    Paper: Fahlman 1988, CMU-CS-88-162
    Lecture: L2

    Args:
        lr: share of the gradient in the step
        growth: largest ratio of two steps of a weight
        weight_decay: λ of λ/2·‖w‖², added to the gradient
    """

    def __init__(
        self, params: Params, lr: Positive = 0.03, growth: Positive = 1.75, weight_decay: NonNegative = 0.0
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
            onward = [product.le_(0.0) for product in torch._foreach_mul(last, slopes)]
            _jump_to_minima(last, slopes, before, group["growth"])
            torch._foreach_addcmul_(last, slopes, onward, value=-group["lr"])  # not where S points against d
            torch._foreach_copy_(before, slopes)
            torch._foreach_add_(parameters, last)
        return loss


def _jump_to_minima(last: list[Tensor], slopes: list[Tensor], before: list[Tensor], growth: float) -> None:
    """d ← d S/(S' - S), held to ±growth d, where the slope rose along d; d ← growth d elsewhere; in place.

    `before` is used up. Conditions are numbers, 1 or 0: masks of booleans and `where` cost 30 times as much on a CPU.
    """
    torch._foreach_sub_(before, slopes)
    rose = [product.lt_(0.0) for product in torch._foreach_mul(last, before)]
    torch._foreach_add_(before, torch.finfo(slopes[0].dtype).tiny)  # no 0/0
    for slope, ratio in zip(slopes, before, strict=True):
        torch.div(slope, ratio, out=ratio).clamp_(-growth, growth).sub_(growth)
    torch._foreach_mul_(before, last)  # what to add to growth d, where the parabola opens upwards
    torch._foreach_mul_(last, growth)
    torch._foreach_addcmul_(last, before, rose)
