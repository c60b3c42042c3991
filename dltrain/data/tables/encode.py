"""Columns as the numbers that a model sees: fill values, levels and centers come from the training rows alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dltrain.data.class_names import as_known, respelled, same_form, same_truth
from dltrain.data.errors import FOREIGN, DataError, some
from dltrain.data.raw import Encoded
from dltrain.data.tables.columns import Column
from dltrain.data.tables.cures import call_missing, typed
from dltrain.data.tables.parts_of_dates import part_of
from dltrain.data.tables.rules import DATE_PARTS, MISSING_LEVEL, Format, Rule
from dltrain.data.tables.scale import far_notes, slip_notes
from dltrain.data.tables.text import Floats
from dltrain.text import counted

# A number far from 0 loses its digits in float32: its training mean is subtracted in float64 first where that is more
# than so many standard deviations. Below, float32 is exact to 1e-5 of a deviation and nothing is changed.
_FAR = 100.0
# from which the features of a run that is fine-tuned come
_SOURCE = "the run whose weights are loaded"
_LINES = 4  # more columns with missing values share one line


@dataclass(frozen=True)
class TableInputs:
    """The columns of a table before encoding: `RawData.inputs` of `dataset=csv`.

    rules: of an earlier run; none are fitted then. like: of the run whose weights are loaded; those that are fitted have its features.
    files: rows of each file
    """

    columns: tuple[Column, ...]
    date_parts: bool
    notes: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    files: tuple[int, ...] = ()
    like: tuple[Rule, ...] = ()

    def __len__(self) -> int:
        return len(self.columns[0].values)

    def encode(self, train: Tensor) -> Encoded:
        """Fit the rules on the rows `train`, unless there are some, and encode all rows by them."""
        rows = train.cpu().numpy()
        rules = self.rules or self._fitted(rows)
        inputs, unseen = encode(self.columns, rules, _SOURCE if self.like else "the training split")
        groups = () if self.rules else self._others(rows)
        return Encoded(
            torch.from_numpy(inputs),
            tuple(name for rule in rules for name in rule.features),
            rules,
            (*self.notes, *self._like_notes(rows), *fill_notes(self.columns, rules), *unseen),
            lambda name: (
                *far_notes(self.columns, rules, name, groups),
                *(() if self.rules else slip_notes(self.columns, rules, rows, name)),
            ),
        )

    def _fitted(self, rows: NDArray[np.int64]) -> tuple[Rule, ...]:
        if self.like:
            return tuple(fit_like(*pair, rows) for pair in zip(self.columns, self.like, strict=True))
        return tuple(fit(column, rows, self.date_parts) for column in self.columns)

    def _like_notes(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """Return a line on the columns that have other features than the training rows alone would give."""
        changed = [
            rule.name
            for column, rule in zip(self.columns, self.like, strict=bool(self.like))
            if column.take(rows).missing.all() or fit(column, rows, True).features != rule.features
        ]
        return (f"columns  {some(changed, 6)}: features as in {_SOURCE}",) if changed else ()

    def _others(self, train: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Return the rows of each file that are not those of the training."""
        others = np.ones(len(self), bool)
        others[train] = False
        ends = np.cumsum(self.files)[:-1]
        parts = np.split(np.arange(len(self)), ends)
        return [part[others[part]] for part in parts if others[part].any()]


def number_columns(names: Sequence[str], numbers: Tensor) -> TableInputs:
    """Return numbers (N, F) as columns. Raises DataError where there is not one name for each."""
    if len(set(names)) != numbers.shape[1]:
        raise DataError(
            f"feature_names has {len(set(names))} different names for {numbers.shape[1]} features"
        )
    values = numbers.double().T.contiguous().numpy()
    number = Format("number", ".")
    return TableInputs(
        tuple(Column(name, number, column) for name, column in zip(names, values, strict=True)), False
    )


