"""What the values of a column tell of it: identifiers, decimal marks, percents, codes, dates of digits, stray texts."""

from __future__ import annotations

import json
import re
import shlex
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from test_tables import contract_of, encoded, plain, save

from dltrain.data.contract import Contract
from dltrain.data.errors import DataError
from dltrain.data.prepare import prepare
from dltrain.data.raw import RawData
from dltrain.data.table import csv
from dltrain.data.tables.cures import call_missing, unfit_cure
from dltrain.data.tables.identifiers import is_identifier
from dltrain.data.tables.reading import Reading
from dltrain.data.tables.rules import Format

ROWS = 200


def table(path: Path, separator: str = ",", **columns: list[Any]) -> str:
    return save(path / "t.csv", plain(ROWS) | columns, separator)


def names(raw: RawData) -> list[str]:
    return [column.name for column in raw.inputs.columns]  # type: ignore[union-attr]


# Identifiers --------------------------------------------------------------------------------------------------------

DRAW = np.random.default_rng(4)
IDENTIFIERS = {
    "consecutive": np.arange(ROWS) + 50_000,
    "falling": 70_000 - np.arange(ROWS),
    "permutation": DRAW.permutation(ROWS) + 1000,
    "one in forty, in any order": DRAW.choice(100_000, 2500, replace=False),
    "two rows twice": np.append(np.arange(ROWS) + 50_000, [50_003, 50_009]),
    "rising with gaps": np.cumsum(DRAW.integers(1, 120, ROWS)),
}
MEANINGFUL = {
    "different prices": DRAW.choice(np.arange(90_000, 900_000), ROWS, replace=False),
    "sorted prices": np.sort(DRAW.choice(np.arange(90_000, 900_000), ROWS, replace=False)),
    "percents": DRAW.integers(0, 100, 2000),
    "counts": DRAW.poisson(300, ROWS),
    "seconds since 1970": 1_700_000_000 + 60 * np.arange(2000),
    "fractions": np.arange(ROWS) / 4,
    "too few rows": np.arange(50) + 300,
}


@pytest.mark.parametrize("values", IDENTIFIERS.values(), ids=IDENTIFIERS)
def test_numbers_that_name_rows_are_identifiers_whatever_their_name(values: Any) -> None:
    assert is_identifier("rechnung", values.astype(float))


@pytest.mark.parametrize("values", MEANINGFUL.values(), ids=MEANINGFUL)
def test_numbers_with_a_meaning_are_kept(values: Any) -> None:
    assert not is_identifier("amount", values.astype(float))


def test_no_column_of_the_bundled_tables_is_an_identifier() -> None:
    from sklearn import datasets

    for name in ("iris", "wine", "breast_cancer", "diabetes"):
        found = getattr(datasets, f"load_{name}")()
        assert not any(map(is_identifier, found.feature_names, found.data.T.astype(float)))


def test_times_and_small_numbered_columns_by_name() -> None:
    count = np.arange(ROWS) + 1900.0
    assert not is_identifier("year", count) and not is_identifier("timestamp", count)
    few = np.array([4.0, 17, 2, 300, 41, 8, 90, 77, 5, 61, 33])
    assert (
        is_identifier("KundenNr", few) and is_identifier("account no", few) and not is_identifier("age", few)
    )


def test_identifiers_are_listed_and_kept_on_demand(tmp_path: Path) -> None:
    amounts = DRAW.choice(np.arange(90_000, 900_000), ROWS, replace=False).tolist()
    path = table(tmp_path, rechnung=list(range(500, 500 + ROWS)), amount=amounts)
    raw = csv(path, "y")
    assert names(raw) == ["x", "kind", "amount"] and raw.left_out == {"rechnung": "identifier"}
    assert "left out: rechnung (identifier)" in raw.notes[0]
    assert any(note.startswith("numbers  all different: amount;") for note in raw.notes)
    assert "rechnung" in names(csv(path, "y", keep=["rechnung"]))
    assert not any("all different" in note for note in csv(path, "y", keep=["amount"]).notes)


