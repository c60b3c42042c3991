"""An average of the weights of a user's own: over the last few epochs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from torch import Tensor, nn


class Latest:
    """Average the weights at the ends of the last epochs (Kaddour 2022, arXiv:2209.14981).

    Args:
        number: epochs in the average
    """

    def __init__(self, model: nn.Module, steps_per_epoch: int, number: Annotated[int, ">= 1"] = 3) -> None:
        self.parameters, self.steps_per_epoch = list(model.parameters()), steps_per_epoch
        self.kept: deque[list[Tensor]] = deque(maxlen=number)

    @property
    def started(self) -> bool:
        """Return whether there is an average; before, the weights of the model are evaluated."""
        return bool(self.kept)

    def update(self, step: int) -> None:
        """See the weights after a step of the optimizer; `step` counts from 1."""
        if step % self.steps_per_epoch == 0:
            self.kept.append([p.detach().clone() for p in self.parameters])

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Put the average into the model; restore its own weights afterwards."""
        own = [p.detach().clone() for p in self.parameters]
        if self.kept:
            self.fill([torch.stack(weights).mean(0) for weights in zip(*self.kept, strict=True)])
        try:
            yield
        finally:
            self.fill(own)

    @torch.no_grad()
    def fill(self, weights: list[Tensor]) -> None:
        for p, weight in zip(self.parameters, weights, strict=True):
            p.copy_(weight)

    def state_dict(self) -> dict[str, Any]:
        return {"kept": [[weight.clone() for weight in weights] for weights in self.kept]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.kept.extend(state_dict["kept"])
