"""Which values an Arrow column holds, and how they become arrays of numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dltrain.data.tables.text import Floats


def is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_number(kind: Any) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_duration(kind)
    )


def is_time(kind: Any) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def as_floats(column: Any) -> Floats:
    """Return an Arrow column of numbers or booleans as float64 with NaN for null; durations in seconds."""
    if pa.types.is_duration(column.type):
        return np.asarray(column.cast(pa.duration("us")).cast(pa.int64()).cast(pa.float64()).to_numpy()) / 1e6
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if pa.types.is_integer(column.type):  # above 2**53 they lose digits, and are identifiers
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), np.float64)
    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)


def as_times(column: Any) -> NDArray[np.datetime64]:
    return np.asarray(column.cast(pa.timestamp("us")).to_numpy(), "datetime64[us]")


def as_text(column: Any) -> Any:
    """Return an Arrow column as text."""
    return column.cast(pa.string())
