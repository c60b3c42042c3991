"""Types and helpers shared by the optimizers: reading a parameter group and calling the closure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

# of an optimizer: `params`, `lr` and its other numbers
ParamGroup: TypeAlias = dict[str, Any]
# a key of groups without the model's last matrix, which is frozen to the end; others do not have it
HAS_LAST_MATRIX = "has_last_matrix"
# a key of the group with the model's last matrix: its place there, where it is not the last matrix of the last group
LAST_MATRIX = "last_matrix"
# plain data and tensors, for checkpoints
State: TypeAlias = dict[str, Any]
Params: TypeAlias = Iterable[Tensor] | Iterable[ParamGroup]
Closure: TypeAlias = Callable[[], Tensor]


class SteppingOptimizer(Protocol):
    """The interface that a wrap expects of its optimizer and has itself."""

    param_groups: list[ParamGroup]

    def step(self, closure: Closure | None = None) -> Tensor | None: ...

    def zero_grad(self, set_to_none: bool = True) -> None: ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state_dict: State) -> None: ...


class Optimizer(Protocol):
    """The interface of `optimizer=` and `wrap=`: that of torch's optimizers, with or without a closure."""

    def step(self, *closure: Any) -> Any: ...

    def zero_grad(self, set_to_none: bool = True) -> None: ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state_dict: State) -> None: ...


def evaluate(closure: Closure | None) -> Tensor | None:
    """Call the closure, which leaves the gradients in `.grad`, and return its loss; None without a closure."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def with_gradient(group: ParamGroup) -> list[Tensor]:
    """Return the parameters of a group that have a gradient."""
    return [parameter for parameter in group["params"] if parameter.grad is not None]


def gradients(parameters: list[Tensor]) -> list[Tensor]:
    """Return the gradients that are not None."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def buffers(optimizer: torch.optim.Optimizer, parameters: list[Tensor], name: str) -> list[Tensor]:
    """Return the state tensors of this name, created as zeros in the parameters' dtype and memory format."""
    states = [optimizer.state[parameter] for parameter in parameters]
    for state, parameter in zip(states, parameters, strict=True):
        if name not in state:
            state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    return [state[name] for state in states]


def by_start(optimizer: torch.optim.Optimizer, group: ParamGroup, buffer: str) -> dict[int, list[int]]:
    """Return the places of the parameters of a group by the steps that it had taken before their first gradient.

    Those that have had none yet, such as frozen ones, are left out: the bias of moments that start at 0 depends on their own steps.

    Args:
        group: its `steps` counts the steps before this one
        buffer: a state tensor that parameters have after their first gradient, for states of versions without a start
    """
    found: dict[int, list[int]] = {}
    for place, parameter in enumerate(group["params"]):
        # a frozen parameter gets no state
        state = optimizer.state.get(parameter, {}) if parameter.grad is None else optimizer.state[parameter]
        if parameter.grad is not None and "start" not in state:
            state["start"] = 0 if buffer in state else group["steps"]
        if "start" in state:
            found.setdefault(state["start"], []).append(place)
    return found
