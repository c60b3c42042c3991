"""A cache file of decoded samples, mapped into memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

# increase it when a decoder changes, which invalidates older caches
_FORMAT = 1


def decoded(
    path: Path, sources: Sequence[Path], decode: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Return `decode()`, read from the file `path` when it was made from the current `sources`.

    The tensors are mapped from the file: loading is immediate and takes no memory until they are used. They are decoded each
    time where the folder is not writable.
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
    """Return a hash of name, size and modification time of the files, and of the cache's format."""
    facts = [(source.name, source.stat().st_size, source.stat().st_mtime_ns) for source in sources]
    return hashlib.sha256(repr((_FORMAT, facts)).encode()).hexdigest()[:16]


def _read(path: Path, made_from: str) -> dict[str, Tensor] | None:
    """Return the tensors of the file, or None when it is missing, damaged or made from other sources."""
    try:
        content = torch.load(path, mmap=True, weights_only=True, map_location="cpu")
    # torch's unpickler raises many kinds of exceptions for a foreign file
    except Exception:
        return None
    if not isinstance(content, dict) or content.pop("made_from", None) != made_from:
        return None
    return content


def _write(path: Path, tensors: dict[str, Tensor], made_from: str) -> bool:
    """Write the file completely or not at all; return whether it was written."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({**tensors, "made_from": made_from}, unfinished)
        os.replace(unfinished, path)
    # torch reports a full disk as RuntimeError
    except (OSError, RuntimeError):
        with suppress(OSError):
            unfinished.unlink()
        return False
    return True
