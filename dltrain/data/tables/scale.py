"""Whether other rows have the numbers of the training: columns on another scale, and single values far outside of the range."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dltrain.data.tables.columns import Column
from dltrain.data.tables.parts_of_dates import part_of
from dltrain.data.tables.rules import Rule
from dltrain.data.tables.text import Floats

# A value outside of the training's range by more than so many times its width is named; of normal values that is 20 deviations.
FAR_WIDTHS = 3.0
# Of dates once, and at least a year: new rows are always later, and what the model learned of time is extrapolated there.
FAR_DATES = 1.0
_NAMED = 4  # values far outside that are named
# Another unit changes median or spread by 10 or more; half of that is left for the noise of a few rows.
_FACTOR = 6.0
# Of this fraction of the values it must be seen, where half of them is expected; 5 standard deviations of n coins are 2.5 √n.
_MOST, _DEVIATIONS = 0.75, 2.5
_SLIP = 30.0
_FEW = 5  # fewer values outside of the range may be an accident


def far_notes(
    columns: tuple[Column, ...],
    rules: tuple[Rule, ...],
    name: Callable[[int], str],
    groups: Sequence[NDArray[np.int64]] = (),
) -> tuple[str, ...]:
    """Name the columns on another scale, and of the others the values outside of the range by more than `FAR_WIDTHS` times its width.

    Dates are named outside by more than `FAR_DATES` times the width: normal values have tails, but time has none, and a trend
    is a guess beyond as many years as it was seen in.

    groups: rows that are looked at together; none are all rows.
    """
    notes: list[str] = []
    found: list[str] = []
    count = 0
    for column, rule in zip(columns, rules, strict=True):
        told = _scale_note(column, rule, groups)
        if told:
            notes.append(told)
            continue
        for part, low, high in zip(rule.parts, rule.lows, rule.highs, strict=False):
            values = part_of(column.values, part) if part else column.values
            # rows of one year do not make the next one far
            most = FAR_DATES * max(high - low, 1.0) if part == "year" else FAR_WIDTHS * (high - low)
            with np.errstate(invalid="ignore"):
                far = np.maximum(low - values, values - high) > most
            rows = np.flatnonzero(far & ~column.missing)
            count += len(rows)
            found += [
                f"{f'{column.name} {part}'.rstrip()} {values[row]:.7g} in {name(int(row))} (training: {low:.7g} to {high:.7g})"
                for row in rows[:_NAMED].tolist()
            ]
    if found:
        more = f"; … ({count - _NAMED:,} more)" if count > _NAMED else ""
        what = "a value" if count == 1 else f"{count:,} values"
        notes.append(
            f"scale    {what} far outside of the range of the training: {'; '.join(found[:_NAMED])}{more}"
        )
    return tuple(notes)


def slip_notes(
    columns: tuple[Column, ...],
    rules: tuple[Rule, ...],
    train: NDArray[np.int64],
    name: Callable[[int], str],
) -> tuple[str, ...]:
    """Name the few numbers of the training rows that lie so far from all others that the column is scaled by them alone."""
    notes: list[str] = []
    for column, rule in zip(columns, rules, strict=True):
        for row in _slips(column.values[train], rule)[:_NAMED]:
            first, last = rule.quartiles
            notes.append(
                f"scale    {column.name}: {column.values[train[row]]:.7g} in {name(int(train[row]))}, while half of the values lie from {first:.4g} "
                f"to {last:.4g}; the column is scaled by it: repair it if it is a slip"
            )
    return tuple(notes)


def _slips(values: Floats, rule: Rule) -> list[int]:
    """Return the few rows whose numbers are `_SLIP` times farther from the quartiles than those of any other row."""
    if (
        rule.format.kind != "number"
        or len(rule.quartiles) != 2
        or not rule.lows
        or rule.quartiles[0] == rule.quartiles[1]
    ):
        return []
    first, last = rule.quartiles
    # most columns have none, which their ends tell
    if max(first - rule.lows[0], rule.highs[0] - last) <= _SLIP * (last - first):
        return []
    distance = np.nan_to_num(np.maximum(first - values, values - last), nan=0.0)
    most = max(1, len(values) // 100)
    far = np.argsort(-distance)[: most + 1]
    for count in range(1, len(far)):
        inside, outside = distance[far[count]], distance[far[count - 1]]
        if outside > _SLIP * max(inside, last - first):
            return sorted(far[:count].tolist())
    return []


def _scale_note(column: Column, rule: Rule, groups: Sequence[NDArray[np.int64]]) -> str:
    """Return the note on a column of numbers that is on another scale in a group of rows; or ""."""
    if rule.format.kind != "number" or not rule.lows or not isinstance(rule.fill, int | float):
        return ""
    for rows in groups or [np.arange(len(column.values))]:
        values = column.values[rows]
        values = values[~np.isnan(values)]
        if len(values) and is_other_scale(values, rule):
            low, high = rule.lows[0], rule.highs[0]
            outside = int(((values < low) | (values > high)).sum())
            beyond = (
                f"{outside:,} of {len(values):,} values lie" if outside < len(values) else "every value lies"
            )
            where = f"{beyond} outside of the range of the training ({low:.7g} to {high:.7g})"
            # such as of years to come, values may just go on
            asked = "" if _goes_on(values, rule) else ": is it in another unit?"
            spread = "" if len(values) == 1 or outside == len(values) else _spreads(values, rule)
            return f"scale    {column.name}: median {np.median(values):.7g}, and {rule.fill:.7g} in the training{spread}; {where}{asked}"
    return ""


def _goes_on(values: Floats, rule: Rule) -> bool:
    outside = (values < rule.lows[0]) | (values > rule.highs[0])
    return bool(outside.mean() >= _MOST) and not _is_factor(float(np.median(values)), float(rule.fill or 0))


def _spreads(values: Floats, rule: Rule) -> str:
    if not rule.quartiles:
        return ""
    first, last = np.quantile(values, (0.25, 0.75))
    return f"; half of the values from {first:.4g} to {last:.4g}, and from {rule.quartiles[0]:.4g} to {rule.quartiles[1]:.4g} there"


def is_other_scale(values: Floats, rule: Rule) -> bool:
    """Tell whether numbers (none missing) are on another scale than those of the training.

    Their values lie outside of its range, their median is `_FACTOR` times as large or small, or their spread is; and more of them say so
    than new rows of the same distribution would by accident. Numbers of a part of the rows alone, such as of one year, are on the same scale.
    """
    median = float(rule.fill or 0.0)
    return (
        _lies_outside(values, rule.lows[0], rule.highs[0], median)
        or (_has_one_sign(rule) and _has_other_median(values, median))
        or (len(rule.quartiles) == 2 and _has_other_spread(values, median, *rule.quartiles))
    )


def _lies_outside(values: Floats, low: float, high: float, median: float) -> bool:
    distance = np.maximum(low - values, values - high)
    if (distance > 0).mean() < _MOST:
        return False
    here, far = float(np.median(values)), float(np.median(distance))
    if len(values) < _FEW:
        # nearer to 0 by the factor, and by no small part of the range, as a tail may be
        nearest = low if low > 0 else high if high < 0 else 0.0
        return _is_factor(here, nearest) and abs(here) < abs(nearest) and far > (high - low) / 4
    return far > (high - low) / 2 or _is_factor(here, median)


def _has_one_sign(rule: Rule) -> bool:
    """Whether most numbers of the training have one sign: else a median says nothing of the unit."""
    quartiles = rule.quartiles if len(rule.quartiles) == 2 else (0.0, 0.0)
    return rule.lows[0] >= 0 or rule.highs[0] <= 0 or quartiles[0] * quartiles[1] > 0


def _has_other_median(values: Floats, median: float) -> bool:
    here = float(np.median(values))
    apart = max(int((values > median).sum()), int((values < median).sum()))
    return here != 0 and _is_factor(here, median) and apart > _sure(len(values))


def _has_other_spread(values: Floats, median: float, first: float, last: float) -> bool:
    here = np.quantile(values, (0.25, 0.5, 0.75))
    spread, spread_here = last - first, float(here[2] - here[0])
    if not (spread > 0 and spread_here > 0):
        return False
    inside = int(((values > first) & (values < last)).sum())
    beyond = int(((values < first) | (values > last)).sum())
    if spread_here >= _FACTOR * spread:
        return beyond > _sure(len(values))
    # those of a part of the rows are near to each other, but not to 0
    factor = spread_here / spread
    there = np.array([first, median, last])
    alike = bool((np.abs(here - factor * there) <= factor * np.abs(there).max()).all())
    return factor <= 1 / _FACTOR and alike and inside > _sure(len(values))


def _sure(count: int) -> float:
    return max(_MOST * count, count / 2 + _DEVIATIONS * count**0.5)


def _is_factor(here: float, there: float) -> bool:
    """Whether one of two numbers of the same sign is `_FACTOR` times the other; 0 is so of every number."""
    if there == 0 or here * there < 0:
        return False
    return abs(here) >= _FACTOR * abs(there) or abs(here) <= abs(there) / _FACTOR
