"""The model of this project: `model=sines`."""

from __future__ import annotations

from math import prod
from typing import Annotated

from torch import Tensor, nn


class Sines(nn.Module):
    """A hidden layer of sines, one of rectified units, and a linear output.

        y = W₃ relu(W₂ sin(ω (W₁x + b₁)) + b₂) + b₃

    Symbols: ω = frequency
    Use: inputs of a few coordinates, between which the class changes often

    Args:
        width: units of each hidden layer
        frequency: how fast the sines of the untrained network oscillate
    """

    # `input_shape` and `num_classes` come from the data; the other parameters are keys of the word
    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        width: Annotated[int, ">= 1"] = 64,
        frequency: Annotated[float, "> 0"] = 2.0,
    ) -> None:
        super().__init__()
        self.frequency = frequency
        self.flatten = nn.Flatten()
        self.waves = nn.Linear(prod(input_shape), width)
        self.hidden = nn.Linear(width, width)
        self.output = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (B, *input_shape) to logits (B, num_classes)."""
        features = (self.frequency * self.waves(self.flatten(x))).sin()
        return self.output(self.hidden(features).relu())
