"""An initializer of a user's own: fills the weights in place, with numbers from the generator alone."""

from __future__ import annotations

import torch
from torch import nn


def signs(module: nn.Module, generator: torch.Generator, batch: object, scale: float = 1.0) -> None:
    """Random signs of the size that keeps the variance of the signal.

        W = ± scale/√fan_in

    Args:
        scale: multiple of 1/√fan_in
    """
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim >= 2:
                random = torch.rand(parameter.shape, generator=generator) < 0.5
                size = scale / parameter[0].numel() ** 0.5
                parameter.copy_(torch.where(random, size, -size))
