"""The groups of words: their subject, whether they take several words, and the runtime arguments of their targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any


@dataclass(frozen=True)
class Group:
    """One group.

    Args:
        about: the subject, as the help shows it
        several: whether it takes a list of words
        runtime: arguments that the program passes to a target, such as the model of a regularizer
        called: arguments of a function that is itself the part, such as a loss of outputs and targets
        interfaces: dotted names of the interfaces of its parts; a part fits one of them
        overlay: whether its words are recipes, which set keys of other groups and have none themselves
        knobs: parameters that the top-level knob of the same name sets
        by_name: whether the arguments of the program are passed by name only
        directed: whether a class of the group may state whether lower or higher values are better
        needs: what a word of this group needs that does not declare its needs (dltrain/declare.py)
    """

    name: str
    about: str
    several: bool = False
    runtime: tuple[str, ...] = ()
    called: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    overlay: bool = False
    knobs: tuple[str, ...] = ()
    by_name: bool = False
    directed: bool = False
    needs: frozenset[str] = frozenset()

    def passed(
        self, parameters: Sequence[tuple[str, bool]], given: Mapping[str, Any], function: bool
    ) -> dict[str, int] | None:
        """Return which arguments of the program a target receives: their positions in `runtime`, by parameter.

        A parameter receives the argument of the same name; a leading one that is required, and no key of the word, the
        argument of its position. None for a function that is itself the part, and is passed on instead of being called.

        Args:
            parameters: names, and whether they are required
            given: the keys that the word's file sets; `_partial_: true` passes any target on
            function: whether the target is a function
        """
        if given.get("_partial_") or (function and self.is_whole(parameters, given)):
            return None
        leading = () if self.by_name else takewhile(lambda p: p[1], parameters)
        free = [name for name, _ in leading if name not in given]
        found = {name: i for i, name in enumerate(free[: len(self.runtime)]) if name not in self.runtime}
        named = (name for name, _ in parameters if name in self.runtime and name not in given)
        return found | {name: self.runtime.index(name) for name in named}

    def is_whole(self, parameters: Sequence[tuple[str, bool]], given: Mapping[str, Any]) -> bool:
        """Return whether a function with these parameters is itself the part: it takes what a part is called with."""
        first = parameters[: len(self.called)]
        taken = all(name in self.called or (required and name not in given) for name, required in first)
        return (
            bool(self.called) and len(first) == len(self.called) and taken and first[0][0] not in self.runtime
        )

    def skipped(
        self, parameters: Sequence[tuple[str, bool]], given: Mapping[str, Any], function: bool
    ) -> set[str]:
        """Return the parameters that are no keys of the word, since the program passes them; arguments as in `passed`."""
        found = self.passed(parameters, given, function)
        return {name for name, _ in parameters[: len(self.called)]} if found is None else set(found)


_STEPS = ("total_steps", "steps_per_epoch")
_SCHEDULE = ("dltrain.schedules.Schedule",)
_OPTIMIZER = ("dltrain.optimizers.groups.Optimizer",)
_EVENTS = ("RunStarted", "StepLogged", "Evaluated", "RunEnded", "Stepped")
_RULES = (
    "dltrain.regularization.protocols.Penalty",
    "dltrain.regularization.protocols.GradientRule",
    "dltrain.regularization.protocols.DecayRule",
    "dltrain.regularization.protocols.WeightRule",
    "dltrain.regularization.model_keys.ByKey",
)

ALL = (
    Group("dataset", "the data to learn from"),
    Group(
        "model",
        "the function to train",
        runtime=("input_shape", "num_classes"),
        interfaces=("torch.nn.Module",),
    ),
    Group(
        "initializer",
        "the initial weights",
        called=("module", "generator", "batch"),
        interfaces=("dltrain.initializers.protocols.Initializer",),
        needs=frozenset({"layers"}),
    ),
    Group(
        "optimizer",
        "how a gradient becomes a step",
        runtime=("params",),
        interfaces=_OPTIMIZER,
        knobs=("lr",),
    ),
    Group(
        "wrap",
        "wrappers around any optimizer; several at once: wrap=[…]",
        several=True,
        runtime=("optimizer",),
        interfaces=_OPTIMIZER,
    ),
    Group(
        "averaging",
        "an average of the weights over steps, which is validated and kept",
        runtime=("model", *_STEPS),
        interfaces=("dltrain.averaging.Averaging",),
    ),
    Group(
        "schedule",
        "the learning rate over steps",
        runtime=_STEPS,
        interfaces=_SCHEDULE,
        needs=frozenset({"lr of each step"}),
    ),
    Group(
        "momentum_schedule",
        "the momentum over steps",
        runtime=_STEPS,
        interfaces=_SCHEDULE,
        needs=frozenset({"momentum"}),
    ),
    Group(
        "penalty_schedule",
        "the strength of regularization over steps",
        runtime=_STEPS,
        interfaces=_SCHEDULE,
        needs=frozenset({"strength"}),
    ),
    Group(
        "regularization",
        "penalties and constraints; several at once: regularization=[l2,dropout]",
        several=True,
        runtime=("model",),
        interfaces=_RULES,
    ),
    Group(
        "augmentation",
        "random changes of training samples; several at once: augmentation=[flip,crop,mixup]",
        several=True,
        runtime=("spec",),
        called=("inputs", "targets", "generator"),
        interfaces=("dltrain.augmentation.protocols.BatchTransform",),
        needs=frozenset({"samples"}),
    ),
    Group(
        "loss",
        "the training objective",
        runtime=("spec",),
        called=("outputs", "targets"),
        interfaces=("dltrain.losses.Loss",),
    ),
    Group(
        "metrics",
        "what is measured beside the loss; several at once: metrics=[f1,auroc]; [] follows the task",
        several=True,
        runtime=("spec", "num_classes", "num_outputs", "class_names", "task"),
        by_name=True,
        called=("outputs", "targets"),
        interfaces=("dltrain.metrics.protocol.Metric", "dltrain.metrics.protocol.SampleMetric"),
        directed=True,
        needs=frozenset({"samples"}),
    ),
    Group(
        "sampler",
        "which samples form a batch",
        runtime=("targets", "batch_size", "seed", "shuffle"),
        interfaces=("dltrain.sampling.Sampler",),
    ),
    Group(
        "early_stopping",
        "when to stop, and which weights are the best",
        interfaces=("dltrain.training.parts.EarlyStopping",),
    ),
    Group(
        "diagnostics",
        "measurements during training; several at once: diagnostics=[layers,curvature]",
        several=True,
        interfaces=("dltrain.diagnostics.probe.Diagnostic",),
    ),
    Group(
        "logger",
        "where curves go beside metrics.csv, which is always written; several at once: logger=[tensorboard,wandb]",
        several=True,
        interfaces=tuple(f"dltrain.loggers.events.{event}" for event in _EVENTS),
    ),
    Group("sweep", "how -m searches", runtime=("begun",)),
    Group(
        "sweep.backend",
        "how -m runs its jobs",
        runtime=("sweep",),
        interfaces=("dltrain.sweep.backends.protocol.Backend",),
    ),
    Group("experiment", "recipes, which change any of the above", overlay=True),
    Group("debug", "quick checks: fast, overfit, profile", overlay=True),
)
BY_NAME = {group.name: group for group in ALL}
GROUPS = [group.name for group in ALL]
LIST_GROUPS = tuple(group.name for group in ALL if group.several)
OVERLAYS = tuple(group.name for group in ALL if group.overlay)
# part of no run
OF_SWEEPS = ("sweep", "sweep.backend")


def folder_of(group: str) -> str:
    """Return the folder of a group below conf/, which is also Hydra's name of it."""
    return group.replace(".", "/")


