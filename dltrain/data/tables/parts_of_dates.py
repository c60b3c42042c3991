"""Year, month, weekday and hour of times, as numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def part_of(times: NDArray[Any], part: str) -> NDArray[Any]:
    """Return a part of times: `year` with its fraction (2024.5 in July), `month` 1 to 12, `weekday` from Monday 0, `hour`."""
    if part == "year":
        years = times.astype("datetime64[Y]")
        start = years.astype("datetime64[us]")
        length = ((years + np.timedelta64(1, "Y")).astype("datetime64[us]") - start).astype(np.float64)
        return years.astype(np.int64) + 1970.0 + (times - start).astype(np.float64) / length
    if part == "month":
        return times.astype("datetime64[M]").astype(np.int64) % 12 + 1.0
    if part == "weekday":
        return (times.astype("datetime64[D]").astype(np.int64) + 3) % 7 + 0.0
    return (times - times.astype("datetime64[D]")).astype(np.float64) / 3.6e9
