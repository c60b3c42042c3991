"""A text file that grows by whole lines, also on a disk that is full for a while."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from dltrain.storage import manifest
from dltrain.storage.files import replace_by


class GrowingFile:
    """A file to which lines are added. Lines that the disk refuses wait, and half a line never stays.

    Args:
        note: receives the problem when the file cannot be written
        may_write: whether the file may be written now; if not, lines wait
    """

    def __init__(
        self, file: Path, note: Callable[[str], None], may_write: Callable[[], bool] = lambda: True
    ) -> None:
        self.file, self._note, self._may_write = file, note, may_write
        # the hash of what is written
        self.lines = manifest.Lines()
        self._waiting: list[str] = []

    def add(self, text: str) -> None:
        """Add lines, which `write` writes."""
        self._waiting.append(text)

    def write(self) -> None:
        """Append the waiting lines."""
        if not self._waiting or not self._may_write():
            return
        text = "".join(self._waiting)
        before = self.file.stat().st_size if self.file.is_file() else 0
        try:
            with open(self.file, "a", encoding="utf-8") as stream:
                # whoever takes over the folder puts another file in its place, and lines go to the former one
                if not self._may_write():
                    return
                stream.write(text)
            self.lines.add(text)
            self._waiting = []
        except OSError as error:
            if self.file.is_file():
                os.truncate(self.file, before)  # half a line would spoil the next
            self._note(f"{self.file} could not be written ({error.strerror})")

    def replace(self, lines: Iterable[str]) -> None:
        """Write the whole file again, in one move, from lines that may be read from the former one meanwhile."""
        written = manifest.Lines()
        replace_by(self.file, (written.add(line) for line in lines))
        self.lines = written
