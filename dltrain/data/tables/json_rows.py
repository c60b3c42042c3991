"""Rows in JSON: a list of objects, one object, or an object on each line; its values as columns of Arrow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from dltrain import strict_json
from dltrain.data.errors import DataError

LIST, LINES = (".json",), (".jsonl", ".ndjson")
Row = dict[str, Any]


def columns_of(content: bytes, path: Path, suffix: str) -> dict[str, Any]:
    """Return the columns of a file; a name that a row lacks is missing there. Raises DataError for other JSON."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no JSON ({error}); write it as UTF-8") from error
    rows = list(_lines(text, path)) if suffix in LINES else _rows(text, path)
    names = dict.fromkeys(name for row in rows for name in row)
    if not names:
        raise DataError(f"{path} holds no row with a value")
    return {name: _column(name, [row.get(name) for row in rows], path) for name in names}


def _rows(text: str, path: Path) -> list[Row]:
    found = _parsed(text, path, "")
    rows = [found] if isinstance(found, dict) and not any(map(_is_nested, found.values())) else found
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise DataError(
            f'{path} must hold a list of rows, such as [{{"age": 40, "color": "red"}}]; '
            "pandas writes one by frame.to_json(FILE, orient='records')"
        )
    return rows


def _lines(text: str, path: Path) -> Iterator[Row]:
    # splitlines would also cut at signs that may stand in texts, such as U+2028
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            row = _parsed(line, path, f"line {number} of ")
            if not isinstance(row, dict):
                raise DataError(
                    f'line {number} of {path} must be a row, such as {{"age": 40, "color": "red"}}'
                )
            yield row


def _parsed(text: str, path: Path, where: str) -> Any:
    try:
        return strict_json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}{path} is no JSON ({str(error)[:100]}); write it again") from error


def _is_nested(value: object) -> bool:
    return isinstance(value, dict | list)


def _column(name: str, values: list[Any], path: Path) -> Any:
    kinds = {type(value) for value in values if value is not None}
    if kinds & {dict, list}:
        # nothing to learn from, as in Parquet: the table leaves the column out, and says so
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
