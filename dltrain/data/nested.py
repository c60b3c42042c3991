"""List folders, which may be nested deeper than the recursion limit of Python."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress


def contents(folder: str) -> Iterator[str]:
    """Yield the paths of all files and folders below a folder; links are not followed, and what cannot be listed is left out."""
    waiting = [folder]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                yield entry.path
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
