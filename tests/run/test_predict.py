"""`dltrain predict`: what `evaluate` scores, for files of all kinds; broken inputs are reported and the rest is predicted."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import feather, parquet
from torch import Tensor

from dltrain import api, errors
from dltrain.cli import dispatch
from dltrain.commands.complete import candidates, split
from dltrain.run import scoring
from dltrain.run.build import build
from dltrain.run.ensemble import ensemble

Rows = list[dict[str, Any]]
PARTS = ("train", "val", "test", "train")


def rows_of(count: int, seed: int = 3) -> Rows:
    """Return rows with numbers, a category, a date, missing values, two targets, an identifier and a split."""
    draw = np.random.default_rng(seed)
    rows: Rows = []
    for i in range(count):
        age = round(float(draw.normal(40, 9)), 2)
        rows.append(
            {
                "id": f"r{i}",
                "age": "" if i % 17 == 3 else age,
                "color": ("red", "green", "")[i // 2 % 3],
                "sold": f"{2000 + i % 20}-03-0{1 + i % 9}",
                "kind": ("ant", "bee", "cat")[int(age > 36) + int(age > 44)],
                "price": round(3e5 + 4e3 * age + 5e4 * (i % 3), 1),
                "part": PARTS[i % 4],
            }
        )
    return rows


def write(path: Path, rows: Rows, delimiter: str = ",") -> Path:
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def trained(folder: Path, target: str, *words: str) -> Path:
    """Return the folder of a run on 200 rows, the whole file of which is t.csv."""
    path = write(folder / "t.csv", rows_of(200))
    keys = {"dataset.path": path, "dataset.target": target, "dataset.split_column": "part", "output": folder}
    other = "price" if target == "kind" else "kind"
    return api.train(
        *words, dataset="csv", steps=40, lr=0.02, quiet=True, **keys, **{"dataset.drop": [other, "id"]}
    ).path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def kinds(folder: Path) -> Path:
    return trained(folder, "kind")


@pytest.fixture(scope="module")
def prices(folder: Path) -> Path:
    return trained(folder, "price")


def image(seed: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    draw = np.random.default_rng(seed)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    return Image.fromarray(draw.integers(0, 256, shape, np.uint8), mode=None)


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run on a folder of 8×8 images in two classes; the folder is beside it, as `pets`."""
    home = tmp_path_factory.mktemp("pets")
    for i in range(24):
        here = home / "pets" / ("cat", "dog")[i % 2]
        here.mkdir(parents=True, exist_ok=True)
        image(i).save(here / f"{i:02}.png")
    root = {"dataset.root": home / "pets", "output": home}
    return api.train(dataset="image_folder", model="linear", steps=10, quiet=True, **root).path


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return api.train("model=cnn", steps=10, quiet=True, output=tmp_path_factory.mktemp("digits")).path


Predict = Callable[..., tuple[int, str, str]]


