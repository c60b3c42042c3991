"""Measures of a classifier by the probabilities of the loss that was minimized, where these are no softmax of its outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from dltrain.metrics.protocol import Values

# outputs (…, K) to the logits (…, K) whose softmax are the probabilities
ToSoftmax = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class OfProbabilities:
    """A measure of outputs by their probabilities."""

    measure: Values
    to_softmax: ToSoftmax

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.measure(self.to_softmax(outputs), targets)


def of_probabilities(measure: Values, to_softmax: ToSoftmax | None) -> Values:
    """Return `measure` of logits whose softmax are the probabilities; as it is for None, where the outputs are these."""
    return measure if to_softmax is None else OfProbabilities(measure, to_softmax)


def of_logits(measure: Values) -> Values:
    """Return the measure inside `of_probabilities`, for logits whose softmax are the probabilities."""
    return measure.measure if isinstance(measure, OfProbabilities) else measure
