"""A run before its first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dltrain.config.schema import Config
from dltrain.training.parts import Parts, Plan


@dataclass
class Experiment:
    """A built run: nothing is on the disk yet, and nothing is trained.

    Args:
        startup: seconds from the start of the process to each milestone
        loggers: by word
        code: digests of the user's own files, taken before they could be edited during the training
        longer: the length that a resumed run was given, as overrides
        edited: what changed in files of the user's code before a resume, as sentences
        searched: keys whose value was `auto`, and was found by trials before the training
        weights: digest of the file that the initial weights come from, empty for none
        stacked: whether it trains together with others, whose results are equal within rounding
    """

    config: Config
    parts: Parts
    plan: Plan
    command: str = ""
    overrides: tuple[str, ...] = ()
    startup: dict[str, float] = field(default_factory=dict)
    loggers: Mapping[str, object] = field(default_factory=dict)
    stacked: bool = False
    code: Mapping[str, str] = field(default_factory=dict)
    longer: tuple[str, ...] = ()
    edited: tuple[str, ...] = ()
    weights: str = ""
    searched: tuple[str, ...] = ()