def group_of(folder: str) -> str:
    """Return the group of a folder below conf/, or of Hydra's name of it."""
    return folder.replace("/", ".")


@dataclass(frozen=True)
class Family:
    """A group that shares the words of another group, with another range and other defaults for some keys.

    Args:
        source: the other group
        noun: what the values are
        effect: the last clause of the formula
        use: when to use them
        rule: range of `values`; None keeps that of the other group
        values: defaults by key
        exceptions: defaults of single words
    """

    source: str
    noun: str
    effect: str
    use: str
    rule: str | None
    values: Mapping[str, float]
    exceptions: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def default(self, word: str, key: str, default: Any) -> Any:
        """Return the default of a key in this group, given that of the other group."""
        return self.exceptions.get(word, {}).get(key, self.values.get(key, default))


FAMILIES = {
    "momentum_schedule": Family(
        source="schedule",
        noun="momentum",
        effect="it is the momentum",
        use="less momentum at first, while the gradients are large.",
        rule="float in [0, 1)",
        values={"start": 0.5, "peak": 0.9, "end": 0.9},
        exceptions={"constant": {"start": 0.9}, "one_cycle": {"start": 0.95, "peak": 0.85, "end": 0.95}},
    ),
    "penalty_schedule": Family(
        source="schedule",
        noun="multiple of the strengths",
        effect="it multiplies the strengths of the penalties",
        use="to start with many free parameters, and to regularize them gradually.",
        rule=None,
        values={"start": 0.0, "end": 1.0},
        exceptions={"constant": {"start": 1.0}, "one_cycle": {"end": 0.0}},
    ),
}
