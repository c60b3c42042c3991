"""Call the `step` of any optimizer, with the gradient computed before it where possible.

An optimizer may declare what it needs in a class attribute `needs` (dltrain/declare.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from dltrain.optimizers.groups import Closure, SteppingOptimizer

OWN_EVALUATIONS = "own evaluations"
ONE_LOSS = "one loss"
OWN_AVERAGE = "own average"


@runtime_checkable
class Objective(Protocol):
    """A closure that can also compute the gradient without the rules that change it, such as clipping and decay."""

    def __call__(self) -> Tensor:
        """Return the loss; leave in `.grad` the gradient of the update."""

    def loss_gradient(self) -> Tensor:
        """Return the loss; leave in `.grad` its gradient, with penalties, before any rule changes it."""

    def finish_gradient(self) -> None:
        """Apply the gradient rules and the decoupled decay, which turns `.grad` into the gradient of the update."""


def needs_of(optimizer: object) -> frozenset[str]:
    """Return the declared needs of an optimizer; torch's L-BFGS, which declares none, has those of ours."""
    if isinstance(optimizer, torch.optim.LBFGS):
        return frozenset({ONE_LOSS, "own points"})
    return frozenset(getattr(optimizer, "needs", ()))


def all_needs_of(optimizer: object) -> frozenset[str]:
    """Return the declared needs of an optimizer and, where it is a wrap, of those inside it."""
    return frozenset().union(*map(needs_of, chain_of(optimizer)))


def chain_of(optimizer: Any) -> Iterator[Any]:
    """Yield an optimizer and, where it is a wrap, those inside it."""
    while optimizer is not None:
        yield optimizer
        optimizer = getattr(optimizer, "optimizer", None)


def take_step(optimizer: SteppingOptimizer, evaluate: Closure, parameters: Sequence[Tensor]) -> Tensor | None:
    """Take one step, with the gradient of `evaluate` in `.grad` even if the optimizer does not call its closure."""
    if OWN_EVALUATIONS in needs_of(optimizer):
        return call_step(optimizer, evaluate)
    evaluated = Evaluated(evaluate, parameters)
    call_step(optimizer, evaluated)
    return evaluated.loss


class Evaluated:
    """A closure that has been called once: the first call of the optimizer reuses that result at the same weights.

    Gradients that were set to None before that call are restored. An in-place change of weights or gradients changes
    the version of the tensor, and the closure is evaluated again. A change through `.data` is not detected: such an
    optimizer must declare `needs = {"own evaluations"}`. Other attributes are those of the closure.
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
    """Call `optimizer.step`, with the closure if it has an argument for it."""
    argument = _closure_argument(type(optimizer))
    if closure is None or argument is None:
        return optimizer.step()
    return optimizer.step(**{argument: closure}) if argument else optimizer.step(closure)


@cache
def _closure_argument(kind: type) -> str | None:
    """Return how `step` of a class takes a closure: by this name, by position (""), or not at all (None)."""
    try:
        _, *others = inspect.signature(kind.step).parameters.values()  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return ""
    if any(p.name == "closure" and p.kind is not p.POSITIONAL_ONLY for p in others):
        return "closure"
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = any(p.kind in by_position and p.default is p.empty or p.name == "closure" for p in others)
    return "" if positional else None
