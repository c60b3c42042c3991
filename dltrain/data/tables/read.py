"""Read a CSV, Parquet or Arrow file into columns by name; text stays text until `columns` decides what it holds."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv as arrow_csv

from dltrain.data.errors import DataError, nearest, some

Array = Any  # a pyarrow.ChunkedArray; pyarrow brings no types

_HEAD_BYTES = 256 * 1024  # from which separator and encoding are detected
_BLOCK_BYTES = 8 * 2**20  # a row must fit into one block
_SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|", "space": " "}
_DETECTED = (",", ";", "\t", "|")
_SHOWN = {"\t": "tab", ";": "semicolon", "|": "pipe", ",": "comma", " ": "space"}
_PARQUET, _ARROW = (".parquet", ".pq"), (".arrow", ".feather", ".ipc")


@dataclass(frozen=True)
class Table:
    """Columns by name, all of one length, and the file that they come from.

    separator: of a CSV file, else "". notes: what was detected and is not plain CSV in UTF-8.
    """

    path: Path
    columns: dict[str, Array]
    separator: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def column(self, name: str, key: str) -> Array:
        """Return the column that the user named under `dataset.<key>`; DataError where there is none."""
        if name not in self.columns:
            data = all(_looks_like_a_value(other) for other in self.columns)
            hint = "; the first line seems to hold values, and must name the columns" if data else ""
            raise DataError(
                f"dataset.{key} names the column {name!r}, which {self.path} does not "
                f"have{nearest(name, self.columns)}{hint}; its columns: {some(self.columns, 20)}"
            )
        return self.columns[name]

    def row(self, index: int) -> str:
        """Return `row 3 of FILE`, counted from 1 without the header and without empty lines."""
        return f"row {index + 1} of {self.path}"


def read(path: Path, delimiter: str, key: str = "path") -> Table:
    """Read a table by the ending of its name: Parquet, Arrow IPC (Feather), else CSV, packed with gzip or not.

    Raises DataError for a file that is missing, damaged or has no row.
    """
    if not path.is_file():
        raise DataError(f"dataset.{key} is {path}, which is not a file; set it to a CSV or Parquet file")
    suffix = path.suffix.lower()
    if suffix in _PARQUET + _ARROW:
        table = Table(path, _read_arrow(path, suffix))
    else:
        table = _read_csv(path, delimiter)
    if not table.columns or not len(table):
        raise DataError(f"{path} holds no row below its header")
    return table


def _read_arrow(path: Path, suffix: str) -> dict[str, Array]:
    from pyarrow import feather, parquet

    kind = "Parquet" if suffix in _PARQUET else "Arrow"
    try:
        table = parquet.read_table(path) if suffix in _PARQUET else feather.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a whole {kind} file ({str(error).splitlines()[0]}); write it again"
        ) from error
    _check_names(path, table.column_names)
    columns = (c.cast(c.type.value_type) if pa.types.is_dictionary(c.type) else c for c in table.columns)
    return dict(zip(table.column_names, columns, strict=True))


# CSV --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """How the text of a CSV file is cut into columns."""

    encoding: str
    separator: str
    names: list[str]
    quote: str
    lines: int  # that the header takes
    notes: tuple[str, ...]
    spaced_quotes: bool  # `1, "a, b"`: Arrow takes the quotes after a space for text


def _read_csv(path: Path, delimiter: str) -> Table:
    layout = _layout(path, _open(path).read(_HEAD_BYTES), delimiter)
    by = _columns_by_python if layout.spaced_quotes else _columns_by_arrow
    return Table(path, by(path, layout), layout.separator, layout.notes)


def _open(path: Path) -> Any:
    packed = path.suffix.lower() in (".gz", ".bz2", ".zst")
    try:
        return pa.input_stream(str(path), compression="detect" if packed else None)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"cannot read {path} ({error}); check the file") from error


def _layout(path: Path, head: bytes, delimiter: str) -> _Layout:
    encoding, notes = _encoding(path, head)
    text = head.decode(encoding, errors="replace").removeprefix("\ufeff")
    if len(head) == _HEAD_BYTES:  # the last line may be cut
        text = text[: text.rfind("\n") + 1] or text
    separator, more = _separator(text, delimiter)
    quote = '"'
    try:
        header, first, lines = _first_rows(text, separator, quote)
        if header and all(re.fullmatch("'.*'", name.strip()) for name in header):
            quote = "'"
            header, first, lines = _first_rows(text, separator, quote)
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV file ({error}); save it again in that form") from error
    if header is None:
        raise DataError(f"{path} is empty; its first line must name the columns")
    names = [name.strip() for name in header]
    if first is not None and len(first) == len(names) + 1:
        names = ["", *names]  # R's write.table leaves out the name of the row names
    names = _named(names)
    _check_names(path, names)
    spaced = re.search(rf"{re.escape(separator)} +{quote}", text) is not None and separator != " "
    return _Layout(encoding, separator, names, quote, lines, (*notes, *more), spaced)


def _first_rows(text: str, separator: str, quote: str) -> tuple[list[str] | None, list[str] | None, int]:
    """Return the header, the first row below it, and the number of lines of the header."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, quotechar=quote, skipinitialspace=True
    )
    header = next((row for row in reader if row), None)
    lines = reader.line_num
    return header, next((row for row in reader if row), None), lines


