"""Text from outside on the terminal: values of configurations, names of files, columns and classes, messages of libraries.

It may contain escape sequences, letters that the terminal cannot encode, and values of any length. All text that
a command prints, but its own help pages, passes through `shown`.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

# what a spreadsheet takes for a formula; numbers are none
_FORMULA = re.compile(r"\s*[=@]|\s*[+-](?!\s*[\d.]+(e[+-]?\d+)?\s*$|inf$|nan$|$)|[\t\r]", re.IGNORECASE)
_WORD = re.compile(r"\S+")
# half a letter of UTF-16, or a byte of a file name that is no UTF-8
_FOREIGN = re.compile("[\ud800-\udfff]")
LONG = 200  # letters of a value, or of a name that is compared with others
LIKE = 0.6  # least likeness of two names, as difflib measures it, of which one may be meant by the other
_MOST = 2000  # letters of a line
_AFTER = "`'\"),.;:"  # marks that may follow a value
_SEPARATORS = "\u2028\u2029"


def shown(text: str) -> str:
    r"""Return text without what a terminal acts upon, with long values cut; lines stay lines.

    >>> shown("red: \x1b[31m, and " + "9" * 5000)
    'red: \\x1b[31m, and 99999999999999999999999999999999999999999999999999999999999999999999999999999999…'
    """
    if not text.isprintable():
        text = "".join(letter if _is_harmless(letter) else _escaped(letter) for letter in text)
    if len(text) <= LONG:
        return text
    lines = (_WORD.sub(_cut, line) for line in text.split("\n"))
    return "\n".join(line if len(line) <= _MOST else f"{line[:_MOST]}…" for line in lines)


def counted(number: float, noun: str, plural: str = "") -> str:
    """Return a number with its noun.

    >>> counted(1, "row"), counted(2000, "row"), counted(0.5, "epoch"), counted(10, "class")
    ('1 row', '2,000 rows', '0.5 epochs', '10 classes')
    >>> counted(2, "hidden file or folder", "hidden files and folders")
    '2 hidden files and folders'
    """
    size = f"{number:,}" if number == int(number) else f"{number:.4g}"
    plural = plural or noun + ("es" if noun.endswith("s") else "s")
    return f"{size.removesuffix('.0')} {noun if number == 1 else plural}"


def as_cell(value: object) -> object:
    """Return a value for a cell of a CSV report; text that a spreadsheet would take for a formula gets an apostrophe in front.

    Names of classes, values of axes and reasons may come from outside.

    >>> as_cell("=HYPERLINK(A1)"), as_cell("-2+3"), as_cell("-0.5"), as_cell(1.5)
    ("'=HYPERLINK(A1)", "'-2+3", '-0.5', 1.5)
    """
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def utf8(text: str) -> bytes:
    r"""Return text as the bytes of a file; letters that UTF-8 does not have, as of file names in another encoding, are escaped.

    >>> utf8("\udcff")
    b'\\udcff'
    """
    return text.encode("utf-8", "backslashreplace")


def is_foreign(text: str) -> bool:
    r"""Return whether text has letters that UTF-8 does not have, as a name in another encoding or a damaged one of JSON has.

    >>> is_foreign("a\udcff"), is_foreign("é")
    (True, False)
    """
    return _FOREIGN.search(text) is not None


def close(name: str, known: Iterable[str], most: int = 1, least: float = LIKE) -> list[str]:
    """Return the known names that are most similar to a name, the closest first; none of more letters than a word has.

    >>> close("adma", ["adam", "sgd"]), close("a" * 300, ["a" * 300])
    (['adam'], [])
    """
    # difflib takes the square of the length, and names may come from outside
    short = [other for other in known if len(other) <= LONG] if len(name) <= LONG else []
    return difflib.get_close_matches(name, short, n=most, cutoff=least)


def first_line(text: object) -> str:
    """Return the first line of a text or of the message of an error."""
    return str(text).partition("\n")[0]


def _cut(match: re.Match[str]) -> str:
    """Return a value; the beginning of a long one, and the punctuation after it, of at most three marks."""
    value = match[0]
    if len(value) <= LONG:
        return value
    # a search from the left would take the square of a value of marks
    end = value[-3:]
    return f"{value[:80]}…{end[len(end.rstrip(_AFTER)) :]}"


def _is_harmless(letter: str) -> bool:
    return (
        letter == "\n"
        or letter.isprintable()
        or (letter >= "\xa0" and letter.isspace() and letter not in _SEPARATORS)
    )


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def show(*texts: str, file: TextIO | None = None) -> None:
    """Print lines that may contain text from outside."""
    print(*(shown(text) for text in texts), file=file, flush=True)


def say(text: str) -> None:
    """Print a line on standard error, beside the output of a command."""
    show(f"dltrain: {text}", file=sys.stderr)


class SayOnce:
    """Print lines on standard error as `say` does, but none twice."""

    def __init__(self) -> None:
        self.said: set[str] = set()

    def __call__(self, text: str) -> None:
        if text not in self.said:
            self.said.add(text)
            say(text)


def short_path(path: Path) -> str:
    """Return the path relative to the working folder if it is below, so that it can be copied into the next command."""
    full, here = Path(path).absolute(), Path.cwd()
    return str(full.relative_to(here)) if full.is_relative_to(here) else str(full)
