"""Random numbers for each sample of a batch, from one generator."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Draw(NamedTuple):
    """Draw random numbers for `size` samples of `height` × `width` pixels.

    Every method returns a tensor of shape (size,). Transforms that follow a plan over the epochs instead of random
    numbers use `indices` (size,) and `epoch`.
    """

    size: int
    height: int
    width: int
    generator: torch.Generator
    device: torch.device
    indices: Tensor | None = None
    epoch: int = 0

    def uniform(self, low: float, high: float) -> Tensor:
        """Draw uniformly from [low, high)."""
        return low + (high - low) * torch.rand(self.size, generator=self.generator, device=self.device)

    def integers(self, low: int, high: int) -> Tensor:
        """Draw int64 numbers uniformly from low to high, both included."""
        return torch.randint(low, high + 1, (self.size,), generator=self.generator, device=self.device)

    def chance(self, p: float) -> Tensor:
        """Draw True with probability p."""
        return torch.rand(self.size, generator=self.generator, device=self.device) < p

    def beta(self, alpha: float) -> Tensor:
        """Draw from Beta(alpha, alpha), exact for every alpha > 0, without rejection and so without a host sync.

        From Bailey's Student t (Mathematics of Computation 62, 1994): with T of 2·alpha degrees of freedom,
        ½ + ½·T/√(2·alpha + T²) is Beta(alpha, alpha). torch's Beta takes no generator.
        """
        power = self.uniform(0, 1).pow(1 / alpha)
        cosine = torch.cos(2 * math.pi * self.uniform(0, 1))
        # T²/(2·alpha) = spread/power, so the ratio below cannot overflow
        spread = (1 - power) * cosine.square()
        return 0.5 + 0.5 * cosine.sign() * (spread / (power + spread)).sqrt()


def draw_for(
    inputs: Tensor, generator: torch.Generator, indices: Tensor | None = None, epoch: int = 0
) -> Draw:
    """Return the draw for a batch of pictures (B, C, H, W) or of table rows (B, F), on the batch's device."""
    height, width = inputs.shape[-2:] if inputs.ndim == 4 else (1, inputs.shape[-1])
    return Draw(len(inputs), height, width, generator, inputs.device, indices, epoch)
