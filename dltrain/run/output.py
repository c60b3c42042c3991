"""Predictions as a file (CSV, Parquet, JSON), as one JSON document, or as a table on the terminal."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dltrain.data.errors import nearest, some
from dltrain.errors import DataProblem
from dltrain.metrics.thresholds import Threshold
from dltrain.run.data import data_problems
from dltrain.run.inputs import Given
from dltrain.run.prediction import Predictions
from dltrain.run.table import Array
from dltrain.storage.files import replace as replace_file
from dltrain.text import as_cell, utf8
from dltrain.text import shown as printable

FORMAT = 1  # of the JSON document
_NUMBER = r"[+-]?(0|[1-9]\d{0,17})?(\.\d+)?([eE][+-]?\d{1,2})?(?<=[\d])"
SHOWN = 20  # rows on the terminal; of more, the first and the last
_SHOWN_CLASSES = 8  # of more, only the probability of the most probable class is shown

Columns = dict[str, Sequence[object] | Array]


@dataclass(frozen=True)
class Part:
    """The predictions for one input, and the columns of it that go with them."""

    given: Given
    found: Predictions
    kept: Mapping[str, Sequence[object]]

    def decided(self, threshold: Threshold | None) -> Part:
        """Return the same with the labels of a threshold."""
        return self if threshold is None else replace(self, found=self.found.decided(threshold))

    @property
    def of_files(self) -> bool:
        """Return whether samples are named by their files, not by rows."""
        return self.found.where.dtype == object


def kept_columns(
    given: Given,
    found: Predictions,
    names: Sequence[str],
    delimiter: str,
    typed: bool = False,
    decimal: str = "auto",
    missing_words: Sequence[str] = (),
) -> dict[str, list[object]]:
    """Return columns of a table for the predicted rows. Raises DataProblem where the table has none of that name.

    typed: numbers of a CSV file are numbers, for files that tell them from text; else the text of the file. decimal and
    missing_words: as the keys of the dataset.
    """
    if not names:
        return {}
    is_table = given.content is not None or given.path.exists()
    if found.where.dtype == object or not found.contract.columns or not is_table:
        raise DataProblem(f"`--keep` is {','.join(names)}, and {given.name} has no columns. Leave it out")
    table = given.table(delimiter)
    for name in names:
        if name not in table.columns:
            raise DataProblem(
                f"`--keep` names {name!r}, which is no column of {given.name}{nearest(name, table.columns)}; its columns: "
                f"{some(table.columns, 20)}"
            )
    rows = np.searchsorted(table.numbers, found.where)
    kept = {name: table.columns[name].take(rows).to_pylist() for name in names}
    if typed and table.layout is not None:
        with data_problems():
            marks = found.contract.decimal_marks(table, names, decimal, missing_words)
        kept = {name: numbers_of(values, marks[name]) for name, values in kept.items()}
    return kept


def numbers_of(texts: Sequence[object], decimal: str = ".") -> list[object]:
    """Return texts as whole or other numbers, None where they are empty; the texts themselves unless all are numbers.

    Digits with leading zeros are codes: they stay text. decimal: the decimal mark; empty where it is not known: text, too.
    """
    import pyarrow as pa

    from dltrain.data.tables.text import plain_numbers

    if not decimal:
        return list(texts)
    written = list(texts)
    texts = plain_numbers(pa.array([str(text).strip() for text in written], pa.string()), decimal).to_pylist()
    present = [str(text) for text in texts if text]
    whole = all(re.fullmatch(r"[+-]?(0|[1-9]\d{0,17})", text) for text in present)
    plain = whole or all(re.fullmatch(_NUMBER, text) for text in present)
    if not present or not plain:
        return written
    kind = int if whole else float
    return [kind(str(text)) if text else None for text in texts]


def columns_of(parts: Sequence[Part]) -> Columns:
    """Return all predictions as columns: `file` and `row`, the kept ones, then labels and probabilities, or quantities."""
    found = [part.found for part in parts]
    predicted = {name: np.concatenate([one.table[name] for one in found]) for name in found[0].table}
    kept = {name: [v for part in parts for v in part.kept[name]] for name in parts[0].kept}
    named: Columns = {}
    if len(parts) > 1 or parts[0].of_files:
        named["file"] = [
            name
            for part in parts
            for name in (part.found.where.tolist() if part.of_files else [part.given.name] * len(part.found))
        ]
    if not all(part.of_files for part in parts):
        named["row"] = [None if part.of_files else row for part in parts for row in part.found.where.tolist()]
    columns: Columns = {}
    for group in (named, kept, predicted):
        for name, values in group.items():
            # a column of the table may have the name of another one here
            fresh = name
            while fresh in columns or (group is not predicted and fresh in predicted):
                fresh += "_"
            columns[fresh] = values
    return columns


def typed_labels(columns: Columns, found: Predictions) -> Columns:
    """Return columns whose labels have the type of the target column, for a file that tells numbers and truths from text."""
    names = found.contract.class_names
    target = found.contract.targets[0].format if found.contract.targets else None
    if target is None or found.contract.task != "classification":
        return columns
    types: dict[str, object] = {name: name for name in names}
    if {name.lower() for name in names} <= {"true", "false"}:
        types = {name: name.lower() == "true" for name in names}
    elif target.decimal:
        # a data.json that no run wrote may have any names
        with suppress(ValueError, OverflowError):
            types = {name: float(name) for name in names}
            if all(str(int(float(name))) == name for name in names):
                types = {name: int(name) for name in names}
    typed = {
        name: [types.get(str(v), v) for v in columns[name]]
        for name in ("truth", "label")
        if name in found.table
    }
    return columns | typed


def renamed_notes(parts: Sequence[Part], columns: Columns) -> list[str]:
    """Return a line for each kept column that another name was given, beside a column of its name that is written here."""
    predicted = parts[0].found.table
    what = {"file": "the name of the file", "row": "the number of the row"}
    what |= dict.fromkeys(predicted, "the prediction")
    return [
        f"kept     column {name} of the table is {name}_ here: {name} is {what[name]}"
        for name in parts[0].kept
        if name in what and f"{name}_" in columns
    ]


def document(parts: Sequence[Part], runs: Sequence[str], notes: Sequence[str]) -> dict[str, object]:
    """Return predictions, notes and what was left out as plain data for JSON."""
    contract = parts[0].found.contract
    names = parts[0].found.class_names if contract.task == "classification" else parts[0].found.names
    broken = [
        {"file": item.where, "reason": item.reason}
        if isinstance(item.where, str)
        else {"file": part.given.name, "row": item.where, "reason": item.reason}
        for part in parts
        for item in part.found.broken
    ]
    return {
        "format": FORMAT,
        "runs": list(runs),
        "task": contract.task,
        "classes" if contract.task == "classification" else "quantities": [str(name) for name in names],
        **(
            {}
            if (cut := parts[0].found.threshold) is None
            else {"threshold": {"class": cut.name, "value": cut.value}}
        ),
        "samples": sum(len(part.found) for part in parts),
        "notes": list(notes),
        "broken": broken,
        "predictions": [row for part in parts for row in _records(part)],
    }


def _records(part: Part) -> list[dict[str, object]]:
    found = part.found
    records: list[dict[str, object]] = []
    kept = [dict(zip(part.kept, row, strict=True)) for row in zip(*part.kept.values(), strict=True)]
    values: list[dict[str, object]]
    rows: list[Any] = [] if found.truth is None else found.truth.tolist()
    truth: list[object]
    if found.contract.task == "classification":
        truth = [str(label) for label in rows]
        names = [str(name) for name in found.class_names]
        values = [
            {"label": str(label), "probabilities": dict(zip(names, map(_number, row), strict=True))}
            for label, row in zip(found.labels.tolist(), found.probabilities.tolist(), strict=True)
        ]
    else:
        truth = [dict(zip(found.names, row, strict=True)) for row in rows]
        values = [
            {"values": dict(zip(found.names, map(_number, row), strict=True))}
            for row in found.values.tolist()
        ]
    for i, (where, value) in enumerate(zip(found.where.tolist(), values, strict=True)):
        name = {"file": where} if part.of_files else {"file": part.given.name, "row": where}
        known = {"truth": truth[i]} if truth else {}
        records.append({**name, **({"kept": kept[i]} if kept else {}), **known, **value})
    return records


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


# Files ------------------------------------------------------------------------------------------------------------


def as_json(content: Mapping[str, object]) -> str:
    return json.dumps(content, default=str)


def as_csv(columns: Columns, predicted: Container[str]) -> str:
    """Return columns as CSV with a header; numbers with all their digits.

    Names of classes and quantities may come from somebody else: none is a formula for a spreadsheet. Kept columns stay as they are.
    """
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(as_cell(name) if name in predicted else name for name in columns)
    cells = [
        [*map(as_cell, _plain(values))] if name in predicted else _plain(values)
        for name, values in columns.items()
    ]
    writer.writerows(zip(*cells, strict=True))
    return stream.getvalue()


def as_parquet(columns: Columns) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    stream = pa.BufferOutputStream()
    plain = {_encodable(name): [*map(_encodable, _plain(values))] for name, values in columns.items()}
    parquet.write_table(pa.table(plain), stream)
    content: bytes = stream.getvalue().to_pybytes()
    return content


def _encodable(value: object) -> object:
    return utf8(value).decode() if isinstance(value, str) else value


def _plain(values: Sequence[object] | Array) -> list[object]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


Document = Callable[[], Mapping[str, object]]
# by the ending of a file's name: its content, from the columns or the document
WRITERS: dict[str, Callable[[Columns, Container[str], Document], bytes]] = {
    ".csv": lambda columns, predicted, content: utf8(as_csv(columns, predicted)),
    ".parquet": lambda columns, predicted, content: as_parquet(columns),
    ".json": lambda columns, predicted, content: as_json(content()).encode() + b"\n",
}


def write(file: Path, columns: Columns, predicted: Container[str], content: Document) -> None:
    """Write predictions by the ending of the file's name, whole or not at all; `predicted` names the columns of the model."""
    replace_file(file, WRITERS[file.suffix.lower()](columns, predicted, content))


