"""Read a CSV, Parquet, Arrow or JSON file into columns by name; text stays text until `columns` decides what it holds.

The file is long because a file is tried step by step, and each step relies on what those before it ruled out.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute
from pyarrow import csv as arrow_csv

from dltrain import strict_json
from dltrain.data.class_names import same_form
from dltrain.data.errors import DataError, nearest, some
from dltrain.data.packed import most_unpacked, too_much
from dltrain.data.tables.header import (
    SEPARATORS,
    SHOWN,
    below,
    check_first_line,
    delimiter_cure,
    separator_line,
)
from dltrain.data.tables.json_rows import LINES, LIST, columns_of
from dltrain.errors import nearest_path
from dltrain.text import is_foreign

Array = Any  # a pyarrow.ChunkedArray; pyarrow brings no types

MAX_COLUMNS = 30_000
# why a row is left out
REPEATED = "it repeats the names of the columns"
_HEAD_BYTES = 256 * 1024  # from which separator and encoding are detected
_BLOCK_BYTES = 8 * 2**20  # a row must fit into one block
_DETECTED = (",", ";", "\t", "|")
_PARQUET, _ARROW = (".parquet", ".pq"), (".arrow", ".feather", ".ipc")
_PACKED = (".gz", ".bz2", ".zst")
FORMATS = "CSV, TSV, Parquet, Arrow and JSON (a list of rows, or .jsonl with a row on each line)"
# files of tables in formats that are not read
_OTHER_FORMATS = frozenset(
    ".xlsx .xls .ods .xml .html .htm .yaml .yml .pkl .pickle .h5 .hdf5 .hdf .sav .dta .sas7bdat .orc .avro .sqlite .sqlite3 .db .rds .rdata".split()
)


@dataclass(frozen=True)
class Table:
    """Columns by name, all of one length, and the file that they come from.

    separator: of a CSV file, else "". notes: what was detected and is not plain CSV in UTF-8. broken: rows of the file that
    are not among these, by number, and why. layout: of a CSV file.
    declared: columns of categories by the file itself.
    """

    path: Path
    columns: dict[str, Array]
    separator: str = ""
    notes: tuple[str, ...] = ()
    broken: tuple[tuple[int, str], ...] = ()
    layout: _Layout | None = None
    declared: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    @cached_property
    def numbers(self) -> NDArray[np.int64]:
        """Numbers (N,) of the rows, counted from 1 without the header and without empty lines."""
        every = np.arange(1, len(self) + len(self.broken) + 1)
        return np.delete(every, [number - 1 for number, _ in self.broken])

    def column(self, name: str, key: str) -> Array:
        """Return the column that the user named under `dataset.<key>`; DataError where there is none."""
        if name not in self.columns:
            data = all(_looks_like_a_value(other) for other in self.columns)
            hint = "; the first line seems to hold values, and must name the columns" if data else ""
            if cure := delimiter_cure(self.columns, name, self.path):
                raise DataError(
                    f"{self.path} was read as a single column, {next(iter(self.columns))!r}; {cure}"
                )
            raise DataError(
                f"dataset.{key} names the column {name!r}, which {self.path} does not "
                f"have{nearest(name, self.columns)}{hint}; its columns: {some(self.columns, 20)}"
            )
        return self.columns[name]

    def named_as(self, wanted: Collection[str]) -> Table:
        """Return the table with its columns called as `wanted`, where they differ in their Unicode form only."""
        form = same_form(list(self.columns), list(wanted))
        if not form or len({*form.values(), *self.columns}) != len(form) + len(self.columns):
            return self
        return replace(self, columns={form.get(name, name): column for name, column in self.columns.items()})

    def row(self, index: int) -> str:
        """Return `row 3 of FILE (line 4)`: rows are counted below the header, without empty lines."""
        number = int(self.numbers[index])
        return f"row {number} of {self.path}{self.line_of(number)}"

    def line_of(self, number: int) -> str:
        """Return ` (line 4)`, where the row of that number begins in a CSV file; empty for other files. It reads the file again."""
        return self.lines_of([number]).get(number, "")

    def lines_of(self, numbers: Collection[int]) -> dict[int, str]:
        """Return `line_of` of several rows, which reads the file once."""
        if not numbers or self.layout is None or not self.path.is_file():
            return {}
        text = _Text(self.path).open().read().decode(self.layout.encoding, errors="replace")
        reader = csv.reader(
            io.StringIO(below(text.removeprefix("\ufeff"), self.layout.above), newline=""),
            delimiter=self.layout.separator,
            quotechar=self.layout.quote,
            skipinitialspace=True,
        )
        found: dict[int, str] = {}
        number, before = -1, self.layout.above
        # a quote that nothing closes ends the lines that can be counted
        with suppress(csv.Error):
            for row in reader:
                number += bool(row)
                if row and number in numbers:
                    found[number] = f" (line {before + 1})"
                    if len(found) == len(numbers):
                        break
                before = self.layout.above + reader.line_num
        return found


def read(path: Path, delimiter: str, key: str = "path", tolerant: bool = False) -> Table:
    """Read a table by the ending of its name: Parquet, Arrow IPC (Feather), JSON, else CSV; the last two packed with gzip or not.

    tolerant: leave out rows with more or fewer values than columns and lines that are no JSON, as `Table.broken`. Raises DataError for a file that is
    missing, damaged or has no row.
    """
    if not path.is_file():
        raise DataError(
            f"dataset.{key} is {path}, which is not a file; set it to a table: {FORMATS}.{nearest_path(path)}".rstrip(
                "."
            )
        )
    if path.stat().st_size == 0:
        # files of the kernel say so, too, and reading them may never end
        raise DataError(f"{path} is empty; its first line must name the columns")
    suffix = _suffix(path)
    if suffix in _OTHER_FORMATS:
        raise DataError(
            f'{path} is a {suffix} file, and tables are read from {FORMATS}; write it so, such as by pandas: frame.to_parquet("table.parquet")'
        )
    if is_foreign(str(path)):
        raise DataError(
            f"{path} has a name in another encoding than UTF-8, which no table may have; rename it: mv OLD NEW"
        )
    if suffix in LIST + LINES:
        columns, broken = columns_of(b"".join(_parts(_Text(path))), path, suffix, tolerant)
        _check_names(path, list(columns))
        return _with_rows(Table(path, columns, broken=tuple(broken)))
    if not is_text(path):
        columns, declared = _read_arrow(path, suffix)
        return _with_rows(Table(path, columns, declared=declared))
    return _with_rows(_read_csv(_Text(path), delimiter, tolerant))


def is_text(path: Path) -> bool:
    """Return whether a file is read as text with delimiters, by its name."""
    return _suffix(path) not in _PARQUET + _ARROW + LIST + LINES


def _suffix(path: Path) -> str:
    """Return the ending of a name in small letters, before that of a packed file."""
    suffix = path.suffix.lower()
    return _suffix(path.with_suffix("")) or suffix if suffix in _PACKED else suffix


def read_text(content: bytes, name: str, delimiter: str, tolerant: bool = False) -> Table:
    """Read the text of a CSV file that is in memory, such as standard input; see `read`."""
    return _with_rows(_read_csv(_Text(Path(name), content), delimiter, tolerant))


def _with_rows(table: Table) -> Table:
    table = _without_headers(table)
    others = [number for number, reason in table.broken if reason != REPEATED]
    if not table.columns or not (len(table) or others):
        raise DataError(f"{table.path} holds no row below its header")
    return table


def _without_headers(table: Table) -> Table:
    """Leave out the rows that repeat the names of the columns, as in files of several exports that were joined."""
    names = list(table.columns)
    header = table.layout.header if table.layout is not None else names
    kinds = {table.columns[name].type for name in names}
    texts = all(pa.types.is_string(kind) or pa.types.is_large_string(kind) for kind in kinds)
    if len(names) < 2 or len(header) != len(names) or not texts:
        return table
    rows = np.arange(len(table))
    for name, title in zip(names, header, strict=True):
        # the second file may begin with a byte order mark
        column = table.columns[name]
        cells = column if len(rows) == len(table) else column.take(rows)
        cells = compute.utf8_trim(cells, characters=' \t\r\ufeff"')
        rows = rows[compute.equal(cells, title.strip('"')).fill_null(False).to_numpy()]
        if not len(rows):
            return table
    broken = [(int(table.numbers[row]), REPEATED) for row in rows.tolist()]
    kept = np.delete(np.arange(len(table)), rows)
    columns = {name: column.take(kept) for name, column in table.columns.items()}
    return replace(table, columns=columns, broken=tuple(sorted([*table.broken, *broken])))


def _read_arrow(path: Path, suffix: str) -> tuple[dict[str, Array], frozenset[str]]:
    """Return the columns, and the names of those that the file declares to be categories."""
    kind = "Parquet" if suffix in _PARQUET else "Arrow"
    try:
        table = _read_parquet(path) if suffix in _PARQUET else _read_feather(path)
        # reading checks no offsets: those of a damaged file may point outside of its memory, also where sizes are computed
        table.validate(full=True)
        _check_unpacked(path, sum(map(_bytes_of, table.columns)))
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a whole {kind} file ({str(error).splitlines()[0]}); write it again"
        ) from error
    _check_names(path, table.column_names)
    columns = dict(zip(table.column_names, table.columns, strict=True))
    declared = {name for name, column in columns.items() if pa.types.is_dictionary(column.type)}
    declared |= _categories_of_pandas(table.schema.metadata or {})
    plain = {name: _plain_column(path, name, column) for name, column in columns.items()}
    return plain, frozenset(declared & plain.keys())


def _categories_of_pandas(metadata: Mapping[bytes, bytes]) -> set[str]:
    """Return the names of categorical columns of pandas, which Parquet has as plain numbers; whatever else the metadata hold is left alone."""
    try:
        found = strict_json.loads(metadata.get(b"pandas", b"{}").decode())
        listed = found.get("columns", [])
        return {str(one["name"]) for one in listed if one["pandas_type"] == "categorical"}
    except (ValueError, TypeError, KeyError, AttributeError):
        return set()


def _plain_column(path: Path, name: str, column: Array) -> Array:
    """Return a column without a dictionary, and texts as such, for which Arrow has all functions."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    # of newer versions of Arrow
    if str(kind) in ("string_view", "binary_view"):
        kind = pa.string() if str(kind) == "string_view" else pa.binary()
    try:
        return column if kind == column.type else column.cast(kind)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"column {name!r} of {path} is of the type {column.type} ({reason}); write it as {kind}"
        ) from error


