"""Cures in messages, in the form in which a shell takes them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from dltrain.data.errors import DataError
from dltrain.data.tables import text
from dltrain.data.tables.amounts import bare, quantities
from dltrain.data.tables.durations import UNIT, are_durations
from dltrain.data.tables.rules import Format
from dltrain.errors import assigned, in_quotes

_MOST_WORDS = 12  # stray texts that one cure names
_NEARLY_ALL = 0.95
# of Hydra's grammar: without quotes these are no texts
_NOT_TEXT = ("true", "false", "null", "nan", "inf")
_INFINITE = r"^[+-]?(?i:inf|infinity)$"


def typed(key: str, names: Iterable[str]) -> str:
    """Return `dataset.key=[a,b]` as it must be typed in a shell."""
    names = list(names)
    if all(
        re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name) and name.lower() not in _NOT_TEXT for name in names
    ):
        return f"dataset.{key}=[{','.join(names)}]"
    quoted = ",".join(map(in_quotes, names))
    return shlex.quote(f"dataset.{key}=[{quoted}]")


def value(key: str, name: str) -> str:
    """Return `dataset.key=name` as it must be typed in a shell."""
    return shlex.quote(assigned(f"dataset.{key}", name))


def short(value: str) -> str:
    """Return the start of a value, quoted."""
    return repr(value if len(value) <= 40 else f"{value[:40]}…")


def call_missing(words: Sequence[str], given: Iterable[str] = ()) -> str:
    """Return the cure for odd values, beside the words already `given`.

    Empty for none, for values that nobody would type, and for numbers and truths: these would be missing in other columns, too. No column
    has an infinite number.
    """
    if words and _are_values(pa.array(words, pa.string())).any():
        return ""
    typeable = all(len(word) <= 40 and word.isprintable() for word in words) and 0 < len(words) <= _MOST_WORDS
    what = "it" if len(words) == 1 else "these"
    return f"call {what} missing: {typed('missing_words', [*given, *words])}" if typeable else ""


def _are_values(texts: Any) -> text.Flags:
    """Tell which texts are finite numbers, or true and false."""
    numbers = are_numbers(texts) & ~text.matches(texts, _INFINITE)
    return numbers | text.is_word(texts, ("true", "false"))


def are_numbers(texts: Any) -> text.Flags:
    """Tell which texts are numbers, whatever their decimal mark, sign, currency or percent sign."""
    return text.looks_like_numbers(bare(texts, measured=False))


def date_cure(texts: Any, read: int) -> str:
    """Return the cure for dates of another form than those of the training; empty where no single form reads nearly all `texts`.

    read: how many the form of the training reads; where these are none, a form that reads half of them is better
    """
    least = max(read + 1, (_NEARLY_ALL if read else 0.5) * len(texts))
    forms = [form for form in text.date_formats(texts) if text.dates(texts, form)[1].sum() >= least]
    cures = " or ".join(shlex.quote(assigned("dataset.date_format", form)) for form in forms[:2])
    return f"dates are written otherwise here: set {cures}" if forms else ""


def unfit_cure(wanted: Format, bad: str, given: Iterable[str]) -> str:
    """Return the cure for a text that does not fit the numbers, truths or dates of its column; a number or a date is not missing."""
    one = pa.array([bad])
    is_number = bool(are_numbers(one)[0])
    if wanted.unit == "%" and is_number:
        return "write the numbers of this column as percents, such as 27%"
    if wanted.unit == UNIT and re.search(r"\d", bad):
        return "write the durations of this column as 17:25:00, 1 days 17:25:00, PT17H25M or 62700 s"
    if wanted.unit not in ("", "%") and re.search(r"\d", bad):
        return f"write the amounts of this column in {wanted.unit}"
    if wanted.kind == "number" and not wanted.unit and are_durations(one)[0]:
        return "write the durations of this column as plain numbers, as in the training"
    if wanted.kind == "number" and not wanted.unit and (unit := str(quantities(one).units[0])):
        return f"write the numbers of this column without {unit}, as in the training"
    if wanted.kind == "number" and text.is_percent(one)[0]:
        return "write the numbers of this column without a percent sign, as in the training"
    if wanted.kind == "date" and (text.date_formats(one) or is_number):
        return dates_cure(wanted, bad)
    if is_number:
        return {
            "number": "write it as a plain number, such as 1234.5",
            "boolean": "write true and false, yes and no, or 1 and 0",
        }.get(wanted.kind, "repair it")
    missing = call_missing([bad], given)
    return f"{missing}, or repair it" if missing else "repair it"


def dates_cure(wanted: Format, bad: str) -> str:
    """Return the cure for a value that is no date of the form that the training had; `bad` may count the time since 1970."""
    cure = f"write the dates of this column as {'2024-01-31' if wanted.date == 'iso' else wanted.date}"
    # of the years 1990 to 2100
    for unit, per_second in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
        if bad.isdigit() and 631e6 * per_second <= int(bad) <= 41e8 * per_second:
            return f'{cure}: this may be the time since 1970 in {unit}, of which pandas.to_datetime(column, unit="{unit}") makes dates'
    return cure


class StrayValues(DataError):
    """Texts in a column of numbers or dates; the message holds the cure for all of them, and keeps the words already given.

    what: numbers or dates. kept: the texts must not be called missing, which would change other columns.
    """

    def __init__(
        self,
        problem: str,
        words: Sequence[str],
        cure: str,
        given: Sequence[str],
        what: str = "numbers",
        kept: bool = False,
    ) -> None:
        self.problem, self.words, self.cure, self.given = problem, list(dict.fromkeys(words)), cure, given
        self.what, self.kept = what, kept
        ways = [way for way in ("" if kept else call_missing(self.words, given), cure) if way]
        super().__init__(f"{problem}\nor {', or '.join(ways)}" if ways else problem)

    def with_words(self, words: Sequence[str]) -> StrayValues:
        """Return the error with a cure that covers the stray texts of other columns, too."""
        return StrayValues(self.problem, [*self.words, *words], self.cure, self.given, self.what, self.kept)

    def are_few(self, most: int) -> bool:
        """Whether the texts are at most so many different words without a digit, or errors of a spreadsheet, which may stand for a missing value."""
        words = [word for word in self.words if not re.fullmatch(r"#[A-Z]+/?[A-Z0]*[!?]", word)]
        return 0 < len(self.words) <= most and not any(re.search(r"\d", word) for word in words)
