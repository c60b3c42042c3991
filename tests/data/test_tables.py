"""What tables in the wild hold: marks, words for missing values, dates, identifiers, targets; and what a run keeps of them.

Second truths: Python's csv and datetime modules, numpy, and values worked out by hand.
"""

from __future__ import annotations

import gzip
import subprocess
from dataclasses import replace
from datetime import datetime
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import feather, parquet
from torch import Tensor

from dltrain.data.contract import Contract
from dltrain.data.errors import DataError, renamed
from dltrain.data.prepare import Splits, prepare
from dltrain.data.raw import Encoded, Encoder, RawData
from dltrain.data.table import csv
from dltrain.data.tables.read import read
from dltrain.data.tables.rules import Rule
from dltrain.data.units import in_units

ROWS = 40


def save(path: Path, columns: dict[str, list[Any]], separator: str = ",", encoding: str = "utf-8") -> str:
    lines = [columns.keys(), *zip(*columns.values(), strict=True)]
    text = "\n".join(separator.join(map(str, line)) for line in lines) + "\n"
    path.write_bytes(text.encode(encoding))
    return str(path)


def encoded(raw: RawData, train: Tensor | None = None) -> Encoded:
    assert isinstance(raw.inputs, Encoder)
    return raw.inputs.encode(torch.arange(len(raw)) if train is None else train)


