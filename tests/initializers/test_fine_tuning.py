"""Fine-tuning from a run: what is loaded, what is new, what is refused, and that it helps."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits

from dltrain.data.contract import Contract
from dltrain.errors import FindingsFailure, UserError

SMALL = ["model=cnn", "quiet=true"]


@pytest.fixture
def images(workdir):
    """The digits 0 to 4 and 5 to 9 of scikit-learn, as two files."""
    digits = load_digits()
    pictures, old = digits.images[:, None].astype(np.float32) / 16, digits.target < 5
    np.savez("old.npz", inputs=pictures[old], targets=digits.target[old])
    np.savez("new.npz", inputs=pictures[~old], targets=digits.target[~old].astype(str))
    return workdir


@pytest.mark.ci
def test_few_images_of_new_classes_need_the_old_weights(images, train):
    """Ten images a class, the same steps, the same splits with 600 test images: only the first weights differ."""
    source = train("dataset=npz", "dataset.path=old.npz", "epochs=40", *SMALL)
    few = ["dataset=npz", "dataset.path=new.npz", "dataset.limit=50", "dataset.test_fraction=0.7", "steps=20"]
    scores = []
    for seed in range(3):
        for given in (["initializer=default"], ["initializer=pretrained", f"initializer.path={source.path}"]):
            run = train(*few, *SMALL, "early_stopping=none", f"dataset.split_seed={seed}", *given)
            scores.append([run.summary["test"]["accuracy"], run.summary["test"]["loss"]])
    scratch, tuned = np.array(scores[::2]).mean(0), np.array(scores[1::2]).mean(0)
    assert tuned[0] > scratch[0] + 0.02
    assert tuned[1] < 0.7 * scratch[1]


def test_the_head_of_other_classes_is_new(images, train):
    """Five classes there and five here: by shape alone the old head would have been loaded."""
    source = train("dataset=npz", "dataset.path=old.npz", "steps=2", *SMALL)
    given = ["dataset=npz", "dataset.path=new.npz", "steps=1", "lr=1e-30", *SMALL]
    for path in (source.path, source.path / "checkpoints" / "best.safetensors"):
        run = train(*given, "initializer=pretrained", f"initializer.path={path}")
        old, new = (load_file(r.path / "checkpoints" / "best.safetensors") for r in (source, run))
        moved = {name for name in old if not torch.equal(old[name], new[name])}
        assert {name for name in moved if name.endswith(("weight", "bias"))} == {"head.weight", "head.bias"}
        assert run.summary["loaded"].startswith("6 of 8 tensors loaded; new: head.* (5 classes: 0, 1, 2")
        assert "5 classes: 5, 6, 7" in run.summary["loaded"]
    again = train(
        "dataset=npz",
        "dataset.path=old.npz",
        "steps=1",
        *SMALL,
        "initializer=pretrained",
        f"initializer.path={source.path}",
    )
    assert again.summary["loaded"] == "8 of 8 tensors loaded"


def test_a_head_of_another_size_is_new_without_being_told(images, train):
    source = train("dataset=npz", "dataset.path=old.npz", "steps=1", *SMALL)
    run = train("steps=1", *SMALL, "initializer=pretrained", f"initializer.path={source.path}")
    assert run.summary["loaded"].startswith("6 of 8 tensors loaded; new: head.* (5 classes")


def test_equal_classes_keep_the_head_whatever_the_column_of_labels_is_called(workdir, train):
    """Class folders have no column; a table of labels has one."""
    pictures = [(f"{('cat', 'dog')[i % 2]}", f"{i}.png") for i in range(24)]
    for kind, name in pictures:
        (workdir / "pets" / kind).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.full((8, 8), 200 if kind == "cat" else 20, np.uint8))
        image.save(workdir / "pets" / kind / name)
    rows = "".join(f"{kind}/{name},{kind}\n" for kind, name in pictures)
    (workdir / "labels.csv").write_text("file,species\n" + rows)
    given = ["dataset=image_folder", "dataset.root=pets", "model=linear", "steps=1", "quiet=true"]
    source = train(*given)
    run = train(
        *given, "dataset.labels=labels.csv", "initializer=pretrained", f"initializer.path={source.path}"
    )
    assert run.summary["loaded"] == "2 of 2 tensors loaded"


def test_another_normalization_is_told(images, train):
    source = train("dataset=npz", "dataset.path=old.npz", "steps=1", *SMALL)
    with np.load("old.npz") as old:
        np.savez("dark.npz", inputs=old["inputs"] / 2, targets=old["targets"])
    run = train(
        "dataset=npz",
        "dataset.path=dark.npz",
        "steps=1",
        *SMALL,
        "initializer=pretrained",
        f"initializer.path={source.path}",
    )
    statistics = [load_file(r.path / "checkpoints" / "normalization.safetensors") for r in (run, source)]
    numbers = [f"{float(s[key]):.3g}" for s in statistics for key in ("mean", "std")]
    expected = "normalized by mean {} and deviation {}, there {} and {}".format(*numbers)
    assert run.summary["loaded"] == f"8 of 8 tensors loaded; {expected}"


def test_another_scale_of_the_targets_is_told(workdir, train):
    """Predictions of the loaded head shift by the difference of the means."""
    draws = np.random.default_rng(0)
    x = draws.normal(size=(120, 2))
    for name, offset in (("one.csv", 0.0), ("two.csv", 100.0)):
        rows = (f"{a},{b},{a + b + offset}\n" for a, b in x.tolist())
        (workdir / name).write_text("a,b,y\n" + "".join(rows))
    table = ("dataset=csv", "dataset.target=y", "steps=1")
    source = train(*table, "dataset.path=one.csv")
    run = train(*table, "dataset.path=two.csv", "initializer=pretrained", f"initializer.path={source.path}")
    data = [json.loads((r.path / "data.json").read_text()) for r in (run, source)]
    numbers = [f"{d[key][0]:.3g}" for d in data for key in ("target_mean", "target_std")]
    expected = "targets standardized by mean {} and deviation {}, there {} and {}".format(*numbers)
    assert expected in run.summary["loaded"]


def test_other_channels_are_refused_with_both_shapes(images, train, dltrain):
    source = train("dataset=npz", "dataset.path=old.npz", "steps=1", *SMALL)
    with np.load("old.npz") as old:
        np.savez("color.npz", inputs=np.repeat(old["inputs"], 3, 1), targets=old["targets"])
    with pytest.raises(UserError) as refused:
        dltrain(
            "dataset=npz",
            "dataset.path=color.npz",
            "steps=1",
            *SMALL,
            "initializer=pretrained",
            f"initializer.path={source.path}",
        )
    message = str(refused.value)
    assert "trained on samples of shape (1, 8, 8), these have (3, 8, 8)" in message
    assert "features" in message and len(message.splitlines()) <= 3


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("a,b,c,y", None),
        ("a,b,d,y", "not here: 'c'; new: 'd'"),
        ("b,a,c,y", None),
    ],
)
def test_tables_are_matched_by_name(header, told, workdir, train, dltrain):
    draw = np.random.default_rng(0)
    rows = [",".join(f"{v:.3f}" for v in draw.normal(size=4)) for _ in range(60)]
    for name, first in (("there", "a,b,c,y"), ("here", header)):
        (workdir / f"{name}.csv").write_text("\n".join([first, *rows]) + "\n")
    words = ["dataset=csv", "dataset.target=y", "steps=1", "quiet=true"]
    source = train(*words, "dataset.path=there.csv")
    given = [*words, "dataset.path=here.csv", "initializer=pretrained", f"initializer.path={source.path}"]
    if told is None:
        assert train(*given).summary["loaded"].startswith("6 of 6 tensors loaded")
        return
    with pytest.raises(UserError, match=told):
        dltrain(*given)


def loans(count: int, levels: str, seed: int, hole: int | None = None, more: str = "") -> str:
    """A table of a number with a hole, a category, a date and a truth."""
    draw = np.random.default_rng(seed)
    lines = [f"amount,kind,day,owner,note,y{more and ',more'}"]
    for i in range(count):
        kind, day = "" if i == hole else levels[i % len(levels)], f"20{10 + i % 9}-0{1 + i % 7}-1{i % 8}"
        amount = "" if hole is not None and i == hole + 1 else f"{draw.normal():.3f}"
        values = (amount, kind, day, ("yes", "no")[i % 3 == 0], f"row {i}", draw.choice(["p", "q"]))
        lines.append(",".join(map(str, values)) + (f",{i % 5}.5" if more else ""))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("levels", ["abc", "ab", "a", "abx"])
def test_a_table_where_a_level_is_absent_has_the_features_of_the_run(levels, workdir, train, dltrain):
    """Found by a data scientist: one row without a value in 1,900 forbade to fine-tune on a file that had all values."""
    (workdir / "old.csv").write_text(loans(90, "abc", 0, hole=5))
    (workdir / "new.csv").write_text(loans(60, levels, 1))
    words = ["dataset=csv", "dataset.target=y", "steps=2"]
    source = train(*words, "dataset.path=old.csv", "quiet=true")
    pretrained = ["initializer=pretrained", f"initializer.path={source.path}"]
    run = train(*words, "dataset.path=new.csv", *pretrained, "quiet=true")
    said = "\n".join(run.summary["inferred"])
    assert run.summary["loaded"].startswith("6 of 6 tensors loaded")
    assert re.search(
        r"^columns +(amount, )?kind: features as in the run whose weights are loaded$", said, re.M
    )
    unknown = "unseen   kind: 1 level in 20 of 60 rows is not in the run whose weights are loaded"
    assert (unknown in said) == ("x" in levels)
    old, new = (Contract.from_json((r.path / "data.json").read_text()) for r in (source, run))
    assert [r.features for r in new.columns] == [r.features for r in old.columns]
    # by its own record and by that of the run whose weights are loaded, but for the year that is subtracted from all
    here, there = (contract.encode("new.csv").inputs.double() for contract in (new, old))
    torch.testing.assert_close(here - here.mean(0), there - there.mean(0), atol=1e-5, rtol=0)
    for verb in ("verify", "reproduce"):
        assert dltrain(verb, str(run.path)) == 0
    assert dltrain("resume", str(run.path), "steps=4") == 0
    source.path.rename("moved")
    assert dltrain("evaluate", str(run.path)) == 0
    assert dltrain("predict", str(run.path), "old.csv", "--output", "found.csv") == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (loans(60, "xyz", 1), "not here: .*'kind=a'"),
        (loans(60, "abc", 1).replace("amount", "sum"), "give a table with the same ones, or"),
        (
            loans(60, "abc", 1).replace("yes", "perhaps").replace(",no,", ",never,"),
            "was trained on other columns .*owner=|more",
        ),
        (loans(60, "abc", 1, more="more"), r"leave the new ones out, dataset.drop=\[day,more\], or"),
    ],
)
def test_a_table_of_other_columns_or_levels_is_refused(text, told, workdir, train, dltrain):
    (workdir / "old.csv").write_text(loans(90, "abc", 0, hole=5))
    (workdir / "new.csv").write_text(text)
    words = ["dataset=csv", "dataset.target=y", "steps=2", "quiet=true", "dataset.drop=[day]"]
    source = train(*words, "dataset.path=old.csv")
    given = [*words, "dataset.path=new.csv", "initializer=pretrained", f"initializer.path={source.path}"]
    with pytest.raises(UserError) as refused:
        dltrain(*given)
    assert re.search(told, str(refused.value))
    if "leave the new" in told:
        assert dltrain(*given, re.search(r"dataset.drop=\S*\]", str(refused.value))[0]) == 0


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64])
def test_whole_numbers_are_no_weights(dtype, train, dltrain, workdir):
    words = ["model=mlp", "model.hidden=[4]", "steps=1", "quiet=true"]
    source = train(*words)
    tensors = load_file(source.path / "checkpoints" / "best.safetensors")
    tensors["layers.0.0.weight"] = tensors["layers.0.0.weight"].to(dtype)
    save_file(tensors, workdir / "w.safetensors")
    with pytest.raises(
        UserError, match=rf"has {str(dtype)[6:]} where the model has floats \(layers.0.0.weight\)"
    ):
        dltrain(*words, "initializer=pretrained", "initializer.path=w.safetensors")
    tensors["layers.0.0.weight"] = tensors["layers.0.0.weight"].real.half()
    save_file(tensors, workdir / "w.safetensors")
    train(*words, "initializer=pretrained", "initializer.path=w.safetensors")


@pytest.mark.ci
def test_the_recipe(images, train):
    source = train("dataset=npz", "dataset.path=old.npz", "epochs=3", *SMALL)
    run = train(
        "experiment=fine_tune",
        "dataset=npz",
        "dataset.path=new.npz",
        "dataset.limit=50",
        "quiet=true",
        f"initializer.path={source.path}",
    )
    assert run.summary["loaded"].startswith("6 of 8 tensors loaded; new: head.*")
    assert run.summary["test"]["accuracy"] > 0.5


def test_samples_that_earlier_runs_were_trained_on_are_told(workdir, train, dltrain, capsys):
    """Labels are coin flips: no function of the inputs is right more often than half of the time on samples that were not trained on."""
    draws = np.random.default_rng(0)
    np.savez(
        "coins.npz", inputs=draws.normal(size=(120, 40)).astype("float32"), targets=draws.integers(0, 2, 120)
    )
    np.savez(
        "more.npz", inputs=draws.normal(size=(90, 40)).astype("float32"), targets=draws.integers(0, 2, 90)
    )
    coins = ("dataset=npz", "dataset.path=coins.npz", "steps=2")

    def after(source, *changes):
        before = set(workdir.glob("outputs/*/*"))
        assert dltrain(*changes, "initializer=pretrained", f"initializer.path={source}") == 0
        (run,) = set(workdir.glob("outputs/*/*")) - before
        lines = capsys.readouterr().out.splitlines()
        return os.path.relpath(run), [line.strip() for line in lines if line.lstrip().startswith("seen")]

    first = os.path.relpath(train(*coins).path)
    assert after(first, *coins)[1] == []
    second, (line,) = after(first, *coins, "dataset.split_seed=1")
    assert f"hold samples that {first} was trained on" in line and line.endswith(": dataset.split_seed=0")
    # the data as the nearest run divides them, not as the one before
    (line,) = after(second, *coins, "dataset.split_seed=1")[1]
    assert first in line
    assert after(first, *coins, "folds=3", "fold=1")[1][0].endswith(": folds=null fold=null")
    third, lines = after(second, "dataset=npz", "dataset.path=more.npz", "steps=2")
    assert len(lines) == 2 and all("is not known" in line for line in lines)
    words = shlex.split(lines[0].partition("are: dltrain ")[2])
    assert dltrain(*words) == 0
    assert "no sample of its 90 (all) is equal to one of its training" in capsys.readouterr().err
    assert dltrain("evaluate", third, "dataset.path=coins.npz") == 0
    said = capsys.readouterr().err
    assert f"the initial weights of {third} come from {second}; to count samples of its training" in said
    assert f"come from {first}; to count samples" in said


def test_a_source_whose_own_source_has_an_impossible_name_ends_the_chain(workdir, train):
    first = train("epochs=1")
    file = first.path / "config.yaml"
    file.write_text(file.read_text().replace("initializer:\n", f"initializer:\n  path: {'x' * 5000}\n", 1))
    assert "x" * 5000 in file.read_text()
    run = train("epochs=1", "initializer=pretrained", f"initializer.path={first.path}")
    assert run.summary["status"] == "completed"


def test_other_first_weights_under_the_same_path_are_no_repetition(workdir, train, dltrain, capsys):
    """Found by a tester: resume, reuse, reproduce, rerun, diff and compare knew the path alone."""

    def reused(name):
        summaries = workdir.glob(f"outputs/{name}/*/*/summary.json")
        return ["reused" in json.loads(file.read_text()) for file in summaries]

    source = train("epochs=1")
    fine = ("initializer=pretrained", f"initializer.path={source.path}", "epochs=1")
    run = train(*fine, "lr=0.001")
    digest = hashlib.sha256((source.path / "checkpoints/best.safetensors").read_bytes()).hexdigest()
    assert run.summary["first_weights"] == digest
    assert dltrain("-m", *fine, "lr=0.001,0.01", "name=first", "quiet=true") == 0
    assert dltrain("-m", *fine, "lr=0.001,0.01", "name=again", "sweep.reuse=true", "quiet=true") == 0
    assert reused("again") == [True, True]
    assert dltrain("resume", str(source.path), "epochs=2") == 0
    capsys.readouterr()

    assert dltrain("-m", *fine, "lr=0.001,0.01", "name=other", "sweep.reuse=true", "quiet=true") == 0
    assert reused("other") == [False, False] and "are others than those that" in capsys.readouterr().err
    with pytest.raises(FindingsFailure):
        dltrain("reproduce", str(run.path), "--json")
    (cause,) = json.loads(capsys.readouterr().out)["likely_causes"]
    assert "the file of the first weights" in cause
    before = set(workdir.glob("outputs/*/*"))
    assert dltrain("rerun", str(run.path)) == 0
    assert "begins with the present ones" in capsys.readouterr().err
    (second,) = set(workdir.glob("outputs/*/*")) - before
    assert dltrain("diff", str(run.path), str(second), "--json") == 0
    assert [item["key"] for item in json.loads(capsys.readouterr().out)["data"]] == ["first weights"]
    assert dltrain("compare", str(run.path), str(second)) == 0
    said = capsys.readouterr().out
    assert f"first weights={digest[:8]}" in said and "counts once" not in said
    # a resumed run keeps the digest of what it began with
    assert dltrain("resume", str(run.path), "epochs=2") == 0
    assert json.loads((run.path / "summary.json").read_text())["first_weights"] == digest
