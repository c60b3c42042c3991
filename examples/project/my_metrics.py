"""The metric of this project: `metrics=[worst_class]`."""

from __future__ import annotations

import torch
from torch import Tensor

from dltrain.metrics.protocol import Metric


class WorstClass(Metric):
    """Accuracy of the class that is recognized worst."""

    # higher is better: early stopping and sweeps follow it
    direction = "max"
    # refused for data whose targets are quantities
    needs = {"classes"}

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        # by class, (C,): on the device of the first batch
        self.right: Tensor | int = 0
        self.samples: Tensor | int = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch: logits (B, C) and classes (B,)."""
        right = targets[outputs.argmax(1) == targets]
        self.right = self.right + torch.bincount(right, minlength=self.num_classes)
        self.samples = self.samples + torch.bincount(targets, minlength=self.num_classes)

    def compute(self) -> Tensor:
        """Return the lowest accuracy among the classes that have samples."""
        return (self.right / self.samples).nan_to_num(1.0).min()
