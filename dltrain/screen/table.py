"""Tables of text for a terminal of any width; without rich, whose import takes longer than a listing."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dltrain.text import shown

GAP = "  "
STYLES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "cyan": "36",
    "head": "1;4",
}


@dataclass
class Column:
    """A column of a table.

    Args:
        name: its head
        cells: a text for each row
        right: whether it is aligned on the right, as numbers are
        least: width to which it may be shortened; 0 keeps it whole
        rank: columns of the highest rank are left out first where the terminal is narrow; 0 always stays
        styles: a style of each cell
    """

    name: str
    cells: list[str]
    right: bool = False
    least: int = 0
    rank: int = 0
    styles: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.name = one_line(self.name)
        self.cells = [one_line(cell) for cell in self.cells]

    @property
    def width(self) -> int:
        return max(map(cells_of, (self.name, *self.cells)))

    @property
    def narrow(self) -> int:
        return min(self.width, self.least or self.width)


def one_line(value: object) -> str:
    """Return text as one line that cannot command the terminal."""
    return shown(str(value).replace("\n", " "))


def cells_of(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def shorten(text: str, width: int) -> str:
    """Return text in at most `width` cells, the end cut with `…`."""
    if cells_of(text) <= width:
        return text
    kept, used = "", 0
    for letter in text:
        used += cells_of(letter)
        if used > width - 1:
            break
        kept += letter
    return kept.rstrip() + "…"


def terminal_width() -> int:
    """Return the width of the terminal, or of COLUMNS; lines that a program reads are not cut."""
    return shutil.get_terminal_size((100 if sys.stdout.isatty() else 100_000, 24)).columns


def write(text: str) -> None:
    """Print lines of cells, which have passed through `shown`, and of styles; ? for letters that the encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


def is_colored() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def lines(columns: Sequence[Column], width: int | None = None, colored: bool | None = None) -> Iterator[str]:
    """Yield the head and the rows of a table that fits into a width, without columns that are empty."""
    width = terminal_width() if width is None else width
    colored = is_colored() if colored is None else colored
    shown = fitting([column for column in columns if any(column.cells)], width)
    widths = widths_of(shown, width)
    heads = [padded(c.name, w, c.right, "bold", colored) for c, w in zip(shown, widths, strict=True)]
    yield GAP.join(heads).rstrip()
    for row in range(len(shown[0].cells) if shown else 0):
        yield GAP.join(
            padded(c.cells[row], w, c.right, c.styles[row] if c.styles else "", colored)
            for c, w in zip(shown, widths, strict=True)
        ).rstrip()


def fitting(columns: list[Column], width: int) -> list[Column]:
    """Return the columns that fit, without those of the highest ranks."""
    while sum(c.narrow for c in columns) + len(GAP) * (len(columns) - 1) > width:
        highest = max(columns, key=lambda column: column.rank)
        if highest.rank == 0:
            break
        columns = [column for column in columns if column is not highest]
    return columns


def widths_of(columns: Sequence[Column], width: int) -> list[int]:
    """Share the width: each column as wide as its text where there is room, those that may be shortened less."""
    widths = [column.narrow for column in columns]
    free = width - sum(widths) - len(GAP) * (len(columns) - 1)
    for i in sorted(range(len(columns)), key=lambda i: columns[i].width - widths[i]):
        more = min(columns[i].width - widths[i], max(free, 0))
        widths[i] += more
        free -= more
    return widths


def padded(text: str, width: int, right: bool, style: str, colored: bool) -> str:
    text = shorten(text, width)
    space = " " * (width - cells_of(text))
    text = styled(text, style, colored)
    return space + text if right else text + space


def styled(text: str, style: str, colored: bool) -> str:
    return f"\033[{STYLES[style]}m{text}\033[0m" if colored and style and text else text


# Cells ------------------------------------------------------------------------------------------------------------


def cell(value: Any) -> Any:
    """Return a list as the command line has it."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else value


def typed(value: Any) -> str:
    """Return a value as the command line has it."""
    if isinstance(value, list):
        return f"[{','.join(map(typed, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def number(value: object, digits: int = 4) -> str:
    """Return a number as it is shown: whole numbers whole, others with some digits; nothing for what is missing."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return (
            str(value)
            if abs(value) < 10**15
            else f"{float(value):.{digits}g}"
            if abs(value) < 10**300
            else "∞"
        )
    if value and (abs(value) < 1e-3 or abs(value) >= 1e5):
        return f"{value:.{digits - 1}g}"
    return f"{value:.{digits}f}" if abs(value) < 10 else f"{value:.{digits + 1}g}"


def duration(seconds: object) -> str:
    """Return seconds as 0.4 s, 42 s, 3m05s, 2h05m or 3d04h."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e12:
        return ""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for large, small, names in ((86400, 3600, "dh"), (3600, 60, "hm"), (60, 1, "ms")):
        if whole >= large:
            return f"{whole // large}{names[0]}{whole % large // small:02}{names[1]}"
    return f"{whole} s"
