"""The numbers of a figure of curves, in a CSV file beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dltrain.errors import UserError
from dltrain.text import as_cell

# characters of the first line of a table
MOST_HEAD = 10_000


def table_of(file: Path) -> Path:
    """Return the file of the numbers of a figure: `curves.pdf.csv`, so that two figures do not share one."""
    return file.with_name(f"{file.name}.csv")


def check_table(file: Path) -> None:
    """Raise UserError where the numbers of a figure would replace a file that holds anything else."""
    table = table_of(file)
    if not table.exists():
        return
    try:
        with open(table, encoding="utf-8") as stream:
            head = stream.readline(MOST_HEAD).rstrip("\n").split(",")
    except (OSError, UnicodeDecodeError):
        head = []
    if len(head) != 6 or [head[0], *head[3:]] != ["configuration", "low", "high", "n"]:
        raise UserError(
            f"`--figure` writes its numbers to {table}, which holds something else and would be overwritten. Move it, or name another figure"
        )


def as_csv(rows: Sequence[Mapping[str, Any]], x: str, y: str) -> str:
    """Return the points of the curves of a figure as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["configuration", x, y, "low", "high", "n"])
    writer.writerows(
        [as_cell(row["configuration"]), row[x], row["mean"], row["low"], row["high"], row["n"]]
        for row in rows
    )
    return text.getvalue()
