"""What a column holds: numbers, true and false, dates or categories, by the majority of its values; or nothing to learn from.

The file is long because each reading of a column relies on what those before it ruled out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dltrain.data.class_names import TRUTHS
from dltrain.data.errors import DataError, some
from dltrain.data.tables import shapes, text
from dltrain.data.tables.amounts import (
    COUNTING,
    MEASURES,
    amounts,
    are_measured,
    is_closed,
    opened,
    quantities,
    spelled,
)
from dltrain.data.tables.arrow import as_floats, as_text, as_times, is_duration, is_number, is_text, is_time
from dltrain.data.tables.century import has_century, in_century, last_year_of
from dltrain.data.tables.cures import (
    StrayValues,
    are_numbers,
    call_missing,
    date_cure,
    dates_cure,
    short,
    typed,
    unfit_cure,
)
from dltrain.data.tables.digits import LARGEST, merge, texts_merge
from dltrain.data.tables.durations import SECONDS, UNIT, in_seconds
from dltrain.data.tables.identifiers import MOST_LEVELS, TELLING_ROWS
from dltrain.data.tables.read import Table
from dltrain.data.tables.reading import DecimalMarks, Reading
from dltrain.data.tables.rules import Format, Kind, Rule
from dltrain.data.tables.text import Coded, Flags, Floats

ODD_SHARE = 0.05  # of the values of a column of numbers or dates may be something else before it is text
_FEW_LEVELS = 20  # up to so many are a category, however seldom each occurs
# among numbers or dates, so many different words may stand for a missing value in more rows, too
_FEW_WORDS = 3
_NESTED = "lists or objects"
# rarer texts of a column do not matter for what it mostly consists of
_FREQUENT = 0.02
# true and false, and what may stand beside these words for the same
_WORDS, _DIGITS = ("true", "false"), ("1", "0", "1.0", "0.0")


@dataclass(frozen=True)
class Column:
    """One column, read.

    values: (N,) float64 with NaN for numbers, and for false and true (0, 1); datetime64 with NaT; or the int32
    number of the level, -1 where the value is missing.
    """

    name: str
    format: Format
    values: NDArray[Any]
    levels: tuple[str, ...] = ()

    @property
    def missing(self) -> Flags:
        flags: Flags
        if self.format.kind == "date":
            flags = np.isnat(self.values)
        elif self.format.kind == "category":
            flags = self.values < 0
        else:
            flags = np.isnan(self.values)
        return flags

    @property
    def has_fraction(self) -> bool:
        """Whether some value is no whole number."""
        return self.format.kind == "number" and bool((np.nan_to_num(self.values) % 1 != 0).any())

    @property
    def is_constant(self) -> bool:
        """Whether the column has the same value in every row, and more than one row."""
        return len(self.values) > 1 and not self.missing.any() and bool((self.values == self.values[0]).all())

    def take(self, rows: NDArray[np.int64]) -> Column:
        return replace(self, values=self.values[rows])

    def renamed(self, names: Mapping[str, str]) -> Column:
        """Return categories some of which have another name, which may be that of another one."""
        if not names:
            return self
        called = [names.get(level, level) for level in self.levels]
        levels = [level for level in self.levels if level in called]
        to = np.array([*(levels.index(name) for name in called), -1], np.int32)
        return replace(self, values=to[self.values], levels=tuple(levels))


@dataclass(frozen=True)
class LeftOut:
    """A column that is not learned from, and why: identifier, text, empty, or a type of Arrow."""

    name: str
    reason: str


class Columns:
    """The columns of a table, each coded and converted once.

    tolerant: `parse` takes a value that does not fit its column for missing, and notes its row in `broken`, by index.
    """

    def __init__(
        self,
        table: Table,
        reading: Reading,
        names: Iterable[str],
        targets: Iterable[str] = (),
        tolerant: bool = False,
    ) -> None:
        self.table, self.reading, self.targets, self.tolerant = table, reading, set(targets), tolerant
        self.broken: dict[int, str] = {}
        # of columns that are categories since they hold words beside numbers or dates: what to say of them
        self.word_notes: dict[str, str] = {}
        # columns that are numbers or dates for the most part, with the refusal of what else they hold
        self._mixed: dict[str, StrayValues] = {}
        # columns whose values begin with a number or look like dates, but are read as texts: one of the values
        self.unread: dict[str, str] = {}
        self._unit_notes: dict[str, str] = {}
        # texts of the rows in `broken` that may stand for a missing value
        self._odd_words: dict[str, None] = {}
        self._plain: dict[str, Floats] = {}
        self._coded: dict[str, Coded] = {}
        self.names = [name for name in dict.fromkeys(names)]
        for name in self.names:
            self._convert(name)
        self._marks = DecimalMarks(table, self._coded, self._plain, reading, self.targets)

    def _convert(self, name: str) -> None:
        """Text that is plain numbers throughout, or missing, is converted at once; other text, and codes, are coded."""
        column = self.table.columns[name]
        if not is_text(column.type):
            return
        attempts = [lambda: column, lambda: text.without_missing(column)]
        # a word that is a value keeps a target of classes from being numbers
        for attempt in attempts[:1] if self.reading.not_missing else attempts:
            try:
                values = attempt().cast(pa.float64()).to_numpy()
            except pa.ArrowException:
                if not _may_be_numbers(column.slice(0, 20).drop_null().combine_chunks()):
                    break
                continue
            head = values[:100][~np.isnan(values[:100])]
            whole = (head == np.floor(head)).all()
            if whole and (text.holds_codes(column) or (_are_large(values) and texts_merge(column))):
                break
            self._plain[name] = values
            return
        self._coded[name] = text.code(column)

    def coded(self, name: str) -> Coded:
        if name not in self._coded:
            column = self.table.columns[name]
            self._coded[name] = text.code(column if is_text(column.type) else as_text(column))
        return self._coded[name]

    def decimal(self, name: str) -> str:
        """Return the decimal mark of a column of text."""
        return self._marks.of(name, lambda: self.coded(name).texts)

    def decimal_of_other(self, name: str) -> str:
        """Return the decimal mark of a column that is not read, empty where nothing tells."""
        return self._marks.of_other(text.code(self.table.columns[name]).texts)

    @property
    def notes(self) -> tuple[str, ...]:
        """What differs from the training in how values are written."""
        cure = call_missing(list(self._odd_words), self.reading.missing_words)
        words = (f"words    of rows that are left out: to keep these rows, {cure}",) if cure else ()
        return (*self._marks.notes, *self._unit_notes.values(), *words)

    def missing_words(self, name: str, among_numbers: bool) -> dict[str, int]:
        """Return the texts, but for the empty one, by which values of a column are missing, and their numbers in rows that are not broken."""
        column = self.table.columns[name]
        if not is_text(column.type):
            return {}
        coded = text.code(column)
        found = np.flatnonzero(self.reading.missing(coded.texts, among_numbers)).tolist()
        codes = np.delete(coded.codes, list(self.broken))
        counts = np.bincount(codes[codes >= 0], minlength=len(coded.texts))
        words = {str(coded.texts[place].as_py()): int(counts[place]) for place in found}
        return {word: count for word, count in words.items() if word and count}

    def release(self, name: str) -> None:
        """Forget what the reading of a column held in memory."""
        self._plain.pop(name, None)
        self._coded.pop(name, None)

    def strays(self, names: Iterable[str]) -> list[str]:
        """Return the texts that columns of numbers or dates hold in a few rows."""
        found: list[str] = []
        for name in names:
            try:
                self.infer(name)
            except StrayValues as error:
                found += [] if error.kept else error.words
            except DataError:
                continue
        return found

    # what a column holds -----------------------------------------------------------------------------------------

    def infer(self, name: str) -> Column | LeftOut:
        """Read a column as what most of its values are; DataError for single values that are something else."""
        column = self.table.columns[name]
        kind = column.type
        if pa.types.is_null(kind) or column.null_count == len(column):
            return LeftOut(name, "empty")
        if merge(column):
            coded = self.coded(name)
            return self._category(name, coded, ~self.reading.missing(coded.texts, among_numbers=False))
        if is_number(kind):
            return self._number(name, as_floats(column), UNIT if is_duration(kind) else "")
        if pa.types.is_boolean(kind):
            return Column(name, self._format("boolean"), as_floats(column))
        if is_time(kind):
            zone = getattr(kind, "tz", None)
            self._note_offsets(name, [zone] if zone not in (None, "UTC", "Z", "Etc/UTC", "+00:00") else [])
            form = replace(self._format("date", "iso"), zoned=zone is not None)
            return Column(name, form, self._times(name))
        if not is_text(kind):
            return LeftOut(name, _NESTED if pa.types.is_nested(kind) else f"values of type {kind}")
        if name in self._plain and not self._has_points(name):
            self._note_exponents(name)
            return self._number(name, self._plain[name])
        return self._infer_text(name)

    def _note_exponents(self, name: str) -> None:
        """Note numbers all of which are written as 4E2: programs write 4e+02 or 400, and codes of products look so."""
        column = self.table.columns[name]
        if name not in self.targets and shapes.have_bare_exponents(column):
            first = next(value for value in column.to_pylist() if not shapes.is_missing(value)).strip()
            self.word_notes[name] = (
                f"numbers  {name}: all values have an exponent, such as {first}, which is {float(first):g}; for codes, "
                f"{typed('categorical', [name])}"
            )

    def _has_points(self, name: str) -> bool:
        """Whether a column that reads as plain numbers must be read again: among decimal commas a point groups digits."""
        return self._marks.comma and self._pointed(name) and self.decimal(name) == ","

    def _infer_text(self, name: str) -> Column | LeftOut:
        coded = self.coded(name)
        missing = self.reading.missing(coded.texts, among_numbers=False)
        words = self.reading.missing(coded.texts, among_numbers=True) & ~missing
        present = ~missing
        if not coded.counts[present].sum():
            return LeftOut(name, "empty")
        if _are_codes(coded, present):
            return self._category(name, coded, present)
        if truths := self._truths(name, coded, present & ~words):
            return truths
        unit = self._unit(name, coded, present & ~words)
        values, good = _numbers(coded.texts, self.decimal(name), unit)
        closed = is_closed(coded.texts) & present & (unit == "")
        if not (good & present & ~closed).any():
            # (1), (2) and so on alone are no negative numbers
            good &= ~closed
        elif (closed & good).any():
            example = short(coded.words[int(np.flatnonzero(closed & good)[0])])
            self.word_notes[name] = f"negative {name}: numbers in parentheses, such as {example}"
        if self._mostly(name, coded, present & ~words, good, _what(unit)):
            return self._number(name, spread(np.where(good, values, np.nan), coded), unit)
        if dates := self._dates(name, coded, present & ~words):
            return dates
        return self._category(name, coded, present)

    def _truths(self, name: str, coded: Coded, present: Flags) -> Column | None:
        """Read a column of true and false, some of them written as 1 and 0; None where it holds anything else, or numbers alone."""
        if len(coded.texts) > _FEW_LEVELS or not _all_words(coded, present, _WORDS + _DIGITS):
            return None
        if not text.is_word(coded.texts, _WORDS)[present].any():
            return None
        if text.is_word(coded.texts, _DIGITS)[present].any():
            shown = some(map(repr, coded.texts.filter(pa.array(present)).to_pylist()), 6)
            self.word_notes[name] = f"truths   {name}: {shown} are true and false"
        true = text.is_word(coded.texts, [word for word in _WORDS + _DIGITS if TRUTHS[word]])
        values = np.where(present, true.astype(np.float64), np.nan)
        return Column(name, self._format("boolean"), spread(values, coded))

    def _unit(self, name: str, coded: Coded, present: Flags) -> str:
        """Return "%", the currency or the unit of measurement that most values have; DataError for several currencies."""
        rows = coded.counts[present].sum()
        if 2 * coded.counts[text.is_percent(coded.texts) & present].sum() > rows:
            return "%"
        units = np.where(present, amounts(coded.texts).units, "")
        if not 2 * coded.counts[units != ""].sum() > rows:
            return self._measure(name, coded, present)
        found = {str(unit): coded.first_row(units == unit) for unit in np.unique(units[units != ""])}
        if len(found) > 1:
            places = (
                f"{short(coded.words[coded.codes[row]])} in row {self.table.numbers[row]}"
                for row in found.values()
            )
            raise DataError(
                f"column {name!r} of {self.table.path} holds amounts in {some(found)}: {some(places, 4)}; write them in one currency"
                + self._or_drop(name, ", or leave the column out")
            )
        return next(iter(found))

    def _measure(self, name: str, coded: Coded, present: Flags) -> str:
        """Return the unit of measurement that most values have, the same for all of them but for known units by mistake.

        Where the values have several units and none is that of most, they stay texts, and a line says so.
        """
        units = np.where(present, quantities(coded.texts).units, "")
        rows = int(coded.counts[present].sum())
        counts = {str(unit): int(coded.counts[units == unit].sum()) for unit in np.unique(units[units != ""])}
        if not 2 * sum(counts.values()) > rows or set(counts) <= COUNTING:
            return ""
        first = max(counts, key=lambda unit: counts[unit])
        if set(counts) <= SECONDS.keys():
            if others := [unit for unit in counts if SECONDS[unit] != SECONDS[first]]:
                self.word_notes[name] = (
                    f"units    {name}: durations in {some(others)} are turned into {first}"
                )
            return first
        known = all(unit in MEASURES for unit in counts)
        if counts[first] >= (1 - ODD_SHARE) * sum(counts.values()) or (known and 2 * counts[first] > rows):
            return first
        if known:
            self.word_notes[name] = (
                f"units    {name}: no numbers, for they have several units: {some(counts)}; write them in one unit"
            )
        return ""

    def _mostly(self, name: str, coded: Coded, present: Flags, good: Flags, what: str) -> bool:
        """Whether the present texts are `what` but for a few; DataError where these few are no known word for missing."""
        odd = present & ~good
        found, others = int(coded.counts[present & good].sum()), int(coded.counts[odd].sum())
        if not found or found < others:
            return False
        if others > max(1, ODD_SHARE * (found + others)) or found < 4 * others:
            self._mixed[name] = self._odd(name, coded, odd, found + others, what)
            return False
        if others:
            raise self._odd(name, coded, odd, found + others, what)
        return True

    def _odd(self, name: str, coded: Coded, odd: Flags, total: int, what: str) -> StrayValues:
        row = coded.first_row(odd)
        value = str(coded.texts[int(coded.codes[row])].as_py())
        count = int(coded.counts[odd].sum())
        more = f"{count} of {total} values are" if count > 1 else f"the only one of {total} values that is"
        cure = f"leave the column out: {typed('drop', [name])}"
        if len(coded.texts) <= _FEW_LEVELS:
            cure = f"take it for categories: {typed('categorical', [name])}, or {cure}"
        if name in self.targets:
            cure = "set dataset.task=classification" if len(coded.texts) <= _FEW_LEVELS else ""
        problem = (
            f"column {name!r} holds {what}, but {short(value)} in {self.table.row(row)} ({more} something else); repair "
            f"{'them' if count > 1 else 'it'}"
        )
        strays = coded.texts.filter(pa.array(odd))
        # a number is no word for a missing value: it would be missing in other columns, too
        numbers = are_numbers(strays).any() or are_measured(strays)
        words = [] if numbers else strays.to_pylist()
        return StrayValues(
            problem, words, cure, self.reading.missing_words, what, not self._may_be_missing(name, words)
        )

    def _may_be_missing(self, name: str, words: Sequence[str]) -> bool:
        """Whether a cure may call words of a column missing: not its own name, nor what another column mostly consists of."""
        if name in words:
            return False
        wanted = {word.lower() for word in words}
        return not any(
            sum(share for word, share in shares.items() if word in wanted) > 0.5
            for other, shares in self._frequent.items()
            if other != name
        )

    @cached_property
    def _frequent(self) -> dict[str, dict[str, float]]:
        """The frequent texts of each column of text, in small letters, and the fractions of the values that they are."""
        found: dict[str, dict[str, float]] = {}
        for name in self.names:
            column = self.table.columns[name]
            if is_text(column.type) and name not in self._plain:
                coded = text.code(column)
                present = ~self.reading.missing(coded.texts, among_numbers=False)
                shares = np.where(present, coded.counts, 0) / max(1, coded.counts[present].sum())
                shares_of: dict[str, float] = {}
                for place in np.flatnonzero(shares > _FREQUENT).tolist():
                    word = str(coded.texts[place].as_py()).lower()
                    shares_of[word] = shares_of.get(word, 0.0) + float(shares[place])
                found[name] = shares_of
        return found

    def _number(self, name: str, values: Floats, unit: str = "") -> Column | LeftOut:
        values = values if unit else self.reading.without_missing(values)
        if np.isinf(values).any():
            raise self._infinite(name, values)
        if np.isnan(values).all():
            return LeftOut(name, "empty")
        if len(values) >= TELLING_ROWS and (times := text.dates_of_digits(values)) is not None:
            return Column(name, self._format("date", text.DIGITS), times)
        form = self._format("number", decimal=self._mark_of(name))
        return Column(name, replace(form, unit=unit), values)

    def _infinite(self, name: str, values: Floats) -> DataError:
        """Return the refusal of numbers that are not finite, with the ways out."""
        rows = np.flatnonzero(np.isinf(values))
        words = [str(value) for value in np.unique(values[rows])]
        more = f" (and {len(rows) - 1:,} more)" if len(rows) > 1 else ""
        ways = []
        if self.reading.has_keys:
            ways.append(call_missing(words, self.reading.missing_words))
        cure = f"; {', or '.join(ways)}{self._or_drop(name, ', or leave the column out')}" if ways else ""
        return DataError(
            f"column {name!r} has {values[rows[0]]} in {self.table.row(int(rows[0]))}{more}; all values must be finite numbers{cure}"
        )

    def _or_drop(self, name: str, what: str) -> str:
        """Return the cure that leaves a column out, behind `what`; nothing for a target."""
        return "" if name in self.targets else f"{what}: {typed('drop', [name])}"

    def _dates(self, name: str, coded: Coded, present: Flags) -> Column | None:
        """Read a column as dates of the form that the user names, or of their own where they have another."""
        given = self.reading.date_format
        found = None if given == "auto" else self._dates_of(name, coded, present, [given])
        if found is None and text.is_date_like(coded.texts)[present].any():
            formats = text.date_formats(coded.texts.filter(pa.array(present)))
            found = self._dates_of(name, coded, present, formats)
        if found is None:
            return None
        texts = coded.texts.filter(pa.array(present))
        self._note_offsets(name, text.offsets(texts))
        return replace(found, format=replace(found.format, zoned=text.has_zone(texts)))

    def _note_offsets(self, name: str, offsets: Sequence[str]) -> None:
        """Note that times have an offset from UTC or a time zone: they are converted to UTC, which changes hour, weekday and day."""
        if offsets:
            self.word_notes[name] = (
                f"zone     {name}: times with {some(offsets, 3)} are converted to UTC, and so are their hour, weekday and day; to keep the local "
                "ones, remove the offset from the file"
            )

    def _dates_of(self, name: str, coded: Coded, present: Flags, formats: list[str]) -> Column | None:
        """Read a column by the first format; None where it is no dates, DataError where another format reads as much of it."""
        if not formats:
            return None
        times, good = text.dates(coded.texts, formats[0])
        if not self._mostly(name, coded, present, good, "dates"):
            return None
        if len(formats) > 1:
            row = coded.first_row(present & good)
            raise DataError(
                f"column {name!r} has {coded.texts[int(coded.codes[row])].as_py()!r} in {self.table.row(row)}, which may have "
                f"the day or the month first;\nset 'dataset.date_format=\"{formats[0]}\"' or "
                f"'dataset.date_format=\"{formats[1]}\"', or leave it out: {typed('drop', [name])}"
            )
        form = self._format("date", formats[0])
        if not has_century(formats[0]):
            form = replace(form, last_year=last_year_of(times[good & present]))
            times = in_century(times, form.last_year)
            self._note_century(name, form.last_year, times[good & present])
        values = np.append(np.where(good & present, times, np.datetime64("NaT")), np.datetime64("NaT"))
        return Column(name, form, values[coded.codes])

    def _note_century(self, name: str, last_year: int, times: NDArray[np.datetime64]) -> None:
        """Say which years two digits were taken for, and what dates this gives."""
        first, last = (str(time.astype("datetime64[D]")) for time in (times.min(), times.max()))
        self.word_notes[name] = (
            f"years    {name}: two digits are {last_year - 99} to {last_year}, which gives dates from {first} to {last}; for others, "
            "write four digits"
        )

    def _category(self, name: str, coded: Coded, present: Flags) -> Column | LeftOut:
        levels, rows = int(present.sum()), int(coded.counts[present].sum())
        what = "code" if _are_codes(coded, present) else "text"
        mixed = self._mixed.get(name)
        words = mixed is not None and not text.holds_codes(coded.texts) and mixed.are_few(_FEW_WORDS)
        if mixed and not mixed.words:
            # numbers written in two ways
            raise mixed
        if levels == rows >= TELLING_ROWS and not text.are_sentences(coded.texts.filter(pa.array(present))):
            self._note_unread(name, coded, present, shapes.are_numbers_joined(coded.texts))
            return LeftOut(name, "identifier")
        if (
            levels > MOST_LEVELS
            or (levels > _FEW_LEVELS and 2 * levels > rows)
            or levels == rows >= TELLING_ROWS
        ):
            # what repeats enough may be the classes of a target
            if mixed and words and (name not in self.targets or 2 * levels > rows):
                raise mixed
            if what == "text":
                self._note_unread(name, coded, present, shapes.are_amounts(coded.texts))
            return LeftOut(
                name, f"{what}, {levels} different values{f', most of them {mixed.what}' if mixed else ''}"
            )
        if mixed and words:
            cure = "" if mixed.kept else call_missing(mixed.words, self.reading.missing_words)
            self.word_notes[name] = (
                f"words    {name}: categories, for {some(map(repr, mixed.words))} among {mixed.what}; to learn from these, "
                f"{cure or 'write all values alike'}"
            )
        if what == "text" and name not in self.word_notes:
            begins = shapes.begins_with_number(coded.texts) | shapes.are_amounts(coded.texts)
            self._note_unread(name, coded, present, begins)
        return self._levels_of(name, coded, present)

    def _note_unread(self, name: str, coded: Coded, present: Flags, like: Flags) -> None:
        """Note a value of a column most of which are `like` numbers or dates, though none of the known forms."""
        like = like | shapes.has_clock(coded.texts) | text.is_date_like(coded.texts)
        like |= shapes.are_numbers_elsewhere(coded.texts)
        if like.any():
            like |= text.looks_like_numbers(coded.texts)
        if name in self.targets or not 2 * coded.counts[present & like].sum() > coded.counts[present].sum():
            return
        shown = present & like & ~text.looks_like_numbers(coded.texts)
        row = coded.first_row(shown if shown.any() else present & like)
        self.unread[name] = str(coded.texts[int(coded.codes[row])].as_py())

    # a column as something known ---------------------------------------------------------------------------------

    def declared(self, name: str) -> Column | None:
        """Read a column of numbers that the file itself declares to be categories, and note it; None for others, and for too many values."""
        kind = self.table.columns[name].type
        if name not in self.table.declared or not is_number(kind) or is_duration(kind):
            return None
        column = self.category(name)
        if len(column.levels) > MOST_LEVELS:
            return None
        self.word_notes[name] = (
            f"types    {name}: numbers that are categories by the file; to take them for numbers, write them as such"
        )
        return column

    def category(self, name: str, numbers: bool = False) -> Column:
        """Read a column as categories, whatever its values; those of numbers are ordered as numbers, but 007 is not 7.

        numbers: the levels in the training are numbers, for which 4E2 is 400
        """
        column = self.table.columns[name]
        if is_number(column.type) and not merge(column):
            return self._number_levels(name, as_floats(column))
        padded = is_text(column.type) and text.holds_padded(column)
        padded |= not numbers and is_text(column.type) and shapes.have_bare_exponents(column)
        if name in self._plain and not padded and not self._has_points(name):
            return self._number_levels(name, self._plain[name])
        coded = self.coded(name)
        missing = self.reading.missing(coded.texts, among_numbers=False)
        values, good = text.numbers(coded.texts, self.decimal(name))
        if good[~missing].all() and good.any() and not padded and not texts_merge(coded.texts):
            return self._number_levels(name, spread(np.where(good, values, np.nan), coded))
        return self._levels_of(name, coded, ~missing)

    def _number_levels(self, name: str, values: Floats) -> Column:
        values = self.reading.without_missing(values)
        levels, codes = np.unique(values, return_inverse=True)
        known = int((~np.isnan(levels)).sum())
        codes = np.where(np.isnan(values), -1, codes).astype(np.int32)
        form = self._format("category", decimal=self._mark_of(name))
        return Column(name, form, codes, number_names(levels[:known]))

    def parse(self, name: str, wanted: Format) -> Column:
        """Read a column in the format that it had in another file; DataError names the row of what does not fit it."""
        column = self.table.columns[name]
        if wanted.kind == "category":
            return self.category(name, numbers=True) if wanted.decimal else self._text_levels(name)
        if wanted.kind == "date" and is_time(column.type):
            self._note_zone(name, wanted, getattr(column.type, "tz", None) is not None)
            return Column(name, wanted, self._times(name))
        if wanted.date == text.DIGITS and is_number(column.type):
            values = as_floats(column)
            if (times := text.dates_of_digits(values)) is not None:
                return Column(name, wanted, times)
        if wanted.kind == "number" and is_duration(column.type):
            return self._fitting(name, wanted, self._durations(name, wanted))
        if wanted.kind != "date" and (is_number(column.type) or pa.types.is_boolean(column.type)):
            self._note_unit(name, wanted)
            return self._fitting(name, wanted, as_floats(column))
        if (
            wanted.kind == "number"
            and wanted.unit != "%"
            and name in self._plain
            and not self._has_points(name)
        ):
            self._note_unit(name, wanted)
            return self._fitting(name, wanted, self._plain[name])
        if wanted.kind == "date" and is_number(column.type) and not is_time(column.type):
            raise self._no_dates(name, as_floats(column), wanted)
        coded = self.coded(name)
        present = ~self.reading.missing(coded.texts, among_numbers=True)
        here = self._form_here(self._unit_here(name, wanted, coded), coded, present)
        self._note_other_units(name, here, coded, present)
        values, good = _by(coded.texts, here, self.decimal(name))
        if (present & ~good).any():
            self._unfit(name, replace(here, unit=wanted.unit), coded, present, good)
            present &= good
        if wanted.kind == "date":
            self._note_zone(name, wanted, text.has_zone(coded.texts.filter(pa.array(present))))
        if wanted.kind == "boolean":
            self._note_truths(name, coded.texts.filter(pa.array(present)))
        empty = np.datetime64("NaT") if wanted.kind == "date" else np.nan
        spread_out = np.append(np.where(present, values, empty), empty)[coded.codes]
        return (
            Column(name, wanted, spread_out)
            if wanted.kind == "date"
            else self._fitting(name, wanted, spread_out)
        )

    def _no_dates(self, name: str, values: Floats, wanted: Format) -> DataError:
        """Return the refusal of numbers in a column of dates, as of seconds since 1970."""
        row = int(np.flatnonzero(~np.isnan(values))[0]) if not np.isnan(values).all() else 0
        return DataError(
            f"column {name!r} held dates ({wanted.date}) in the training, and holds numbers here, such as {values[row]:.16g} in "
            f"{self.table.row(row)}; {dates_cure(wanted, f'{values[row]:.0f}')}"
        )

    def _times(self, name: str) -> NDArray[np.datetime64]:
        try:
            return as_times(self.table.columns[name])
        except pa.ArrowException as error:
            raise DataError(
                f"column {name!r} of {self.table.path} holds times that cannot be read ({short(str(error))})"
                + self._or_drop(name, "; leave it out")
            ) from error

    def _unit_here(self, name: str, wanted: Format, coded: Coded) -> Format:
        """Return the format of a column, without its currency where no value of this file has one."""
        if wanted.unit in ("", "%") or (quantities(coded.texts).units != "").any():
            return wanted
        self._note_unit(name, wanted)
        return replace(wanted, unit="")

    def _durations(self, name: str, wanted: Format) -> Floats:
        """Return an Arrow column of durations in the unit of the training."""
        if wanted.unit and wanted.unit not in SECONDS:
            raise DataError(
                f"column {name!r} of {self.table.path} holds durations, and held {_what(wanted.unit)} in the training; write it as there"
            )
        if wanted.unit != UNIT:
            there = f"durations in {wanted.unit}" if wanted.unit else "numbers without a unit"
            self._unit_notes[name] = (
                f"unit     {self.table.path.name}: {name} has durations, taken in {wanted.unit or UNIT}; that of the training had {there}"
            )
        return as_floats(self.table.columns[name]) / SECONDS.get(wanted.unit, 1.0)

    def _note_other_units(self, name: str, wanted: Format, coded: Coded, present: Flags) -> None:
        """Note that a column has durations in other units than in the training, which are converted."""
        if wanted.kind != "number" or wanted.unit not in SECONDS:
            return
        units = quantities(coded.texts.filter(pa.array(present))).units.tolist()
        others = [
            unit for unit in dict.fromkeys(units) if unit in SECONDS and SECONDS[unit] != SECONDS[wanted.unit]
        ]
        if others:
            self._unit_notes[name] = (
                f"unit     {self.table.path.name}: {name} has {some(others)}, turned into {wanted.unit} as in the training"
            )

    def _note_zone(self, name: str, wanted: Format, zoned: bool) -> None:
        """Note that times have zones here and had none in the training, or the other way round."""
        if wanted.zoned is None or wanted.zoned == zoned:
            return
        here, there = (
            ("has time zones, and is turned into UTC", "had none, and was taken as it is")
            if zoned
            else ("has no time zones, and is taken as it is", "had some, and was turned into UTC")
        )
        self._unit_notes[name] = (
            f"zone     {self.table.path.name}: {name} {here}; that of the training {there}"
        )

    def _note_truths(self, name: str, texts: Any) -> None:
        """Note words for true and false that are not these."""
        words = [word for word in texts.to_pylist() if word.lower() not in ("true", "false")]
        if words:
            shown = (f"{short(word)} for {str(TRUTHS[word.lower()]).lower()}" for word in words)
            self._unit_notes[name] = f"truth    {self.table.path.name}: {name} has {some(shown, 4)}"

    def _note_unit(self, name: str, wanted: Format) -> None:
        """Note that a column has no unit here, and had one in the training."""
        if wanted.unit:
            what = "percents, 27 for 27%," if wanted.unit == "%" else wanted.unit
            self._unit_notes[name] = (
                f"unit     {self.table.path.name}: {name} has no unit, and is taken for {what} as in the training"
            )

    def _form_here(self, wanted: Format, coded: Coded, present: Flags) -> Format:
        """Return the format of a column with the dates of this file, where the user names their form and it reads as many of them."""
        given = self.reading.date_format
        if wanted.kind != "date" or given == "auto":
            return wanted
        before, now = (
            coded.counts[present & text.dates(coded.texts, form)[1]].sum() for form in (wanted.date, given)
        )
        if now < before:
            return wanted
        last_year = wanted.last_year
        if not (last_year or has_century(given)):
            # the training had four digits
            times, good = text.dates(coded.texts, given)
            last_year = last_year_of(times[good & present])
        return replace(wanted, date=given, last_year=last_year)

    def _unfit(self, name: str, wanted: Format, coded: Coded, present: Flags, good: Flags) -> None:
        """Raise DataError for the first text that does not fit its column, or note all rows that have one.

        Dates nearly all of which have another form are refused: those that fit by chance, such as 03/04/2023, mean something else.
        """
        bad = present & ~good
        texts = coded.texts.filter(pa.array(present))
        dates = date_cure(texts, int(good[present].sum())) if wanted.kind == "date" else ""
        # `3.5` is no number where 3,5 is
        mark = " with a decimal comma" * (wanted.kind == "number" and self.decimal(name) == ",")
        what = {
            "number": _what(wanted.unit) + mark,
            "boolean": "true and false",
            "date": f"dates ({wanted.date})",
        }[wanted.kind]
        if wanted.kind == "boolean":
            self._check_truths(name, coded, present, bad)
        if self.tolerant and not dates:
            for row in np.flatnonzero(np.append(bad, False)[coded.codes]).tolist():
                value = str(coded.texts[int(coded.codes[row])].as_py())
                self.broken.setdefault(row, f"column {name!r} holds {what}, but {short(value)}")
            strays = coded.texts.filter(pa.array(bad))
            numeric = are_numbers(strays) | (quantities(strays).units != "")
            words = strays.filter(pa.array(~numeric & ~text.is_date_like(strays)))
            self._odd_words |= dict.fromkeys(words.to_pylist()) if wanted.kind != "boolean" else {}
            return
        row = coded.first_row(bad)
        value = str(coded.texts[int(coded.codes[row])].as_py())
        cure = dates or unfit_cure(wanted, value, self.reading.missing_words)
        raise DataError(f"column {name!r} holds {what}, but {short(value)} in {self.table.row(row)}; {cure}")

    def _check_truths(self, name: str, coded: Coded, present: Flags, bad: Flags) -> None:
        """Raise DataError for a column of true and false that has other words in more than a few rows: another coding, no slips."""
        count, total = int(coded.counts[bad].sum()), int(coded.counts[present].sum())
        if count > max(1, ODD_SHARE * total):
            words = coded.texts.filter(pa.array(bad)).to_pylist()
            missing = call_missing(words, self.reading.missing_words)
            raise DataError(
                f"column {name!r} of {self.table.path} holds true and false in the training, and {some(map(short, words), 4)} in {count:,} of "
                f"{total:,} rows here;\nwrite true and false, yes and no, or 1 and 0{f'; or {missing}' if missing else ''}"
            )

    def _fitting(self, name: str, wanted: Format, values: Floats) -> Column:
        if wanted.kind == "number" and not wanted.unit:
            values = self.reading.without_missing(values)
        bad = (
            np.isinf(values) if wanted.kind == "number" else ~np.isin(values, (0.0, 1.0)) & ~np.isnan(values)
        )
        if bad.any():
            rows = np.flatnonzero(bad).tolist()
            rule = (
                "all values must be finite numbers" if wanted.kind == "number" else "it must be true or false"
            )
            infinite = wanted.kind == "number"
            if infinite and not self.tolerant:
                raise self._infinite(name, values)
            if infinite:
                self._odd_words |= dict.fromkeys(str(value) for value in np.unique(values[bad]))
            if not self.tolerant:
                row = rows[0]
                raise DataError(f"column {name!r} has {values[row]:g} in {self.table.row(row)}; {rule}")
            for row in rows:
                self.broken.setdefault(row, f"column {name!r} has {values[row]:g}; {rule}")
            values = np.where(bad, np.nan, values)
        return Column(name, wanted, values)

    def _text_levels(self, name: str) -> Column:
        coded = self.coded(name)
        return self._levels_of(name, coded, ~self.reading.missing(coded.texts, among_numbers=False))

    def _levels_of(self, name: str, coded: Coded, present: Flags) -> Column:
        """Number the present texts in their order; the others are missing."""
        words = np.array(coded.words, object)
        order = np.array(sorted(np.flatnonzero(present), key=lambda i: words[i]), np.int64)
        to = np.full(len(words) + 1, -1, np.int32)
        to[order] = np.arange(len(order))
        return Column(
            name, self._format("category", decimal=""), to[coded.codes], tuple(str(words[i]) for i in order)
        )

    def _mark_of(self, name: str) -> str:
        """Return the decimal mark to keep of a column; numbers without text have a point."""
        if not self._marks.comma or not is_text(self.table.columns[name].type):
            return "."
        return "," if name in self._plain and not self._pointed(name) else self.decimal(name)

    def _pointed(self, name: str) -> bool:
        return bool(pc.any(pc.match_substring(self.table.columns[name], ".")).as_py())

    def _format(self, kind: Kind, date: str = "", decimal: str = "") -> Format:
        words, kept = self.reading.missing_words, self.reading.not_missing
        return Format(kind, decimal, date, words, not_missing=kept)


def _by(texts: Any, wanted: Format, decimal: str) -> tuple[NDArray[Any], Flags]:
    if wanted.kind == "number":
        return _numbers(texts, decimal, wanted.unit)
    if wanted.kind == "date":
        times, good = text.dates(texts, wanted.date)
        return times if has_century(wanted.date) else in_century(times, wanted.last_year), good
    true, false = (
        text.is_word(texts, [word for word, is_true in TRUTHS.items() if is_true is truth])
        for truth in (True, False)
    )
    return true.astype(np.float64), true | false


def _numbers(texts: Any, decimal: str, unit: str) -> tuple[Floats, Flags]:
    """Return texts as numbers, and which of them are; with a unit those alone that have it."""
    if not unit:
        return text.numbers(opened(texts), decimal)
    if unit == "%":
        values, good = text.numbers(text.without_percent(texts), decimal)
        return values, good & text.is_percent(texts)
    found = quantities(texts)
    values, good = text.numbers(found.numbers, decimal)
    if unit in SECONDS:
        factors = np.array([SECONDS.get(other, np.nan) / SECONDS[unit] for other in found.units.tolist()])
        seconds, timed = in_seconds(texts)
        values = np.where(timed, seconds / SECONDS[unit], values * factors)
        return values, timed | (good & ~np.isnan(factors))
    # versions before kept the spelling of the training
    return values, good & (found.units == spelled(unit))


def known_marks(columns: Iterable[Column | Rule]) -> dict[str, str]:
    """Return the decimal marks that columns had in the training, by name.

    A decimal point is known where the numbers have a fraction: whole numbers show no mark, and have the point by default.
    """
    return {
        column.name: column.format.decimal
        for column in columns
        if column.format.decimal == "," or (column.format.decimal == "." and column.has_fraction)
    }


def _what(unit: str) -> str:
    """Return what numbers with a unit are called."""
    named = {"": "numbers", "%": "percents such as 12%", UNIT: "durations such as 17:25:00 or 12 s"}
    return named.get(unit, f"amounts in {unit}")


def _are_codes(coded: Coded, present: Flags) -> bool:
    """Whether all values are digits, some with leading zeros or too many for a number: postal codes, accounts."""
    codes = text.holds_codes(coded.texts) or texts_merge(coded.texts)
    return codes and bool(text.is_digits(coded.texts)[present].all())


def _may_be_numbers(texts: Any) -> bool:
    """Whether the first values leave it open that a column is numbers: some are numbers or missing, or there are none."""
    known = text.is_number(texts) | text.is_word(texts, text.MISSING | text.MISSING_AMONG_NUMBERS)
    return not len(texts) or bool(known.any())


def _are_large(values: Floats) -> bool:
    return bool((np.abs(values) >= LARGEST).any())


def _all_words(coded: Coded, present: Flags, words: tuple[str, ...]) -> bool:
    return bool(present.any() and text.is_word(coded.texts, words)[present].all())


def spread(values: Floats, coded: Coded) -> Floats:
    """Return the values of the different texts row by row, NaN where the file has a null."""
    return np.append(values, np.nan)[coded.codes]


def number_names(values: Floats) -> tuple[str, ...]:
    """Return numbers as text; whole ones without their `.0`."""
    return tuple(str(int(v)) if v == int(v) else str(v) for v in values.tolist())
