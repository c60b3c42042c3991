"""The kinds of arrays that are taken, and the precision of those in float64: what float32 keeps, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dltrain.data.errors import DataError

KEPT = 1e-3  # rounding error of a feature, as a fraction of its deviation, beyond which it is refused
_REAL = "fiub"
_NUMBERS = (bool, int, float, np.bool_, np.integer, np.floating)
# the cure for arrays of other kinds, by the kind
_CURES = {
    "c": ". Give real and imaginary parts as values of their own: np.concatenate([x.real, x.imag], 1)",
    "M": ". Give the days since a date: (x - x.min()) / np.timedelta64(1, 'D')",
    "m": ". Give them in a unit: x / np.timedelta64(1, 'D')",
    "U": ". Give texts that are numbers as such, x.astype(float); dataset=csv encodes other texts",
    "S": ". Give texts that are numbers as such, x.astype(float); dataset=csv encodes other texts",
}


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


def real_numbers(values: Any, what: str = "the inputs") -> np.ndarray[Any, Any]:
    """Return an array of real numbers that torch knows. Raises DataError for other kinds; `what` is the subject of its sentence."""
    array = unboxed(plain_array(values), what)
    if array.dtype.kind not in _REAL:
        raise DataError(
            f"{what} have shape {array.shape} and kind {array.dtype}; they must be real numbers{_CURES.get(array.dtype.kind, '')}"
        )
    return array.astype(np.float64) if array.dtype.kind == "f" and array.dtype.itemsize > 8 else array


def real_tensor(values: Tensor, what: str = "the inputs") -> Tensor:
    """Return a tensor on the CPU, without its graph. Raises DataError for complex numbers."""
    if values.is_complex():
        raise DataError(
            f"{what} have shape {tuple(values.shape)} and kind {values.dtype}; they must be real numbers{_CURES['c']}"
        )
    return values.detach().cpu()


def unboxed(array: np.ndarray[Any, Any], what: str) -> np.ndarray[Any, Any]:
    """Return an array of Python objects, as pandas gives it, as numbers or texts. Raises DataError for a value that is neither.

    >>> unboxed(np.array([1, 2.5, True], object), "the targets")
    array([1. , 2.5, 1. ])
    """
    if array.dtype.kind != "O":
        return array
    values = array.ravel().tolist()
    for kinds in (_NUMBERS, (str,)):
        if all(isinstance(value, kinds) for value in values):
            return np.array(values).reshape(array.shape)
    first = next((kinds for kinds in (_NUMBERS, (str,)) if isinstance(values[0], kinds)), ())
    i = next((i for i, value in enumerate(values) if not isinstance(value, first)), 0)
    where = f"sample {i // (array.size // len(array))}" if array.ndim else "a sample"
    raise DataError(
        f"{what} are Python objects, and {where} has {str(values[i])[:40]!r} of type {type(values[i]).__name__}; they must be "
        "numbers. Convert such values by x.astype(float), or leave such samples out; dataset=csv encodes texts, dates and missing values"
    )


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