def plain(count: int = ROWS) -> dict[str, list[Any]]:
    """Columns that nothing is special about: a number, a category and two classes."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=count).round(3).tolist()
    return {
        "x": x,
        "kind": [("a", "b", "c")[i % 3] for i in range(count)],
        "y": ["no" if v < 0 else "yes" for v in x],
    }


def notes(raw: RawData) -> str:
    return "\n".join((*raw.notes, *encoded(raw).notes))


# Reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "words"),
    [(",", ["comma"]), (";", ["semicolon", ";"]), ("\t", ["tab", "\\t", "\t"]), ("|", ["pipe", "|"])],
)
def test_separators_are_detected_shown_and_taken_as_typed(
    tmp_path: Path, mark: str, words: list[str]
) -> None:
    truth = encoded(csv(save(tmp_path / "truth.csv", plain()), "y")).inputs
    path = save(tmp_path / "t.csv", plain(), separator=mark)
    for word in ("auto", *words):
        raw = csv(path, "y", delimiter=word)
        assert encoded(raw).inputs.equal(truth)
        assert ("separator" in raw.notes[0]) == (word == "auto" and mark != ",")


def test_a_comma_in_text_does_not_separate_where_semicolons_do(tmp_path: Path) -> None:
    columns = plain() | {"name": [f"last{i % 4}, first" for i in range(ROWS)]}
    raw = csv(save(tmp_path / "t.csv", columns, separator=";"), "y")
    assert "name=last2, first" in encoded(raw).feature_names


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", ""), ("utf-8-sig", ""), ("utf-16", "UTF-16"),
                                                 ("latin-1", "Windows-1252"), ("cp1252", "Windows-1252")])  # fmt: skip
def test_encodings(tmp_path: Path, encoding: str, shown: str) -> None:
    columns = plain() | {"stadt": [("Köln", "Nîmes")[i % 2] for i in range(ROWS)]}
    raw = csv(save(tmp_path / "t.csv", columns, encoding=encoding), "y")
    assert {"stadt=Köln", "stadt=Nîmes", "x"} <= set(encoded(raw).feature_names)
    assert (shown in raw.notes[0]) if shown else ("read as" not in raw.notes[0])


def test_a_short_row_is_named_in_any_encoding(tmp_path: Path) -> None:
    """Arrow cannot hand over a row that is not UTF-8: it was left out without a word."""
    (tmp_path / "t.csv").write_bytes("x,name,y\n1,a,no\n2,Köln\n3,b,yes\n".encode("latin-1"))
    with pytest.raises(DataError, match="row 2 of .* has 2 values for 3 columns .'2,Köln'"):
        csv(str(tmp_path / "t.csv"), "y")


@pytest.mark.parametrize("spaced", [False, True])
def test_the_line_of_excel_that_names_the_separator_is_read(tmp_path: Path, spaced: bool) -> None:
    path, columns = tmp_path / "t.csv", plain(6)
    columns["kind"] = ['"a; b"', "a", "a", "b", "b", "b"]
    save(path, columns, ";")
    text = path.read_text().replace(';"a', '; "a') if spaced else path.read_text()
    path.write_text(f"sep=;\r\n{text}")
    raw = csv(str(path), "y")
    assert "kind=a; b" in encoded(raw).feature_names and len(raw) == 6
    assert "separator: semicolon, named in line 1" in raw.notes[0]
    path.write_text(f"sep=;\n{text}1;a\n")
    with pytest.raises(DataError, match=r"row 7 of .* .line 9. has 2 values for 3 columns") as caught:
        csv(str(path), "y", delimiter="semicolon")
    assert "dataset.delimiter" not in str(caught.value)


def test_lines_above_the_header_are_named_with_a_command_that_removes_them(
    tmp_path: Path, monkeypatch
) -> None:
    path = tmp_path / "my t.csv"
    text = Path(save(path, plain())).read_text()
    path.write_text(f"# Export of May, by SAP\n\nSource: SAP\n{text}")
    told = r"first line of .* is '# Export of May, by SAP'; from line 4 on, most rows have 3 values"
    with pytest.raises(DataError, match=told) as caught:
        csv(str(path), "y")
    command = str(caught.value).partition("above: ")[2]
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert (tmp_path / "table.csv").read_text() == text
    # one that wrote the file that it reads would empty it
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text(path.read_text())
    with pytest.raises(DataError, match="above: sed 1,3d table.csv > table_2.csv"):
        csv("table.csv", "y")
    spaced = Path(save(tmp_path / "table.csv", plain(), "   "))
    with pytest.raises(DataError, match="' table.csv > table_2.csv, and set"):
        csv(spaced.name, "y")
    # a header with a # and a few odd rows is a header
    path.write_text(f"#{text}1,2\n")
    with pytest.raises(DataError, match=f"row {ROWS + 1} of .* has 2 values"):
        csv(str(path), "y")


def test_the_separator_of_a_file_that_is_one_column_is_proposed(tmp_path: Path) -> None:
    path = save(tmp_path / "t.csv", plain(), " ")
    with pytest.raises(DataError, match="read as a single column, 'x kind y'; set dataset.delimiter=space"):
        csv(path, "y")
    assert len(csv(path, "y", delimiter="space")) == ROWS
    with pytest.raises(DataError, match="set dataset.delimiter=comma"):
        csv(save(tmp_path / "u.csv", plain()), "y", delimiter="tab")
    contract = contract_of(prepare(csv(path, "y", delimiter="space")))
    with pytest.raises(DataError, match="read as a single column, 'x kind y'; set dataset.delimiter=space"):
        contract.encode(path)
    assert len(contract.encode(path, delimiter="space").inputs) == ROWS


def test_quotes_newlines_and_spaces(tmp_path: Path) -> None:
    lines = ['x,"the\nname",y', '1,"a\nb",no', '" 2 ","say ""a"", b",yes', "3, c ,no", "", "4,c,yes"]
    path = tmp_path / "t.csv"
    path.write_text("\r\n".join(lines), newline="")
    result = encoded(csv(str(path), "y"))
    assert result.inputs[:, 0].tolist() == [1, 2, 3, 4]
    assert result.feature_names[1:] == ("the\nname=a\nb", "the\nname=c", 'the\nname=say "a", b')
    path.write_text('x, "name", y\n1, "a, b", no\n2, "c", yes\n')  # a space in front of the quote
    result = encoded(csv(str(path), "y"))
    assert result.feature_names == ("x", "name=a, b", "name=c")


def test_names_in_single_quotes(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("'x'\t'name'\t'y'\n1\t'it'\tno\n2\t'a\tb'\tyes\n")
    assert encoded(csv(str(tmp_path / "t.csv"), "y")).feature_names == ("x", "name=a\tb", "name=it")


def test_packed_and_arrow_files_equal_csv(tmp_path: Path) -> None:
    path = Path(save(tmp_path / "t.csv", plain()))
    truth = encoded(csv(str(path), "y"))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    parquet.write_table(pa.table(plain()), tmp_path / "t.parquet")
    feather.write_feather(pa.table(plain()), str(tmp_path / "t.feather"))
    for name in ("t.csv.gz", "t.parquet", "t.feather"):
        result = encoded(csv(str(tmp_path / name), "y"))
        assert result.inputs.equal(truth.inputs), name
        assert result.feature_names == truth.feature_names, name


def test_types_of_parquet(tmp_path: Path) -> None:
    days = [datetime(2024, 1 + i % 12, 15, 6) for i in range(ROWS)]
    columns = {
        "flag": pa.array([i % 2 == 0 for i in range(ROWS - 1)] + [None]),
        "day": pa.array(days, pa.timestamp("us", "UTC")),
        "level": pa.array([("u", "v")[i % 2] for i in range(ROWS)]).dictionary_encode(),
        "price": pa.array([f"{i % 7}.50" for i in range(ROWS)]).cast(pa.decimal128(6, 2)),
        "wait": pa.array([1500 * i for i in range(ROWS)], pa.duration("ms")),
        "tags": pa.array([["a"]] * ROWS),
        "y": pa.array([float(i * i % 11) / 7 for i in range(ROWS)]),
    }
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    result = encoded(raw := csv(str(tmp_path / "t.parquet"), "y"))
    found = dict(zip(result.feature_names, result.inputs.T, strict=True))
    assert "left out: tags (lists or objects)" in raw.notes[0]
    assert found["flag"].tolist() == [float(i % 2 == 0) for i in range(ROWS - 1)] + [1.0]
    assert found["flag=(missing)"].tolist() == [0.0] * (ROWS - 1) + [1.0]
    assert found["price"][:3].tolist() == [0.5, 1.5, 2.5]
    assert found["wait"][:3].tolist() == [0.0, 1.5, 3.0]
    assert found["day month"].tolist() == [1 + i % 12 for i in range(ROWS)]
    assert found["day weekday"].tolist() == [day.weekday() for day in days]


def test_numbers_that_a_file_declares_to_be_categories_are_some(tmp_path: Path) -> None:
    """A Categorical of pandas became a number; Parquet has its values as such, and says so beside them."""
    import json

    size = [(10, 20, 30)[i % 3] for i in range(ROWS)]
    columns = pa.table(plain() | {"size": size})
    about = {
        "columns": [{"name": "size", "pandas_type": "categorical"}, {"name": "x", "pandas_type": "float64"}]
    }
    parquet.write_table(
        columns.replace_schema_metadata({"pandas": json.dumps(about)}), tmp_path / "t.parquet"
    )
    coded = columns.set_column(columns.column_names.index("size"), "size", pa.array(size).dictionary_encode())
    feather.write_feather(coded, tmp_path / "t.feather")
    parquet.write_table(columns, tmp_path / "plain.parquet")
    for name in ("t.parquet", "t.feather"):
        raw = csv(str(tmp_path / name), "y")
        assert {"size=10", "size=20", "size=30"} <= set(encoded(raw).feature_names)
        assert any(
            note.startswith("types    size: numbers that are categories by the file") for note in raw.notes
        )
        contract = contract_of(prepare(raw))
        assert contract.encode(tmp_path / "plain.parquet").inputs.equal(
            contract.encode(tmp_path / name).inputs
        )
        numbers = csv(str(tmp_path / name), "y", categorical=[], drop=["kind"])
        assert encoded(numbers).feature_names == ("x", "size")
    assert csv(str(tmp_path / "t.parquet"), "size").class_names == ("10", "20", "30")
    broken = columns.replace_schema_metadata({"pandas": "[1"})
    parquet.write_table(broken, tmp_path / "t.parquet")
    assert "size" in encoded(csv(str(tmp_path / "t.parquet"), "y")).feature_names
    # two of one name
    parquet.write_table(pa.Table.from_arrays([pa.array([1])] * 2, ["a", "a"]), tmp_path / "two.parquet")
    with pytest.raises(DataError, match="has two columns named 'a'"):
        read(tmp_path / "two.parquet", "auto")


def test_the_form_of_letters_with_accents_tells_nothing_apart(tmp_path: Path) -> None:
    """Names of files on macOS have an ö of two letters: their levels, classes and columns were unknown."""
    one, two = ("Gr\u00f6\u00dfe", "m\u00e4nnlich"), ("Gro\u0308\u00dfe", "ma\u0308nnlich")

    def rows(name: str, *words: str) -> dict[str, list[Any]]:
        return plain() | {
            name: [(*words, "divers")[i % (len(words) + 1)] for i in range(ROWS)],
            "y": [(*words, "nein")[i % (len(words) + 1)] for i in range(ROWS)],
        }

    composed, apart, both = (
        save(tmp_path / f"{name}.csv", columns)
        for name, columns in (
            ("a", rows(one[0], one[1])),
            ("b", rows(two[0], two[1])),
            ("c", rows(one[0], one[1], two[1])),
        )
    )
    contract = contract_of(prepare(csv(composed, "y")))
    found, wanted = contract.encode(apart), contract.encode(composed)
    assert found.inputs.equal(wanted.inputs) and not [n for n in found.notes if n.startswith("unseen")]
    assert found.targets is not None and wanted.targets is not None and found.targets.equal(wanted.targets)
    raw = csv(both, "y")
    assert raw.class_names == tuple(sorted((one[1], "nein")))
    assert (
        f"{one[0]}={one[1]}" in encoded(raw).feature_names
        and f"{one[0]}={two[1]}" not in encoded(raw).feature_names
    )


def test_columns_without_a_name_and_with_the_same_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"two columns named 'x' .columns 1, 3.; give each its own name"):
        csv(save(tmp_path / "t.csv", {"x": [1], "y": [2], " x": [3]}), "y")
    columns = {"": [f"r{i}" for i in range(ROWS)], **plain()}
    raw = csv(save(tmp_path / "u.csv", columns), "y")
    assert "left out: column_1 (identifier)" in raw.notes[0]
    # write.table of R leaves out the name of the row names
    text = (tmp_path / "u.csv").read_text().removeprefix(",")
    (tmp_path / "r.csv").write_text(text)
    assert encoded(csv(str(tmp_path / "r.csv"), "y")).inputs.equal(encoded(raw).inputs)


def test_a_file_without_a_header_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the first line seems to hold values, and must name the columns"):
        csv(save(tmp_path / "t.csv", {"5.1": [1, 2], "0": [0, 1]}), "y")


# Numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "separator", "expected"),
    [
        (["1,5", "-0,25", "1.234,5", "2.000", "7"], ";", [1.5, -0.25, 1234.5, 2000, 7]),
        (['"1,234"', '"1,345,678.5"', "7", "0.5", "-1e3"], ",", [1234, 1345678.5, 7, 0.5, -1000]),
        (["1 234", "1 345 678.5", "7", "0.5", "3"], ",", [1234, 1345678.5, 7, 0.5, 3]),
        (["1'234", "7'000.5", "7", "0.5", "3"], ",", [1234, 7000.5, 7, 0.5, 3]),
    ],
)
def test_decimal_commas_and_grouped_digits(
    tmp_path: Path, texts: list[str], separator: str, expected: list[float]
) -> None:
    columns = {"x": texts * 4, "y": ["a", "b"] * 10}
    raw = csv(save(tmp_path / "t.csv", columns, separator=separator), "y")
    assert encoded(raw).inputs[:5, 0].tolist() == expected
    assert ("decimal comma" in raw.notes[0]) == (separator == ";")


def test_a_comma_that_may_mean_two_things_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    path = save(tmp_path / "t.csv", {"x": ["1,234", "2,500"] * 10, "y": ["a", "b"] * 10}, separator=";")
    with pytest.raises(
        DataError, match="'1,234', which may mean 1.234 or 1234; set dataset.decimal=comma or "
    ):
        csv(path, "y")
    assert encoded(csv(path, "y", decimal="comma")).inputs[0].item() == pytest.approx(1.234)
    assert encoded(csv(path, "y", decimal="point")).inputs[0].item() == 1234
    both = {"x": ["1,5", "1,234,567"] * 10, "y": ["a", "b"] * 10}
    with pytest.raises(
        DataError, match="column 'x' of .* has '1,5' and '1,234,567': one of them .*\n.*drop=\\[x\\]"
    ):
        csv(save(tmp_path / "both.csv", both, separator=";"), "y")


@pytest.mark.parametrize(
    "word", ["", "-", "--", ".", "none", "None", "#N/A", "NA", "nan", "NaN", "?", "null", " NA ", "<NA>"]
)
def test_words_for_missing_values(tmp_path: Path, word: str) -> None:
    """One among numbers is a missing number: the training median, and an indicator."""
    columns = plain() | {"age": [20 + i % 9 for i in range(ROWS)]}
    columns["age"][7] = word
    result = encoded(csv(save(tmp_path / "t.csv", columns), "y"))
    found = dict(zip(result.feature_names, result.inputs.T, strict=True))
    present = [value for i, value in enumerate(columns["age"]) if i != 7]
    assert found["age"][7] == np.median(present)
    assert found["age=(missing)"].tolist() == [float(i == 7) for i in range(ROWS)]
    assert len(result.feature_names) == 6


def test_an_odd_value_is_named_with_row_text_and_the_ways_out(tmp_path: Path) -> None:
    columns = plain() | {"age": [20 + i % 9 for i in range(ROWS)]}
    columns["age"][7] = "unsure"
    path = save(tmp_path / "t.csv", columns)
    with pytest.raises(DataError, match="column 'age' holds numbers, but 'unsure' in row 8 of ") as error:
        csv(path, "y")
    for cure in ("missing_words=[unsure]", "categorical=[age]", "drop=[age]"):
        assert f"dataset.{cure}" in str(error.value)
    assert len(str(error.value).splitlines()) <= 3
    assert "age=(missing)" in encoded(csv(path, "y", missing_words=["unsure"])).feature_names
    assert "age=unsure" in encoded(csv(path, "y", categorical=["age"])).feature_names
    assert "age" not in encoded(csv(path, "y", drop=["age"])).feature_names


def test_a_long_odd_value_is_shown_in_part(tmp_path: Path) -> None:
    columns = plain() | {"age": [20 + i % 9 for i in range(ROWS)]}
    columns["age"][7] = '"' + "a line\n" * 50 + '"'
    with pytest.raises(DataError, match="'a line.na line.n.*…' in row 8") as error:
        csv(save(tmp_path / "t.csv", columns), "y")
    assert len(str(error.value).splitlines()) == 2
    assert "missing_words" not in str(error.value)


def test_cures_are_typed_as_a_shell_and_hydra_take_them() -> None:
    import shlex

    from hydra.core.override_parser.overrides_parser import OverridesParser

    from dltrain.data.tables.cures import typed

    names = [
        "true",
        "False",
        "inf",
        "nan",
        "null",
        "plain",
        "two words",
        'a "quoted"',
        "it's",
        "a,b",
        "-9",
        "x=1",
        "50 %",
        "Größe",
    ]
    for chosen in (names[:1], *([name] for name in names), names):
        (argument,) = shlex.split(typed("drop", chosen))
        (override,) = OverridesParser.create().parse_overrides([argument])
        assert override.value() == chosen


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_rows_that_repeat_the_header_are_left_out_and_named(tmp_path: Path, mark: str) -> None:
    """The cure printed for two joined exports turned the second header line into a class."""
    path = tmp_path / "t.csv"
    header, *rows = Path(save(path, plain(), ";")).read_text().splitlines()
    joined = [header, *rows[:20], mark + header, *rows[20:], header]
    path.write_text("\n".join(joined) + "\n")
    raw = csv(str(path), "y")
    truth = csv(save(tmp_path / "one.csv", plain()), "y")
    assert encoded(raw).inputs.equal(encoded(truth).inputs) and raw.targets.equal(truth.targets)
    assert raw.class_names == ("no", "yes")
    told = "header   2 rows repeat the names of the columns, and are left out: row 21 (line 22), 42 (line 43) of t.csv"
    assert told in raw.notes
    assert raw.describe(20) == f"row 22 of {path}"
    contract = contract_of(prepare(truth))
    found = contract.encode(path)
    assert found.inputs.equal(contract.encode(tmp_path / "one.csv").inputs)
    assert [number for number, _ in found.broken] == [21, 42]
    # a column may hold its own name
    columns = plain() | {"kind": ["kind", "b"] * 20}
    assert len(csv(save(path, columns), "y")) == ROWS
    path.write_text(f"{header}\n{header}\n")
    with pytest.raises(DataError, match="holds no row below its header"):
        csv(str(path), "y")


@pytest.mark.parametrize("word", ["-inf", "Infinity", "Inf", "1e999"])
def test_infinite_numbers_are_refused_with_cures_that_work(tmp_path: Path, word: str) -> None:
    columns = plain() | {"logged": [word if i % 9 == 4 else i * 0.5 for i in range(ROWS)]}
    path = save(tmp_path / "t.csv", columns)
    value = "-inf" if word == "-inf" else "inf"
    with pytest.raises(DataError, match=rf"'logged' has {value} in row 5 of .*\(and 3 more\)") as error:
        csv(path, "y")
    cure = f"call it missing: 'dataset.missing_words=[\"{value}\"]', or leave the column out: dataset.drop=[logged]"
    assert str(error.value).endswith(cure)
    raw = csv(path, "y", missing_words=[value])
    found = dict(zip(encoded(raw).feature_names, encoded(raw).inputs.T, strict=True))
    assert found["logged=(missing)"].tolist() == [float(i % 9 == 4) for i in range(ROWS)]
    assert len(csv(path, "logged", missing_words=[value])) == ROWS - 4
    # of another file, too
    contract = contract_of(prepare(raw))
    assert contract.encode(path, targets=False).inputs.isfinite().all()
    finite = contract_of(
        prepare(csv(save(tmp_path / "f.csv", columns | {"logged": [i / 2 for i in range(ROWS)]}), "y"))
    )
    with pytest.raises(DataError, match="missing_words"):
        finite.encode(path, targets=False)


def test_the_words_by_which_a_target_is_missing_are_named_and_may_be_classes(tmp_path: Path) -> None:
    columns = plain() | {
        "y": [("EU", "NA", "AS", "na")[i % 4] for i in range(ROWS)],
        "land": ["NA", "DE"] * 20,
    }
    path = save(tmp_path / "t.csv", columns)
    told = "20 rows without a target left out: 'NA' (10), 'na' (10); for classes, dataset.not_missing=[NA,na]"
    assert any(note.endswith(told) for note in csv(path, "y").notes)
    raw = csv(path, "y", not_missing=["NA"])
    # names that differ in case are one class
    assert raw.class_names == ("AS", "EU", "NA") and len(raw) == ROWS
    assert "land=NA" in encoded(raw).feature_names
    contract = contract_of(prepare(raw))
    again = Contract.from_json(contract.to_json())
    assert again.encode(path).targets is not None and len(again.encode(path).inputs) == ROWS
    # among numbers they stay words for a missing value
    columns["age"] = ["NA" if i % 7 == 3 else str(i) for i in range(ROWS)]
    assert (
        "age=(missing)"
        in encoded(csv(save(tmp_path / "t.csv", columns), "y", not_missing=["NA"])).feature_names
    )
    for word, what in (("EU", "'EU', which is a value anyway"), ("", "an empty text")):
        with pytest.raises(DataError, match=f"dataset.not_missing names {what}"):
            csv(path, "y", not_missing=[word])
    assert any(
        "'null', a value by dataset.not_missing" in n for n in csv(path, "y", not_missing=["null"]).notes
    )


def test_one_word_in_many_rows_or_half_text_is_a_category(tmp_path: Path) -> None:
    columns = plain() | {"ticket": [("A/5", "113", "7", "C1")[i % 4] for i in range(ROWS)]}
    assert "ticket=A/5" in encoded(csv(save(tmp_path / "t.csv", columns), "y")).feature_names


@pytest.mark.parametrize("start", [1.7e9, 2010.0, 1e15])
def test_offsets_are_exact(tmp_path: Path, start: float) -> None:
    """Steps far below float32's resolution at `start` stay apart."""
    steps = np.random.default_rng(1).permutation(ROWS) / 8
    columns = plain() | {"t": [repr(float(start + step)) for step in steps]}
    result = encoded(csv(save(tmp_path / "t.csv", columns), "y"))
    found = result.inputs[:, result.feature_names.index("t")].double()
    exact = torch.from_numpy(steps - steps.mean())
    assert torch.allclose(found, exact, rtol=0, atol=1e-5 if start < 1e12 else 0.07)


