"""Numbers with a unit of measurement, and negative numbers in parentheses; values by hand and by Python's formatting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from test_tables import encoded, notes, plain, save

from dltrain.data.contract import Contract
from dltrain.data.errors import DataError
from dltrain.data.prepare import prepare
from dltrain.data.table import csv
from dltrain.data.tables.amounts import quantities
from dltrain.data.tables.text import numbers

ROWS = 200
VALUES = (np.random.default_rng(1).normal(size=ROWS) * 30).round(1)


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("80.2 kg", "kg", 80.2),
        ("12cm", "cm", 12),
        ("-5 °C", "°C", -5),
        ("1,234.5 km/h", "km/h", 1234.5),
        ("45.5°", "°", 45.5),
        ("20 m²", "m²", 20),
        ("3 years", "years", 3),
        ("$5", "$", 5),
    ],
)
def test_quantities(text: str, unit: str, value: float) -> None:
    found = quantities(pa.array([text, "abc"]))
    assert found.units.tolist() == [unit, ""]
    assert numbers(found.numbers, ".")[0][0] == value and found.numbers[1].as_py() == "abc"


@pytest.mark.parametrize(
    "text", ["5", "1e3", "1.5E2", "kg", "5 apples and", "12:30 h", "A4", "10115 Berlin", "1.2.3 kg", ""]
)
def test_no_quantities(text: str) -> None:
    found = quantities(pa.array([text, "1 kg"]))
    assert found.units[0] == "" or not numbers(found.numbers, ".")[1][0]


@pytest.mark.parametrize("written", ["{:.1f} kg", "{:.1f}cm", "{:.1f} m/s²"])
def test_a_column_with_one_unit_is_numbers(tmp_path: Path, written: str) -> None:
    raw = csv(save(tmp_path / "t.csv", plain(ROWS) | {"weight": [written.format(v) for v in VALUES]}), "y")
    unit = written.partition("}")[2].strip()
    assert f"amounts in {unit}: weight" in raw.notes[0]
    data = prepare(raw)
    contract = data.contract
    assert isinstance(contract, Contract)
    rule = next(rule for rule in contract.columns if rule.name == "weight")
    assert rule.format.kind == "number" and rule.features == ["weight"]
    assert (rule.lows[0], rule.highs[0]) == (
        pytest.approx(VALUES[: len(VALUES)].min(), abs=20),
        pytest.approx(VALUES.max(), abs=20),
    )


def test_decimal_commas_with_a_unit(tmp_path: Path) -> None:
    texts = [f"{v:.1f} kg".replace(".", ",") for v in VALUES]
    (tmp_path / "t.csv").write_text("\n".join(["w;y", *(f"{t};{'ab'[i % 2]}" for i, t in enumerate(texts))]))
    assert encoded(csv(str(tmp_path / "t.csv"), "y")).inputs[:, 0].numpy() == pytest.approx(
        VALUES.astype(np.float32)
    )


@pytest.mark.parametrize("other", ["lb", "g"])
def test_mixed_units_are_named(tmp_path: Path, other: str) -> None:
    texts = [f"{v:.1f} {'kg' if i % 3 else other}" for i, v in enumerate(VALUES)]
    with pytest.raises(
        DataError, match=rf"'weight' holds amounts in kg, but '.* {other}' in row 1 .*67 of 200"
    ) as error:
        csv(save(tmp_path / "t.csv", plain(ROWS) | {"weight": texts}), "y")
    assert "dataset.drop=[weight]" in str(error.value) and "missing_words" not in str(error.value)
    texts = [f"{v:.1f} {('kg', 'lb', 'g')[i % 3]}" for i, v in enumerate(VALUES)]
    told = notes(csv(save(tmp_path / "t.csv", plain(ROWS) | {"weight": texts}), "y"))
    assert (
        "units    weight: no numbers, for they have several units: g, kg, lb; write them in one unit" in told
    )


def test_words_with_numbers_stay_categories(tmp_path: Path) -> None:
    named = {
        "class": [f"{i % 3 + 1}{('st', 'nd', 'rd')[i % 3]}" for i in range(ROWS)],
        "size": [("2XL", "3XL", "M")[i % 3] for i in range(ROWS)],
        "house": [f"{i % 9}{'ABC'[i % 3]}" for i in range(ROWS)],
        "step": [f"({i % 5 + 1})" for i in range(ROWS)],
    }
    raw = csv(save(tmp_path / "t.csv", plain(ROWS) | named), "y")
    kinds = {rule.name: rule.format.kind for rule in prepare(raw).contract.columns}  # type: ignore[union-attr]
    assert {kinds[name] for name in named} == {"category"}


def test_other_files_have_the_same_unit_or_none(tmp_path: Path) -> None:
    path = save(tmp_path / "t.csv", plain(ROWS) | {"weight": [f"{v} kg" for v in VALUES]})
    contract = prepare(csv(path, "y")).contract
    assert contract is not None
    same = contract.encode(path).inputs
    bare = contract.encode(save(tmp_path / "b.csv", plain(ROWS) | {"weight": [str(v) for v in VALUES]}))
    assert bare.inputs.equal(same)
    assert "unit     b.csv: weight has no unit, and is taken for kg as in the training" in bare.notes
    pounds = save(tmp_path / "c.csv", plain(ROWS) | {"weight": [f"{v} lb" for v in VALUES]})
    with pytest.raises(
        DataError, match="holds amounts in kg, but .* lb' in row 1 .*write the amounts of this column in kg"
    ):
        contract.encode(pounds)
    plain_path = save(tmp_path / "d.csv", plain(ROWS) | {"weight": [str(v) for v in VALUES]})
    without = prepare(csv(plain_path, "y")).contract
    assert without is not None
    with pytest.raises(DataError, match="without kg, as in the training"):
        without.encode(path)


def test_parentheses_of_accounts_are_negative(tmp_path: Path) -> None:
    texts = [f"{v:,.2f}" if v >= 0 else f"({-v:,.2f})" for v in VALUES * 100]
    raw = csv(save(tmp_path / "t.csv", plain(ROWS) | {"profit": texts}, "\t"), "y")
    found = encoded(raw)
    assert found.inputs[:, found.feature_names.index("profit")].numpy() == pytest.approx(
        (VALUES * 100).astype(np.float32), abs=0.01
    )
    assert "negative profit: numbers in parentheses, such as '(" in notes(raw)