# Terminal ---------------------------------------------------------------------------------------------------------


def show(columns: Columns, found: Predictions) -> None:
    """Print at most `SHOWN` rows as a table."""
    import sys

    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    shown = _shown_columns(columns, found)
    probabilities = {"p", *found.table} if found.contract.task == "classification" else set()

    def cell(name: str, value: object) -> str:
        if value is None or not isinstance(value, float):
            return "" if value is None else printable(str(value))
        return f"{value:.4f}" if name in probabilities else f"{value:.6g}"

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, values in shown.items():
        table.add_column(
            escape(printable(name)), justify="left" if values and isinstance(values[0], str) else "right"
        )
    count = len(next(iter(columns.values())))
    half = SHOWN // 2
    rows = list(range(count)) if count <= SHOWN else [*range(half), *range(count - half, count)]
    for place, row in enumerate(rows):
        if count > SHOWN and place == half:
            table.add_row(*("…" for _ in shown))
        table.add_row(*(escape(cell(name, values[row])) for name, values in shown.items()))
    # lines that a program reads are not cut
    console = Console() if sys.stdout.isatty() else Console(width=max(200, 16 * len(shown)))
    console.print(table)
    if count > SHOWN:
        console.print(f"{count:,} rows, {SHOWN} shown; all of them: --output FILE.csv", highlight=False)


def _shown_columns(columns: Columns, found: Predictions) -> dict[str, list[object]]:
    plain = {name: _plain(values) for name, values in columns.items()}
    if found.contract.task != "classification" or len(found.class_names) <= _SHOWN_CLASSES:
        return plain
    classes = len(found.class_names)
    probable = np.max(np.stack([np.asarray(values) for values in list(columns.values())[-classes:]]), 0)
    return dict(list(plain.items())[:-classes]) | {"p": probable.tolist()}