def test_plain_numbers_are_not_shifted(tmp_path: Path) -> None:
    result = encoded(
        csv(save(tmp_path / "t.csv", plain() | {"z": [1000 + 50 * (i % 4) for i in range(ROWS)]}), "y")
    )
    assert result.inputs[:2, result.feature_names.index("z")].tolist() == [1000, 1050]


# Dates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    ["%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%b %d %Y", "%d-%b-%Y", "%Y-%m-%d %H:%M:%S",
     "%Y-%m-%dT%H:%M:%SZ", "%m/%d/%Y %H:%M"],
)  # fmt: skip
def test_dates_become_year_month_weekday_and_hour(tmp_path: Path, form: str) -> None:
    generator = np.random.default_rng(2)
    hours = 24 if "%H" in form else 1
    days = [
        datetime(int(y), int(m), int(d), int(h))
        for y, m, d, h in zip(
            generator.integers(1990, 2020, ROWS), generator.integers(1, 13, ROWS),
            generator.integers(1, 29, ROWS), generator.integers(0, hours, ROWS), strict=True,
        )
    ]  # fmt: skip
    result = encoded(csv(save(tmp_path / "t.csv", plain() | {"sold": [d.strftime(form) for d in days]}), "y"))
    found = dict(zip(result.feature_names, result.inputs.T.double(), strict=True))
    assert found["sold month"].tolist() == [d.month for d in days]
    assert found["sold weekday"].tolist() == [d.weekday() for d in days]
    assert ("sold hour" in found) == ("%H" in form)
    years = [
        d.year + (d - datetime(d.year, 1, 1)) / (datetime(d.year + 1, 1, 1) - datetime(d.year, 1, 1))
        for d in days
    ]
    assert torch.allclose(
        found["sold year"], torch.tensor(years, dtype=torch.float64) - np.mean(years), atol=1e-5
    )


