"""Facts about prepared data that other modules use, and the form of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Task = Literal["classification", "regression", "objective"]


@dataclass(frozen=True)
class TargetScale:
    """Mean and standard deviation (K,) float64 of the training targets: a model learns `(target - mean) / std`."""

    mean: Tensor
    std: Tensor

    def to(self, device: torch.device) -> TargetScale:
        """Return the scale beside the batches; a device without float64 has it on the CPU."""
        return self if device.type == "mps" else TargetScale(self.mean.to(device), self.std.to(device))

    def standardize(self, targets: Tensor) -> Tensor:
        """(N, K) targets in real units → (N, K) float32, computed in float64."""
        return ((targets.double() - self.mean) / self.std).float()

    def to_units(self, outputs: Tensor) -> Tensor:
        """(..., K) outputs or standardized targets → real units, computed and returned in float64 where the device has it."""
        exact = outputs.double() if outputs.device.type != "mps" else outputs.float()
        return exact * self.std.to(exact) + self.mean.to(exact)


@dataclass(frozen=True)
class DataSpec:
    """Shapes and statistics of a prepared dataset, from which models and transforms are sized.

    Args:
        num_classes: number of model outputs: classes, or target columns of a regression
        mean: mean of the inputs, (C, 1, 1) for images, (F,) for tables and sequences (T, F), (C, 1) for channels (C, T); normalized
            inputs are `(x - mean) / std`, so that a raw value of 0 becomes `-mean / std`
        std: standard deviation of the inputs, of the same shape
        sizes: number of samples in train, val and test
        class_counts: number of training samples of each class, before a bootstrap sample is drawn of them; empty for a regression
        target_scale: mean and deviation that standardized the targets of a regression: a model is trained on, and gives,
            standardized values, and `in_units` turns outputs and targets into real units
        notes: lines that tell what was inferred from the data
        value_range: lowest and highest raw value of the training images where these are floats; bytes count as [0, 1]
        average: mean of the raw training images where `mean`, which normalizes, is not; None where it is
    """

    input_shape: tuple[int, ...]
    num_classes: int
    task: Task
    mean: Tensor
    std: Tensor
    class_names: tuple[str, ...] = ()
    class_weights: Tensor | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    target_scale: TargetScale | None = None
    notes: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()
    value_range: tuple[float, float] = (0.0, 1.0)
    average: Tensor | None = None

    @property
    def black(self) -> Tensor:
        """Return a black pixel, normalized, of the shape of `mean`: raw 0, or the lowest value of images that go below."""
        low = self.value_range[0]
        return (low - self.mean) / self.std if low < 0 else -self.mean / self.std

    @property
    def mean_pixel(self) -> Tensor:
        """Return the mean of the training images, normalized, of the shape of `mean`: 0 where they are centered."""
        return torch.zeros_like(self.mean) if self.average is None else (self.average - self.mean) / self.std

    def in_units(self, outputs: Tensor) -> Tensor:
        """Return outputs or targets (..., K) in real units; unchanged where nothing was standardized."""
        return outputs if self.target_scale is None else self.target_scale.to_units(outputs)


class Batch(NamedTuple):
    """inputs: (B, ...) float, normalized; targets: (B,) int64 or (B, K) float; indices: (B,) within the split."""

    inputs: Tensor
    targets: Tensor
    indices: Tensor
