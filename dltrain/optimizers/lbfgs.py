"""L-BFGS for weights in any memory format."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dltrain.optimizers.groups import Params
from dltrain.ranges import Count, NonNegative, Positive


class LBFGS(torch.optim.LBFGS):
    """L-BFGS: a quasi-Newton method that estimates the curvature from the last few steps.

        w ← w + lr·d, with lr found by line search
        d = −H g, with H from the last history_size pairs (Δw, Δg)

    Accepts weights in any memory format (torch.optim.LBFGS raises a RuntimeError for channels-last weights)
    and a single parameter group.

    Use: small problems with full batches; one step evaluates the loss up to max_eval times.
    Defaults: those of torch, except max_iter, history_size and the strong Wolfe line search, without which
        it can diverge.
    Paper: Liu & Nocedal 1989
    Lecture: L2

    Args:
        lr: first trial of the line search, or the step size without line search
        max_iter: iterations per step
        max_eval: evaluations per step; null is 1.25·max_iter
        tolerance_grad: the step ends when the largest absolute gradient is not above this
        tolerance_change: the step ends when the loss or all weights change by less than this
        history_size: number of pairs; each costs two copies of the weights
        line_search_fn: line search method; null takes lr as it is
    """

    needs = frozenset({"one loss", "own points", "own iterates"})
    gives = frozenset({"one step size"})

    def __init__(
        self,
        params: Params,
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
        """Concatenate all gradients into one vector, with zeros for missing gradients."""
        parameters: list[Tensor] = self._params
        return torch.cat(
            [p.new_zeros(p.numel()) if p.grad is None else p.grad.reshape(-1) for p in parameters]
        )
