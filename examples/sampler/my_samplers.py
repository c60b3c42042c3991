"""A sampler of a user's own: which samples an epoch sees, and in which order."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor


class Curriculum:
    """Begin with a part of the training samples, and end with all of them.

    Args:
        first: fraction of the samples in the first epoch
        epochs: number of epochs until all samples are used
    """

    def __init__(
        self, targets: Tensor, seed: int, first: Annotated[float, "in (0, 1]"] = 0.5, epochs: int = 3
    ) -> None:
        self.size, self.seed, self.first, self.epochs = len(targets), seed, first, epochs

    def order(self, epoch: int) -> Tensor:
        """Return positions in the training split: a function of the seed and the epoch alone."""
        share = min(1.0, self.first + (1 - self.first) * epoch / self.epochs)
        chosen = torch.arange(self.size)[: int(share * self.size)]
        generator = torch.Generator().manual_seed(self.seed + epoch)
        shuffled = chosen[torch.randperm(len(chosen), generator=generator)]
        # an epoch has a fixed number of steps: the samples are repeated to fill it
        return shuffled.repeat(-(-self.size // len(chosen)))[: self.size]

    def __len__(self) -> int:
        return self.size