def test_sentences_are_text_and_every_column_left_out_is_in_the_contract(tmp_path: Path) -> None:
    more = {f"e{i}": [""] * ROWS for i in range(25)}
    path = table(tmp_path, text=[f"customer {i} complained about food" for i in range(ROWS)], **more)
    raw = csv(path, "y")
    assert raw.left_out["text"] == f"text, {ROWS} different values"
    assert raw.notes[0].endswith("… (6 more); all: left_out in data.json")
    contract = prepare(raw).contract
    assert contract is not None and Contract.from_json(contract.to_json()).left_out == raw.left_out
    assert len(contract.left_out) == 26


# Forms of numbers ---------------------------------------------------------------------------------------------------


def test_each_column_has_its_own_decimal_mark(tmp_path: Path) -> None:
    euros = [f"{i % 9}.{i % 7}00,{i % 10}5" for i in range(ROWS)]
    path = table(
        tmp_path, ";", z=["0.125", "2.5"] * (ROWS // 2), eur=euros, whole=["1.234", "7"] * (ROWS // 2)
    )
    raw = csv(path, "y")
    inputs = dict(zip(encoded(raw).feature_names, encoded(raw).inputs.T.tolist(), strict=True))
    assert inputs["z"][:2] == [0.125, 2.5] and inputs["eur"][:2] == pytest.approx([0.05, 1100.15])
    # which alone may be both: the mark of the other columns
    assert inputs["whole"][:2] == [1234, 7]
    assert "decimal comma · decimal point: x, z" in raw.notes[0]


def test_percents_are_numbers_and_other_files_are_held_to_them(tmp_path: Path) -> None:
    raw = csv(table(tmp_path, pct=[f"{i % 90}{' ' * (i % 2)}%" for i in range(ROWS)]), "y")
    assert encoded(raw).inputs[:3, -1].tolist() == [0, 1, 2] and "percent: pct" in raw.notes[0]
    contract = prepare(raw).contract
    assert contract is not None
    wrong = save(tmp_path / "o.csv", plain(3) | {"pct": ["0.12", "0.3", "1"]})
    with pytest.raises(DataError, match="column 'pct' holds percents such as 12%, but '0.12' in row 1"):
        contract.encode(wrong)
    mixed = [f"{i % 90}%" for i in range(ROWS - 2)] + ["0.3", "0.4"]
    with pytest.raises(DataError, match="column 'pct' holds percents such as 12%, but '0.3'"):
        csv(table(tmp_path, pct=mixed), "y")


def test_digits_with_leading_zeros_are_codes(tmp_path: Path) -> None:
    raw = csv(table(tmp_path, plz=["01067", "80331"] * (ROWS // 2), hour=["08", "11"] * (ROWS // 2)), "y")
    assert encoded(raw).feature_names[-3:] == ("plz=01067", "plz=80331", "hour")
    raw = csv(table(tmp_path, plz=[f"0{i % 150:04d}" for i in range(ROWS)]), "y")
    assert raw.left_out == {"plz": "code, 150 different values"}
    assert (
        "plz=00007"
        in encoded(
            csv(table(tmp_path, plz=[f"0{i % 150:04d}" for i in range(ROWS)]), "y", keep=["plz"])
        ).feature_names
    )


def test_dates_of_digits_are_dates(tmp_path: Path) -> None:
    days = [20200101 + 100 * (i % 12) + i % 28 for i in range(ROWS)]
    raw = csv(table(tmp_path, day=days), "y")
    assert "dates as 20240131: day" in raw.notes[0] and "day month" in encoded(raw).feature_names
    contract = prepare(raw).contract
    assert contract is not None
    other = save(tmp_path / "o.csv", plain(3) | {"day": [20200215, "", 20200301]})
    assert contract.encode(other).inputs.shape[0] == 3
    # 31 February is none
    assert csv(table(tmp_path, day=[*days[1:], 20200231]), "y").notes[0].count("dates") == 0


# Stray texts --------------------------------------------------------------------------------------------------------


def test_the_cure_for_stray_texts_holds_all_of_them_and_the_words_given(tmp_path: Path) -> None:
    age = [20 + i % 150 for i in range(ROWS)]
    size = [i / 7 for i in range(ROWS)]
    path = table(tmp_path, age=[*age[2:], "ca. 120", "120 m²"], size=[*size[1:], "big"])
    with pytest.raises(DataError) as error:
        csv(path, "y", missing_words=["lost"])
    (cure,) = [
        word for word in shlex.split(str(error.value).replace(", or", " , or")) if "missing_words" in word
    ]
    words = cure.partition("=")[2].strip("[]").replace('"', "").split(",")
    assert words == ["lost", "ca. 120", "120 m²", "big"]
    assert "categorical" not in str(error.value)  # of 150 numbers
    assert f"in row {ROWS - 1} of {path} (line {ROWS}) (2 of {ROWS} values are something else)" in str(
        error.value
    )
    assert "age" in names(csv(path, "y", missing_words=words))


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    """Empty lines and line breaks in quotes are counted."""
    rows = ["x,t,y", "", *(f"{i},a,{'ab'[i % 2]}" for i in range(20)), '3,"two\nlines",a', "odd,a,b"]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(DataError, match=r"'odd' in row 22 of .* \(line 25\)"):
        csv(str(tmp_path / "t.csv"), "y")


def test_missing_values_of_many_columns_tell_which_are_marked(tmp_path: Path) -> None:
    columns = {f"n{i}": [float(j % 13) for j in range(ROWS)] for i in range(4)}
    for values in columns.values():
        values[3] = ""  # type: ignore[call-overload]
    contract = prepare(csv(table(tmp_path, **columns), "y"), split_seed=1).contract
    assert contract is not None
    other = plain(3) | {name: ["", 1, 2] for name in columns} | {"kind": ["", "a", "b"]}
    notes = contract.encode(save(tmp_path / "o.csv", other)).notes
    assert "missing  1 column, none in training: no level: kind (1)" in notes
    assert any(
        note.startswith("missing  4 columns, filled from the training split and marked: n0 (1)")
        for note in notes
    )


def test_a_column_that_alone_tells_the_class_is_named(tmp_path: Path) -> None:
    classes = plain(ROWS)["y"]
    path = table(
        tmp_path,
        leak=[int(word == "yes") for word in classes],
        near=[0, *(int(w == "yes") for w in classes[1:])],
    )
    (line,) = [note for note in csv(path, "y").notes if note.startswith("alone")]
    assert line.startswith("alone    leak: each value occurs with one value of y only;")
    assert not any(note.startswith("alone") for note in csv(table(tmp_path), "y").notes)


def test_check_lists_every_column_that_is_left_out(
    workdir: Path, dltrain: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(workdir, **{f"e{i}": [""] * ROWS for i in range(25)})
    dltrain("check", "dataset=csv", f"dataset.path={path}", "dataset.target=y", "model=linear")
    assert "e24 (empty)" in capsys.readouterr().out


def test_words_in_many_rows_of_numbers_are_refused_with_a_cure_or_named(tmp_path: Path) -> None:
    """9 % 'k.A.' made a driver of the label "text, 681 different values", without a hint."""
    income = ["k.A." if i % 10 == 3 else f"{1000 + 37 * i}.5" for i in range(200)]
    path = save(tmp_path / "t.csv", plain(200) | {"income": income, "place": ["k.A.", "N"] * 100})
    for keys in ({}, {"keep": ["income"]}):
        with pytest.raises(DataError) as error:
            csv(path, "y", **keys)  # type: ignore[arg-type]
        assert "'income' holds numbers, but 'k.A.' in row 4 of" in str(error.value)
        assert "(20 of 200 values are something else)" in str(error.value)
        assert "'dataset.missing_words=[\"k.A.\"]', or leave the column out: dataset.drop=[income]" in str(
            error.value
        )
    names = encoded(csv(path, "y", missing_words=["k.A."])).feature_names
    assert "income" in names and "place=N" in names
    # a target, too
    with pytest.raises(DataError, match="'income' holds numbers, but 'k.A.'"):
        csv(path, "income")
    dates = ["offen" if i % 10 == 3 else f"{1 + i % 28}.{1 + i % 12}.{2000 + i % 20}" for i in range(200)]
    with pytest.raises(DataError, match="'when' holds dates, but 'offen' in row 4"):
        csv(save(tmp_path / "d.csv", plain(200) | {"when": dates}), "y")


def test_a_few_numbers_with_the_other_mark_leave_their_rows_out(tmp_path):
    """One `1,5` refused a whole file of 600 rows, and the cure printed the same refusal."""
    known = prepare(csv(table(tmp_path, x=[f"{i}.5" for i in range(ROWS)]), "y")).contract
    path = table(tmp_path, x=[*(f"{i}.5" for i in range(ROWS - 1)), '"1,5"'])
    with pytest.raises(DataError, match="column 'x' holds numbers, but '1,5' in row 200"):
        csv(path, "y", contract=known)
    raw = csv(path, "y", contract=known, tolerant=True)
    assert len(raw) == ROWS - 1 and any("broken" in note and "'1,5'" in note for note in raw.notes)


def test_many_words_for_missing_values_take_one_pass():
    """Found by a hostile tester: a data.json with 100,000 words held `predict` for minutes, one comparison for each."""
    words = (*(f"Word {k}" for k in range(100_000)), *(f"-{k}" for k in range(1, 100_001)))
    reading = Reading(words, not_missing=("NA", *words[100:200]))
    begun = time.process_time()
    texts = pa.array(["word 7", "WORD 150", "a", "na", "", None])
    assert reading.missing(texts, False)[:5].tolist() == [True, False, False, False, True]
    assert reading.met == {"Word 7", "Word 150", "NA"}
    assert np.isnan(reading.without_missing(np.array([1.0, -9.0, -0.5]))).tolist() == [False, True, False]
    assert reading.met == {"Word 7", "Word 150", "NA", "-9"}
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_number_may_stand_for_a_missing_value_however_it_is_written(tmp_path, kind):
    """A column of numbers with -999.0 was learned as it is, though missing_words named -999."""
    drawn = np.random.default_rng(0)
    x, y = drawn.normal(size=60), drawn.normal(size=60)
    x[::3] = -999.0
    path = tmp_path / f"t.{kind}"
    write = pyarrow.parquet.write_table if kind == "parquet" else pyarrow.csv.write_csv
    write(pa.table({"x": x, "k": np.where(x < -1, -999, 3), "z": y + 1.0, "y": y}), path)
    raw = csv(path, "y", missing_words=["-999", "k.A."], categorical=["k"])
    assert "words    no column has 'k.A.', missing by dataset.missing_words" in raw.notes
    known = {column.name: column for column in raw.inputs.columns}  # type: ignore[union-attr]
    assert known["x"].missing.sum() == 20 and np.nanmin(known["x"].values) > -10
    assert known["k"].levels == ("3",) and known["k"].missing.sum() >= 20
    assert not any("no column has" in note for note in csv(path, "y", missing_words=["-999.0"]).notes)


def test_few_numbers_beside_a_word_are_categories_and_named(tmp_path: Path) -> None:
    age = ["k.A." if i % 10 == 3 else str(20 + i % 40) for i in range(200)]
    columns = plain(200) | {"age": age, "size": ["1", "2", "3+", "4"] * 50}
    raw = csv(save(tmp_path / "t.csv", columns), "y")
    told = (
        "words    age: categories, for 'k.A.' among numbers; to learn from these, call it missing: "
        "'dataset.missing_words=[\"k.A.\"]'"
    )
    assert told in raw.notes and "size" not in "".join(note for note in raw.notes if "words" in note)
    # of codes, the others are no numbers
    columns["age"] = ["k.A." if i % 10 == 3 else f"{1000 + i % 40:05}" for i in range(200)]
    assert "words" not in "".join(csv(save(tmp_path / "t.csv", columns), "y").notes)
    # nothing tells that so many different texts are words for a missing value
    columns["age"] = [f"{i % 130}b" if i % 5 == 3 else f"{3 * (i % 130)}" for i in range(200)]
    assert (
        csv(save(tmp_path / "t.csv", columns), "y").left_out["age"]
        == "text, 130 different values, most of them numbers"
    )


def test_asked_categories_of_many_values_are_counted(tmp_path: Path) -> None:
    comment = [f"said {i} of all the things" for i in range(ROWS)]
    path = table(tmp_path, comment=comment)
    told = f"levels   comment ({ROWS}): more than 100 values, each of which is an input; to learn from fewer, leave it out of dataset."
    for key in ("categorical", "keep"):
        assert f"{told}{key}" in csv(path, "y", **{key: ["comment"]}).notes
    assert "levels" not in "".join(csv(path, "y").notes)
    assert "comment" not in names(csv(path, "y"))


def test_the_words_for_missing_values_are_listed_in_help_and_docs() -> None:
    from dltrain.data.tables.text import MISSING, MISSING_AMONG_NUMBERS

    manual = Path(__file__).parents[2] / "docs/tables.md"
    (listed,) = [
        part for part in manual.read_text().split("\n\n") if part.startswith("**Words for a missing value**")
    ]
    always, among = listed.partition(", which are a level")[0].split("among numbers and dates also")
    assert {*re.findall("`(.+?)`", always), ""} == MISSING and set(
        re.findall("`(.+?)`", among)
    ) == MISSING_AMONG_NUMBERS
    text = " ".join(csv.__doc__.partition("missing_words:")[2].partition("(in small")[0].split())  # type: ignore[union-attr]
    always, among = text.removeprefix("more words for a missing value than ").split(
        " and, among numbers and dates, "
    )
    assert set(always.split(", ")) == (MISSING - {""}) | {'""'}
    assert set(among.split(", ")) == MISSING_AMONG_NUMBERS


def test_a_minus_of_a_web_page_is_a_minus(tmp_path: Path) -> None:
    """U+2212, as spreadsheets, Wikipedia and typesetters write it."""
    values = [(i - 100) / 10 for i in range(ROWS)]
    minus = "\u2212"
    money = [f"{minus * (v < 0)}${abs(v):.2f}" for v in values]
    raw = csv(table(tmp_path, b=[str(v).replace("-", minus) for v in values], c=money), "y")
    columns = {column.name: column for column in raw.inputs.columns}  # type: ignore[union-attr]
    assert columns["b"].values.tolist() == columns["c"].values.tolist() == values


UNREAD = {
    "trailing minus": [f"{i % 20}{'-' * (i % 2)}" for i in range(ROWS)],
    "thousands and millions": [f"{i % 30}{'kM'[i % 2]}" for i in range(ROWS)],
    "credit": [f"{i % 20}{' CR' * (i % 2)}" for i in range(ROWS)],
    "blood pressure": [f"{110 + i % 30}/{70 + i % 20}" for i in range(ROWS)],
    "durations": [f"{i % 3}h {i % 30}m" for i in range(ROWS)],
    "two forms of dates": [
        f"2020-02-{1 + i % 28:02}" if i % 2 else f"{1 + i % 28}/03/2021" for i in range(ROWS)
    ],
    "times of twelve hours": [f"{13 + i % 15}/1/2020 {1 + i % 5}:00 {'AP'[i % 2]}M" for i in range(ROWS)],
}


@pytest.mark.parametrize("values", UNREAD.values(), ids=UNREAD)
def test_numbers_and_dates_in_an_unknown_form_are_named(tmp_path: Path, values: list[str]) -> None:
    path = table(tmp_path, size=values)
    raw = csv(path, "y")
    assert "size" in names(raw)
    (line,) = (note for note in raw.notes if note.startswith("unread"))
    assert re.match(
        r"unread   size \('.*\d.*'\): categories, though most values begin with a number or look like a date",
        line,
    )
    # the printed cure
    (key, cure) = shlex.split(line.rpartition("to leave it so, ")[2])[0].split("=")
    assert (key, cure) == ("dataset.categorical", "[size]")
    assert not any(note.startswith("unread") for note in csv(path, "y", categorical=["size"]).notes)


FULL_WIDTH = {ord(digit): chr(0xFF10 + int(digit)) for digit in "0123456789"}
LOST = {
    "hours and minutes": [f"{i % 24}:{i * 7 % 60:02}" for i in range(ROWS)],
    "hours of twelve": [f"{i // 60:02}:{i % 60:02} AM" for i in range(ROWS)],
    "with a word": [f"{i % 24:02}:{i * 7 % 60:02} Uhr" for i in range(ROWS)],
    "sign behind": [f"{i}.5-" if i % 2 else f"{i}.5" for i in range(ROWS)],
    "ranges": [f"{i}-{i + 100}" for i in range(ROWS)],
    "fractions": [f"{i}/7" for i in range(ROWS)],
    "underscores": [f"{1000 + 37 * i:_}" for i in range(ROWS)],
    "full-width digits": [str(1000 + i % 150).translate(FULL_WIDTH) for i in range(ROWS)],
    "Arabic digits": ["".join(chr(0x660 + int(d)) for d in str(1000 + i)) for i in range(ROWS)],
    "limits": ["<0.5" if i % 6 == 1 else f"{i}.25" for i in range(ROWS)],
}


@pytest.mark.parametrize("values", LOST.values(), ids=LOST)
def test_numbers_that_are_left_out_are_named(tmp_path: Path, values: list[str]) -> None:
    """Columns of numbers were gone in a word of the header."""
    raw = csv(table(tmp_path, size=values), "y")
    assert "size" in raw.left_out
    (line,) = (note for note in raw.notes if note.startswith("unread"))
    assert re.match(r"unread   size \('.*\d.*'\): left out", line) and line.endswith("dataset.drop=[size]")


def test_addresses_and_names_that_are_left_out_are_not_named(tmp_path: Path) -> None:
    for texts in (
        [f"{i} Main Street" for i in range(ROWS)],
        [f"{i % 150} Main Road {i}" for i in range(ROWS)],
        [f"k{i}-7" for i in range(ROWS)],
        [f"{i}_{i * 7 % 90}" for i in range(ROWS)],
    ):
        raw = csv(table(tmp_path, size=texts), "y")
        assert "size" in raw.left_out and not [note for note in raw.notes if note.startswith("unread")]


def test_true_and_false_may_stand_beside_1_and_0(tmp_path: Path) -> None:
    """They were categories with a cure that emptied other columns."""
    words = ["1", "0", "True", "false"]
    path = table(tmp_path, flag=[words[i % 4] for i in range(ROWS)], other=["True", "False"] * (ROWS // 2))
    raw = csv(path, "y")
    flag = next(column for column in raw.inputs.columns if column.name == "flag")  # type: ignore[union-attr]
    assert flag.format.kind == "boolean"
    assert flag.values.tolist() == [float(words[i % 4] in ("1", "True")) for i in range(ROWS)]
    assert "truths   flag: '1', '0', 'True', 'false' are true and false" in raw.notes
    # as a target, too
    target = csv(path, "flag")
    assert target.class_names == ("0", "1")
    assert target.targets.tolist() == [int(words[i % 4] in ("1", "True")) for i in range(ROWS)]


def test_no_cure_empties_another_column(tmp_path: Path) -> None:
    numbers = [("low" if i % 2 else "high") if i % 8 == 3 else str(20 + i % 40) for i in range(ROWS)]
    others = {"level": ["Low", "low", "x"] * (ROWS // 3) + ["low"] * (ROWS % 3)}
    for more, cured in (({}, True), (others, False)):
        raw = csv(table(tmp_path, size=numbers, **more), "y")
        (line,) = (note for note in raw.notes if note.startswith("words"))
        assert ("missing_words" in line) is cured and (line.endswith("write all values alike")) is not cured
    # nor is the name of a column a word for a missing value
    with pytest.raises(DataError, match="'size' holds numbers, but 'size' in row 5") as error:
        csv(table(tmp_path, size=["size" if i == 4 else str(i) for i in range(ROWS)]), "y")
    assert "missing_words" not in str(error.value) and "dataset.drop=[size]" in str(error.value)


def test_numbers_with_bare_exponents_are_named_and_may_be_codes(tmp_path: Path) -> None:
    codes = [f"{1 + i % 9}E{i % 5}" for i in range(ROWS)]
    path = table(tmp_path, code=codes, small=[f"{i}e-2" for i in range(ROWS)])
    (line,) = (note for note in csv(path, "y").notes if note.startswith("numbers"))
    assert line == (
        "numbers  code: all values have an exponent, such as 1E0, which is 1; for codes, dataset.categorical=[code]"
    )
    raw = csv(path, "y", categorical=["code"])
    code = next(column for column in raw.inputs.columns if column.name == "code")  # type: ignore[union-attr]
    assert set(code.levels) == set(codes)


def test_a_number_of_nines_far_from_the_others_is_named(tmp_path: Path) -> None:
    x = [round(20 + (i * 37 % 100) / 10, 1) for i in range(ROWS)]
    size, price = (["-999.0" if i % 5 == 1 else v for i, v in enumerate(x)], [v + 79 for v in x])
    path = table(tmp_path, size=size, price=price, fine=x)
    (line,) = (note for note in csv(path, "y").notes if note.startswith("words"))
    assert line.startswith(
        "words    size: -999 in 40 rows, far from all others (20 to 29.9); if it stands for a missing value, "
    )
    (cure,) = shlex.split(line.rpartition(", ")[2])
    assert cure == 'dataset.missing_words=["-999"]'
    raw = csv(path, "y", missing_words=["-999"])
    assert not [note for note in raw.notes if note.startswith("words")]
    # where 99 is a price, calling it missing would empty these rows
    size = ["99999" if i % 5 == 1 else v for i, v in enumerate(x)]
    price = [v * 1000 - 1 + 10 * i for i, v in enumerate(x)]
    price[3], price[4] = 99999.0, 150000.0
    (line,) = (
        note for note in csv(table(tmp_path, size=size, price=price), "y").notes if note.startswith("words")
    )
    assert line.endswith("write nothing in its place")


def test_a_key_that_repeats_is_proposed_for_groups(tmp_path: Path) -> None:
    keys = [f"P{i % 40:03}" for i in range(ROWS)]
    told = (
        f"groups   patient_id: 40 values in {ROWS} rows, and those of one value may be in several splits; to keep them together, "
        "dataset.group_column=patient_id"
    )
    for values in (keys, [int(key[1:]) for key in keys]):
        path = table(tmp_path, patient_id=values, city=keys, row_id=list(range(ROWS)))
        assert [note for note in csv(path, "y").notes if note.startswith("groups")] == [told]
        grouped = csv(path, "y", group_column="patient_id")
        assert not [note for note in grouped.notes if note.startswith("groups")]


def test_errors_of_a_spreadsheet_may_be_missing_values(tmp_path: Path) -> None:
    errors = ("#DIV/0!", "####", "#REF!")
    path = table(tmp_path, size=[errors[i % 3] if i % 14 == 1 else f"{i}.5" for i in range(ROWS)])
    with pytest.raises(DataError, match="'size' holds numbers, but '#DIV/0!'|'####'|'#REF!'") as error:
        csv(path, "y")
    (cure,) = shlex.split(re.search(r"'dataset.missing_words=.*?\]'", str(error.value))[0])  # type: ignore[index]
    words = json.loads(cure.partition("=")[2])
    assert {*words} == {*errors} and "size" in names(csv(path, "y", missing_words=words))


def test_no_cure_leaves_the_target_out(tmp_path: Path) -> None:
    for values in (["12,5", "0.52"], ["5 €", "5 $"]):
        path = table(tmp_path, ";", size=[values[i % 2] for i in range(ROWS)])
        for target, is_cure in (("y", True), ("size", False)):
            with pytest.raises(DataError, match="'size'") as error:
                csv(path, target)
            assert ("dataset.drop=[size]" in str(error.value)) is is_cure


def test_times_that_are_all_different_are_left_out_and_named(tmp_path: Path) -> None:
    path = table(tmp_path, at=[f"{i // 60:02}:{i % 60:02}" for i in range(ROWS)])
    raw = csv(path, "y")
    assert raw.left_out == {"at": "identifier"}
    (line,) = (note for note in raw.notes if note.startswith("unread"))
    assert line.startswith("unread   at ('00:00'): left out") and line.endswith("dataset.drop=[at]")
    assert not any(note.startswith("unread") for note in csv(path, "y", drop=["at"]).notes)


@pytest.mark.parametrize("values", [["red", "1st"], ["01067", "04109"], ["x1", "x2"], ["a 2020", "b"]])
def test_other_texts_are_not_named(tmp_path: Path, values: list[str]) -> None:
    raw = csv(table(tmp_path, kind=[values[i % 3 == 0] for i in range(ROWS)]), "y")
    assert not [note for note in raw.notes if note.startswith(("unread", "split"))]


def test_a_column_that_names_splits_is_named(tmp_path: Path) -> None:
    path = table(tmp_path, part=[["Train", "train", "val", "TEST"][i % 4] for i in range(ROWS)])
    (line,) = (note for note in csv(path, "y").notes if note.startswith("split"))
    assert line.startswith("split    part holds names of splits, and is learned from as a category")
    assert line.endswith(": dataset.split_column=part")
    raw = csv(path, "y", split_column="part")
    assert not any(note.startswith("split") for note in raw.notes)
    assert raw.split is not None and torch.bincount(raw.split.long()).tolist() == [100, 50, 50]


def test_values_that_differ_in_case_only_are_named(tmp_path: Path) -> None:
    raw = csv(table(tmp_path, b=[("Yes", "yes", "no ", "no")[i % 4] for i in range(ROWS)]), "y")
    (line,) = (note for note in raw.notes if note.startswith("alike"))
    assert line.startswith("alike    b ('Yes' and 'yes'): values that differ in case or spaces only")
    assert not any(note.startswith("alike") for note in csv(table(tmp_path), "y").notes)


def test_a_first_line_of_numbers_is_named(tmp_path: Path) -> None:
    rows = [f"{i / 7:.2f},{i % 9},{('no', 'yes')[i % 2]}" for i in range(ROWS)]
    for first, told in (
        ("0.34,1.5,yes", True),
        ("0,1,yes", False),
        ("2019,2020,yes", False),
        ("a,1.5,yes", False),
    ):
        (tmp_path / "n.csv").write_text("\n".join([first, *rows]) + "\n")
        lines = [note for note in csv(str(tmp_path / "n.csv"), "yes").notes if note.startswith("header")]
        assert len(lines) == told
    (tmp_path / "n.csv").write_text("\n".join(["0.34,1.5,yes", *rows]) + "\n")
    (line,) = (note for note in csv(str(tmp_path / "n.csv"), "yes").notes if note.startswith("header"))
    assert line == (
        "header   the columns are called 0.34, 1.5, which are numbers: if the first line is data, put a line of names above it"
    )


@pytest.mark.parametrize(
    ("values", "bad", "cure"),
    [
        ([f"{i} %" for i in range(ROWS)], "0,0", "write the numbers of this column as percents, such as 27%"),
        (
            [f"{i} %" for i in range(ROWS)],
            "0.27",
            "write the numbers of this column as percents, such as 27%",
        ),
        (
            [f"{i} %" for i in range(ROWS)],
            "1 234,5",
            "write the numbers of this column as percents, such as 27%",
        ),
        (
            [("true", "false")[i % 2] for i in range(ROWS)],
            "0,0",
            "write true and false, yes and no, or 1 and 0",
        ),
        (
            [f"2024-01-{i % 28 + 1:02d}" for i in range(ROWS)],
            "45,5",
            "write the dates of this column as 2024-01-31",
        ),
    ],
)
def test_a_number_of_another_form_is_no_word_for_a_missing_value(tmp_path: Path, values, bad, cure) -> None:
    contract = contract_of(prepare(csv(save(tmp_path / "t.csv", plain(ROWS) | {"v": values}), "y")))
    new = save(tmp_path / "new.csv", plain(ROWS) | {"v": [*values[:-1], bad]}, ";")
    with pytest.raises(DataError, match=re.escape(f"{bad!r} in row {ROWS} ")) as error:
        contract.encode(new, targets=False)
    assert str(error.value).endswith(cure) and "missing" not in str(error.value)


def test_no_cure_calls_a_number_missing() -> None:
    for word in ("0,0", "0.27", "1.234,5", "1'234", "1 234", "12 %", "-3,5", "$5", "(3,5)"):
        assert call_missing(["k.A.", word]) == ""
        assert "missing" not in unfit_cure(Format("number", "."), word, ())
    assert (
        call_missing(["k.A.", "n/v 2"]) == """call these missing: 'dataset.missing_words=["k.A.","n/v 2"]'"""
    )
