"""What the optimizers of this package share: reading a parameter group, calling the closure, refusing bad
keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

Params: TypeAlias = Iterable[Tensor] | Iterable[dict[str, Any]]
Closure: TypeAlias = Callable[[], Tensor]


class SteppingOptimizer(Protocol):
    """What a wrap goes around, and what it looks like itself."""

    param_groups: list[dict[str, Any]]

    def step(self, closure: Closure | None = None) -> Tensor | None: ...

    def zero_grad(self, set_to_none: bool = True) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


def evaluate(closure: Closure | None) -> Tensor | None:
    """The loss of this step's batch, with the gradients left in `.grad`; None without a closure."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def with_gradient(group: dict[str, Any]) -> list[Tensor]:
    """The parameters of a group that take part in this step."""
    return [parameter for parameter in group["params"] if parameter.grad is not None]


def gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def buffers(optimizer: torch.optim.Optimizer, parameters: list[Tensor], name: str) -> list[Tensor]:
    """The state tensors of that name, zero at first, in the parameters' dtype and memory format."""
    states = [optimizer.state[parameter] for parameter in parameters]
    for state, parameter in zip(states, parameters, strict=True):
        if name not in state:
            state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    return [state[name] for state in states]


def require(holds: bool, key: str, value: object, rule: str, cure: str) -> None:
    """Refuse a key's value. Raises ValueError with the key, the value, the rule and the cure."""
    if not holds:
        raise ValueError(f"{key} is {value}; it must be {rule}: {cure}")


def require_lr(lr: float) -> None:
    require(lr >= 0, "lr", lr, "a number >= 0", "give a positive step size, such as lr=1e-3")


def require_betas(betas: tuple[float, float]) -> None:
    inside = all(0 <= beta < 1 for beta in betas)
    require(
        inside, "betas", list(betas), "two numbers in [0, 1)", "the usual values are 0.9 and 0.99 to 0.999"
    )


def require_decay(weight_decay: float) -> None:
    require(weight_decay >= 0, "weight_decay", weight_decay, "a number >= 0", "0 switches it off")
