"""Tables from the user's disk: CSV, Parquet, Arrow and JSON files as samples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dltrain.data.contract import Contract
from dltrain.data.errors import DataError, some
from dltrain.data.raw import SPLIT_WORDS, TEST, Places, RawData
from dltrain.data.tables.columns import Column, Columns, LeftOut
from dltrain.data.tables.cures import StrayValues, typed, value
from dltrain.data.tables.encode import TableInputs, knows
from dltrain.data.tables.identifiers import is_identifier
from dltrain.data.tables.notes import (
    alike_notes,
    constant_notes,
    different_notes,
    group_notes,
    header_notes,
    level_notes,
    part_notes,
    repeated_notes,
    sentinel_notes,
    split_notes,
    table_note,
    telling_notes,
    unread_notes,
)
from dltrain.data.tables.parts import Part, incomplete, joined, part_by_formats, part_of_table
from dltrain.data.tables.read import Table, is_text, read
from dltrain.data.tables.reading import Reading
from dltrain.data.tables.rules import Rule
from dltrain.data.tables.targets import Targets, goal_of, read_targets
from dltrain.declare import declares
from dltrain.errors import CheckpointProblem
from dltrain.ranges import FilePath

# the reason for leaving out a column with one value
_CONSTANT = "constant"
# how the reasons for leaving out a column begin that could be learned from as a category
_NO_LEVELS = ("identifier", "text", "code")
_CHOICES = {
    "target_scale": ("unit", "none"),
    "missing": ("auto", "refuse", "drop"),
    "dates": ("parts", "number"),
    "decimal": ("auto", "point", "comma"),
}


@declares(gives={"rows", "classes if task=classification", "quantities if task=regression"})
def csv(
    path: FilePath,
    target: str | list[str] | None = None,
    features: list[str] | None = None,
    drop: Sequence[str] = (),
    keep: Sequence[str] = (),
    categorical: list[str] | Literal["auto"] = "auto",
    split_column: str | None = None,
    group_column: str | None = None,
    test_path: FilePath | None = None,
    task: Literal["classification", "regression", "auto"] = "auto",
    merge_case: bool = True,
    target_scale: Literal["unit", "none"] = "unit",
    missing: Literal["auto", "refuse", "drop"] = "auto",
    missing_words: Sequence[str] | Sequence[float] = (),
    not_missing: Sequence[str] = (),
    dates: Literal["parts", "number"] = "parts",
    date_format: str = "auto",
    delimiter: str = "auto",
    decimal: Literal["auto", "point", "comma"] = "auto",
    contract: Annotated[Contract | None, "runtime"] = None,
    tolerant: Annotated[bool, "runtime"] = False,
    like: Annotated[Contract | None, "runtime"] = None,
) -> RawData:
    """Your table: a CSV file with a header line, a Parquet, an Arrow or a JSON file.

    What a column holds is told by the majority of its values, and what the target holds by its values, too. Fill
    values, levels and centers are computed from the training split. Raises DataError for a missing file or column,
    for values that do not fit their column, and for what may mean two things. docs/tables.md tells all of it.

    Use: rows of numbers, categories, dates and missing values, for classification or regression.
    Defaults: all columns but the target are features, save identifiers and free text, which the header lists; the model
        is table_mlp, for at most 100 epochs.
    Lecture: L3

    Args:
        path: the file; .parquet, .pq, .arrow, .feather, .json (a list of rows) and .jsonl are read as such, all else as CSV (also .gz)
        target: column to predict, which must be given; several columns for a regression; rows without it are left out
        features: columns to learn from; null takes all that have no other role
        drop: columns that are not learned from
        keep: columns to learn from although they look like identifiers or free text
        categorical: columns turned into one 0/1 column a value, beside text with up to 100 values (auto); [] takes
            none
        split_column: column that holds train, val or test
        group_column: rows with equal values here stay in one split
        test_path: another file with the test rows, its columns matched by name
        task: auto takes text, two values and 0 or 1 to at most 10 as classes
        merge_case: texts of the target that differ in upper and lower case only are one class, as the most frequent one is written
        target_scale: unit lets a regression learn targets of mean 0 and variance 1, and reports the real units
        missing: auto fills with the training median and marks it in a column; drop leaves the row out
        missing_words: more words for a missing value than "", na, n/a, n.a., nan, nil, null, <na>, #na, #n/a, #n/a n/a, ?
            and, among numbers and dates, none, missing, unknown, *, ., .., -, --, ---, –, — (in small or capital letters); given here, a number
            such as -999 is missing in columns of numbers
        not_missing: of these words, those that are values in columns of text and classes of the target, such as NA for Namibia
        dates: a date becomes year with fraction, month, weekday and hour (parts), or the year only (number)
        date_format: format of dates as in strptime, such as %d/%m/%Y, or iso, for the columns that have it; auto
            refuses what has day and month unclear
        delimiter: the character between values of a CSV file, or comma, semicolon, tab, pipe, space; auto looks
            at the file
        decimal: decimal mark of numbers in text
    """
    words, kept = tuple(map(str, missing_words)), tuple(map(str, not_missing))
    given = {"target_scale": target_scale, "missing": missing, "dates": dates, "decimal": decimal}
    for key, word in given.items():
        if word not in _CHOICES[key]:
            raise DataError(f"dataset.{key} is {word!r}; it must be {' or '.join(_CHOICES[key])}")
    others = {"split_column": split_column, "group_column": group_column}
    if contract is not None and contract.columns:
        words = contract.missing_words(words)
        reading = Reading(words, decimal, date_format, not_missing=contract.not_missing)
        return _by_contract(contract, (path, test_path), delimiter, reading, missing, others, tolerant)
    table = read(Path(os.path.expanduser(path)), delimiter)
    targets = [target] if isinstance(target, str) else list(target or ())
    if not targets:
        raise _without_target(table)
    roles = _Roles(table, targets, others, features, list(drop), list(keep), categorical, date_format)
    reading = Reading(words, decimal, date_format, not_missing=kept)
    reading.check()
    columns = Columns(table, reading, [*targets, *roles.candidates], targets)
    try:
        goal = read_targets(columns, targets, task, merge_case)
        chosen, left_out = roles.choose(columns)
        adopted = None if like is None else roles.choose_like(like, columns, chosen, left_out)
    except StrayValues as error:
        own = roles.categorical if not isinstance(roles.categorical, str) else ()
        raise error.with_words(columns.strays(name for name in columns.names if name not in own)) from None
    if adopted is not None:
        chosen, left_out = adopted
    parts = [part_of_table(table, chosen, goal.values, goal.kept)]
    if test_path is not None:
        file = Path(os.path.expanduser(test_path))
        if file.exists() and file.samefile(table.path):
            raise DataError(
                f"dataset.test_path is {test_path}, the training file, so the model would be tested on rows that it was trained on; "
                "name another file, or leave dataset.test_path out to split the rows"
            )
        parts.append(part_by_formats(file, "test_path", delimiter, columns.reading, chosen, goal))
    parts = [part.without(incomplete(part, missing)) for part in parts]
    columns_read = tuple(map(joined, zip(*(part.columns for part in parts), strict=True)))
    rows = torch.from_numpy(parts[0].rows)
    return RawData(
        inputs=TableInputs(
            columns_read,
            dates == "parts",
            files=tuple(len(part.rows) for part in parts),
            like=like.columns if like is not None and adopted is not None else (),
        ),
        targets=torch.cat([part.targets for part in parts]),
        task=goal.task,
        class_names=goal.class_names,
        split=_marks(table, split_column, parts),
        groups=_groups(table, group_column, decimal, parts, rows) if group_column else None,
        describe=(places := _Places.of(parts)).describe,
        locate=places.locate,
        target_rules=_target_rules(columns, goal),
        target_scale="unit" if target_scale == "unit" and goal.task == "regression" else "none",
        left_out={column.name: column.reason for column in (*left_out, *roles.dropped)},
        unused=roles.unused(chosen),
        notes=(
            table_note(table, chosen, left_out, roles.dropped),
            *header_notes(table.columns, targets),
            *repeated_notes([table]),
            *constant_notes(chosen),
            *part_notes(parts),
            goal.note,
            *columns.word_notes.values(),
            *columns.reading.notes,
            *(group_notes(table, roles.candidates) if split_column is None and group_column is None else ()),
            *sentinel_notes(chosen, words),
            *unread_notes(columns.unread, left_out, roles.as_categories["categorical"], roles.drop),
            *alike_notes(chosen),
            *(split_notes(chosen) if split_column is None else ()),
            *telling_notes(parts[0].columns, parts[0].targets, targets[0]),
            *different_notes(chosen, [*roles.keep, *(roles.features or [])]),
            *level_notes(chosen, roles.as_categories),
        ),
    )


def _without_target(table: Table) -> DataError:
    """Return the refusal of a table of which no column is to be predicted; the last one is often meant."""
    last = list(table.columns)[-1]
    return DataError(
        f"dataset.target is not given: name the column of {table.path} to predict, such as {value('target', last)}; its columns: "
        f"{some(table.columns, 20)}"
    )


def _by_contract(
    contract: Contract,
    files: tuple[str, str | None],
    delimiter: str,
    reading: Reading,
    missing: str,
    others: dict[str, str | None],
    tolerant: bool,
) -> RawData:
    """Rows of other files, read and encoded as the data of a run were; DataError for what differs.

    tolerant: rows with a value that does not fit its column are left out, and named in notes.
    """
    if not contract.targets:
        raise CheckpointProblem("data.json of the run names no target column: it is damaged; train again")
    rules, goal = contract.columns, goal_of(contract)
    named = [
        (key, Path(os.path.expanduser(file)))
        for key, file in zip(("path", "test_path"), files, strict=True)
        if file
    ]
    parts = [part_by_formats(file, key, delimiter, reading, rules, goal, tolerant) for key, file in named]
    parts = [part.without(incomplete(part, missing)) for part in parts]
    table = parts[0].table
    for key, other in others.items():
        if other is not None:
            table.column(other, key)
    columns = tuple(map(joined, zip(*(part.columns for part in parts), strict=True)))
    groups, rows = others["group_column"], torch.from_numpy(parts[0].rows)
    return RawData(
        inputs=TableInputs(columns, False, rules=rules),
        targets=torch.cat([part.targets for part in parts]),
        task=goal.task,
        class_names=goal.class_names,
        split=_marks(table, others["split_column"], parts),
        groups=_groups(table, groups, reading.decimal, parts, rows) if groups else None,
        describe=(places := _Places.of(parts)).describe,
        locate=places.locate,
        target_rules=contract.targets,
        target_scale="unit" if contract.target_mean else "none",
        notes=(table_note(table, parts[0].columns, [], []), *part_notes(parts)),
    )


@dataclass(frozen=True)
class _Roles:
    """Which columns may be learned from, by the keys of the user."""

    table: Table
    targets: list[str]
    others: dict[str, str | None]  # of the split and the groups, by key
    features: list[str] | None
    drop: list[str]
    keep: list[str]
    categorical: list[str] | str
    date_format: str

    def __post_init__(self) -> None:
        lists = {"features": self.features or [], "drop": self.drop, "keep": self.keep}
        named = {
            "target": self.targets,
            **lists,
            "categorical": [] if isinstance(self.categorical, str) else self.categorical,
        }
        for key, names in named.items():
            for name in names:
                self.table.column(name, key)
        for key, other in self.others.items():
            if other is not None:
                self.table.column(other, key)
        taken = {*self.targets, *self.others.values()}
        for key, names in lists.items():
            twice = [name for name in names if name in taken]
            if twice:
                raise DataError(
                    f"dataset.{key} names {twice[0]!r}, which is the target, split or group; leave it out there"
                )
        self._check_categorical()
        if not self.candidates:
            raise DataError(
                f"no column of {self.table.path} is left to learn from; name them: dataset.features=[…]"
            )

    def _check_categorical(self) -> None:
        if isinstance(self.categorical, str):
            if self.categorical != "auto":
                raise DataError(
                    f"dataset.categorical is {self.categorical!r}; it must be auto or a list of columns to add ([] for no category at all)"
                )
            return
        for name in self.categorical:
            if name not in self.candidates and name not in self.targets:
                raise DataError(
                    f"dataset.categorical names {name!r}, which is not among the features; add it there"
                )

    @property
    def candidates(self) -> list[str]:
        """The columns that the user did not exclude."""
        taken = {*self.targets, *self.others.values(), *self.drop}
        return [
            name
            for name in (self.table.columns if self.features is None else self.features)
            if name not in taken
        ]

    @property
    def as_categories(self) -> dict[str, list[str]]:
        """Return the columns that the user makes categories, by key."""
        named = [] if isinstance(self.categorical, str) else list(self.categorical)
        return {"categorical": named, "keep": [name for name in self.keep if name not in named]}

    @property
    def dropped(self) -> list[LeftOut]:
        """Return the columns that the user left out, and those that say which rows belong together."""
        what = {"split_column": "splits the rows", "group_column": "groups the rows"}
        taken = [LeftOut(name, what[key]) for key, name in self.others.items() if name is not None]
        return taken + [LeftOut(name, "dropped") for name in self.drop]

    def unused(self, chosen: tuple[Column, ...]) -> dict[str, str]:
        """Return the keys of the user that change nothing for this table, with the reason."""
        found: dict[str, str] = {}
        if not any(column.format.kind == "date" for column in chosen):
            found |= dict.fromkeys(("dates", "date_format"), "no column holds dates")
        elif self.date_format not in ("auto", *(column.format.date for column in chosen)):
            found["date_format"] = "no column holds dates of this form"
        if self.features is not None and not set(self.drop) & set(self.features):
            found["drop"] = "dataset.features names all columns to learn from"
        if not is_text(self.table.path):
            found["delimiter"] = f"{self.table.path.suffix} files have columns of their own"
        return found

    def choose(self, columns: Columns) -> tuple[tuple[Column, ...], list[LeftOut]]:
        """Return the features, and the columns that hold nothing to learn from; DataError for one that the user named."""
        chosen: list[Column] = []
        left_out: list[LeftOut] = []
        for name in self.candidates:
            found = self._read(columns, name)
            columns.release(name)
            if isinstance(found, Column):
                chosen.append(found)
            else:
                left_out.append(found)
        constant = [column.name for column in chosen if column.is_constant]
        constant += [column.name for column in left_out if column.reason == _CONSTANT]
        if constant and len(constant) == len(chosen) + len(left_out):
            raise DataError(
                f"every feature of {self.table.path} has the same value in every row ({some(constant, 6)}); there is "
                "nothing to learn from. Look at the file, or name other columns: dataset.features=[…]"
            )
        if not chosen:
            names = [column.name for column in left_out]
            raise DataError(
                f"no column of {self.table.path} is left to learn from: {some(f'{c.name} ({c.reason})' for c in left_out)}; "
                f"to learn from them nevertheless: {typed('keep', names[:3])}"
            )
        return tuple(chosen), left_out

    def choose_like(
        self, like: Contract, columns: Columns, chosen: tuple[Column, ...], left_out: list[LeftOut]
    ) -> tuple[tuple[Column, ...], list[LeftOut]] | None:
        """Return the columns that another run learns from, in its order and read as there, and those that it leaves out.

        chosen and left_out: as this table alone tells. Returns None where the columns are others, or hold something else.
        """
        found, known = {column.name: column for column in chosen}, {rule.name for rule in like.columns}
        asked = {*self.keep, *(self.features or [])}
        more = [name for name in found if name not in known]
        if not known <= {*self.candidates} or any(
            name not in like.left_out or name in asked for name in more
        ):
            return None
        read: list[Column] = []
        for rule in like.columns:
            column = found.get(rule.name)
            if column is None or (column.format.kind, column.format.unit) != (
                rule.format.kind,
                rule.format.unit,
            ):
                try:
                    column = columns.parse(rule.name, rule.format)
                except DataError:
                    return None
            if not knows(rule, column):
                return None
            read.append(column)
        gone = [LeftOut(name, "left out by the run whose weights are loaded") for name in more]
        return tuple(read), [*(column for column in left_out if column.name not in known), *gone]

    def _read(self, columns: Columns, name: str) -> Column | LeftOut:
        if not isinstance(self.categorical, str) and name in self.categorical:
            return columns.category(name)
        declared = None if self.categorical == [] else columns.declared(name)
        found = declared or columns.infer(name)
        asked = name in self.keep or self.features is not None
        if isinstance(found, LeftOut):
            if name in self.keep and found.reason.startswith(_NO_LEVELS):
                return columns.category(name)
            if asked:
                raise self._unusable(found, columns)
            return found
        number = found.format.kind == "number" and not found.format.unit
        if number and not asked and is_identifier(name, found.values):
            return LeftOut(name, "identifier")
        if found.is_constant and not asked:
            # weights that nothing trained would answer to another value in a later file
            return LeftOut(name, _CONSTANT)
        if found.format.kind == "category" and self.categorical == []:
            row = int(np.flatnonzero(found.values >= 0)[0])
            raise DataError(
                f"column {name!r} has {found.levels[found.values[row]]!r} in {self.table.row(row)}, which is not a number; "
                "give it to dataset.categorical or leave it out of dataset.features"
            )
        return found

    def _unusable(self, found: LeftOut, columns: Columns) -> DataError:
        name, path = found.name, self.table.path
        if found.reason.startswith(_NO_LEVELS):
            coded = columns.coded(name)
            return DataError(
                f"column {name!r} of {path} holds {len(coded.texts)} different texts (the first: {coded.words[0]!r}), too "
                "many for a category; leave it out of dataset.features, or name it in dataset.categorical to keep it"
            )
        what = "no value" if found.reason == "empty" else found.reason
        key = "features" if self.features is not None else "keep"
        return DataError(f"column {name!r} of {path} holds {what}; leave it out of dataset.{key}")


def _marks(table: Table, split_column: str | None, parts: list[Part]) -> Tensor | None:
    if split_column is None and len(parts) == 1:
        return None
    first = (
        split_marks(table, split_column)[parts[0].rows]
        if split_column
        else np.zeros(len(parts[0].rows), np.int8)
    )
    if len(parts) > 1 and (first == TEST).any():
        raise DataError(
            f"dataset.test_path names a test file, and column {split_column!r} of {table.path} marks test rows too; use one of both"
        )
    return torch.from_numpy(
        np.concatenate([first, *(np.full(len(part.rows), TEST, np.int8) for part in parts[1:])])
    )


def split_marks(table: Table, name: str) -> NDArray[np.int8]:
    """Return the split (N,) of each row, from a column of words such as train and test."""
    words = [str(value).strip() for value in table.columns[name].to_pylist()]
    marks = np.array([SPLIT_WORDS.get(word.lower(), -1) for word in words], np.int8)
    if (marks < 0).any():
        row = int(np.flatnonzero(marks < 0)[0])
        raise DataError(
            f"column {name!r} has {words[row]!r} in {table.row(row)}; a split column holds train, val and test only"
        )
    return marks


def _groups(table: Table, name: str, decimal: str, parts: list[Part], rows: Tensor) -> Tensor:
    """Number the groups; the rows of a test file are a group of their own."""
    try:
        column = Columns(table, Reading(decimal=decimal), [name]).category(name)
    except DataError:
        # what a mark means does not change which rows are equal
        column = Columns(table, Reading(decimal="point"), [name]).category(name)
    if column.missing.any():
        empty = np.flatnonzero(column.missing)
        more = f" (and {len(empty) - 1:,} more)" if len(empty) > 1 else ""
        raise DataError(
            f"column {name!r} has no value in {table.row(int(empty[0]))}{more}; every row needs its group: give rows that belong to none a "
            "value that no other row has, or leave them out of the file"
        )
    groups = torch.from_numpy(column.values.astype(np.int64))[rows]
    return torch.cat([groups, *(torch.full((len(part.rows),), len(column.levels)) for part in parts[1:])])


@dataclass(frozen=True)
class _Places:
    """The rows of each file, counted from 1, in the order of the samples."""

    files: tuple[tuple[Path, NDArray[np.int64]], ...]

    @classmethod
    def of(cls, parts: Sequence[Part]) -> _Places:
        return cls(tuple((part.table.path, part.table.numbers[part.rows]) for part in parts))

    def describe(self, index: int) -> str:
        """Return `row 3 of FILE`."""
        for path, rows in self.files:
            if index < len(rows):
                return f"row {rows[index]} of {path}"
            index -= len(rows)
        return f"sample {index}"

    def locate(self, positions: Tensor) -> Places:
        """Return the rows of a split, which is in one file: only the test split is in the second one."""
        path, rows = self.files[0]
        first = len(rows)
        if len(positions) and int(positions[0]) >= first:
            (path, rows), positions = self.files[1], positions - first
        return Places(rows[positions.numpy()], str(path))


def _target_rules(columns: Columns, goal: Targets) -> tuple[Rule, ...]:
    return tuple(
        Rule(name, form, goal.class_names) for name, form in zip(goal.names, goal.formats, strict=True)
    )
