"""The four things a regularizer can do, and where in a step it does them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Penalty(Protocol):
    """A term of the loss; the trainer multiplies it by the penalty schedule's value."""

    def penalty(self) -> Tensor:
        """The term, a scalar with its graph."""


@runtime_checkable
class GradientRule(Protocol):
    """Changes .grad in place after the backward pass. The trainer applies rules by rising `order`.

    0: clipping, 1: noise, 2: coupled decay, so that the gradient of the loss is clipped, and nothing else.
    """

    order: int

    def change_gradients(self, generator: torch.Generator, scale: float = 1.0, step: int = 0) -> None:
        """`generator`: on the parameters' device; `scale`: the penalty schedule's; `step`: from 0."""


@runtime_checkable
class DecayRule(Protocol):
    """Shrinks weights after the gradient is known and before the optimizer's update."""

    def before_update(self, param_groups: Sequence[dict[str, Any]], scale: float = 1.0) -> None:
        """`param_groups` are the optimizer's, for their lr; `scale` is the penalty schedule's."""


@runtime_checkable
class WeightRule(Protocol):
    """Puts weights back where they are allowed to be, after the optimizer's update."""

    def after_update(self, param_groups: Sequence[dict[str, Any]], scale: float = 1.0) -> None:
        """As in `DecayRule`."""
