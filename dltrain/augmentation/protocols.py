"""The interface of augmentations and the order of their stages."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

# the order in which the stages are applied
GEOMETRY, COLOR, NOISE, ERASE, MIX = range(5)


@runtime_checkable
class BatchTransform(Protocol):
    """Transform a batch, with random numbers drawn for each sample.

    An attribute `stage`, one of the constants of this module, says where the transform is applied; COLOR if missing.

    Args:
        inputs: (B, ...) normalized floats
        targets: (B,) or (B, K)
        generator: on the device of the inputs; the only source of random numbers
    """

    def __call__(
        self, inputs: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]: ...
