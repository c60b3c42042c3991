"""The configurations that are compared: their repetitions, the data that they were trained on, and how to repeat them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dltrain.config.keys import REPLICATES, SPLIT_BY, is_observing, label, text_of
from dltrain.config.own_code import changed_since
from dltrain.data.errors import some
from dltrain.errors import typed
from dltrain.storage.proposed import beyond_record, is_rerun, name_option
from dltrain.storage.summary import WHOLE
from dltrain.sweep.outcome import statistics
from dltrain.sweep.outcome.members import Member, choices_of, rates_note


@dataclass
class Group:
    """A configuration with its repetitions.

    Args:
        p: corrected p of the test against the best configuration; None where there is none
        test: the test: paired, welch, or "" for none
        verdict: the result of the test as text
        copies: how many runs were left out, because one with the same seed, fold and split counts already
        data: number of the set of data that it was trained on, from 1
        place: place among the configurations that were trained on the same data, from 1
        prints: what it was scored on, by fold and seed of the split: a table is encoded by the training samples, so by these
        places: index of a repetition by its seed, fold and seed of the split
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
    prints: dict[tuple[Any, ...], tuple[Any, ...]] = field(default_factory=dict)
    places: dict[tuple[Any, ...], int] = field(default_factory=dict)

    def add(self, member: Member, value: float) -> None:
        """Add a repetition with its value of the metric; of copies the first whole run counts."""
        first = self.places.setdefault(member.replicate, len(self.members))
        if first < len(self.members) and member.replicate[0] is not None:
            self.copies += 1
            if _is_whole(member) and not _is_whole(self.members[first]):
                self.members[first], self.values[first] = member, value
            return
        self.members.append(member)
        self.values.append(value)
        self.prints.setdefault(member.replicate[1:], member.scored_on)

    @property
    def name(self) -> str:
        """Return the choices in one line, those that an override of its runs set first; empty where there are none."""
        return label(self.choices, {key for member in self.members for key in member.given})

    @property
    def seeds(self) -> list[tuple[Any, ...]]:
        return [member.replicate for member in self.members]

    @property
    def parts(self) -> list[tuple[Any, ...]]:
        """Return the fold and the seed of the split of each repetition."""
        return [member.replicate[1:] for member in self.members]

    @property
    def units(self) -> list[float]:
        """Return the values that the interval and the tests take as independent: of several folds and splits, one each."""
        return statistics.independent(self.values, self.parts)

    @property
    def unit_names(self) -> list[tuple[Any, ...]]:
        """Return the repetition of each of the `units`, or its fold and split."""
        return list(dict.fromkeys(self.parts)) if self.is_divided else self.seeds

    @property
    def is_divided(self) -> bool:
        """Return whether it has repetitions on several folds or splits."""
        return len(set(self.parts)) > 1


def grouped(members: Sequence[Member], metric: str) -> list[Group]:
    """Return the configurations with the values of their repetitions, in the order of their first runs.

    Runs of one configuration on other data are a group apart, with the fingerprint as one of its choices, and so are those of
    other states of a file of the user's code.
    """
    edited = _edited([member.code for member in members])
    by_recipe = len({str(member.config.get("experiment")) for member in members}) > 1
    groups: dict[str, list[Group]] = {}
    for member, choices in zip(members, choices_of(members, asked=True), strict=True):
        kept = {key: value for key, value in choices.items() if key not in REPLICATES}
        # the file of one path may have changed from run to run
        if member.first_weights and len({other.first_weights for other in members} - {""}) > 1:
            kept["first weights"] = member.first_weights[:8]
        kept |= {f"code of {file}": sha[:8] for file, sha in member.code.items() if file in edited}
        trained = {key: text_of(value) for key, value in kept.items() if not is_observing(key, member.config)}
        # a recipe stands for the keys that it sets, of which the choices may not tell all
        alike = groups.setdefault(repr((sorted(trained.items()), member.trained if by_recipe else "")), [])
        part, seen = member.replicate[1:], member.scored_on
        group = next((group for group in alike if group.prints.get(part, seen) == seen), None)
        if group is None:
            group = Group(kept, [], [])
            alike.append(group)
        # what not all of its repetitions have is no choice of the configuration
        group.choices = {
            key: value for key, value in group.choices.items() if key in kept and kept[key] == value
        }
        group.add(member, member.scores[metric])
    for alike in groups.values():
        for group in alike if len(alike) > 1 else ():
            group.choices = {**group.choices, "data": group.members[0].fingerprint[:8] or "unknown"}
    found = [group for alike in groups.values() for group in alike]
    for group in found:
        group.mean, group.deviation = statistics.mean_and_deviation(group.units)
        group.half_width = statistics.half_width(group.units)
    return found


def _edited(codes: Sequence[Mapping[str, str]]) -> set[str]:
    """Return the files of the user's code of which runs know different states."""
    states: dict[str, set[str]] = {}
    for code in codes:
        for file, sha in code.items():
            states.setdefault(file, set()).add(sha)
    return {file for file, known in states.items() if len(known) > 1}


def number_data(groups: Sequence[Group]) -> None:
    """Give the configurations of the same data the same number: those that share what a fold or split was scored on."""
    numbers: dict[tuple[Any, ...], int] = {}
    for group in groups:
        seen = list(group.prints.items())
        group.data = next(
            (numbers[key] for key in seen if key in numbers), max(numbers.values(), default=0) + 1
        )
        for key in seen:
            numbers.setdefault(key, group.data)


