"""How many gray levels the images of 16 bits of a folder are left with, as bytes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dltrain.data.image_files import LOOKED_AT, ImageFiles
from dltrain.data.pixels import range_of_16_bits
from dltrain.processors import cores

# so few are named: the two upper bits are empty
_FEW_LEVELS = 65


def levels_note(reader: ImageFiles) -> list[str]:
    """Return a line where images of 16 bits are left with few of the 256 gray levels, as scans of 12 bits are."""
    positions = dict.fromkeys(np.linspace(0, len(reader) - 1, LOOKED_AT, dtype=int).tolist())
    with ThreadPoolExecutor(cores()) as pool:
        ranges = [found for found in pool.map(range_of_16_bits, map(reader.path, positions)) if found]
    if not ranges:
        return []
    white, low, high = reader.form.white, min(low for low, _ in ranges), max(high for _, high in ranges)
    levels = _level(high, white) - _level(low, white) + 1
    if levels > _FEW_LEVELS:
        return []
    better = (1 << max(high, 1).bit_length()) - 1
    gained = _level(high, better) - _level(low, better) + 1
    cure = (
        f"to keep {gained}, say which value is white: dataset.full_scale={better}"
        if gained >= 2 * levels
        else "to keep more, use dataset=npz with floats"
    )
    return [
        f"levels   the images of 16 bits have values from {low:,} to {high:,} (of {len(ranges)} looked at), and {white:,} is white: "
        f"{levels} of 256 gray levels are left; {cure}"
    ]


def _level(value: int, white: int) -> int:
    return min((value * 255 + white // 2) // white, 255)
