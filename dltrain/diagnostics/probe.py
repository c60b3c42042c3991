"""The interface of a diagnostic, and the model and batch that it measures."""

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

    The batch is not augmented and the loss has no penalty, so that numbers of different steps and runs can be compared.
    `update` is W_{t+1} − W_t of the last step, a tensor for each of `model.parameters()`; empty before the first step.
    """

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    inputs: Tensor
    targets: Tensor
    lr: float = 0.0
    update: list[Tensor] = field(default_factory=list)

    @property
    def parameters(self) -> list[Tensor]:
        """Return the trained parameters; frozen ones have no gradient."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def mean_loss(self, part: slice = slice(None)) -> Tensor:
        """Return the mean loss of the batch or of a part of it, with its graph where gradients are enabled."""
        return self.loss(self.model(self.inputs[part]), self.targets[part]).mean()

    def gradients(self, part: slice = slice(None), create_graph: bool = False) -> tuple[Tensor, list[Tensor]]:
        """Return the mean loss and its gradient, a tensor for each of `parameters`; `.grad` is not changed."""
        with torch.enable_grad():
            loss = self.mean_loss(part)
            grads = torch.autograd.grad(
                loss, self.parameters, create_graph=create_graph, allow_unused=True, materialize_grads=True
            )
        return loss, list(grads)


class Diagnostic(Protocol):
    """Measure numbers of a model during training, at every evaluation, without changing the run.

    Optional methods: `begin(model)` receives the initial weights, `draw(probe, folder)` the best ones at the end.
    """

    # number of training samples in the probe
    samples: int

    def measure(self, probe: Probe) -> dict[str, float]:
        """Return columns of metrics.csv, by name without the word's prefix."""


@contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode, and restore its mode afterwards; gradients stay enabled."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def moved(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """Yield copies of the weights, which may be changed inside, and restore them to the last bit."""
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        yield before
    finally:
        with torch.no_grad():
            torch._foreach_copy_(parameters, before)
