"""The lock of a run folder: one process at a time, and a dead one holds nothing."""

from __future__ import annotations

import os
import socket
import stat
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO

from dltrain.errors import CheckpointProblem, FolderInUse
from dltrain.storage.files import open_lock


class Lock:
    """Holds a lock file of a folder until `release`; the system frees it when the process dies.

    Raises FolderInUse, naming the owner's process, host and start time, and CheckpointProblem for a folder that is gone.
    """

    def __init__(self, folder: Path, patience: float = 0.0, name: str = "run.lock") -> None:
        """Lock the folder; wait up to `patience` seconds for an owner that is about to end."""
        self.folder, self.file = folder, folder / name
        self._stream = self._locked(time.monotonic() + patience)
        owner = f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n"
        # on a full disk, a lock that does not say whose it is holds as well; `trash` needs one to make room
        with suppress(OSError):
            os.ftruncate(self._stream.fileno(), 0)
            os.write(self._stream.fileno(), owner.encode())

    def _locked(self, until: float) -> TextIO:
        while True:
            try:
                stream = open_lock(self.file)
            except FileNotFoundError:
                raise CheckpointProblem(
                    f"{self.folder} is no longer there: it was moved or deleted meanwhile."
                ) from None
            if not _take(stream):
                if time.monotonic() < until:
                    stream.close()
                    time.sleep(0.05)
                    continue
                owner = owner_of(stream)
                stream.close()
                raise FolderInUse(f"{self.folder} is in use by {owner}. Wait for it to end, or stop it.")
            if _is_the_file(stream, self.file):
                if os.fstat(stream.fileno()).st_nlink == 1:
                    return stream
                # the same file has another name, perhaps outside the folder: nothing is written into it
                self.file.unlink()
            # its owner released and removed it while we waited: another process may hold the new file
            stream.close()

    @property
    def is_held(self) -> bool:
        """Whether the lock file of the folder is still the one that is locked here: it may be removed, or the folder replaced."""
        return not self._stream.closed and _is_the_file(self._stream, self.file)

    def release(self) -> None:
        """Release the folder; a lock file that is another one by now stays."""
        # a file that another process has open cannot be removed on Windows
        with suppress(PermissionError):
            if self.is_held:
                self.file.unlink(missing_ok=True)
        self._stream.close()


def _is_the_file(stream: TextIO, file: Path) -> bool:
    """Return whether an open file is still the one of a path."""
    try:
        return os.fstat(stream.fileno()).st_ino == file.stat().st_ino
    except (FileNotFoundError, NotADirectoryError):
        return False


def is_held(file: Path) -> bool:
    """Return whether a process holds a lock file, or may hold one that cannot be read; writes nothing, and makes no file."""
    try:
        # opening a pipe would block
        if not stat.S_ISREG(file.lstat().st_mode):
            return False
        with open(file, encoding="utf-8") as stream:
            return not _take(stream)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        # Windows lets nobody else open it, another user may have made it readable to nobody, or the disk has no locks
        return True


def _take(stream: TextIO) -> bool:
    """Lock an open file, and return whether that succeeded."""
    # importing filelock takes 30 ms, a tenth of a listing of thousands of runs, few of which have a lock file
    from filelock import lock_descriptor

    return lock_descriptor(stream.fileno(), blocking=False)


def owner_of(stream: TextIO) -> str:
    """Return what the owner of a lock wrote into its file; Windows lets nobody else read it."""
    with suppress(OSError):
        stream.seek(0)
        return stream.read().strip() or "another process"
    return "another process"
