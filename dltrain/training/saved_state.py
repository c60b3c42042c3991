"""Check a state from a file against the parts that it is loaded into: it may come from somebody else.

The parts copy tensors into their own, which fills a large one from a single number without a word, and the fused kernels of torch
read and write as many numbers as the parameter has, whatever the state holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from dltrain.optimizers.groups import ParamGroup, State


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


def check_moments(saved: State, groups: Sequence[ParamGroup]) -> None:
    """Raise ValueError for moments of other shapes than their parameters', where a fused kernel takes them.

    Args:
        saved: `state_dict` of an optimizer, or of a wrap with one inside
        groups: the parameter groups that it is loaded into
    """
    for content in states_in(saved):
        for before, group in zip(content["param_groups"], groups, strict=True):
            is_fused = bool(before.get("fused") or group.get("fused"))
            for number, parameter in zip(before["params"], group["params"], strict=True):
                for key, value in content["state"].get(number, {}).items():
                    _check_moment(key, value, parameter, is_fused)


def _check_moment(key: str, value: Any, parameter: Tensor, is_fused: bool) -> None:
    if not isinstance(value, Tensor):
        return
    if key == "step" and value.numel() != 1:
        raise ValueError(f"the count of steps has {value.numel()} numbers")
    if is_fused and key != "step" and value.shape != parameter.shape:
        raise ValueError(
            f"`{key}` of an optimizer has shape {list(value.shape)}, and its parameter {list(parameter.shape)}"
        )


def states_in(saved: Any) -> Iterator[State]:
    """Yield the states of torch's optimizers in that of an optimizer, which may be a wrap."""
    if isinstance(saved, Mapping):
        if {"state", "param_groups"} <= saved.keys():
            yield dict(saved)
        else:
            for inner in saved.values():
                yield from states_in(inner)
