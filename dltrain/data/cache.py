"""Caches of decoded samples, mapped into memory.

They lie in a folder of the user's own, never beside the data: data from elsewhere cannot bring a cache with them. A cache is
named after the absolute path of what it was made from, and says by which files it was made; it is read as a regular file only,
and holds a digest, by which damage is found.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dltrain.data.cache_folder import folder

# increase it when a decoder changes, which invalidates older caches
FORMAT = 2
# bytes of one cache, and of all together; the ones that were used least recently go first
MOST_BYTES, MOST_BYTES_OF_ALL = 2 * 2**30, 10 * 2**30
_ENDING = ".dltrain-cache"
_DAY = 86400.0  # seconds


def place(source: Path, kind: str = "") -> Path:
    """Return the cache file of what was read from `source`, a file or a folder; `kind` distinguishes several."""
    name = f"{source.absolute()} {kind}"
    return folder() / f"{source.name[:40]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:24]}{_ENDING}"


def key_of(facts: Iterable[tuple[str, os.stat_result]]) -> str:
    """Return a hash of names and states of files: size, time of change (which no program can set), inode and modification time.

    It misses a file that was overwritten by one of its size within one tick of the file system's clock, 1 to 10 ms on Linux;
    on Windows, one whose modification time was set back.
    """
    digest = hashlib.sha256(str(FORMAT).encode())
    for name, state in facts:
        digest.update(
            f"{name}\0{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino}\n".encode(
                errors="surrogateescape"
            )
        )
    return digest.hexdigest()


def open_regular(path: Path) -> int | None:
    """Return a descriptor of a regular file of this user, None where there is none: a pipe in its place would hang."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError:
        return None
    state = os.fstat(descriptor)
    if stat.S_ISREG(state.st_mode) and (not hasattr(os, "getuid") or state.st_uid == os.getuid()):
        return descriptor
    os.close(descriptor)
    return None


def write(path: Path, fill: Callable[[Any], None]) -> bool:
    """Write a cache completely or not at all by `fill(stream)`; return whether that was possible."""
    unfinished = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_room(path)
        descriptor, unfinished = tempfile.mkstemp(f"{_ENDING}.tmp", dir=path.parent)
        with os.fdopen(descriptor, "wb") as stream:
            fill(stream)
        os.replace(unfinished, path)
        unfinished = None
    # torch reports a full disk as RuntimeError; no home folder
    except (OSError, RuntimeError):
        return False
    finally:
        if unfinished is not None:
            with suppress(OSError):
                os.unlink(unfinished)
    return True


def _make_room(path: Path) -> None:
    """Remove what other processes left unfinished, and the caches that were used least recently beyond the limit."""
    for left in path.parent.glob(f"*{_ENDING}.tmp"):
        with suppress(OSError):
            if left.stat().st_mtime < time.time() - _DAY:
                left.unlink()
    total = MOST_BYTES
    others = [(other.stat(), other) for other in path.parent.glob(f"*{_ENDING}") if other != path]
    for state, other in sorted(others, key=lambda item: -max(item[0].st_atime, item[0].st_mtime)):
        total += state.st_size
        if total > MOST_BYTES_OF_ALL:
            with suppress(OSError):
                other.unlink()


# Tensors of a few files -------------------------------------------------------------------------------------------


def decoded(
    source: Path, files: Sequence[Path], decode: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Return `decode()` of the `files` of `source`, from the cache where it was made from these.

    The tensors are mapped from the file: they take no memory until they are used. They are decoded each time where the cache
    cannot be written.
    """
    path = place(source)
    key = key_of((str(file), file.stat()) for file in files)
    found = _read(path, key)
    if found is not None:
        return found
    tensors = decode()
    made = {**tensors, "made_from": key, "digest": _digest(tensors)}
    if not write(path, lambda stream: torch.save(made, stream)):
        return tensors
    return _read(path, key) or tensors


def _read(path: Path, key: str) -> dict[str, Tensor] | None:
    """Return the tensors of the file, or None when it is missing, damaged or made from other files."""
    descriptor = open_regular(path)
    if descriptor is None:
        return None
    os.close(descriptor)
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # through a link or a pipe, anything could come
            return None
        content = torch.load(path, mmap=True, weights_only=True, map_location="cpu")
    # torch's unpickler raises many kinds of exceptions for a foreign file
    except Exception:
        return None
    if not isinstance(content, dict) or content.pop("made_from", None) != key:
        return None
    said = content.pop("digest", None)
    whole = all(isinstance(value, Tensor) for value in content.values()) and said == _digest(content)
    return content if whole else None


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)} {tensors[name].dtype}".encode())
        digest.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
