"""What a word of `initializer=` has to be."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from dltrain.data.spec import Batch


class Initializer(Protocol):
    """A function that fills the weights of a module in place, drawing from `generator` (on the CPU) alone.

    Weights are parameters with two or more axes outside normalisation layers; their biases become zero,
    normalisation stays as it is. `batch`: real samples for those that look at data, else None. The keys come
    from the YAML file. An attribute `symmetric = True` on the function says that hidden units stay equal,
    which is worth a warning.
    """

    def __call__(
        self, module: nn.Module, generator: torch.Generator, batch: Batch | None, **keys: Any
    ) -> None: ...
