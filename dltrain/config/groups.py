"""The groups of words: their subject, whether they take several words, and the runtime arguments of their targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# First words of a command line that are no overrides; each is a module of `dltrain.commands`.
VERBS = ("check", "evaluate", "resume", "rerun", "schema", "completion", "complete")


@dataclass(frozen=True)
class Group:
    """One group.

    Args:
        about: the subject, as the help shows it
        several: whether it takes a list of words
        runtime: number of leading arguments of a target that the program passes, such as the model of a regularizer
        called: the same for a function that is passed on instead of being called (`_partial_: true`)
        overlay: whether its words are recipes, which set keys of other groups and have none themselves
        knobs: parameters that the top-level knob of the same name sets
    """

    name: str
    about: str
    several: bool = False
    runtime: int = 0
    called: int = 0
    overlay: bool = False
    knobs: tuple[str, ...] = ()


ALL = (
    Group("dataset", "the data to learn from"),
    Group("model", "the function to train", runtime=2),
    Group("initializer", "the initial weights", called=3),
    Group("optimizer", "how a gradient becomes a step", runtime=1, knobs=("lr",)),
    Group("wrap", "wrappers around any optimizer; several at once: wrap=[…]", several=True, runtime=1),
    Group("averaging", "an average of the weights over steps, which is validated and kept", runtime=3),
    Group("schedule", "the learning rate over steps", runtime=2),
    Group("momentum_schedule", "the momentum over steps", runtime=2),
    Group("penalty_schedule", "the strength of regularization over steps", runtime=2),
    Group(
        "regularization",
        "penalties and constraints; several at once: regularization=[l2,dropout]",
        several=True,
        runtime=1,
    ),
    Group(
        "augmentation",
        "random changes of training samples; several at once: augmentation=[flip,crop,mixup]",
        several=True,
        runtime=1,
    ),
    Group("loss", "the training objective", runtime=1, called=2),
    Group("sampler", "which samples form a batch", runtime=4),
    Group("early_stopping", "when to stop, and which weights are the best"),
    Group(
        "diagnostics",
        "measurements during training; several at once: diagnostics=[layers,curvature]",
        several=True,
    ),
    Group("sweep", "how -m searches", runtime=1),
    Group("sweep.backend", "how -m runs its jobs", runtime=1),
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
        rule: range of `values`; None keeps that of the other group
        values: defaults by key
        exceptions: defaults of single words
    """

    source: str
    noun: str
    effect: str
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
        rule="float in [0, 1)",
        values={"start": 0.5, "peak": 0.9, "end": 0.9},
        exceptions={"constant": {"start": 0.9}, "one_cycle": {"start": 0.95, "peak": 0.85, "end": 0.95}},
    ),
    "penalty_schedule": Family(
        source="schedule",
        noun="multiple of the strengths",
        effect="it multiplies the strengths of the penalties",
        rule=None,
        values={"start": 0.0, "end": 1.0},
        exceptions={"constant": {"start": 1.0}, "one_cycle": {"end": 0.0}},
    ),
}
