"""The target of a table: classes or quantities, told by its values, stated, and refused where they do not tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dltrain.data.class_names import one_coding, respelled, spellings
from dltrain.data.contract import Contract
from dltrain.data.errors import DataError, some
from dltrain.data.spec import Task
from dltrain.data.tables import text
from dltrain.data.tables.columns import Column, Columns, LeftOut, number_names
from dltrain.data.tables.cures import typed
from dltrain.data.tables.identifiers import is_row_number
from dltrain.data.tables.rules import Format
from dltrain.data.tables.text import Flags
from dltrain.text import counted

_CLASSES = 20  # whole numbers with more different values are a quantity
_SURE_CLASSES = 10  # so many from 0 or 1 on, without a gap, are class numbers
_ROWS_OF_A_CLASS = 3  # fewer of one number: rather a count than a class
TASKS = ("auto", "classification", "regression")


@dataclass(frozen=True)
class Targets:
    """Targets of the rows that have one: (M,) int64 classes or (M, K) float64 quantities; kept: (N,) which rows these are."""

    task: Task
    names: tuple[str, ...]
    formats: tuple[Format, ...]
    values: Tensor
    class_names: tuple[str, ...]
    kept: Flags
    note: str


def goal_of(contract: Contract) -> Targets:
    """Return what the targets of a run are, without values."""
    names, formats = ([getattr(rule, key) for rule in contract.targets] for key in ("name", "format"))
    return Targets(
        contract.task,
        tuple(names),
        tuple(formats),
        torch.empty(0),
        contract.class_names,
        np.empty(0, bool),
        "",
    )


def read_targets(columns: Columns, names: list[str], task: str, merge_case: bool = True) -> Targets:
    """Read the target columns as `task`; `auto` infers it. Rows without a target are not kept.

    merge_case: whether texts that differ in upper and lower case only are one class
    """
    if task not in TASKS:
        raise DataError(f"dataset.task is {task!r}; it must be classification, regression or auto")
    if task == "classification" and len(names) > 1:
        raise DataError(f"dataset.target names {len(names)} columns; a classification has one target column")
    if len(names) == 1 and task != "regression":
        column = _infer(columns, names[0])
        if task == "classification" or _is_classes(columns, column):
            return _classes(columns, names[0], task == "auto", merge_case)
    return _quantities(columns, names, inferred=task == "auto")


def _infer(columns: Columns, name: str) -> Column:
    """Read the target by the majority of its values; text is always classes, however many there are."""
    found = columns.declared(name) or columns.infer(name)
    if isinstance(found, Column):
        return found
    if found.reason == "empty":
        raise DataError(f"column {name!r} of {columns.table.path} has no value; name another dataset.target")
    if found.reason.startswith("text"):
        return columns.category(name)
    raise _not_a_target(columns, found)


def _not_a_target(columns: Columns, found: LeftOut) -> DataError:
    what = "a different text in every row" if found.reason == "identifier" else found.reason
    return DataError(
        f"dataset.target names {found.name!r} of {columns.table.path}, which holds {what}: nothing that could be "
        "predicted; name another dataset.target"
    )


def _is_classes(columns: Columns, column: Column) -> bool:
    """Infer whether a single target holds classes.

    Text, true and false, and two different whole numbers are classes. Numbers with a fraction, and whole numbers with
    more than 20 different values, are quantities. So are whole numbers that seldom repeat. What is left is classes where the numbers
    run from 0 or 1 to at most 10 without a gap, each in 3 rows or more, and ambiguous otherwise: DataError.
    """
    if column.format.kind in ("category", "boolean"):
        return True
    if column.format.kind == "date":
        raise DataError(
            f"dataset.target names {column.name!r} of {columns.table.path}, which holds dates; name a column of numbers or classes"
        )
    values = column.values[~column.missing]
    levels, counts = np.unique(values, return_counts=True)
    if bool((levels != np.floor(levels)).any()) or len(levels) > _CLASSES:
        return False
    if len(levels) == 2:
        return True
    if 3 * len(levels) > len(values):
        return False
    running = levels[0] in (0, 1) and bool((np.diff(levels) == 1).all())
    if running and len(levels) <= _SURE_CLASSES and int(counts.min()) >= _ROWS_OF_A_CLASS:
        return True
    if len(levels) == 1:
        raise _constant(columns, column.name, levels[0])
    span = ", ".join(number_names(levels[:3])) + f", … {number_names(levels[-1:])[0]}" * (len(levels) > 3)
    raise DataError(
        f"column {column.name!r} of {columns.table.path} holds {len(levels)} different whole numbers ({span}), which may be "
        "classes or a quantity, such as a count or a rating;\nset dataset.task=regression or dataset.task=classification"
    )


def _constant(columns: Columns, name: str, value: Any) -> DataError:
    return DataError(
        f"column {name!r} of {columns.table.path} has the same value in every row ({value}); there is nothing to "
        "predict, so name another dataset.target"
    )


def _classes(columns: Columns, name: str, inferred: bool, merge_case: bool) -> Targets:
    column = columns.category(name)
    counts = dict(zip(column.levels, np.bincount(column.values[~column.missing]).tolist(), strict=False))
    renamed = spellings(counts) | one_coding(counts) if merge_case else {}
    column = column.renamed(renamed)
    kept = ~column.missing
    _check_some(columns, name, kept)
    if len(column.levels) == 1:
        raise _constant(columns, name, repr(column.levels[0]))
    rows = int(kept.sum())
    if len(column.levels) > _CLASSES and 2 * len(column.levels) > rows:
        raise DataError(
            f"dataset.target names {name!r} of {columns.table.path}, which holds {len(column.levels)} different values in {rows} "
            "rows: rather a name than a class; name another dataset.target"
        )
    how = "inferred; for a quantity: dataset.task=regression" if inferred and column.format.decimal else ""
    if renamed:
        how = f"{respelled(renamed, counts)}; to keep them apart: dataset.merge_case=false"
    return Targets(
        "classification", (name,), (column.format,), torch.from_numpy(column.values[kept].astype(np.int64)), column.levels, kept,
        _note(
            f"{name}: classification, {len(column.levels)} classes{_alike(column.levels)}", how, len(kept) - rows,
            _untold(columns, [name], False, bool(column.format.decimal)) if rows < len(kept) else "",
        ),
    )  # fmt: skip


def _quantities(columns: Columns, names: list[str], inferred: bool) -> Targets:
    read = [_quantity(columns, name) for name in names]
    kept: Flags = ~np.any([column.missing for column in read], axis=0)
    for column in read:
        _check_some(columns, column.name, ~column.missing)
        values = column.values[kept]
        if len(values) and bool((values == values[0]).all()):
            raise _constant(columns, column.name, f"{values[0]:g}")
        if not column.format.unit and is_row_number(column.name, column.values):
            raise DataError(
                f"dataset.target names {column.name!r} of {columns.table.path}, which numbers the rows; name another dataset.target"
            )
    stacked = np.stack([column.values[kept] for column in read], 1)
    how = "inferred; for classes: dataset.task=classification" if inferred and len(names) == 1 else ""
    return Targets(
        "regression", tuple(names), tuple(column.format for column in read), torch.from_numpy(stacked), (), kept,
        _note(
            f"{', '.join(map(_with_unit, read))}: regression", how, len(kept) - len(stacked),
            _untold(columns, names, True, True) if len(stacked) < len(kept) else "",
        ),
    )  # fmt: skip


def _with_unit(column: Column) -> str:
    return column.name + (f" in {column.format.unit}" if column.format.unit else "")


def _quantity(columns: Columns, name: str) -> Column:
    """Read a target as numbers, or refuse it with the row of the first value that is none."""
    found = columns.infer(name)
    if isinstance(found, LeftOut) and found.reason == "empty":
        raise DataError(f"column {name!r} of {columns.table.path} has no value; name another dataset.target")
    if isinstance(found, Column) and found.format.kind in ("number", "boolean"):
        return found
    coded = columns.coded(name)
    odd = ~text.numbers(coded.texts, columns.decimal(name))[1] & ~columns.reading.missing(
        coded.texts, among_numbers=True
    )
    row = coded.first_row(odd)
    raise DataError(
        f"column {name!r} has {coded.texts[int(coded.codes[row])].as_py()!r} in {columns.table.row(row)}, which is not a "
        "number; set dataset.task=classification or name another dataset.target"
    )


def _check_some(columns: Columns, name: str, kept: Flags) -> None:
    if not kept.any():
        raise DataError(f"column {name!r} of {columns.table.path} has no value; name another dataset.target")


def _alike(names: Sequence[str]) -> str:
    """Return the first two classes whose names differ in case or spaces only, for the note; or ""."""
    pair = text.alike(names)
    return f" ({pair[0]!r} and {pair[1]!r} are two of them)" if pair else ""


def _untold(columns: Columns, names: Sequence[str], among_numbers: bool, is_number: bool) -> str:
    """Return the words by which targets are missing, with the cure for one that is a class; or ""."""
    found = {
        word: count for name in names for word, count in columns.missing_words(name, among_numbers).items()
    }
    if not found:
        return ""
    listed = some((f"{word!r} ({count:,})" for word, count in found.items()), 6)
    classes = [word for word in found if word.lower() in text.MISSING and word[0].isalpha()]
    if is_number or not classes:
        return f": {listed}"
    key = typed("not_missing", [*columns.reading.not_missing, *classes])
    cure = (
        f"for {'a class' if len(classes) == 1 else 'classes'}, {key}"
        if columns.reading.has_keys
        else "write a class otherwise"
    )
    return f": {listed}; {cure}"


def _note(what: str, how: str, dropped: int, words: str = "") -> str:
    gone = f"{counted(dropped, 'row')} without a target left out{words}"
    notes = [what] + [how] * bool(how) + [gone] * bool(dropped)
    return f"target   {' · '.join(notes)}"