def _encoding(path: Path, head: bytes) -> tuple[str, tuple[str, ...]]:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16", ("text read as UTF-16",)
    if head.startswith(b"PK\x03\x04"):
        raise DataError(f"{path} is a workbook or an archive, not a CSV file; save the sheet as CSV")
    if b"\0" in head:
        raise DataError(
            f"{path} is not a text file (it holds zero bytes); dataset.path must be a CSV or Parquet file"
        )
    return ("utf-8", ()) if _is_utf8(path) else ("cp1252", ("text read as Windows-1252, not UTF-8",))


def _is_utf8(path: Path) -> bool:
    """Look at the whole file: its first letter with an accent may be in the last row."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    stream = _open(path)
    try:
        while part := stream.read(_BLOCK_BYTES):
            decoder.decode(part)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _separator(text: str, delimiter: str) -> tuple[str, tuple[str, ...]]:
    """Return the separator and what to show of it; `auto` takes the one that cuts the first lines most evenly."""
    if delimiter == "auto":
        found = max(_DETECTED, key=lambda mark: _columns_cut(text, mark))
        return found, () if found == "," else (f"separator: {_SHOWN[found]}",)
    mark = _SEPARATORS.get(delimiter, delimiter)
    if len(mark) != 1:
        raise DataError(
            f"dataset.delimiter is {delimiter!r}; it must be auto, one character, or comma, semicolon, tab, pipe, space"
        )
    return mark, ()


def _columns_cut(text: str, mark: str) -> float:
    """Return the number of columns that most of the first 200 rows have, times the share of these rows."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, skipinitialspace=True)
    widths: list[int] = []
    try:
        for row in reader:
            widths += [len(row)] * bool(row)
            if len(widths) == 200:
                break
    except csv.Error:
        return 0.0
    if not widths:
        return 0.0
    width, rows = Counter(widths).most_common(1)[0]
    return (width - 1) * (rows / len(widths)) ** 3


def _named(names: list[str]) -> list[str]:
    """Give columns without a name their number: `column_1`."""
    taken = set(names)
    named = []
    for number, name in enumerate(names, 1):
        fresh = name or f"column_{number}"
        while not name and fresh in taken:
            fresh += "_"
        named.append(fresh)
    return named


def _check_names(path: Path, names: list[str]) -> None:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        places = ", ".join(str(i) for i, other in enumerate(names, 1) if other == twice)
        raise DataError(f"{path} has two columns named {twice!r} (columns {places}); give each its own name")


def _columns_by_arrow(path: Path, layout: _Layout) -> dict[str, Array]:
    names = layout.names
    ragged: list[Any] = []

    def note(row: Any) -> str:
        ragged.append(row)
        return "skip"

    try:
        table = arrow_csv.read_csv(
            _open(path),
            # in one thread: rows have their numbers, and it costs less of the processor
            arrow_csv.ReadOptions(
                use_threads=False, block_size=_BLOCK_BYTES, skip_rows=layout.lines, column_names=names,
                encoding=layout.encoding,
            ),
            arrow_csv.ParseOptions(delimiter=layout.separator, quote_char=layout.quote, newlines_in_values=True, invalid_row_handler=note),
            arrow_csv.ConvertOptions(
                column_types={name: pa.string() for name in names}, null_values=[], strings_can_be_null=False
            ),
        )  # fmt: skip
    except (pa.ArrowException, UnicodeError) as error:
        if "Empty CSV" in str(error):
            return {name: pa.chunked_array([], pa.string()) for name in names}
        reason = str(error).splitlines()[0][:200]
        raise DataError(f"{path} is not a CSV file ({reason}); save it again in that form") from error
    if ragged:
        first = ragged[0]
        raise _ragged(path, first.number - layout.lines, first.actual_columns, len(names), first.text)
    return dict(zip(names, table.columns, strict=True))


def _columns_by_python(path: Path, layout: _Layout) -> dict[str, Array]:
    """Read with the csv module, which is slower and accepts a space in front of a quote."""
    text = _open(path).read().decode(layout.encoding, errors="replace").removeprefix("\ufeff")
    rows = [
        row
        for row in csv.reader(
            io.StringIO(text, newline=""),
            delimiter=layout.separator,
            quotechar=layout.quote,
            skipinitialspace=True,
        )
        if row
    ]
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(layout.names):
            raise _ragged(path, number, len(row), len(layout.names), layout.separator.join(row))
    cells = zip(*rows[1:], strict=True) if len(rows) > 1 else ([] for _ in layout.names)
    return {
        name: pa.chunked_array([list(column)], pa.string())
        for name, column in zip(layout.names, cells, strict=True)
    }


def _ragged(path: Path, number: int, found: int, wanted: int, text: str) -> DataError:
    quote = "close the quote in it" if text.count('"') % 2 else "repair that line"
    start = text.splitlines()[0][:60] if text else ""
    return DataError(
        f"row {number} of {path} has {found} values for {wanted} columns ({start!r} …); {quote}, "
        "or set dataset.delimiter"
    )


def _looks_like_a_value(name: str) -> bool:
    return re.fullmatch(r"[-+]?[\d.,]+([eE][-+]?\d+)?|", name) is not None
