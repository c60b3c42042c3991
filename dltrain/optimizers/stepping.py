"""One step of any optimizer: what it needs, how its `step` is called, and the gradient that lies ready for it.

An optimizer may declare what it needs in a class attribute `needs`, a set of these:

own evaluations       it calls its closure at weights of its own choice, or for the graph; no gradient is taken beforehand
second derivatives    it calls `closure.gradients(params, create_graph=True)`
one loss              its step follows from curvature or a line search: loss and gradient belong to one function
own points            it remembers weights and gradients of earlier steps; nothing else may move the weights
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from dltrain.optimizers.groups import Closure, SteppingOptimizer

OWN_EVALUATIONS = "own evaluations"
ONE_LOSS = "one loss"


@runtime_checkable
class Objective(Protocol):
    """A closure whose gradient can be had without the rules that change it, such as clipping and coupled decay."""

    def __call__(self) -> Tensor:
        """The loss; leave in `.grad` the gradient that the update takes."""

    def loss_gradient(self) -> Tensor:
        """The loss; leave in `.grad` its gradient, penalties included, before any rule has changed it."""

    def finish_gradient(self) -> None:
        """Make the gradient in `.grad` that of the update: let the rules act, and the decoupled decay."""


def needs_of(optimizer: object) -> frozenset[str]:
    """What an optimizer declares that it needs; torch's L-BFGS, which declares nothing, needs what ours does."""
    if isinstance(optimizer, torch.optim.LBFGS):
        return frozenset({ONE_LOSS, "own points"})
    return frozenset(getattr(optimizer, "needs", ()))


def take_step(optimizer: SteppingOptimizer, evaluate: Closure, parameters: Sequence[Tensor]) -> Tensor | None:
    """One step, with the gradient of `evaluate` in `.grad` whether or not the optimizer calls its closure."""
    if OWN_EVALUATIONS in needs_of(optimizer):
        return call_step(optimizer, evaluate)
    evaluated = Evaluated(evaluate, parameters)
    call_step(optimizer, evaluated)
    return evaluated.loss


class Evaluated:
    """A closure that has been called once: the optimizer's first call costs nothing, if it comes at the same weights.

    Gradients that were dropped before that call are put back. An in-place change of weights or gradients shows in the
    version of the tensor, and is answered by an evaluation; one through `.data` does not show, and is for an optimizer
    to declare by `needs = {"own evaluations"}`. Everything else is the closure's own.
    """

    def __init__(self, closure: Closure, parameters: Sequence[Tensor]) -> None:
        self.closure, self.parameters = closure, parameters
        self.loss = closure()
        self.gradients_then = [p.grad for p in parameters]
        self.watched = [*parameters, *(g for g in self.gradients_then if g is not None)]
        self.unused: list[int] | None = [tensor._version for tensor in self.watched]

    def __call__(self) -> Tensor:
        unused, self.unused = self.unused, None
        if unused != [tensor._version for tensor in self.watched]:
            return self.closure()
        for parameter, gradient in zip(self.parameters, self.gradients_then, strict=True):
            if parameter.grad is not gradient:
                parameter.grad = gradient
        return self.loss

    def __getattr__(self, name: str) -> Any:
        return getattr(self.closure, name)


def call_step(optimizer: SteppingOptimizer, closure: Closure | None) -> Tensor | None:
    """`optimizer.step`, with the closure where it has an argument for it."""
    argument = _closure_argument(type(optimizer))
    if closure is None or argument is None:
        return optimizer.step()
    return optimizer.step(**{argument: closure}) if argument else optimizer.step(closure)


@cache
def _closure_argument(kind: type) -> str | None:
    """How a class's `step` takes a closure: by this name, by position (""), or not at all (None)."""
    try:
        _, *others = inspect.signature(kind.step).parameters.values()  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return ""
    if any(p.name == "closure" and p.kind is not p.POSITIONAL_ONLY for p in others):
        return "closure"
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = any(p.kind in by_position and p.default is p.empty or p.name == "closure" for p in others)
    return "" if positional else None
