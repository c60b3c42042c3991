"""A pairwise covering array: rows of one word for each group, in which every possible pair of words occurs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from dltrain.config.catalogue import Catalogue
from dltrain.config.conflicts import PAIRS, clash, scales_nothing
from dltrain.config.search_path import catalogue_dir

TARGETS = Catalogue(catalogue_dir()).words
Row = dict[str, str]
Pair = tuple[tuple[str, str], tuple[str, str]]


def conflict(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether two (group, word) are in the table of what cannot go together."""
    words = {one[0]: [one[1]], other[0]: [other[1]]}
    return any(pair.found(words) for pair in PAIRS) or _clashing(dict([one, other]))


def _clashing(words: dict[str, str]) -> bool:
    """Whether a regularizer, whatever its keys are, is refused beside an optimizer or a penalty schedule."""
    word = words.get("regularization", "none")
    if word == "none" or len(words) < 2:
        return False
    target = TARGETS["regularization"][word].target
    if words.get("penalty_schedule", "none") != "none":
        return scales_nothing({word: {"_target_": target}})
    return (
        "optimizer" in words
        and clash(TARGETS["optimizer"][words["optimizer"]].target, target, {}) is not None
    )


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
