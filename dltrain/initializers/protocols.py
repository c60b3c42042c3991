"""What a word of `initializer=` has to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from dltrain.data.spec import Batch


class Report(Protocol):
    """What an initializer that reads weights has to tell: `str()` of it is shown in the header and the summary."""

    new: Sequence[str]  # parameters that it left at their random start, which must not be frozen


class Initializer(Protocol):
    """A function that fills the weights of a module in place, drawing from `generator` (on the CPU) alone.

    Weights are parameters with two or more axes outside normalisation layers; their biases become zero,
    normalisation stays as it is. `batch`: real samples for those that look at data, else None. The keys come
    from the YAML file. An attribute `symmetric = True` on the function says that hidden units stay equal,
    which is worth a warning. Those that read weights return a `Report`, all others None.
    """

    def __call__(
        self, module: nn.Module, generator: torch.Generator, batch: Batch | None, **keys: Any
    ) -> Report | None: ...
