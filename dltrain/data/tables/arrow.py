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
        or is_duration(kind)
    )


def is_duration(kind: Any) -> bool:
    """Return whether values are durations, or times of a day, which count from midnight."""
    return bool(pa.types.is_duration(kind) or pa.types.is_time(kind))


def is_time(kind: Any) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def as_floats(column: Any) -> Floats:
    """Return an Arrow column of numbers or booleans as float64 with NaN for null; durations in seconds."""
    if is_duration(column.type):
        per_second = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[column.type.unit]
        # times of a day in seconds have 32 bits
        whole = column.cast(pa.int32()) if column.type.bit_width == 32 else column
        counts = whole.cast(pa.int64()).cast(pa.float64(), safe=False)
        return np.asarray(counts.to_numpy(), np.float64) / per_second
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if pa.types.is_integer(column.type):  # above 2**53 they lose digits, and are identifiers
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), np.float64)
    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)


def as_times(column: Any) -> NDArray[np.datetime64]:
    """Return an Arrow column of times, cut to microseconds. Raises pyarrow.ArrowException for years that these do not reach."""
    kind = column.type
    nanoseconds = pa.types.is_timestamp(kind) and kind.unit == "ns"
    return np.asarray(column.cast(pa.timestamp("us"), safe=not nanoseconds).to_numpy(), "datetime64[us]")


def as_text(column: Any) -> Any:
    """Return an Arrow column as text; lists and objects as Python writes them."""
    try:
        return column.cast(pa.string())
    except pa.ArrowException:
        texts = [None if value is None else str(value) for value in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])
