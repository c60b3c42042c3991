"""The century of dates that give two digits for their year."""

from __future__ import annotations

import datetime

import numpy as np
from numpy.typing import NDArray

from dltrain.data.tables.text import Times

# the last year that strptime takes two digits for
_POSIX_LAST = 2068


def has_century(form: str) -> bool:
    """Whether dates of this form name the century of their year."""
    return "%y" not in form


def last_year_of(times: Times) -> int:
    """Return the last of the hundred years that two-digit years stand for, where `times` (N,) were read up to 2068, as POSIX does.

    It is this year where some would lie in years to come, unless that tore apart a range that goes on into them: dates of birth
    from 35 to 04 are those of 1935 to 2004, and dates of payment from 24 to 31 those of 2024 to 2031.
    """
    this_year, years = _this_year(), _years(times)
    past = np.where(years > this_year, years - 100, years)
    torn = len(years) > 0 and np.ptp(past) > np.ptp(years)
    return _POSIX_LAST if torn or not (years > this_year).any() else this_year


def in_century(times: Times, last_year: int) -> Times:
    """Return times of two-digit years, read up to 2068, with the years of the hundred up to `last_year`; 0 leaves them alone."""
    if not last_year:
        return times
    months = times.astype("datetime64[M]")
    moved = (months - np.timedelta64(1200, "M")).astype(times.dtype) + (times - months)
    return np.where(~np.isnat(times) & (_years(times) > last_year), moved, times)


def _this_year() -> int:
    return datetime.date.today().year


def _years(times: Times) -> NDArray[np.int64]:
    years: NDArray[np.int64] = times.astype("datetime64[Y]").astype(np.int64) + 1970
    return years
