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
    form = rule.format
    texts = (
        rule.name,
        form.decimal,
        form.date,
        form.unit,
        *form.missing_words,
        *form.not_missing,
        *rule.levels,
        *rule.parts,
    )
    fill = str if form.kind == "date" else (int, float)
    parts = DATE_PARTS if form.kind == "date" else ("",)
    sound = (
        form.kind in get_args(Kind)
        and type(form.last_year) is int
        and 0 <= form.last_year <= 9999
        and all(isinstance(text, str) for text in texts)
        and (rule.fill is None or isinstance(rule.fill, fill))
        and isinstance(rule.indicator, bool)
        and (form.zoned is None or isinstance(form.zoned, bool))
        and all(
            isinstance(value, int | float)
            for value in (*rule.centers, *rule.lows, *rule.highs, *rule.quartiles)
        )
        and len(rule.lows) == len(rule.highs)
        and len(rule.lows) <= len(rule.parts)
        and (form.kind == "category" or len(rule.parts) == len(rule.centers))
        and (form.kind == "category" or set(rule.parts) <= set(parts))
    )
    if not sound:
        raise ValueError(f"the rule of column {rule.name!r} is none")
    if form.kind == "date" and rule.fill is not None:
        np.datetime64(str(rule.fill), "us")


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
