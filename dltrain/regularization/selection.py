"""Which parameters a regularizer acts on, and the refusal of bad strengths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

NORMALISATION = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)


def decayed_parameters(model: nn.Module, word: str, all_parameters: bool = False) -> list[Tensor]:
    """The weights with two or more axes outside normalisation layers, each once; all if `all_parameters`.

    Frozen ones are among them, since they may thaw. ValueError where there are none.
    """
    found: dict[int, Tensor] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            matrix = parameter.ndim >= 2 and not isinstance(module, NORMALISATION)
            if all_parameters or matrix:
                found[id(parameter)] = parameter
    if not found:
        raise ValueError(
            f"regularization={word} finds no weights with two or more axes in this model; "
            f"say regularization.{word}.all_parameters=true, or leave {word} away"
        )
    return list(found.values())


def grouped(
    parameters: Iterable[Tensor], param_groups: Sequence[dict[str, Any]]
) -> list[tuple[list[Tensor], Any]]:
    """For each of the optimizer's groups: those of `parameters` that it is updating now, and its lr."""
    chosen = {id(parameter) for parameter in parameters}
    pairs = []
    for group in param_groups:
        members = [p for p in group["params"] if id(p) in chosen and p.grad is not None]
        if members:
            pairs.append((members, group["lr"]))
    return pairs


def require(ok: bool, key: str, value: object, rule: str, cure: str) -> None:
    """Raise a ValueError with the key, its value, the rule and the cure unless `ok`."""
    if not ok:
        raise ValueError(f"regularization.{key} is {value}; it must be {rule} ({cure})")


def require_strength(word: str, strength: float) -> None:
    """ValueError unless the strength is finite and not negative."""
    require(0 <= strength < math.inf, f"{word}.strength", strength, ">= 0", "0 switches it off")
