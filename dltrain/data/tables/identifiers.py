"""Detect numbers that identify rows, by their values and the name of their column."""

from __future__ import annotations

import re

import numpy as np

from dltrain.data.tables.text import Floats

MOST_LEVELS = 100  # a text column with more different values is text, not a category
# with fewer rows, a row number or a name is not distinguished from a quantity or a category
TELLING_ROWS = 10
_TELLING_NUMBERS = 100  # with fewer rows, values alone do not identify a row number
_REPEATS, _REPEATS_WHERE_SORTED = 5, 1  # that numbers at random would have, and numbers that name rows do not


def is_row_number(name: str, values: Floats) -> bool:
    """Tell whether numbers count the rows (0, 1, 2, … or 1, 2, 3, …), or are different numbers under a name such as `id`.

    A column named `time`, `week` and the like may count: it says when.
    """
    if len(values) < TELLING_ROWS or np.isnan(values).any():
        return False
    if values[0] in (0, 1) and bool((np.diff(values) == 1).all()):
        return not is_time_name(name)
    if bool((values != np.floor(values)).any()):
        return False
    if is_identifier_name(name):
        return len(different := np.unique(values)) == len(values) or len(different) > MOST_LEVELS
    return is_number_name(name) and len(np.unique(values)) == len(values)


def is_identifier(name: str, values: Floats) -> bool:
    """Tell whether numbers name the rows, by name or values; see docs/tables.md.

    By values alone: whole numbers in 100 rows or more that are all different (but for 1 %), though numbers drawn from their range at
    random would have repeated at least 5 times, or once where they rise or fall row by row. N numbers out of R have N² / 2R
    pairs of equal ones on average. Times are none: columns named so, and seconds, ms, µs or ns since 1970.
    """
    if is_row_number(name, values):
        return True
    values = values[~np.isnan(values)]
    count = len(values)
    if count < _TELLING_NUMBERS or is_time_name(name) or bool((values != np.floor(values)).any()):
        return False
    span = float(values.max() - values.min() + 1)
    # which must repeat: no need to sort the numbers
    if span < 0.99 * count:
        return False
    repeated = count - len(np.unique(values))
    expected = count**2 / 2 / span
    if repeated > count / 100 or 5 * repeated > expected or _is_unix_time(values):
        return False
    steps = np.diff(values)
    sorted_already = bool((steps > 0).all() or (steps < 0).all())
    return bool(expected >= (_REPEATS_WHERE_SORTED if sorted_already else _REPEATS))


def are_all_different(values: Floats) -> bool:
    """Tell whether whole numbers of 100 rows or more are all different, so that they may name the rows."""
    if len(values) < _TELLING_NUMBERS or not bool((values == np.floor(values)).all()):
        return False
    return bool(values.max() - values.min() + 1 >= len(values)) and len(np.unique(values)) == len(values)


def _is_unix_time(values: Floats) -> bool:
    """Whether all values are seconds, ms, µs or ns since 1970 that lie in the years 2000 to 2040."""
    low, high = float(values.min()), float(values.max())
    return any(9.46e8 * unit <= low and high <= 2.21e9 * unit for unit in (1, 1e3, 1e6, 1e9))


def is_identifier_name(name: str) -> bool:
    """Tell whether a column's name says that it numbers or names its rows.

    >>> [is_identifier_name(name) for name in ("id", "Patient_ID", "passengerId", "rownames", "column_1", "paid", "Unnamed: 0")]
    [True, True, True, True, True, False, True]
    """
    return (
        re.fullmatch(
            r"(?i:id|idx|index|uuid|guid|key|row|no\.?|nr\.?|obs|row[ _.-]?(id|nr|no|num|number|names?)|unnamed: ?\d+|column_1_*|.*[ _.-]id)"
            r"|.*[a-z](Id|ID)",
            name,
        )
        is not None
    )


def is_number_name(name: str) -> bool:
    """Tell whether a column's name says that it holds numbers of something, such as of orders: identifiers if all are different.

    >>> [is_number_name(name) for name in ("KundenNr", "account no", "order_number", "uid", "piano", "Kundennummer", "number of rooms")]
    [True, True, True, True, False, True, False]
    """
    return (
        re.fullmatch(r"(?i:.*(nummer|[ _.-](no|nr|num|number)\.?)|uid)|.*[a-z](No|Nr|Num|Number)\.?", name)
        is not None
    )


def is_time_name(name: str) -> bool:
    """Tell whether a column's name says that it counts time.

    >>> [is_time_name(name) for name in ("time", "Day", "week_number", "t", "timestamp", "nWomen", "daylight")]
    [True, True, True, True, True, False, False]
    """
    words = (
        r"(t|time|timestamp|datetime|year|quarter|month|week|day|hour|minute|second|date|period|step|trend)s?"
    )
    return re.fullmatch(rf"(?i:{words}([ _.-].*)?)", name) is not None
