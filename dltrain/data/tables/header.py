"""The line of a CSV file that names its columns: what may stand above it, and files that are cut at another character."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from dltrain.data.errors import DataError
from dltrain.data.tables.edits import edited

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|", "space": " "}
SHOWN = {"\t": "tab", ";": "semicolon", "|": "pipe", ",": "comma", " ": "space"}
_PLAIN = ("", ".csv", ".tsv", ".txt", ".data")  # endings of files that `sed` can edit


def separator_line(text: str) -> str:
    r"""Return the separator that Excel's first line names, or "".

    >>> separator_line("sep=;\r\na;b\r\n")
    ';'
    """
    found = re.match(r'"?sep=(.)"?\r?\n', text, re.IGNORECASE)
    return found[1] if found else ""


def below(text: str, lines: int) -> str:
    """Return a text without its first lines."""
    return text.split("\n", lines)[-1] if lines else text


def check_first_line(path: Path, text: str, separator: str, quote: str, editable: bool) -> None:
    """Raise DataError where the first line does not name the columns: most rows below have the same, other number of values.

    text: the start of the file. editable: whether the file is on the disk as it is read, so that a command can cut it
    """
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, quotechar=quote, skipinitialspace=True
    )
    widths: Counter[int] = Counter()
    above: dict[int, int] = {}  # by number of values: lines above the first row that has as many
    before = 0
    try:
        for row in reader:
            if row:
                above.setdefault(len(row), before)
                widths[len(row)] += 1
            before = reader.line_num
    except csv.Error:
        # a stray quote: the reader of the table names its row
        return
    width, rows = widths.most_common(1)[0]
    lines = above[width]
    if width < 2 or 2 * rows <= widths.total() or not lines:
        return
    cure = (
        f": {edited(f'sed 1,{lines}d', path, 'table.csv')}"
        if editable and path.suffix.lower() in _PLAIN
        else ""
    )
    raise DataError(
        f"the first line of {path} must name its columns, and is {text.splitlines()[0][:60]!r}; from line {lines + 1} on, most "
        f"rows have {width} values.\nRemove what stands above{cure}"
    )


def delimiter_cure(names: Collection[str], wanted: str, path: Path | None = None) -> str:
    """Return the cure for a file that was read as a single column, whose name holds the `wanted` one; or "".

    >>> delimiter_cure(["date wind weather"], "weather")
    'set dataset.delimiter=space'
    >>> delimiter_cure(["x   zip  y"], "zip", Path("t.txt"))
    "its columns are separated by several blanks; make them one: sed -E 's/^ +//; s/ +/ /g' t.txt > table.csv, and set dataset.delimiter=space"
    """
    if len(names) != 1:
        return ""
    (header,) = names
    # several spaces in a row would be columns without a name
    marks = [mark for mark in SHOWN if mark in header and "  " not in header and wanted in header.split(mark)]
    if not marks and path is not None and "  " in header and wanted in header.split():
        command = edited("sed -E 's/^ +//; s/ +/ /g'", path, "table.csv")
        return f"its columns are separated by several blanks; make them one: {command}, and set dataset.delimiter=space"
    return f"set dataset.delimiter={SHOWN[marks[0]]}" if marks else ""
