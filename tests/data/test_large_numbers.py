"""Whole numbers beyond 2⁵³ in tables: those that float64 does not tell apart are codes, and keep their differences."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dltrain.data.errors import DataError
from dltrain.data.prepare import prepare
from dltrain.data.raw import RawData
from dltrain.data.table import csv

BASE = 2**60
CLASSES = np.arange(60) % 2


def read(folder: Path, form: str, codes: list[int], target: str = "y") -> RawData:
    """Return a table with these whole numbers as the column i, a feature x and the class y."""
    x = np.random.default_rng(0).normal(size=len(codes))
    if form == "parquet":
        columns = {"i": pa.array(codes), "x": x, "y": pa.array(np.array(["no", "yes"])[CLASSES])}
        pq.write_table(pa.table(columns), folder / "t.parquet")
    else:
        lines = [
            f"{code},{value!r},{('no', 'yes')[k]}"
            for code, value, k in zip(codes, x.tolist(), CLASSES, strict=True)
        ]
        (folder / "t.csv").write_text("\n".join(["i,x,y", *lines]) + "\n")
    return csv(str(folder / f"t.{form}"), target)


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_such_numbers_are_levels(tmp_path: Path, form: str) -> None:
    raw = read(tmp_path, form, [BASE + int(k) for k in CLASSES])
    found = raw.inputs.encode(torch.arange(60))  # type: ignore[union-attr]
    assert "constant" not in " ".join((*raw.notes, *found.notes))
    assert found.feature_names == ("i=1152921504606846976", "i=1152921504606846977", "x")
    assert found.inputs[:, 1].tolist() == CLASSES.tolist()


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_they_are_classes_of_their_own(tmp_path: Path, form: str) -> None:
    raw = read(tmp_path, form, [BASE + int(k) for k in CLASSES], "i")
    assert raw.class_names == ("1152921504606846976", "1152921504606846977")
    assert raw.targets.tolist() == CLASSES.tolist()


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_large_numbers_that_float64_holds_stay_numbers(tmp_path: Path, form: str) -> None:
    raw = read(tmp_path, form, [BASE + 4096 * int(k % 7) for k in range(60)])
    found = raw.inputs.encode(torch.arange(60))  # type: ignore[union-attr]
    assert found.feature_names == ("i", "x")


def test_numbers_beyond_float32_are_refused_with_their_row(tmp_path: Path) -> None:
    rows = [f"{1 + i % 9}e{38 if i == 7 else 30},{('a', 'b')[i % 2]}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["x,y", *rows]) + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=r"row 8 of .*t.csv has a value beyond ±3.4e38 \(feature 'x'\)"):
            prepare(csv(str(tmp_path / "t.csv"), "y"))
