"""Learning rate, momentum and penalty strength as functions of the step."""

from __future__ import annotations

from dataclasses import dataclass

from dltrain.optimizers.groups import SteppingOptimizer
from dltrain.training.parts import Parts

SMALLEST_MOMENTUM = 1e-30


@dataclass(frozen=True)
class Rates:
    """The rates of one step."""

    lr: float = 0.0
    penalty_scale: float = 1.0


def set_rates(parts: Parts, step: int) -> Rates:
    """Set the learning rate and momentum of a step in the optimizer's groups; return its rates."""
    factor = parts.schedule(step)
    for group in parts.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    if parts.momentum_schedule is not None:
        set_momentum(parts.optimizer, parts.momentum_schedule(step))
    first = parts.optimizer.param_groups[0]
    scale = parts.penalty_schedule(step) if parts.penalty_schedule is not None else 1.0
    return Rates(first["lr"] / first.get("lr_scale", 1.0), scale)


def set_momentum(optimizer: SteppingOptimizer, momentum: float) -> None:
    """Set the momentum of an optimizer, which is the first beta in Adam's family.

    Never to 0 exactly: torch's optimizers would then drop the velocity, or miss one that they did not create.
    """
    for group in optimizer.param_groups:
        if "momentum" in group:
            group["momentum"] = max(momentum, SMALLEST_MOMENTUM)
        else:
            group["betas"] = (momentum, *group["betas"][1:])
