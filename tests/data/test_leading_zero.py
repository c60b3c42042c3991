"""A number that begins with 0 groups nothing: 0,485 is 0.485 and no thousand."""

from __future__ import annotations

from pathlib import Path

import pytest

from dltrain.data.table import csv


def column(folder: Path, values: list[str], separator: str = ",") -> list[float]:
    """Return the first column of a table of these texts as numbers."""
    rows = [f'"{value}"{separator}{("a", "b")[i % 2]}' for i, value in enumerate(values)]
    (folder / "t.csv").write_text("\n".join([f"x{separator}y", *rows]) + "\n")
    raw = csv(str(folder / "t.csv"), "y")
    found: list[float] = raw.inputs.columns[0].values.tolist()  # type: ignore[union-attr]
    return found


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_leading_zero_is_a_decimal_comma(tmp_path: Path, separator: str) -> None:
    typed = [f"0,{485 + i}" for i in range(40)]
    assert column(tmp_path, typed, separator) == [float(text.replace(",", ".")) for text in typed]


def test_also_among_numbers_that_could_be_grouped(tmp_path: Path) -> None:
    typed = [f"{i % 3},{941 + i}" for i in range(40)]
    assert column(tmp_path, typed) == [float(text.replace(",", ".")) for text in typed]


def test_others_stay_thousands(tmp_path: Path) -> None:
    typed = [f"{1 + i},{100 + i}" for i in range(40)]
    assert column(tmp_path, typed) == [float(text.replace(",", "")) for text in typed]


def test_a_signed_number_is_read_alike(tmp_path: Path) -> None:
    typed = [f"-0,{485 + i}" for i in range(40)]
    assert column(tmp_path, typed) == [float(text.replace(",", ".")) for text in typed]