def test_dates_with_day_and_month_unclear_are_refused_and_can_be_told(tmp_path: Path) -> None:
    path = save(
        tmp_path / "t.csv", plain() | {"day": [f"{1 + i % 12}/{1 + i % 5}/2020" for i in range(ROWS)]}
    )
    with pytest.raises(
        DataError, match="column 'day' has '1/1/2020' in row 1 of .* the day or the month first"
    ) as error:
        csv(path, "y")
    assert len(str(error.value).splitlines()) <= 3
    for form, expected in (("%m/%d/%Y", 2), ("%d/%m/%Y", 2)):
        result = encoded(csv(path, "y", date_format=form))
        month = [1 + i % 12 for i in range(ROWS)] if form == "%m/%d/%Y" else [1 + i % 5 for i in range(ROWS)]
        assert result.inputs[:, result.feature_names.index("day month")].tolist() == month, expected
    assert "day month" not in encoded(csv(path, "y", date_format="%m/%d/%Y", dates="number")).feature_names


# What is left out --------------------------------------------------------------------------------------------------


def test_identifiers_free_text_and_empty_columns_are_left_out_and_listed(tmp_path: Path) -> None:
    columns = {
        "row": list(range(1, ROWS + 1)),
        "customer_id": [(i * 37) % 101 for i in range(ROWS)],
        "name": [f"N{i}" for i in range(ROWS)],
        "comment": [f"text {i // 2 * 2}" for i in range(ROWS - 1)] + [""],
        "nothing": [""] * ROWS,
        **plain(),
    }
    path = save(tmp_path / "t.csv", {k: v for k, v in columns.items()})
    raw = csv(path, "y", drop=["kind"])
    line = raw.notes[0]
    for gone in (
        "row (identifier)",
        "customer_id (identifier)",
        "name (identifier)",
        "nothing (empty)",
        "kind (dropped)",
    ):
        assert gone in line
    assert "comment" in line or "comment=text 0" in encoded(raw).feature_names
    assert encoded(csv(path, "y", keep=["customer_id"])).feature_names[0] == "customer_id"


def test_a_year_that_runs_is_no_identifier(tmp_path: Path) -> None:
    columns = {
        "year": list(range(1960, 1960 + ROWS)),
        "time": list(range(1, ROWS + 1)),
        "n": list(range(ROWS)),
    }
    raw = csv(save(tmp_path / "t.csv", plain() | columns), "y")
    assert encoded(raw).feature_names[-2:] == ("year", "time")
    assert raw.notes[0].endswith("left out: n (identifier)")


