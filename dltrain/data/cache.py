"""Decoded once, mapped into memory from then on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

_FORMAT = 1  # raise it when a decoder changes: caches of older decoders are then made anew


def decoded(
    path: Path, sources: Sequence[Path], decode: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """What `decode()` returns, from the file `path` when that was made from the `sources` as they are now.

    The tensors are mapped from the file: reading starts at once and costs no memory until they are used.
    Where the folder cannot be written to, they are decoded each time.
    """
    made_from = fingerprint(sources)
    cached = _read(path, made_from)
    if cached is not None:
        return cached
    tensors = decode()
    if not _write(path, tensors, made_from):
        return tensors
    return _read(path, made_from) or tensors


def fingerprint(sources: Sequence[Path]) -> str:
    """A hash of name, size and time of change of the files, and of the cache's format."""
    facts = [(source.name, source.stat().st_size, source.stat().st_mtime_ns) for source in sources]
    return hashlib.sha256(repr((_FORMAT, facts)).encode()).hexdigest()[:16]


def _read(path: Path, made_from: str) -> dict[str, Tensor] | None:
    """The tensors of the file, or None when it is missing, damaged or made from other sources."""
    try:
        content = torch.load(path, mmap=True, weights_only=True, map_location="cpu")
    except Exception:  # torch's unpickler raises all kinds for what is no file of its own
        return None
    if not isinstance(content, dict) or content.pop("made_from", None) != made_from:
        return None
    return content


def _write(path: Path, tensors: dict[str, Tensor], made_from: str) -> bool:
    """Whether the file could be written; it is complete or not there."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({**tensors, "made_from": made_from}, unfinished)
        os.replace(unfinished, path)
    except (OSError, RuntimeError):  # torch reports a full disk as RuntimeError
        with suppress(OSError):
            unfinished.unlink()
        return False
    return True
