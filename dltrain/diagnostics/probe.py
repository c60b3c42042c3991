"""What a diagnostic is, and what it may look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Probe:
    """A model in evaluation mode with the loss of each sample, and a fixed batch of training samples.

    The batch is not augmented and the loss holds no penalty, so that numbers of different steps and runs compare.
    `update` is the last step's W_{t+1} − W_t, a tensor for each of `model.parameters()`; empty before the first step.
    """

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    inputs: Tensor
    targets: Tensor
    lr: float = 0.0
    update: list[Tensor] = field(default_factory=list)

    @property
    def parameters(self) -> list[Tensor]:
        """Those that are trained: frozen ones have no gradient."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def mean_loss(self, part: slice = slice(None)) -> Tensor:
        """The mean loss of the batch, or of a part of it, with its graph where one is kept."""
        return self.loss(self.model(self.inputs[part]), self.targets[part]).mean()

    def gradients(self, part: slice = slice(None), create_graph: bool = False) -> tuple[Tensor, list[Tensor]]:
        """The mean loss and its gradient, a tensor for each of `parameters`; `.grad` stays as it is."""
        with torch.enable_grad():
            loss = self.mean_loss(part)
            grads = torch.autograd.grad(
                loss, self.parameters, create_graph=create_graph, allow_unused=True, materialize_grads=True
            )
        return loss, list(grads)


class Diagnostic(Protocol):
    """Numbers about a model that is being trained, measured at every evaluation; it leaves the run as it was.

    One with `begin(model)` is shown the initial weights, one with `draw(probe, folder)` the best ones at the end.
    """

    samples: int  # how many training samples it looks at

    def measure(self, probe: Probe) -> dict[str, float]:
        """Columns of metrics.csv, without the word in front."""


@contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode inside, with its graph, and in the mode that it had after."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def moved(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """Yields copies of the weights, which may be changed inside, and puts them back to the last bit."""
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        yield before
    finally:
        with torch.no_grad():
            torch._foreach_copy_(parameters, before)


def require_at_least(smallest: int, key: str, value: int) -> None:
    """Raise ValueError for a number that is too small."""
    if value < smallest:
        raise ValueError(f"{key} is {value}; it must be an integer >= {smallest}")