# Missing values and levels: the training split alone ------------------------------------------------------------------


def test_fill_values_levels_and_centers_come_from_the_training_split(tmp_path: Path) -> None:
    columns = {
        "x": [1, 2, "", 4, 100, ""],
        "kind": ["a", "b", "a", "b", "new", ""],
        "t": [1e9, 1e9 + 1, 1e9 + 2, 1e9 + 3, 2e9, 2e9],
        "part": ["train"] * 4 + ["val", "test"],
        "y": [1.5, 2.5, 3.5, 9, 80, 90],
    }
    splits = prepare(csv(save(tmp_path / "t.csv", columns), "y", split_column="part"), normalize="none")
    assert splits.contract is not None
    x, kind, t = splits.contract.columns
    assert (x.fill, x.indicator) == (2.0, True)  # the median of 1, 2 and 4
    assert kind.levels == ("a", "b")
    assert not kind.indicator
    assert t.centers == (1e9 + 1.5,)
    assert splits.spec.target_scale is not None
    assert splits.spec.target_scale.mean.item() == pytest.approx(4.125)
    assert splits.val is not None
    assert splits.test is not None
    (val,), (test,) = (next(iter(s.batches(None, 9))).inputs.tolist() for s in (splits.val, splits.test))
    assert val[:4] == [100, 0, 0, 0]  # an unseen level has its place: none of the known ones
    assert test[:4] == [2, 1, 0, 0]
    assert any("unseen" in note and "'new'" in note for note in splits.spec.notes)
    assert any(
        "missing  x: 2 of 6, filled with the training median 2 and an indicator" in n
        for n in splits.spec.notes
    )


def test_missing_rows_may_be_dropped_and_are_counted(tmp_path: Path) -> None:
    columns = plain()
    columns["x"][3], columns["kind"][5], columns["y"][8] = "NA", "", "?"
    raw = csv(save(tmp_path / "t.csv", columns), "y", missing="drop")
    assert len(raw) == ROWS - 3
    assert [raw.describe(i).split(" of ")[0] for i in (2, 3, 4, 6)] == ["row 3", "row 5", "row 7", "row 10"]
    assert "2 rows of t.csv left out: a value is missing" in notes(raw)
    assert "1 row without a target left out" in notes(raw)


def test_rows_of_a_test_file_without_a_target_are_counted(tmp_path: Path) -> None:
    columns = plain(6)
    columns["y"][1] = columns["y"][4] = "NA"
    columns["x"][4] = "NA"
    raw = csv(save(tmp_path / "t.csv", plain()), "y", test_path=save(tmp_path / "more.csv", columns))
    assert "dropped  2 rows of more.csv left out: no target: 'NA' (2)" in notes(raw).splitlines()
    assert "test     more.csv · 4 rows" in notes(raw).splitlines()


def test_a_column_without_a_value_in_the_training_split_is_refused(tmp_path: Path) -> None:
    columns = {
        "x": ["", "", 1, 2],
        "z": [1, 2, 3, 5],
        "part": ["train", "train", "val", "test"],
        "y": [1, 2.5, 3, 4],
    }
    raw = csv(save(tmp_path / "t.csv", columns), "y", split_column="part")
    with pytest.raises(
        DataError, match=r"column 'x' has no value in the training split; leave it out: dataset.drop=\[x\]"
    ):
        prepare(raw)


def test_a_separate_test_file_is_matched_by_name(tmp_path: Path) -> None:
    train = plain()
    test = dict(reversed(plain(6).items())) | {"kind": ["a", "b", "c", "new", "", "a"]}
    path, other = save(tmp_path / "t.csv", train), save(tmp_path / "u.csv", test, separator=";")
    raw = csv(path, "y", test_path=other)
    splits = prepare(raw, val_fraction=0.2, normalize="none")
    assert splits.spec.sizes == {"train": 32, "val": 8, "test": 6}
    assert splits.test is not None
    batch = next(iter(splits.test.batches(None, 9)))
    assert batch.inputs[:, 0].tolist() == pytest.approx(plain(6)["x"])
    assert batch.inputs[:, 1:4].sum(1).tolist() == [1, 1, 1, 0, 0, 1]
    assert batch.targets.tolist() == [int(v == "yes") for v in plain(6)["y"]]
    assert raw.describe(ROWS) == f"row 1 of {other}"
    renamed = {("size" if k == "x" else k): v for k, v in test.items()}
    with pytest.raises(DataError, match=r"lacks 'x' of the columns .*; it has 'size' besides"):
        csv(path, "y", test_path=save(tmp_path / "v.csv", renamed))
    with pytest.raises(DataError, match="column 'x' holds numbers, but 'big' in row 2 of .*w.csv"):
        csv(path, "y", test_path=save(tmp_path / "w.csv", test | {"x": [1, "big", 3, 4, 5, 6]}))
    with pytest.raises(DataError, match="'maybe', which is none of the classes 'no', 'yes'"):
        csv(path, "y", test_path=save(tmp_path / "z.csv", test | {"y": ["no", "maybe"] * 3}))


# Targets -----------------------------------------------------------------------------------------------------------


def target(tmp_path: Path, values: list[Any], task: str = "auto") -> RawData:
    count = len(values)
    x = np.random.default_rng(3).normal(size=count).round(3).tolist()
    return csv(save(tmp_path / "t.csv", {"x": x, "y": values}), "y", task=task)


def test_a_column_is_proposed_for_one_missing_column():
    """Found by a data scientist: one column was proposed for two."""
    told = renamed(["age_1", "age_2", "sex", "Weight (kg)"], ["age2", "weight_kg", "gender"])
    assert told == " (did you mean 'age2' for 'age_2', 'weight_kg' for 'Weight (kg)'?)"
    assert renamed(["age"], ["income"]) == ""
    assert renamed(["a b", "ab"], ["AB", "a_b"]) == " (did you mean 'AB' for 'a b', 'a_b' for 'ab'?)"


def test_very_many_columns_are_told_at_once(monkeypatch):
    """Found by a hostile tester: 20,000 columns of other names took an hour and a half before the refusal."""
    genes, others = [f"gene{k}" for k in range(100_000)], [f"Gene_{k}" for k in range(100_000)]
    compared = []
    monkeypatch.setattr(SequenceMatcher, "ratio", lambda self: compared.append(self) or 0.0)
    assert renamed(genes, others).count(" for ") == 8
    assert renamed(genes, [f"x{k}y" for k in range(100_000)]) == ""
    assert compared == []
    assert renamed(genes, ["x1", "x2"]) == ""
    assert len(compared) == 16


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (["a", " a ", "b"], "classification"),
        (["True", "False"], "classification"),
        ([3, 7], "classification"),
        ([-1, 1], "classification"),
        ([0, 1, 2], "classification"),
        ([1, 2, 3, 4], "classification"),
        (["1.0", "2.0", "3.0"], "classification"),
        ([0.5, 1.5], "regression"),
        ([0, 1, 2.5], "regression"),
        (list(range(100, 125)), "regression"),
        ([3, 4, 5, 6, 8], "ambiguous"),
        ([10, 20, 30], "ambiguous"),
        (list(range(15)), "ambiguous"),
    ],
)
def test_the_task_is_inferred_stated_or_refused(tmp_path: Path, levels: list[Any], expected: str) -> None:
    values = levels * 8
    if expected == "ambiguous":
        with pytest.raises(
            DataError, match="set dataset.task=regression or dataset.task=classification"
        ) as error:
            target(tmp_path, values)
        assert len(str(error.value).splitlines()) <= 3
        for task in ("regression", "classification"):
            assert target(tmp_path, values, task).task == task
        return
    raw = target(tmp_path, values)
    assert raw.task == expected
    assert f"y: {expected}" in raw.notes[-1]
    if " a " in levels:
        assert raw.class_names == ("a", "b")


