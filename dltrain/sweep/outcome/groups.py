"""The configurations that are compared: their repetitions, the data that they were trained on, and how to repeat them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dltrain.config.asked import options_of
from dltrain.config.keys import REPLICATES, label
from dltrain.errors import typed
from dltrain.storage.summary import WHOLE
from dltrain.sweep.outcome import statistics
from dltrain.sweep.outcome.members import Member, choices_of


@dataclass
class Group:
    """A configuration with its repetitions.

    Args:
        p: corrected p of the test against the best configuration; None where there is none
        test: the test: paired, welch, or "" for none
        verdict: the result of the test as text
        copies: how many runs were left out, because one with the same seed and fold counts already
        data: number of the set of data that it was trained on, from 1
        place: place among the configurations that were trained on the same data, from 1
        prints: fingerprint of the data by fold: a table is encoded by the training samples, so by fold
        places: index of a repetition by its seed and fold
    """

    choices: dict[str, Any]
    members: list[Member]
    values: list[float]
    mean: float = math.nan
    deviation: float = math.nan
    half_width: float = math.nan
    p: float | None = None
    test: str = ""
    verdict: str = ""
    copies: int = 0
    data: int = 1
    place: int = 1
    prints: dict[Any, str] = field(default_factory=dict)
    places: dict[tuple[Any, ...], int] = field(default_factory=dict)

    def add(self, member: Member, value: float) -> None:
        """Add a repetition with its value of the metric; of several with one seed and fold, the first whole run counts."""
        first = self.places.setdefault(member.replicate, len(self.members))
        if first < len(self.members) and member.replicate[0] is not None:
            self.copies += 1
            if _is_whole(member) and not _is_whole(self.members[first]):
                self.members[first], self.values[first] = member, value
            return
        self.members.append(member)
        self.values.append(value)
        self.prints.setdefault(member.config.get("fold"), member.fingerprint)

    @property
    def name(self) -> str:
        """Return the choices in one line, those that an override of its runs set first; empty where there are none."""
        return label(self.choices, {key for member in self.members for key in member.given})

    @property
    def seeds(self) -> list[tuple[Any, ...]]:
        return [member.replicate for member in self.members]


def grouped(members: Sequence[Member], metric: str) -> list[Group]:
    """Return the configurations with the values of their repetitions, in the order of their first runs.

    Runs of one configuration on other data are a group apart, with the fingerprint as one of its choices.
    """
    groups: dict[str, list[Group]] = {}
    for member, choices in zip(members, choices_of(members), strict=True):
        kept = {key: value for key, value in choices.items() if key not in REPLICATES}
        alike = groups.setdefault(repr(kept), [])
        fold, seen = member.config.get("fold"), member.fingerprint
        group = next((group for group in alike if group.prints.get(fold, seen) == seen), None)
        if group is None:
            group = Group(kept, [], [])
            alike.append(group)
        group.add(member, member.scores[metric])
    for alike in groups.values():
        for group in alike if len(alike) > 1 else ():
            group.choices = {**group.choices, "data": group.members[0].fingerprint[:8] or "unknown"}
    found = [group for alike in groups.values() for group in alike]
    for group in found:
        group.mean, group.deviation = statistics.mean_and_deviation(group.values)
        group.half_width = statistics.half_width(group.values)
    return found


def number_data(groups: Sequence[Group]) -> None:
    """Give the configurations of the same data the same number: those that share the fingerprint of a fold."""
    numbers: dict[tuple[Any, str], int] = {}
    for group in groups:
        seen = list(group.prints.items())
        group.data = next(
            (numbers[key] for key in seen if key in numbers), max(numbers.values(), default=0) + 1
        )
        for key in seen:
            numbers.setdefault(key, group.data)


def data_names(parts: Sequence[Sequence[Group]]) -> list[str]:
    """Return a name for each set of data: the dataset, with the fingerprint where several sets have that name."""
    firsts = [part[0].members[0] for part in parts]
    words = [str(first.config.get("dataset") or "unknown data") for first in firsts]
    return [
        word if words.count(word) == 1 else f"{word} {first.fingerprint[:8] or '(unknown)'}"
        for word, first in zip(words, firsts, strict=True)
    ]


def repeated(group: Group) -> str:
    """Return the command that trains a configuration with enough seeds, on the folds that its runs have."""
    member = group.members[0]
    again = {"seed": list(range(statistics.ENOUGH))}
    folds = {fold for run in group.members if isinstance(fold := run.config.get("fold"), int)}
    if len(folds) > 1:
        again["fold"] = sorted(folds)
    kept = [text for text in member.overrides if text.lstrip("+").partition("=")[0] not in again]
    axes = [f"{key}={','.join(map(str, values))}" for key, values in again.items()]
    options = zip(
        ("--config-name", "--config-dir"), options_of(str(member.summary.get("command") or "")), strict=True
    )
    return typed("-m", *kept, *axes, *(word for pair in options if pair[1] for word in pair))


def _is_whole(member: Member) -> bool:
    return member.summary.get("status") in WHOLE


def copies_notes(groups: Sequence[Group]) -> list[str]:
    """Say how many runs were left out as copies."""
    copies = sum(group.copies for group in groups)
    if not copies:
        return []
    what = "1 run is left out: it has" if copies == 1 else f"{copies} runs are left out: they have"
    return [f"{what} the configuration, seed and fold of another run, which counts once"]
