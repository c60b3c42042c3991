"""What was inferred from a table, as the lines that the header shows."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyarrow import compute
from torch import Tensor

from dltrain.data.errors import some
from dltrain.data.raw import SPLIT_WORDS, TRAIN
from dltrain.data.tables.columns import Column, LeftOut
from dltrain.data.tables.cures import short, typed, value
from dltrain.data.tables.durations import UNIT
from dltrain.data.tables.identifiers import (
    MOST_LEVELS,
    are_all_different,
    is_identifier_name,
    is_number_name,
)
from dltrain.data.tables.parts import Part
from dltrain.data.tables.read import REPEATED, Table
from dltrain.data.tables.rules import Kind
from dltrain.data.tables.text import DIGITS, alike
from dltrain.text import counted

# probability below which rows of one class are no accident
_CHANCE = 1e-9
_TELLING = 100  # fewer rows do not tell that a column alone gives the classes
# values of a column that groups rows, and their share of the rows
_LEAST_GROUPS, _MOST_GROUPS = 10, 0.7
_LOOKED_AT = 1000  # rows, before all are
_OTHERS = 10  # fewer values do not tell what is far from them
_ROWS = 6  # of which a note has the numbers
LISTED = 20  # columns that are left out and named in the header


_PLURALS: dict[Kind, str] = {
    "number": "numbers",
    "boolean": "true/false",
    "date": "dates",
    "category": "categories",
}


def table_note(
    table: Table, chosen: Sequence[Column], left_out: Sequence[LeftOut], dropped: Sequence[LeftOut]
) -> str:
    """`table    house.csv · 506 rows · 11 numbers, 2 categories · left out: id (identifier)`."""
    counts = Counter(column.format.kind for column in chosen)
    kinds = [
        f"{counts[kind]} {kind if counts[kind] == 1 else plural}"
        for kind, plural in _PLURALS.items()
        if counts[kind]
    ]
    facts = [table.path.name, *table.notes, counted(len(table), "row"), ", ".join(kinds)]
    facts[1:1] = _forms(chosen)
    gone = [f"{column.name} ({column.reason})" for column in (*left_out, *dropped)]
    if gone:
        more = "; all: left_out in data.json" * (len(gone) > LISTED)
        facts.append(f"left out: {some(gone, LISTED)}{more}")
    return f"table    {' · '.join(facts)}"


def _forms(chosen: Sequence[Column]) -> list[str]:
    """Name the columns whose values have another form than plain numbers and dates."""
    numbers = [column for column in chosen if column.format.kind == "number"]
    comma = any(column.format.decimal == "," for column in numbers)
    currencies = dict.fromkeys(
        column.format.unit for column in numbers if column.format.unit not in ("", "%")
    )
    named = {
        "decimal point": [column for column in numbers if comma and column.format.decimal == "."],
        "percent": [column for column in numbers if column.format.unit == "%"],
        **{
            "durations as seconds" if unit == UNIT else f"amounts in {unit}": [
                column for column in numbers if column.format.unit == unit
            ]
            for unit in currencies
        },
        "dates as 20240131": [column for column in chosen if column.format.date == DIGITS],
    }
    found = [f"{what}: {some((c.name for c in columns), 4)}" for what, columns in named.items() if columns]
    return ["decimal comma"] * comma + found


def constant_notes(chosen: Sequence[Column]) -> list[str]:
    """Return a note about the columns of one value that the user keeps."""
    names = [column.name for column in chosen if column.is_constant]
    return [f"constant {some(names, 6)} · the same value in every row"] * bool(names)


def different_notes(chosen: Sequence[Column], asked: Sequence[str]) -> list[str]:
    """Name the whole numbers that are all different, which may name the rows."""
    names = [
        column.name
        for column in chosen
        if column.format.kind == "number"
        and not column.format.unit
        and column.name not in asked
        and are_all_different(column.values)
    ]
    if not names:
        return []
    return [
        f"numbers  all different: {some(names, 6)}; if they name rows, leave them out: {typed('drop', names[:6])}"
    ]


def group_notes(table: Table, names: Sequence[str]) -> list[str]:
    """Name the columns that are called like an identifier, each value of which is in several rows: of a person or a thing."""
    found = {}
    for name in names:
        if is_identifier_name(name) or is_number_name(name):
            kinds = compute.count_distinct(table.columns[name], mode="only_valid").as_py()
            if _LEAST_GROUPS <= kinds <= _MOST_GROUPS * len(table):
                found[name] = kinds
    return [
        f"groups   {name}: {kinds:,} values in {len(table):,} rows, and those of one value may be in several splits; to keep them together, "
        f"{value('group_column', name)}"
        for name, kinds in found.items()
    ]


def sentinel_notes(chosen: Sequence[Column], given: Sequence[str]) -> list[str]:
    """Name the numbers such as -999 that lie far from all others of their column, and may stand for a missing value.

    given: the words for a missing value that the user gave
    """
    numbers = [column for column in chosen if column.format.kind == "number" and not column.format.unit]
    found = {column.name: sentinels for column in numbers if (sentinels := _sentinels(column.values))}
    notes = []
    for name, sentinels in found.items():
        for number, (count, low, high) in sentinels.items():
            # called missing, it would be in other columns, too
            elsewhere = any(
                number not in found.get(column.name, {}) and bool((column.values == number).any())
                for column in numbers
            )
            cure = (
                "write nothing in its place"
                if elsewhere
                else typed("missing_words", [*given, f"{number:.0f}"])
            )
            notes.append(
                f"words    {name}: {number:.0f} in {counted(count, 'row')}, far from all others ({low:.6g} to {high:.6g}); if it stands for a "
                f"missing value, {cure}"
            )
    return notes


def _sentinels(values: NDArray[np.float64]) -> dict[float, tuple[int, float, float]]:
    """Return the numbers of nines that repeat, farther from the others than these are apart; with their rows and the ends of the others."""
    present = values[~np.isnan(values)]
    found: dict[float, tuple[int, float, float]] = {}
    for end in (float(present.min()), float(present.max())) if len(present) else ():
        count = int((present == end).sum())
        if re.fullmatch(r"-?9{2,}", f"{end:.0f}") and count > 1 and end == round(end):
            others = present[~np.isin(present, [end, *found])]
            if len(others) < _OTHERS:
                continue
            low, high = float(others.min()), float(others.max())
            if low < high and max(low - end, end - high) > high - low:
                found[end] = count, low, high
    return found


def level_notes(chosen: Sequence[Column], asked: Mapping[str, Sequence[str]]) -> list[str]:
    """Name the categories that the user asked for and that make more inputs than a text column would without being asked for."""
    many = {
        column.name: len(column.levels)
        for column in chosen
        if column.format.kind == "category" and len(column.levels) > MOST_LEVELS
    }
    return [
        f"levels   {some(f'{name} ({many[name]:,})' for name in found)}: more than {MOST_LEVELS} values, each of which is an input; "
        f"to learn from fewer, leave {'it' if len(found) == 1 else 'them'} out of dataset.{key}"
        for key, names in asked.items()
        if (found := [name for name in names if name in many])
    ]


def unread_notes(
    unread: Mapping[str, str], left_out: Sequence[LeftOut], categorical: Sequence[str], drop: Sequence[str]
) -> list[str]:
    """Name the columns whose values begin with numbers or look like dates, and are learned from as categories or not at all.

    unread: one of the values by column; categorical, drop: what the user gave for these keys
    """
    gone = {column.name for column in left_out}
    found = []
    for what, key, given, names in (
        ("categories", "categorical", categorical, [name for name in unread if name not in gone]),
        ("left out", "drop", drop, [name for name in unread if name in gone]),
    ):
        if names:
            shown = some((f"{name} ({short(unread[name])})" for name in names), 6)
            found.append(
                f"unread   {shown}: {what}, though most values begin with a number or look like a date; for amounts write plain "
                f"numbers (minutes for a time, half of a limit <0.5) or dates such as 2024-01-31; to leave it so, {typed(key, [*given, *names])}"
            )
    return found


def alike_notes(chosen: Sequence[Column]) -> list[str]:
    """Name the categories two values of which differ in case or spaces only."""
    pairs = {column.name: alike(column.levels) for column in chosen if column.format.kind == "category"}
    shown = [f"{name} ({pair[0]!r} and {pair[1]!r})" for name, pair in pairs.items() if pair]
    return [
        f"alike    {some(shown, 6)}: values that differ in case or spaces only are learned from as different ones; write them alike "
        "if they are one"
    ] * bool(shown)


def repeated_notes(tables: Sequence[Table]) -> list[str]:
    """Name the rows that were left out since they repeat the names of the columns."""
    notes = []
    for table in tables:
        rows = [number for number, reason in table.broken if reason == REPEATED]
        if rows:
            lines = table.lines_of(rows[:_ROWS])
            shown = some((f"{row}{lines.get(row, '')}" for row in rows), _ROWS)
            what = "row repeats" if len(rows) == 1 else "rows repeat"
            notes.append(
                f"header   {len(rows):,} {what} the names of the columns, and {'is' if len(rows) == 1 else 'are'} left out: row {shown} of "
                f"{table.path.name}"
            )
    return notes


def header_notes(names: Collection[str], targets: Collection[str]) -> list[str]:
    """Say that the names of the columns are numbers, as where a file has no header; 0, 1, 2, … or years in a row are names."""
    others = [name for name in names if name not in targets]
    try:
        numbers = [float(name) for name in others]
    except ValueError:
        return []
    if not others or all(right - left == 1 for left, right in zip(numbers, numbers[1:], strict=False)):
        return []
    return [
        f"header   the columns are called {some(others, 4)}, which are numbers: if the first line is data, put a line of names above it"
    ]


def split_notes(columns: Sequence[Column]) -> list[str]:
    """Name the categories that hold the names of splits and nothing else, among them train."""
    marked = {c.name: {SPLIT_WORDS.get(level.lower()) for level in c.levels} for c in columns if c.levels}
    names = [
        name for name, marks in marked.items() if None not in marks and TRAIN in marks and len(marks) > 1
    ]
    return [
        f"split    {name} holds names of splits, and is learned from as a category; to split the rows by it: {value('split_column', name)}"
        for name in names
    ]


def telling_notes(columns: Sequence[Column], targets: Tensor, target: str) -> list[str]:
    """Name the columns whose values, or whose missing values, occur with one class only: they may be known only after the target."""
    if targets.is_floating_point() or len(targets) < _TELLING:
        return []
    classes = targets.numpy()
    names = [c.name for c in columns if c.format.kind != "date" and _tells(c.values, classes)]
    notes = []
    if names:
        notes.append(
            f"alone    {some(names, 6)}: each value occurs with one value of {target} only; {_known_after(names)}"
        )
    for what, filled in (("filled", True), ("missing", False)):
        names = [c.name for c in columns if _of_one_class(c.missing != filled, classes)]
        if names:
            notes.append(
                f"alone    {some(names, 6)}: {what} in rows of one value of {target} only; {_known_after(names)}"
            )
    return notes


def _known_after(names: Sequence[str]) -> str:
    return f"if it is known only after the target, leave it out: {typed('drop', names[:6])}"


def _of_one_class(rows: NDArray[np.bool_], classes: NDArray[np.int64]) -> bool:
    """Whether these rows, and not all, have one class, which would be rarer than `_CHANCE` if the class did not matter."""
    found = classes[rows]
    if not 0 < len(found) < len(classes) or (found != found[0]).any():
        return False
    share = float((classes == found[0]).mean())
    return share < 1 and len(found) * math.log(share) < math.log(_CHANCE)


def _tells(values: NDArray[Any], classes: NDArray[np.int64]) -> bool:
    """Whether each value goes with one class, and is in 10 rows on average."""
    # most columns are ruled out by a few rows
    few, pairs = _different(values[:_LOOKED_AT], classes[:_LOOKED_AT])
    if pairs != few:
        return False
    count, pairs = _different(values, classes)
    return 1 < count <= len(values) / 10 and pairs == count


def _different(values: NDArray[Any], classes: NDArray[np.int64]) -> tuple[int, int]:
    """Return the numbers of different values, and of different pairs of a value and a class."""
    found, codes = np.unique(values, return_inverse=True)
    return len(found), len(np.unique(codes * (int(classes.max()) + 1) + classes))


def part_notes(parts: list[Part]) -> list[str]:
    notes = [
        f"dropped  {counted(count, 'row')} of {part.table.path.name} left out: {reason}"
        for part in parts
        for count, reason in (
            (part.untold, "no target" + f": {some(part.untold_words, 6)}" * bool(part.untold_words)),
            (part.incomplete, "a value is missing"),
        )
        if count
    ]
    notes += [note for part in parts for note in part.notes]
    notes += [f"broken   {line}" for part in parts for line in part.broken]
    return notes + [
        f"test     {part.table.path.name} · {counted(len(part.rows), 'row')}" for part in parts[1:]
    ]