def _read_parquet(path: Path) -> Any:
    """Read a Parquet file. Raises DataError, before it is decoded, for one that would fill the memory.

    Texts that the file keeps once, in a dictionary, stay there until their lengths are known.
    """
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        facts, schema = file.metadata, file.schema_arrow
        # several columns of one name cannot be read by name
        _check_names(path, schema.names)
        groups = range(facts.num_row_groups)
        _check_unpacked(path, sum(facts.row_group(k).total_byte_size for k in groups))
        for k in groups:
            # refuses damaged statistics of a column, for which `column` below ends the process
            next(file.iter_batches(batch_size=1, row_groups=[k], use_threads=False), None)
        chunks = [facts.row_group(k).column(c) for k in groups for c in range(facts.num_columns)]
        listed = {
            chunk.path_in_schema
            for chunk in chunks
            if chunk.physical_type == "BYTE_ARRAY" and any("DICTIONARY" in kind for kind in chunk.encodings)
        }
        _check_unpacked(path, sum(chunk.total_uncompressed_size for chunk in chunks))
        _check_unpacked(path, facts.num_rows * sum(map(_width, schema.types)))
    return parquet.read_table(path, read_dictionary=sorted(listed))


def _read_feather(path: Path) -> Any:
    """Read an Arrow file. Raises DataError, before the rest of it is decoded, for one that would fill the memory."""
    from pyarrow import feather

    with pa.memory_map(str(path)) as source:
        if bytes(source.read(6)) == b"ARROW1":
            no_columns = pa.ipc.IpcReadOptions(included_fields=[])
            source.seek(0)
            # without columns, a batch is its number of rows
            reader = pa.ipc.open_file(source, options=no_columns)
            rows = sum(reader.get_batch(k).num_rows for k in range(reader.num_record_batches))
            _check_unpacked(path, rows * sum(map(_width, pa.ipc.open_file(source).schema.types)))
    return feather.read_table(path)


