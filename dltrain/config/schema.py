"""The typed configuration: what the doorway hands to `build` after validation, with Hydra left behind."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

Node = dict[str, Any]  # a `_target_` and the keys of what it names; empty where nothing was chosen


@dataclass(frozen=True)
class Log:
    every_steps: int | None
    profile: bool


@dataclass(frozen=True)
class Evaluation:
    every_epochs: int | None
    every_steps: int | None
    batch_size: int | None
    test: bool
    mc_dropout: int = 0
    tta: int = 0
    tta_words: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Checkpoint:
    every_epochs: int | None
    every_steps: int | None
    every_minutes: float | None
    keep: int
    background: bool
    unsaved: str


# What configurations that were saved before these keys existed mean.
CHECKPOINT_SINCE = {"background": False, "unsaved": "stop"}


@dataclass(frozen=True)
class Parameters:
    freeze: list[str] = field(default_factory=list)
    thaw_epoch: int | None = None
    lr_scale: dict[str, float] = field(default_factory=dict)
    decay_all: bool = False


@dataclass(frozen=True)
class Config:
    """One run. The knobs are those of conf/config.yaml, where their rules and meanings stand."""

    lr: float | str | None
    epochs: int | None
    steps: int | None
    batch_size: int | str | None
    seed: int
    device: str
    precision: str
    accumulate: int
    shuffle: str
    folds: int | None
    fold: int | None
    name: str | None
    tags: list[str]
    notes: str | None
    output: str
    deterministic: bool
    compile: bool
    threads: int | None
    workers: int
    worker_timeout: float
    quiet: bool
    non_finite: str
    trust: list[str]
    log: Log
    evaluation: Evaluation
    checkpoint: Checkpoint
    parameters: Parameters
    dataset: Node
    model: Node
    initializer: Node
    optimizer: Node
    wrap: dict[str, Node]
    averaging: Node
    schedule: Node
    momentum_schedule: Node
    penalty_schedule: Node
    regularization: dict[str, Node]
    augmentation: dict[str, Node]
    loss: Node
    sampler: Node
    early_stopping: Node
    diagnostics: dict[str, Node]
    words: dict[str, Any]  # the chosen word of each group, a list for the groups that take several
    plain: Node  # the same configuration as nested plain data, as it is saved
    # What came from the environment: dotted path → what asks for it, `${oc.env:…}` or a list with such texts.
    secrets: dict[str, Any] = field(default_factory=dict)


def to_config(plain: Node, words: dict[str, Any], secrets: dict[str, Any] | None = None) -> Config:
    """Build the typed configuration from validated plain data."""
    values: dict[str, Any] = {f.name: plain.get(f.name) or {} for f in fields(Config)}
    values |= {key: value for key, value in plain.items() if key in values and value is not None}
    knobs = {f.name for f in fields(Config) if "None" in str(f.type)}
    values |= {key: plain.get(key) for key in knobs}
    values["tags"], values["trust"] = plain.get("tags") or [], plain.get("trust") or []
    values["worker_timeout"] = plain.get("worker_timeout") or 60.0
    values["non_finite"] = plain.get("non_finite") or "stop"
    values |= {
        "log": Log(**plain["log"]),
        "evaluation": Evaluation(**plain["evaluation"]),
        "checkpoint": Checkpoint(**CHECKPOINT_SINCE | plain["checkpoint"]),
        "parameters": Parameters(**plain.get("parameters") or {}),
    }
    return Config(**values | {"words": words, "plain": plain, "secrets": secrets or {}})


def objective_of(config: Config) -> Node:
    """What decides the loss that is minimized, beside the data: equal for runs whose column `objective` compares."""
    return {"loss": config.loss, "dataset": {"class_weights": config.dataset.get("class_weights")}}


def run_name(config: Config) -> str:
    """The folder of a run below `output`: its name, or its dataset and model."""
    return config.name or f"{config.words['dataset']}_{config.words['model']}"
