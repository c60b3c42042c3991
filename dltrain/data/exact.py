"""The precision of arrays in float64: what float32 keeps, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dltrain.data.errors import DataError

KEPT = 1e-3  # rounding error of a feature, as a fraction of its deviation, beyond which it is refused


def quantities(values: np.ndarray[Any, Any]) -> Tensor:
    """Return targets of a regression as float32 where that is exact, else as float64, in which they are standardized.

    Raises DataError for whole numbers that float64 does not tell apart.
    """
    exact = values.astype(np.float64)
    large = len(values) and values.dtype.kind in "iu" and np.abs(exact).max() >= 2.0**53
    if large and len(np.unique(values)) > len(np.unique(exact)):
        raise DataError(
            f"the targets are whole numbers up to {values.max()}, and float64 cannot represent their differences. Subtract the "
            "offset first"
        )
    single = values.astype(np.float32)
    return torch.from_numpy(single if np.array_equal(single, values, equal_nan=True) else exact)


def plain_array(values: Any) -> np.ndarray[Any, Any]:
    """Return an array in the byte order of this machine. Raises DataError for masked values, whose numbers mean nothing."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise DataError(
            f"{np.ma.count_masked(values)} of the {values.size} values are masked; fill them first: data.filled(…)"
        )
    array = np.asarray(values)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def check_precision(values: np.ndarray[Any, Any]) -> None:
    """Raise DataError for features (N, F) whose differences float32, the type of the inputs, cannot represent.

    An offset of 10⁹ leaves no digit of a feature with deviation 1. Columns of CSV files are centered in float64 first.
    """
    if values.ndim != 2 or values.dtype.itemsize <= 4 or not len(values):
        return
    exact = values.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        rounding = np.abs(exact.astype(np.float32) - exact).max(0)
    # of whole numbers beyond 2⁵³ float64 has lost the differences already
    differ = values.max(0) > values.min(0)
    lost = ((rounding > KEPT * exact.std(0)) & (exact.max(0) > exact.min(0))) | (
        differ & (exact.max(0) == exact.min(0))
    )
    if lost.any():
        i = int(lost.argmax())
        raise DataError(
            f"feature {i} has mean {exact[:, i].mean():.6g} and deviation {exact[:, i].std():.3g}: float32 cannot represent these "
            "differences. Subtract the offset first, or use a CSV file, whose columns are centered in float64"
        )
