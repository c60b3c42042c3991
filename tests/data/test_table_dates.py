"""Dates of tables: days that no month has, and the format of each column.

Second truth: Python's datetime.strptime, which refuses such days.
"""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from test_tables import encoded, plain, save

from dltrain.data.contract import Contract
from dltrain.data.errors import DataError
from dltrain.data.prepare import prepare
from dltrain.data.raw import RawData
from dltrain.data.table import csv
from dltrain.data.tables import century, text
from dltrain.data.tables.arrow import as_floats
from dltrain.data.tables.columns import Column, Columns
from dltrain.data.tables.read import Table
from dltrain.data.tables.reading import Reading
from dltrain.data.tables.rules import Format


def by_python(value: str, form: str) -> datetime | None:
    try:
        return datetime.strptime(value, form).replace(tzinfo=None)
    except ValueError:
        return None


@pytest.mark.parametrize(
    "form",
    ["%d.%m.%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%b-%Y", "%d %B %y", "%m/%d/%y", "%Y%m%d", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M %z"],
)  # fmt: skip
def test_days_past_the_end_of_their_month_are_no_dates(form: str) -> None:
    """31.02.2023 was read as 3 March, 31.04. as 1 May."""
    texts = [
        form.replace("%d", f"{day:02}").replace("%m", f"{month:02}").replace("%b", name[:3]).replace("%B", name)
        .replace("%Y", str(year)).replace("%y", f"{year % 100:02}")
        .replace("%H", f"{day % 24:02}").replace("%M", "30").replace("%S", "31").replace("%z", "+0000")
        for year in (2023, 2024, 2031)
        for month, name in enumerate((date(2000, m, 1).strftime("%B") for m in range(1, 13)), 1)
        for day in range(1, 32)
    ]  # fmt: skip
    truth = [by_python(value, form) for value in texts]
    times, good = text.dates(pa.array(texts), form)
    assert good.tolist() == [found is not None for found in truth]
    assert times[good].tolist() == [found for found in truth if found is not None]


def test_days_without_leading_zeros_and_zones_are_kept() -> None:
    assert text.dates(pa.array(["1/3/2031", "2/30/2031", "3/31/2031"]), "%m/%d/%Y")[1].tolist() == [
        True,
        False,
        True,
    ]
    zoned = pa.array(["01.03.2023 00:30 +0200", "31.02.2023 00:30 +0200", "30.04.2023 23:30 -0200"])
    assert text.dates(zoned, "%d.%m.%Y %H:%M %z")[1].tolist() == [True, False, True]


def test_an_impossible_day_is_refused_in_training_and_left_out_later(tmp_path: Path) -> None:
    days = [f"{1 + i % 28:02}.{1 + i % 12:02}.2023" for i in range(40)]
    raw = csv(save(tmp_path / "t.csv", plain() | {"when": days}), "y")
    contract = Contract.from_json(prepare(raw).contract.to_json())
    wrong = [*days[:-1], "31.02.2023"]
    path = save(tmp_path / "wrong.csv", plain() | {"when": wrong})
    with pytest.raises(
        DataError, match=r"'when' holds dates, but '31.02.2023' in row 40 .*\n.*missing_words"
    ):
        csv(path, "y")
    with pytest.raises(DataError, match=r"holds dates \(%d.%m.%Y\), but '31.02.2023' in row 40"):
        contract.encode(path)
    good = encoded(csv(path, "y", missing_words=["31.02.2023"]))
    assert "when=(missing)" in good.feature_names
    assert np.isfinite(good.inputs.numpy()).all()


def test_a_given_format_is_for_the_columns_that_have_it(tmp_path: Path) -> None:
    """The cure for one column made text of another one, whose dates were in ISO form."""
    days = [date(2020 + i % 4, 1 + i % 12, 1 + i % 12) for i in range(40)]
    columns = plain() | {
        "iso": [day.isoformat() for day in days],
        "us": [f"{1 + i % 11}/{1 + i % 12}/{2020 + i % 4}" for i in range(40)],
        "de": [day.strftime("%d.%m.%Y") if i else "31.01.2020" for i, day in enumerate(days)],
    }
    path = save(tmp_path / "t.csv", columns)
    with pytest.raises(DataError, match="'dataset.date_format=\"%m/%d/%Y\"'"):
        csv(path, "y")
    raw = csv(path, "y", date_format="%m/%d/%Y")
    contract = prepare(raw).contract
    assert contract is not None
    forms = {rule.name: rule.format.date for rule in contract.columns}
    assert (forms["iso"], forms["us"], forms["de"]) == ("iso", "%m/%d/%Y", "%d.%m.%Y")
    with pytest.raises(DataError, match="'us' has '1/1/2020' .*day or the month first"):
        csv(path, "y", date_format="%d.%m.%Y")
    # which the shapes that are looked for do not include
    columns = plain() | {"when": [day.strftime("%d %B %Y") for day in days]}
    raw = csv(save(tmp_path / "u.csv", columns), "y", date_format="%d %B %Y")
    assert "when year" in encoded(raw).feature_names
    assert raw.unused.get("date_format") is None
    raw = csv(path, "y", drop=["us"], date_format="%m/%d/%Y")
    assert raw.unused["date_format"] == "no column holds dates of this form"


def test_a_number_is_no_word_for_a_missing_value(tmp_path: Path) -> None:
    """Typed, missing_words=["0.3"] would lose the 0.3 of every other column."""
    for some in (2, 15):
        rate = [f"{i % 90}%" for i in range(40 - some)] + ["0.3", "0.4"] + ["0.25"] * (some - 2)
        with pytest.raises(DataError, match=r"holds percents such as 12%, but '0.3'") as error:
            csv(save(tmp_path / "t.csv", plain() | {"rate": rate}), "y")
        assert "missing_words" not in str(error.value) and "dataset.drop=[rate]" in str(error.value)


def test_days_with_a_year_of_two_digits_are_dates_and_versions_are_not(tmp_path: Path) -> None:
    days = [date(2023, 1, 1 + i % 28) for i in range(60)]
    columns = plain(60) | {
        "value": [day.strftime("%d.%m.%y") for day in days],
        "version": [f"{i % 2}.{i % 4}.{10 + i % 20}" for i in range(60)],
    }
    contract = prepare(csv(save(tmp_path / "t.csv", columns), "y")).contract
    assert contract is not None
    rules = {rule.name: rule for rule in contract.columns}
    assert rules["value"].format.date == "%d.%m.%y" and rules["version"].format.kind == "category"
    assert by_python("05.01.23", "%d.%m.%y") == datetime(2023, 1, 5)


def dated(path: Path, days: list[date], form: str = "%d/%m/%y", rows: int = 120) -> RawData:
    days = [days[i % len(days)] for i in range(rows)]
    columns = {
        "born": [day.strftime(form) for day in days],
        "a": list(np.random.default_rng(0).normal(size=rows)),
    }
    return csv(save(path, columns | {"y": [("no", "yes")[i % 2] for i in range(rows)]}), "y")


def years_of(raw: RawData) -> list[int]:
    (column,) = (c for c in raw.inputs.columns if c.name == "born")  # type: ignore[union-attr]
    return [int(str(value)[:4]) for value in column.values]


BORN = [date(1935 + i, 1 + i % 12, 13 + i % 15) for i in range(70)]
DUE = [date(2024 + i % 8, 1 + i % 12, 13 + i % 15) for i in range(24)]


@pytest.mark.parametrize("form", ["%d/%m/%y", "%d.%m.%y", "%m/%d/%y", "%d-%b-%y"])
@pytest.mark.parametrize(
    ("days", "first_of_century"),
    [
        (BORN, 1927),
        ([day for day in BORN if day.year < 1968], 1927),
        (DUE, 1969),
        ([date(1970 + i, 2, 14) for i in range(50)], 1969),
    ],
    ids=["births", "births before 1968", "payments to come", "none to come"],
)
def test_two_digits_of_a_year_are_those_of_no_year_to_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, days: list[date], first_of_century: int
) -> None:
    """Births from 1935 to 2004 were those of 1969 to 2068. Second truth: the dates that were written."""
    monkeypatch.setattr(century, "_this_year", lambda: 2026)
    raw = dated(tmp_path / "t.csv", days, form)
    assert years_of(raw) == [days[i % len(days)].year for i in range(120)]
    (line,) = (note for note in raw.notes if note.startswith("years"))
    assert line == (
        f"years    born: two digits are {first_of_century} to {first_of_century + 99}, which gives dates from {min(days)} to "
        f"{max(days)}; for others, write four digits"
    )
    assert not any(
        n.startswith("years") for n in dated(tmp_path / "t.csv", days, form.replace("%y", "%Y")).notes
    )


