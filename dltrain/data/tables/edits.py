"""Commands that write an edited copy of a table, for messages; none of them reads the file that it writes, or replaces one."""

from __future__ import annotations

import os
import shlex
from itertools import count
from pathlib import Path


def edited(program: str, path: Path, name: str) -> str:
    """Return a command that writes the output of a program for a file to `name`, or `name_2` and so on where that exists."""
    # awk takes `a=b.csv` for an assignment, and programs take a name with a dash for an option
    is_file = path.is_absolute() or not ("=" in str(path) or str(path).startswith("-"))
    return f"{program} {shlex.quote(str(path) if is_file else f'./{path}')} > {unused(name)}"


def unused(name: str) -> str:
    """Return a name that no file of the working folder has.

    >>> unused("no_such_table.csv")
    'no_such_table.csv'
    """
    stem, ending = os.path.splitext(name)
    names = (name if number == 1 else f"{stem}_{number}{ending}" for number in count(1))
    return next(name for name in names if not os.path.lexists(name))