def _check_unpacked(path: Path, size: int) -> None:
    if size > most_unpacked(path):
        raise DataError(f"{too_much(path)}; if it is yours, write it without compression, or as CSV")


def _width(kind: Any) -> int:
    """Return the fewest bytes that a value of a type takes in memory; booleans and missing values take less, and count as 0."""
    try:
        return int(kind.bit_width) // 8
    except ValueError:
        # of a text: its place
        return 4


def _bytes_of(column: Array) -> int:
    """Return the bytes of a column, and of one with a dictionary those that its values will take."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    size = 0
    for chunk in column.chunks:
        of_text = pa.types.is_string(chunk.type.value_type) or pa.types.is_binary(chunk.type.value_type)
        lengths = compute.binary_length(chunk.dictionary).take(chunk.indices) if of_text else None
        size += int(chunk.nbytes) if lengths is None else int(compute.sum(lengths).as_py() or 0)
    return size


# CSV --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """How the text of a CSV file is cut into columns."""

    encoding: str
    separator: str
    names: list[str]
    quote: str
    lines: int  # that the header takes, and those above it
    notes: tuple[str, ...]
    header: list[str]  # as it is written, without blanks
    spaced_quotes: bool  # `1, "a, b"`: Arrow takes the quotes after a space for text
    above: int = 0  # lines above the header: Excel's `sep=;`


@dataclass(frozen=True)
class _Text:
    """The text of a CSV file: on the disk, or in memory."""

    path: Path
    content: bytes | None = None

    @property
    def is_packed(self) -> bool:
        return self.path.suffix.lower() in _PACKED

    def open(self) -> Any:
        if self.content is not None:
            return pa.BufferReader(self.content)
        try:
            return pa.input_stream(str(self.path), compression="detect" if self.is_packed else None)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"cannot read {self.path} ({error}); check the file") from error


def _read_csv(file: _Text, delimiter: str, tolerant: bool) -> Table:
    try:
        head = file.open().read(_HEAD_BYTES)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file.path} cannot be read ({str(error).splitlines()[0]}); write it again"
        ) from error
    layout = _layout(file, head, delimiter)
    by = _columns_by_python if layout.spaced_quotes else _columns_by_arrow
    columns, ragged = by(file, layout)
    if len(ragged) > len(next(iter(columns.values()))):
        start = head.decode(layout.encoding, errors="replace").removeprefix("\ufeff")
        editable = file.content is None and layout.encoding != "utf-16"
        check_first_line(file.path, start, layout.separator, layout.quote, editable)
    if ragged and not tolerant:
        number, reason = ragged[0]
        line = Table(file.path, columns, layout=layout).line_of(number)
        other = ", or set dataset.delimiter" * (delimiter == "auto")
        raise DataError(f"row {number} of {file.path}{line} has {reason}{other}")
    broken = tuple((number, f"it has {reason}") for number, reason in ragged)
    return Table(file.path, columns, layout.separator, layout.notes, broken, layout)


def _layout(file: _Text, head: bytes, delimiter: str) -> _Layout:
    path = file.path
    encoding, notes = _encoding(file, head)
    text = head.decode(encoding, errors="replace").removeprefix("\ufeff")
    if len(head) == _HEAD_BYTES and "\n" not in text:
        raise DataError(
            f"the first line of {path} has more than {_HEAD_BYTES // 1024} kB, so that it names no columns; at most "
            f"{MAX_COLUMNS:,} columns are read: leave some out, or use dataset=npz for arrays"
        )
    if len(head) == _HEAD_BYTES:  # the last line may be cut
        text = text[: text.rfind("\n") + 1] or text
    named = separator_line(text)
    above = 1 if named else 0
    text = below(text, above)
    if re.match(r'\s*(\[\s*)?\{\s*"', text):
        raise DataError(
            f"{path} holds JSON and is read as CSV; name it FILE.json, or FILE.jsonl with a row on each line"
        )
    separator, more = _separator(text, named if named and delimiter == "auto" else delimiter)
    more = (*more, f"separator: {SHOWN.get(separator, separator)}, named in line 1") if named else more
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
    header, names = names, _named(names)
    _check_names(path, names)
    spaced = re.search(rf"{re.escape(separator)} +{quote}", text) is not None and separator != " "
    return _Layout(encoding, separator, names, quote, lines + above, (*notes, *more), header, spaced, above)


def _first_rows(text: str, separator: str, quote: str) -> tuple[list[str] | None, list[str] | None, int]:
    """Return the header, the first row below it, and the number of lines of the header."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, quotechar=quote, skipinitialspace=True
    )
    header = next((row for row in reader if row), None)
    lines = reader.line_num
    return header, next((row for row in reader if row), None), lines


