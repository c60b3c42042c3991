"""What the user says about reading values, and what the file shows of its decimal mark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dltrain.data.errors import DataError
from dltrain.data.tables import text
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


def decimal_mark(table: Table, columns: Mapping[str, Coded], reading: Reading) -> str:
    """Return the decimal mark: of the user, or what the numbers with commas show; DataError where they are ambiguous."""
    if reading.decimal != "auto":
        return "," if reading.decimal == "comma" else "."
    decimal = grouping = either = None
    for name, coded in columns.items():
        present = ~reading.missing(coded.texts, among_numbers=True)
        likely = text.looks_like_comma_numbers(coded.texts)
        plain = text.numbers(coded.texts, ".")[1] & ~likely
        if (
            coded.counts[(likely | plain) & present].sum() < 0.9 * coded.counts[present].sum()
            or not likely.any()
        ):
            continue
        evidence = text.comma_evidence(coded.texts)
        decimal = decimal or (name, evidence.decimal) if evidence.decimal else decimal
        grouping = grouping or (name, evidence.grouping) if evidence.grouping else grouping
        either = either or (name, evidence.either) if evidence.either else either
    if decimal and grouping:
        raise DataError(
            f"{table.path} has {decimal[1]!r} in column {decimal[0]!r} and {grouping[1]!r} in column {grouping[0]!r}: "
            "a comma is a decimal mark and groups digits; write the numbers alike"
        )
    if either and not decimal and not grouping and table.separator != ",":
        raise DataError(
            f"column {either[0]!r} of {table.path} has {either[1]!r}, which may mean {either[1].replace(',', '.')} "
            f"or {either[1].replace(',', '')}; set dataset.decimal=comma or dataset.decimal=point"
        )
    return "," if decimal else "."
