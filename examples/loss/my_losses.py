"""Losses of a user's own: a plain function of outputs and targets, and a module."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def focal(outputs: Tensor, targets: Tensor, gamma: Annotated[float, ">= 0"] = 2.0) -> Tensor:
    """Focal loss: samples that are already right count less.

        −(1 − p_y)^γ · log p_y

    Paper: Lin et al. 2017, arXiv:1708.02002

    Args:
        gamma: γ; 0 is the cross-entropy
    """
    logarithm = F.log_softmax(outputs, 1).gather(1, targets[:, None]).squeeze(1)
    return -((1 - logarithm.exp()) ** gamma) * logarithm


class Margin(nn.Module):
    """Hinge loss of the largest wrong output.

    Args:
        margin: by how much the right output must exceed it
    """

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        right = outputs.gather(1, targets[:, None]).squeeze(1)
        wrong = outputs.scatter(1, targets[:, None], -torch.inf).amax(1)
        return (self.margin + wrong - right).clamp(min=0)