def _encoding(file: _Text, head: bytes) -> tuple[str, tuple[str, ...]]:
    path = file.path
    # the first begins like UTF-16
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise DataError(f"{path} is a text in UTF-32; save it as UTF-8: iconv -f UTF-32 -t UTF-8 FILE > NEW")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        for _ in _parts(file):
            pass
        return "utf-16", ("text read as UTF-16",)
    if head.startswith(b"PK\x03\x04"):
        raise DataError(f"{path} is a workbook or an archive, not a CSV file; save the sheet as CSV")
    if b"\0" in head:
        raise DataError(f"{path} is not a text file (it holds zero bytes); tables are read from {FORMATS}")
    return ("utf-8", ()) if _is_utf8(file) else ("cp1252", ("text read as Windows-1252, not UTF-8",))


def _is_utf8(file: _Text) -> bool:
    """Look at the whole file: its first letter with an accent may be in the last row."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for part in _parts(file):
            decoder.decode(part)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _parts(file: _Text) -> Iterator[bytes]:
    """Yield the bytes of a file in blocks. Raises DataError for one that unpacks to too much to be held."""
    stream, size = file.open(), 0
    most = None if file.content is not None or not file.is_packed else most_unpacked(file.path)
    try:
        while part := stream.read(_BLOCK_BYTES):
            size += len(part)
            if most is not None and size > most:
                raise DataError(f"{too_much(file.path)}; if it is yours, unpack it first")
            yield part
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file.path} cannot be read ({str(error).splitlines()[0]}); write it again"
        ) from error


def _separator(text: str, delimiter: str) -> tuple[str, tuple[str, ...]]:
    """Return the separator and what to show of it; `auto` takes the one that cuts the first lines most evenly."""
    if delimiter == "auto":
        cuts = {mark: _columns_cut(text, mark) for mark in _DETECTED}
        # commas of which the header has none are decimal commas, where another mark cuts the header as it does the rows
        if cuts[","].first == 1 and any(cut.first == cut.width > 1 for cut in cuts.values()):
            del cuts[","]
        found = max(cuts, key=lambda mark: cuts[mark].score)
        return found, () if found == "," else (f"separator: {SHOWN[found]}",)
    mark = SEPARATORS.get(delimiter, delimiter)
    if len(mark) != 1:
        raise DataError(
            f"dataset.delimiter is {delimiter!r}; it must be auto, one character, or comma, semicolon, tab, pipe, space"
        )
    return mark, ()


class _Cut(NamedTuple):
    """How a mark cuts the first rows: fields of the first row, fields of most rows, and how well it does."""

    first: int
    width: int
    score: float


def _columns_cut(text: str, mark: str) -> _Cut:
    """Return how a mark cuts the first 200 rows; the score is the columns that most of them have, times the share of these rows."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, skipinitialspace=True)
    widths: list[int] = []
    try:
        for row in reader:
            widths += [len(row)] * bool(row)
            if len(widths) == 200:
                break
    except csv.Error:
        return _Cut(0, 0, 0.0)
    if not widths:
        return _Cut(0, 0, 0.0)
    width, rows = Counter(widths).most_common(1)[0]
    return _Cut(widths[0], width, (width - 1) * (rows / len(widths)) ** 3)


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
    if len(names) > MAX_COLUMNS:
        raise DataError(
            f"{path} has {len(names):,} columns, and at most {MAX_COLUMNS:,} are read; leave some out, or use dataset=npz "
            "for arrays"
        )
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        places = ", ".join(str(i) for i, other in enumerate(names, 1) if other == twice)
        raise DataError(f"{path} has two columns named {twice!r} (columns {places}); give each its own name")


