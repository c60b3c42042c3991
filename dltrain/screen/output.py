"""Output of lines: plain to pipes and files, by rich to terminals, as HTML to notebooks."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, TextIO

from dltrain.screen.notebook import Line, NotebookScreen, in_notebook
from dltrain.text import shown

if TYPE_CHECKING:
    from rich.text import Text

# One character for one character, so that columns stay aligned where the terminal cannot show them.
ASCII = str.maketrans("·→×★✓✗━╸─…≤", "|>x*+!=>-.<")


class SafeStream:
    """A text stream that never stops a run: silent once its reader has closed it, ASCII where the encoding requires it."""

    def __init__(self, stream: TextIO) -> None:
        self.stream: TextIO | None = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        self.ascii = not encodes("·→×★✓✗━╸─…≤", self.encoding)

    def write(self, text: str) -> int:
        if self.stream is not None:
            try:
                self.stream.write(self.encodable(text))
            except (OSError, ValueError):  # ValueError: the file was closed
                self.silence()
        return len(text)

    def flush(self) -> None:
        if self.stream is not None:
            try:
                self.stream.flush()
            except (OSError, ValueError):
                self.silence()

    def isatty(self) -> bool:
        try:
            return self.stream is not None and self.stream.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        if self.stream is None:
            raise OSError("the stream was closed")
        return self.stream.fileno()

    def encodable(self, text: str) -> str:
        if not self.ascii:
            return text
        return text.translate(ASCII).encode(self.encoding, "replace").decode(self.encoding)

    def silence(self) -> None:
        """Write no more; what is still buffered goes to the null device, or Python would fail at exit."""
        stream, self.stream = self.stream, None
        if stream is sys.__stdout__ and stream is not None:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Screen(Protocol):
    """The interface of an output: `live` lines are replaced by the next ones, printed lines stay."""

    @property
    def width(self) -> int | None: ...

    @property
    def is_live(self) -> bool: ...

    def print(self, line: Line) -> None: ...

    def live(self, lines: Sequence[Line]) -> None: ...

    def close(self) -> None: ...


class PlainScreen:
    """Lines for pipes and files: nothing is redrawn, nothing is cut."""

    width: int | None = None
    is_live: bool = False

    def __init__(self, stream: SafeStream) -> None:
        self.stream = stream

    def print(self, line: Line) -> None:
        self.stream.write("".join(shown(text) for text, _ in line).rstrip() + "\n")
        self.stream.flush()

    def live(self, lines: Sequence[Line]) -> None:
        pass

    def close(self) -> None:
        pass


class RichScreen:
    """Lines in color above a live region, drawn by rich; other prints of the process go above the region."""

    is_live: bool = True

    def __init__(self, stream: SafeStream) -> None:
        from rich.console import Console
        from rich.live import Live

        self.console = Console(file=stream, force_terminal=True)  # type: ignore[arg-type]
        self.region = Live(console=self.console, auto_refresh=False, transient=True)

    @property
    def width(self) -> int:
        return self.console.width

    def print(self, line: Line) -> None:
        self.console.print(text_of(line), soft_wrap=True)

    def live(self, lines: Sequence[Line]) -> None:
        from rich.console import Group

        self.region.start()
        self.region.update(Group(*(text_of(line) for line in lines)), refresh=True)

    def close(self) -> None:
        self.region.stop()


def open_screen(stream: SafeStream) -> Screen:
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return RichScreen(stream)
    if in_notebook(stream.stream):
        return NotebookScreen()
    return PlainScreen(stream)


def encodes(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def text_of(line: Line) -> Text:
    from rich.text import Text

    parts = [(shown(text), style) for text, style in line]
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")
