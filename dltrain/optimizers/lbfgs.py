"""L-BFGS for weights in any memory format."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from dltrain.ranges import Count, NonNegative, Positive


class LBFGS(torch.optim.LBFGS):
    """L-BFGS: a quasi-Newton method that keeps the last few steps for the curvature.

        w ← w + lr·d, d = −H g, H from the last history_size pairs (Δw, Δg); lr found by line search

    Torch's L-BFGS (Liu & Nocedal 1989; L2), also for convolutions whose weights lie channels-last.

    Torch's own (2.15) lays the gradients out with `view`, which raises a RuntimeError for them. Like torch's
    it takes one parameter group only.

    Use: small problems with full batches; one step evaluates the loss up to max_eval times. One parameter
        group only.
    Defaults: torch's, but max_iter 10 and the strong Wolfe line search, without which it can diverge.
    Paper: Liu & Nocedal 1989
    Lecture: L2

    Args:
        lr: step size where there is no line search, first trial where there is
        max_iter: iterations per step
        max_eval: evaluations per step; null is 1.25·max_iter
        tolerance_grad: end the step when the largest gradient is below
        tolerance_change: end the step when loss or weights change less
        history_size: pairs kept; each costs two copies of the weights
        line_search_fn: how lr is found
    """

    needs = frozenset({"one loss", "own points"})

    def __init__(
        self,
        params: Iterable[Any],
        lr: Positive = 1.0,
        max_iter: Count = 10,
        max_eval: Count | None = None,
        tolerance_grad: NonNegative = 1e-07,
        tolerance_change: NonNegative = 1e-09,
        history_size: Count = 20,
        line_search_fn: Literal["strong_wolfe"] | None = "strong_wolfe",
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            max_iter=max_iter,
            max_eval=max_eval,
            tolerance_grad=tolerance_grad,
            tolerance_change=tolerance_change,
            history_size=history_size,
            line_search_fn=line_search_fn,
        )

    def _gather_flat_grad(self) -> Tensor:
        """All gradients as one vector, zeros where there is none."""
        parameters: list[Tensor] = self._params
        return torch.cat(
            [p.new_zeros(p.numel()) if p.grad is None else p.grad.reshape(-1) for p in parameters]
        )
