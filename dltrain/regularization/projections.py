"""Constraints on the weights, restored after each update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dltrain.ranges import Positive
from dltrain.regularization.selection import decayed_parameters, grouped, require


class MaxNorm:
    """Max-norm: no unit's incoming weights are longer than allowed.

        w_unit ← w_unit·min(1, c/‖w_unit‖) after each update

    Shorten the weights into each unit or filter to the norm `limit` (Srivastava et al. 2014, JMLR 15).

    Symbols: c = limit; w_unit all weights into one output unit or filter
    Use: with dropout and large learning rates.
    Defaults: the paper's 3 (it uses 3 to 4).
    Paper: Srivastava et al. 2014 (JMLR 15), section 5.1

    Args:
        limit: greatest Euclidean norm of the weights into a unit
    """

    def __init__(self, model: nn.Module, limit: Positive = 3.0) -> None:
        require(0 < limit < math.inf, "max_norm.limit", limit, "> 0", "3 is the paper's")
        self.parameters, self.limit = decayed_parameters(model, "max_norm"), limit

    @torch.no_grad()
    def after_update(self, param_groups: Sequence[dict[str, Any]], scale: float = 1.0) -> None:
        for parameters, _ in grouped(self.parameters, param_groups):
            norms = [
                torch.linalg.vector_norm(p, dim=tuple(range(1, p.ndim)), keepdim=True) for p in parameters
            ]
            torch._foreach_clamp_min_(norms, self.limit)
            torch._foreach_div_(norms, self.limit)  # exactly 1 for short ones, which then keep every bit
            torch._foreach_div_(parameters, norms)
