"""Metrics that a user wrote: a class that is updated batch by batch, and a function of the samples."""

from __future__ import annotations

import torch
from torch import Tensor

from dltrain.metrics.protocol import Metric


class Within(Metric):
    """Share of predictions within a distance of the target, in its units.

    Args:
        distance: largest error that counts as a hit
    """

    direction = "max"
    needs = {"quantities"}

    def __init__(self, distance: float = 50.0) -> None:
        self.distance = distance
        self.hits: Tensor | int = 0
        self.samples = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.hits = self.hits + ((outputs - targets).abs() <= self.distance).all(1).sum()
        self.samples += len(targets)

    def compute(self) -> Tensor | float:
        return self.hits / self.samples


def margin(outputs: Tensor, targets: Tensor) -> Tensor:
    """Distance of the right class's logit from the largest other one; negative for a mistake."""
    own = outputs.gather(1, targets[:, None])[:, 0]
    others = outputs.scatter(1, targets[:, None], -torch.inf)
    return own - others.amax(1)
