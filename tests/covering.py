"""A pairwise covering array: rows of one word for each group, in which every possible pair of words occurs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product

import yaml

from dltrain.config.catalogue import Catalogue
from dltrain.config.conflicts import first_conflict, parts_alone
from dltrain.config.search_path import catalogue_dir

CATALOGUE = Catalogue(catalogue_dir())
Row = dict[str, str]
Choice = tuple[str, str]
Pair = tuple[Choice, Choice]

# What two words need to be told when they meet.
TOLD = {
    ("model=mlp", "regularization=stochastic_depth"): "model.residual=true model.hidden=[16,16]",
    ("dataset=diabetes", "augmentation=mixup"): "augmentation.mixup.regression=true",
    **{
        (f"loss={loss}", f"augmentation={word}"): f"augmentation.{word}.regression=true"
        for loss in ("mse", "mae", "huber")
        for word in ("mixup", "cutmix")
    },
    **{
        (f"dataset={word}", f"loss={loss}"): text
        for loss in ("mse", "mae", "huber")
        for word, text in {
            "csv": "dataset.target=u",
            "npz": "dataset.task=regression",
            "teacher": "dataset.task=regression",
        }.items()
    },
    ("optimizer=adamw", "regularization=weight_decay"): "optimizer.weight_decay=0",
    **{
        ("dataset=none", f"regularization={word}"): f"regularization.{word}.all_parameters=true"
        for word in ("l1", "l2", "elastic_net", "weight_decay")
    },
}
for _word in ("steepest", "newton_cg", "lbfgs"):
    TOLD[f"optimizer={_word}", "regularization=l1"] = "regularization.l1.mode=subgradient"


def conflict(one: Choice, other: Choice) -> bool:
    """Whether two (group, word) exclude each other with their default keys, and those of `TOLD` where they are told some."""
    # a knob that a test adds to the groups
    if not {one[0], other[0]} <= CATALOGUE.words.keys():
        return False
    told = dict(
        text.split("=") for text in TOLD.get((f"{one[0]}={one[1]}", f"{other[0]}={other[1]}"), "").split()
    )
    sides = [
        tuple(parts_alone(CATALOGUE.words[group][word], keys_of(group, word, told)))
        for group, word in (one, other)
    ]
    return any(first_conflict(pair) for pair in product(*sides))


def keys_of(group: str, word: str, told: Mapping[str, str]) -> dict[str, object]:
    """Return the keys of a word, and among them those that it is told."""
    known = CATALOGUE.words[group][word]
    given = {
        path[len(known.prefix) + 1 :]: text
        for path, text in told.items()
        if path.startswith(known.prefix + ".")
    }
    return dict(known.keys) | {key: yaml.safe_load(text) for key, text in given.items()}


class Words:
    """The words of each group, and which of other groups each may stand beside."""

    def __init__(self, words: Mapping[str, Sequence[str]]) -> None:
        self.words = {group: list(names) for group, names in words.items()}
        self.choices = [(group, word) for group, names in self.words.items() for word in names]
        self.bad = {choice: set[tuple[str, str]]() for choice in self.choices}
        for one, other in combinations(self.choices, 2):
            if one[0] != other[0] and conflict(one, other):
                self.bad[one].add(other)
                self.bad[other].add(one)

    def pairs(self) -> set[Pair]:
        """Every pair of words of two groups that does not exclude itself."""
        return {
            (one, other)
            for one, other in combinations(self.choices, 2)
            if one[0] != other[0] and other not in self.bad[one]
        }

    def allowed(self, row: Row, group: str) -> list[str]:
        taken = set(row.items())
        return [word for word in self.words[group] if not self.bad[group, word] & taken]

    def completions(self, row: Row, uncovered: set[Pair], rng: random.Random) -> Iterator[Row]:
        """Rows with these words in them, those first that cover many uncovered pairs; depth first."""
        open_groups = [group for group in self.words if group not in row]
        if not open_groups:
            yield row
            return
        options = {group: self.allowed(row, group) for group in open_groups}
        group = min(open_groups, key=lambda g: (len(options[g]) > 1, rng.random()))
        gains = {w: sum(key(g, u, group, w) in uncovered for g, u in row.items()) for w in options[group]}
        for word in sorted(options[group], key=lambda w: (-gains[w], rng.random())):
            yield from self.completions({**row, group: word}, uncovered, rng)


def key(group: str, word: str, other_group: str, other_word: str) -> Pair:
    return ((group, word), (other_group, other_word))


def covering_rows(words: Mapping[str, Sequence[str]], seed: int = 0) -> tuple[list[Row], set[Pair]]:
    """Greedy rows that cover every pair, and the pairs that no row can hold because a third group excludes one of them."""
    table, rng = Words(words), random.Random(seed)
    uncovered = table.pairs()
    uncovered |= {(b, a) for a, b in uncovered}
    rows: list[Row] = []
    impossible: set[Pair] = set()
    for one, other in sorted(table.pairs()):
        if (one, other) not in uncovered:
            continue
        row = next(table.completions(dict([one, other]), uncovered, rng), None)
        if row is None:
            impossible.add((one, other))
            continue
        rows.append(row)
        chosen = list(row.items())
        uncovered -= {(a, b) for a in chosen for b in chosen}
    return rows, impossible
