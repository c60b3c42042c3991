"""Files that are either the former one or the new one, whole, whenever a process dies or a disk is unplugged."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from dltrain.errors import CheckpointProblem

_BLOCK = 2**20


def replace(file: Path, content: bytes) -> None:
    """Write a file in one move: readers see the former content or the new one."""
    replace_by(file, [content])


def replace_by(file: Path, parts: Iterable[bytes]) -> None:
    """Write a file in one move from its parts, which may be read meanwhile from the former one."""
    # another process may replace the same file at the same time, and a folder of somebody else may hold a link
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(beside, "xb") as stream:
            stream.writelines(parts)
        sync(beside)
        os.replace(beside, file)
    except (OSError, ValueError) as error:
        with suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError) and error.filename is None:
            # the system names no file where it could not be written
            error.filename = str(file)
        raise


def clear_temporary(folder: Path) -> None:
    """Remove half-written files of a process that was killed; only the holder of the folder's lock may do so.

    A folder that is a link is left as it is.
    """
    if folder.is_symlink():
        return
    for file in folder.glob(".*.tmp"):
        # tags have a lock of their own
        if file.is_file() and not file.name.startswith(".tags.json."):
            file.unlink(missing_ok=True)


def unshare(file: Path) -> None:
    """Replace a file that has hard links by a copy, so that writing to it does not change the same file under another name."""
    with suppress(FileNotFoundError):
        status = file.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
            with open(file, "rb") as stream:
                replace_by(file, iter(lambda: stream.read(_BLOCK), b""))


def open_appending(file: Path) -> TextIO:
    """Open a log for appending, or make it; never through a link, and of a hard link a copy."""
    unshare(file)
    flags = (
        os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    )
    try:
        descriptor = os.open(file, flags, 0o644)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return os.fdopen(descriptor, "a", encoding="utf-8", errors="replace")
        os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
    raise CheckpointProblem(f"{file} is no regular file, so it is no log of a run. Remove it.")


def open_lock(file: Path) -> TextIO:
    """Open the file of a lock for reading and writing, or make it; never through a link.

    Raises CheckpointProblem for what is no regular file: a folder of somebody else may hold a link to any file.
    """
    try:
        descriptor = os.open(
            file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666
        )
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise CheckpointProblem(f"{file} is no regular file, so it is no lock of a run. Remove it.") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CheckpointProblem(f"{file} is no regular file, so it is no lock of a run. Remove it.")
    return os.fdopen(descriptor, "r+", encoding="utf-8")


def copy(source: Path, target: Path) -> None:
    """Copy a file with its times; holes of a sparse one stay holes, where the system knows them."""
    with open(source, "rb") as before, open(target, "xb") as after:
        size = os.fstat(before.fileno()).st_size
        for start, end in _written_parts(before.fileno(), size):
            before.seek(start)
            after.seek(start)
            while start < end and (block := before.read(min(_BLOCK, end - start))):
                after.write(block)
                start += len(block)
        after.truncate(size)
    shutil.copystat(source, target)


def _written_parts(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of the parts of a file that are on the disk."""
    if not hasattr(os, "SEEK_DATA"):
        yield 0, size
        return
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            # the rest is a hole; a disk without holes refuses the question
            if error.errno != errno.ENXIO:
                yield end, size
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


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
