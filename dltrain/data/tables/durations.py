"""Durations in text, as pandas, polars and Python write them, in seconds; and the units of time that numbers may have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dltrain.data.tables import text
from dltrain.data.tables.text import Flags, Floats

UNIT = "s"  # of durations
# seconds of one, by the spellings that follow a number
SECONDS = {
    name: seconds
    for names, seconds in (
        ("ms", 1e-3),
        ("s sec second seconds", 1.0),
        ("min minute minutes", 60.0),
        ("h hr hrs hour hours", 3600.0),
        ("day days", 86_400.0),
        ("week weeks", 604_800.0),
    )
    for name in names.split()
}
_NUMBER = r"[+-]?\d{1,9}(?:[.,]\d{1,9})?"
# `1 days 02:03:04.5`, `-1 days +23:59:59`, `-1 day, 23:59:59`, `138:49:54`; hours and minutes alone may be minutes and seconds
_CLOCK = (
    r"^(?:(?P<days>[+-]?\d{1,9}) days?,? )?(?P<sign>[+-]?)(?P<hours>\d{1,9}):(?P<minutes>[0-5]\d):"
    r"(?P<seconds>[0-5]\d(?:[.,]\d{1,9})?)$"
)
# ISO 8601: `PT17H25M`, `P1DT2H`, `-PT0.5S`, `P-1DT23H59M59S`
_ISO = (
    rf"^(?P<sign>[+-]?)P(?:(?P<weeks>{_NUMBER})W)?(?:(?P<days>{_NUMBER})D)?"
    rf"(?:T(?:(?P<hours>{_NUMBER})H)?(?:(?P<minutes>{_NUMBER})M)?(?:(?P<seconds>{_NUMBER})S)?)?$"
)
DURATION = f"(?:{_CLOCK})|(?:{_ISO})"
_PARTS = {"weeks": 604_800.0, "days": 86_400.0, "hours": 3600.0, "minutes": 60.0, "seconds": 1.0}


def are_durations(texts: Any) -> Flags:
    """Tell which texts are durations."""
    if not text.matches(texts, DURATION).any():
        return np.zeros(len(texts), bool)
    # P and PT have no part, and PT none behind the T
    return text.matches(texts, _CLOCK) | (text.matches(texts, _ISO) & text.matches(texts, "[WDHMS]$"))


def in_seconds(texts: Any) -> tuple[Floats, Flags]:
    """Return durations in seconds (NaN where a text is none), and which of the texts are some."""
    good = are_durations(texts)
    values = np.full(len(texts), np.nan)
    for pattern in (_CLOCK, _ISO):
        chosen = good & text.matches(texts, pattern)
        if chosen.any():
            values[chosen] = _read(texts.filter(pa.array(chosen)), pattern)
    # nanoseconds, as Arrow has them, so that both give the same bits
    return np.round(values * 1e9) / 1e9, good


def _read(texts: Any, pattern: str) -> Floats:
    found = pc.extract_regex(texts, pattern)
    names = [found.type.field(i).name for i in range(found.type.num_fields)]
    minus = text.flags(pc.equal(pc.struct_field(found, "sign"), "-"))
    parts = {name: _numbers(pc.struct_field(found, name)) * _PARTS[name] for name in names if name != "sign"}
    # the sign of a clock is that of the hours, the one of ISO 8601 that of the whole
    days = parts.pop("days") if pattern == _CLOCK else 0.0
    # the sum of the whole parts is exact
    total = sum(parts.values(), np.zeros(len(texts)))
    return days + np.where(minus, -total, total)


def _numbers(texts: Any) -> Floats:
    """Return numbers, 0 for an absent one."""
    plain = pc.replace_substring(pc.if_else(pc.equal(texts, ""), "0", texts), ",", ".")
    return np.asarray(plain.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
