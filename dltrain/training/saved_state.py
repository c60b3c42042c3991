"""Check a state from a file, which may come from somebody else, against the parts that it is loaded into.

The parts copy tensors into their own, and a copy fills a large tensor from a single number without an error. The fused kernels of
torch read and write as many numbers as the parameter has, whatever the state holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def check_shapes(saved: Any, fresh: Any, name: str = "state") -> None:
    """Raise ValueError where a tensor has another shape than the one at its place in a state that was not trained.

    Places that only one of the two has, such as the moments of an optimizer, are left to the part.
    """
    if isinstance(fresh, Tensor) and isinstance(saved, Tensor) and saved.shape != fresh.shape:
        raise ValueError(f"{name} has shape {list(saved.shape)}, and here {list(fresh.shape)}")
    if isinstance(fresh, Mapping) and isinstance(saved, Mapping):
        for key in fresh.keys() & saved.keys():
            check_shapes(saved[key], fresh[key], f"{name}.{key}")
    elif isinstance(fresh, list | tuple) and isinstance(saved, list | tuple):
        for place, (one, other) in enumerate(zip(saved, fresh, strict=False)):
            check_shapes(one, other, f"{name}.{place}")


def check_moments(optimizer: object) -> None:
    """Raise ValueError for loaded moments of other shapes than their parameters', where a fused kernel takes them.

    optimizer: one of torch's, or a wrap or a user's class with some inside
    """
    for found in torch_optimizers(optimizer):
        for group in found.param_groups:
            for parameter in group["params"]:
                for key, value in found.state.get(parameter, {}).items():
                    _check_moment(key, value, parameter, bool(group.get("fused")))


def _check_moment(key: str, value: Any, parameter: Tensor, is_fused: bool) -> None:
    if not isinstance(value, Tensor):
        return
    if key == "step" and value.numel() != 1:
        raise ValueError(f"the count of steps has {value.numel()} numbers")
    if is_fused and key != "step" and value.shape != parameter.shape:
        raise ValueError(
            f"`{key}` of an optimizer has shape {list(value.shape)}, and its parameter {list(parameter.shape)}"
        )


def torch_optimizers(part: object, seen: set[int] | None = None) -> Iterator[Optimizer]:
    """Yield the optimizers of torch that an optimizer is or holds, also in lists."""
    seen = set() if seen is None else seen
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, Optimizer):
        yield part
    for value in vars(part).values() if hasattr(part, "__dict__") else ():
        for inner in value if isinstance(value, list | tuple) else (value,):
            if hasattr(inner, "load_state_dict") and hasattr(inner, "step"):
                yield from torch_optimizers(inner, seen)
