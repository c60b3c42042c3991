"""Arrays of more digits than float32 has: what is kept, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dltrain.data.errors import DataError

KEPT = 1e-3  # rounding error of a feature, as a fraction of its deviation, beyond which it is refused


def quantities(values: np.ndarray[Any, Any]) -> Tensor:
    """Return targets of a regression in float32 where that holds them, else in float64, in which they are standardized."""
    single = values.astype(np.float32)
    return torch.from_numpy(
        single if np.array_equal(single, values, equal_nan=True) else values.astype(np.float64)
    )


def check_precision(values: np.ndarray[Any, Any]) -> None:
    """Raise DataError for features (N, F) of which float32, in which arrays are trained on, keeps too little.

    An offset of 10⁹ leaves no digit of a feature with deviation 1. Tables in CSV files are centered in float64 before.
    """
    if values.ndim != 2 or values.dtype.itemsize <= 4 or not len(values):
        return
    exact = values.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        lost = np.abs(exact.astype(np.float32) - exact).max(0) > KEPT * exact.std(0)
    if lost.any():
        i = int(lost.argmax())
        raise DataError(
            f"feature {i} has values around {exact[:, i].mean():.6g} that differ by {exact[:, i].std():.3g}: float32 does not tell them "
            "apart. Subtract the offset before, or give the data as a CSV file, whose columns are centered first"
        )
