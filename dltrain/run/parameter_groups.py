"""Map patterns of parameter names to what is frozen, until when, and with which learning rate the rest is trained.

A pattern is a shell pattern (`layers.0.*`), the name of a layer, which matches all its parameters, or `head`: the
last layer with weights that `forward` uses, unless a layer has that name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dltrain.config.schema import Config
from dltrain.declare import Unused
from dltrain.errors import UserError
from dltrain.initializers.pretrained import freeze_parameters, head_parameters, matching
from dltrain.optimizers.groups import HAS_LAST_MATRIX, LAST_MATRIX
from dltrain.training.parts import Frozen, Plan
from dltrain.weight_layers import used_matrix


def freeze(model: nn.Module, config: Config, by_initializer: list[str]) -> list[Frozen]:
    """Freeze what `parameters.freeze` names; return the parts that thaw later, the initializer's included.

    Parameters that never thaw keep `requires_grad=False` and are not passed to the optimizer. The others are passed
    to it from the start, and the trainer withholds their gradients until they thaw. What both lists name is frozen as long as one of
    them says. Raises UserError for a `thaw_epoch` that thaws nothing, since the other list freezes all of it for longer.
    """
    named = dict(model.named_parameters())
    wanted = [(by_initializer, config.initializer.get("thaw_epoch"), "initializer.thaw_epoch")]
    patterns = config.parameters.freeze
    if patterns:
        try:
            names = freeze_parameters(model, patterns, "parameters.freeze")
            wanted.append((names, config.parameters.thaw_epoch, "parameters.thaw_epoch"))
        except ValueError as error:
            raise UserError(str(error)) from error
    lasts = {
        name: max(epoch or math.inf for names, epoch, _ in wanted if name in names)
        for names, *_ in wanted
        for name in names
    }
    thawing = []
    for names, epoch, key in wanted:
        kept = [name for name in names if lasts[name] == epoch]
        if names and epoch and not kept:
            other = next(other for others, _, other in wanted if other != key and set(others) & set(names))
            raise UserError(
                f"`{key}` is {epoch}, and all that it thaws is frozen for longer by {other.replace('thaw_epoch', 'freeze')}. "
                f"Leave out {key}, or name fewer layers there"
            )
        if kept and epoch:
            thawing.append(Frozen([named[name] for name in kept], epoch, key))
    for part in thawing:
        part.at(part.thaw_epoch)
    return thawing


def check_thawing(frozen: list[Frozen], plan: Plan) -> None:
    """Raise UserError if a part thaws only after the end of the run."""
    for part in frozen:
        if part.thaw_epoch * plan.steps_per_epoch >= plan.total_steps:
            epochs = plan.total_steps / plan.steps_per_epoch
            earlier = f"{part.key}={math.ceil(epochs) - 1} or " if epochs > 1 else ""
            raise UserError(
                f"`{part.key}` is {part.thaw_epoch}, and the run has {epochs:g} epochs: it must be fewer. "
                f"Write {earlier}{part.key}=null, which is frozen to the end."
            )


def lr_scales(model: nn.Module, config: Config) -> dict[int, float]:
    """Return the lr factor of each parameter by its id, of the first pattern that matches it; others are left out."""
    patterns: dict[str, Any] = dict(config.parameters.lr_scale)
    faster = config.initializer.get("head_lr_scale", 1.0)
    if faster != 1.0 and "head" in patterns:
        raise UserError(
            f"`initializer.head_lr_scale` is {faster:g}, and `parameters.lr_scale` gives head the factor {patterns['head']}. Set one of them."
        )
    key = "parameters.lr_scale"
    if faster != 1.0:
        patterns["head"], key = faster, "initializer.head_lr_scale"
    named = dict(model.named_parameters())
    scales: dict[int, float] = {}
    for pattern, factor in patterns.items():
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < float("inf"):
            raise UserError(
                f"`parameters.lr_scale` gives {pattern} the factor {factor}; it must be: float > 0.\n"
                "To train it not at all: parameters.freeze=[…]"
            )
        fresh = [p for p in _named(model, named, str(pattern)) if id(p) not in scales]
        check_factor(
            f"`{key if pattern == 'head' else 'parameters.lr_scale'}` gives {pattern} the factor {factor:g}",
            fresh,
        )
        scales |= {id(parameter): float(factor) for parameter in fresh}
    return scales


def check_factor(gives: str, parameters: list[nn.Parameter]) -> None:
    """Raise UserError for a factor of lr that no trained parameter gets."""
    if not parameters:
        raise UserError(
            f"{gives}, which has no effect: patterns before it match all of its parameters, and the first one counts.\n"
            "Write it before them, or leave it out."
        )
    if not any(parameter.requires_grad for parameter in parameters):
        raise UserError(
            f"{gives}, which has no effect: its parameters are frozen to the end.\n"
            "Leave it out, or let them thaw: parameters.thaw_epoch or initializer.thaw_epoch."
        )


def _named(model: nn.Module, named: Mapping[str, nn.Parameter], pattern: str) -> list[nn.Parameter]:
    if pattern == "head" and not any(name.split(".")[0] == "head" for name in named):
        head = head_parameters(model)
        if not head:
            raise UserError(
                f"`parameters.lr_scale` has head, and the model has no layer with weights; name its parameters: {', '.join(named)}"
            )
        return head
    try:
        return [named[name] for name in matching(model, pattern, "parameters.lr_scale")]
    except ValueError as error:
        raise UserError(str(error)) from error


def parameter_groups(model: nn.Module, config: Config, frozen: list[Frozen]) -> list[dict[str, Any]]:
    """Build the optimizer's parameter groups: one per lr, and separate ones for parameters without weight decay.

    Parameters that thaw are separate, too: torch's fused SGD requires that all momenta of a group start at the same
    step. The group with the model's last matrix comes last, because some optimizers (muon) treat that matrix
    differently; where it is frozen to the end, the groups say that they are without it. A model that uses another
    matrix last than it registers has its place in the group's key `last_matrix`.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    scales = lr_scales(model, config)
    decays = spares_vectors(config)
    thaws = {id(p): part.thaw_epoch for part in frozen for p in part.parameters}
    groups: dict[tuple[float, bool, int], list[nn.Parameter]] = {}
    for parameter in trained:
        spared = decays and parameter.dim() < 2
        key = (scales.get(id(parameter), 1.0), spared, thaws.get(id(parameter), 0))
        groups.setdefault(key, []).append(parameter)
    position = {id(p): i for i, p in enumerate(trained)}
    last_matrix = {
        key: max((position[id(p)] for p in members if p.dim() >= 2), default=len(trained))
        for key, members in groups.items()
    }
    keys = sorted(groups, key=lambda key: last_matrix[key]) if scales or thaws else list(groups)
    found = [_group(groups[key], key[0], key[1], config) for key in keys]
    last = last_matrix_of(model)
    if last is None:
        return found
    if not last.requires_grad:
        for group in found:
            group[HAS_LAST_MATRIX] = False
    elif last is not [p for group in found for p in group["params"] if p.dim() >= 2][-1]:
        for group in found:
            place = next((i for i, p in enumerate(group["params"]) if p is last), None)
            group |= {} if place is None else {LAST_MATRIX: place}
    return found


