"""What a point and a comma in numbers mean: in training, in files that a run is used on, and in kept columns.

Second truth: values written by hand in both forms.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from test_tables import encoded, plain, save

from dltrain.data.contract import Contract
from dltrain.data.errors import DataError
from dltrain.data.prepare import prepare
from dltrain.data.table import csv
from dltrain.data.tables.columns import Columns
from dltrain.data.tables.read import read
from dltrain.data.tables.reading import Reading
from dltrain.run.output import numbers_of

ROWS = 40
GERMAN = [f"{5 + i}.{(i * 37) % 1000:03},{i % 100:02}" for i in range(ROWS)]
ENGLISH = [f"{5 + i},{(i * 37) % 1000:03}.{i % 100:02}" for i in range(ROWS)]


def trained(folder: Path, values: list[str], separator: str = ";", **more: list[str]) -> Contract:
    """Return the contract of a table with a column `euro`, read back from its file."""
    columns = {
        "euro": values,
        "age": [str(20 + i % 50) for i in range(ROWS)],
        "y": ["no", "yes"] * (ROWS // 2),
    }
    contract = prepare(csv(save(folder / "train.csv", columns | more, separator), "y")).contract
    assert contract is not None
    return Contract.from_json(contract.to_json())


def first(
    contract: Contract, folder: Path, separator: str, decimal: str = "auto", **columns: list[str]
) -> tuple[float, tuple[str, ...]]:
    """Return the first value that a file gives the first column, and the notes."""
    size = len(next(iter(columns.values())))
    path = save(folder / "new.csv", {"age": ["31"] * size} | columns, separator)
    rows = contract.encode(path, targets=False, decimal=decimal)
    return rows.inputs[0, 0].item(), rows.notes


@pytest.mark.parametrize("separator", [";", "\t"])
def test_another_file_is_read_with_the_decimal_mark_of_the_training(tmp_path: Path, separator: str) -> None:
    """12.650 was 12.65 to a run that was trained on 12.650,80."""
    german = trained(tmp_path, GERMAN)
    assert first(german, tmp_path, separator, euro=["12.650", "734"]) == (12650, ())
    assert first(german, tmp_path, separator, euro=["12,650", "734"])[0] == pytest.approx(12.65)
    # a year of whole numbers in a German file is one, too
    assert first(german, tmp_path, separator, euro=["734"], age=["1.031"])[0] == 734
    english = trained(tmp_path, [f"{i}.25" for i in range(ROWS)])
    assert first(english, tmp_path, separator, euro=["12.650", "734"])[0] == pytest.approx(12.65)


def test_a_file_with_another_mark_is_read_by_its_own_and_named(tmp_path: Path) -> None:
    german = trained(tmp_path, GERMAN)
    value, notes = first(german, tmp_path, ",", euro=["12650.80", "1.5"])
    assert value == pytest.approx(12650.8)
    assert notes == ("decimal  new.csv: decimal point in euro, and a comma in the training",)
    english = trained(tmp_path, [f"{i}.25" for i in range(ROWS)])
    value, notes = first(english, tmp_path, ";", euro=["12.650,80", "1,5"])
    assert value == pytest.approx(12650.8)
    assert notes[0] == "decimal  new.csv: decimal comma in euro, and a point in the training"
    # a column of whole numbers shows none
    english = trained(tmp_path, [f"{i}.25" for i in range(ROWS)], age=[f"{i}.5" for i in range(ROWS)])
    value, notes = first(english, tmp_path, ";", euro=["1,5", "2,5"], age=["31", "n.a."])
    assert value == 1.5 and notes[0].startswith("decimal  new.csv: decimal comma in euro, and")


def test_a_value_with_the_other_mark_is_refused_with_the_mark_of_its_column(tmp_path: Path) -> None:
    """Found by a data scientist: a column of numbers was said not to hold 3.5."""
    contract = trained(tmp_path, [f"{i},25" for i in range(ROWS)])
    path = save(tmp_path / "new.csv", {"age": ["31"] * 3, "euro": ["1,5", "2,75", "3.5"]}, ";")
    with pytest.raises(
        DataError, match="column 'euro' holds numbers with a decimal comma, but '3.5' in row 3"
    ):
        contract.encode(path, targets=False)


def test_what_the_file_and_the_training_read_differently_is_refused(tmp_path: Path) -> None:
    german = trained(tmp_path, GERMAN)
    # the separator is that of the decimal point
    with pytest.raises(
        DataError, match="'12.650', which may mean 12.650 or 12650; set dataset.decimal=point or "
    ):
        first(german, tmp_path, ",", euro=["12.650", "734"])
    assert first(german, tmp_path, ",", "comma", euro=["12.650", "734"])[0] == 12650
    assert first(german, tmp_path, ",", "point", euro=["12.650", "734"])[0] == pytest.approx(12.65)
    # so is another column
    with pytest.raises(
        DataError,
        match="'12.650', which may mean 12.650 or 12650: column 'age' has a decimal point, and had a comma in the training;"
        "\nfor 12.650 set dataset.decimal=point, for 12650 write the numbers of 'euro' as in 'age'",
    ):
        first(german, tmp_path, ";", euro=["12.650"], age=["31.5"])
    assert first(german, tmp_path, ";", "point", euro=["12.650"], age=["31.5"])[0] == pytest.approx(12.65)
    assert first(german, tmp_path, ";", euro=["12650.0"], age=["31.5"])[0] == 12650


def test_whole_numbers_do_not_tell_the_mark_of_another_file(tmp_path: Path) -> None:
    whole = trained(tmp_path, [str(100 + i * 37 % 900) for i in range(ROWS)])
    with pytest.raises(DataError, match="'1.234', which may mean 1.234 or 1234"):
        first(whole, tmp_path, ";", euro=["1.234"])
    assert first(whole, tmp_path, ";", "comma", euro=["1.234"])[0] == 1234
    assert first(whole, tmp_path, ";", "point", euro=["1.234"])[0] == pytest.approx(1.234)


def test_a_test_file_and_one_to_score_follow_the_training(tmp_path: Path) -> None:
    base = {"age": [str(20 + i) for i in range(ROWS)], "y": ["no", "yes"] * (ROWS // 2)}
    train = save(tmp_path / "train.csv", {"euro": GERMAN} | base, ";")
    test = save(tmp_path / "test.csv", {"euro": ["12.650"] * ROWS} | base, ";")
    raw = csv(train, "y", test_path=test)
    assert encoded(raw).inputs[ROWS, 0].item() == 12650
    contract = prepare(csv(train, "y")).contract
    assert encoded(csv(test, "y", contract=contract)).inputs[0, 0].item() == 12650
    point = save(tmp_path / "point.csv", {"euro": ["12650.5"] * ROWS} | base, ";")
    notes = csv(point, "y", contract=contract).notes
    assert "decimal  point.csv: decimal point in euro, and a comma in the training" in notes
    # the target, too
    amounts = save(tmp_path / "amounts.csv", {"x": base["age"], "y": GERMAN}, ";")
    goal = prepare(csv(amounts, "y")).contract
    scored = save(tmp_path / "scored.csv", {"x": base["age"], "y": ["12.650"] * ROWS}, ";")
    assert csv(scored, "y", contract=goal).targets[0].item() == 12650


# In training --------------------------------------------------------------------------------------------------------

THOUSANDS = [f"{1 + i % 90}.{(i * 37) % 1000:03}" for i in range(ROWS - 3)] + ["734", "85", "-1.204"]


def test_a_point_that_may_group_thousands_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    """9.188 was less than 734, though the docs refuse 1,234."""
    path = save(tmp_path / "t.csv", plain() | {"x": ["1"] * ROWS, "sales": THOUSANDS}, ";")
    with pytest.raises(
        DataError,
        match="column 'sales' of .* has '1.000', which may mean 1.000 or 1000; set dataset.decimal=point or dataset.decimal=comma",
    ):
        csv(path, "y")
    few = [*THOUSANDS[:-1], "1234"]
    with pytest.raises(DataError, match="'1.000', which may mean"):
        csv(save(tmp_path / "few.csv", plain() | {"x": ["1"] * ROWS, "sales": few}, ";"), "y")
    column = {word: encoded(csv(path, "y", decimal=word)).inputs[:, -1] for word in ("point", "comma")}  # type: ignore[arg-type]
    assert column["point"][1].item() == pytest.approx(2.037) and column["comma"][1].item() == 2037


@pytest.mark.parametrize(
    ("separator", "more"),
    [
        (",", {}),  # of files with commas between the values, a point is a decimal one
        ("\t", {}),
        (";", {"z": ["0.5", "2.25"] * (ROWS // 2)}),  # as in another column
        (";", {"sales": [*THOUSANDS[:-3], "1234", "2150", "2100"]}),  # thousands without a point
        (";", {"sales": [*THOUSANDS[:-1], "1.25"]}),
        (";", {"sales": [*THOUSANDS[:-1], "0.125"]}),
    ],
)
def test_a_point_is_a_decimal_one_where_the_file_tells(
    tmp_path: Path, separator: str, more: dict[str, list[str]]
) -> None:
    columns = plain() | {"x": ["1"] * ROWS, "sales": THOUSANDS} | more
    result = encoded(csv(save(tmp_path / "t.csv", columns, separator), "y"))
    assert result.inputs[1, result.feature_names.index("sales")].item() == pytest.approx(2.037)


def test_thousands_are_grouped_where_another_number_or_column_tells(tmp_path: Path) -> None:
    for more in ({"sales": [*THOUSANDS[:-1], "1.234.567"]}, {"z": ["0,5", "2,25"] * (ROWS // 2)}):
        columns = plain() | {"x": ["1"] * ROWS, "sales": THOUSANDS} | more
        result = encoded(csv(save(tmp_path / "t.csv", columns, ";"), "y"))
        assert result.inputs[1, result.feature_names.index("sales")].item() == 2037
    french = [f"{1 + i} {i % 900 + 100},{i % 10}" for i in range(ROWS)]
    result = encoded(csv(save(tmp_path / "t.csv", plain() | {"x": french}, ";"), "y"))
    assert result.inputs[1, 0].item() == pytest.approx(2101.1)


def test_grouped_class_numbers_are_whole(tmp_path: Path) -> None:
    columns = plain() | {
        "z": ["0,5", "2,25"] * (ROWS // 2),
        "x": ["1"] * ROWS,
        "y": ["1.000", "2.000"] * (ROWS // 2),
    }
    assert csv(save(tmp_path / "t.csv", columns, ";"), "y").class_names == ("1000", "2000")


def test_groups_need_no_mark_and_addresses_are_no_numbers(tmp_path: Path) -> None:
    base = {
        "x": [str(i) for i in range(ROWS)],
        "kind": ["a", "b"] * (ROWS // 2),
        "y": ["no", "no", "yes", "yes"] * (ROWS // 4),
    }
    path = save(tmp_path / "t.csv", base | {"g": [f"{1 + i % 9}.{100 + i % 9}" for i in range(ROWS)]}, ";")
    for word in ("comma", "point", "auto"):
        groups = csv(path, "y", group_column="g", decimal=word).groups  # type: ignore[arg-type]
        assert groups is not None and len(groups.unique()) == 9
    addresses = [f"192.168.100.{101 + i % 30}" for i in range(ROWS)]
    raw = csv(save(tmp_path / "ip.csv", base | {"ip": addresses}, ";"), "y")
    assert raw.left_out["ip"].startswith("text")


def test_labels_of_images_have_a_way_out_without_keys(tmp_path: Path) -> None:
    path = Path(save(tmp_path / "labels.csv", {"file": ["a", "b"], "size": ["1.234", "2.500"]}, ";"))
    with pytest.raises(
        DataError, match="write 1234 without a mark, or for 1.234 separate the values of the file by tabs"
    ):
        Columns(read(path, "auto"), Reading(has_keys=False), ["size"])
    path = Path(save(tmp_path / "labels.csv", {"file": ["a", "b"], "size": ["1.234", "2.500"]}, "\t"))
    assert Columns(read(path, "auto"), Reading(has_keys=False), ["size"]).decimal("size") == "."


# Columns that predictions keep --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("separator", "texts", "expected"),
    [
        (";", ["1.234", "734", ""], [1234, 734, None]),
        (";", ["1,5", "1.234,25", "2"], [1.5, 1234.25, 2.0]),
        (";", ["0.5", "1.234", "2"], [0.5, 1.234, 2.0]),
        (";", ["1 234,5", "3", "2"], [1234.5, 3.0, 2.0]),
        (";", ["007", "1.234", "2"], ["007", "1.234", "2"]),
        (";", ["1,5", "1.5", "2"], ["1,5", "1.5", "2"]),
        (";", ["12345678901234567", "1", "2"], [12345678901234567, 1, 2]),
    ],
)
def test_kept_numbers_are_read_as_those_of_the_file(
    tmp_path: Path, separator: str, texts: list[str], expected: list[object]
) -> None:
    """1.234 was 1.234 in the Parquet file, beside 12.650,80 as text."""
    path = save(
        tmp_path / "new.csv", {"euro": ["12.650,80"] * 3, "age": ["31"] * 3, "kept": texts}, separator
    )
    table = read(Path(path), "auto")
    marks = trained(tmp_path, GERMAN).decimal_marks(table, ["kept", "euro"])
    assert marks["euro"] == "," and numbers_of(texts, marks["kept"]) == expected


def test_a_kept_column_stays_text_where_nothing_tells_its_mark(tmp_path: Path) -> None:
    english = trained(tmp_path, [f"{i}.25" for i in range(ROWS)], ",")
    for separator, text, expected in (
        (";", "1.234", ["1.234"]),
        (",", "1.234", [1.234]),
        ("\t", "1,234", ["1,234"]),
    ):
        path = save(tmp_path / "new.csv", {"euro": ["3"], "age": ["31"], "kept": [text]}, separator)
        marks = english.decimal_marks(read(Path(path), "auto"), ["kept"])
        assert numbers_of([text], marks["kept"]) == expected
        marks = english.decimal_marks(read(Path(path), "auto"), ["kept"], "comma")
        assert numbers_of([text], marks["kept"]) == [1234 if "." in text else 1.234]
