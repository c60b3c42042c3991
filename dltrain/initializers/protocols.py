"""The interface of the targets of `initializer=`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from dltrain.data.spec import Batch


class Report(Protocol):
    """The result of an initializer that loads weights; the header and the summary of a run show `str()` of it."""

    # parameters that were not loaded: random, so that they must not be frozen
    new: Sequence[str]


class Initializer(Protocol):
    """A function that fills the weights of a module in place and draws from `generator` (on the CPU) alone.

    Weights are parameters with two or more axes outside normalization layers, which stay unchanged; the
    biases of the weight layers become 0. `batch` holds samples for an initializer that uses data. An
    initializer that loads weights returns a `Report`, all others return None.
    """

    def __call__(
        self, module: nn.Module, generator: torch.Generator, batch: Batch | None, **keys: Any
    ) -> Report | None: ...
