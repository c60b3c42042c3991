"""How columns are read and encoded, as plain data: what `data.json` keeps of a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

Kind = Literal["number", "boolean", "date", "category"]
MISSING_LEVEL = "(missing)"
DATE_PARTS = ("year", "month", "weekday", "hour")
_WHOLE = 2**53  # to which every whole number is a float


@dataclass(frozen=True)
class Format:
    """How the values of a column are read.

    decimal: mark of its numbers, "." or "," ("" in a category of text); another file may have another one. date: `iso` or
    a format of strptime. missing_words: of the user, beside the known ones. unit: "%", or the sign or code of
    a currency, of numbers that are written with it. last_year: of a date with two digits for the year, the last of the hundred
    years that they stand for; 0 in files of versions that took them for 1969 to 2068.
    """

    kind: Kind
    decimal: str = ""
    date: str = ""
    missing_words: tuple[str, ...] = ()
    unit: str = ""
    last_year: int = 0
    # of the user: words that stand for a missing value by default, and are values of a text
    not_missing: tuple[str, ...] = ()
    # whether dates have time zones, in some row; None in files of versions that did not write it
    zoned: bool | None = None

    @property
    def missing_numbers(self) -> tuple[float, ...]:
        """Numbers that stand for a missing value, such as -999, in a column of numbers without a unit."""
        return () if self.unit else numbers_among(self.missing_words)


def numbers_among(words: Iterable[str]) -> tuple[float, ...]:
    """Return the words that are numbers, infinite ones included, as such: `-999` is `-999.0`, too."""
    found = []
    for word in words:
        with suppress(ValueError):
            found.append(float(word))
    return tuple(number for number in found if not math.isnan(number))


@dataclass(frozen=True)
class Rule:
    """How one column becomes features; everything in it was computed from the training rows.

    levels: of a category, one feature each; a level that is not among them has 0 in all. fill: what replaces a missing
    number, truth or time (a time as ISO text). indicator: a last feature that is 1 where the value was missing. parts: of a
    date, such as year and month. centers: what is subtracted from each part in float64. lows, highs: of a number, or of the year of a date,
    in the training rows; quartiles: the first and the last of a number there; empty in files of versions that did not write them.
    """

    name: str
    format: Format
    levels: tuple[str, ...] = ()
    fill: float | str | None = None
    indicator: bool = False
    parts: tuple[str, ...] = ("",)
    centers: tuple[float, ...] = (0.0,)
    lows: tuple[float, ...] = ()
    highs: tuple[float, ...] = ()
    quartiles: tuple[float, ...] = ()

    @property
    def has_fraction(self) -> bool:
        """Whether the training had numbers with a fraction, as far as the rule tells."""
        if self.format.kind != "number":
            return False
        # the median of whole numbers may lie between two of them
        halves = 2 * self.fill if isinstance(self.fill, int | float) else 0
        return any(value % 1 != 0 for value in (*self.lows, *self.highs, halves))

    @property
    def features(self) -> list[str]:
        """Names of the features: `age`, `color=red`, `sold month`, and `age=(missing)` of the indicator."""
        if self.format.kind == "category":
            names = [f"{self.name}={level}" for level in self.levels]
        else:
            names = [f"{self.name} {part}".rstrip() for part in self.parts]
        return names + [f"{self.name}={MISSING_LEVEL}"] * self.indicator


def rule_from_json(content: Mapping[str, Any]) -> Rule:
    """Return the rule whose `dataclasses.asdict` went through JSON."""
    plain: dict[str, Any] = {key: _tuples(value) for key, value in content.items()}
    form: dict[str, Any] = {key: _tuples(value) for key, value in plain.pop("format").items()}
    rule = Rule(**plain, format=Format(**form))
    _check_types(rule)
    return rule


def _check_types(rule: Rule) -> None:
    """Raise ValueError for a rule that no run wrote: the file may come from elsewhere."""
    if not (_has_types(rule) and _has_format(rule.format) and _has_parts(rule)):
        raise ValueError(f"the rule of column {rule.name!r} is none")
    if rule.format.kind == "date" and rule.fill is not None and np.isnat(np.datetime64(str(rule.fill), "us")):
        raise ValueError(f"the fill of column {rule.name!r} is no time")


def _has_types(rule: Rule) -> bool:
    texts, numbers = (rule.levels, rule.parts), (rule.centers, rule.lows, rule.highs, rule.quartiles)
    is_fill = is_number(rule.fill) if rule.format.kind != "date" else isinstance(rule.fill, str)
    return (
        isinstance(rule.name, str)
        and all(isinstance(found, tuple) for found in (*texts, *numbers))
        and all(isinstance(text, str) for found in texts for text in found)
        and all(is_number(number) for found in numbers for number in found)
        and (rule.fill is None or is_fill)
        and isinstance(rule.indicator, bool)
    )


def _has_format(form: Format) -> bool:
    words = (form.missing_words, form.not_missing)
    return (
        form.kind in get_args(Kind)
        and form.decimal in ("", ".", ",")
        and isinstance(form.date, str)
        and isinstance(form.unit, str)
        and all(isinstance(found, tuple) for found in words)
        and all(isinstance(word, str) for found in words for word in found)
        and type(form.last_year) is int
        and 0 <= form.last_year <= 9999
        and (form.zoned is None or isinstance(form.zoned, bool))
    )


def _has_parts(rule: Rule) -> bool:
    """Return whether the parts are those of the kind, each with a center."""
    if rule.format.kind == "category":
        return not rule.lows and not rule.highs
    known = DATE_PARTS if rule.format.kind == "date" else ("",)
    return (
        len(rule.parts) == len(rule.centers) > 0
        and set(rule.parts) <= set(known)
        and len(rule.lows) == len(rule.highs) <= len(rule.parts)
        and len(rule.quartiles) in (0, 2)
    )


def is_number(value: object) -> bool:
    """Return whether a value of a JSON file is a finite number that a float holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _WHOLE if isinstance(value, int) else math.isfinite(value)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
