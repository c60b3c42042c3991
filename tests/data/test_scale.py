"""Columns on another scale: the same distribution is never one, a tenth or ten times of it always is, where there are rows enough."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from test_tables import contract_of, encoded, plain, save

from dltrain.data.prepare import prepare
from dltrain.data.table import csv
from dltrain.data.tables.columns import Column
from dltrain.data.tables.rules import Format, Rule
from dltrain.data.tables.scale import is_other_scale, slip_notes

Draw = Callable[[np.random.Generator, int], np.ndarray]
SHAPES: dict[str, Draw] = {
    "around 0": lambda draw, n: draw.normal(size=n),
    "far from 0": lambda draw, n: draw.normal(50, 5, n),
    "masses in grams": lambda draw, n: draw.uniform(2700, 6300, n),
    "waiting times": lambda draw, n: draw.exponential(3, n),
    "incomes": lambda draw, n: draw.lognormal(8, 1, n),
    "below 0": lambda draw, n: -draw.exponential(3, n),
    "counts": lambda draw, n: draw.poisson(6, n) + 1.0,
    "heavy tails": lambda draw, n: draw.standard_cauchy(n),
}
# of which a tenth cannot be told from themselves
SPARSE: dict[str, Draw] = {
    "mostly 0": lambda draw, n: draw.lognormal(3, 1, n) * (draw.random(n) < 0.3),
    "two lumps": lambda draw, n: draw.normal(size=n) + 100.0 * (draw.random(n) < 0.5),
    "seldom": lambda draw, n: draw.poisson(0.5, n) + 0.0,
}


def rule_of(values: np.ndarray) -> Rule:
    first, middle, last = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    ends = {"lows": (float(values.min()),), "highs": (float(values.max()),)}
    return Rule("x", Format("number", "."), fill=middle, quartiles=(first, last), **ends)


@pytest.mark.parametrize("shape", [*SHAPES, *SPARSE])
def test_new_rows_of_the_same_distribution_are_on_the_same_scale(shape: str) -> None:
    draw, of = np.random.default_rng(1), (SHAPES | SPARSE)[shape]
    rules = [rule_of(of(draw, count)) for count in (60, 200, 2000)]
    for count in (1, 2, 4, 6, 10, 30, 300, 3000):
        assert not any(is_other_scale(of(draw, count), rule) for rule in rules for _ in range(30))


@pytest.mark.parametrize("shape", SHAPES)
def test_ten_times_more_or_less_is_another_scale(shape: str) -> None:
    draw, of = np.random.default_rng(2), SHAPES[shape]
    for factor in (0.001, 0.01, 0.1, 10.0, 1000.0):
        assert all(
            is_other_scale(factor * of(draw, count), rule_of(of(draw, 200)))
            for count in (200, 1000)
            for _ in range(10)
        )


def test_a_single_row_is_told_where_the_range_has_no_room_for_it() -> None:
    rule = rule_of(np.array([2700.0, 3500.0, 4050.0, 4800.0, 6300.0]))
    assert is_other_scale(np.array([5.2]), rule)
    assert not is_other_scale(np.array([2500.0]), rule) and not is_other_scale(np.array([6800.0]), rule)


def test_a_part_of_the_rows_is_on_the_same_scale() -> None:
    """One city, one year, a quiet market: they vary less, and nothing is in another unit."""
    draw = np.random.default_rng(3)
    latitudes, years = draw.uniform(40, 55, 500), draw.integers(2010, 2020, 500) + 0.0
    assert not is_other_scale(52.5 + draw.normal(0, 0.05, 300), rule_of(latitudes))
    assert not is_other_scale(np.full(300, 2015.0), rule_of(years))
    assert not is_other_scale(np.full(300, 2021.0), rule_of(years))
    assert not is_other_scale(0.4 + draw.normal(0, 0.03, 300), rule_of(draw.normal(size=500)))


def test_a_slip_in_the_training_is_named(tmp_path) -> None:
    """One 9999999 among grams took all the scale of its column."""
    mass = [2700.0 + 90 * i for i in range(40)]
    for values, row in ((mass[:7] + [9999999.0] + mass[8:], 8), (mass[:7] + [50000.0] + mass[8:], 0)):
        raw = csv(save(tmp_path / "t.csv", plain() | {"mass": values}), "y")
        found = encoded(raw).far_notes(raw.describe)
        assert len(found) == (1 if row else 0)
        if row:
            first, last = np.quantile(values, (0.25, 0.75))
            told = f"scale    mass: 9999999 in row {row} of {tmp_path / 't.csv'}, while half of the values lie from {first:.4g} to {last:.4g}; "
            assert found[0].startswith(told)
    draw = np.random.default_rng(4)
    rows = np.arange(300)
    for of in (SHAPES | SPARSE).values():
        values = of(draw, 300)
        column = Column("x", Format("number", "."), values)
        if of is not SHAPES["heavy tails"]:
            assert not slip_notes((column,), (rule_of(values),), rows, str)


def test_runs_without_quartiles_tell_the_range_alone() -> None:
    rule = Rule("x", Format("number", "."), fill=4050.0, lows=(2700.0,), highs=(6300.0,))
    assert is_other_scale(np.linspace(2.7, 6.3, 30), rule)
    assert not is_other_scale(np.linspace(3000, 6000, 30), rule)


def test_a_test_file_in_another_unit_is_named_in_the_header(tmp_path) -> None:
    columns = plain() | {"mass": [2700.0 + 90 * i for i in range(40)]}
    other = columns | {"mass": [mass / 1000 for mass in columns["mass"]]}
    keys = {"test_path": save(tmp_path / "other.csv", other)}
    raw = csv(save(tmp_path / "t.csv", columns), "y", **keys)
    found = encoded(raw, torch.arange(30)).far_notes(raw.describe)
    assert len(found) == 1 and found[0].startswith(
        "scale    mass: median 4.455, and 4005 in the training; every value lies"
    )
    raw = csv(save(tmp_path / "t.csv", columns), "y", test_path=save(tmp_path / "same.csv", columns))
    assert not encoded(raw, torch.arange(40)).far_notes(raw.describe)


@pytest.mark.parametrize(
    ("first", "last", "day", "is_far"),
    [
        # four years: a trend is a guess beyond four more
        ("2012-01-01", "2015-12-31", "2016-12-24", False),
        ("2012-01-01", "2015-12-31", "2019-06-24", False),
        ("2012-01-01", "2015-12-31", "2020-01-15", True),
        ("2012-01-01", "2015-12-31", "2025-12-24", True),
        ("2012-01-01", "2015-12-31", "2007-12-24", True),
        # a month: at least a year
        ("2012-01-01", "2012-01-31", "2012-12-24", False),
        ("2012-01-01", "2012-01-31", "2013-03-01", True),
    ],
)
def test_a_date_farther_than_the_training_is_long_is_named(tmp_path, first, last, day, is_far) -> None:
    """Found by a data scientist: of a training on four years, a date ten years later was predicted without a word."""
    days = np.linspace(0, (np.datetime64(last) - np.datetime64(first)).astype(int), 40).astype(int)
    columns = plain() | {"day": [str(np.datetime64(first) + int(step)) for step in days]}
    contract = contract_of(prepare(csv(save(tmp_path / "t.csv", columns), "y")))
    rows = {name: values[:2] for name, values in columns.items()} | {"day": [columns["day"][1], day]}
    found = contract.encode(save(tmp_path / "new.csv", rows)).notes
    told = [note for note in found if note.startswith("scale")]
    assert len(told) == is_far
    assert all(
        f"a value far outside of the range of the training: day year {day[:4]}" in note for note in told
    )
