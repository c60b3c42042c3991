"""The data of this project: `dataset=spirals`."""

from __future__ import annotations

from math import pi
from typing import Annotated

import torch
from torch.utils.data import TensorDataset


def spirals(
    points: Annotated[int, ">= 30"] = 1500,
    arms: Annotated[int, ">= 2"] = 3,
    noise: Annotated[float, ">= 0"] = 0.05,
) -> TensorDataset:
    """Points of the plane on spirals that wind around each other; the class of a point is its spiral.

    Args:
        points: number of points
        arms: number of spirals
        noise: standard deviation of what is added to each coordinate
    """
    # the same points in every run: `seed` is that of the training
    generator = torch.Generator().manual_seed(0)
    arm = torch.arange(points) % arms
    radius = torch.rand(points, generator=generator).sqrt()
    # one and a half turns
    angle = 2 * pi * (1.5 * radius + arm / arms)
    inputs = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    inputs += noise * torch.randn(inputs.shape, generator=generator)
    # whole numbers are classes, floats a quantity; dltrain shuffles, splits and normalizes
    return TensorDataset(inputs, arm)
