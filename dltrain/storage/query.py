"""Filters of runs: `key=value`, `key!=value`, `key<number` and their kin, on any key, score or field."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fnmatch import fnmatchcase
from operator import ge, gt, le, lt
from typing import Any

from dltrain.defaults import DEFAULT_BATCH_SIZE
from dltrain.errors import UserError, nearest
from dltrain.screen.table import cell
from dltrain.storage.index import Entry, number_of
from dltrain.storage.job_names import job_label

# keys of an entry that are not in its records
PLACE = ("run", "name", "path", "sweep", "when", "tag")
# fields that runs have once they got so far
_LATER = ("status", "metric", "objective", "seconds")
_FORM = re.compile(r"([^=<>!]+)(<=|>=|!=|=|<|>)(.*)", re.DOTALL)
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-(\d\d)")


_MONTH, _YEAR = 31 * 86400, 366 * 86400
# what comes before the text to make it whole, the form of both, and the seconds that it stands for
_TIMES = (
    ("", "%Y-%m-%d %H:%M:%S", 1),
    ("", "%Y-%m-%d %H:%M", 60),
    ("", "%Y-%m-%d", 86400),
    ("", "%Y-%m", _MONTH),
    ("", "%Y", _YEAR),
    ("day", "%Y-%m-%d %H:%M:%S", 1),
    ("day", "%Y-%m-%d %H:%M", 60),
    ("year", "%Y %d %b %H:%M", 60),
    ("year", "%Y %d %b", 86400),
)


@dataclass(frozen=True)
class Filter:
    """One condition; `span` is the start and the end of the time that `when` is compared with."""

    key: str
    sign: str
    value: str
    span: tuple[str, str] | None = None

    def holds(self, entry: Entry) -> bool:
        """Return whether an entry satisfies it; a missing value satisfies neither `<` nor `>`."""
        have = value_of(entry, self.key)
        if self.span is not None:
            return _at(have, self.sign, self.span)
        if self.sign in _ORDERS:
            return _ordered(have, self.sign, self.value)
        return _equal(have, self.value) == (self.sign == "=")


def read_filter(text: str) -> Filter:
    """Parse `key=value` and its kin. Raises UserError for another form, and for a time that is none."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise UserError(
            f"`{text}` is no folder and no filter. Write 'key=value', 'key<number' or 'key>=number', in quotes"
        )
    key, value = found[1].strip(), found[3].strip()
    return Filter(key, found[2], value, span_of(value) if key == "when" and not _is_pattern(value) else None)


