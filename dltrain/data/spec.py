"""Facts about prepared data that other modules use, and the form of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor

Task = Literal["classification", "regression", "objective"]


@dataclass(frozen=True)
class DataSpec:
    """Shapes and statistics of a prepared dataset, from which models and transforms are sized.

    Args:
        num_classes: number of model outputs: classes, or target columns of a regression
        mean: mean of the inputs, (C, 1, 1) for images and (F,) for tables; normalized inputs are `(x - mean) / std`, so
            that a raw value of 0 (black) becomes `-mean / std`
        std: standard deviation of the inputs, of the same shape
        sizes: number of samples in train, val and test
    """

    input_shape: tuple[int, ...]
    num_classes: int
    task: Task
    mean: Tensor
    std: Tensor
    class_names: tuple[str, ...] = ()
    class_weights: Tensor | None = None
    sizes: dict[str, int] = field(default_factory=dict)


class Batch(NamedTuple):
    """inputs: (B, ...) float, normalized; targets: (B,) int64 or (B, K) float; indices: (B,) within the split."""

    inputs: Tensor
    targets: Tensor
    indices: Tensor
