"""The Lion optimizer."""

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
from dltrain.ranges import Fraction, NonNegative, Positive


class Lion(torch.optim.Optimizer):
    """Lion: steps by the sign of an interpolated momentum.

        w ← w − lr·(sign(β₁m + (1−β₁)g) + λw)
        m ← β₂m + (1−β₂)g

    Symbols: (β₁, β₂) = betas; λ = weight_decay
    Use: in place of AdamW with half of its state; choose lr 3 to 10 times smaller and weight_decay 3 to 10
        times larger.
    Defaults: betas of the paper; lr from benchmarks/default_lr.md.
    Paper: Chen et al. 2023, arXiv:2302.06675

    Args:
        lr: step size of every weight
        betas: interpolation factor of the step; decay rate of the momentum
        weight_decay: fraction of the weights subtracted per step, times lr
    """

    def __init__(
        self,
        params: Params,
        lr: Positive = 1e-4,
        betas: tuple[Fraction, Fraction] = (0.9, 0.99),
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor | None:  # type: ignore[override]
        loss = evaluate(closure)
        for group in self.param_groups:
            parameters = with_gradient(group)
            if not parameters:
                continue
            (beta1, beta2), lr = group["betas"], group["lr"]
            grads, momenta = gradients(parameters), buffers(self, parameters, "momentum")
            directions = torch._foreach_lerp(momenta, grads, 1 - beta1)
            torch._foreach_sign_(directions)
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
            torch._foreach_add_(parameters, directions, alpha=-lr)
            torch._foreach_lerp_(momenta, grads, 1 - beta2)
        return loss
