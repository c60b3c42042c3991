"""Tables from the user's disk: CSV and Parquet."""

from __future__ import annotations

import csv as csv_module
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dltrain.data.errors import DataError, nearest, some
from dltrain.data.raw import SPLIT_NAMES, RawData
from dltrain.data.spec import Task
from dltrain.ranges import FilePath

Column = NDArray[Any]  # of numbers or of text
_MISSING = ("", "na", "n/a", "nan", "null", "?")
_CATEGORIES = 100  # a text column with more different values is rather a name than a category
_CLASSES = 20  # whole numbers with more different values are rather a quantity than classes


@dataclass(frozen=True)
class Table:
    """Columns by name, all of one length, and the file that they come from."""

    path: Path
    columns: dict[str, Column]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def column(self, name: str, key: str) -> Column:
        """The column that the user named under `dataset.<key>`."""
        if name not in self.columns:
            raise DataError(
                f"dataset.{key} names the column {name!r}, which {self.path} does not "
                f"have{nearest(name, self.columns)}; "
                f"its columns: {some(self.columns, 20)}"
            )
        return self.columns[name]

    def row(self, index: int) -> str:
        """`row 3 of FILE`, counted from 1 without the header."""
        return f"row {index + 1} of {self.path}"


def csv(
    path: FilePath,
    target: str | list[str],
    features: list[str] | None = None,
    categorical: list[str] | Literal["auto"] = "auto",
    split_column: str | None = None,
    group_column: str | None = None,
    task: Literal["classification", "regression", "auto"] = "auto",
    delimiter: str = ",",
) -> RawData:
    """Your table: a CSV file with a header line, or a Parquet file (needs the extra `parquet`).

    Rows of a CSV file with a header, or of a Parquet file (`.parquet`), as samples.

    features: columns to learn from (None: all that have no other role). categorical: columns that become one
    column of 0 and 1 for each of their values ("auto": those with text). split_column: its values are train,
    val and test. group_column: rows of equal value stay in one split. task auto: text, or whole numbers with
    at most 20 different values, are classes, all else is a quantity. Raises DataError for a missing file,
    column or value.

    Use: rows of numbers and categories, for classification or regression; missing values are refused.
    Defaults: all columns but the target are features; those with text become one column for each value.
    Lecture: L3

    Args:
        path: the file; read as Parquet when it ends in .parquet
        target: column to predict; several columns for a regression
        features: columns to learn from; null takes all that have no other role
        categorical: columns turned into one 0/1 column a value; auto takes those with text
        split_column: column that holds train, val or test
        group_column: rows with equal values here stay in one split
        task: auto takes text and up to 20 whole numbers as classes
        delimiter: the character between values of a CSV file
    """
    table = _read(Path(path).expanduser(), delimiter)
    targets = [target] if isinstance(target, str) else list(target)
    roles = [*targets, *(name for name in (split_column, group_column) if name)]
    names = _feature_names(table, features, roles)
    inputs, feature_names = _inputs(table, names, categorical)
    kind, values, class_names = _targets(table, targets, task)
    return RawData(
        inputs=inputs,
        targets=values,
        task=kind,
        class_names=class_names,
        split=_split(table, split_column) if split_column else None,
        groups=_codes(table, group_column, "group_column") if group_column else None,
        describe=table.row,
        feature_names=feature_names,
    )


def _feature_names(table: Table, features: list[str] | None, roles: Sequence[str]) -> list[str]:
    if features is None:
        names = [name for name in table.columns if name not in roles]
    else:
        names = list(features)
    if not names:
        raise DataError(f"no column of {table.path} is left to learn from; name them: dataset.features=[…]")
    twice = [name for name in names if name in roles]
    if twice:
        raise DataError(
            f"dataset.features names {twice[0]!r}, which is the target, split or group; leave it out there"
        )
    return names


