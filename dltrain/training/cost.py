"""The arithmetic of a step, estimated from the size of the model and of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn
from torch.nn.modules.conv import _ConvNd


def step_flops(model: nn.Module, input_shape: Sequence[int], batch_size: int) -> float:
    """Return the floating-point operations of a forward and a backward pass, at most.

    Two operations for each weight and sample in the forward pass, four in the backward pass; a convolution uses its
    weights at every position of the input.
    """
    positions = math.prod(input_shape[1:])
    filters = {p for module in model.modules() if isinstance(module, _ConvNd) for p in module.parameters()}
    uses = sum(p.numel() * (positions if p in filters else 1) for p in model.parameters())
    return 6.0 * batch_size * uses
