"""Durations: as Arrow has them, and as pandas, polars and Python write them; by datetime.timedelta and by hand."""

from __future__ import annotations

from datetime import time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from test_tables import contract_of, plain, save

from dltrain.data.contract import Contract
from dltrain.data.errors import DataError
from dltrain.data.prepare import prepare
from dltrain.data.table import csv
from dltrain.data.tables.durations import in_seconds
from dltrain.data.tables.encode import TableInputs
from dltrain.run.inputs import rows_of, table_of

ROWS = 60
DURATIONS = [timedelta(hours=3.7 * i, seconds=i % 7, milliseconds=250 * (i % 4)) for i in range(ROWS)]
SECONDS = [duration.total_seconds() for duration in DURATIONS]


def values_of(inputs: object, name: str = "sched") -> list[float]:
    assert isinstance(inputs, TableInputs)
    return next(column.values.tolist() for column in inputs.columns if column.name == name)


def as_pandas(duration: timedelta) -> str:
    """Write a duration as pandas 2.2 and 3.0 do: `1 days 02:03:04.500000`."""
    whole = duration - timedelta(duration.days)
    sign = "+" if duration.days < 0 else ""
    return f"{duration.days} days {sign}{'0' * (whole < timedelta(hours=10))}{whole}"


def as_iso(duration: timedelta) -> str:
    """Write a duration as polars 1.0 does: `P1DT2H3M4.500S`."""
    whole = duration.seconds
    return f"P{duration.days}DT{whole // 3600}H{whole // 60 % 60}M{whole % 60}.{duration.microseconds:06d}S"


def as_clock(duration: timedelta) -> str:
    """Write a duration with hours beyond 24: `138:49:54.250000`."""
    whole = int(duration.total_seconds())
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}.{duration.microseconds:06d}"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0 days 17:25:00", 62700),
        ("17:25:00", 62700),
        ("1 days 02:03:04.5", 93784.5),
        ("-1 days +23:59:59", -1),
        ("-1 day, 23:59:59", -1),
        ("138:49:54", 499794),
        ("-02:00:00", -7200),
        ("PT17H25M", 62700),
        ("P1DT2H", 93600),
        ("P1W", 604800),
        ("PT0S", 0),
        ("-PT0.5S", -0.5),
        ("P-1DT23H59M59S", -1),
        ("17:25:00.000000001", 62700.000000001),
    ],
)
def test_texts_of_durations(text: str, seconds: float) -> None:
    values, good = in_seconds(pa.array([text, "abc"]))
    assert values[0] == seconds and good.tolist() == [True, False]


@pytest.mark.parametrize(
    "text", ["17:25", "P", "PT", "P1DT", "12:61:00", "5:25:00 PM", "1h 5m", "12:00:00Z", ""]
)
def test_no_durations(text: str) -> None:
    assert in_seconds(pa.array([text, "PT1S"]))[1].tolist() == [False, True]


def test_a_column_of_arrow_has_a_unit(tmp_path: Path) -> None:
    columns = {
        "sched": pa.array(DURATIONS, pa.duration("ms")),
        "at": [time(i % 24, 30, i % 7) for i in range(ROWS)],
    }
    parquet.write_table(pa.table(plain(ROWS) | columns), tmp_path / "t.parquet")
    raw = csv(str(tmp_path / "t.parquet"), "y")
    assert "durations as seconds: sched, at" in raw.notes[0]
    rules = {rule.name: rule for rule in contract_of(prepare(raw)).columns}
    assert rules["sched"].format.unit == rules["at"].format.unit == "s"
    assert values_of(raw.inputs, "at")[:3] == [1800, 5401, 9002]


@pytest.mark.parametrize("written", [as_pandas, as_iso, as_clock, str])
def test_texts_are_read_as_the_durations_of_arrow(tmp_path: Path, written: Any) -> None:
    columns = plain(ROWS) | {"sched": pa.array(DURATIONS, pa.duration("ns"))}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    texts = save(
        tmp_path / "t.csv", plain(ROWS) | {"sched": [written(duration) for duration in DURATIONS]}, "\t"
    )
    runs = [csv(str(path), "y") for path in (tmp_path / "t.parquet", texts)]
    for raw in runs:
        assert "durations as seconds: sched" in raw.notes[0]
    both = [values_of(raw.inputs) for raw in runs]
    assert both == [SECONDS, SECONDS]


