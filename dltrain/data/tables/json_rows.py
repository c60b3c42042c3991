"""Rows in JSON: a list of objects, one object, or an object on each line; its values as columns of Arrow."""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from dltrain import strict_json
from dltrain.data.errors import DataError, some
from dltrain.text import is_foreign

LIST, LINES = (".json",), (".jsonl", ".ndjson")
# rows times columns: as for a packed table, most of the values that the file holds; fewer than `_FEW` are always read
MOST_EMPTY, _FEW = 100, 1_000_000
Row = dict[str, Any]


Broken = list[tuple[int, str]]  # rows by number, counted without empty lines, and why they cannot be read


def columns_of(
    content: bytes, path: Path, suffix: str, tolerant: bool = False
) -> tuple[dict[str, Any], Broken]:
    """Return the columns of a file, and the rows that are left out; a name that a row lacks is missing there.

    tolerant: leave out lines that are no row, such as the last one of a file that is still written. Raises DataError for
    other JSON, and where no row is left.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no JSON ({error}); write it as UTF-8") from error
    rows, broken = _lines(text, path, tolerant) if suffix in LINES else (_rows(text, path), [])
    names = dict.fromkeys(name for row in rows for name in row)
    if not names:
        raise DataError(f"{path} holds no row with a value")
    _check_names(rows, list(names), path)
    return {name: _column(name, [row.get(name) for row in rows], path) for name in names}, broken


def _check_names(rows: list[Row], names: list[str], path: Path) -> None:
    """Raise DataError for rows with so many names of their own that the table is nearly empty, and for a name that is no Unicode."""
    cells, values = len(rows) * len(names), sum(map(len, rows))
    if cells > _FEW and cells > MOST_EMPTY * values:
        few = [
            name
            for name, count in Counter(chain.from_iterable(rows)).items()
            if count * MOST_EMPTY < len(rows)
        ]
        raise DataError(
            f"{path} has {len(rows):,} rows and {len(names):,} different names, {some(map(repr, few), 3)} in fewer than 1 % of the rows; "
            "a table has the same columns in each row, so leave such names out, or write them as values of one column"
        )
    for name in names:
        if is_foreign(name):
            raise DataError(f"the name of column {name!r} of {path} is no Unicode; write it again")


def _rows(text: str, path: Path) -> list[Row]:
    found = _parsed(text, path, "")
    rows = [found] if isinstance(found, dict) and not any(map(_is_nested, found.values())) else found
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise DataError(
            f'{path} must hold a list of rows, such as [{{"age": 40, "color": "red"}}]; '
            "pandas writes one by frame.to_json(FILE, orient='records')"
        )
    return rows


def _lines(text: str, path: Path, tolerant: bool) -> tuple[list[Row], Broken]:
    # splitlines would also cut at signs that may stand in texts, such as U+2028
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    rows: list[Row] = []
    broken: Broken = []
    for place, (number, line) in enumerate(lines, 1):
        try:
            rows.append(_row(line, path, number))
        except DataError as error:
            # where no line is a row, the file is none of rows
            if not tolerant or place == len(lines) == len(broken) + 1:
                raise
            broken.append((place, str(error)))
    return rows, broken


def _row(line: str, path: Path, number: int) -> Row:
    row = _parsed(line, path, f"line {number} of ")
    if not isinstance(row, dict):
        raise DataError(f'line {number} of {path} must be a row, such as {{"age": 40, "color": "red"}}')
    return row


def _parsed(text: str, path: Path, where: str) -> Any:
    try:
        return strict_json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}{path} is no JSON ({str(error)[:100]}); write it again") from error


def _is_nested(value: object) -> bool:
    return isinstance(value, dict | list)


def _column(name: str, values: list[Any], path: Path) -> Any:
    kinds = {type(value) for value in values if value is not None}
    if kinds and kinds <= {dict, list}:
        # nothing to learn from, as in Parquet: the table leaves the column out, and says so; one among other values is a text
        texts = [None if value is None else [json.dumps(value)] for value in values]
        return pa.chunked_array([pa.array(texts, pa.list_(pa.string()))])
    try:
        if kinds <= {int, float} and float in kinds:
            array = pa.array([None if value is None else float(value) for value in values], pa.float64())
        elif len(kinds) <= 1:
            array = pa.array(values)
        else:
            array = pa.array(list(map(_text, values)), pa.string())
    except (pa.ArrowException, OverflowError):
        # whole numbers beyond 64 bits
        array = pa.array(list(map(_text, values)), pa.string())
    except UnicodeError as error:
        raise DataError(f"column {name!r} of {path} has a text that is no Unicode; write it again") from error
    return pa.chunked_array([array])


def _text(value: object) -> str | None:
    """Return a value among others of another type as JSON writes it, texts as they are."""
    return value if value is None or isinstance(value, str) else json.dumps(value)
