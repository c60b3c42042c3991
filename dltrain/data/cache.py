"""A cache file of decoded samples, mapped into memory."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

# increase it when a decoder changes, which invalidates older caches
_FORMAT = 2
_PIECE = 32 * 2**20  # bytes that a thread hashes at once


def decoded(
    path: Path, sources: Sequence[Path], decode: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Return `decode()`, read from the file `path` when it was made from the current `sources`.

    The tensors are mapped from the file, which holds their digest: one that says something else is made again. They are decoded each
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
        if not stat.S_ISREG(path.lstat().st_mode):  # through a link or a pipe, anything could come
            return None
        content = torch.load(path, mmap=True, weights_only=True, map_location="cpu")
    # torch's unpickler raises many kinds of exceptions for a foreign file
    except Exception:
        return None
    if not isinstance(content, dict) or content.pop("made_from", None) != made_from:
        return None
    said = content.pop("sha256", None)
    if not all(isinstance(value, Tensor) for value in content.values()) or said != digest(content):
        return None
    return content


def digest(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of tensors with their names and shapes, whose pieces are hashed by all cores."""
    names = [(name, str(tensor.dtype), tuple(tensor.shape)) for name, tensor in sorted(tensors.items())]
    flat = [tensors[name].contiguous().flatten().view(torch.uint8) for name, *_ in names]
    pieces = [piece for tensor in flat for piece in tensor.split(_PIECE)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda piece: hashlib.sha256(piece.numpy().data).digest(), pieces))
    return hashlib.sha256(repr(names).encode() + b"".join(found)).hexdigest()


def _write(path: Path, tensors: dict[str, Tensor], made_from: str) -> bool:
    """Write the file completely or not at all; return whether it was written."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "xb") as stream:
            torch.save({**tensors, "made_from": made_from, "sha256": digest(tensors)}, stream)
        os.replace(unfinished, path)
    # torch reports a full disk as RuntimeError
    except (OSError, RuntimeError):
        with suppress(OSError):
            unfinished.unlink()
        return False
    return True