def contract_with(folder: Path, sched: Any) -> Contract:
    return contract_of(
        prepare(csv(save(folder / "t.csv", {"sched": sched, "y": ["a", "b"] * (ROWS // 2)}), "y"))
    )


def test_another_file_has_durations_in_any_form_or_numbers_which_are_named(tmp_path: Path) -> None:
    contract = contract_with(tmp_path, list(map(as_pandas, DURATIONS)))

    def read(*values: object) -> tuple[list[float], tuple[str, ...]]:
        path = save(tmp_path / "new.csv", {"sched": list(values), "z": [1] * len(values)})
        rows = contract.encode(path, targets=False)
        return rows.inputs[:, 0].tolist(), rows.notes

    assert read("17:25:00", "PT17H25M", "0 days 17:25:00", "62700 s") == ([62700] * 4, ())
    told = "unit     new.csv: sched has no unit, and is taken for s as in the training"
    assert read(1045, 30) == ([1045, 30], (told,))
    told = "unit     new.csv: sched has days, h, turned into s as in the training"
    assert read("1 days", "2 h", "00:00:05") == ([86400, 7200, 5], (told,))
    with pytest.raises(
        DataError,
        match=r"'sched' holds durations such as .*, but '12 kg' in row 2 .*; write the durations of this",
    ):
        read("17:25:00", "12 kg")


def test_arrow_has_the_unit_of_the_training(tmp_path: Path) -> None:
    file = tmp_path / "new.parquet"
    days = contract_with(tmp_path, [f"{i + 1} days" for i in range(ROWS)])
    parquet.write_table(pa.table({"sched": pa.array([36 * 3600], pa.duration("s"))}), file)
    rows = days.encode(file, targets=False)
    assert rows.inputs.tolist() == [[1.5]]
    assert rows.notes == (
        "unit     new.parquet: sched has durations, taken in days; that of the training had durations in days",
    )
    numbers = contract_with(tmp_path, [i + 1.5 for i in range(ROWS)])
    rows = numbers.encode(file, targets=False)
    assert rows.inputs.tolist() == [[129600]]
    assert rows.notes[0] == (
        "unit     new.parquet: sched has durations, taken in s; that of the training had numbers without a unit"
    )
    money = contract_with(tmp_path, [f"${i}.5" for i in range(ROWS)])
    with pytest.raises(
        DataError, match=r"'sched' of .*new.parquet holds durations, and held amounts in \$ in the training"
    ):
        money.encode(file, targets=False)
    with pytest.raises(
        DataError, match="'17:25:00' in row 1 .*; write the durations of this column as plain numbers"
    ):
        numbers.encode(save(tmp_path / "new.csv", {"sched": ["17:25:00"], "z": [1]}), targets=False)


def test_data_in_memory_have_durations(tmp_path: Path) -> None:
    contract = contract_with(tmp_path, list(map(as_iso, DURATIONS)))
    hours = [timedelta(hours=17, minutes=25), None]
    stamps = np.array([62_700_000, "NaT"], "timedelta64[ms]")
    for data in ({"sched": hours}, {"sched": stamps}, pa.table({"sched": hours})):
        rows = rows_of(table_of(data, contract), contract)
        assert rows.inputs[0, 0].item() == 62700 and not any(note.startswith("unit") for note in rows.notes)


def test_units_of_time_in_one_column_are_turned_into_one(tmp_path: Path) -> None:
    waits = [f"{i + 1} min" if i % 3 else f"{i + 1} h" for i in range(ROWS)]
    raw = csv(save(tmp_path / "t.csv", plain(ROWS) | {"sched": waits}), "y")
    assert "amounts in min: sched" in raw.notes[0]
    assert "units    sched: durations in h are turned into min" in raw.notes
    assert values_of(raw.inputs)[:3] == [60, 2, 3]


def test_durations_beside_decimal_commas(tmp_path: Path) -> None:
    columns = {
        "x": [f"{i},5" for i in range(ROWS)],
        "sched": list(map(as_pandas, DURATIONS)),
        "y": ["a", "b"] * (ROWS // 2),
    }
    raw = csv(save(tmp_path / "t.csv", columns, ";"), "y")
    assert values_of(raw.inputs) == SECONDS
    assert (
        "decimal comma · durations as seconds: sched" in raw.notes[0] and "decimal point" not in raw.notes[0]
    )
