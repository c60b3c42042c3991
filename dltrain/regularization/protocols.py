"""The four kinds of regularizer, by the place in a step where they act."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from dltrain.regularization.selection import ParamGroups

# terms that shrink the weights, which several rules may add
SQUARED, ABSOLUTE = "λ/2·‖w‖²", "λ·‖w‖₁"


@runtime_checkable
class Shrinking(Protocol):
    """A rule that shrinks the weights by terms that another rule may add, too: the header names a term that comes twice."""

    def terms(self) -> Mapping[str, float]:
        """Return the strength λ of each term, by `SQUARED` and `ABSOLUTE`."""


@runtime_checkable
class Penalty(Protocol):
    """Add a term to the loss, which the trainer multiplies by the penalty schedule's value."""

    def penalty(self) -> Tensor:
        """Return the term, a scalar with its graph."""


@runtime_checkable
class GradientRule(Protocol):
    """Change .grad in place after the backward pass; the trainer applies rules in ascending `order`.

    0: clipping, 1: noise, 2: coupled decay. So only the gradient of the loss is clipped.
    """

    order: int

    def change_gradients(self, generator: torch.Generator, scale: float = 1.0, step: int = 0) -> None:
        """Change the gradients.

        Args:
            generator: on the device of the parameters
            scale: value of the penalty schedule
            step: from 0
        """


@runtime_checkable
class DecayRule(Protocol):
    """Decay weights after the gradient is computed and before the optimizer's update."""

    def before_update(self, param_groups: ParamGroups, scale: float = 1.0) -> None:
        """Decay the weights.

        Args:
            param_groups: of the optimizer, for their lr
            scale: value of the penalty schedule
        """


@runtime_checkable
class WeightRule(Protocol):
    """Change weights after the optimizer's update, such as by a projection onto a constraint."""

    def after_update(self, param_groups: ParamGroups, scale: float = 1.0) -> None:
        """Change the weights; the arguments are those of `DecayRule.before_update`."""
