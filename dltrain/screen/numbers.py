"""Numbers, durations and shares as a person reads them."""

from __future__ import annotations

import math

from dltrain.screen.notebook import Line

_BINARY = ("KiB", "MiB", "GiB", "TiB")


def number(value: float) -> str:
    """Return four decimals for numbers of ordinary size, scientific notation for others."""
    size = abs(value)
    if value == 0 or 1e-3 <= size < 100:
        return f"{value:.4f}"
    return f"{value:.2f}" if 100 <= size < 1e5 else f"{value:.2e}"


def rate(per_second: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if per_second >= size:
            return f"{per_second / size:.1f}{unit}"
    return f"{per_second:.0f}"


def clock(seconds: float) -> str:
    """Return a duration as 0.42 s, 12.3 s, 1:05 or 2:00:31."""
    if seconds < 60 or not math.isfinite(seconds):
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    return minutes(seconds)


def minutes(seconds: float) -> str:
    """Return whole seconds as 0:05, 1:05 or 2:00:31."""
    hours, rest = divmod(max(0, round(seconds)), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def in_bytes(size: float) -> str:
    """Return a number of bytes in the unit in which it has at most four digits before the point.

    >>> in_bytes(512), in_bytes(2048), in_bytes(3 * 2**20)
    ('512 B', '2.0 KiB', '3.0 MiB')
    """
    if size < 1024:
        return f"{size:.0f} B"
    power = min(len(_BINARY), int(math.log(size, 1024)))
    return f"{size / 1024**power:.1f} {_BINARY[power - 1]}"


def bar(share: float, width: int) -> Line:
    full = int(share * width)
    return [("━" * full, "green"), ("─" * (width - full), "dim")] if width >= 4 else []
