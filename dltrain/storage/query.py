"""Filters of runs: `key=value`, `key!=value`, `key<number` and their kin, on any key, score or field."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from operator import ge, gt, le, lt
from typing import Any

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


@dataclass(frozen=True)
class Filter:
    """One condition."""

    key: str
    sign: str
    value: str

    def holds(self, entry: Entry) -> bool:
        """Return whether an entry satisfies it; a missing value satisfies neither `<` nor `>`."""
        have = value_of(entry, self.key)
        if self.sign in _ORDERS:
            return _ordered(have, self.sign, self.value)
        return _equal(have, self.value) == (self.sign == "=")


def read_filter(text: str) -> Filter:
    """Parse `key=value` and its kin. Raises UserError for another form."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise UserError(
            f"`{text}` is no folder and no filter. Write 'key=value', 'key<number' or 'key>=number', in quotes"
        )
    return Filter(found[1].strip(), found[2], found[3].strip())


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
        if values and not texts and _number(one.value) is None:
            raise UserError(f"`{one.key}{one.sign}{one.value}`: `{one.key}` is compared with a number.")


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
    for part in reversed(entry.path.split("/")):
        if (found := _STAMP.match(part)) and not entry.sweep:
            return f"{found[1]} {found[2]}:{found[3]}:{found[4]}"
    stamp = entry.facts.get("begun") or entry.facts.get("written") or ""
    return str(stamp)[:19].replace("T", " ")


_PLACES: dict[str, Callable[[Entry], Any]] = {
    "name": name_of,
    "when": when,
    "tag": lambda entry: entry.tags,
    "path": lambda entry: entry.path,
    "run": lambda entry: [entry.folder_name, job_label(entry.folder_name).rpartition("-")[2]],
    "sweep": lambda entry: [entry.sweep, entry.sweep.rpartition("-")[2]] if entry.sweep else [],
}


def _equal(have: Any, wanted: str) -> bool:
    """Return whether a value is the one that was written; texts may have wildcards: name=digits*."""
    if isinstance(have, str):
        return have == wanted or (any(sign in wanted for sign in "*?[") and fnmatchcase(have, wanted))
    if isinstance(have, list):
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
    return isinstance(have, str) and bool(have) and _ORDERS[sign](have, wanted)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
