"""What a word of `model=` has to be."""

from __future__ import annotations

from typing import Any, Protocol

from torch import nn


class Model(Protocol):
    """A class or function that builds a module, sized from the data.

    input_shape: (C, H, W) for images, (F,) for tables; num_classes: classes, or target columns of a
    regression. The module maps inputs (B, *input_shape) to outputs (B, num_classes). Raises ValueError, with
    the cure, for a shape that it cannot take. If it has one activation function, its word stands in the
    attribute `activation`, where scaled initializers look for it. Its last weight layer is the last in
    `modules()` order.
    """

    def __call__(self, input_shape: tuple[int, ...], num_classes: int, **keys: Any) -> nn.Module: ...