def span_of(text: str) -> tuple[str, str]:
    """Return the start and the end of a time as `when` writes them: a day stands for all of it, as a month or a minute does.

    Raises UserError for what is neither a date nor a time.
    """
    today = date.today()
    named = {"today": today, "yesterday": today - timedelta(days=1)}
    if text.lower() in named:
        text = f"{named[text.lower()]}"
    # the form of folder names, ISO's, and the form of the table, whose year is the present one
    whole = " ".join(_STAMP.sub(r"\1 \2:\3:\4", text).replace("T", " ", "-" in text).split())
    for prefix, form, length in _TIMES:
        begun = f"{today}" if prefix == "day" else f"{today.year}" if prefix == "year" else ""
        # strptime takes 2026-1-1 as well, which is the same day
        with suppress(ValueError, OverflowError):
            start = datetime.strptime(f"{begun} {whole}".strip(), form)
            step = timedelta(seconds=length) if length < _MONTH else timedelta(days=length // 86400)
            end = start + step
            if length >= _MONTH:
                end = end.replace(day=1)
            return f"{start}", f"{end}"
    raise UserError(
        f"`when` is compared with a date or a time, and {text or 'nothing'} is neither. Write 'when>=2026-01-31', "
        "'when<2026-01-31 15:00', 'when=31 Jan' or 'when>15:00'"
    )


def _at(have: Any, sign: str, span: tuple[str, str]) -> bool:
    """Return whether a time lies before, in or after a span of time."""
    if not have:
        return sign == "!="
    begin, end = span
    inside = begin <= have < end
    found = {"<": have < begin, "<=": have < end, ">": have >= end, ">=": have >= begin, "=": inside}
    return bool(found.get(sign, not inside))


def _is_pattern(text: str) -> bool:
    return any(mark in text for mark in "*?[")


def check(filters: Iterable[Filter], keys: Iterable[str], entries: Sequence[Entry]) -> None:
    """Raise UserError where a filter or a column names a key that no entry has, or compares text with a number."""
    known = dict.fromkeys((*PLACE, *_LATER, *(key for entry in _kinds(entries) for key in entry.keys())))  # noqa: SIM118 - an Entry is no mapping
    for key in (*(f.key for f in filters), *keys):
        if entries and key not in known:
            tails = [name for name in known if name.endswith(f"/{key}")]
            hint = (
                f" Did you mean {' or '.join(f'`{name}`' for name in tails)}?"
                if tails
                else nearest(key, known)
            )
            raise UserError(f"`{key}` is no key, score or field of these runs.{hint}")
    for one in filters:
        values = [value_of(entry, one.key) for entry in entries] if one.sign in _ORDERS else []
        texts = [value for value in values if isinstance(value, str)]
        if texts and _number(one.value) is not None and not any(_is_numeric(value) for value in values):
            tails = [f"'{name}{one.sign}{one.value}'" for name in known if name.endswith(f"/{one.key}")]
            raise UserError(
                f"`{one.key}{one.sign}{one.value}`: `{one.key}` is a word such as {texts[0]}, no number."
                + (f" Did you mean {' or '.join(tails)}?" if tails else f" Write '{one.key}={texts[0]}'")
            )
        if values and not texts and _number(one.value) is None:
            raise UserError(f"`{one.key}{one.sign}{one.value}`: `{one.key}` is compared with a number.")


def _is_numeric(value: Any) -> bool:
    """Return whether a value can be compared with a number: also a text that begins with a digit, as a date does."""
    return number_of(value) is not None or (isinstance(value, str) and value[:1].isdigit())


def hint(filters: Iterable[Filter], entries: Sequence[Entry]) -> str:
    """Return which text was meant, where no entry has the text that a filter asks for; "" where that is not the reason."""
    for one in filters:
        values = [value_of(entry, one.key) for entry in entries] if one.sign == "=" else []
        texts = {
            text
            for value in values
            for text in (value if isinstance(value, list) else [value])
            if isinstance(text, str)
        }
        if texts and not any(_equal(value, one.value) for value in values):
            return f". No `{one.key}` is {one.value}.{nearest(one.value, texts)}"
    return ""


def _kinds(entries: Sequence[Entry]) -> Iterable[Entry]:
    """Return one entry for each set of keys."""
    return {(*entry.facts, id(entry.base)): entry for entry in entries}.values()


def value_of(entry: Entry, key: str) -> Any:
    """Return a field of an entry, also where it lies and when it was begun."""
    return _PLACES[key](entry) if key in _PLACES else entry.value(key)


def name_of(entry: Entry) -> str:
    """Return the name of a run or sweep: the folders between the output folder and its own."""
    whole = entry.path
    if entry.sweep:
        whole = "" if entry.sweep == "." else entry.sweep
    return whole.rpartition("/")[0]


def when(entry: Entry) -> str:
    """Return when a run was begun, as its folder's name or its record says: 2026-01-31 12:00:00."""
    for part in reversed(() if entry.sweep else entry.path.split("/")):
        if found := _STAMP.match(part):
            return f"{found[1]} {found[2]}:{found[3]}:{found[4]}"
    stamp = entry.facts.get("begun") or entry.facts.get("written") or ""
    return str(stamp)[:19].replace("T", " ")


def rate(entry: Entry) -> Any:
    """Return the learning rate of a run: that of its optimizer, which need not follow the key `lr`."""
    own = entry.value_of_config("optimizer.lr")
    return entry.value("lr") if own is None else own


def batch_size(entry: Entry) -> Any:
    """Return the batch size of a run, the default for null."""
    own = entry.value_of_config("batch_size")
    return DEFAULT_BATCH_SIZE if own is None and entry.base is not None else own


_PLACES: dict[str, Callable[[Entry], Any]] = {
    "name": name_of,
    "lr": rate,
    "batch_size": batch_size,
    "when": when,
    "tag": lambda entry: entry.tags,
    "path": lambda entry: entry.path,
    "run": lambda entry: [entry.folder_name, job_label(entry.folder_name).rpartition("-")[2]],
    "sweep": lambda entry: [entry.sweep, entry.sweep.rpartition("-")[2]] if entry.sweep else [],
}


def _equal(have: Any, wanted: str) -> bool:
    """Return whether a value is the one that was written; texts may have wildcards: name=digits*."""
    if isinstance(have, str):
        return have == wanted or (_is_pattern(wanted) and fnmatchcase(have, wanted))
    if isinstance(have, list):
        if not have and wanted == "none":
            return True
        return any(_equal(item, wanted) for item in have) or cell(have) == wanted.replace(" ", "")
    if have is None or isinstance(have, bool):
        return {None: "null", True: "true", False: "false"}[have] == wanted.lower()
    if (number := number_of(have)) is not None:
        return number == _number(wanted) or str(have) == wanted
    return _equal(str(have), wanted)


def _ordered(have: Any, sign: str, wanted: str) -> bool:
    number, limit = number_of(have), _number(wanted)
    if number is not None and limit is not None:
        return _ORDERS[sign](number, limit)
    # a word such as `full` is neither above nor below a number
    alike = limit is None or _is_numeric(have)
    return isinstance(have, str) and bool(have) and alike and _ORDERS[sign](have, wanted)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
