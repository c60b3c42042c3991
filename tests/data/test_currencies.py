"""Amounts of money in tables: signs and codes of currencies, marks, minus signs, and files that write them otherwise.

Second truth: numbers that were written by Python's formatting, and values by hand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from test_tables import contract_of, encoded, notes, plain, save

from dltrain.data.contract import Contract
from dltrain.data.errors import DataError
from dltrain.data.prepare import prepare
from dltrain.data.table import csv
from dltrain.data.tables.amounts import amounts
from dltrain.data.tables.text import numbers

ROWS = 40
VALUES = (np.random.default_rng(1).normal(size=ROWS) * 3000).round(2)


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("$1,234.50", "$", 1234.5),
        ("($1,603.86)", "$", -1603.86),
        ("-$5", "$", -5),
        ("$-5", "$", -5),
        ("$ .50", "$", 0.5),
        ("€ 3.50", "€", 3.5),
        ("3.50€", "€", 3.5),
        ("-3.50 €", "€", -3.5),
        ("(12 EUR)", "EUR", -12),
        ("EUR 12", "EUR", 12),
        ("USD12", "USD", 12),
        ("US$7", "US$", 7),
        ("CHF 1'234.50", "CHF", 1234.5),
        ("1 234.5 kr", "kr", 1234.5),
        ("£0", "£", 0),
    ],
)
def test_amounts(text: str, unit: str, value: float) -> None:
    found = amounts(pa.array([text, "abc"]))
    assert found.units.tolist() == [unit, ""]
    assert numbers(found.numbers, ".")[0][0] == value and found.numbers[1].as_py() == "abc"


@pytest.mark.parametrize(
    "text",
    [
        "$",
        "5",
        "(5)",
        "($5",
        "$5)",
        "(-$5)",
        "-$-5",
        "$5 $",
        "$5 per day",
        "ABC 5",
        "5%",
        "EURO 5",
        "$1.2.3",
        "",
    ],
)
def test_no_amounts(text: str) -> None:
    found = amounts(pa.array([text, "$1"]))
    assert found.units[0] == "" or not numbers(found.numbers, ".")[1][0]


@pytest.mark.parametrize(
    ("written", "separator"),
    [
        (lambda v: f"${v:,.2f}" if v >= 0 else f"(${-v:,.2f})", "\t"),
        (lambda v: f"{v:,.2f}".translate(str.maketrans(",.", ".,")) + " €", ";"),
        (lambda v: f"CHF {v:,.2f}".replace(",", "'"), ","),
        (lambda v: f"{v:,.2f} zł".replace(",", "\u00a0").replace(".", ","), ";"),
    ],
)
def test_columns_of_amounts_are_numbers(tmp_path: Path, written, separator: str) -> None:
    texts = [written(float(v)) for v in VALUES]
    raw = csv(save(tmp_path / "t.csv", plain() | {"cost": texts}, separator), "y")
    assert encoded(raw).inputs[:, -1].double().numpy() == pytest.approx(VALUES)
    unit = next(mark for mark in ("$", "€", "CHF", "zł") if mark in texts[0])
    assert f"amounts in {unit}: cost" in raw.notes[0]
    contract = Contract.from_json(prepare(raw).contract.to_json())  # type: ignore[union-attr]
    assert contract.columns[-1].format.unit == unit
    raw = csv(save(tmp_path / "t.csv", plain() | {"cost": texts}, separator), "cost")
    assert raw.task == "regression" and raw.targets[:, 0].numpy() == pytest.approx(VALUES)
    assert f"target   cost in {unit}: regression" in notes(raw)


def test_whole_amounts_are_no_identifiers(tmp_path: Path) -> None:
    raw = csv(save(tmp_path / "t.csv", plain(200) | {"id": [f"${i + 1}" for i in range(200)]}), "y")
    assert "id" in encoded(raw).feature_names and raw.left_out == {}
    assert (
        csv(save(tmp_path / "t.csv", plain(200) | {"id": [f"${i + 1}" for i in range(200)]}), "id").task
        == "regression"
    )


def test_several_currencies_or_none_in_a_column_are_refused(tmp_path: Path) -> None:
    mixed = [f"{'$€'[i % 2]} {i}.5" for i in range(ROWS)]
    with pytest.raises(
        DataError,
        match=r"'cost' of .* holds amounts in \$, €: '\$ 0.5' in row 1, '€ 1.5' in row 2; .*dataset.drop=\[cost\]",
    ):
        csv(save(tmp_path / "t.csv", plain() | {"cost": mixed}), "y")
    for some in (1, 15, 25):
        part = [f"{i}.5" if i < some else f"${i}.5" for i in range(ROWS)]
        with pytest.raises(DataError, match="column 'cost' holds (amounts in \\$|numbers), but") as error:
            csv(save(tmp_path / "t.csv", plain() | {"cost": part}), "y")
        assert "missing_words" not in str(error.value) and "dataset.drop=[cost]" in str(error.value)
    words = [f"${i}.5" if i % 8 else "on request" for i in range(ROWS)]
    path = save(tmp_path / "t.csv", plain() | {"cost": words})
    with pytest.raises(DataError, match=r"amounts in \$, but 'on request' in row 1 .*\n.*missing_words"):
        csv(path, "y")
    assert "cost=(missing)" in encoded(csv(path, "y", missing_words=["on request"])).feature_names


def test_other_files_have_the_currency_of_the_training_or_none(tmp_path: Path) -> None:
    raw = csv(
        save(tmp_path / "t.csv", {"cost": [f"${v:,.2f}" for v in VALUES], "y": ["a", "b"] * 20}, "\t"), "y"
    )
    contract = prepare(raw).contract
    assert contract is not None

    def values(*texts: str) -> tuple[float, tuple[str, ...]]:
        rows = contract.encode(
            save(tmp_path / "new.csv", {"cost": texts, "z": ["1"] * len(texts)}, "\t"), targets=False
        )
        return rows.inputs[0, 0].item(), rows.notes

    assert values("($1,234.50)", "$3") == (-1234.5, ())
    told = ("unit     new.csv: cost has no unit, and is taken for $ as in the training",)
    assert values("1234.5", "3") == (1234.5, told)
    assert values("1,234.5", "3") == (1234.5, told)
    for wrong in ("€3", "3", "3 EUR"):
        with pytest.raises(DataError, match=rf"'cost' holds amounts in \$, but '{wrong}' in row 2"):
            values("$1,234.50", wrong)
    with pytest.raises(DataError, match=r"'cost' holds amounts in \$, but '€3' in row 1"):
        values("€3", "€4")
    # and one without is not taken for money
    raw = csv(save(tmp_path / "t.csv", {"cost": VALUES.tolist(), "y": ["a", "b"] * 20}, "\t"), "y")
    contract = prepare(raw).contract
    with pytest.raises(DataError, match="'cost' holds numbers, but '\\$3' in row 1"):
        values("$3")


def test_numbers_of_parquet_are_taken_for_the_unit_of_the_training_and_named(tmp_path: Path) -> None:
    columns = {
        "cost": [f"${v:,.2f}" for v in VALUES],
        "rate": [f"{i}%" for i in range(ROWS)],
        "y": ["a", "b"] * 20,
    }
    contract = prepare(csv(save(tmp_path / "t.csv", columns, "\t"), "y")).contract
    assert contract is not None
    parquet.write_table(pa.table({"cost": [1.5], "rate": [0.27]}), tmp_path / "new.parquet")
    rows = contract.encode(tmp_path / "new.parquet", targets=False)
    assert rows.inputs.tolist() == [[1.5, pytest.approx(0.27)]]
    assert rows.notes == (
        "unit     new.parquet: cost has no unit, and is taken for $ as in the training",
        "unit     new.parquet: rate has no unit, and is taken for percents, 27 for 27%, as in the training",
    )


def test_square_meters_have_several_spellings(tmp_path: Path) -> None:
    columns = {"size": [f"{i + 40} m²" for i in range(40)], "y": [i * 1.5 for i in range(40)]}
    path = save(tmp_path / "t.csv", columns)
    contract = contract_of(prepare(csv(path, "y")))
    wanted = contract.encode(path).inputs
    for unit in ("m2", "qm"):
        other = save(tmp_path / "u.csv", columns | {"size": [f"{i + 40} {unit}" for i in range(40)]})
        assert torch.equal(contract.encode(other).inputs, wanted)
