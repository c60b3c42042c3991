"""What the user says about reading values, and what the columns show of their decimal marks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dltrain.data.errors import DataError
from dltrain.data.tables import text
from dltrain.data.tables.cures import typed
from dltrain.data.tables.read import Table
from dltrain.data.tables.text import Coded, Flags


@dataclass(frozen=True)
class Reading:
    """What the user says about reading values; see the keys of `dataset=csv`."""

    missing_words: tuple[str, ...] = ()
    decimal: str = "auto"  # auto, point or comma
    date_format: str = "auto"

    def missing(self, texts: Any, among_numbers: bool) -> Flags:
        """Tell which texts stand for a missing value."""
        words = text.MISSING | {word.strip().lower() for word in self.missing_words}
        return text.is_word(texts, words | text.MISSING_AMONG_NUMBERS if among_numbers else words)


class DecimalMarks:
    """The decimal mark of each column of a file: of the user, or what its numbers show.

    A column whose numbers are ambiguous takes the mark of another column. DataError for a column whose numbers show both, and
    where `1,234` stays ambiguous.
    """

    def __init__(self, table: Table, columns: Mapping[str, Coded], reading: Reading) -> None:
        self.given = {"comma": ",", "point": "."}.get(reading.decimal, "")
        self.shown: dict[str, str] = {}
        self.comma = self.given == ","
        if self.given:
            return
        either = None
        for name, coded in columns.items():
            if not _holds_comma_numbers(coded, reading):
                continue
            texts = text.without_percent(coded.texts)
            evidence = text.comma_evidence(texts)
            decimal, grouping = evidence.decimal, evidence.grouping or text.point_evidence(texts)
            if decimal and grouping:
                raise DataError(
                    f"column {name!r} of {table.path} has {decimal!r} and {grouping!r}: one of them has a decimal comma, the other a "
                    f"decimal point;\nwrite the numbers alike, or leave the column out: {typed('drop', [name])}"
                )
            if decimal or grouping:
                self.shown[name] = "," if decimal else "."
            elif evidence.either and either is None:
                either = (name, evidence.either)
        self.comma = "," in self.shown.values()
        if either and not self.shown and table.separator != ",":
            raise DataError(
                f"column {either[0]!r} of {table.path} has {either[1]!r}, which may mean {either[1].replace(',', '.')} "
                f"or {either[1].replace(',', '')}; set dataset.decimal=comma or dataset.decimal=point"
            )

    def of(self, name: str, texts: Callable[[], Any]) -> str:
        """Return the mark of a column; `texts` are its different texts, looked at where another column has decimal commas."""
        if self.given or name in self.shown:
            return self.given or self.shown[name]
        if not self.comma:
            return "."
        return self.shown.setdefault(name, "." if text.point_evidence(text.without_percent(texts())) else ",")


def _holds_comma_numbers(coded: Coded, reading: Reading) -> bool:
    """Whether nearly all values are numbers, and some have a comma."""
    present = ~reading.missing(coded.texts, among_numbers=True)
    texts = text.without_percent(coded.texts)
    likely = text.looks_like_comma_numbers(texts)
    plain = text.numbers(texts, ".")[1] & ~likely
    many = coded.counts[(likely | plain) & present].sum() >= 0.9 * coded.counts[present].sum()
    return bool(many and likely.any())
