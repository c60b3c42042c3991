"""The lock of a run folder: one process at a time, and a dead one holds nothing."""

from __future__ import annotations

import fcntl
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import TextIO

from dltrain.errors import FolderInUse


class Lock:
    """Holds `run.lock` of a folder until `release`; the system frees it when the process dies.

    Raises FolderInUse, naming the owner's process, host and start time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "run.lock"
        self._stream = self._locked()
        self._stream.truncate(0)
        self._stream.write(
            f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n"
        )
        self._stream.flush()

    def _locked(self) -> TextIO:
        while True:
            stream = open(self.file, "a+", encoding="utf-8")
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                stream.seek(0)
                owner = stream.read().strip() or "another process"
                stream.close()
                raise FolderInUse(
                    f"{self.folder} is in use by {owner}. Wait for it to end, or stop it."
                ) from None
            if self._is_the_file(stream):
                return stream
            stream.close()  # its owner let go and removed it while we waited: a newcomer may hold the new file

    def _is_the_file(self, stream: TextIO) -> bool:
        try:
            return os.fstat(stream.fileno()).st_ino == self.file.stat().st_ino
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let the folder go."""
        self.file.unlink(missing_ok=True)
        self._stream.close()
