"""Select the parameters that a regularizer acts on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn

NORMALIZATION = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)

# of the optimizer: `params`, `lr` and its other numbers
ParamGroups: TypeAlias = Sequence[dict[str, Any]]


def decayed_parameters(model: nn.Module, word: str, all_parameters: bool = False) -> list[Tensor]:
    """Return the weights with two or more axes outside normalization layers, or all if `all_parameters`.

    Shared parameters are returned once; frozen ones are included, since they may be unfrozen later. Raises ValueError
    if there are none.
    """
    found: dict[int, Tensor] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            matrix = parameter.ndim >= 2 and not isinstance(module, NORMALIZATION)
            if all_parameters or matrix:
                found[id(parameter)] = parameter
    if not found:
        raise ValueError(
            f"regularization={word} finds no weights with two or more axes in this model; "
            f"say regularization.{word}.all_parameters=true, or leave out {word}"
        )
    return list(found.values())


def grouped(
    parameters: Iterable[Tensor], param_groups: ParamGroups
) -> list[tuple[list[Tensor], dict[str, Any]]]:
    """Return the members of each parameter group that are in `parameters` and have a gradient, with the group."""
    chosen = {id(parameter) for parameter in parameters}
    pairs = []
    for group in param_groups:
        members = [p for p in group["params"] if id(p) in chosen and p.grad is not None]
        if members:
            pairs.append((members, group))
    return pairs


def step_size(group: dict[str, Any]) -> Any:
    """Return the size of the steps along a constant gradient: lr, or lr·(1 − dampening)/(1 − μ) with torch's momentum.

    Other momenta, such as those of adaptive optimizers, are means of gradients, whose groups have no dampening.
    """
    momentum = group.get("momentum") if "dampening" in group else None
    return group["lr"] * (1 - group["dampening"]) / (1 - momentum) if momentum else group["lr"]
