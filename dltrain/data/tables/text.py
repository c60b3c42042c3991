"""Text as numbers, dates and missing values: each works on the different texts of a column, not on its rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

# Missing wherever they stand; the second set among numbers and dates only: in a column of text they may be a level.
MISSING = frozenset(("", "na", "n/a", "nan", "null", "?", "#n/a", "#n/a n/a", "<na>", "n.a.", "#na", "nil"))
MISSING_AMONG_NUMBERS = frozenset(("-", "--", "---", "–", "—", ".", "..", "none", "missing", "unknown", "*"))

Floats = NDArray[np.float64]
Times = NDArray[np.datetime64]
Flags = NDArray[np.bool_]

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:inf|infinity)$"
# 1,234,567.8; 0,485 groups nothing, and 0,000.5 does
GROUPED_COMMA = r"^[+-]?([1-9]\d{0,2}(,\d{3})+(\.\d*)?|\d{1,3}(,\d{3})+\.\d*)$"
GROUPED_POINT = r"^[+-]?([1-9]\d{0,2}(\.\d{3})+(,\d*)?|\d{1,3}(\.\d{3})+,\d*)$"  # 1.234.567,8
GROUPED_SPACE = r"^[+-]?\d{1,3}([ '’\x{a0}\x{202f}]\d{3})+([.,]\d+)?$"  # 1 234 567.8
SPACES = r"[ '’\x{a0}\x{202f}]"
DECIMAL_COMMA = r"^[+-]?\d*,\d+([eE][+-]?\d+)?$"  # 1,5


@dataclass(frozen=True)
class Coded:
    """A column of text as its different texts, trimmed, and for each row the number of its text.

    texts: pyarrow strings; codes: (N,) int32, -1 where the file has a null; counts: rows of each text.
    """

    texts: Any
    codes: NDArray[np.int32]
    counts: NDArray[np.int64]

    @property
    def words(self) -> list[str]:
        words: list[str] = self.texts.to_pylist()
        return words

    def first_row(self, chosen: Flags) -> int:
        """Return the first row whose text is among the `chosen` ones."""
        return int(np.flatnonzero(np.append(chosen, False)[self.codes])[0])


def code(column: Any) -> Coded:
    """Number the different texts of a column (a pyarrow.ChunkedArray of strings), without blanks around them."""
    parts = column.dictionary_encode().unify_dictionaries().combine_chunks()
    if isinstance(parts, pa.ChunkedArray):
        parts = parts.chunk(0) if parts.num_chunks else pa.array([], pa.string()).dictionary_encode()
    raw = parts.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    texts = with_minus(pc.utf8_trim_whitespace(parts.dictionary.cast(pa.string())))
    again = _in_one_form(texts).dictionary_encode()
    to = np.append(again.indices.to_numpy(zero_copy_only=False), -1).astype(np.int32)
    codes = to[raw]
    counts = np.bincount(codes[codes >= 0], minlength=len(again.dictionary))
    return Coded(again.dictionary, codes, counts)


def _in_one_form(texts: Any) -> Any:
    """Return texts with an ö of one letter in place of those of two, where the same text occurs in both forms."""
    if not matches(texts, r"\p{Mn}").any():
        return texts
    composed = pc.utf8_normalize(texts, "NFC")
    return pc.if_else(pc.is_in(composed, value_set=texts.unique()), composed, texts)


def with_minus(texts: Any) -> Any:
    """Return texts with a hyphen in place of the sign U+2212 before a number, as spreadsheets and web pages write it."""
    return pc.replace_substring_regex(texts, r"\x{2212}([^\s\d]?\d)", r"-\1")


def without_missing(column: Any) -> Any:
    """Return a column of text with null for the words for missing values as they are written most often."""
    words = {
        form(word) for word in MISSING | MISSING_AMONG_NUMBERS for form in (str.lower, str.upper, str.title)
    }
    known = pa.array(
        sorted(words | {"NaN"}), column.type if pa.types.is_large_string(column.type) else pa.string()
    )
    return pc.if_else(pc.is_in(column, value_set=known), pa.scalar(None, column.type), column)


def is_number(texts: Any) -> Flags:
    """Tell which texts are plain numbers."""
    return matches(texts, _NUMBER)


def is_word(texts: Any, words: Iterable[str]) -> Flags:
    """Tell which texts are among the lower-case `words`."""
    found = pc.is_in(pc.utf8_lower(texts), value_set=pa.array(sorted(words), pa.string()))
    return flags(found)


def words_among(texts: Any, words: Iterable[str]) -> set[str]:
    """Return the lower-case `words` that are among the texts."""
    lowered = pc.unique(pc.utf8_lower(texts))
    return {*lowered.filter(pc.is_in(lowered, value_set=pa.array(sorted(words), pa.string()))).to_pylist()}


def looks_like_numbers(texts: Any) -> Flags:
    """Tell which texts are numbers, whatever a comma or a point in them means."""
    forms = (_NUMBER, DECIMAL_COMMA, GROUPED_COMMA, GROUPED_POINT)
    return matches(texts, "|".join(f"(?:{form})" for form in forms))


def numbers(texts: Any, decimal: str) -> tuple[Floats, Flags]:
    """Return the texts as numbers (NaN where they are none), and which of them are numbers.

    decimal: "." or ","; the other one, spaces and apostrophes may group digits by three.
    """
    plain = plain_numbers(texts, decimal)
    good = matches(plain, _NUMBER)
    values = pc.if_else(pa.array(good), plain, pa.scalar(None, pa.string())).cast(pa.float64())
    return values.to_numpy(zero_copy_only=False), good


def plain_numbers(texts: Any, decimal: str) -> Any:
    """Return numbers as they are written in programs, `1.234,5` as `1234.5`; of other texts, something that is no number either."""
    grouped = matches(texts, GROUPED_COMMA if decimal == "." else GROUPED_POINT)
    spaced = matches(texts, GROUPED_SPACE)
    plain = texts
    if decimal == ",":
        # a point in a text that groups nothing would be another decimal mark: no number
        plain = pc.if_else(
            pc.match_substring(plain, "."), pa.scalar("x"), pc.replace_substring(plain, ",", ".")
        )
    if grouped.any():
        cut = pc.replace_substring(texts, "," if decimal == "." else ".", "")
        plain = pc.if_else(pa.array(grouped), pc.replace_substring(cut, ",", "."), plain)
    if spaced.any():
        cut = pc.replace_substring_regex(texts, SPACES, "")
        plain = pc.if_else(
            pa.array(spaced), pc.replace_substring(cut, ",", ".") if decimal == "," else cut, plain
        )
    return plain


def is_percent(texts: Any) -> Flags:
    """Tell which texts are numbers with a percent sign."""
    return matches(texts, r"^[+-]?[\d.,]*\d[.,]? ?%$")


def without_percent(texts: Any) -> Any:
    """Return texts without the percent sign after a number."""
    return pc.replace_substring_regex(texts, r"^([+-]?[\d.,]*\d[.,]?) ?%$", r"\1")


def holds_codes(texts: Any) -> bool:
    """Tell whether some texts are four digits or more that begin with 0, such as the postal code 01067: no numbers."""
    zeros = texts.filter(pc.starts_with(texts, "0"))
    return bool(len(zeros) and pc.any(pc.match_substring_regex(zeros, r"^0\d{3,}$")).as_py())


def holds_padded(texts: Any) -> bool:
    """Tell whether some texts are digits behind a 0, such as 007."""
    return bool(pc.any(pc.match_substring_regex(texts, r"^\s*0\d+\s*$")).as_py())


def are_sentences(texts: Any) -> bool:
    """Tell whether most texts have four words or more."""
    return bool(2 * matches(texts, r"\S+(\s+\S+){3}").sum() > len(texts))


def is_digits(texts: Any) -> Flags:
    """Tell which texts are digits alone."""
    return matches(texts, r"^\d+$")


# Dates ------------------------------------------------------------------------------------------------------------

_DAYS = (
    "%Y/%m/%d", "%Y.%m.%d", "%Y-%m", "%d.%m.%Y", "%d.%m.%y", "%m/%d/%Y", "%d/%m/%Y", "%m-%d-%Y", "%d-%m-%Y", "%m/%d/%y", "%d/%m/%y",
    "%b %d %Y", "%b %d, %Y", "%d-%b-%Y", "%d %b %Y", "%d-%b-%y", "%b %Y",
)  # fmt: skip
DIGITS = "%Y%m%d"
_CLOCKS = ("", " %H:%M:%S", " %H:%M")
_ISO = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?)?"
# different texts that rule out most formats
_LOOKED_AT = 200
_ZONE = r"(Z|[+-]\d{2}:?\d{2})$"
# months in words behind the day, where a street may stand as well
_MONTHS = "(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_DATE_LIKE = (
    r"^\d{1,4}[-/.]\d{1,2}([-/.]\d{1,4})?(\D|$)|^[A-Za-z]{3,9} \d{1,4}"
    rf"|^\d{{1,2}}[- ]([A-Za-z]{{3}}|{_MONTHS}[a-z]{{1,6}})[, -]"
)


def is_date_like(texts: Any) -> Flags:
    """Tell which texts have the shape of a date."""
    return matches(texts, _DATE_LIKE)


def has_zone(texts: Any) -> bool:
    """Whether some of the texts are times with a time zone."""
    return bool(matches(texts, r":\d{2}(\.\d+)?\s*" + _ZONE).any())


def offsets(texts: Any) -> list[str]:
    """Return the offsets from UTC that times have, such as +09:00, in the order of their first rows; none for those in UTC."""
    found = pc.extract_regex(texts, r":\d{2}(?:\.\d+)?\s*(?P<offset>[+-]\d{2}:?\d{2})$")
    named = pc.unique(pc.struct_field(found, "offset").drop_null()).to_pylist()
    return [offset for offset in named if offset.strip("+-0:")]


def date_formats(texts: Any) -> list[str]:
    """Return the formats that read the most of these texts; several where day and month can be taken for each other."""
    texts = texts.filter(pa.array(is_date_like(texts)))
    timed = bool(pc.any(pc.match_substring(texts, ":")).as_py())
    formats = ["iso", *(day + clock for day in _DAYS for clock in (_CLOCKS if timed else _CLOCKS[:1]))]
    # most formats are ruled out by a few texts, wherever these stand
    for part, least in ((spread_sample(texts, _LOOKED_AT), 0.5), (texts, 1.0)):
        read = {form: int(dates(part, form)[1].sum()) for form in formats}
        formats = [form for form, count in read.items() if count and count >= least * max(read.values())]
    return formats


def spread_sample(texts: Any, most: int) -> Any:
    """Return at most `most` texts, evenly spread: what the first ones are depends on how a file is sorted."""
    if len(texts) <= most:
        return texts
    return texts.take(pa.array(np.linspace(0, len(texts) - 1, most).astype(np.int64)))


def dates(texts: Any, form: str) -> tuple[Times, Flags]:
    """Return the texts as times (NaT where they are none) by `iso` or a format of strptime, and which of them are dates."""
    if form == "iso":
        return _iso(texts)
    none = np.full(len(texts), "NaT", "datetime64[us]"), np.zeros(len(texts), bool)
    # by an empty format, pyarrow ends the process
    if not form.replace("%z", "").strip():
        return none
    try:
        times = pc.strptime(texts, form, "us", error_is_null=True)
    except (pa.ArrowException, ValueError):
        return none
    values = times.to_numpy(zero_copy_only=False).astype("datetime64[us]")
    # strptime takes 99 for the year 99
    good = ~np.isnat(values) & (values >= np.datetime64("1000-01-01"))
    good &= ~_past_the_month(texts, times, form)
    if form.startswith("%d.%m.%y"):
        # 1.10.12 is a version of a program
        good &= matches(texts, r"^\d{2}\.\d{2}\.\d{2}(\D|$)")
    return np.where(good, values, np.datetime64("NaT")), good


def _past_the_month(texts: Any, times: Any, form: str) -> Flags:
    """Tell which texts name a day that its month does not have, such as 31.02.2023, which strptime reads as 3 March.

    Such days end up among the first three of the next month. These are written again, and their numbers compared.
    """
    if pa.types.is_timestamp(times.type) and times.type.tz:
        form = form.replace("%z", "").strip()
        texts = pc.replace_substring_regex(texts, r"\s*(Z|[+-]\d{2}:?\d{2})\s*$", "")
        times = pc.strptime(texts, form, "us", error_is_null=True)
    early = flags(pc.less_equal(pc.day(times), 3)) & matches(texts, "29|30|31")
    past = np.zeros(len(texts), bool)
    if early.any():
        chosen = pa.array(early)
        # of microseconds, strftime writes the seconds with a fraction
        again = pc.strftime(times.filter(chosen).cast(pa.timestamp("s")), form)
        different = pc.not_equal(_numbers_in(texts.filter(chosen)), _numbers_in(again))
        past[early] = different.to_numpy(zero_copy_only=False)
    return past


def _numbers_in(texts: Any) -> Any:
    """Return the whole numbers in each text, separated by a space."""
    spaced = pc.utf8_trim_whitespace(pc.replace_substring_regex(texts, r"\D+", " "))
    return pc.replace_substring_regex(spaced, r"\b0+(\d)", r"\1")


def dates_of_digits(values: Floats) -> Times | None:
    """Return whole numbers such as 20240131 as times; None unless all are days of the years 1900 to 2099, NaN aside."""
    present = ~np.isnan(values)
    found = values[present]
    if not len(found) or found.min() < 19000101 or found.max() > 20991231 or (found != np.floor(found)).any():
        return None
    days, codes = np.unique(found.astype(np.int64), return_inverse=True)
    times, good = dates(pa.array(days.astype(str)), DIGITS)
    if not good.all():
        return None
    every = np.full(len(values), "NaT", "datetime64[us]")
    every[present] = times[codes]
    return every


def _iso(texts: Any) -> tuple[Times, Flags]:
    zoned = matches(texts, _ISO + _ZONE)
    good = matches(texts, _ISO + "$") | zoned
    # nanoseconds are cut
    texts = pc.replace_substring_regex(texts, r"(\.\d{6})\d+", r"\1")
    values = np.full(len(texts), "NaT", "datetime64[us]")
    for chosen, kind in ((good & ~zoned, pa.timestamp("us")), (good & zoned, pa.timestamp("us", "UTC"))):
        if chosen.any():
            try:
                times = texts.filter(pa.array(chosen)).cast(kind)
            except pa.ArrowException:  # 2024-02-30
                times, kept = _iso_one_by_one(texts.filter(pa.array(chosen)), kind)
                good[np.flatnonzero(chosen)[~kept]] = False
            values[chosen] = times.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False)
    return values, good


def _iso_one_by_one(texts: Any, kind: Any) -> tuple[Any, Flags]:
    times = []
    for text in texts:
        try:
            times.append(text.cast(kind).as_py())
        except pa.ArrowException:
            times.append(None)
    return pa.array(times, kind), np.array([time is not None for time in times])


def matches(texts: Any, pattern: str) -> Flags:
    """Tell which texts a regular expression matches."""
    return flags(pc.match_substring_regex(texts, pattern))


def flags(found: Any) -> Flags:
    """Return Arrow's truths as an array; null is false."""
    truths: Flags = found.fill_null(False).to_numpy(zero_copy_only=False).astype(bool)
    return truths


def alike(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two names that differ in case or spaces only, None where there are none.

    >>> alike(["no", "Yes", "yes"])
    ('Yes', 'yes')
    """
    seen: dict[str, str] = {}
    for name in names:
        former = seen.setdefault("".join(name.casefold().split()), name)
        if former != name:
            return former, name
    return None
