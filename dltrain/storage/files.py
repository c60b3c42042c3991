"""Files that are either the former one or the new one, whole, whenever a process dies or a disk is unplugged."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def replace(file: Path, content: bytes) -> None:
    """Write a file in one move: readers see the former content or the new one."""
    beside = file.with_name(f".{file.name}.tmp")
    try:
        beside.write_bytes(content)
        sync(beside)
        os.replace(beside, file)
    except OSError:
        with suppress(OSError):
            beside.unlink()
        raise


def overwrite(file: Path, content: bytes) -> None:
    """Write a file in its own place on a full disk; `content` must not be longer than the former one."""
    with open(file, "r+b") as stream:
        stream.write(content)


def sync(path: Path) -> None:
    """Write a file, or the names in a folder, to the disk; Windows writes names by itself."""
    if os.name == "nt" and path.is_dir():
        return
    # Windows syncs files that may be written only
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
