"""The interface of metrics: a function of the samples, or an object that is updated batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Protocol

from torch import Tensor

from dltrain.direction import Mode

Values = Callable[[Tensor, Tensor], Tensor]


class SampleMetric(Protocol):
    """A function: map outputs (B, K) and targets to one value for each sample, (B,), of which the metric is the mean."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor: ...


class Metric(Protocol):
    """An object that sees every sample of a split once and then computes one number.

    Each evaluation works on a copy of the object as it was constructed, so that there is nothing to reset. A class of your
    own needs `update` and `compute`; subclass this protocol, or write the two methods alone.

    Attributes:
        direction: whether lower (`min`) or higher (`max`) values are better; None where it is not known. It is read from
            the source, so that it must be a literal in the body of the class
        needs: kinds of data that it fits, `{"classes"}` or `{"quantities"}`; without it, any (dltrain/declare.py)
    """

    direction: Mode | None = None
    needs: Set[str] = frozenset({"samples"})

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take a batch, on the device of the run; batches may have any size.

        outputs: logits (B, C) float of a classification; (B, K) of a regression, in the units of the data
        targets: classes (B,) int64; or (B, K), in the units of the data
        """
        ...

    def compute(self) -> Tensor | float:
        """Return one number for all samples seen; NaN where it is not defined."""
        ...
