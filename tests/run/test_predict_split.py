"""`dltrain predict RUN --split test`: rows, truth and predictions of a split, with the outputs of `evaluate` to the bit."""

from __future__ import annotations

import csv
import io
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dltrain import api, errors
from dltrain.cli import dispatch
from dltrain.run import scoring

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a table; every fifth row has no target, and is in no split."""
    folder = tmp_path_factory.mktemp("splits")
    draw = np.random.default_rng(0)
    lines = ["id,size,kind,price"]
    for i in range(150):
        size = float(draw.normal(3, 2))
        price = "" if i % 5 == 2 else f"{1.7e9 + 1e3 * size + float(draw.normal()):.2f}"
        kind = "" if i % 5 == 2 else ("ant", "bee")[int(size > 3)]
        lines.append(f"r{i + 1},{size!r},{kind},{price}")
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    return folder


def trained(folder: Path, target: str, *words: str) -> Path:
    drop = ["id", "price" if target == "kind" else "kind"]
    keys: dict[str, Any] = {"dataset.path": folder / "t.csv", "dataset.target": target, "dataset.drop": drop}
    return api.train(*words, dataset="csv", steps=20, quiet=True, output=folder, **keys).path


@pytest.fixture(scope="module")
def kinds(folder: Path) -> Path:
    return trained(folder, "kind")


@pytest.fixture(scope="module")
def prices(folder: Path) -> Path:
    return trained(folder, "price")


@pytest.fixture
def predict(workdir: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        code = dispatch(["predict", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def scored(run: Path) -> dict[str, torch.Tensor]:
    """Return the outputs of val and test as `evaluate` has them."""
    config, door = api.load(run)._saved([])
    parts, plan = scoring.build_scored(config, door, run, scoring.read_contract(run), whole=False)
    scoring.load_best(parts, run)
    return {name: scoring.predict(parts, plan, part)[0][0] for name, part in parts.splits.items()}


@pytest.mark.parametrize("target", ["kind", "price"])
def test_outputs_are_those_of_evaluate_and_rows_those_of_the_file(request, folder, target):
    run = request.getfixturevalue(f"{target}s")
    table = rows_of((folder / "t.csv").read_text())
    loaded, outputs, seen = api.load(run), scored(run), []
    for name in ("train", "val", "test"):
        found = loaded.predict(split=name)
        if name in outputs:
            assert torch.equal(torch.from_numpy(found.outputs), outputs[name])
        seen += found.where.tolist()
        told = [table[row - 1][target] for row in found.where.tolist()]
        assert found.truth is not None
        truth = found.truth.tolist() if target == "kind" else [f"{value:.2f}" for (value,) in found.truth]
        assert told == truth
    # every row with a target is in one split
    assert sorted(seen) == [i + 1 for i in range(150) if i % 5 != 2]


def test_written_files_agree_with_the_scores(predict, kinds, prices):
    for run, target in ((kinds, "kind"), (prices, "price")):
        code, out, _ = predict(run, "--split", "test", "--keep", f"id,{target}", "--output", "-")
        assert code == 0
        rows, score = rows_of(out), api.load(run).evaluate()["test"]
        assert [f"r{row['row']}" for row in rows] == [row["id"] for row in rows]
        if target == "kind":
            assert all(row["truth"] == row["kind"] for row in rows)
            assert np.mean([row["label"] == row["truth"] for row in rows]) == score["accuracy"]
        else:
            errors = [float(row["price"]) - float(row["truth(price)"]) for row in rows]
            assert np.mean(np.abs(errors)) == pytest.approx(score["mae"], rel=1e-6)
    code, out, _ = predict(prices, "--split=val", "--json")
    document = json.loads(out)
    first = document["predictions"][0]
    assert document["samples"] == len(document["predictions"]) and first["file"].endswith("t.csv")
    assert set(first["truth"]) == set(first["values"]) == {"price"}
    assert predict(kinds, "--split", "train")[1].splitlines()[1].split()[:3] == ["row", "truth", "label"]


def test_images_are_named_by_their_files(predict, workdir):
    draw = np.random.default_rng(1)
    for i in range(24):
        place = workdir / "pets" / ("cat", "dog")[i % 2] / f"{i:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8)).save(place)
    run = api.train(dataset="image_folder", model="linear", steps=5, quiet=True, **{"dataset.root": "pets"})
    code, out, _ = predict(run.path, "--split", "test", "--output", "-")
    rows = rows_of(out)
    assert code == 0 and all(Path(row["file"]).parent.name == row["truth"] for row in rows)
    assert torch.equal(torch.from_numpy(run.predict(split="test").outputs), scored(run.path)["test"])


def test_rows_of_a_test_file_are_those_of_that_file(predict, workdir):
    for name, first in (("t.csv", 0), ("u.csv", 100)):
        rows = [f"{first + i}.5,{first + i % 3}" for i in range(30)]
        (workdir / name).write_text("\n".join(["x,y", *rows]) + "\n")
    keys = {"dataset.path": "t.csv", "dataset.test_path": "u.csv", "dataset.target": "y"}
    run = api.train("dataset.task=regression", dataset="csv", steps=2, quiet=True, **keys)
    code, out, _ = predict(run.path, "--split", "test", "--keep", "x", "--output", "-")
    rows = rows_of(out)
    assert code == 0 and [row["row"] for row in rows] == [str(i) for i in range(1, 31)]
    assert [row["x"] for row in rows] == [f"{100 + i}.5" for i in range(30)]


def test_several_runs_are_the_ensemble_of_evaluate(predict, folder, kinds, capsys):
    other = trained(folder, "kind", "seed=3", "loss=bce", "model.hidden=[4]")
    code, out, _ = predict(kinds, other, "--split", "test", "--output", "-")
    assert code == 0
    dispatch(["evaluate", "--json", str(kinds), str(other), "evaluation.bootstrap=0"])
    score = json.loads(capsys.readouterr().out)["scores"][-1]
    rows = rows_of(out)
    losses = [-np.log(float(row[f"p({row['truth']})"])) for row in rows]
    assert np.mean(losses) == pytest.approx(score["values"]["loss"], rel=1e-5)
    elsewhere = trained(folder, "kind", "dataset.split_seed=1")
    with pytest.raises(errors.UserError, match="do not share their test split"):
        predict(kinds, elsewhere, "--split", "test")


def test_runs_of_folds_are_an_ensemble_on_the_test_split_alone(predict, workdir, capsys):
    """Their val splits differ: each run is scored on its own, and the printed ways work."""
    runs = [
        str(api.train("dataset=iris", steps=2, quiet=True, folds=3, fold=fold, seed=0).path)
        for fold in range(3)
    ]
    assert dispatch(["evaluate", "--json", *runs, "evaluation.bootstrap=0"]) == 0
    out, err = capsys.readouterr()
    scores = json.loads(out)["scores"]
    assert [score["split"] for score in scores] == ["val", "test"] * 3 + ["test"]
    assert scores[-1]["run"] == "ensemble of 3"
    assert "the runs do not share their val split (folds, other data" in err and "one by one there" in err
    with pytest.raises(errors.UserError, match="do not share their val split") as refusal:
        predict(*runs, "--split", "val")
    alone, together = (line.partition("dltrain ")[2].split() for line in str(refusal.value).splitlines()[1:])
    assert alone == ["predict", runs[1], "--split", "val"] and predict(*alone[1:])[0] == 0
    assert together == ["predict", *runs, "--split", "test"] and predict(*together[1:])[0] == 0


def test_samples_without_a_file_are_counted(predict, workdir):
    run = api.train("dataset=iris", "dataset.test_fraction=0", steps=2, quiet=True).path
    code, out, _ = predict(run, "--split", "val", "--output", "-")
    found = rows_of(out)
    assert code == 0 and list(found[0])[:3] == ["row", "truth", "label"]
    # the flowers of iris are sorted, 50 of each species
    species = {int(row["row"]): row["truth"] for row in found}
    assert len(species) == len(found) == 15 and set(species) <= set(range(1, 151))
    assert all(
        row["truth"] == ("setosa", "versicolor", "virginica")[(int(row["row"]) - 1) // 50] for row in found
    )
    with pytest.raises(errors.UserError, match=r"has no such split; it has train, val"):
        predict(run, "--split", "test")
    with pytest.raises(errors.DataProblem, match=r"`--keep` is a, and iris has no columns"):
        predict(run, "--split", "val", "--keep", "a")


def test_what_is_refused(predict, kinds, folder, monkeypatch):
    for words, reason in (
        (("--split", "tset"), r"`--split` is tset; it must be train, val or test\. Did you mean `test`\?"),
        (("split=test",), r"`split=test`: the split is an option\. Write --split test"),
        (("--split", "test", folder / "t.csv"), r"t\.csv is other data\. Leave one of them out"),
        (("--split", "test", "dataset.split_seed=3"), r"`dataset\.split_seed` cannot change here"),
        (("--split",), r"`--split` needs a value: test"),
        ((), r"of the data of the training: --split test"),
    ):
        with pytest.raises(errors.UserError, match=reason):
            predict(kinds, *words)
    loaded = api.load(kinds)
    for given in ({}, {"data": "t.csv", "split": "test"}):
        with pytest.raises(errors.UserError, match="Give `predict` either data or a split"):
            loaded.predict(**given)


def test_data_that_were_moved_are_told_with_the_command_that_finds_them(predict, workdir, folder, capsys):
    (workdir / "t.csv").write_text((folder / "t.csv").read_text())
    run = trained(workdir, "kind", "model=linear")
    (workdir / "t.csv").rename(workdir / "t2.csv")
    for words in (
        ["predict", str(run), "--split", "test", "--output", "-"],
        ["evaluate", str(run), "--json"],
    ):
        with pytest.raises(
            errors.DataProblem, match="are not there: dataset.path is .*t.csv, seen from"
        ) as caught:
            dispatch(words)
        command = str(caught.value).partition("where they are: dltrain ")[2]
        assert shlex.split(command) == [*words, "dataset.path=NEW"] and "t2.csv" not in str(caught.value)
        capsys.readouterr()
        assert dispatch(shlex.split(command.replace("NEW", "t2.csv"))) == 0
        assert capsys.readouterr().out
    # a name that was typed is told as it is
    with pytest.raises(errors.DataProblem, match="dataset.path is t3.csv, which is not a file.*Did you mean"):
        predict(run, "--split", "test", "dataset.path=t3.csv")
    with pytest.raises(errors.UserError, match="is no key of this run") as caught:
        dispatch(["evaluate", str(run), "dataset.root=t2.csv"])
    assert str(caught.value).endswith("Its data are named by dataset.path: dataset.path=t2.csv")


def test_changed_data_are_refused_and_moved_ones_are_found(predict, workdir, folder):
    text = (folder / "t.csv").read_text()
    (workdir / "t.csv").write_text(text)
    run = trained(workdir, "kind")
    (workdir / "t.csv").rename(workdir / "moved.csv")
    with pytest.raises(errors.DataProblem, match=r"t\.csv"):
        predict(run, "--split", "test")
    code, out, _ = predict(run, "--split", "test", "dataset.path=moved.csv", "--output", "-")
    assert code == 0 and rows_of(out)
    (workdir / "t.csv").write_text(text.replace("bee", "ant", 2))
    with pytest.raises(errors.DataProblem, match="so that its splits are not known") as caught:
        predict(run, "--split", "test")
    assert str(caught.value).endswith(f"dltrain predict {run} {workdir / 't.csv'}")


def test_the_split_is_checked_without_torch(workdir):
    import subprocess

    (workdir / "run").mkdir()
    (workdir / "run" / "config.yaml").write_text("")
    code = (
        "import sys; from dltrain.cli import dispatch\n"
        "try: dispatch(['predict', 'run', '--split', 'tset'])\n"
        "except BaseException as error: assert 'tset' in str(error), error\n"
        "else: sys.exit(3)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
