"""A line that says how far the reading of data is: redrawn on a terminal, now and then a new one elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from dltrain.data.nested import contents
from dltrain.text import say

# seconds until the first line, between two on a terminal, and between two elsewhere
_FIRST, _REDRAWN, _NEXT = 0.5, 0.2, 10.0
_shown: ContextVar[bool] = ContextVar("shown", default=True)


# files, and bytes of one file, whose reading takes longer than a moment: a table of 25 MB takes 1.7 s of CPU
_MANY, _LARGE = 2000, 2**24


def say_reading(paths: Iterable[str]) -> None:
    """Say which of the files and folders that the user named take long to read, before torch is imported."""
    for path in paths:
        path = os.path.expanduser(path)
        if _is_large(path):
            size = "" if os.path.isdir(path) else f" ({os.path.getsize(path) / 1e6:,.0f} MB)"
            say(f"reading {path}{size}")


def _is_large(path: str) -> bool:
    if not os.path.isdir(path):
        return os.path.isfile(path) and os.path.getsize(path) > _LARGE
    return any(number > _MANY for number, _ in enumerate(contents(path), start=1))


@contextmanager
def progress_shown(shown: bool) -> Iterator[None]:
    """Show lines inside, or none of them."""
    token = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(token)


class Progress:
    """Counts to a total, and says so on standard error where that takes longer than a moment."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self._begun = time.monotonic()
        self._due = self._begun + _FIRST
        self._live = False

    def advance(self, count: int = 0) -> None:
        """Count `count` more; 0 shows that time goes on."""
        self.done += count
        now = time.monotonic()
        if now < self._due or not _shown.get():
            return
        self._live = sys.stderr.isatty()
        self._due = now + (_REDRAWN if self._live else _NEXT)
        left = (self.total - self.done) * (now - self._begun) / max(self.done, 1)
        ending = f" · {left:.0f} s left" if self.done else ""
        line = f"{self.what} {self.done:,} of {self.total:,}{ending}"
        sys.stderr.write(f"\r{line}\x1b[K" if self._live else f"{line}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Remove the line from a terminal."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
