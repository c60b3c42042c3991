"""L-BFGS for weights in any memory format."""

from __future__ import annotations

import torch
from torch import Tensor


class LBFGS(torch.optim.LBFGS):
    """Torch's L-BFGS (Liu & Nocedal 1989; L2), also for convolutions whose weights lie channels-last.

    Torch's own (2.15) lays the gradients out with `view`, which raises a RuntimeError for them. Like torch's it takes
    one parameter group only.
    """

    needs = frozenset({"one loss", "own points"})

    def _gather_flat_grad(self) -> Tensor:
        """All gradients as one vector, zeros where there is none."""
        parameters: list[Tensor] = self._params
        return torch.cat(
            [p.new_zeros(p.numel()) if p.grad is None else p.grad.reshape(-1) for p in parameters]
        )