_Ragged = list[tuple[int, str]]  # numbers of rows with too many or too few values, and how many


def _columns_by_arrow(file: _Text, layout: _Layout) -> tuple[dict[str, Array], _Ragged]:
    names, path = layout.names, file.path
    ragged: list[Any] = []

    def note(row: Any) -> str:
        ragged.append(row)
        return "skip"

    try:
        table = arrow_csv.read_csv(
            file.open(),
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
        # a header alone, without or with a line end
        if "Could not skip initial" in str(error) or "Empty CSV" in str(error):
            return {name: pa.chunked_array([], pa.string()) for name in names}, []
        reason = str(error).splitlines()[0][:200]
        raise DataError(f"{path} is not a CSV file ({reason}); save it again in that form") from error
    broken = [
        (row.number - layout.lines, _ragged(row.actual_columns, len(names), row.text)) for row in ragged
    ]
    return dict(zip(names, table.columns, strict=True)), broken


def _columns_by_python(file: _Text, layout: _Layout) -> tuple[dict[str, Array], _Ragged]:
    """Read with the csv module, which is slower and accepts a space in front of a quote."""
    text = file.open().read().decode(layout.encoding, errors="replace").removeprefix("\ufeff")
    reader = csv.reader(
        io.StringIO(below(text, layout.above), newline=""),
        delimiter=layout.separator,
        quotechar=layout.quote,
        skipinitialspace=True,
    )
    try:
        rows = [row for row in reader if row]
    except csv.Error as error:
        raise DataError(
            f"line {reader.line_num} of {file.path} is none of a CSV file ({error}); a quote may be missing there or above"
        ) from error
    wanted = len(layout.names)
    broken = [
        (number, _ragged(len(row), wanted, layout.separator.join(row)))
        for number, row in enumerate(rows[1:], 1)
        if len(row) != wanted
    ]
    whole = [row for row in rows[1:] if len(row) == wanted]
    cells = zip(*whole, strict=True) if whole else ([] for _ in layout.names)
    columns = {
        name: pa.chunked_array([list(column)], pa.string())
        for name, column in zip(layout.names, cells, strict=True)
    }
    return columns, broken


def _ragged(found: int, wanted: int, text: str) -> str:
    quote = "close the quote in it" if text.count('"') % 2 else "repair that line"
    start = text.splitlines()[0][:60] if text else ""
    return f"{found} values for {wanted} columns ({start!r} …); {quote}"


def _looks_like_a_value(name: str) -> bool:
    return re.fullmatch(r"[-+]?[\d.,]+([eE][-+]?\d+)?|", name) is not None