@pytest.fixture
def predict(workdir: Path, capsys: pytest.CaptureFixture[str]) -> Predict:
    """Run the verb; return the exit code, stdout and stderr."""

    def run(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        code = dispatch(["predict", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def read_csv(text: str) -> Rows:
    return list(csv.DictReader(io.StringIO(text)))


# Equal to evaluate ------------------------------------------------------------------------------------------------


def scored(run: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Return outputs and targets of val and test as `evaluate` has them."""
    config, door = api.load(run)._saved([])
    parts, plan = scoring.build_scored(config, door, run, scoring.read_contract(run), whole=False)
    scoring.load_best(parts, run)
    found = {}
    for name, part in parts.splits.items():
        passes, targets = scoring.predict(parts, plan, part)
        found[name] = passes[0], targets
    return found


def test_outputs_of_a_table_equal_those_of_evaluate_to_the_bit(kinds, prices, workdir):
    for run in (kinds, prices):
        for name, (outputs, targets) in scored(run).items():
            path = write(workdir / "part.csv", [row for row in rows_of(200) if row["part"] == name])
            found = api.load(run).predict(path)
            assert torch.equal(torch.from_numpy(found.outputs), outputs)
            if found.contract.task == "regression":
                units = found.contract.target_scale.to_units(outputs)
                assert torch.equal(torch.from_numpy(found.values), units)
            else:
                assert len(targets) == len(found)


def test_outputs_of_images_equal_those_of_evaluate_to_the_bit(digits):
    from sklearn.datasets import load_digits

    loaded = api.load(digits)
    config, door = loaded._saved([])
    splits = build(config, door)[0]
    scale, shift = splits.spec.std, splits.spec.mean
    raw = torch.from_numpy(load_digits().images.astype(np.float32) / 16)[:, None]
    by_bits = {((image - shift) / scale).round(decimals=3).numpy().tobytes(): image for image in raw}
    val = splits.val.inputs
    images = torch.stack([by_bits[image.round(decimals=3).numpy().tobytes()] for image in val])
    assert torch.equal(torch.from_numpy(loaded.predict(images).outputs), scored(digits)["val"][0])


def test_the_score_of_the_printed_numbers_is_that_of_evaluate(kinds, prices, predict, folder):
    for run, target in ((kinds, "kind"), (prices, "price")):
        code, out, _ = predict(run, folder / "t.csv", "--keep", f"{target},part", "--output", "-")
        assert code == 0
        rows = read_csv(out)
        scores = api.load(run).evaluate()
        for name in ("val", "test"):
            chosen = [row for row in rows if row["part"] == name]
            if target == "kind":
                right = [row["label"] == row["kind"] for row in chosen]
                losses = [-np.log(float(row[f"p({row['kind']})"])) for row in chosen]
                assert np.mean(right) == pytest.approx(scores[name]["accuracy"], abs=1e-12)
                assert np.mean(losses) == pytest.approx(scores[name]["loss"], rel=1e-5)
            else:
                misses = [abs(float(row["price"]) - float(row["price_"])) for row in chosen]
                assert np.mean(misses) == pytest.approx(scores[name]["mae"], rel=1e-6)


def test_several_runs_are_the_ensemble_of_evaluate(predict, workdir, folder, kinds, capsys):
    others = [trained(workdir, "kind", "seed=7"), trained(workdir, "kind", "seed=8", "loss=bce")]
    for other in others:
        code, out, _ = predict(kinds, other, folder / "t.csv", "--keep", "kind,part", "--output", "-")
        assert code == 0
        dispatch(["evaluate", "--json", str(kinds), str(other)])
        scores = json.loads(capsys.readouterr().out)["scores"]
        rows = read_csv(out)
        for score in [score for score in scores if score["run"] == "ensemble of 2"]:
            chosen = [row for row in rows if row["part"] == score["split"]]
            losses = [-np.log(float(row[f"p({row['kind']})"])) for row in chosen]
            right = [row["label"] == row["kind"] for row in chosen]
            assert np.mean(losses) == pytest.approx(score["values"]["loss"], rel=1e-5)
            assert np.mean(right) == pytest.approx(score["values"]["accuracy"], abs=1e-12)


def test_every_row_of_another_file_has_the_score_of_evaluate(kinds, predict, workdir, capsys):
    path = write(workdir / "new.csv", [row | {"part": "train"} for row in rows_of(90, seed=21)])
    rows = read_csv(predict(kinds, path, "--keep", "kind", "--output", "-")[1])
    dispatch(["evaluate", "--json", str(kinds), f"dataset.path={path}"])
    (score,) = json.loads(capsys.readouterr().out)["scores"]
    assert score["samples"] == len(rows) == 90
    losses = [-np.log(float(row[f"p({row['kind']})"])) for row in rows]
    assert np.mean(losses) == pytest.approx(score["values"]["loss"], rel=1e-5)


def test_an_ensemble_of_quantities_is_their_mean_in_real_units(prices, workdir):
    """Runs whose targets were standardized differently are averaged in the units of the file."""
    rows = [row | {"price": row["price"] * 2 + 5} for row in rows_of(120, seed=9)]
    path = write(workdir / "u.csv", rows)
    keys = {"dataset.path": path, "dataset.target": "price", "dataset.drop": ["kind", "id", "part"]}
    other = api.train(dataset="csv", steps=20, quiet=True, **keys)
    predictors = [api.load(run)._predictor for run in (prices, other.path)]
    members = [predictor(str(path)) for predictor in predictors]
    found = ensemble(predictors, members)
    np.testing.assert_allclose(found.values, (members[0].values + members[1].values) / 2, rtol=1e-12)
    assert found.names == ("price",)


# Forms ------------------------------------------------------------------------------------------------------------


def test_every_form_of_a_table_gives_the_same(kinds, predict, workdir, monkeypatch):
    rows = rows_of(12, seed=5)
    files = [write(workdir / "a.csv", rows), write(workdir / "b.tsv", rows, "\t")]
    columns = {name: [row[name] if row[name] != "" else None for row in rows] for name in rows[0]}
    parquet.write_table(pa.table(columns), workdir / "c.parquet")
    feather.write_feather(pa.table(columns), str(workdir / "d.arrow"))
    shuffled = [{k: v for k, v in reversed(row.items()) if k != "kind"} | {"new": 1} for row in rows]
    files += [workdir / "c.parquet", workdir / "d.arrow", write(workdir / "e.csv", shuffled)]
    code, wanted, notes = predict(kinds, files[0], "--output", "-")
    assert code == 0
    assert "unused   columns of a.csv: id, price, part" in notes
    for file in files[1:]:
        assert predict(kinds, file, "--output", "-")[1] == wanted, file
    text = io.TextIOWrapper(io.BytesIO((workdir / "a.csv").read_bytes()))
    monkeypatch.setattr(sys, "stdin", text)
    code, out, notes = predict(kinds, "-", "--output", "-")
    assert out == wanted
    assert "columns of standard input" in notes


def test_every_output_holds_the_same(kinds, predict, workdir):
    rows = rows_of(30, seed=6)
    path = write(workdir / "new.csv", rows)
    code, page, _ = predict(kinds, path, "--keep=id", "--output", "p.csv")
    assert (code, page) == (0, "30 predictions in p.csv\n")
    flat = read_csv((workdir / "p.csv").read_text())
    assert list(flat[0]) == ["row", "id", "label", "p(ant)", "p(bee)", "p(cat)"]
    assert [row["row"] for row in flat] == [str(i) for i in range(1, 31)]
    assert [row["id"] for row in flat] == [row["id"] for row in rows]
    found = api.load(kinds).predict(str(path))
    assert [row["label"] for row in flat] == found.labels.tolist()
    printed = np.array([[float(row[f"p({name})"]) for name in ("ant", "bee", "cat")] for row in flat])
    assert (printed == found.probabilities).all()
    predict(kinds, path, "--output", "p.parquet", "--keep", "id")
    table = parquet.read_table("p.parquet").to_pydict()
    assert table == {name: [type(table[name][0])(row[name]) for row in flat] for name in flat[0]}
    predict(kinds, path, "--output", "p.json")
    _, out, _ = predict(kinds, path, "--json")
    document = json.loads(out)
    assert document == json.loads((workdir / "p.json").read_text())
    assert document["classes"] == ["ant", "bee", "cat"]
    assert document["samples"] == 30
    assert document["broken"] == []
    first = document["predictions"][0]
    assert first["row"] == 1
    assert first["label"] == flat[0]["label"]
    assert list(first["probabilities"].values()) == printed[0].tolist()
    told = json.loads(predict(kinds, path, "--json", "--output", "q.csv")[1])
    assert told["output"] == "q.csv"
    assert "predictions" not in told


def test_the_terminal_shows_some_rows_and_says_how_many_there_are(kinds, prices, digits, predict, workdir):
    path = write(workdir / "new.csv", rows_of(50, seed=6))
    _, page, _ = predict(kinds, path)
    assert "p(bee)" in page
    assert "50 rows, 20 shown; all of them: --output FILE.csv" in page
    assert len([line for line in page.splitlines() if line.strip()[:1].isdigit()]) == 21
    assert "row" in predict(prices, write(workdir / "few.csv", rows_of(3)))[1]
    np.save("d.npy", np.zeros((3, 1, 8, 8), np.float32))
    _, page, _ = predict(digits, "d.npy")
    # ten classes: the label and its probability
    assert page.split()[:3] == ["row", "label", "p"]


def test_names_of_columns_that_meet_are_told_apart(predict, workdir):
    rows = [{"row": i / 7, "label": "ab"[i % 2]} for i in range(40)]
    path = write(workdir / "t.csv", rows)
    keys = {"dataset.path": path, "dataset.target": "label"}
    run = api.train(dataset="csv", model="linear", steps=2, quiet=True, **keys)
    _, out, _ = predict(run.path, path, "--keep", "row,label", "--output", "-")
    assert out.splitlines()[0] == "row,row_,label_,label,p(a),p(b)"


# Broken inputs ----------------------------------------------------------------------------------------------------


def test_broken_rows_are_reported_and_the_rest_is_predicted(kinds, predict, workdir):
    rows = rows_of(9, seed=5)
    whole = predict(kinds, write(workdir / "whole.csv", rows), "--output", "-")[1].splitlines()
    rows[2]["age"] = "old"
    rows[6]["sold"] = "soon"
    lines = write(workdir / "new.csv", rows).read_text().splitlines()
    lines[5] += ",7"
    lines.insert(3, "")
    Path("new.csv").write_text("\n".join(lines))
    code, out, told = predict(kinds, "new.csv", "--output", "-")
    assert code == 3
    found = [line.split(",") for line in out.splitlines()]
    wanted = [line.split(",") for i, line in enumerate(whole) if i not in (3, 5, 7)]
    assert [line[:2] for line in found] == [line[:2] for line in wanted]
    # a smaller batch may be summed in another order
    for one, other in zip(found[1:], wanted[1:], strict=True):
        assert [float(p) for p in one[2:]] == pytest.approx([float(p) for p in other[2:]], rel=1e-6)
    assert "dltrain: row 3 of new.csv (line 5) is left out: column 'age' holds numbers, but 'old'\n" in told
    assert "dltrain: row 5 of new.csv (line 7) is left out: it has 8 values for 7 columns" in told
    assert (
        "dltrain: row 7 of new.csv (line 9) is left out: column 'sold' holds dates (iso), but 'soon'" in told
    )
    cure = "words    of rows that are left out: to keep these rows, call these missing: dataset.missing_words=[old,soon]"
    assert f"dltrain: {cure}\n" in told
    code, out, told = predict(kinds, "new.csv", "--output", "-", cure.rpartition(" ")[2])
    assert code == 3 and len(out.splitlines()) == len(whole) - 1 and "words" not in told
    document = json.loads(predict(kinds, "new.csv", "--json")[1])
    assert [item["row"] for item in document["broken"]] == [3, 5, 7]
    assert [item["row"] for item in document["predictions"]] == [1, 2, 4, 6, 8, 9]
    # the API refuses, unless it is asked to leave them out
    with pytest.raises(errors.DataProblem, match=r"row 5 of new.csv \(line 7\) has 8 values for 7 columns"):
        api.load(kinds).predict("new.csv")
    with pytest.warns(UserWarning, match="words    of rows that are left out"):
        found = api.load(kinds).predict("new.csv", skip_broken=True)
    assert found.where.tolist() == [1, 2, 4, 6, 8, 9]
    assert [item.where for item in found.broken] == [3, 5, 7]


def test_many_broken_rows_are_counted(kinds, predict, workdir):
    rows = [row | {"age": "old" if i else 3} for i, row in enumerate(rows_of(40))]
    code, _, told = predict(kinds, write(workdir / "new.csv", rows))
    assert code == 3
    assert told.count("is left out") == 20
    assert "dltrain: 19 more are left out; all of them: --json" in told


def test_a_file_of_which_nothing_can_be_read_is_refused(kinds, predict, workdir):
    write(workdir / "new.csv", [row | {"age": "old"} for row in rows_of(5)])
    with pytest.raises(errors.DataProblem, match="column 'age' holds numbers, but 'old' in row 1 of"):
        predict(kinds, "new.csv", "--output", "p.csv")
    Path("new.csv").write_text("id,age,color,sold,kind\n1,2\n")
    with pytest.raises(errors.DataProblem, match="nothing can be predicted; the first of 1: row 1: it has 2"):
        predict(kinds, "new.csv", "--output", "p.csv")
    assert not Path("p.csv").exists()


def test_levels_that_the_training_did_not_have_are_named(kinds, predict, workdir):
    rows = [row | {"color": "mauve"} for row in rows_of(4)]
    code, _, told = predict(kinds, write(workdir / "new.csv", rows))
    assert code == 3
    assert (
        "foreign  color: no value of it is in the training split, so that all 4 rows with one count" in told
    )
    rows[1]["color"] = rows_of(4)[1]["color"]
    code, _, told = predict(kinds, write(workdir / "new.csv", rows))
    assert code == 0 and "unseen   color: 1 level in 3 of 4 rows is not in the training split" in told


# Images and arrays ------------------------------------------------------------------------------------------------


def test_images_and_folders_of_images(pets, predict, workdir):
    (workdir / "new" / "deep").mkdir(parents=True)
    image(1).save("new/a.png")
    image(2).save("new/deep/b.bmp")
    image(3, mode="L").save("new/grey.png")
    image(4, (9, 7)).save("new/large.png")
    Path("new/broken.jpg").write_bytes(b"\xff\xd8\xff")
    Path("new/notes.txt").write_text("text")
    code, out, told = predict(pets, "new", "--output", "-")
    assert code == 3
    rows = read_csv(out)
    assert [row["file"] for row in rows] == ["new/a.png", "new/grey.png", "new/deep/b.bmp"]
    assert "unused   of new: 1 file that is no image (notes.txt)" in told
    assert "new/broken.jpg is left out: cannot use it (not an image, or damaged)" in told
    assert (
        "new/large.png is left out: cannot use it (9 wide and 7 high); the model takes images 8 wide and 8 high; crop or scale it"
        in told
    )
    pixels = np.stack([np.asarray(Image.open(row["file"]).convert("RGB")) for row in rows]).transpose(
        0, 3, 1, 2
    )
    found = api.load(pets).predict(pixels)
    assert [float(row["p(cat)"]) for row in rows] == found.probabilities[:, 0].tolist()
    np.savez("pixels.npz", inputs=np.moveaxis(pixels, 1, 3))
    _, out, _ = predict(pets, "pixels.npz", "new/a.png", "--output", "-")
    assert [row["p(cat)"] for row in read_csv(out)[:3]] == [row["p(cat)"] for row in rows]
    assert [(row["file"], row["row"]) for row in read_csv(out)][2:] == [
        ("pixels.npz", "3"),
        ("new/a.png", ""),
    ]
    with pytest.raises(errors.DataProblem, match=r"large.png \(9 wide and 7 high\)"):
        api.load(pets).predict("new/large.png")


def test_a_broken_image_among_others_that_are_named_is_left_out(pets, predict, workdir):
    """`photos/*.jpg` names each file; of one that is broken alone nothing is left."""
    Path("broken.jpg").write_bytes(b"\xff\xd8\xff")
    good = sorted(str(file) for file in (pets.parents[1] / "pets").rglob("*.png"))[:2]
    code, _, told = predict(pets, good[0], "broken.jpg", good[1], "--output", "p.csv")
    assert code == 3 and "broken.jpg is left out" in told
    assert [row["file"] for row in csv.DictReader(open("p.csv"))] == good
    with pytest.raises(errors.DataProblem, match="nothing can be predicted; the first of 2: broken.jpg: "):
        predict(pets, "broken.jpg", "broken.jpg")


def test_a_run_that_scales_its_images_scales_others_alike(pets, workdir):
    root = {"dataset.root": pets.parents[1] / "pets", "dataset.image_size": 6, "dataset.color": "grey"}
    run = api.train(dataset="image_folder", model="linear", steps=2, quiet=True, **root)
    assert run.predict(pets.parents[1] / "pets").outputs.shape == (24, 2)
    image(4, (30, 20)).save("large.jpg")
    assert len(run.predict("large.jpg")) == 1
    contract = json.loads((run.path / "data.json").read_text())
    assert (contract["resize"], contract["in_bytes"], contract["input_shape"]) == ("crop", True, [1, 6, 6])


def test_images_of_any_kind_are_read_as_in_the_training(workdir):
    """Turned, gray, transparent, deep and palette images: `predict` equals `evaluate`, and both what numpy makes of them."""
    source = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    for i in range(20):
        for name in ("a", "b"):
            (workdir / "new" / name).mkdir(parents=True, exist_ok=True)
            image(i, (12, 8)).save(f"new/{name}/{i:02}.png")
    images = {
        "turned.png": (Image.fromarray(np.ascontiguousarray(np.rot90(source))), {"exif": turned}),
        "deep.png": (Image.fromarray(source[:, :, 0].astype(np.uint16) * 257), {}),
        "clear.png": (Image.fromarray(np.dstack([source, np.zeros((8, 12), np.uint8)])), {}),
        "ink.tif": (Image.fromarray(255 - np.dstack([source, np.full((8, 12), 255, np.uint8)]), "CMYK"), {}),
    }
    truth = [source, source[:, :, :1].repeat(3, 2), np.full_like(source, 255), source]
    for name, (picture, how) in images.items():
        picture.save(f"new/b/{name}", **how)
    root = {"dataset.root": "new", "dataset.test_fraction": 0}
    run = api.train(dataset="image_folder", model="linear", steps=3, quiet=True, **root)
    outputs = [run.predict(f"new/b/{name}").outputs[0] for name in images]
    wanted = run.predict(np.stack(truth).transpose(0, 3, 1, 2)).outputs
    np.testing.assert_allclose(outputs, wanted, rtol=1e-5, atol=1e-6)
    # other data: one image more
    image(99, (12, 8)).save("new/a/99.png")
    whole = run.predict("new")
    loss = -np.log(whole.probabilities[np.arange(45), [int("/b/" in file) for file in whole.where]])
    with pytest.warns(UserWarning, match="have changed since"):
        assert run.evaluate("dataset.root=new")["all"]["loss"] == pytest.approx(loss.mean(), rel=1e-5)
    Image.fromarray(source[:, :9]).save("other.png")
    with pytest.raises(
        errors.DataProblem,
        match=r"other.png \(9 wide and 8 high\); the model takes images 12 wide and 8 high",
    ):
        run.predict("other.png")


def test_arrays_with_values_that_are_not_finite(digits, predict, workdir):
    pixels = np.random.default_rng(0).random((5, 8, 8)).astype(np.float32)
    wanted = api.load(digits).predict(pixels[[0, 1, 3, 4]])
    pixels[2, 3, 3] = np.nan
    np.savez("a.npz", pixels)
    np.save("b.npy", pixels)
    for file in ("a.npz", "b.npy"):
        code, out, told = predict(digits, file, "--output", "-")
        assert code == 3
        assert f"row 3 of {file} is left out: it has a value that is not finite" in told
        rows = read_csv(out)
        assert [row["row"] for row in rows] == ["1", "2", "4", "5"]
        found = [[float(row[f"p({name})"]) for name in range(10)] for row in rows]
        np.testing.assert_allclose(found, wanted.probabilities, rtol=1e-12)


def test_bytes_are_refused_by_a_model_of_other_floats(workdir, predict):
    draw = np.random.default_rng(0)
    np.savez("t.npz", inputs=draw.random((40, 8, 8)).astype(np.float32) * 50, targets=np.arange(40) % 2)
    run = api.train(dataset="npz", model="linear", steps=2, quiet=True, **{"dataset.path": "t.npz"})
    image(1, mode="L").save("a.png")
    with pytest.raises(
        errors.DataProblem, match="image files hold bytes, and the model was trained on floats with"
    ):
        predict(run.path, "a.png")


def test_a_column_that_is_empty_throughout_is_foreign(kinds, predict, workdir):
    """It was filled with the median in every row, with exit code 0, though none was missing in the training."""
    rows = rows_of(12, seed=7)
    for row in rows:
        row["sold"] = ""
    code, _, told = predict(kinds, write(workdir / "new.csv", rows))
    assert code == 3
    assert (
        "foreign  sold: no value in any of the 12 rows, and none was missing in the training: filled with"
        in told
    )
    for row in rows:
        row["sold"], row["age"] = "2004-03-05", ""
    code, _, told = predict(kinds, write(workdir / "new.csv", rows))
    assert code == 0 and "missing  age: 12 of 12" in told


def test_a_kept_column_with_the_name_of_the_row_is_told(kinds, predict, workdir):
    rows = [row | {"row": i} for i, row in enumerate(rows_of(6, seed=7))]
    _, out, told = predict(kinds, write(workdir / "new.csv", rows), "--keep", "row", "--output", "-")
    assert out.startswith("row,row_,label")
    assert "kept     column row of the table is row_ here: row is the number of the row" in told


def test_floats_are_fractions_for_a_model_of_bytes_and_nothing_else(pets, predict, workdir):
    bytes_ = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), np.uint8)
    np.savez("bytes.npz", inputs=bytes_)
    np.savez("unit.npz", inputs=(bytes_ / 255).astype(np.float32))
    np.savez("wide.npz", inputs=bytes_.astype(np.float32))
    outs = {}
    for name in ("bytes", "unit"):
        code, out, told = predict(pets, f"{name}.npz", "--output", "-")
        assert code == 0 and ("1 is a byte of 255" in told) is (name == "unit")
        outs[name] = np.array([[float(v) for k, v in row.items() if k[:2] == "p("] for row in read_csv(out)])
    np.testing.assert_allclose(outs["bytes"], outs["unit"], atol=1e-5)
    with pytest.raises(
        errors.DataProblem, match="the images are floats from 0 to 255, and the model was trained on bytes"
    ):
        predict(pets, "wide.npz")


def test_a_single_picture_is_refused_with_its_own_shape(pets, predict, workdir):
    np.save("one.npy", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(
        errors.DataProblem, match=r"one.npy has shape \(8, 8, 3\), .*moveaxis\(data, -1, 0\)\[None\]"
    ):
        predict(pets, "one.npy")


# Refusals ---------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[list[str], str, int]] = {
    "nothing": ([], "Name a run folder, and what to predict: dltrain predict", 2),
    "no input": (["{kinds}"], "Name what to predict: a table", 2),
    "no run": (["a.csv"], "a.csv is no run folder: it has no config.yaml. Name one first: dltrain predict", 4),
    "folder of runs": (["{runs}", "a.csv"], "is no run folder: it has no config.yaml. Its newest run: ", 4),
    "no file": (["{kinds}", "nowhere.csv"], "nowhere.csv is neither a run folder nor a file", 3),
    "option": (["{kinds}", "a.csv", "--outptu=x.csv"], "Did you mean `--output`", 2),
    "no value": (["{kinds}", "a.csv", "--output"], "`--output` needs a value: FILE.csv", 2),
    "ending": (["{kinds}", "a.csv", "--output", "x.xlsx"], "must end in .csv, .parquet or .json", 2),
    "no folder": (["{kinds}", "a.csv", "--output", "no/x.csv"], "mkdir -p no", 2),
    "input": (["{kinds}", "a.csv", "--output", "a.csv"], "a.csv, which is also an input", 2),
    "its data": (["{kinds}", "a.csv", "--output", "{data}"], "t.csv, `dataset.path` of .*Name another file", 2),
    "its record": (["{kinds}", "a.csv", "--output", "{kinds}/metrics.csv"], "metrics.csv, a record of .*Name another file", 2),
    "both": (["{kinds}", "a.csv", "--output", "-", "--json"], "both write to standard output", 2),
    "twice": (["{kinds}", "-", "-"], "`-` is named twice", 2),
    "keep": (["{kinds}", "a.csv", "--keep", "ide"], r"names 'ide', which is no column of a.csv \(did you mean 'id'", 3),
    "keep of images": (["{digits}", "d.npy", "--keep", "id"], "d.npy has no columns", 3),
    "missing": (["{kinds}", "less.csv"], "less.csv lacks 'age' of the columns that the model was trained on; it has 'id'", 3),
    "array": (["{kinds}", "d.npy"], "d.npy has no columns, and the model takes the columns of a table", 3),
    "table": (["{digits}", "a.csv"], "a.csv is a table, and the model takes images of 8×8 pixels", 3),
    "shape": (["{digits}", "wide.npy"], r"wide.npy has shape \(2, 9, 8\), and the model takes", 3),
    "no image": (["{pets}", "empty"], "no image in empty; endings read: .jpg", 3),
    "knob": (["{kinds}", "a.csv", "lr=3x"], "lr", 2),
    "task": (["{kinds}", "{prices}", "a.csv"], "are no ensemble: the first is a classification, the second a regression", 2),
    "classes": (["{digits}", "{pets}", "d.npy"], "are no ensemble: they predict '0', '1'", 2),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_predicted_is_refused(case, folder, kinds, prices, pets, digits, predict, workdir):
    rows = rows_of(3)
    write(workdir / "a.csv", rows)
    write(workdir / "less.csv", [{k: v for k, v in row.items() if k != "age"} for row in rows])
    np.save("d.npy", np.zeros((3, 1, 8, 8), np.float32))
    np.save("wide.npy", np.zeros((2, 9, 8), np.float32))
    (workdir / "empty").mkdir()
    places = {"kinds": kinds, "prices": prices, "pets": pets, "digits": digits, "runs": kinds.parent}
    places["data"] = folder / "t.csv"
    arguments, told, code = REFUSED[case]
    before = sorted(workdir.iterdir())
    with pytest.raises(errors.UserError, match=told) as caught:
        predict(*(text.format(**places) for text in arguments))
    assert caught.value.exit_code == code
    assert len(str(caught.value).splitlines()) <= 3
    assert sorted(workdir.iterdir()) == before


def test_a_study_problem_and_an_unfinished_run_are_refused(predict, workdir, kinds):
    run = api.train(dataset="none", model="quadratic", steps=2, quiet=True)
    write(workdir / "a.csv", rows_of(3))
    with pytest.raises(errors.UserError, match="it was trained on an objective, which has no inputs"):
        predict(run.path, "a.csv")
    unfinished = workdir / "unfinished"
    unfinished.mkdir()
    for name in ("config.yaml", "data.json", "checkpoints/normalization.safetensors"):
        (unfinished / name).parent.mkdir(exist_ok=True)
        (unfinished / name).write_bytes((kinds / name).read_bytes())
    with pytest.raises(errors.CheckpointProblem, match="has no checkpoints/best.safetensors"):
        predict(unfinished, "a.csv")


def test_help_and_the_tab_key_show_how(capsys, workdir):
    dispatch(["predict", "--help"])
    page = capsys.readouterr().out
    assert "dltrain predict RUN… FILE…" in page
    assert "--output FILE.csv|.parquet|.json" in page
    assert max(map(len, page.splitlines())) <= 120
    Path("new.csv").write_text("")
    assert "new.csv" in candidates(*split("dltrain predict n"))


@pytest.mark.slow
def test_ten_thousand_images_take_two_seconds(workdir, predict):
    pixels = np.random.default_rng(0).integers(0, 256, (10_000, 28, 28), np.uint8)
    np.savez("t.npz", inputs=pixels, targets=np.arange(10_000) % 10)
    Path("images").mkdir()
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(f"images/{i:05}.png")
    run = api.train(dataset="npz", steps=2, quiet=True, **{"dataset.path": "t.npz"})
    for data in ("t.npz", "images"):
        start = time.process_time()
        assert predict(run.path, data, "--output", "p.csv")[0] == 0
        assert time.process_time() - start < 2


def test_labels_in_parquet_have_the_type_of_the_target(predict, workdir):
    from pyarrow import parquet

    types = {"few": (1, 2), "truth of it": ("True", "False"), "kind": ("ant", "bee"), "half": ("0.5", "1.5")}
    rows = [
        {"size": i % 7 + i / 10} | {name: (values * 2)[i // 2 % 2] for name, values in types.items()}
        for i in range(60)
    ]
    found = {}
    for name in types:
        keys = {
            "dataset.path": write(workdir / "t.csv", rows),
            "dataset.target": name,
            "dataset.features": ["size"],
        }
        run = api.train(
            "model=linear", dataset="csv", steps=1, quiet=True, **keys, **{"dataset.task": "classification"}
        ).path
        _, said, _ = predict(run, "--split", "test", "--output", "p.parquet")
        table = parquet.read_table("p.parquet").to_pydict()
        found[name] = {type(value) for column in ("truth", "label") for value in table[column]}
        assert set(table["truth"]) == {1, 2} if name == "few" else len(set(table["truth"])) == 2
        one = write(workdir / "one.csv", rows[:1])
        assert "1 prediction in p.csv" in predict(run, one, "--output", "p.csv")[1]
    assert found == {"few": {int}, "truth of it": {bool}, "kind": {str}, "half": {float}}


def test_kept_numbers_stay_numbers_and_a_renamed_column_is_told(prices, predict, workdir):
    from pyarrow import parquet

    rows = [row | {"id": f"{i}", "code": f"00{i}", "half": f"{i}.5"} for i, row in enumerate(rows_of(6))]
    path = write(workdir / "new.csv", rows)
    keep = ("--keep", "id,code,half,price")
    _, _, said = predict(prices, path, *keep, "--output", "p.parquet")
    assert "kept     column price of the table is price_ here: price is the prediction" in said
    table = parquet.read_table(workdir / "p.parquet").to_pydict()
    assert table["id"] == list(range(6)) and table["half"] == [i + 0.5 for i in range(6)]
    assert table["code"][1] == "001" and isinstance(table["price_"][0], float)
    predict(prices, path, *keep, "--output", "p.json")
    kept = json.loads((workdir / "p.json").read_text())["predictions"][1]["kept"]
    assert kept["id"] == 1 and kept["code"] == "001"
    assert read_csv(predict(prices, path, *keep, "--output", "-")[1])[1]["half"] == "1.5"


def test_a_kept_column_is_not_called_unused(prices, predict, workdir):
    rows = [row | {"id": i, "more": i} for i, row in enumerate(rows_of(6))]
    path = write(workdir / "new.csv", rows)
    _, _, said = predict(prices, path, "--keep", "id", "--output", "p.csv")
    (line,) = (line for line in said.splitlines() if "unused" in line)
    assert "more" in line and "id" not in line.partition("new.csv")[2].replace("kind", "").split(", ")


def test_rows_of_json_are_predicted_and_other_files_are_refused_by_name(kinds, predict, workdir):
    rows = rows_of(6)
    write(workdir / "new.csv", rows)
    (workdir / "new.json").write_text(json.dumps([{k: v for k, v in row.items() if v != ""} for row in rows]))
    (workdir / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    wanted = api.load(kinds).predict("new.csv").outputs
    for name in ("new.json", "new.jsonl"):
        np.testing.assert_array_equal(api.load(kinds).predict(name).outputs, wanted)
        assert predict(kinds, name)[0] == 0
    (workdir / "new.xml").write_text("<a/>")
    with pytest.raises(
        errors.UserError, match="new.xml is a .xml file, and tables are read from CSV, TSV, Parquet"
    ):
        predict(kinds, "new.xml")