def test_another_file_is_read_by_the_century_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(century, "_this_year", lambda: 2026)
    raw = dated(tmp_path / "t.csv", BORN)
    found = prepare(raw, val_fraction=0.2).contract
    assert found is not None
    kept = Contract.from_json(found.to_json())
    (rule,) = (rule for rule in kept.columns if rule.name == "born")
    assert rule.format.last_year == 2026
    # years later, and with dates none of which would be to come
    monkeypatch.setattr(century, "_this_year", lambda: 2090)
    save(tmp_path / "new.csv", {"born": ["13/01/40", "14/02/26", "15/03/27"], "a": [1.0, 2.0, 3.0]})
    rows = kept.encode(tmp_path / "new.csv", targets=False)
    year = [rule.features.index("born year") + i for i, r in enumerate(kept.columns) if r.name == "born"][0]
    decoded = rows.inputs[:, year].double() + dict(zip(rule.parts, rule.centers, strict=True))["year"]
    assert decoded.floor().tolist() == [1940, 2026, 1927]


def test_nanoseconds_are_cut_to_microseconds(tmp_path: Path) -> None:
    """Parquet of pandas has them, and text may have nine digits; durations in nanoseconds are seconds."""
    moments = ["2024-01-01T10:00:00.123456789", "2024-06-01T00:00:00.000000001", "1969-12-31T23:59:59.5"] * 4
    wanted = [datetime.fromisoformat(moment[:26]) for moment in moments]
    times = pa.array(np.array(moments, "datetime64[ns]"))
    for values in (times, pa.array(moments)):
        table = Table(Path("t.parquet"), {"at": pa.chunked_array([values])})
        columns = Columns(table, Reading(), ["at"])
        found = columns.infer("at")
        assert isinstance(found, Column) and found.format == Format("date", "", "iso", zoned=False)
        assert found.values.tolist() == wanted
        assert columns.parse("at", found.format).values.tolist() == wanted
    spans = pa.chunked_array([pa.array([1_500_000_001, None], pa.duration("ns"))])
    assert as_floats(spans)[0] == 1.500000001 and np.isnan(as_floats(spans)[1])
    far = pa.chunked_array([pa.array([2**60], pa.int64()).cast(pa.timestamp("s"))])
    distant = Columns(Table(Path("t.parquet"), {"at": far}), Reading(), ["at"], tolerant=True)
    for read in (distant.infer, lambda name: distant.parse(name, Format("date", "", "iso"))):
        with pytest.raises(DataError, match=r"column 'at' of t.parquet holds times.*dataset.drop=.at"):
            read("at")


