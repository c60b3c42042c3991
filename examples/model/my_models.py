"""A model of a user's own: a plain torch module, sized from the data."""

from __future__ import annotations

from math import prod
from typing import Annotated

from torch import Tensor, nn


class Gated(nn.Module):
    """A layer of gated linear units before the output.

        h = (W₁x) ⊙ σ(W₂x)

    Args:
        width: number of hidden units
    """

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, width: Annotated[int, ">= 1"] = 64
    ) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.hidden = nn.Linear(prod(input_shape), 2 * width)
        self.gate = nn.GLU()
        self.output = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.gate(self.hidden(self.flatten(x))))
