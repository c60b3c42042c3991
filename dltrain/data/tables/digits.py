"""Whole numbers beyond 2⁵³, which float64 does not always tell apart: they are codes then, not quantities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dltrain.data.tables.arrow import as_floats

LARGEST = 2.0**53  # the largest whole number below which all are float64


def merge(column: Any) -> bool:
    """Return whether different integers or decimals of an Arrow column are the same float64."""
    if not (pa.types.is_integer(column.type) or pa.types.is_decimal(column.type)):
        return False
    values = as_floats(column)
    if not (np.abs(values) >= LARGEST).any():
        return False
    return bool(
        pc.count_distinct(column, mode="only_valid").as_py() > len(np.unique(values[~np.isnan(values)]))
    )


def texts_merge(texts: Any) -> bool:
    """Return whether different texts of digits are the same float64; leading zeros do not count."""
    long = texts.filter(pc.match_substring_regex(texts, r"^[1-9]\d{15,}$")).unique()
    return len(np.unique(long.cast(pa.float64()).to_numpy(zero_copy_only=False))) < len(long)