def fit(column: Column, train: NDArray[np.int64], date_parts: bool) -> Rule:
    """Fit the rule of one column on the rows `train`; DataError where none of them has a value."""
    chosen = column.take(train)
    missing = chosen.missing
    if missing.all():
        raise DataError(
            f"column {column.name!r} has no value in the training split; leave it out: {typed('drop', [column.name])}"
        )
    present, holes = chosen.values[~missing], bool(missing.any())
    kind = column.format.kind
    if kind == "category":
        levels = tuple(column.levels[i] for i in np.unique(present))
        return Rule(column.name, column.format, levels, None, holes)
    if kind == "date":
        times = np.sort(present)
        middle = times[(len(times) - 1) // 2]
        parts = _parts_that_vary(present) if date_parts else ("year",)
        centers = tuple(float(part_of(present, part).mean()) if part == "year" else 0.0 for part in parts)
        # months, weekdays and hours repeat
        years = part_of(times[[0, -1]], "year")
        lows, highs = (float(years[0]),), (float(years[1]),)
        return Rule(column.name, column.format, (), str(middle), holes, parts, centers, lows, highs)
    fill = float(np.median(present)) if kind == "number" else float(present.mean() > 0.5)
    rule = Rule(column.name, column.format, (), fill, holes, ("",), (_center(present),))
    if kind == "boolean":
        return rule
    first, last = np.quantile(present, (0.25, 0.75)).tolist()
    return replace(rule, lows=(float(present.min()),), highs=(float(present.max()),), quartiles=(first, last))


def fit_like(column: Column, known: Rule, train: NDArray[np.int64]) -> Rule:
    """Fit the rule of one column with the features of a known one: its levels, indicator and parts of dates."""
    if column.take(train).missing.all():
        return replace(known, format=column.format)
    rule = replace(fit(column, train, True), indicator=known.indicator)
    if column.format.kind == "category":
        return replace(rule, levels=known.levels)
    years = dict(zip(rule.parts, rule.centers, strict=True))
    return replace(rule, parts=known.parts, centers=tuple(years.get(part, 0.0) for part in known.parts))


def _center(values: Floats) -> float:
    mean, deviation = float(values.mean()), float(values.std())
    return mean if abs(mean) > _FAR * deviation and deviation > 0 else 0.0


def encode(
    columns: tuple[Column, ...], rules: tuple[Rule, ...], known_by: str = "the training split"
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return (N, F) float32, and notes on the levels that no rule knows; known_by: where the levels of the rules were seen."""
    inputs = np.zeros((len(columns[0].values), sum(len(rule.features) for rule in rules)), np.float32)
    first, notes = 0, []
    for column, rule in zip(columns, rules, strict=True):
        block = inputs[:, first : first + len(rule.features)]
        if rule.format.kind == "category":
            unseen = _one_hot(column, rule, block)
            notes += _unseen_notes(column, rule, unseen, known_by)
        else:
            _quantities(column, rule, block)
        if rule.indicator:
            block[:, -1] = column.missing
        first += len(rule.features)
    return inputs, tuple(notes)


def _one_hot(column: Column, rule: Rule, block: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Set the feature of each row's level to 1; return which rows (N,) have a level that is not in the rule."""
    place = _places(column, rule)
    to = np.array([place.get(level, -1) for level in column.levels] + [-1], np.int64)
    codes = to[column.values]
    rows = np.flatnonzero(codes >= 0)
    block[rows, codes[rows]] = 1.0
    unseen: NDArray[np.bool_] = (codes < 0) & (column.values >= 0)
    return unseen


def _places(column: Column, rule: Rule) -> dict[str, int]:
    """Return the feature of each level, also of those of a column that are written in another way."""
    place = {level: i for i, level in enumerate(rule.levels)}
    same = same_truth(column.levels, rule.levels) | same_form(column.levels, rule.levels)
    return place | {name: place[known] for name, known in same.items()}


def knows(rule: Rule, column: Column) -> bool:
    """Return whether some level of a category is known to a rule; other columns, and empty ones, have none to know."""
    if rule.format.kind != "category" or not column.levels:
        return True
    return not _places(column, rule).keys().isdisjoint(column.levels)


def _unseen_notes(column: Column, rule: Rule, unseen: NDArray[np.bool_], known_by: str) -> list[str]:
    """Say which levels are not in the rule, in how many rows, and which known level they may be."""
    count, present = int(unseen.sum()), int((column.values >= 0).sum())
    if not count:
        return []
    levels = [column.levels[i] for i in np.unique(column.values[unseen])]
    listed = some((f"{level!r}{_alike(level, rule.levels)}" for level in levels), 4)
    # a single row with another level is no other coding
    if count == present > 1:
        return [
            f"{FOREIGN}  {column.name}: no value of it is in {known_by}, so that all {count:,} rows with one count as none: {listed}"
        ]
    are, count_as = ("is", "counts") if len(levels) == 1 else ("are", "count")
    return [
        f"unseen   {column.name}: {counted(len(levels), 'level')} in {count:,} of {counted(len(unseen), 'row')} {are} not in {known_by} "
        f"and {count_as} as none: {listed}"
    ]


def _alike(level: str, known: Sequence[str]) -> str:
    """Return the known level that differs from this one in its case, its blanks or leading zeros only, for a note; or ''."""
    ways: dict[str, Callable[[str], str]] = {
        "case": str.casefold,
        "blanks": lambda text: "".join(text.split()),
        "leading zeros": lambda text: text.lstrip("0"),
        "case and blanks": lambda text: "".join(text.casefold().split()),
    }
    for what, plain in ways.items():
        for other in known:
            if plain(other) == plain(level):
                return f" (differs in {what} only from {other!r})"
    return ""


def _quantities(column: Column, rule: Rule, block: NDArray[np.float32]) -> None:
    missing = column.missing
    values = column.values
    if missing.any():
        fill: Any = np.datetime64(str(rule.fill), "us") if rule.format.kind == "date" else rule.fill
        values = np.where(missing, fill, values)
    for place, (part, center) in enumerate(zip(rule.parts, rule.centers, strict=True)):
        exact = part_of(values, part) if part else values
        # a number beyond float32 becomes infinite, which is refused with its row
        with np.errstate(over="ignore"):
            block[:, place] = exact - center if center else exact


# Dates ------------------------------------------------------------------------------------------------------------


def _parts_that_vary(times: NDArray[Any]) -> tuple[str, ...]:
    """Return `year`, and the other parts that are not the same in all rows."""
    return tuple(part for part in DATE_PARTS if part == "year" or len(np.unique(part_of(times, part))) > 1)


def fill_notes(columns: tuple[Column, ...], rules: tuple[Rule, ...]) -> tuple[str, ...]:
    """Return a line for each column with missing values, or one for all where they are many."""
    holes = [(column, rule, int(column.missing.sum())) for column, rule in zip(columns, rules, strict=True)]
    holes = [(column, rule, count) for column, rule, count in holes if count]
    # a single row without a value is no other file
    empty = [
        column.name for column, rule, count in holes if count == len(column.values) > 1 and not rule.indicator
    ]
    foreign = tuple(
        f"{FOREIGN}  {column.name}: no value in any of the {count:,} rows, and none was missing in the training: {_filled(rule)}"
        for column, rule, count in holes
        if column.name in empty
    )
    holes = [(column, rule, count) for column, rule, count in holes if column.name not in empty]
    if len(holes) > _LINES:
        ways: dict[str, list[str]] = {}
        for column, rule, count in holes:
            ways.setdefault(_way(rule), []).append(f"{column.name} ({count:,})")
        return foreign + tuple(
            f"missing  {len(names)} column{'s' * (len(names) > 1)}, {way}: {some(names, 6)}"
            for way, names in ways.items()
        )
    return foreign + tuple(
        f"missing  {column.name}: {count:,} of {len(column.values):,}, {_filled(rule)}"
        for column, rule, count in holes
    )


def _way(rule: Rule) -> str:
    """Return what is done with the missing values of a column, without their fill."""
    if rule.format.kind == "category":
        return _filled(rule)
    return "filled from the training split" + (
        " and marked" if rule.indicator else ", not marked: none missing in training"
    )


def _filled(rule: Rule) -> str:
    if rule.format.kind == "category":
        return f"a level {MISSING_LEVEL}" if rule.indicator else "none in training: no level"
    flag = " and an indicator" if rule.indicator else ""
    if rule.format.kind == "date":
        return f"filled with the training median {str(rule.fill)[:10]}{flag}"
    what = "the training median" if rule.format.kind == "number" else "the most frequent value"
    return f"filled with {what} {rule.fill:.6g}{flag}"


def class_notes(column: Column, class_names: tuple[str, ...]) -> tuple[str, ...]:
    """Say which texts are taken for a class that is written otherwise in the training."""
    occurring = [level for i, level in enumerate(column.levels) if (column.values == i).any()]
    renamed = as_known(occurring, class_names)
    return (f"classes  {column.name}: {respelled(renamed)}, as in the training",) if renamed else ()


def coded_targets(
    column: Column, class_names: tuple[str, ...], row: Callable[[int], str], given: Sequence[str] = ()
) -> NDArray[np.int64]:
    """Return the class of each row by name, -1 where it is missing; DataError for a class that is not among the names.

    A name that differs from a single class in its case only is that class, as `class_notes` says. row: the name of a row by its
    position; given: the words for a missing value that the user gave
    """
    place = {name: i for i, name in enumerate(class_names)}
    place |= {name: place[known] for name, known in as_known(column.levels, class_names).items()}
    unknown = [
        level for i, level in enumerate(column.levels) if level not in place and (column.values == i).any()
    ]
    if unknown:
        places = [i for i, level in enumerate(column.levels) if level in unknown]
        rows = np.flatnonzero(np.isin(column.values, places))
        first = column.levels[column.values[rows[0]]]
        cure = call_missing(unknown, given)
        raise DataError(
            f"column {column.name!r} holds {first!r}, which is none of the classes {some(map(repr, class_names))}, in {row(int(rows[0]))}; "
            f"{len(rows):,} of {len(column.values):,} rows have {some(map(repr, unknown), 4)};\ncorrect the labels"
            + (f", or to leave these rows out, {cure}" if cure else ", or remove these rows")
        )
    to = np.array([place.get(level, -1) for level in column.levels] + [-1], np.int64)
    coded: NDArray[np.int64] = to[column.values]
    return coded
