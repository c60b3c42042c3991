"""The groups of words: what each is about, whether it takes several words, and what the program passes to a word's target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# First words of a command line that are no overrides; each is a module of `dltrain.commands`.
VERBS = ("check", "evaluate", "resume", "rerun", "schema", "completion", "complete")


@dataclass(frozen=True)
class Group:
    """One group.

    several: whether it takes a list of words. runtime: leading arguments of a target that the program passes, such as the
    model of a regularizer; called: the same for a function that is not called but handed over (`_partial_: true`).
    overlay: a recipe, which sets keys of the other groups and has none itself. knobs: parameters that the top-level knob
    of the same name sets.
    """

    name: str
    about: str
    several: bool = False
    runtime: int = 0
    called: int = 0
    overlay: bool = False
    knobs: tuple[str, ...] = ()


ALL = (
    Group("dataset", "what to learn from"),
    Group("model", "what learns", runtime=2),
    Group("initializer", "where the weights start", called=3),
    Group("optimizer", "how a step is made from a gradient", runtime=1, knobs=("lr",)),
    Group("wrap", "around any optimizer; several at once: wrap=[…]", several=True, runtime=1),
    Group("averaging", "of the weights over steps; what is validated and kept", runtime=3),
    Group("schedule", "of the learning rate over steps", runtime=2),
    Group("momentum_schedule", "of the momentum", runtime=2),
    Group("penalty_schedule", "of the strength of regularization", runtime=2),
    Group("regularization", "several at once: regularization=[l2,dropout]", several=True, runtime=1),
    Group("augmentation", "several at once: augmentation=[flip,crop,mixup]", several=True, runtime=1),
    Group("loss", "the training objective", runtime=1, called=2),
    Group("sampler", "which samples come together", runtime=4),
    Group("early_stopping", "when to stop, and which weights are the best"),
    Group(
        "diagnostics",
        "what to measure while training; several at once: diagnostics=[layers,curvature]",
        several=True,
    ),
    Group("sweep", "how -m searches", runtime=1),
    Group("experiment", "recipes: a diff over all of the above", overlay=True),
    Group("debug", "a quick look: fast, overfit, profile", overlay=True),
)
BY_NAME = {group.name: group for group in ALL}
GROUPS = [group.name for group in ALL]
LIST_GROUPS = tuple(group.name for group in ALL if group.several)
OVERLAYS = tuple(group.name for group in ALL if group.overlay)


@dataclass(frozen=True)
class Family:
    """A group whose words are those of another one, with another range and other defaults for some of their keys.

    noun: what the values are; effect: what the last clause of the formula says; rule: the range of `values` (None: theirs);
    exceptions: defaults of single words.
    """

    source: str
    noun: str
    effect: str
    rule: str | None
    values: Mapping[str, float]
    exceptions: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def default(self, word: str, key: str, default: Any) -> Any:
        """The default of a key in this group, given that of the other one."""
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
