"""What every augmentation looks like from outside, and the order in which they are applied."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

GEOMETRY, COLOUR, NOISE, ERASE, MIX = range(5)  # the fixed order of the stages


@runtime_checkable
class BatchTransform(Protocol):
    """Change a batch, each sample by its own draw.

    inputs: (B, ...) normalised floats; targets: (B,) or (B, K); `generator` lives on the inputs' device and
    is the only source of randomness. An attribute `stage` (one of the constants above) places the transform;
    one without it counts as COLOUR, after the geometric ones and before the noise.
    """

    def __call__(
        self, inputs: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]: ...
