"""Keys that have no effect beside the other values of a configuration: refused on the command line, reported where a file sets them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dltrain.config.catalogue import Catalogue, written
from dltrain.config.conflicts import value
from dltrain.config.keys import keys_of
from dltrain.config.schema import Node
from dltrain.errors import UserError


@dataclass(frozen=True)
class Idle:
    """A key that nothing reads where `unused` holds for the configuration, of which `why` and `cure` are formatted."""

    key: str
    unused: Callable[[Node], Any]
    why: str
    cure: str

    def occurs(self, plain: Node) -> bool:
        return value(plain, self.key) is not None and bool(self.unused(plain))

    def refusal(self, plain: Node) -> str:
        """Return the message for a key of the command line, with both ways out."""
        text = f"`{self.key}` has no effect {self.why}. Add {self.cure}, or leave {self.key} out."
        return text.format(**plain)

    def remark(self, plain: Node) -> str:
        """Return the line for a key that a file sets."""
        return f"{self.key}={written(value(plain, self.key))} has no effect {self.why.format(**plain)}"


def _differs(plain: Node, index: int, default: float) -> bool:
    """Return whether one of two betas is not its default; the `betas` of a user's optimizer may be something else."""
    betas = value(plain, "optimizer.betas")
    return isinstance(betas, list) and len(betas) == 2 and betas[index] != default


# keys that are refused where the command line gives them and nothing reads them; those that a file sets are told
IDLE = (
    Idle(
        "dataset.resize",
        lambda c: not value(c, "dataset.image_size"),
        "without dataset.image_size",
        "dataset.image_size=224",
    ),
    Idle(
        "dataset.val_fraction",
        lambda c: c["folds"] is not None,
        "beside folds={folds}, whose folds validate in turn",
        "folds=null fold=null",
    ),
    Idle(
        "parameters.decay_all",
        lambda c: value(c, "parameters.decay_all") and not value(c, "optimizer.weight_decay"),
        "without optimizer.weight_decay",
        "optimizer.weight_decay=1e-4",
    ),
    Idle(
        "optimizer.decoupled_weight_decay",
        lambda c: value(c, "optimizer.decoupled_weight_decay") and not value(c, "optimizer.weight_decay"),
        "without optimizer.weight_decay",
        "optimizer.weight_decay=1e-4",
    ),
    Idle(
        "optimizer.dampening",
        lambda c: (
            value(c, "optimizer.dampening")
            and value(c, "optimizer.momentum") == 0
            and not value(c, "momentum_schedule._target_")
        ),
        "with optimizer.momentum=0",
        "optimizer.momentum=0.9",
    ),
    Idle(
        "optimizer.momentum",
        lambda c: value(c, "momentum_schedule._target_"),
        "beside a momentum_schedule, which sets the momentum of each step",
        "momentum_schedule=none",
    ),
    Idle(
        "optimizer.betas",
        # β₂ acts; 0.9 is the default of β₁, which has to be typed with it
        lambda c: value(c, "momentum_schedule._target_") and _differs(c, 0, 0.9),
        "on β₁ beside a momentum_schedule, which sets it in each step",
        "momentum_schedule=none",
    ),
    Idle(
        "optimizer.eps",
        lambda c: value(c, "optimizer.form") == "sgd",
        "with optimizer.form=sgd, which divides by no second moments",
        "optimizer.form=adamw",
    ),
    Idle(
        "optimizer.betas",
        # β₁ acts; 0.999 is the default of β₂, which has to be typed with it
        lambda c: value(c, "optimizer.form") == "sgd" and _differs(c, 1, 0.999),
        "on β₂ with optimizer.form=sgd, which has no second moments",
        "optimizer.form=adamw",
    ),
    Idle(
        "regularization.gradient_clipping.eps",
        lambda c: value(c, "regularization.gradient_clipping.mode") != "adaptive",
        "with regularization.gradient_clipping.mode={regularization[gradient_clipping][mode]}",
        "regularization.gradient_clipping.mode=adaptive",
    ),
    *(
        Idle(
            f"{node}.k",
            lambda c, node=node: value(c, f"{node}.alpha") == 1,  # type: ignore[misc]
            f"with {node}.alpha=1, where the slow weights are the fast ones",
            f"{node}.alpha=0.5",
        )
        for node in ("wrap.lookahead", "optimizer")
    ),
    *(
        Idle(
            f"{group}.{key}",
            lambda c, group=group: value(c, f"{group}.cycles") == 1,  # type: ignore[misc]
            f"with {group}.cycles=1",
            f"{group}.cycles=2",
        )
        for group in ("schedule", "momentum_schedule", "penalty_schedule")
        for key in ("growth", "shrink")
    ),
    Idle(
        "shuffle",
        # micro-batches differ by the order
        lambda c: c["batch_size"] == "full" and c["shuffle"] in ("once", "never") and c["accumulate"] == 1,
        "with batch_size=full, where each step takes all samples",
        "batch_size=64",
    ),
    *(
        Idle(
            f"{group}.every_epochs",
            lambda c, group=group: value(c, f"{group}.every_steps"),  # type: ignore[misc]
            f"beside {group}.every_steps={{{group}[every_steps]}}",
            f"{group}.every_steps=null",
        )
        for group in ("schedule", "momentum_schedule", "penalty_schedule")
    ),
    *(
        Idle(
            f"{node}.every_epochs",
            lambda c, node=node: value(c, f"{node}.every_steps"),  # type: ignore[misc]
            f"beside {node}.every_steps={{{node}[every_steps]}}",
            f"{node}.every_steps=null",
        )
        for node in ("evaluation", "checkpoint")
    ),
)


def check_idle(plain: Node, overrides: list[str]) -> None:
    """Refuse keys of the command line that nothing reads beside the other values."""
    given = keys_of(overrides)
    for idle in IDLE:
        if idle.key in given and idle.occurs(plain):
            raise UserError(idle.refusal(plain))


def idle_remarks(plain: Node, choices: dict[str, list[str]], catalogue: Catalogue) -> tuple[str, ...]:
    """Return a line for each key that a file gives another value than the default, and that nothing reads beside the others."""
    found = [idle for idle in IDLE if idle.occurs(plain)]
    known = catalogue.params(choices) if found else {}
    return tuple(
        idle.remark(plain)
        for idle in found
        if idle.key in known and known[idle.key].value != value(plain, idle.key)
    )
