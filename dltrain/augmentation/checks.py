"""Checks of parameters against the data."""

from __future__ import annotations

from dltrain.data.spec import DataSpec


def require(ok: bool, key: str, value: object, rule: str, cure: str) -> None:
    """Raise a ValueError with the key, its value, the rule and the cure unless `ok`."""
    if not ok:
        raise ValueError(f"augmentation.{key} is {value}; it must be {rule} ({cure})")


def picture_shape(spec: DataSpec, word: str) -> tuple[int, int, int]:
    """Return the (C, H, W) of the pictures. Raises ValueError for data that are not pictures."""
    if len(spec.input_shape) != 3:
        raise ValueError(
            f"augmentation={word} needs pictures of shape (C, H, W), but this dataset's samples have shape "
            f"{tuple(spec.input_shape)}; for tables use augmentation=noise, mixup or none"
        )
    channels, height, width = spec.input_shape
    return channels, height, width


def check_brightness(spec: DataSpec, word: str) -> None:
    """Raise ValueError for images of floats outside of [0, 1], which operations on brightness would cut off."""
    low, high = spec.value_range
    if low < 0 or high > 1:
        raise ValueError(
            f"augmentation={word} needs pictures of bytes, or of floats in [0, 1]; those of this dataset go from {low:.6g} to {high:.6g}. "
            "Save them as uint8, or divide them, or leave it out"
        )
