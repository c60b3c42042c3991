"""Tables in JSON: the same as in CSV and Parquet; what is no table is refused with what to write."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from test_tables import contract_of, encoded, plain

from dltrain.data.errors import DataError
from dltrain.data.prepare import prepare
from dltrain.data.table import csv
from dltrain.data.tables.read import read, read_text
from dltrain.errors import DataProblem

ROWS = 40
COLUMNS = plain(ROWS) | {
    "size": [None if i % 9 == 2 else i * 0.25 for i in range(ROWS)],
    "rooms": [i % 4 for i in range(ROWS)],
    "sold": [i % 3 == 0 for i in range(ROWS)],
    "day": [f"2024-0{i % 9 + 1}-05" for i in range(ROWS)],
}


def rows_of(columns: dict[str, list[object]]) -> list[dict[str, object]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    rows = rows_of(COLUMNS)
    lines = "\n".join(map(json.dumps, rows)) + "\n"
    # as pandas and jq leave out what is null
    short = [{name: value for name, value in row.items() if value is not None} for row in rows]
    contents = {
        "t.json": json.dumps(rows).encode(),
        "t.jsonl": lines.encode(),
        "t.ndjson": ("\ufeff" + lines.replace("\n", "\r\n\n")).encode(),
        "t.json.gz": gzip.compress(json.dumps(short, indent=1).encode()),
        "t.JSONL.gz": gzip.compress(lines.encode()),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in contents}


def test_rows_of_json_are_those_of_parquet(tmp_path: Path, files: dict[str, Path]) -> None:
    parquet.write_table(pa.table(COLUMNS), tmp_path / "t.parquet")
    truth = csv(str(tmp_path / "t.parquet"), "y")
    contract = contract_of(prepare(truth))
    new = contract.encode(tmp_path / "t.parquet").inputs
    for file in files.values():
        raw = csv(str(file), "y")
        assert encoded(raw).feature_names == encoded(truth).feature_names
        assert encoded(raw).inputs.equal(encoded(truth).inputs)
        assert contract.encode(file).inputs.equal(new)
        assert "delimiter" in raw.unused


def test_values_of_several_types_are_texts(tmp_path: Path) -> None:
    values = [1, 2.5, None, True, "a", 2**70]
    (tmp_path / "t.json").write_text(
        json.dumps([{"a": value, "b": 2**70 + i} for i, value in enumerate(values)])
    )
    columns = read(tmp_path / "t.json", "auto").columns
    assert columns["a"].to_pylist() == ["1", "2.5", None, "true", "a", str(2**70)]
    assert columns["b"].to_pylist() == [str(2**70 + i) for i in range(6)]
    (tmp_path / "t.json").write_text('[{"a": 1}, {"a": NaN}, {"a": 2.5}]')
    np.testing.assert_array_equal(read(tmp_path / "t.json", "auto").columns["a"].to_numpy(), [1, np.nan, 2.5])


def test_lists_and_objects_are_left_out_as_in_parquet(tmp_path: Path) -> None:
    """They were refused whether the column was dropped or not."""
    rows = [row | {"tags": ["a", str(i)] if i % 3 else {"a": 1}} for i, row in enumerate(rows_of(COLUMNS))]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(rows))
    raw = csv(str(path), "y")
    assert (
        raw.left_out == {"tags": "lists or objects"} and "left out: tags (lists or objects)" in raw.notes[0]
    )
    plain_path = tmp_path / "plain.json"
    plain_path.write_text(json.dumps(rows_of(COLUMNS)))
    assert encoded(raw).inputs.equal(encoded(csv(str(plain_path), "y")).inputs)
    parquet.write_table(pa.table(COLUMNS | {"tags": [[1, 2]] * ROWS}), tmp_path / "t.parquet")
    assert csv(str(tmp_path / "t.parquet"), "y").left_out == raw.left_out
    for keys in ({"target": "tags"}, {"target": "y", "keep": ["tags"]}):
        with pytest.raises(DataError, match="'tags' of .* holds lists or objects"):
            csv(str(path), **keys)  # type: ignore[arg-type]
    # numbers in the training
    contract = contract_of(prepare(csv(str(plain_path), "y")))
    with pytest.raises(DataError, match="'size' holds numbers, but .* in row 1 of"):
        path.write_text(json.dumps([row | {"size": [1.5]} for row in rows_of(COLUMNS)]))
        contract.encode(path)
    rows = rows_of(COLUMNS)
    path.write_text(json.dumps([rows[0] | {"size": [1.5]}, *rows[1:]]))
    with pytest.raises(DataError, match=r"'size' holds numbers, but .*\[1.5\].* in row 1 of"):
        contract.encode(path)


def test_one_list_among_other_values_leaves_them_as_they_are(tmp_path: Path) -> None:
    """Found by a data scientist: an object in one row made texts in brackets of all rows, which then counted as unknown."""
    (tmp_path / "t.json").write_text(
        '[{"a": "x", "b": 1.5}, {"a": {"k": 1}, "b": [1, 2]}, {"a": null, "b": 2}]'
    )
    table = read(tmp_path / "t.json", "auto")
    found = {name: column.to_pylist() for name, column in table.columns.items()}
    assert found == {"a": ["x", '{"k": 1}', None], "b": ["1.5", "[1, 2]", "2"]}


def test_one_row_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text('{"a": 1, "b": "x"}')
    table = read(tmp_path / "one.json", "auto")
    assert {name: column.to_pylist() for name, column in table.columns.items()} == {"a": [1], "b": ["x"]}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.json", "", "is empty"),
        ("t.json", "[]", "holds no row with a value"),
        ("t.json", "[{}]", "holds no row with a value"),
        ("t.json", "[1, 2]", r"must hold a list of rows, such as \[\{.*orient="),
        ("t.json", '{"a": {"0": 1, "1": 2}}', "must hold a list of rows"),
        ("t.json", '[{"a": 1},', "t.json is no JSON .*; write it again"),
        ("t.json", '[{"a": 1, "a": 2}]', "duplicate key 'a'"),
        ("t.json", '[{"a": "\\ud800"}]', "column 'a' of .* has a text that is no Unicode"),
        ("t.json", '[{"\\ud800": "a"}]', "the name of column .* of .* is no Unicode"),
        ("t.json", b"[\xff]", "is no JSON"),
        ("t.json", "[" * 100_000, "is no JSON .*nested too deeply"),
        ("t.jsonl", '{"a": 1}\n[2]\n', "line 2 of .*t.jsonl must be a row"),
        ("t.jsonl", '{"a": 1}\n{"a": \n', "line 2 of .*t.jsonl is no JSON"),
        ("t.csv", '[{"a": 1}]', "t.csv holds JSON and is read as CSV; name it FILE.json"),
        (
            "t.xml",
            "<a/>",
            r"t.xml is a .xml file, and tables are read from CSV, TSV, Parquet, Arrow and JSON .*to_parquet",
        ),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=said):
        read(tmp_path / name, "auto")


def test_rows_with_names_of_their_own_are_refused_before_the_table_is_built(tmp_path: Path) -> None:
    """Found by a hostile tester: 60,000 rows of 1.2 MB took more than 4.4 GB."""
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(f'{{"c{i}": 1, "y": "n"}}' for i in range(20_000)))
    start = time.process_time()
    with pytest.raises(
        DataError, match=r"20,000 rows and 20,001 different names, 'c0', 'c1', 'c2'.* in fewer than 1 %"
    ):
        read(file, "auto")
    assert time.process_time() - start < 2


def test_a_table_that_lacks_most_values_is_read(tmp_path: Path) -> None:
    # 4,000 rows of 300 names are 1.2 million cells for 16,000 values, 75 for each
    rows = [{f"c{(i + k) % 300}": i for k in range(4)} for i in range(4000)]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    columns = read(tmp_path / "t.json", "auto").columns
    assert len(columns) == 300
    assert [i for i, value in enumerate(columns["c7"].to_pylist()) if value is not None] == [
        i for i in range(4000) if (7 - i) % 300 < 4
    ]


@pytest.mark.parametrize(
    "kind, row", [("class", {"a": 1, "y": "x" * 140_000}), ("column", {"x" * 140_000: 1, "y": "b"})]
)
def test_a_name_that_no_record_can_hold_is_refused(
    dltrain, workdir: Path, kind: str, row: dict[str, object]
) -> None:
    """The reader of CSV takes 131,072 letters: `verify` accused the run."""
    rows = [row if i % 2 else {**dict.fromkeys(row, 0), "y": "a"} for i in range(40)]
    Path("t.json").write_text(json.dumps(rows))
    with pytest.raises(DataProblem, match=f"the name of a {kind} has 140,000 letters, 'xxxx"):
        dltrain("dataset=csv", "dataset.path=t.json", "dataset.target=y")
    assert not Path("outputs").exists()


def test_json_from_standard_input_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="standard input holds JSON"):
        read_text(b'{"a": 1}\n{"a": 2}\n', "standard input", "auto")


def test_lines_that_are_no_row_are_left_out_where_the_rest_is_predicted(tmp_path: Path) -> None:
    """The last line of a file that is still written; rows are counted without empty lines."""
    path = tmp_path / "new.jsonl"
    path.write_text('{"x": 1}\n\n[2]\n{"x": 3}\n{"x": 4, "c')
    with pytest.raises(DataError, match="line 3 of .*new.jsonl must be a row"):
        read(path, "auto")
    table = read(path, "auto", tolerant=True)
    assert table.columns["x"].to_pylist() == [1, 3] and table.numbers.tolist() == [1, 3]
    assert [number for number, _ in table.broken] == [2, 4]
    assert "line 5 of" in table.broken[1][1] and "is no JSON" in table.broken[1][1]
    path.write_text('[1]\n{"x"')
    with pytest.raises(DataError, match="line 2 of .*new.jsonl is no JSON"):
        read(path, "auto", tolerant=True)
