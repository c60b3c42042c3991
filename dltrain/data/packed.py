"""How much a compressed file of data may unpack to: a few kilobytes of a stranger's could fill the memory."""

from __future__ import annotations

from pathlib import Path

# more bytes than LARGE may be compressed by at most this factor
LARGE, MOST_PACKED = 100_000_000, 100


def most_unpacked(path: Path) -> int:
    """Return how many bytes a file may unpack to."""
    return max(LARGE, MOST_PACKED * path.stat().st_size)


def too_much(path: Path) -> str:
    """Return the reason why a file is refused, and what to do about one's own."""
    return f"{path} unpacks to more than {MOST_PACKED} times its {path.stat().st_size:,} bytes"
