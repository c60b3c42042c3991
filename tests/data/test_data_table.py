"""CSV and Parquet: columns by name, categories, given splits, groups, and what is missing where."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dltrain.data.errors import DataError
from dltrain.data.prepare import prepare
from dltrain.data.raw import Encoded, Encoder, RawData
from dltrain.data.table import csv

HEADER = "age,colour,income,patient,part,label"
ROWS = [
    "31,red,1.5,p1,train,yes",
    "42, blue,2.5e3,p1,train,no",
    '53,"green, dark",-3,p2,val,yes',
    "64,red,4,p3,test,no",
    "75,blue,5,p3,test,yes",
]


def write(path: Path, *rows: str, header: str = HEADER) -> str:
    path.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return write(tmp_path / "people.csv", *ROWS)


def encoded(raw: RawData) -> Encoded:
    """The features as they are where all rows are training rows."""
    assert isinstance(raw.inputs, Encoder)
    return raw.inputs.encode(torch.arange(len(raw)))


def inputs_of(raw: RawData) -> Tensor:
    return encoded(raw).inputs


def names_of(raw: RawData) -> tuple[str, ...]:
    return encoded(raw).feature_names


def test_features_categories_splits_and_groups(file: str) -> None:
    raw = csv(file, "label", split_column="part", group_column="patient")
    assert "part (splits the rows), patient (groups the rows)" in raw.notes[0]
    assert names_of(raw) == ("age", "colour=blue", "colour=green, dark", "colour=red", "income")
    assert inputs_of(raw).tolist() == [
        [31, 0, 0, 1, 1.5],
        [42, 1, 0, 0, 2500],
        [53, 0, 1, 0, -3],
        [64, 0, 0, 1, 4],
        [75, 1, 0, 0, 5],
    ]
    assert (raw.task, raw.class_names, raw.targets.tolist()) == (
        "classification",
        ("no", "yes"),
        [1, 0, 1, 0, 1],
    )
    assert raw.split is not None and raw.split.tolist() == [0, 0, 1, 2, 2]
    assert raw.groups is not None and raw.groups.tolist() == [0, 0, 1, 2, 2]
    assert raw.describe(2) == f"row 3 of {file}"


def test_features_are_those_that_are_named_in_that_order(file: str) -> None:
    raw = csv(file, "label", features=["income", "age"])
    assert names_of(raw) == ("income", "age")
    assert inputs_of(raw)[1].tolist() == [2500, 42]


def test_numbers_can_be_categories(file: str) -> None:
    raw = csv(file, "label", features=["age"], categorical=["age"])
    assert names_of(raw) == ("age=31", "age=42", "age=53", "age=64", "age=75")
    assert inputs_of(raw).equal(torch.eye(5))


@pytest.mark.parametrize(
    ("values", "task", "expected"),
    [
        (["0", "1", "1", "0"], "auto", "classification"),
        (["3", "7", "7", "3"], "auto", "classification"),
        (["0.5", "1", "1", "0"], "auto", "regression"),
        (["a", "b", "b", "a"], "auto", "classification"),
        ([str((i * 5) % 21) for i in range(21)], "auto", "regression"),
        (["0", "1", "1", "0"], "regression", "regression"),
        (["0.5", "1.5", "0.5", "1.5"], "classification", "classification"),
    ],
)
def test_the_task_is_told_by_the_target(tmp_path: Path, values: list[str], task: str, expected: str) -> None:
    raw = csv(
        write(tmp_path / "t.csv", *(f"{i % 3}.5,{value}" for i, value in enumerate(values)), header="x,y"),
        "y",
        task=task,
    )
    assert raw.task == expected
    if values[0] == "3":
        assert raw.class_names == ("3", "7") and raw.targets.tolist() == [0, 1, 1, 0]
    if values[0] == "0.5" and task == "classification":
        assert raw.class_names == ("0.5", "1.5")


def test_several_targets_are_a_regression(file: str) -> None:
    raw = csv(file, ["age", "income"], features=["colour"])
    assert raw.task == "regression" and raw.targets.shape == (5, 2)
    assert prepare(raw, test_fraction=0.2, val_fraction=0.25).spec.num_classes == 2


def test_other_separators_a_byte_order_mark_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    path.write_bytes("\ufeffx;y\n1;2,5\n\n3;4\n".replace("2,5", "2.5").encode("utf-8"))
    raw = csv(str(path), "y", delimiter=";")
    assert inputs_of(raw).tolist() == [[1], [3]] and raw.targets.tolist() == [[2.5], [4]]


def test_parquet_equals_csv(tmp_path: Path, file: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    table = arrow_csv.read_csv(
        write(tmp_path / "plain.csv", *(row.replace(", ", ",") for row in ROWS[:2] + ROWS[3:]))
    )
    parquet.write_table(table, tmp_path / "people.parquet")
    keys = {"split_column": "part", "group_column": "patient"}
    left = csv(str(tmp_path / "people.parquet"), "label", **keys)  # type: ignore[arg-type]
    right = csv(str(tmp_path / "plain.csv"), "label", **keys)  # type: ignore[arg-type]
    assert names_of(left) == names_of(right) and left.class_names == right.class_names
    assert inputs_of(left).equal(inputs_of(right)) and left.targets.equal(right.targets)
    assert left.split is not None and right.split is not None and left.split.equal(right.split)
    assert left.groups is not None and right.groups is not None and left.groups.equal(right.groups)
    assert pyarrow


def test_missing_values_of_parquet_are_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet, table

    columns = {
        "whole": [1, 2, None],
        "real": [0.5, None, 1.0],
        "word": ["a", None, "b"],
        "flag": [True, False, True],
        "y": [0, 1, 0],
    }
    path = str(tmp_path / "holes.parquet")
    parquet.write_table(table(columns), path)
    for name, row in (("whole", 3), ("real", 2), ("word", 2)):
        with pytest.raises(DataError, match=f"column '{name}' has no value in row {row} of .*holes.parquet"):
            csv(path, "y", features=[name], missing="refuse")
    assert inputs_of(csv(path, "y", features=["flag"])).tolist() == [[1], [0], [1]]
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 but no table")
    with pytest.raises(DataError, match="bad.parquet is not a whole Parquet file"):
        csv(str(tmp_path / "bad.parquet"), "y")


@pytest.mark.parametrize("hole", ["", "NA", "nan", "N/A", "null", "?"])
@pytest.mark.parametrize(("column", "row"), [("age", 2), ("colour", 5)])
def test_missing_values_are_named_by_column_and_row(tmp_path: Path, hole: str, column: str, row: int) -> None:
    rows = [line.replace('"green, dark"', "green").split(",") for line in ROWS]
    rows[row - 1][HEADER.split(",").index(column)] = hole
    path = write(tmp_path / "holes.csv", *(",".join(line) for line in rows))
    with pytest.raises(DataError, match=f"column '{column}' has no value in row {row} of .*holes.csv"):
        csv(path, "label", features=["age", "colour"], missing="refuse")
    csv(path, "label", features=["income"], missing="refuse")  # the cure


def test_unused_columns_may_have_holes(tmp_path: Path) -> None:
    csv(write(tmp_path / "t.csv", "1,,0", "2,,1", header="x,note,y"), "y", features=["x"])


REFUSED = [
    (
        {"target": "lable"},
        r"dataset.target names the column 'lable', .* .did you mean 'label'\?.; its columns: age, ",
    ),
    ({"features": ["age", "colur"]}, r"dataset.features names .*'colur'.*did you mean 'colour'\?"),
    ({"split_column": "parts"}, r"dataset.split_column names .*'parts'.*did you mean 'part'\?"),
    ({"group_column": "doctor"}, "dataset.group_column names the column 'doctor'"),
    ({"categorical": ["clour"]}, r"dataset.categorical names .*'clour'.*did you mean 'colour'\?"),
    ({"categorical": "none"}, "dataset.categorical is 'none'; it must be auto or a list of columns"),
    ({"categorical": ["patient"], "features": ["age"]}, "names 'patient', which is not among the features"),
    ({"features": ["age", "label"]}, "names 'label', which is the target, split or group"),
    ({"features": []}, "no column of .* is left to learn from"),
    (
        {"features": ["colour"], "categorical": []},
        "column 'colour' has 'red' in row 1 of .* not a number; give it to",
    ),
    (
        {"split_column": "label"},
        "column 'label' has 'yes' in row 1 of .*a split column holds train, val and test",
    ),
    ({"task": "ranking"}, "dataset.task is 'ranking'; it must be classification, regression or auto"),
    ({"task": "regression"}, "column 'label' has 'yes' in row 1 of .*set dataset.task=classification"),
    ({"target": ["age", "income"], "task": "classification"}, "names 2 columns; a classification has one"),
    ({"delimiter": ";;"}, "dataset.delimiter is ';;'; it must be auto, one character, or comma, semicolon"),
    ({"drop": ["agee"]}, r"dataset.drop names .*'agee'.*did you mean 'age'\?"),
    ({"keep": ["label"]}, "dataset.keep names 'label', which is the target, split or group"),
    ({"drop": ["age", "colour", "income", "patient", "part"]}, "no column of .* is left to learn from"),
    ({"missing": "mean"}, "dataset.missing is 'mean'; it must be auto or refuse or drop"),
    ({"target_scale": "max"}, "dataset.target_scale is 'max'; it must be unit or none"),
    ({"dates": "cyclic"}, "dataset.dates is 'cyclic'; it must be parts or number"),
    ({"decimal": ","}, "dataset.decimal is ','; it must be auto or point or comma"),
]


@pytest.mark.parametrize(("keys", "message"), REFUSED)
def test_refusals(file: str, keys: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        csv(file, **{"target": "label", **keys})  # type: ignore[arg-type]
    assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; its first line must name the columns"),
        ("x,y\n", "holds no row below its header"),
        ("x,x,y\n1,2,3\n", "has two columns named 'x'"),
        ("x,y\n1,2\n3\n", "row 2 of .* has 1 values for 2 columns .'3' ….; repair that line"),
        ("x,y\n1,2\n3,4,5\n", "row 2 of .* has 3 values for 2 columns"),
        ('x,y\n1,2\n"3,4\n5,6\n', "row 2 of .* has 1 values for 2 columns .*close the quote in it"),
        ("x,y\n1,2\ninf,3\n", "column 'x' has inf in row 2 of .*finite"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        csv(str(tmp_path / "t.csv"), "y")


def test_files_that_are_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dataset.path is .*t.csv, which is not a file"):
        csv(str(tmp_path / "t.csv"), "y")
    (tmp_path / "t.csv").write_bytes(b"x,y\0\n1,2\n")
    with pytest.raises(DataError, match="is not a text file"):
        csv(str(tmp_path / "t.csv"), "y")
    (tmp_path / "t.csv").write_bytes("x,y\n1,2\n".encode("utf-32"))
    with pytest.raises(DataError, match="is a text in UTF-32; save it as UTF-8"):
        csv(str(tmp_path / "t.csv"), "y")
    (tmp_path / "t.csv").write_bytes(b"PK\x03\x04 a workbook")
    with pytest.raises(DataError, match="is a workbook or an archive, not a CSV file; save the sheet as CSV"):
        csv(str(tmp_path / "t.csv"), "y")


def test_a_column_of_names_is_no_category(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", *(f"name{i},{i % 2}" for i in range(101)), header="who,y")
    with pytest.raises(
        DataError, match="column 'who' of .* holds 101 different texts .*too many for a category"
    ):
        csv(path, "y", features=["who"])
    with pytest.raises(DataError, match=r"left to learn from: who .identifier.*dataset.keep=\[who\]"):
        csv(path, "y")
    assert inputs_of(csv(path, "y", keep=["who"])).shape == (101, 101)  # the cure
    assert inputs_of(csv(path, "y", categorical=["who"])).shape == (101, 101)
