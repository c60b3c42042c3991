"""Predictions for new data: by name, in class names and real units, or refused with the difference."""

from __future__ import annotations

import csv
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from safetensors.numpy import load_file

from dltrain import api, errors

Rows = list[dict[str, Any]]
BRIEF: dict[str, Any] = {"steps": 30, "lr": 0.02, "model": "linear", "quiet": True}


@pytest.fixture(autouse=True)
def _here(workdir: Path) -> None:
    """Each test works in a folder of its own."""


def rows_of(count: int, seed: int = 3) -> Rows:
    """Return rows with numbers, a category, a truth, a date, missing values, and two targets."""
    draw = np.random.default_rng(seed)
    rows: Rows = []
    for i in range(count):
        age = None if i % 17 == 3 else round(float(draw.normal(40, 9)), 2)
        kind = ("ant", "bee", "cat")[i % 3]
        rows.append(
            {
                "age": age,
                "color": ("red", "green", None)[i // 2 % 3],
                "sold": f"{2000 + i % 20}-03-0{1 + i % 9}",
                "wild": ("true", "false")[i % 2],
                "kind": kind,
                "price": round(3e5 + 4e3 * (age or 40) + 5e4 * (i % 3), 1),
            }
        )
    return rows


def write(name: str, rows: Rows) -> str:
    with open(name, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return name


def trained(folder: Path, target: str, other: str) -> api.Run:
    path = write(str(folder / "t.csv"), rows_of(120))
    table = {"dataset.path": path, "dataset.target": target, "dataset.drop": [other], "output": folder}
    return api.train(dataset="csv", **BRIEF, **table)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    return trained(tmp_path_factory.mktemp("kinds"), "kind", "price")


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    return trained(tmp_path_factory.mktemp("prices"), "price", "kind")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    return api.train(**BRIEF, output=tmp_path_factory.mktemp("digits"))


def outputs_by_hand(run: api.Run, rows: Rows) -> np.ndarray:
    """Return what the linear model of a run gives, from its files alone: data.json, the statistics and the weights."""
    from datetime import datetime

    columns = []
    for rule in json.loads((run.path / "data.json").read_text())["columns"]:
        values = [row[rule["name"]] for row in rows]
        kind = rule["format"]["kind"]
        filled = [rule["fill"] if value is None else value for value in values]
        if kind == "category":
            columns += [[float(value == level) for value in values] for level in rule["levels"]]
        elif kind == "number":
            columns.append([value - rule["centers"][0] for value in filled])
        elif kind == "boolean":
            columns.append([float(value == "true") - rule["centers"][0] for value in filled])
        else:
            dates = [datetime.fromisoformat(value) for value in filled]
            for part, center in zip(rule["parts"], rule["centers"], strict=True):
                length = [
                    366 if d.year % 4 == 0 and (d.year % 100 or d.year % 400 == 0) else 365 for d in dates
                ]
                found = {
                    "year": [
                        d.year + (d.timetuple().tm_yday - 1) / n for d, n in zip(dates, length, strict=True)
                    ],
                    "month": [d.month for d in dates],
                    "weekday": [d.weekday() for d in dates],
                }[part]
                columns.append([value - center for value in found])
        if rule["indicator"]:
            columns.append([float(value is None) for value in values])
    statistics = load_file(run.path / "checkpoints" / "normalization.safetensors")
    weights = load_file(run.path / "checkpoints" / "best.safetensors")
    inputs = (np.array(columns, np.float64).T - statistics["mean"]) / statistics["std"]
    (matrix,) = (w for name, w in weights.items() if name.endswith("weight"))
    (bias,) = (w for name, w in weights.items() if name.endswith("bias"))
    return inputs @ matrix.T + bias


NEW = rows_of(9, seed=5)


def test_classes_of_a_table_by_hand(kinds):
    wanted = outputs_by_hand(kinds, NEW)
    found = kinds.predict(NEW)
    np.testing.assert_allclose(found.outputs, wanted, rtol=1e-4, atol=1e-4)
    shares = np.exp(wanted) / np.exp(wanted).sum(1, keepdims=True)
    np.testing.assert_allclose(found.probabilities, shares, rtol=1e-3, atol=1e-5)
    assert found.labels.tolist() == [("ant", "bee", "cat")[i] for i in wanted.argmax(1)]
    assert found.classes.tolist() == wanted.argmax(1).tolist()
    assert list(found.table) == ["label", "p(ant)", "p(bee)", "p(cat)"]
    assert len(found) == 9
    assert "p(bee)" in repr(found)
    assert "<table>" in found._repr_html_()
    with pytest.raises(errors.UserError, match=r"use .labels or .probabilities"):
        _ = found.values


def test_quantities_of_a_table_by_hand(prices):
    scale = json.loads((prices.path / "data.json").read_text())
    wanted = outputs_by_hand(prices, NEW) * scale["target_std"] + scale["target_mean"]
    found = api.load(prices.path).predict(NEW)
    np.testing.assert_allclose(found.values, wanted, rtol=1e-5)
    assert list(found.table) == ["price"]
    assert found.values.mean() > 1e5
    with pytest.raises(errors.UserError, match=r"use .values"):
        _ = found.labels


def test_the_splits_of_the_run_are_predicted_as_they_were_scored():
    """The whole file through `predict`, averaged over the rows of each split, gives the scores of `evaluate`."""
    rows = [row | {"part": ("train", "val", "test")[i // 3 % 3]} for i, row in enumerate(rows_of(120))]
    write("t.csv", rows)
    run = api.train(
        dataset="csv", **BRIEF,
        **{"dataset.path": "t.csv", "dataset.target": "kind", "dataset.split_column": "part"},
    )  # fmt: skip
    found = run.predict("t.csv", batch_size=7)
    right = found.labels == np.array([row["kind"] for row in rows])
    scores = run.evaluate()
    parts = np.array([row["part"] for row in rows])
    assert sorted(scores) == ["test", "val"]
    for split in scores:
        assert right[parts == split].mean() == pytest.approx(scores[split]["accuracy"])


class Foreign:
    """A table of another library, such as polars, as the Arrow C stream passes it on."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__()


def forms_of(rows: Rows) -> dict[str, Any]:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    table = pa.table(columns)
    parquet.write_table(table, "new.parquet")
    shuffled = [dict(reversed(row.items())) | {"extra": 7} for row in rows]
    return {
        "csv": write("new.csv", rows),
        "path": Path(write("other.csv", shuffled)),
        "parquet": "new.parquet",
        "arrow": table,
        "foreign": Foreign(table),
        "batch": table.to_batches()[0],
        "columns": columns,
        "arrays": columns | {"age": np.array([math.nan if v is None else v for v in columns["age"]])},
        "tensors": columns | {"age": torch.tensor([math.nan if v is None else v for v in columns["age"]])},
        "rows": rows,
        "shuffled": shuffled,
    }


def test_all_forms_of_a_table_are_equal(kinds):
    wanted = kinds.predict(NEW).outputs
    for name, form in forms_of(NEW).items():
        np.testing.assert_allclose(kinds.predict(form).outputs, wanted, rtol=1e-6, err_msg=name)
    one = kinds.predict(NEW[0])
    np.testing.assert_allclose(one.outputs, wanted[:1], rtol=1e-5)
    without = [{k: v for k, v in row.items() if k not in ("kind", "price")} for row in NEW]
    np.testing.assert_allclose(kinds.predict(without).outputs, wanted, rtol=1e-6)


def test_a_frame_of_pandas_goes_in_and_comes_out(kinds):
    pandas = pytest.importorskip("pandas", reason="pandas is in the dev extra")
    frame = pandas.DataFrame(NEW)
    wanted = kinds.predict(NEW)
    for form in (frame, frame[::-1][::-1].set_index("price"), frame.astype({"color": "category"})):
        np.testing.assert_allclose(kinds.predict(form).outputs, wanted.outputs, rtol=1e-6)
    assert kinds.predict(frame.iloc[0]).labels[0] == wanted.labels[0]
    assert kinds.metrics.to_pandas()["val/loss"].iloc[-1] == kinds.metrics["val/loss"][-1]
    assert wanted.table.to_pandas()["label"].tolist() == wanted.labels.tolist()


def without(rows: Rows, name: str) -> Rows:
    return [{k: v for k, v in row.items() if k != name} for row in rows]


REFUSED = {
    "missing": (lambda: without(NEW, "age"), r"data lacks 'age' of the columns that the model was trained on"),
    "renamed": (lambda: [row | {"aeg": 1} for row in without(NEW, "age")], r"did you mean 'aeg' for 'age'\?"),
    "array": (lambda: np.zeros((3, 4)), r"ndarray of shape \(3, 4\) has no column names"),
    "nested": (lambda: [[1, 2], [3, 4]], r"list of shape \(2, 2\) has no column names"),
    "number": (lambda: 3, "int has no column names"),
    "empty": (lambda: [], "has no column names"),
    "no row": (lambda: {name: [] for name in NEW[0]}, "the data hold no row"),
    "uneven": (lambda: {name: [None] * (2 + (name == "age")) for name in NEW[0]}, "different lengths: 'age' 3, 'color' 2"),
    "mixed": (lambda: {name: [1, 2] for name in NEW[0]} | {"age": 3}, "column 'age' is 3, and other columns are lists"),
    "rows": (lambda: [NEW[0], without(NEW, "age")[1]], "row 2 and row 1 differ in 'age'"),
    "kinds": (lambda: [NEW[0], NEW[1] | {"age": "old"}], "column 'age' holds values of several kinds"),
    "text": (lambda: [NEW[0] | {"age": "old"}], "column 'age' holds numbers, but 'old' in row 1 of data"),
    "infinite": (lambda: [NEW[0] | {"age": math.inf}], "column 'age' has inf in row 1 of data; all values must be finite"),
    "matrix": (lambda: {name: [1] for name in NEW[0]} | {"age": np.zeros((1, 2))}, r"column 'age' has shape \(1, 2\)"),
    "no file": (lambda: "nowhere.csv", "nowhere.csv is neither a file nor a folder"),
}  # fmt: skip


def test_what_does_not_fit_a_table_is_refused(kinds):
    for name, (data, told) in REFUSED.items():
        with pytest.raises(errors.DataProblem, match=told) as caught:
            kinds.predict(data())
        assert len(str(caught.value).splitlines()) <= 3, name
    with pytest.raises(errors.UserError, match="`batch_size` is 0"):
        kinds.predict(NEW, batch_size=0)


def test_an_unseen_level_is_a_warning(kinds):
    with pytest.warns(
        UserWarning,
        match="unseen   color: 1 level in 1 of 1 row is not in the training split and counts as none: 'mauve'",
    ):
        found = kinds.predict([NEW[0] | {"color": "mauve"}])
    assert any("mauve" in note for note in found.notes)


def test_what_predict_prints_is_a_warning(kinds, dltrain, capsys, tmp_path):
    """A list of words that are warnings lacked those of a column without a known level, and of zones."""
    rows = [row | {"color": (row["color"] or "none").upper()} for row in NEW]
    file = tmp_path / "rows.csv"
    with open(file, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, NEW[0])
        writer.writeheader()
        writer.writerows(rows)
    for data in (rows, str(file)):
        with pytest.warns(UserWarning, match="foreign  color: no value") as warned:
            found = kinds.predict(data)
        wanted = [note for note in found.notes if not note.startswith(("missing", "unused"))]
        assert [str(one.message) for one in warned] == wanted
    capsys.readouterr()
    assert dltrain("predict", kinds.path, file) == 3
    said = capsys.readouterr().err
    assert all(note in said for note in found.notes)


# Arrays -----------------------------------------------------------------------------------------------------------


def test_images_by_hand(digits):
    """Pixels as the dataset has them, of digits: through the statistics and a linear model in numpy."""
    from sklearn.datasets import load_digits

    images = (load_digits().images[:50] / 16).astype(np.float32)
    statistics = load_file(digits.path / "checkpoints" / "normalization.safetensors")
    weights = load_file(digits.path / "checkpoints" / "best.safetensors")
    (matrix,) = (w for name, w in weights.items() if name.endswith("weight"))
    (bias,) = (w for name, w in weights.items() if name.endswith("bias"))
    normal = (images[:, None] - statistics["mean"]) / statistics["std"]
    wanted = normal.reshape(50, -1) @ matrix.T + bias
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for form in (
            images,
            images[:, None],
            images.tolist(),
            torch.from_numpy(images),
            images.astype(np.float64),
        ):
            np.testing.assert_allclose(digits.predict(form).outputs, wanted, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(digits.predict(images[7]).outputs, wanted[7:8], rtol=1e-3, atol=1e-4)
    assert (digits.predict(images).labels == load_digits().target[:50].astype(str)).mean() > 0.8


def test_numbers_of_another_byte_order_and_masked_ones(digits, kinds):
    """Big-endian arrays were "no array of numbers", and a mask was ignored."""
    images = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    wanted = digits.predict(images).outputs
    for form in (images.astype(">f4"), np.ma.masked_array(images), np.ma.masked_less(images, -1)):
        np.testing.assert_array_equal(digits.predict(form).outputs, wanted)
    with pytest.raises(
        errors.DataProblem, match=r"1 of the 192 values are masked; fill them first: data.filled"
    ):
        digits.predict(np.ma.masked_equal(images, images[1, 2, 3]))
    columns = {name: [row[name] for row in NEW] for name in NEW[0]}
    ages = np.array([math.nan if age is None else age for age in columns["age"]])
    missing = kinds.predict(columns | {"age": [None, *columns["age"][1:]]}).outputs
    first = np.arange(len(ages)) == 0
    for form in (np.ma.masked_array(ages, mask=first), np.where(first, math.nan, ages).astype(">f8")):
        np.testing.assert_array_equal(kinds.predict(columns | {"age": form}).outputs, missing)


def test_bytes_are_fractions_of_full_brightness(digits):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), np.uint8)
    np.testing.assert_allclose(
        digits.predict(pixels).outputs, digits.predict(pixels / 255).outputs, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    "data, told",
    [
        (np.zeros((3, 9, 9)), r"shape \(3, 9, 9\), and the model takes arrays of shape \(N, 1, 8, 8\)"),
        (np.zeros((3, 8, 8, 1)), r"np.moveaxis\(data, -1, 1\)"),
        (np.zeros((2, 64)), "and the model takes"),
        (np.zeros((3, 8, 8), np.int64), "the images are torch.int64; give bytes"),
        (np.full((3, 8, 8), np.nan), "sample 1 of the data: it has a value that is not finite"),
        (np.zeros((0, 8, 8)), "the data holds no sample"),
        ({"a": [1]}, "dict is no array"),
        ("x.png", "x.png is neither a file nor a folder"),
        ([["a"]], "the values of the data have shape .* and kind <U1; they must be real numbers"),
        (np.zeros((3, 8, 8), complex), "kind complex128; they must be real numbers"),
        (torch.zeros(3, 8, 8, dtype=torch.complex64), "kind torch.complex64; they must be real numbers"),
        ([[1], [1, 2]], "no array of numbers"),
    ],
)  # fmt: skip
def test_what_does_not_fit_an_array_is_refused(data, told, digits):
    with pytest.raises(errors.DataProblem, match=told) as caught:
        digits.predict(data)
    assert len(str(caught.value).splitlines()) <= 3


def test_another_scale_is_a_warning(digits):
    with pytest.warns(UserWarning, match="are they on another scale"):
        digits.predict(np.full((3, 8, 8), 200.0))


def test_an_objective_has_nothing_to_predict():
    run = api.train(dataset="none", **BRIEF | {"model": "quadratic"})
    assert run.model is not None
    with pytest.raises(errors.UserError, match="trained on an objective"):
        run.predict([1, 2])


def test_a_run_needs_no_data_to_predict():
    """The model and its inputs come from the run folder; the table that it was trained on may be gone."""
    run = trained(Path.cwd(), "kind", "price")
    wanted = run.predict(NEW).outputs
    Path("t.csv").unlink()
    np.testing.assert_array_equal(api.load(run.path).predict(NEW).outputs, wanted)


@pytest.mark.parametrize(
    "words",
    [
        ["model=cnn", "regularization=[dropout]", "averaging=ema"],
        ["model=resnet20", "initializer=orthogonal"],
        ["model=mlp", "model.norm=batch", "wrap=[lookahead]"],
        ["model=vit_tiny"],
    ],
)
def test_models_are_those_that_were_scored(words):
    """Built without the data, a model has the weights, buffers and outputs of the one that `evaluate` builds."""
    run = api.train(*words, steps=3, quiet=True)
    from dltrain.run import scoring

    config, door = run._built_from
    contract = scoring.read_contract(run.path)
    parts, _ = scoring.build_scored(config, door, run.path, contract, whole=False)
    scoring.load_best(parts, run.path)
    parts.model.eval()
    pixels = torch.rand(4, 1, 8, 8)
    normal = (pixels - parts.spec.mean) / parts.spec.std
    with torch.inference_mode():
        wanted = parts.model(normal)
    np.testing.assert_allclose(run.predict(pixels).outputs, wanted.numpy(), rtol=1e-4, atol=1e-5)
