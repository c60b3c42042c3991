"""Read JSON that may come from others: a duplicate key is refused, because readers differ in which value they keep."""

from __future__ import annotations

import json
from typing import Any

# lists and objects of a text: each takes 60 bytes or more of memory, and two in the text
MOST_NODES = 5_000_000


def loads(text: str | bytes) -> Any:
    """Return the plain data of a JSON text. Raises ValueError for invalid JSON, a duplicate key, and more lists than a run writes.

    >>> loads('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ValueError: duplicate key 'a'
    """
    # those inside of texts count, too, of which no record holds as many
    if len(text) > MOST_NODES and _nodes(text) > MOST_NODES:
        raise ValueError(f"it has more than {MOST_NODES:,} lists and objects")
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _nodes(text: str | bytes) -> int:
    if isinstance(text, str):
        return text.count("[") + text.count("{")
    return text.count(b"[") + text.count(b"{")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"duplicate key {name[:80]!r}")
            seen.add(name)
    return found
