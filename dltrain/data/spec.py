"""What the rest of the program needs to know about the data, and the form in which batches come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor

Task = Literal["classification", "regression", "objective"]


@dataclass(frozen=True)
class DataSpec:
    """Shapes and statistics of a prepared dataset; models and transforms are sized from it.

    `num_classes` counts the model's outputs: classes, or target columns for a regression.
    `mean` and `std` are the statistics that normalised the inputs, of shape (C, 1, 1) for images and (F,) for
    tables: what was `x` is `(x - mean) / std`, so that a raw value of 0 (black) is now `-mean / std`.
    """

    input_shape: tuple[int, ...]
    num_classes: int
    task: Task
    mean: Tensor
    std: Tensor
    class_names: tuple[str, ...] = ()
    class_weights: Tensor | None = None
    sizes: dict[str, int] = field(default_factory=dict)  # samples in train, val and test


class Batch(NamedTuple):
    """inputs: (B, ...) float, normalised; targets: (B,) int64 or (B, K) float; indices: (B,) within the split."""

    inputs: Tensor
    targets: Tensor
    indices: Tensor
