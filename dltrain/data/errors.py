"""DataError, and helpers for its messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DataError(ValueError):
    """The data cannot be used; the message names the key, the file or sample, the rule and the cure."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the known name closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def some(names: Iterable[object], limit: int = 8) -> str:
    """Join the first `limit` names by commas, and state how many are left out."""
    shown = [str(name) for name in names]
    rest = len(shown) - limit
    return ", ".join(shown[:limit]) + (f", … ({rest} more)" if rest > 0 else "")
