"""The interface of the targets of `model=`."""

from __future__ import annotations

from typing import Any, Protocol

from torch import nn


class Model(Protocol):
    """A class or function that builds a module, sized from the data.

    The module maps inputs (B, *input_shape) to outputs (B, num_classes). `input_shape` is (C, H, W) for
    images and (F,) for tables; `num_classes` counts classes, or target columns of a regression. Raises
    ValueError with a cure for a shape that the model does not support. A model with a single kind of
    activation names it in the attribute `activation`, which sets the gain of scaled initializers. Its head is
    the last weight layer in `modules()` order.
    """

    def __call__(self, input_shape: tuple[int, ...], num_classes: int, **keys: Any) -> nn.Module: ...
