"""Progress in a notebook: one output that is replaced, in place of a line for each evaluation."""

from __future__ import annotations

import html
import sys
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from dltrain.text import shown

Segment = tuple[str, str]
Line = list[Segment]

WIDTH = 100
# what rich's styles of the terminal become
COLORS = {"green": "#2e8b57", "red": "#c0392b", "yellow": "#b8860b", "cyan": "#1f7a8c", "dim": "gray"}
SECONDS = 0.1  # between two drawings: each goes to the browser and into the saved notebook


def in_notebook(stream: object) -> bool:
    """Return whether a stream is the standard output of a Jupyter kernel."""
    return stream is sys.stdout and type(stream).__module__.split(".")[0] == "ipykernel"


class NotebookScreen:
    """Printed lines and, below them, the live lines, in one output of the cell."""

    is_live: bool = True
    width: int | None = WIDTH

    def __init__(self) -> None:
        self.printed: list[Line] = []
        self.below: list[Line] = []
        self.handle: Any = None
        self.due = 0.0
        self.is_closed = False

    def print(self, line: Line) -> None:
        self.printed.append(line)
        self.draw()

    def live(self, lines: Sequence[Line]) -> None:
        self.below = list(lines)
        self.draw()

    def close(self) -> None:
        self.below, self.is_closed = [], True
        self.draw()

    def draw(self) -> None:
        """Show all lines, unless they were shown a moment ago and more will come: then the next drawing has them."""
        if not self.is_closed and self.handle is not None and perf_counter() < self.due:
            return
        from IPython.display import display

        self.due = perf_counter() + SECONDS
        content = as_mime([*self.printed, *self.below])
        if self.handle is None:
            self.handle = display(content, raw=True, display_id=True)
        else:
            self.handle.update(content, raw=True)


def as_mime(lines: Sequence[Line]) -> dict[str, str]:
    """Return lines as plain text and as HTML."""
    lines = [[(shown(text), style) for text, style in line] for line in lines]
    plain = "\n".join("".join(text for text, _ in line).rstrip() for line in lines)
    marked = "\n".join("".join(_marked(text, style) for text, style in line).rstrip() for line in lines)
    return {"text/plain": plain, "text/html": f'<pre style="line-height:1.2">{marked}</pre>'}


def _marked(text: str, style: str) -> str:
    css = [f"color:{COLORS[word]}" for word in style.split() if word in COLORS]
    css += ["font-weight:bold"] * ("bold" in style.split())
    escaped = html.escape(text)
    return f'<span style="{";".join(css)}">{escaped}</span>' if css else escaped