def _inputs(table: Table, names: list[str], categorical: list[str] | str) -> tuple[Tensor, tuple[str, ...]]:
    """(N, F) float32 and the names of the F features."""
    chosen = _categorical(table, names, categorical)
    blocks: list[NDArray[np.float32]] = []
    feature_names: list[str] = []
    for name in names:
        column = table.column(name, "features")
        if name in chosen:
            block, values = _one_hot(table, name, column, automatic=categorical == "auto")
            feature_names += [f"{name}={value}" for value in values]
        else:
            block = _numbers(
                table, name, column, "give it to dataset.categorical or leave it out of dataset.features"
            )
            feature_names.append(name)
        blocks.append(block.astype(np.float32).reshape(len(table), -1))
    return torch.from_numpy(np.concatenate(blocks, axis=1)), tuple(feature_names)


def _categorical(table: Table, names: list[str], categorical: list[str] | str) -> set[str]:
    if isinstance(categorical, str):
        if categorical != "auto":
            raise DataError(
                f"dataset.categorical is {categorical!r}; it must be auto or a list of columns ([] for none)"
            )
        return {name for name in names if _is_text(table.column(name, "features"))}
    for name in categorical:
        table.column(name, "categorical")
        if name not in names:
            raise DataError(
                f"dataset.categorical names {name!r}, which is not among the features; add it there"
            )
    return set(categorical)


def _one_hot(
    table: Table, name: str, column: Column, automatic: bool
) -> tuple[NDArray[np.float64], list[str]]:
    _refuse_missing(table, name, column)
    values, codes = np.unique(column, return_inverse=True)
    if automatic and len(values) > _CATEGORIES:
        raise DataError(
            f"column {name!r} of {table.path} holds {len(values)} different texts (the first: "
            f"{column[0]!r}), too many "
            "for a category; leave it out of dataset.features, or name it in dataset.categorical to keep it"
        )
    return np.eye(len(values))[codes], _names(values)


def _targets(table: Table, targets: list[str], task: str) -> tuple[Task, Tensor, tuple[str, ...]]:
    columns = [table.column(name, "target") for name in targets]
    for name, column in zip(targets, columns, strict=True):
        _refuse_missing(table, name, column)
    if task not in ("classification", "regression", "auto"):
        raise DataError(f"dataset.task is {task!r}; it must be classification, regression or auto")
    if task == "classification" or (task == "auto" and len(columns) == 1 and _looks_like_classes(columns[0])):
        if len(columns) > 1:
            raise DataError(
                f"dataset.target names {len(columns)} columns; a classification has one target column"
            )
        values, codes = np.unique(columns[0], return_inverse=True)
        return "classification", torch.from_numpy(codes.astype(np.int64)), tuple(_names(values))
    cure = "set dataset.task=classification or name another dataset.target"
    numbers = [_numbers(table, name, column, cure) for name, column in zip(targets, columns, strict=True)]
    return "regression", torch.from_numpy(np.stack(numbers, 1).astype(np.float32)), ()


def _looks_like_classes(column: Column) -> bool:
    if _is_text(column):
        return True
    values = np.unique(column)
    return len(values) <= _CLASSES and bool((values == np.floor(values)).all())


def _split(table: Table, name: str) -> Tensor:
    column = np.char.lower(np.char.strip(table.column(name, "split_column").astype(str)))
    marks = np.full(len(column), -1, np.int8)
    for mark, word in enumerate(SPLIT_NAMES):
        marks[column == word] = mark
    if (marks < 0).any():
        row = int(np.flatnonzero(marks < 0)[0])
        value = str(table.columns[name][row])
        raise DataError(
            f"column {name!r} has {value!r} in {table.row(row)}; a split column holds "
            "train, val and "
            "test only"
        )
    return torch.from_numpy(marks)


def _codes(table: Table, name: str, key: str) -> Tensor:
    column = table.column(name, key)
    _refuse_missing(table, name, column)
    return torch.from_numpy(np.unique(column, return_inverse=True)[1].astype(np.int64))


def _names(values: Column) -> list[str]:
    """Values as text; whole numbers without their `.0`."""
    if _is_text(values):
        return [str(value) for value in values]
    return [str(int(value)) if value == int(value) else str(value) for value in values.tolist()]


def _is_text(column: Column) -> bool:
    return column.dtype.kind not in "fiub"


