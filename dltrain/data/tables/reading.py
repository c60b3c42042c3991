"""What the user says about reading values, what the training showed, and what the columns show of their decimal marks."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dltrain.data.errors import DataError, some
from dltrain.data.tables import text
from dltrain.data.tables.amounts import bare
from dltrain.data.tables.cures import typed
from dltrain.data.tables.marks import MarkEvidence, mark_evidence, point_evidence
from dltrain.data.tables.read import Table
from dltrain.data.tables.rules import numbers_among
from dltrain.data.tables.text import Coded, Flags, Floats

_FIRST_ROWS = 1000
_WORDS = {",": "comma", ".": "point"}


@dataclass(frozen=True)
class Reading:
    """What the user says about reading values; see the keys of `dataset=csv`."""

    missing_words: tuple[str, ...] = ()
    decimal: str = "auto"  # auto, point or comma
    date_format: str = "auto"
    # whether the user can say it: labels of images have no such keys
    has_keys: bool = True
    # the decimal marks of columns in the training, for another file; see `columns.known_marks`
    marks: Mapping[str, str] = field(default_factory=dict)
    # words that stand for a missing value by default, and are values in columns of text and in the target
    not_missing: tuple[str, ...] = ()
    # of `missing_words` and `not_missing`, those that some column had
    met: set[str] = field(default_factory=set, compare=False)

    def check(self) -> None:
        """Raise DataError for a word of `not_missing` that is a value anyway, and for an empty one, which is none."""
        known = text.MISSING | {word.strip().lower() for word in self.missing_words}
        for word in self.not_missing:
            if not word.strip() or word.strip().lower() not in known:
                what = (
                    "an empty text, which always is missing"
                    if not word.strip()
                    else f"{word!r}, which is a value anyway"
                )
                raise DataError(f"dataset.not_missing names {what}; leave it out")

    def missing(self, texts: Any, among_numbers: bool) -> Flags:
        """Tell which texts stand for a missing value."""
        self._meet(texts, self.missing_words)
        words = text.MISSING | {word.strip().lower() for word in self.missing_words}
        if among_numbers:
            return text.is_word(texts, words | text.MISSING_AMONG_NUMBERS)
        self._meet(texts, self.not_missing)
        return text.is_word(texts, words - {word.strip().lower() for word in self.not_missing})

    def _meet(self, texts: Any, words: Sequence[str]) -> None:
        """Note which words are among the texts, in one pass: a data.json of somebody else may name 100,000."""
        unmet = {word: word.strip().lower() for word in words if word not in self.met}
        if unmet:
            there = text.words_among(texts, {*unmet.values()})
            self.met.update(word for word, lowered in unmet.items() if lowered in there)

    def without_missing(self, values: Floats) -> Floats:
        """Return numbers with NaN for those that stand for a missing value, such as -999."""
        known = {word: number for word in self.missing_words for number in numbers_among([word])}
        if not known or not (gone := np.isin(values, [*known.values()])).any():
            return values
        there = {*values[gone].tolist()}
        self.met.update(word for word, number in known.items() if number in there)
        return np.where(gone, np.nan, values)

    @property
    def notes(self) -> list[str]:
        """Name the words of the user that no column had."""
        keys = {"missing_words": self.missing_words, "not_missing": self.not_missing}
        unmet = {key: [word for word in words if word not in self.met] for key, words in keys.items()}
        return [
            f"words    no column has {some(map(repr, words))}, {'missing' if key == 'missing_words' else 'a value'} by dataset.{key}"
            for key, words in unmet.items()
            if words
        ]


class DecimalMarks:
    """The decimal mark of each column of a file: of the user, or what its numbers show.

    A column whose numbers are ambiguous takes the mark that it had in the training, else that of another column. DataError for a
    column whose numbers show both, where `1,234` (or `1.234` in a file with semicolons) stays ambiguous, and where other columns
    have another mark than in the training.

    Args:
        table: the file
        coded: columns of text, as their different texts
        plain: columns of text that convert to numbers as they are
        reading: what the user says
        targets: columns that cannot be left out
    """

    def __init__(
        self,
        table: Table,
        coded: Mapping[str, Coded],
        plain: Iterable[str],
        reading: Reading,
        targets: Container[str] = (),
    ) -> None:
        self._targets = targets
        self.given = {"comma": ",", "point": "."}.get(reading.decimal, "")
        self.shown: dict[str, str] = {}
        self.comma = self.given == ","
        # columns whose numbers may mean two things, with one of them
        self.unclear: dict[str, str] = {}
        self._table, self._known = table, {} if self.given else reading.marks
        self._changed: list[str] = []
        self._has_keys = reading.has_keys
        if self.given:
            return
        for name, column in coded.items():
            # of a column that had numbers in the training, few may be left in a small file
            if name in self._known or _holds_marks(column, reading):
                self._look(name, bare(column.texts))
        if table.separator == ";" or "," in self._known.values():
            for name in plain:
                self._look_at_plain(name)
        self.comma = "," in (*self.shown.values(), *self._known.values())
        # columns that show another mark than in the training
        self._changed = [name for name, mark in self.shown.items() if self._known.get(name, mark) != mark]
        self._settle()

    def of(self, name: str, texts: Callable[[], Any]) -> str:
        """Return the mark of a column; `texts` are its different texts, looked at where another column has decimal commas."""
        if self.given or name in self.shown:
            return self.given or self.shown[name]
        if not self.comma:
            return "."
        return self.shown.setdefault(name, "." if point_evidence(bare(texts())) else ",")

    def of_other(self, texts: Any) -> str:
        """Return the mark of a column that is not among these; empty where its numbers show both, or nothing tells."""
        if self.given:
            return self.given
        evidence = mark_evidence(bare(texts))
        if evidence.comma or evidence.point:
            return "" if evidence.comma and evidence.point else "," if evidence.comma else "."
        if evidence.either is None or self.comma:
            return "," if self.comma else "."
        return "" if self._is_open(evidence.either) and not self.shown else "."

    @property
    def notes(self) -> tuple[str, ...]:
        """Name the columns that show another decimal mark than they had in the training."""
        return tuple(
            f"decimal  {self._table.path.name}: decimal {_WORDS[mark]} in {some(names, 4)}, and a {_WORDS[other]} in the training"
            for mark, other in ((",", "."), (".", ","))
            if (names := [name for name in self._changed if self.shown[name] == mark])
        )

    def _look(self, name: str, texts: Any) -> None:
        evidence = mark_evidence(texts)
        if evidence.comma and evidence.point:
            self._look_at_both(name, evidence)
        elif evidence.comma or evidence.point:
            self.shown[name] = "," if evidence.comma else "."
            if evidence.either and self._known.get(name, self.shown[name]) != self.shown[name]:
                raise self._two_readings(name, evidence)
        elif evidence.either:
            self.unclear[name] = evidence.either

    def _look_at_both(self, name: str, evidence: MarkEvidence) -> None:
        """Take the mark of the training for a column that shows both marks; DataError where that leaves a number unclear."""
        known = self._known.get(name, "")
        if known and not evidence.either:
            # numbers with the other mark do not fit the column, as other texts
            self.shown[name] = known
            return
        if known:
            cure = f", or leave the rows with the other mark out: dataset.decimal={_WORDS[known]}"
        else:
            cure = "" if name in self._targets else f", or leave the column out: {typed('drop', [name])}"
        raise DataError(
            f"column {name!r} of {self._table.path} has {evidence.comma!r} and {evidence.point!r}: one of them has a decimal "
            f"comma, the other a decimal point;\nwrite the numbers alike{cure}"
        )

    def _two_readings(self, name: str, evidence: MarkEvidence) -> DataError:
        """Return the refusal of a column with another mark than in the training, and a number such as 1,234 that fits both."""
        mark = self.shown[name]
        return DataError(
            f"column {name!r} of {self._table.path} has {evidence.comma or evidence.point!r}, with a decimal {_WORDS[mark]}, and "
            f"{evidence.either!r}, which is another number by the decimal {_WORDS[self._known[name]]} of the training;\nsay which it is: "
            f"dataset.decimal={_WORDS[self._known[name]]}, or dataset.decimal={_WORDS[mark]}"
        )

    def _look_at_plain(self, name: str) -> None:
        column = self._table.columns[name]
        # in most columns, the first rows show it; beside a decimal comma of the training, each number is looked at
        if self._known.get(name, ".") == "." and point_evidence(column.slice(0, _FIRST_ROWS)):
            self.shown[name] = "."
        else:
            self._look(name, column)

    def _settle(self) -> None:
        """Give each unclear column the mark of the training; refuse it where the file has another, or where nothing tells."""
        silent = not self.shown and not self.comma
        for name, value in self.unclear.items():
            known = self._known.get(name, "")
            if known and not self._changed and not self._contradicts(known, value):
                self.shown[name] = known
            elif known or (silent and self._is_open(value)):
                raise self._ambiguous(name, value)

    def _contradicts(self, known: str, value: str) -> bool:
        """Whether the separator belongs to another decimal mark than the training had."""
        separator = self._table.separator
        return (known, separator) == (",", ",") or ((known, separator) == (".", ";") and "," in value)

    def _is_open(self, value: str) -> bool:
        """Whether the separator does not tell the decimal mark either."""
        return self._table.separator != "," if "," in value else self._table.separator == ";"

    def _ambiguous(self, name: str, value: str) -> DataError:
        """Return the refusal of a number that may mean two things, with a way out for each."""
        fraction, whole = value.replace(",", "."), value.replace(",", "").replace(".", "")
        mark, other = ("comma", "point") if "," in value else ("point", "comma")
        cures = [f"dataset.decimal={word}" for word in (mark, other)]
        problem = f"column {name!r} of {self._table.path} has {value!r}, which may mean {fraction} or {whole}"
        if {mark, other} == {_WORDS[shown] for shown in self.shown.values()}:
            return DataError(
                f"{problem};\nwrite its numbers without marks between thousands, and all with one decimal mark"
            )
        if changed := self._changed:
            now, before = _WORDS[self.shown[changed[0]]], _WORDS[self._known[changed[0]]]
            meant, not_meant = (fraction, whole) if now == mark else (whole, fraction)
            return DataError(
                f"{problem}: column {changed[0]!r} has a decimal {now}, and had a {before} in the training;\nfor {meant} set "
                f"dataset.decimal={now}, for {not_meant} write the numbers of {name!r} as in {changed[0]!r}"
            )
        if not self._has_keys:
            return DataError(
                f"{problem}; write {whole} without a mark, or for {fraction} separate the values of the file by tabs"
            )
        return DataError(f"{problem}; set {cures[0]} or {cures[1]}")


def _holds_marks(column: Coded, reading: Reading) -> bool:
    """Whether nearly all values are numbers, whatever their marks mean."""
    present = ~reading.missing(column.texts, among_numbers=True)
    numbers = text.looks_like_numbers(bare(column.texts))
    return bool(column.counts[numbers & present].sum() >= 0.9 * column.counts[present].sum())
