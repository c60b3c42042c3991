"""`dltrain evaluate RUN dataset.path=OTHER` holds another file to what the run was trained on (data.json)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import Run
from PIL import Image

from dltrain.config.compose import open_catalogue
from dltrain.config.door import door_for_saved
from dltrain.config.saved import read
from dltrain.data.contract import Contract, check_columns
from dltrain.data.errors import DataError
from dltrain.errors import CheckpointProblem, DataProblem
from dltrain.run import scoring

ROWS = 200
Row = dict[str, object]
BRIEF = ("steps=60", "lr=0.02", "early_stopping=none", "model=linear")
KINDS = ("dataset=csv", "dataset.path=t.csv", "dataset.target=kind", "dataset.split_column=part", *BRIEF)
PRICES = (
    "dataset=csv",
    "dataset.path=t.csv",
    "dataset.target=price",
    "dataset.drop=[kind]",
    "dataset.split_column=part",
    *BRIEF,
)


def write(name: str, change: Callable[[Row], Row] = lambda row: row, names: tuple[str, ...] = ()) -> None:
    draw = np.random.default_rng(3)
    rows: list[Row] = []
    for i in range(ROWS):
        age, color, kind = (
            round(draw.normal(40, 9), 2),
            ("red", "green", "blue")[i % 3],
            ("ant", "bee", "cat")[i // 3 % 3],
        )
        price = 3e5 + 4e3 * age + 1e4 * (i % 3) + 5e4 * (i // 3 % 3)
        part = ("train", "train", "val", "test")[i // 9 % 4]
        row: Row = {
            "age": age + 30 * (kind == "bee"),
            "size": 1e3 + i % 11 + 20 * (kind == "cat"),
            "color": color,
        }
        rows.append(change(row | {"kind": kind, "price": price, "part": part}))
    order = names or tuple(rows[0])
    lines = [",".join("" if row[key] is None else str(row[key]) for key in order) for row in rows]
    Path(name).write_text("\n".join([",".join(order), *lines]) + "\n")


@pytest.fixture
def table(workdir: Path) -> None:
    write("t.csv")


def scores(run: Run, *overrides: str) -> dict[str, dict[str, float]]:
    config = read(run.path, open_catalogue(), list(overrides))
    found = scoring.score_runs(
        [run.path],
        [config],
        [door_for_saved(config, open_catalogue(), list(overrides))],
        whole=bool(overrides),
    )
    return {score.split: score.values for score in found}


@pytest.mark.parametrize("words", [KINDS, PRICES], ids=["classes", "quantities"])
def test_columns_are_matched_by_name(train, table, capsys, words):
    run = train(*words)
    here = scores(run)
    assert capsys.readouterr().err == ""
    write("o.csv", lambda row: row | {"extra": 7}, ("part", "price", "extra", "color", "kind", "size", "age"))
    assert scores(run, "dataset.path=o.csv") == here
    write(
        "o.csv",
        lambda row: row | {"color": {"red": "red", "green": "red", "blue": "blue"}[str(row["color"])]},
    )
    assert scores(run, "dataset.path=o.csv") != here  # levels of the run, though green is gone
    assert "is scored on other data" in capsys.readouterr().err


def test_scores_are_those_of_the_formula_with_the_statistics_of_the_run(train, table):
    """Every value of another file moved by 5: centers, deviations and the scale of the target stay."""
    run = train(*PRICES, "dataset.features=[age]", "dataset.drop=[]")
    write(
        "o.csv",
        lambda row: row | {"age": float(str(row["age"])) + 5, "price": float(str(row["price"])) + 7000},
    )
    text = [line.split(",") for line in Path("t.csv").read_text().splitlines()[1:]]
    age, price = (np.array([float(line[i]) for line in text]) for i in (0, 4))
    part = np.array([line[5] for line in text])
    weight, bias = (float(run.best_weights[f"head.{name}"]) for name in ("weight", "bias"))
    first = part == "train"
    outputs = (weight * (age + 5 - age[first].mean()) / age[first].std() + bias) * price[first].std() + price[
        first
    ].mean()
    errors = outputs - price - 7000
    found = scores(run, "dataset.path=o.csv")["all"]
    assert found["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-4)
    assert found["loss"] == pytest.approx((errors**2).mean(), rel=1e-4)


def test_missing_values_are_filled_by_the_run(train, table):
    run = train(*PRICES)
    contract = json.loads((run.path / "data.json").read_text())
    fill = next(rule["fill"] for rule in contract["columns"] if rule["name"] == "age")
    write("holes.csv", lambda row: row | {"age": None})
    write("filled.csv", lambda row: row | {"age": fill})
    assert scores(run, "dataset.path=holes.csv") == scores(run, "dataset.path=filled.csv")


REFUSED: dict[str, tuple[Callable[[Row], Row], str]] = {
    "a renamed class": (lambda row: row | {"kind": "bea" if row["kind"] == "bee" else row["kind"]}, "holds 'bea', which is none of"),
    "all classes renamed": (lambda row: row | {"kind": f"x{row['kind']}"}, "which is none of the classes 'ant', 'bee', 'cat'"),
    "a renamed column": (lambda row: {{"age": "years"}.get(k, k): v for k, v in row.items()}, "lacks 'age'"),
    "no target": (lambda row: {k: v for k, v in row.items() if k != "kind"}, "lacks 'kind'"),
    "text among numbers": (lambda row: row | {"age": "old"}, "column 'age' holds numbers, but 'old' in row 1 of o.csv"),
}  # fmt: skip


@pytest.mark.parametrize("change, says", REFUSED.values(), ids=REFUSED)
def test_what_differs_is_refused(train, table, change, says):
    run = train(*KINDS)
    write("o.csv", change)
    with pytest.raises(DataProblem) as error:
        scores(run, "dataset.path=o.csv")
    assert says in str(error.value) and error.value.exit_code == 3
    assert len(str(error.value).splitlines()) <= 3


def test_fewer_classes_keep_their_numbers(train, table, capsys):
    """Without ants, bees stay class 1: recoded, nearly every row would be wrong."""
    run = train(*KINDS)
    text = Path("t.csv").read_text().splitlines(keepends=True)
    Path("o.csv").write_text("".join(line for line in text if ",ant," not in line))
    whole, some = scores(run)["test"]["accuracy"], scores(run, "dataset.path=o.csv")["all"]["accuracy"]
    assert whole > 0.9 and some > 0.9


def test_levels_that_the_run_does_not_know_are_told(train, table, capsys):
    run = train(*PRICES)
    write("o.csv", lambda row: row | {"color": "violet"})
    scores(run, "dataset.path=o.csv")
    assert "color: no value of it is in the training split, so that all" in capsys.readouterr().err


def test_classes_of_arrays_are_held_by_name(train, workdir):
    draw = np.random.default_rng(0)
    names = np.array(["ant", "bee", "cat"])[np.arange(120) % 3]
    inputs = draw.normal(size=(120, 4)) + 4 * np.eye(3, 4)[np.arange(120) % 3]
    np.savez("t.npz", inputs=inputs, targets=names)
    run = train("dataset=npz", "dataset.path=t.npz", *BRIEF)
    np.savez("fewer.npz", inputs=inputs[names != "ant"], targets=names[names != "ant"])
    assert scores(run, "dataset.path=fewer.npz")["all"]["accuracy"] > 0.9
    np.savez("renamed.npz", inputs=inputs, targets=np.where(names == "ant", "emu", names))
    with pytest.raises(DataProblem, match="the class 'emu', which is none of those of the run"):
        scores(run, "dataset.path=renamed.npz")


def test_a_run_of_an_earlier_version_scores_as_before(train, table):
    run = train(*KINDS)
    before = scores(run)
    (run.path / "data.json").unlink()
    assert scores(run) == before


def test_a_resumed_run_keeps_its_contract(train, dltrain, table):
    run = train(*PRICES, "steps=8")
    before = (run.path / "data.json").read_bytes()
    assert dltrain("resume", run.path, "steps=16", "quiet=true") == 0
    assert (run.path / "data.json").read_bytes() == before
    assert run.timeless_rows == train(*PRICES, "steps=16").timeless_rows
    assert json.loads(before)["sizes"] == {"train": 108, "val": 47, "test": 45}


@pytest.mark.parametrize("spoil", [
    lambda text: "", lambda text: "[]", lambda text: text.replace('"number"', '"numbers"'), lambda text: text.replace('"format": 1', '"format": 9'),
    lambda text: text.replace('"age"', "3"), lambda text: text[:-40], lambda text: "[" * 100_000,
])  # fmt: skip
def test_a_damaged_contract_is_refused(train, table, spoil):
    run = train(*PRICES, "steps=2")
    file = run.path / "data.json"
    file.write_text(spoil(file.read_text()))
    with pytest.raises(CheckpointProblem, match=r"data\.json"):
        scores(run)


HUGE = 10**400  # no float
NO_RUN_WRITES: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], object]]] = {
    "highs": (KINDS, lambda file: file["columns"][0].update(lows=[0.0], highs=[HUGE])),
    "lows": (KINDS, lambda file: file["columns"][0].update(lows=[-HUGE], highs=[1.0])),
    "quartiles": (KINDS, lambda file: file["columns"][0].update(quartiles=[0.0, HUGE])),
    "three quartiles": (KINDS, lambda file: file["columns"][0].update(quartiles=[0.0, 1.0, 2.0])),
    "fill": (KINDS, lambda file: file["columns"][0].update(fill=HUGE)),
    "no fill": (KINDS, lambda file: file["columns"][0].update(fill=None)),
    "centers": (KINDS, lambda file: file["columns"][0].update(centers=[HUGE])),
    "a center that is no number": (KINDS, lambda file: file["columns"][0].update(centers=[math.nan])),
    "target_mean": (PRICES, lambda file: file.update(target_mean=[HUGE])),
    "target_std": (PRICES, lambda file: file.update(target_std=[HUGE])),
    "two means": (PRICES, lambda file: file.update(target_mean=[1.0, 2.0], target_std=[1.0, 2.0])),
    "one class name": (KINDS, lambda file: file.update(class_names=["ant"])),
    "no class name": (KINDS, lambda file: file.update(class_names=[])),
    "class names by name": (KINDS, lambda file: file.update(class_names={"ant": 1, "bee": 2, "cat": 3})),
    "another task": (KINDS, lambda file: file.update(task="regression")),
    "an objective": (KINDS, lambda file: file.update(task="objective")),
    "no targets": (KINDS, lambda file: file.update(targets=[])),
    "a target of numbers": (KINDS, lambda file: file["targets"][0]["format"].update(kind="number")),
    "a number as a category": (KINDS, lambda file: file["columns"][0]["format"].update(kind="category")),
    "a level less": (KINDS, lambda file: file["columns"][2]["levels"].pop()),
    "a column less": (KINDS, lambda file: file["columns"].pop()),
    "another shape": (KINDS, lambda file: file.update(input_shape=[2**62])),
    "samples without end": (KINDS, lambda file: file["sizes"].update(train=HUGE)),
}  # fmt: skip


@pytest.mark.parametrize("words, change", NO_RUN_WRITES.values(), ids=NO_RUN_WRITES)
def test_a_contract_that_no_run_wrote_is_refused(train, dltrain, table, words, change):
    """With exit code 4 and one line, where a conversion, an index or a shape of numpy or torch ended in a traceback."""
    run = train(*words, "steps=2")
    file = run.path / "data.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    verbs = ("evaluate",) if not content["targets"] else ("predict", "evaluate")
    for verb in verbs:
        with pytest.raises(CheckpointProblem, match=r"data\.json") as refused:
            dltrain(verb, run.path, *["t.csv"] * (verb == "predict"))
        assert refused.value.exit_code == 4 and len(str(refused.value).splitlines()) == 1


SWAPPED: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], object]]] = {
    "classes": (KINDS, lambda file: (file["class_names"].reverse(), file["targets"][0]["levels"].reverse())),
    "levels": (KINDS, lambda file: file["columns"][2]["levels"].reverse()),
    "mean of the targets": (PRICES, lambda file: file.update(target_mean=[0.0])),
    "deviation of the targets": (PRICES, lambda file: file.update(target_std=[1.0])),
}


@pytest.mark.parametrize("words, change", SWAPPED.values(), ids=SWAPPED)
def test_a_contract_with_other_names_or_scales_is_used_by_no_verb(train, dltrain, table, words, change):
    """normalization.safetensors holds their hash: `predict` and `export` gave swapped names where `evaluate` refused."""
    run = train(*words, "steps=2")
    file = run.path / "data.json"
    whole = file.read_text()
    content = json.loads(whole)
    change(content)
    file.write_text(json.dumps(content))
    for command in (
        ("predict", run.path, "t.csv"),
        ("predict", run.path, "--split", "test"),
        ("export", run.path, "--format", "safetensors"),
        ("evaluate", run.path),
    ):
        with pytest.raises(CheckpointProblem, match="than the run was trained on; .*dltrain rerun "):
            dltrain(*command)
    file.write_text(whole)
    assert dltrain("predict", run.path, "t.csv") == 0


def test_a_run_on_images_of_an_earlier_version_goes_on(train, dltrain, workdir):
    """`dataset.image_size` was `dataset.size`, `resize` was `resized`, and the keys of labels were not there."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    for i, array in enumerate(pixels):
        path = workdir / "photos" / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
    images = ("dataset=image_folder", "dataset.root=photos", "dataset.image_size=6", "model=linear")
    whole, run = train(*images, "steps=4"), train(*images, "steps=2")
    newer = ("resize", "labels", "file_column", "target", "split_column", "task")
    for path in (run.path / "config.yaml", run.path / "data.json", *run.path.glob("checkpoints/**/*.json")):
        text = path.read_text()
        if path.suffix == ".yaml":
            content = yaml.safe_load(text)
            content["dataset"] = older(content["dataset"], newer)
            path.write_text(yaml.safe_dump(content, sort_keys=False))
            continue
        content = json.loads(text)
        if "config" in content:
            content["config"] = older(content["config"], [f"dataset.{key}" for key in newer])
        if "resize" in content:
            assert content.pop("resize") == "crop"
            content["resized"] = True
        path.write_text(json.dumps(content))
    assert dltrain("evaluate", run.path) == 0
    assert Contract.from_json((run.path / "data.json").read_text()).resize == "crop"
    assert dltrain("resume", run.path, "steps=4", "quiet=true") == 0
    assert all(weight.equal(whole.best_weights[name]) for name, weight in run.best_weights.items())