def _numbers(table: Table, name: str, column: Column, cure: str) -> NDArray[np.float64]:
    """The column as finite numbers, or an error that names column, row and value."""
    _refuse_missing(table, name, column)
    if _is_text(column):
        row = next(i for i, text in enumerate(column) if not _is_number(text))
        raise DataError(
            f"column {name!r} has {str(column[row])!r} in {table.row(row)}, which is not a number; {cure}"
        )
    numbers = column.astype(np.float64)
    infinite = np.flatnonzero(np.isinf(numbers))
    if len(infinite):
        row = int(infinite[0])
        raise DataError(
            f"column {name!r} has {numbers[row]} in {table.row(row)}; all values must be finite numbers"
        )
    return numbers


def _refuse_missing(table: Table, name: str, column: Column) -> None:
    if _is_text(column):
        missing = np.isin(np.char.lower(np.char.strip(column.astype(str))), _MISSING)
    else:
        missing = np.isnan(column) if column.dtype.kind == "f" else np.zeros(len(column), bool)
    rows = np.flatnonzero(missing)
    if len(rows):
        more = f" ({len(rows)} rows lack it)" if len(rows) > 1 else ""
        raise DataError(
            f"column {name!r} has no value in {table.row(int(rows[0]))}{more}; fill it in, remove the row, "
            "or leave the "
            "column out of dataset.features"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read(path: Path, delimiter: str) -> Table:
    if not path.is_file():
        raise DataError(f"dataset.path is {path}, which is not a file; set it to a CSV or Parquet file")
    columns = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path, delimiter)
    if not columns or not len(next(iter(columns.values()))):
        raise DataError(f"{path} holds no row below its header")
    return Table(path, columns)


def _read_csv(path: Path, delimiter: str) -> dict[str, Column]:
    if len(delimiter) != 1:
        raise DataError(f"dataset.delimiter is {delimiter!r}; it must be one character")
    try:
        with open(path, newline="", encoding="utf-8-sig") as lines:
            rows = [
                row for row in csv_module.reader(lines, delimiter=delimiter, skipinitialspace=True) if row
            ]
    except (UnicodeDecodeError, csv_module.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8 ({error}); save it again in that form") from error
    if not rows:
        raise DataError(f"{path} is empty; its first line must name the columns")
    header = [name.strip() for name in rows[0]]
    _check_shape(path, header, rows, delimiter)
    return {
        name: _typed(list(column)) for name, column in zip(header, zip(*rows[1:], strict=True), strict=False)
    }


def _check_shape(path: Path, header: list[str], rows: list[list[str]], delimiter: str) -> None:
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path} has two columns named {twice!r}; give each its own name")
    other = next((mark for mark in ";\t|," if mark != delimiter and mark in header[0]), None)
    if len(header) == 1 and other:
        raise DataError(
            f"{path} has one column, {header[0]!r}; is its separator {other!r}? Set "
            f"dataset.delimiter={other!r}"
        )
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(header):
            raise DataError(
                f"row {number} of {path} has {len(row)} values for {len(header)} columns; repair that line"
            )


def _typed(texts: list[str]) -> Column:
    """Numbers where all values are numbers or missing, else text."""
    column = np.array(texts)
    try:
        return column.astype(np.float64)
    except ValueError:
        return column


def _read_parquet(path: Path) -> dict[str, Column]:
    try:
        from pyarrow import ArrowException, parquet  # an extra: only Parquet needs it
    except ImportError as error:
        raise DataError(
            f"{path} needs pyarrow; run: pip install 'dltrain[parquet]', or save it as CSV"
        ) from error
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a whole Parquet file ({str(error).splitlines()[0]}); write it again"
        ) from error
    return {name: _from_arrow(column) for name, column in zip(table.column_names, table.columns, strict=True)}


def _from_arrow(column: Any) -> Column:
    """Numbers with NaN for null; everything else as text with an empty text for null."""
    values = (
        column.to_numpy(zero_copy_only=False)
        if column.null_count == 0
        else np.array(column.to_pylist(), object)
    )
    if values.dtype.kind in "fiu":
        return values
    if values.dtype.kind == "b":
        return values.astype(np.int64)
    return _from_objects(values.tolist())


def _from_objects(values: list[Any]) -> Column:
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, int | float) for value in present):
        return np.array([np.nan if value is None else value for value in values], np.float64)
    return np.array(["" if value is None else str(value) for value in values])