def test_time_zones_that_the_training_did_not_have_are_told(tmp_path: Path) -> None:
    """Ten in Berlin is eight in UTC, so that hours mean something else."""
    plain_times = [f"2024-06-{i + 1:02} {i % 24:02}:00:00" for i in range(28)]
    zoned = [f"{moment}+02:00" for moment in plain_times]
    arrow = pa.array(np.array(plain_times, "datetime64[us]"))
    forms = {
        False: [pa.array(plain_times), arrow],
        True: [pa.array(zoned), arrow.cast(pa.timestamp("us", "Europe/Berlin"))],
    }
    for trained, columns in forms.items():
        for column in columns:
            known = Columns(
                Table(Path("t.csv"), {"at": pa.chunked_array([column])}), Reading(), ["at"]
            ).infer("at")
            assert isinstance(known, Column) and known.format.zoned is trained
            for here, others in forms.items():
                for other in others:
                    read = Columns(Table(Path("u.csv"), {"at": pa.chunked_array([other])}), Reading(), ["at"])
                    read.parse("at", known.format)
                    told = f"zone     u.csv: at has {'time' if here else 'no time'} zones"
                    assert [note.startswith(told) for note in read.notes] == [True] * (here != trained)
                    read.parse("at", Format("date", "", "iso"))


def test_numbers_in_a_column_of_dates_are_refused_with_what_they_may_be() -> None:
    known = Format("date", "", "iso")
    for unit, epoch in (("s", 1718678248), ("ms", 1718678248157), ("us", 1718678248157671)):
        for values in (pa.array([epoch] * 3), pa.array([str(epoch)] * 3)):
            columns = Columns(Table(Path("u.csv"), {"at": pa.chunked_array([values])}), Reading(), ["at"])
            with pytest.raises(
                DataError, match=f"time since 1970 in {unit}, of which pandas.to_datetime"
            ) as no:
                columns.parse("at", known)
            assert "missing_words" not in str(no.value)


@pytest.mark.parametrize("form", ["", " ", "%z"])
def test_an_empty_format_reads_no_date(form):
    """pyarrow.compute.strptime reads beyond the end of an empty format, which ended the process."""
    for _ in range(200):
        assert not text.dates(pa.array(["2024-01-02", "x"]), form)[1].any()


@pytest.mark.parametrize(
    ("offset", "told"), [("", ""), ("Z", ""), ("+00:00", ""), ("+09:00", "+09:00"), ("-0330", "-0330")]
)
def test_times_with_an_offset_are_said_to_be_taken_in_utc(tmp_path: Path, offset: str, told: str) -> None:
    columns = plain() | {
        "when": [f"2024-01-{1 + i % 28:02}T08:00:00{offset}" for i in range(len(plain()["y"]))]
    }
    notes = csv(save(tmp_path / "t.csv", columns), "y").notes
    zones = [note for note in notes if note.startswith("zone")]
    assert len(zones) == bool(told)
    assert not told or zones[0].startswith(
        f"zone     when: times with {told} are converted to UTC, and so are their hour, weekday and day"
    )
