"""Child processes of Python that do not look for modules in the working folder first."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SAFE_PATH = "PYTHONSAFEPATH"
_ENVIRONMENT = threading.RLock()


def safe_options() -> list[str]:
    """Return the options of Python by which `-c` and `-m` leave the working folder off the path of modules.

    None where dltrain itself is imported from the working folder, such as a copy of the repository that is not installed.
    """
    return [] if Path(__file__).resolve().parents[1] == Path.cwd().resolve() else ["-P"]


@contextmanager
def outside_working_folder() -> Iterator[None]:
    """Let processes that start meanwhile, such as the servers of multiprocessing, leave the working folder off their path.

    They are started by `python -c`, so that a socket.py there, of a stranger or harmless, would take the place of Python's.
    Code of the working folder is imported by config/door.py, which puts the folder on the path of the process that names it.
    """
    # two threads at once would restore each other's values, and leave one of ours behind
    with _ENVIRONMENT:
        former = os.environ.get(SAFE_PATH)
        if safe_options():
            os.environ[SAFE_PATH] = "1"
        try:
            yield
        finally:
            if former is None:
                os.environ.pop(SAFE_PATH, None)
            else:
                os.environ[SAFE_PATH] = former


def python_module(module: str) -> list[str]:
    """Return the beginning of a command that runs a module with this Python."""
    return [sys.executable, *safe_options(), "-m", module]
