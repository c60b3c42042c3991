"""The largest deviation between nested data of two runs, and their first difference."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def deviation(then: Any, now: Any) -> float:
    """Return the largest relative difference of nested data; 0 for equal bits, infinity for another structure."""
    if isinstance(then, Tensor) and isinstance(now, Tensor):
        return _deviation_of_tensors(then, now.detach().cpu())
    if isinstance(then, dict) and isinstance(now, dict):
        if then.keys() != now.keys():
            return math.inf
        return max((deviation(value, now[key]) for key, value in then.items()), default=0.0)
    if isinstance(then, list | tuple) and isinstance(now, list | tuple):
        if len(then) != len(now):
            return math.inf
        return max((deviation(a, b) for a, b in zip(then, now, strict=True)), default=0.0)
    if then == now or (then != then and now != now):
        return 0.0
    if isinstance(then, int | float) and isinstance(now, int | float):
        try:
            return _finite(abs(then - now) / max(abs(then), abs(now)))
        except OverflowError:
            # a whole number of a stranger that no float holds
            return math.inf
    return math.inf


def _deviation_of_tensors(then: Tensor, now: Tensor) -> float:
    if then.shape != now.shape or then.dtype != now.dtype:
        return math.inf
    if torch.equal(then, now):
        return 0.0
    then, now = then.double(), now.double()
    if bool((then.isnan() != now.isnan()).any()):
        return math.inf
    difference = (then - now).nan_to_num(0.0)
    if not bool(difference.any()):
        return 0.0
    return _finite(float(difference.norm() / max(float(then.nan_to_num(0.0).norm()), 1e-300)))


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def difference(then: Any, now: Any) -> str:
    """Return the first difference of nested data as text."""
    if isinstance(then, dict) and isinstance(now, dict):
        if missing := then.keys() ^ now.keys():
            return f"`{min(map(str, missing))}` is in one of the two only"
        key = next(key for key, value in then.items() if deviation(value, now[key]))
        return f"{key} {difference(then[key], now[key])}"
    if isinstance(then, list | tuple) and isinstance(now, list | tuple) and len(then) == len(now):
        return difference(*next(pair for pair in zip(then, now, strict=True) if deviation(*pair)))
    if isinstance(then, Tensor) and isinstance(now, Tensor):
        return f"deviates by {deviation(then, now):.2g} of its norm"
    return f"{str(then)[:60]!r} then, {str(now)[:60]!r} now"
