"""An augmentation of a user's own: a function of a batch, random by the generator alone."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor


def fade(
    inputs: Tensor, targets: Tensor, generator: torch.Generator, most: Annotated[float, "in [0, 1]"] = 0.3
) -> tuple[Tensor, Tensor]:
    """Multiply each sample by a random number.

    Args:
        most: largest decrease
    """
    shape = (len(inputs), *(1 for _ in inputs.shape[1:]))
    factor = 1 - most * torch.rand(shape, generator=generator, device=inputs.device)
    return inputs * factor, targets
