"""How rows of a table that are copies of others are left out of it."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from pathlib import Path

from dltrain.data.errors import some
from dltrain.data.tables.edits import edited
from dltrain.data.tables.read import Table, read

_MOST = 20  # columns that a command names
_SEPARATORS = ",;\t|"  # that awk takes as they are


def without_copies(path: Path, delimiter: str, used: Collection[str]) -> str:
    """Return how all but one of the rows that are equal in the columns `used` are left out of a table: a command, else a sentence."""
    table = read(path, delimiter)
    others = [name for name in table.columns if name not in used]
    if not _can_be_cut(table) or len(others) > _MOST:
        but = f" but {some(map(repr, others))}" if others else ""
        return (
            f"of rows that are equal in all columns{but}, keep one, as pandas.DataFrame.drop_duplicates does"
        )
    if not others:
        return edited("awk '!seen[$0]++'", path, "once.csv")
    places = [number for number, name in enumerate(table.columns, 1) if name in others]
    emptied = "=".join(f"${place}" for place in places)
    mark = shlex.quote(table.separator.replace("\t", "\\t"))
    return edited(
        f"awk -F{mark} -v OFS={mark} '{{row = $0; {emptied} = \"\"}} !seen[$0]++ {{print row}}'",
        path,
        "once.csv",
    )


def _can_be_cut(table: Table) -> bool:
    """Return whether each line of a file is a row, and each separator ends a value: it has no quotes."""
    layout = table.layout
    if layout is None or layout.encoding == "utf-16" or table.separator not in _SEPARATORS:
        return False
    with table.path.open("rb") as file:
        return not any(layout.quote.encode() in line for line in file)
