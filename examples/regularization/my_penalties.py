"""A regularizer of a user's own: a term of the loss."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn


class Orthogonal(nn.Module):
    """Penalize rows of weight matrices that are not orthonormal.

        strength · Σ ‖W Wᵀ − I‖²

    Args:
        strength: multiple of the term
    """

    def __init__(self, model: nn.Module, strength: Annotated[float, ">= 0"] = 1e-3) -> None:
        super().__init__()
        self.weights = [p for p in model.parameters() if p.ndim == 2]
        self.strength = strength

    def penalty(self) -> Tensor:
        """Return the term, with its graph."""
        return self.strength * sum((w @ w.T - torch.eye(len(w)).to(w)).square().sum() for w in self.weights)
