"""Constraints on the weights, enforced after each update."""

from __future__ import annotations

import torch
from torch import nn

from dltrain.ranges import Positive
from dltrain.regularization.selection import ParamGroups, decayed_parameters, grouped


class MaxNorm:
    """Max-norm: limit the norm of the weights into each unit.

        w ← w·min(1, c/‖w‖) after each update

    Symbols: c = limit; w the weights into one output unit or filter
    Use: with dropout and large learning rates.
    Defaults: the paper's 3 (it uses 3 to 4).
    Paper: Srivastava et al. 2014 (JMLR 15), section 5.1

    Args:
        limit: largest Euclidean norm of the weights into a unit
    """

    needs = frozenset({"layers"})

    def __init__(self, model: nn.Module, limit: Positive = 3.0) -> None:
        self.parameters, self.limit = decayed_parameters(model, "max_norm"), limit

    @torch.no_grad()
    def after_update(self, param_groups: ParamGroups, scale: float = 1.0) -> None:
        for parameters, _ in grouped(self.parameters, param_groups):
            norms = [
                torch.linalg.vector_norm(p, dim=tuple(range(1, p.ndim)), keepdim=True) for p in parameters
            ]
            torch._foreach_clamp_min_(norms, self.limit)
            # exactly 1 where the norm is below the limit: those weights keep every bit
            torch._foreach_div_(norms, self.limit)
            torch._foreach_div_(parameters, norms)