def last_matrix_of(model: nn.Module) -> Tensor | None:
    """Return the matrix that the model uses last, or the last one that it registers where no use is known."""
    used = used_matrix(model)
    if used is not None:
        return used.parameter
    return next((p for p in reversed(list(model.parameters())) if p.dim() >= 2), None)


def spares_vectors(config: Config) -> bool:
    """Return whether the optimizer has a weight decay, which parameters of fewer than two axes do not get."""
    return (config.optimizer.get("weight_decay") or 0.0) > 0 and not config.parameters.decay_all


def unused_decay(model: nn.Module, config: Config, optimizer: object) -> dict[str, Unused]:
    """Return the optimizer's keys of weight decay, with the reason, if no parameter that is trained gets any."""
    # an optimizer from elsewhere may decay by a number that is not in its groups
    in_groups = "weight_decay" in getattr(optimizer, "defaults", {})
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    if not spares_vectors(config) or not in_groups or any(p.requires_grad for p in matrices):
        return {}
    which = "that is trained" if matrices else "of this model"
    why = f"it acts on weights with two or more axes, and no weight {which} has them"
    keys = [
        "weight_decay",
        *["decoupled_weight_decay"] * bool(config.optimizer.get("decoupled_weight_decay")),
    ]
    return dict.fromkeys(keys, Unused(why, "parameters.decay_all=true"))


def _group(members: list[nn.Parameter], scale: float, spared: bool, config: Config) -> dict[str, Any]:
    group: dict[str, Any] = {"params": members}
    if spared:
        group["weight_decay"] = 0.0
    if scale != 1.0:
        if config.optimizer["lr"] is None:
            raise UserError(
                "`lr` is null, the optimizer's own default, and the rate of a part is a multiple of `lr`. Set it: lr=0.001"
            )
        group |= {"lr": config.optimizer["lr"] * scale, "lr_scale": scale}
    return group
