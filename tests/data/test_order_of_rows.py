"""What is decided about a column does not depend on the order of its rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from test_tables import save

from dltrain.data.errors import DataError
from dltrain.data.prepare import prepare
from dltrain.data.table import csv
from dltrain.data.tables.text import date_formats

DRAW = np.random.default_rng(0)
NUMBERS = [f"{value:.4f}" for value in DRAW.random(1400) * 100]
HOURS = [f"{i // 3600:02}:{i // 60 % 60:02}:{i % 60:02}" for i in range(1600)]
DAYS = np.datetime_as_string(np.datetime64("2015-01-01") + np.arange(5000)).tolist()
# a column in which plain numbers stand before the others, as spreadsheets sort
MIXED = {
    "money": ([*NUMBERS, *(f"${value}" for value in NUMBERS), *["$5"] * 500], "amounts in $"),
    "measured": ([*NUMBERS, *(f"{value} kg" for value in NUMBERS), *["5 kg"] * 500], "amounts in kg"),
    "clock": ([*NUMBERS, *HOURS], "durations such as 17:25:00 or 12 s"),
    "one amount": ([*NUMBERS, *["$5"] * 1600], "amounts in $"),
}


def orders(values: list[Any]) -> dict[str, list[Any]]:
    return {
        "as they are": values,
        "from behind": values[::-1],
        "any": [values[i] for i in np.random.default_rng(1).permutation(len(values))],
    }


def outcomes(path: Path, values: list[Any], read: Callable[[str], object]) -> list[object]:
    found = []
    for ordered in orders(values).values():
        y = DRAW.normal(size=len(values)).round(3)
        file = save(path / "t.csv", {"x": np.arange(len(values)) / 7, "q": ordered, "y": y})
        try:
            found.append(read(file))
        except DataError as error:
            found.append(str(error).partition(", but ")[0])
    return found


@pytest.mark.parametrize("values, what", MIXED.values(), ids=MIXED)
def test_a_column_with_and_without_units_is_refused_in_any_order(
    tmp_path: Path, values: list[str], what: str
) -> None:
    """Of 1,000 texts that stood first none had a unit, and the column was left out as text."""
    found = outcomes(tmp_path, values, lambda file: csv(file, "y").left_out)
    assert found == [f"column 'q' holds {what}"] * 3


def test_dates_behind_numbers_are_dates_in_any_order(tmp_path: Path) -> None:
    found = outcomes(tmp_path, [*NUMBERS[:1000], *DAYS], lambda file: csv(file, "y").left_out)
    assert found == ["column 'q' holds dates"] * 3


def test_the_form_of_most_dates_is_found_in_any_order() -> None:
    american = [f"{day[5:7]}/{day[8:]}/{day[:4]}" for day in DAYS]
    for texts in orders([*american[:300], *DAYS[300:]]).values():
        assert date_formats(pa.array(texts)) == ["iso"]


def test_units_behind_numbers_are_found_in_another_file(tmp_path: Path) -> None:
    y = DRAW.normal(size=len(NUMBERS)).round(3)
    trained = save(tmp_path / "t.csv", {"q": [f"${value}" for value in NUMBERS], "y": y})
    contract = prepare(csv(trained, "y")).contract
    assert contract is not None
    for ordered in orders([*NUMBERS, "$7"]).values():
        new = save(tmp_path / "new.csv", {"q": ordered})
        with pytest.raises(DataError, match="column 'q' holds amounts in \\$, but"):
            contract.encode(new, targets=False)


def test_a_column_that_tells_the_class_is_named_in_any_order(tmp_path: Path) -> None:
    """Sorted by class, the first 1,000 rows have one value, and the line was missing."""
    many = np.repeat(np.arange(200), 12)
    for ordered in orders(list(many)).values():
        few = [value // 100 for value in ordered]
        columns = {"x": DRAW.normal(size=len(many)).round(3), "few": few, "many": ordered, "y": few}
        columns["y"] = [("no", "yes")[value] for value in few]
        (line,) = (
            note for note in csv(save(tmp_path / "t.csv", columns), "y").notes if note.startswith("alone")
        )
        assert line.startswith("alone    few, many: each value occurs with one value of y only;")


def test_values_that_come_in_turn_tell_the_class_as_sorted_ones_do(tmp_path: Path) -> None:
    """1,200 values in turn, which do not repeat among the first rows."""
    values = np.tile(np.arange(1200), 20)
    for ordered in (values, np.sort(values)):
        columns = {"x": DRAW.normal(size=len(values)).round(3), "many": [f"v{value}" for value in ordered]}
        columns["y"] = ["no" if value < 600 else "yes" for value in ordered]
        raw = csv(save(tmp_path / "t.csv", columns), "y", keep=["many"], categorical=["many"])
        assert any(note.startswith("alone    many") for note in raw.notes)


def test_months_in_words_are_dates() -> None:
    for texts, form in (
        (["12 January 2024", "3 May 2024"], "%d %b %Y"),
        (["1-March-2024", "2-June-2024"], "%d-%b-%Y"),
        (["12 Jan 2024"] * 2, "%d %b %Y"),
    ):
        assert form in date_formats(pa.array(texts)), texts
    assert date_formats(pa.array(["3 May 2024", "12 Jan 2024"])) == date_formats(
        pa.array(["12 January 2024", "3 May 2024"])
    )


def test_missing_values_in_front_change_nothing(tmp_path: Path) -> None:
    codes = [f"{1 + i % 9}E{i % 5}" for i in range(100)]
    levels = [str(i % 5) for i in range(100)]
    for front in (True, False):
        columns = {"code": codes, "level": levels, "y": [i / 7 for i in range(100)]}
        empty = {"code": ["NA"] * 30, "level": ["-"] * 30, "y": [i / 7 for i in range(30)]}
        parts = (empty, columns) if front else (columns, empty)
        both = {name: [*parts[0][name], *parts[1][name]] for name in columns}
        raw = csv(save(tmp_path / "t.csv", both), "y", categorical=["level"])
        assert any("numbers  code: all values have an exponent" in note for note in raw.notes)
        (level,) = (column for column in raw.inputs.columns if column.name == "level")  # type: ignore[union-attr]
        assert level.levels == ("0", "1", "2", "3", "4")


def test_an_unclear_number_of_another_file_is_refused_in_any_order(tmp_path: Path) -> None:
    columns = {"q": [f"{i},25" for i in range(100)], "y": [f"{i},5" for i in range(100)]}
    contract = prepare(csv(save(tmp_path / "t.csv", columns, ";"), "y")).contract
    assert contract is not None
    for ordered in orders([*["1.234"] * 1500, "1.5"]).values():
        new = save(tmp_path / "new.csv", {"q": ordered, "z": ordered}, ";")
        with pytest.raises(
            DataError, match="'1.234', which is another number by the decimal comma of the tr"
        ):
            contract.encode(new, targets=False)
