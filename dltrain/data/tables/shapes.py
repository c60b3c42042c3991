"""Texts that look like numbers, amounts or times of a day, though none of them is read as such."""

from __future__ import annotations

import re
from typing import Any

from dltrain.data.tables.text import MISSING, MISSING_AMONG_NUMBERS, Flags, matches

_COUNT = r"\d[\d.,'’]{0,11}"


def are_amounts(texts: Any) -> Flags:
    """Tell which texts are a number, a limit such as <0.5, or a range, behind which a few letters may stand; no address or name."""
    return matches(texts, r"^[<>≤≥~≈±]?=?\s?[+-]?\d[^A-Za-z]*([A-Za-zµ][^A-Za-z]*){0,4}$")


def are_numbers_joined(texts: Any) -> Flags:
    """Tell which texts are two numbers, such as 0-10 or 1/3, a limit such as <0.5, or a number with its sign behind it."""
    return matches(
        texts,
        rf"^{_COUNT}\s?[-/–:x×]\s?{_COUNT}$|^[<>≤≥~≈±]=?\s?{_COUNT}$|^{_COUNT}-$|^\d{{1,2}}:\d{{2}} ?[A-Za-z.]{{1,4}}$",
    )


def have_bare_exponents(column: Any) -> bool:
    """Tell whether all values of a column of text, and at least two, are numbers such as 4E2, without a sign or a fraction."""
    # most columns are ruled out by a few values
    return _are_bare_exponents(column.slice(0, 20), 0) and _are_bare_exponents(column, 2)


def _are_bare_exponents(column: Any, least: int) -> bool:
    values = [value.strip() for value in column.unique().to_pylist() if not is_missing(value)]
    return len(values) >= least and all(re.fullmatch(r"\d+[eE]\d+", value) for value in values)


def is_missing(value: str | None) -> bool:
    """Tell whether a value among numbers is a word for a missing one."""
    return value is None or value.strip().lower() in MISSING | MISSING_AMONG_NUMBERS


def has_clock(texts: Any) -> Flags:
    """Tell which texts are times of a day, such as 09:30."""
    return matches(texts, r"^\d{1,2}:\d{2}(:\d{2})?( ?(?i:[ap]m))?$")


def are_numbers_elsewhere(texts: Any) -> Flags:
    """Tell which texts are numbers as Python writes them, such as 16_617, or in the digits of another script, such as full-width ones."""
    return matches(
        texts, r"^[+-]?\d{1,3}(_\d{3})+(\.\d*)?$|^[+-]?[\p{Nd}.,．，٫٬]*[^\P{Nd}\d][\p{Nd}.,．，٫٬]*$"
    )


def begins_with_number(texts: Any) -> Flags:
    """Tell which texts begin with a digit, behind a sign or not."""
    return matches(texts, r"^[+-]?\d")