def older(keys, newer):
    """Return keys without the newer ones, and with the former name of the size."""
    names = {name: name.replace("image_size", "size") for name in keys if name not in newer}
    return {names[name]: keys[name] for name in names}


def test_images_of_another_size_are_refused_with_a_cure_that_works(train, dltrain, workdir, capsys):
    for i in range(40):
        for folder, size in (("photos", (8, 8)), ("others", (12, 8))):
            path = workdir / folder / "ab"[i % 2] / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size, (i, 2 * i, 3 * i)).save(path)
    run = train("dataset=image_folder", "dataset.root=photos", "model=linear", "steps=2")
    with pytest.raises(
        DataProblem, match="12 wide and 8 high, and the model takes 8 and 8; .*image_size=.8,8."
    ):
        dltrain("evaluate", run.path, "dataset.root=others")
    assert dltrain("evaluate", run.path, "dataset.root=others", "dataset.image_size=[8,8]") == 0


def test_renamed_columns_are_suggested_whatever_their_case():
    found = {"Living_Area": 0, "supportCalls": 0, "other": 0}
    with pytest.raises(DataError) as refusal:
        check_columns(found, ["living area", "support_calls"], "u.csv")
    assert "(did you mean 'Living_Area' for 'living area', 'supportCalls' for 'support_calls'?)" in str(
        refusal.value
    )
