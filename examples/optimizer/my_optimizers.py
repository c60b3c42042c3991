"""An optimizer that a user wrote: Lion's sign step with plain momentum, and no closure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from torch import Tensor


class SignMomentum(torch.optim.Optimizer):
    """Step by the sign of an average of the gradients.

    Args:
        momentum: weight of the earlier gradients
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, momentum: Annotated[float, "in [0, 1)"] = 0.9
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                average = self.state[p].setdefault("average", torch.zeros_like(p))
                average.lerp_(p.grad, 1 - group["momentum"])
                p.sub_(average.sign(), alpha=group["lr"])
