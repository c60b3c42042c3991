"""Inputs for parsers: seeds that are changed at random, byte by byte, token by token, or as nested data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

TOKENS = [text.encode() for text in (
    "0", "-1", "1e999", "NaN", "Infinity", "1.5", "9" * 400, "-" * 9, "null", "true", "''", '"', "'", "\\", "/", "../", "\0", "\n", "\r\n", ",",
    ";", "\t", "=", ":", "{", "}", "[", "]", "[" * 80, "{a: " * 70, "&a ", "*a", "<<: ", "!!python/object/apply:os.system ", "${oc.env:HOME}",
    "${oc.create:{a:1}}", "${", "}", "~", "+", "++", "choice(", "range(", "interval(", "tag(", "glob(*)", ")", "_target_", "_partial_", "os.system",
    "\x1b[31m", "ÿ", "数", "\u202e", "#", "- ", "---\n", "? ", "|\n", "step", "format", "sha256", "best_step", "__metadata__", "F32", "PK\x03\x04",
)] + [b"\xff\xfe", b"\x80", b"\x00" * 8, b"\xff" * 8, b"\x93NUMPY", b"\x1f\x8b"]  # fmt: skip
VALUES: list[Any] = [
    None, True, 0, -1, 2**63, 10**30, 1.5, float("nan"), float("inf"), "", "x", "9" * 300, "../x", "\0", "\x1b[31m", [], {}, [[]], [1], {"a": 1},
    {"_target_": "os.system"}, ["x"] * 50,
]  # fmt: skip


def changed(seeds: Sequence[bytes], draw: Random) -> bytes:
    """Return one of the seeds with one to eight changes."""
    content = draw.choice(seeds)
    if draw.random() < 0.4 and (nested := _as_json(content)) is not None:
        for _ in range(draw.randint(1, 3)):
            nested = _other_leaf(nested, draw)
        return json.dumps(nested).encode()
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        content = draw.choice(CHANGES)(content, seeds, draw)
    return content


def _as_json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _other_leaf(node: Any, draw: Random) -> Any:
    """Nested data with another value, one key less or one more, at a random place."""
    if isinstance(node, dict) and node and draw.random() < 0.85:
        key = draw.choice(list(node))
        kind = draw.random()
        if kind < 0.15:
            return {k: v for k, v in node.items() if k != key}
        if kind < 0.25:
            return node | {draw.choice(["x", "format", "_target_", ""]): draw.choice(VALUES)}
        return node | {key: _other_leaf(node[key], draw)}
    if isinstance(node, list) and node and draw.random() < 0.8:
        place = draw.randrange(len(node))
        return [*node[:place], _other_leaf(node[place], draw), *node[place + 1 :]]
    return draw.choice(VALUES)


def _flip(content: bytes, seeds: Sequence[bytes], draw: Random) -> bytes:
    if not content:
        return content
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


def _insert(content: bytes, seeds: Sequence[bytes], draw: Random) -> bytes:
    place = draw.randint(0, len(content))
    return content[:place] + draw.choice(TOKENS) + content[place:]


def _replace(content: bytes, seeds: Sequence[bytes], draw: Random) -> bytes:
    place = draw.randint(0, len(content))
    return content[:place] + draw.choice(TOKENS) + content[place + draw.randint(1, 8) :]


def _delete(content: bytes, seeds: Sequence[bytes], draw: Random) -> bytes:
    place = draw.randint(0, len(content))
    return content[:place] + content[place + draw.randint(1, 20) :]


def _repeat(content: bytes, seeds: Sequence[bytes], draw: Random) -> bytes:
    place = draw.randint(0, len(content))
    piece = content[place : place + draw.randint(1, 40)]
    return content[:place] + piece * draw.randint(1, 30) + content[place:]


def _splice(content: bytes, seeds: Sequence[bytes], draw: Random) -> bytes:
    other = draw.choice(seeds)
    return content[: draw.randint(0, len(content))] + other[draw.randint(0, len(other)) :]


def _cut(content: bytes, seeds: Sequence[bytes], draw: Random) -> bytes:
    return content[: draw.randint(0, len(content))]


CHANGES = (_flip, _insert, _replace, _delete, _repeat, _splice, _cut, _insert, _replace)