def data_names(parts: Sequence[Sequence[Group]]) -> list[str]:
    """Return a name for each set of data: the dataset, with its fingerprint and then its split where several sets have that name."""
    firsts = [part[0].members[0] for part in parts]
    names = [first.data_name for first in firsts]
    prints = [first.fingerprint[:8] or "(unknown)" for first in firsts]
    splits = [_apart(first, firsts) for first in firsts]
    for more in (prints, splits) if len(set(prints)) > 1 else (splits,):
        names = [
            name if names.count(name) == 1 else f"{name} {text}".strip()
            for name, text in zip(names, more, strict=True)
        ]
    return names


def _apart(run: Member, runs: Sequence[Member]) -> str:
    """Return the keys of its split, or of the function that it minimizes, in which a run differs from those on data of its name."""
    alike = [other.config for other in runs if other.data_name == run.data_name]
    keys = [
        key for key in (*SPLIT_BY, *run.problem) if len({text_of(config.get(key)) for config in alike}) > 1
    ]
    return label({key: run.config.get(key) for key in keys})


DIVIDED = "runs on one fold and split share its samples: the interval and n take the mean over their seeds as one value"
# how a line begins that is typed as it stands
COMMANDS = ("dltrain ", "for seed in ")


def commands(groups: Sequence[Group]) -> list[str]:
    """Return the command that repeats each configuration: a `rerun` where those of two would be the same, as after a file was edited.

    Where code of a configuration was edited, which no command brings back, a sentence says so.
    """
    edits = [_edits(group) for group in groups]
    asked = list(map(repeated, groups))
    counts = Counter(command for command, changed in zip(asked, edits, strict=True) if not changed)
    found = []
    for group, command, changed in zip(groups, asked, edits, strict=True):
        if changed:
            name = group.name or "the configuration"
            found.append(f"{name}: {some(changed, 4)} since, so that a repetition needs the former file")
        else:
            found.append(command if counts[command] == 1 else rerun(group))
    return found


def _edits(group: Group) -> list[str]:
    code = group.members[0].code
    return changed_since(code) if code else []


def rerun(group: Group) -> str:
    """Return the command that repeats the first run of a configuration with other seeds, or on other splits."""
    seeds = " ".join(map(str, range(statistics.ENOUGH)))
    key = REPLICATES[-1] if group.is_divided else REPLICATES[0]
    return f"{COMMANDS[1]}{seeds}; do {typed('rerun', group.members[0].path)} {key}=$seed; done"


def repeated(group: Group) -> str:
    """Return the command that trains a configuration with enough seeds, on the folds and splits that its runs have.

    It is a `rerun` where the record holds what only the user may say.
    """
    member = group.members[0]
    if is_rerun(member.command) or not_proposed(group):
        # what was asked for is a change of another run's configuration
        return rerun(group)
    again = _again(group)
    asked = {text.lstrip("+").partition("=")[0]: text for text in member.overrides}
    kept = [text for key, text in asked.items() if key not in again]
    axes = [f"{key}={','.join(map(str, values))}" for key, values in again.items()]
    return typed("-m", *kept, *axes, *name_option(member.command))


def _again(group: Group) -> dict[str, list[int]]:
    """Return the values of seed, fold and seed of the split that give a configuration enough independent repetitions."""
    if not group.is_divided:
        return {REPLICATES[0]: list(range(statistics.ENOUGH))}
    found = {}
    for key in REPLICATES:
        values = {value for run in group.members if isinstance(value := run.config.get(key), int)}
        if len(values) > 1:
            found[key] = sorted(values)
    _, fold, split = REPLICATES
    wanted = math.ceil(statistics.ENOUGH / len(found.get(fold, [0])))
    if len(found.get(split, [0])) < wanted:
        found[split] = list(range(wanted))
    return found


def division_notes(groups: Sequence[Group]) -> list[str]:
    """Say what counts as one where configurations have several seeds on a fold or split."""
    return [DIVIDED] if any(len(group.units) < len(group.values) for group in groups) else []


def not_proposed(group: Group) -> list[str]:
    """Return what the record of a configuration holds that no proposed command takes from it."""
    member = group.members[0]
    return beyond_record(member.overrides, member.command)


def not_proposed_notes(groups: Sequence[Group]) -> list[str]:
    """Say what was left out of the commands that repeat configurations."""
    found = dict.fromkeys(text for group in groups for text in not_proposed(group))
    if not found:
        return []
    told = f"Not taken from the records, which may be somebody else's: {some(found, 4)}."
    return [f"{told} `rerun` takes the configuration of the run, and asks for `trust` where that is needed."]


def _is_whole(member: Member) -> bool:
    return member.summary.get("status") in WHOLE


def rates_notes(groups: Sequence[Group]) -> list[str]:
    """Say where the repetitions of a configuration trained with different rates."""
    return [
        f"{group.name or 'these runs'}: {note}" for group in groups if (note := rates_note(group.members))
    ]


def copies_notes(groups: Sequence[Group]) -> list[str]:
    """Say how many runs were left out as copies."""
    copies = sum(group.copies for group in groups)
    if not copies:
        return []
    what = "1 run is left out: it has" if copies == 1 else f"{copies} runs are left out: they have"
    return [f"{what} the configuration, seed, fold and split of another run, which counts once"]
