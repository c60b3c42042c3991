"""Declarations of what a part needs and gives, from which follows what cannot be combined (dltrain/config/conflicts.py).

A class declares in attributes, a function by a decorator; both are read from the source, without importing it:

    class Flip:
        needs = {"images"}

    @declares(gives={"rows", "classes if task=classification"})
    def table(path: str, task: str = "classification") -> RawData: ...

An item may depend on the part's keys: `ITEM if KEY`, `ITEM if KEY=VALUE`, `ITEM unless KEY`. `instead` maps an item to the
setting that works where this one does not: `instead = {"no skips": "model.residual=true"}`. `requires = {"timm"}` names
packages that dltrain does not install. A part that declares nothing
is combined with everything. A regularizer's methods declare where it acts (dltrain/regularization/protocols.py). Other
items than these are refused, since they would have no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

NEEDS = {
    "samples": "data to learn from, whatever they are",
    "images": "samples of shape (C, H, W), whose pixels have neighbors",
    "classes": "targets that are classes",
    "quantities": "targets that are numbers",
    "layers": "a model of several layers with units",
    "skips": "residual branches, which can be dropped",
    "dropout": "a model with a key `dropout`",
    "label smoothing": "a loss with a key `label_smoothing`",
    "second derivatives": "a model and a loss that can be differentiated twice; for an optimizer, `closure.gradients`",
    "own evaluations": "an optimizer calls its closure at other weights, or for the graph; no gradient is computed beforehand",
    "one loss": "an optimizer uses curvature or a line search: loss and gradient must belong to the same function",
    "own points": "an optimizer stores weights and gradients of earlier steps; nothing else may change the weights",
    "own iterates": "an optimizer continues from weights that it stores, such as an average; a wrap may not move them",
    "own average": "an optimizer leaves an average of its iterates: its batch-norm statistics are recomputed, and no rule may move it",
    "momentum": "an optimizer with a key `momentum` or `betas`",
    "lr of each step": "an optimizer that uses lr in every step",
    "lr as step size": "an optimizer whose step is proportional to lr",
    "a step size for each weight": "an optimizer that moves each weight at a rate of its own",
    "sizes of gradients": "an optimizer that uses more than the signs of the gradient",
    "strength": "regularization whose strength can be scaled",
}
GIVES = {
    "evaluations": "a sweep backend that reports evaluations, which `sweep.pruner` needs",
    "samples": "data to learn from; images, rows, classes and quantities imply it",
    "images": "samples of shape (C, H, W)",
    "rows": "samples of shape (F,), columns of numbers without neighbors",
    "classes": "targets that are classes",
    "quantities": "targets that are numbers",
    "no samples": "a dataset without data, for models that are the objective",
    "an objective": "a model whose output is the loss, a function of its parameters alone",
    "no skips": "a model without residual branches, or without a key `stochastic_depth`",
    "no dropout": "a model without a key `dropout`",
    "no label smoothing": "a loss without a key `label_smoothing`",
    "no second derivatives": "a model that can be differentiated once only",
    "no momentum": "an optimizer without a key `momentum` or `betas`",
    "no strength": "regularization without penalty or decay",
    "strength": "a regularizer with a penalty or a decay, as its methods show",
    "changed gradients": "a regularizer that changes gradients, as its methods show",
    "moved weights": "a regularizer that changes weights, as its methods show",
    "constrained weights": "a regularizer that changes weights after the update, as its methods show",
    "decay": "weights are decayed",
    "one step size": "one step of all weights along one direction",
    "steps by sign": "steps that depend on the signs of the gradient only",
    "gradients elsewhere": "a wrap that computes gradients at other weights than those that are updated",
    "slow weights": "a wrap that moves the weights between steps, or an optimizer with one inside",
    "new weights": "more weights are trained after some epochs",
    "composed batches": "a sampler that fixes which classes are in a batch",
    "free draws": "samples are drawn at random for each batch",
    "balanced classes": "rare classes count more",
    "mirrors": "an augmentation that mirrors pictures left to right",
}


class Unused(NamedTuple):
    """A key that changes nothing for these data and this model: `why` ends a sentence, `cure` is what to type."""

    why: str
    cure: str = ""


@runtime_checkable
class HasUnused(Protocol):
    """A part that was built and knows which of its keys change nothing."""

    def unused_keys(self) -> Mapping[str, Unused]:
        """Return the keys that change nothing, with the reasons."""


Target = TypeVar("Target", bound=Callable[..., object])


def declares(
    needs: Set[str] | None = None,
    gives: Set[str] | None = None,
    instead: Mapping[str, str] | None = None,
    requires: Set[str] | None = None,
) -> Callable[[Target], Target]:
    """Set the attributes `needs`, `gives`, `instead` and `requires` of a function."""

    def mark(target: Target) -> Target:
        given = {"needs": needs, "gives": gives, "instead": instead, "requires": requires}
        vars(target).update({name: value for name, value in given.items() if value is not None})
        return target

    return mark