def test_a_count_with_seldom_values_is_ambiguous(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="which may be classes or a quantity"):
        target(tmp_path, [0] * 20 + [1] * 10 + [2] * 5 + [3])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([5] * ROWS, "has the same value in every row"),
        ([2.5] * ROWS, r"has the same value in every row \(2.5\)"),
        (["a"] * ROWS, r"has the same value in every row \('a'\)"),
        ([""] * ROWS, "has no value; name another dataset.target"),
        (list(range(ROWS)), "which numbers the rows; name another dataset.target"),
        ([f"n{i}" for i in range(ROWS)], "a different text in every row"),
        ([f"2020-01-{1 + i % 28:02}" for i in range(ROWS)], "which holds dates"),
        ([1.5, 2.5, 3, 4] * 9 + [1, 2, 3, "x"], r"'x' in row 40 .*\n.*or set dataset.task=classification"),
    ],
)
def test_targets_that_cannot_be_predicted_are_refused(
    tmp_path: Path, values: list[Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        target(tmp_path, values)
    assert len(str(error.value).splitlines()) <= 3


def test_labels_may_be_words_that_stand_for_missing_numbers(tmp_path: Path) -> None:
    raw = target(tmp_path, ["none", "mild", "severe", "-"] * 5)
    assert raw.class_names == ("-", "mild", "none", "severe")
    assert len(target(tmp_path, ["", "mild", "severe", "NA"] * 5)) == 10


def test_a_regression_learns_standardized_targets_and_reports_real_units(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    columns = {
        "x": generator.normal(size=200).round(3).tolist(),
        "price": (200_000 + 60_000 * generator.normal(size=200)).round().tolist(),
        "stamp": (1.7e9 + 20 * generator.normal(size=200)).round(2).tolist(),
    }
    path = save(tmp_path / "t.csv", columns)
    splits = prepare(csv(path, ["price", "stamp"]))
    scale = splits.spec.target_scale
    assert scale is not None
    learned = splits.train.targets.double()
    assert learned.mean(0).abs().max() < 1e-6
    assert (learned.std(0, correction=0) - 1).abs().max() < 1e-6
    assert splits.test is not None
    truth = torch.tensor([columns["price"], columns["stamp"]], dtype=torch.float64).T
    found = scale.to_units(
        torch.cat([s.targets for s in (splits.train, splits.val, splits.test) if s is not None])
    )
    assert torch.allclose(found[:, 0].sort().values, truth[:, 0].sort().values, rtol=0, atol=0.05)
    assert torch.allclose(found[:, 1].sort().values, truth[:, 1].sort().values, rtol=0, atol=1e-4)
    # a model that always gives the mean: its error in units is the mean absolute deviation
    measure = in_units(lambda outputs, wanted: (outputs - wanted).abs().mean(1), splits.spec)
    errors = measure(torch.zeros_like(splits.train.targets), splits.train.targets)
    deviations = (scale.to_units(splits.train.targets) - scale.mean).abs().mean(1)
    assert torch.allclose(errors, deviations, rtol=1e-9)
    plain_splits = prepare(csv(path, "price", target_scale="none"))
    assert plain_splits.spec.target_scale is None
    assert plain_splits.train.targets.mean() > 1e5


def test_targets_of_an_earlier_run_are_standardized_as_they_were(tmp_path: Path) -> None:
    columns = {
        "x": np.random.default_rng(5).normal(size=60).tolist(),
        "y": np.random.default_rng(6).normal(size=60).tolist(),
    }
    path = save(tmp_path / "t.csv", columns)
    first = prepare(csv(path, "y"))
    again = prepare(csv(path, "y"), statistics=first.statistics(), split_seed=3)
    assert again.spec.target_scale is not None
    assert torch.equal(again.spec.target_scale.mean, first.statistics()["target_mean"])
    old = {key: first.statistics()[key] for key in ("mean", "std")}  # a run of caa09af had these alone
    assert prepare(csv(path, "y"), statistics=old).spec.target_scale is None


# The contract --------------------------------------------------------------------------------------------------------


def mixed(path: Path, **more: list[Any]) -> str:
    columns = plain() | {
        "age": [("", 20 + i)[i % 7 > 0] for i in range(ROWS)],
        "day": [f"20{10 + i % 9}-03-{1 + i % 28:02}" for i in range(ROWS)],
        "flag": [("true", "false")[i % 2] for i in range(ROWS)],
    }
    return save(path, columns | more)


def contract_of(splits: Splits) -> Contract:
    assert splits.contract is not None
    return splits.contract


def test_a_contract_comes_back_from_its_file_and_encodes_the_same_rows_alike(tmp_path: Path) -> None:
    path = mixed(tmp_path / "t.csv")
    splits = prepare(csv(path, "y"), normalize="none", val_fraction=0, test_fraction=0)
    contract = contract_of(splits)
    again = Contract.from_json(contract.to_json())
    assert again == contract
    assert [rule.name for rule in contract.columns] == ["x", "kind", "age", "day", "flag"]
    rows = again.encode(path)
    whole = next(iter(splits.train.batches(None, 99)))
    assert torch.equal(rows.inputs, whole.inputs)
    assert rows.targets is not None
    assert torch.equal(rows.targets, whole.targets)


def test_other_files_are_held_to_the_contract(tmp_path: Path) -> None:
    contract = contract_of(prepare(csv(mixed(tmp_path / "t.csv"), "y")))
    other = tmp_path / "u.csv"
    rows = contract.encode(mixed(other, kind=["new"] * ROWS))
    assert rows.inputs[:, 1:4].sum() == 0
    assert any("'new'" in note for note in rows.notes)
    text = other.read_text()
    other.write_text(text.replace("kind", "sort", 1))
    with pytest.raises(DataError, match="lacks 'kind' of the columns .*; it has 'sort' besides"):
        contract.encode(other)
    with pytest.raises(DataError, match="'perhaps', which is none of the classes"):
        contract.encode(mixed(other, y=["no", "perhaps"] * (ROWS // 2)))
    with pytest.raises(DataError, match="column 'day' holds dates .iso., but 'soon' in row 1"):
        contract.encode(mixed(other, day=["soon"] * ROWS))
    mixed(other)
    without = "\n".join(
        ",".join(v for i, v in enumerate(line.split(",")) if i != 2)
        for line in other.read_text().splitlines()
    )
    other.write_text(without)
    assert contract.encode(other, targets=False).inputs.shape[0] == ROWS
    with pytest.raises(DataError, match="lacks 'y'"):
        contract.encode(other)


def test_a_damaged_or_later_contract_is_refused() -> None:
    for text, message in (
        ("{", "damaged"),
        ("{}", "damaged"),
        ('{"format": 9}', "format 9, and this dltrain reads up to 1"),
    ):
        with pytest.raises(DataError, match=message):
            Contract.from_json(text)


def test_a_run_is_not_recoded_without_a_word(tmp_path: Path) -> None:
    """Other levels or classes under the statistics of a run are refused; before, classes were numbered again."""
    saved = prepare(csv(mixed(tmp_path / "t.csv"), "y")).statistics()
    prepare(csv(mixed(tmp_path / "t.csv"), "y"), statistics=saved)
    renamed = {"y": [value.replace("no", "zero") for value in plain()["y"]]}
    for more in (renamed, {"kind": [("a", "b", "d")[i % 3] for i in range(ROWS)]}):
        with pytest.raises(DataError, match="other columns, levels or classes than the run was trained on"):
            prepare(csv(mixed(tmp_path / "u.csv", **more), "y"), statistics=saved)
    old = {key: saved[key] for key in ("mean", "std")}
    with pytest.raises(
        DataError, match="made by an earlier dltrain, which encoded 'age', 'day', 'flag' differently"
    ):
        prepare(csv(mixed(tmp_path / "t.csv"), "y"), statistics=old)


def test_a_word_that_a_file_calls_missing_recodes_no_level_of_the_training(tmp_path: Path) -> None:
    """Found by a data scientist: a printed cure for one number changed the predictions of all other rows."""
    splits = prepare(
        csv(save(tmp_path / "t.csv", plain()), "y"), normalize="none", val_fraction=0, test_fraction=0
    )
    contract = contract_of(splits)
    rows = plain(9) | {"kind": list("abcabcabc")}
    wanted = contract.encode(Path(save(tmp_path / "u.csv", rows)))
    odd = rows | {"x": [*rows["x"][:8], "b"]}
    found = contract.encode_table(read(Path(save(tmp_path / "v.csv", odd)), "auto"), missing_words=["b"])
    assert found.inputs[:8].equal(wanted.inputs[:8]) and len(found.inputs) == 9
    assert any("'b': a value of the training in columns of text" in note for note in found.notes)


def decimal_contract(tmp_path: Path) -> Contract:
    rows = {
        "amount": [f"{i},{i % 1000:03}" for i in range(1, 81)],
        "x": [f"0,{i}" for i in range(1, 81)],
        "y": list("ab" * 40),
    }
    return contract_of(
        prepare(
            csv(save(tmp_path / "t.csv", rows, ";"), "y"), normalize="none", val_fraction=0, test_fraction=0
        )
    )


def test_the_decimal_mark_of_the_training_is_kept_whatever_stands_in_a_small_file(tmp_path: Path) -> None:
    """Found by a data scientist: beside one odd text, `1,234` was read as 1234 without a word."""
    contract = decimal_contract(tmp_path)
    rows = {"amount": ["1,234", "2,468", "abc", "13,51"], "x": ["0,5", "0,1", "0,25", "0,7"]}
    found = contract.encode_table(
        read(Path(save(tmp_path / "u.csv", rows, ";")), "auto"), False, tolerant=True
    )
    assert found.inputs[:, 0].tolist() == pytest.approx([1.234, 2.468, 13.51])
    rows["amount"][3] = "17.25"
    table = read(Path(save(tmp_path / "v.csv", rows, ";")), "auto")
    with pytest.raises(DataError, match="dataset.decimal=comma, or dataset.decimal=point"):
        contract.encode_table(table, False, tolerant=True)
    found = contract.encode_table(table, False, decimal="comma", tolerant=True)
    assert found.inputs[:, 0].tolist() == pytest.approx([1.234, 2.468])


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_decimal_commas_in_every_column_are_no_separators(tmp_path: Path, mark: str) -> None:
    """Found by a data scientist: n columns have n commas a row, and n − 1 separators."""
    rows = {f"c{k}": [f"{i},{k}5" for i in range(60)] for k in range(3)}
    table = read(Path(save(tmp_path / "t.csv", rows, mark)), "auto")
    assert list(table.columns) == ["c0", "c1", "c2"] and len(table) == 60


def test_rules_name_their_features() -> None:
    from dltrain.data.tables.rules import Format

    assert Rule("c", Format("category"), ("a", "b"), indicator=True).features == ["c=a", "c=b", "c=(missing)"]
    assert Rule("d", Format("date"), parts=("year", "hour"), centers=(1.0, 0.0)).features == [
        "d year",
        "d hour",
    ]


# Cost ------------------------------------------------------------------------------------------------------------------


def test_reading_takes_no_step_of_python_for_each_row(tmp_path: Path) -> None:
    """Calls are counted, not timed: ten times the rows, of all kinds and with holes, take the same calls but for a few."""
    import cProfile
    import pstats

    def calls(rows: int) -> int:
        generator = np.random.default_rng(7)
        numbers = generator.normal(size=rows).round(4).tolist()
        columns = {
            "a": numbers,
            "hole": [("NA", v)[i % 9 > 0] for i, v in enumerate(numbers)],
            "day": [f"20{10 + i % 9}-03-{1 + i % 28:02}" for i in range(rows)],
            "kind": [("u", "v")[i % 2] for i in range(rows)],
            "y": numbers[::-1],
        }
        path = save(tmp_path / "t.csv", columns)
        profile = cProfile.Profile()
        profile.enable()
        prepare(csv(path, "y"))
        profile.disable()
        return pstats.Stats(profile).total_calls  # type: ignore[attr-defined]

    calls(200)  # imports
    few, many = calls(2_000), calls(20_000)
    assert many < few + 2_000


def test_a_column_whose_holes_tell_the_class_is_named(tmp_path: Path) -> None:
    """A date of cancellation is filled where a customer has left: accuracy 1.0, and nothing said."""
    draws = np.random.default_rng(0)
    left = draws.random(400) < 0.1
    when = [
        f"2024-{m:02}-11" if gone else "" for m, gone in zip(draws.integers(1, 13, 400), left, strict=True)
    ]
    often = [
        str(v) if hole else ""
        for v, hole in zip(draws.normal(size=400), draws.random(400) < 0.3, strict=True)
    ]
    columns = plain(400) | {"cancelled": when, "often": often, "y": np.where(left, "yes", "no")}
    said = notes(csv(save(tmp_path / "t.csv", columns), "y"))
    cure = "if it is known only after the target, leave it out: dataset.drop=[cancelled]"
    assert f"alone    cancelled: filled in rows of one value of y only; {cure}" in said
    assert "often: " not in said.partition("missing  often")[0]


def test_columns_of_one_value_are_named_and_cannot_be_all(tmp_path: Path) -> None:
    """Their weights kept the initial values, so that another value in a later file moved the predictions at random."""
    columns = plain() | {"same": [5] * ROWS, "also": ["x"] * ROWS}
    path = save(tmp_path / "t.csv", columns)
    raw = csv(path, "y")
    assert "left out: same (constant), also (constant)" in notes(raw)
    assert not {"same", "also"} & {column.name for column in raw.inputs.columns}  # type: ignore[union-attr]
    assert "constant same · the same value in every row" in notes(csv(path, "y", keep=["same"]))
    with pytest.raises(DataError, match=r"every feature of .* has the same value in every row \(same\)"):
        csv(path, "y", features=["same"])
    assert "constant" not in notes(csv(save(tmp_path / "u.csv", plain()), "y"))
    with pytest.raises(DataError, match=r"every feature of .*v.csv has the same value in every row \(a, b\)"):
        csv(save(tmp_path / "v.csv", {"a": [1] * 40, "b": [2] * 40, "y": ["p", "q"] * 20}), "y")


def test_classes_that_look_alike_are_named(tmp_path: Path) -> None:
    raw = csv(save(tmp_path / "t.csv", {"a": list(range(0, 80, 2)), "y": ["a b", "a  b"] * 20}), "y")
    assert "2 classes ('a  b' and 'a b' are two of them)" in notes(raw)


def test_classes_that_differ_in_case_are_one_unless_they_are_kept_apart(tmp_path: Path) -> None:
    """A stray Yes, YES, no and NO made six classes of two."""
    words = ["yes", "no", " Yes ", "No", "YES", "no", "yes", "no", "yes", "no"] * 4
    path = save(tmp_path / "t.csv", {"a": list(range(0, 80, 2)), "y": words})
    raw = csv(path, "y")
    assert raw.class_names == ("no", "yes")
    assert raw.targets.tolist() == [int(word.strip().lower() == "yes") for word in words]
    told = (
        "2 classes · 'No' (4) counts as 'no', 'YES' (4) counts as 'yes', 'Yes' (4) counts as 'yes'; to keep"
    )
    assert f"{told} them apart: dataset.merge_case=false" in notes(raw)
    apart = csv(path, "y", merge_case=False)
    assert apart.class_names == ("No", "YES", "Yes", "no", "yes") and "('YES' and 'Yes' are" in notes(apart)
    contract = contract_of(prepare(raw))
    upper = save(tmp_path / "u.csv", {"a": list(range(0, 80, 2)), "y": [w.upper() for w in words]})
    other = csv(upper, "y", contract=contract)
    assert torch.equal(other.targets, raw.targets)
    told = "classes  y: 'NO' counts as 'no', 'YES' counts as 'yes', as in the training"
    assert told in other.notes
    assert torch.equal(contract.encode(upper).targets, raw.targets)
    with pytest.raises(DataError, match="'NO', which is none of the classes"):
        csv(upper, "y", contract=replace(contract, class_names=("No", "no", "yes")))


def test_unseen_levels_are_counted_with_the_ones_that_they_may_be(tmp_path: Path) -> None:
    columns = {"a": list(range(40)), "plan": ["basic", "pro plus"] * 20, "zip": ["01067", "80331"] * 20}
    path = save(tmp_path / "t.csv", columns | {"y": [1.5, 2.5] * 20})
    contract = contract_of(prepare(csv(path, "y")))
    plans, zips = ["Basic", "proplus", "new", "basic"] * 10, ["1067", "80331"] * 20
    other = save(tmp_path / "u.csv", columns | {"plan": plans, "zip": zips})
    told = contract.encode(other, targets=False).notes
    assert (
        "unseen   plan: 3 levels in 30 of 40 rows are not in the training split and count as none: 'Basic' (differs in case only from "
        "'basic'), 'new', 'proplus' (differs in blanks only from 'pro plus')"
    ) in told
    assert (
        "unseen   zip: 1 level in 20 of 40 rows is not in the training split and counts as none: '1067' (differs in leading zeros only "
        "from '01067')"
    ) in told
    other = save(tmp_path / "v.csv", columns | {"plan": ["BASIC", ""] * 20})
    assert (
        "foreign  plan: no value of it is in the training split, so that all 20 rows with one count as none: 'BASIC' (differs in case "
        "only from 'basic')"
    ) in contract.encode(other, targets=False).notes


@pytest.mark.parametrize(
    "words", [("no", "yes"), ("No", "YES"), ("0", "1"), ("FALSE", "True"), ("f", "t"), (0, 1), (0.0, 1.0)]
)
def test_truths_of_another_file_may_be_written_otherwise(tmp_path: Path, words: tuple[Any, Any]) -> None:
    """Features and targets that were true and false, and those that were yes and no."""

    def columns(no: object, yes: object) -> dict[str, list[object]]:
        return {"a": list(range(40)), "b": [no, yes] * 20, "y": [no, no, yes, yes] * 10}

    for former in (("false", "true"), ("no", "yes")):
        path = save(tmp_path / "t.csv", columns(*former))
        splits = prepare(csv(path, "y"), normalize="none")
        other = csv(save(tmp_path / "u.csv", columns(*words)), "y", contract=contract_of(splits))
        assert other.targets.tolist() == [0, 0, 1, 1] * 10
        inputs = contract_of(splits).encode(save(tmp_path / "u.csv", columns(*words))).inputs
        assert torch.equal(inputs, contract_of(splits).encode(path).inputs)


def test_another_coding_of_truths_is_refused_once(tmp_path: Path) -> None:
    columns = {"a": list(range(40)), "b": ["true", "false"] * 20, "y": [1.5, 2.5] * 20}
    contract = contract_of(prepare(csv(save(tmp_path / "t.csv", columns), "y")))
    other = Path(save(tmp_path / "u.csv", columns | {"b": ["A", "B", "true", "false"] * 10}))
    with pytest.raises(DataError, match=r"(?s)'b' of .*'A', 'B' in 20 of 40 rows here;.write true and false"):
        contract.encode_table(read(other, "auto"), False, tolerant=True)
    slip = Path(save(tmp_path / "v.csv", columns | {"b": ["maybe", "no", *["Yes", "off"] * 19]}))
    rows = contract.encode_table(read(slip, "auto"), False, tolerant=True)
    assert rows.broken == ((1, "column 'b' holds true and false, but 'maybe'"),) and len(rows.inputs) == 39
    assert "truth    v.csv: b has 'no' for false, 'Yes' for true, 'off' for false" in rows.notes


def test_codes_with_leading_zeros_are_classes_and_levels_of_their_own(tmp_path: Path) -> None:
    """007 and 7 are two codes; as numbers they would be one."""
    rows = "".join(f"{i},{('007', '7', '12')[i % 3]},{('007', '7')[i % 2]}\n" for i in range(60))
    (tmp_path / "t.csv").write_text("x,t,c\n" + rows)
    raw = csv(str(tmp_path / "t.csv"), target="t", task="classification", categorical=["c"])
    assert raw.class_names == ("007", "12", "7")
    assert [raw.class_names[code] for code in raw.targets[:3]] == ["007", "7", "12"]
    plain = "".join(f"{i % 9}.5,{(1, 2.0)[i % 2]}\n" for i in range(60))
    (tmp_path / "p.csv").write_text("x,t\n" + plain)
    assert csv(str(tmp_path / "p.csv"), target="t").class_names == ("1", "2")


def test_the_file_of_the_training_is_no_test_file(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,t\n" + "".join(f"{i % 9}.5,{'ab'[i % 2]}\n" for i in range(60)))
    (tmp_path / "link.csv").symlink_to(tmp_path / "t.csv")
    for name in ("t.csv", "link.csv"):
        with pytest.raises(
            DataError, match="the training file.*name another file, or leave dataset.test_path out"
        ):
            csv(str(tmp_path / "t.csv"), target="t", test_path=str(tmp_path / name))
