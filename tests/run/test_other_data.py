"""`dltrain evaluate` on data that are, or hold, those that the run was trained on."""

from __future__ import annotations

import json
import random
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sklearn import metrics as sk

from dltrain import api
from dltrain.errors import DataProblem, UserError
from dltrain.run.scores import Score, print_details, print_scores

ROWS = 120
KINDS = ("dataset=csv", "dataset.path=t.csv", "dataset.target=kind", "model=linear", "steps=2")


def rows_of(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [f"{draw.gauss(0, 1):.6f},{draw.gauss(5, 2):.6f},{'ab'[i % 2]}" for i in range(count)]


def write(path: str, rows: list[str]) -> str:
    Path(path).write_text("\n".join(["x,z,kind", *rows]) + "\n")
    return f"dataset.path={path}"


@pytest.fixture
def run(train: Any) -> Path:
    write("t.csv", rows_of(ROWS))
    path: Path = train(*KINDS).path
    return path


@pytest.fixture
def scored(dltrain: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    """Evaluate; return the scores by split and what was said beside them."""

    def evaluate(*words: object, code: int = 0) -> tuple[dict[str, Any], str]:
        capsys.readouterr()
        assert dltrain("evaluate", *words, "--json", "evaluation.bootstrap=0") == code
        found = capsys.readouterr()
        return {score["split"]: score for score in json.loads(found.out)["scores"]}, found.err

    return evaluate


def test_a_copy_is_divided_as_in_the_training(run: Path, scored: Any) -> None:
    own, silence = scored(run)
    shutil.copy("t.csv", "copy.csv")
    copy, said = scored(run, "dataset.path=copy.csv")
    assert copy == own and set(own) == {"val", "test"}
    assert silence == "" and "the data are those of the training (their fingerprint is equal)" in said
    assert own["test"]["trained_on"] is None


def test_rows_of_the_training_are_counted(run: Path, scored: Any) -> None:
    train = json.loads((run / "data.json").read_text())["sizes"]["train"]
    rows = rows_of(ROWS)
    mixed = [*rows, *rows_of(30, seed=9)]
    random.Random(1).shuffle(mixed)
    found, said = scored(run, write("mixed.csv", mixed))
    assert found["all"]["trained_on"] == train and found["all"]["samples"] == ROWS + 30
    assert (
        f"{train} of the {ROWS + 30} samples (all) are equal to samples that {run} was trained on; of the val and test samples of the run"
        in said
    )
    assert "on other data" not in said
    # another target makes another sample
    found, said = scored(run, write("turned.csv", [row[:-1] + "ba"[row.endswith("b")] for row in rows]))
    assert found["all"]["trained_on"] == 0
    assert f"other data than it was trained on: no sample of its {ROWS} (all) is equal" in said


def test_a_run_that_is_named_twice_counts_once(run: Path, scored: Any, dltrain: Any, capsys: Any) -> None:
    relative = run.relative_to(Path.cwd())
    alone, _ = scored(relative)
    found, said = scored(relative, run, relative)
    assert found == alone
    assert said.splitlines() == [
        f"dltrain: {relative} is named twice ({run}), and counts once",
        f"dltrain: {relative} is named twice, and counts once",
    ]
    write("new.csv", rows_of(3, seed=4))
    assert dltrain("predict", relative, "new.csv", "--json") == 0
    alone = json.loads(capsys.readouterr().out)
    assert dltrain("predict", relative, run, "new.csv", "--json") == 0
    twice = capsys.readouterr()
    assert json.loads(twice.out) == alone and f"{relative} is named twice ({run})" in twice.err


def test_scores_of_any_size_are_shown_as_in_training(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"loss": 31741730282.8019, "mae": 0.4123456, "mse": 3.17e-7, "r2": float("nan")}
    print_scores([Score("outputs/a", "test", 1, values)])
    print_details([Score("outputs/a", "test", 1, values, {"mse": (1.5e-7, 31741730282.8019)})], 100)
    said = capsys.readouterr().out
    assert said.split("\n")[1].split() == ["outputs/a", "test", "1", "3.17e+10", "0.4123", "3.17e-07", "nan"]
    assert "1.50e-07 … 3.17e+10" in said


def test_a_metric_that_is_not_defined_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    """AUROC needs samples of both classes."""
    one = Score(
        "outputs/a", "all", 3, {"auroc": float("nan"), "f1": 0.8}, counts=torch.tensor([[0, 0], [1, 2]])
    )
    print_details([one], 100)
    line = "nan      auroc is not defined for the all split of outputs/a: all samples are of class 1"
    assert line in capsys.readouterr().out.splitlines()
    print_details([Score("outputs/a", "all", 3, {"auroc": 0.5, "f1": 0.8})], 100)
    assert "not defined" not in capsys.readouterr().out


def test_classes_of_which_a_split_has_no_sample_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A mean over three classes was said to be over five; scikit-learn takes those of the truth and of the predictions."""
    counts = torch.tensor([[3, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    print_details([Score("outputs/a", "val", 7, {"f1": 0.5}, counts=counts, class_names=tuple("abcd"))], 100)
    said = capsys.readouterr().out
    line = "absent   the val split of outputs/a has no sample of c, d: averages over the classes leave out those that are neither there nor"
    assert line in said
    true, found = [0] * 4 + [1] * 3, [0, 0, 0, 1, 1, 1, 2]
    mean = sk.f1_score(true, found, average="macro")
    assert f"{mean:.4f}" in next(text for text in said.splitlines() if text.startswith("macro mean"))
    print_details([Score("outputs/a", "val", 6, {"f1": 0.5}, counts=counts[:2, :2])], 100)
    assert "absent" not in capsys.readouterr().out


def test_rows_that_cannot_be_scored_are_counted(run: Path, scored: Any) -> None:
    """A missing target is no fault of a row; one that has a broken value, too, is told once, as broken."""
    rows = rows_of(20, seed=9)
    for i in (3, 7):
        rows[i] = rows[i][:-1] + "NA"
    found, said = scored(run, write("some.csv", rows))
    assert found["all"]["samples"] == 18
    assert "dltrain: 2 rows of some.csv left out: no target: 'NA' (2)" in said.splitlines()
    rows[7] = "old" + rows[7][rows[7].index(",") :]
    found, said = scored(run, write("some.csv", rows), code=3)
    assert found["all"]["samples"] == 18
    assert "dltrain: 1 row of some.csv left out: no target: 'NA' (1)" in said.splitlines()


def test_another_division_of_the_same_data_is_refused(run: Path, scored: Any) -> None:
    """It would score samples of the training."""
    with pytest.raises(UserError, match="`dataset.split_seed` cannot change here"):
        scored(run, "dataset.split_seed=5")


def test_a_run_without_val_and_test_is_scored_on_all_of_a_copy(train: Any, scored: Any) -> None:
    write("t.csv", rows_of(ROWS))
    run = train(
        *KINDS,
        "dataset.val_fraction=0",
        "dataset.test_fraction=0",
        "early_stopping=none",
        "early_stopping.metric=train/loss",
    ).path
    shutil.copy("t.csv", "copy.csv")
    assert scored(run, "dataset.path=copy.csv")[0]["all"]["trained_on"] == ROWS


def test_data_that_are_gone_are_told(run: Path, scored: Any) -> None:
    other = write("new.csv", rows_of(20, seed=4))
    Path("t.csv").unlink()
    found, said = scored(run, other)
    assert found["all"]["trained_on"] is None
    assert "whether they hold samples of it is not known: the data of the training cannot be read" in said
    write("t.csv", rows_of(ROWS, seed=8))
    assert "not known: the data of the training have changed since" in scored(run, other)[1]


def test_a_constant_guess_stands_beside_the_scores(run: Path, scored: Any, dltrain: Any, capsys: Any) -> None:
    summary = json.loads((run / "summary.json").read_text())
    own, _ = scored(run)
    assert own["test"]["constant"] == pytest.approx({k: v for k, v in summary["constant"].items()})
    # 20 % of the first class, which half of the training rows have
    other = write("new.csv", [row[:-1] + "aabbbbbbbb"[i % 10] for i, row in enumerate(rows_of(50, seed=4))])
    assert scored(run, other)[0]["all"]["constant"]["loss"] == pytest.approx(0.693, abs=0.01)
    assert dltrain("evaluate", run, "evaluation.bootstrap=0") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:5]][1::2] == [["constant", "guess"]] * 2


def test_folders_of_images(train: Any, scored: Any) -> None:
    draw = random.Random(0)
    for split, count in (("train", 20), ("test", 5)):
        for kind in ("cat", "dog"):
            for i in range(count):
                Path(f"pets/{split}/{kind}").mkdir(parents=True, exist_ok=True)
                Image.frombytes("RGB", (8, 8), draw.randbytes(192)).save(f"pets/{split}/{kind}/{i}.png")
    run = train(
        "dataset=image_folder", "dataset.root=pets/train", "dataset.image_size=8", "model=linear", "steps=1"
    ).path
    trained = json.loads((run / "data.json").read_text())["sizes"]["train"]
    found, said = scored(run, "dataset.root=pets")
    assert found["all"]["trained_on"] == trained and f"{trained} of the 50 samples (all) are equal" in said
    assert "divided into train (40), test (10), and all of them are scored together" in said
    assert "the last alone: dataset.root=pets/test" in said
    assert scored(run, "dataset.root=pets/test")[0]["all"]["trained_on"] == 0


def test_rows_that_do_not_fit_are_left_out_as_in_predict(
    run: Path, scored: Any, dltrain: Any, capsys: Any
) -> None:
    rows = rows_of(40, seed=4)
    whole, _ = scored(run, write("whole.csv", [row for i, row in enumerate(rows) if i not in (1, 4, 6)]))
    rows[1], rows[4], rows[6] = "old,1.0,a", "1,2", "1.0,2.0,c"
    found, said = scored(run, write("broken.csv", rows), code=3)
    assert found["all"]["values"] == whole["all"]["values"] and found["all"]["samples"] == 37
    for line in (
        "row 2 of broken.csv (line 3) is left out: column 'x' holds numbers, but 'old'",
        "row 5 of broken.csv (line 6)",
    ):
        assert line in said and any(line in text for text in found["all"]["left_out"])
    assert (
        "row 7 of broken.csv (line 8) is left out: column 'kind' holds 'c', which is none of the classes"
        in said
    )
    assert dltrain("predict", run, "broken.csv", "--json") == 3
    assert [item["row"] for item in json.loads(capsys.readouterr().out)["broken"]] == [2, 5]
    # all rows, or another naming of a class, are no slips
    with pytest.raises(DataProblem, match="column 'x' holds numbers, but 'old' in row 1"):
        dltrain("evaluate", run, write("all.csv", ["old,1.0,a"] * 3))
    with pytest.raises(DataProblem, match="column 'kind' holds 'c', which is none of the classes"):
        dltrain(
            "evaluate", run, write("named.csv", [row[:-1] + "ac"[i % 2] for i, row in enumerate(rows_of(40))])
        )


def test_single_values_far_from_the_training_are_named(
    run: Path, scored: Any, dltrain: Any, capsys: Any
) -> None:
    rows = rows_of(40, seed=4)
    assert "far outside" not in scored(run, write("new.csv", rows))[1]
    rows[2] = "0.5,500000,a"
    path = write("new.csv", rows)
    low, high = (end(float(row.split(",")[1]) for row in rows_of(ROWS)) for end in (min, max))
    rule = next(
        rule for rule in json.loads((run / "data.json").read_text())["columns"] if rule["name"] == "z"
    )
    assert low <= rule["lows"][0] < rule["highs"][0] <= high
    said = scored(run, path)[1]
    assert (
        "scale    a value far outside of the range of the training: z 500000 in row 3 of new.csv (training: "
        in said
    )
    assert dltrain("predict", run, "new.csv") == 0
    assert "z 500000 in row 3 of new.csv (training: " in capsys.readouterr().err


def test_other_data_on_another_scale_are_told_of(train: Any, scored: Any) -> None:
    import numpy as np

    draw = np.random.default_rng(0)
    inputs, targets = draw.normal(size=(60, 4)).astype(np.float32), np.arange(60) % 2
    np.savez("a.npz", inputs=inputs, targets=targets)
    np.savez("b.npz", inputs=inputs * 100, targets=targets)
    run = train("dataset=npz", "dataset.path=a.npz", "model=linear", "steps=1").path
    said = scored(run, "dataset.path=b.npz")[1]
    assert "standard deviations from those of the training on average: are they on another scale?" in said


def test_columns_in_another_unit_are_told_of_in_both_directions(
    run: Path, scored: Any, dltrain: Any, capsys: Any
) -> None:
    """Grams became kilograms without a word: below a positive range there is no room for three of its widths."""
    rows = [row.split(",") for row in rows_of(60, seed=4)]
    for factor in (0.001, 0.1, 10.0, 1000.0):
        other = write("other.csv", [",".join([a, str(float(z) * factor), y]) for a, z, y in rows])
        assert "scale    z: median " in scored(run, other)[1]
        assert dltrain("predict", run, "other.csv") == 0
        assert capsys.readouterr().err.count("scale    z: median ") == 1
    assert "scale" not in scored(run, write("same.csv", [",".join(row) for row in rows]))[1]


def test_arrays_that_vary_less_are_told_of(train: Any, scored: Any, dltrain: Any, capsys: Any) -> None:
    import numpy as np

    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (40, 1, 6, 6)).astype(np.float32)
    np.savez("a.npz", inputs=images, targets=np.arange(40) % 2)
    np.savez("b.npz", inputs=images / 255, targets=np.arange(40) % 2)
    run = train("dataset=npz", "dataset.path=a.npz", "model=linear", "steps=1").path
    told = "the inputs vary 255 times less than those of the training: are they on another scale?"
    assert told in scored(run, "dataset.path=b.npz")[1]
    assert dltrain("predict", run, "b.npz") == 0
    assert told in capsys.readouterr().err
    assert dltrain("predict", run, "a.npz") == 0
    assert "scale" not in capsys.readouterr().err


def test_a_class_that_the_run_does_not_know_is_counted_with_a_cure(
    run: Path, scored: Any, dltrain: Any, capsys: Any
) -> None:
    rows = [row[:-1] + "x" if i % 4 == 3 else row for i, row in enumerate(rows_of(20, seed=4))]
    path = write("new.csv", rows)
    with pytest.raises(DataProblem) as error:
        dltrain("evaluate", run, path)
    told = str(error.value)
    assert (
        "holds 'x', which is none of the classes 'a', 'b', in row 4 of new.csv (line 5); 5 of 20 rows have 'x'"
        in told
    )
    cure = told.strip().rpartition("call it missing: ")[2]
    assert scored(run, path, cure)[0]["all"]["samples"] == 15


def changed_files(rows: list[str]) -> dict[str, list[str]]:
    """Return the rows of a table whose val and test splits would hold rows of the training, if it were divided again."""
    shuffled = rows[:]
    random.Random(1).shuffle(shuffled)
    one = ["9.5" + row[row.index(",") :] if i == 2 else row for i, row in enumerate(rows)]
    return {
        "other samples, or the same in another order": shuffled,
        f"{ROWS + 20} samples now, and {ROWS} then": [*rows, *rows_of(20, seed=9)],
        f"{ROWS - 1} samples now, and {ROWS} then": rows[1:],
        # the fingerprint looks at 64 rows; this is none of them
        "other values in some samples": one,
    }


@pytest.mark.parametrize("difference", changed_files(rows_of(ROWS)))
def test_a_changed_file_is_not_divided_again(
    run: Path, scored: Any, dltrain: Any, train: Any, difference: str
) -> None:
    shutil.copy("t.csv", "former.csv")
    own, _ = scored(run)
    rows = changed_files(rows_of(ROWS))[difference]
    write("t.csv", rows)
    with pytest.raises(DataProblem) as refusal:
        dltrain("evaluate", run)
    assert difference in str(refusal.value) and len(str(refusal.value).splitlines()) == 3
    first, second = (line.partition(": dltrain ")[2].split() for line in str(refusal.value).splitlines()[1:])
    assert scored(*first[1:-1], first[-1].replace("NEW", "former.csv"))[0] == own
    found, said = scored(*second[1:])
    assert set(found) == {"all"} and found["all"]["samples"] == len(rows)
    assert found["all"]["trained_on"] is None and difference in found["all"]["trained_on_unknown"]
    assert f"not known: the data of the training have changed since: {difference}" in said

    import dltrain as api

    for again in (lambda: api.load(run).evaluate(), lambda: api.load(run).predict(split="test")):
        with pytest.raises(DataProblem, match="are not those that it was trained on"):
            again()
    with pytest.raises(DataProblem) as refusal:
        dltrain("predict", run, "--split", "test")
    last = str(refusal.value).splitlines()[-1]
    assert last.endswith(f": dltrain predict {run} t.csv") and dltrain("predict", run, "t.csv") == 0
    with pytest.raises(DataProblem, match="the data are not those that the run was trained on"):
        dltrain("resume", run, "steps=4")


DECIDED = ("target=z", "features=[x]", "drop=[x]", "keep=[x]", "categorical=[x]", "dates=number", "task=regression", "merge_case=false",
           "target_scale=none")  # fmt: skip


@pytest.mark.parametrize("change", DECIDED)
def test_what_data_json_decides_cannot_change_afterwards(run: Path, dltrain: Any, change: str) -> None:
    """Each was accepted and did nothing: `dataset.target=z` printed the scores of the old target."""
    other = write("other.csv", rows_of(40, seed=7))
    key = change.partition("=")[0]
    for words in (
        ("evaluate", run, f"dataset.{change}"),
        ("evaluate", run, other, f"dataset.{change}"),
        ("predict", run, "other.csv", f"dataset.{change}"),
        ("predict", run, "--split", "test", f"dataset.{change}"),
        ("export", run, f"dataset.{change}"),
    ):
        with pytest.raises(
            UserError, match=f"`dataset.{key}` cannot change here: data.json of the run has what"
        ) as error:
            dltrain(*words)
        assert "rename its column to kind" in str(error.value) or key != "target"
    for changed in (api.load(run), api.load(run, f"dataset.{change}")):
        with pytest.raises(UserError, match="cannot change here"):
            changed.evaluate(f"dataset.{change}")
    with pytest.raises(UserError, match="cannot change here"):
        api.load(run, f"dataset.{change}").predict("other.csv")


def test_the_test_split_is_closed_where_that_is_asked_for(run: Path, scored: Any) -> None:
    """It was scored all the same, as `evaluation.every_steps` was accepted."""
    own = scored(run)[0]
    for false in ("false", "False", "off"):
        assert scored(run, f"evaluation.test={false}")[0] == {"val": own["val"]}
    assert {*api.load(run, "evaluation.test=false").evaluate("evaluation.test=true")} == {"val", "test"}
    assert {*api.load(run).evaluate("evaluation.test=false")} == {"val"}
    for key in ("every_steps", "every_epochs"):
        with pytest.raises(UserError, match="cannot change here: it belongs to the training"):
            scored(run, f"evaluation.{key}=2")


def test_images_of_a_run_with_a_size_are_brought_to_it_in_its_way(
    train: Any, dltrain: Any, scored: Any
) -> None:
    """`evaluate` stretched them without a word, and `predict` ignored the key."""
    draw = random.Random(0)
    for folder, count in (("pictures", 20), ("more", 6)):
        for i in range(count):
            file = Path(folder, "ab"[i % 2], f"{i}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.frombytes("RGB", (12, 8), bytes(draw.randrange(256) for _ in range(288))).save(file)
    words = (
        "dataset=image_folder",
        "dataset.root=pictures",
        "dataset.cache=false",
        "model=linear",
        "steps=2",
    )
    sized, plain = train(*words, "dataset.image_size=8").path, train(*words).path
    for change in ("dataset.resize=stretch", "dataset.image_size=[8,12]"):
        for verb in (("evaluate", sized, "dataset.root=more"), ("predict", sized, "more")):
            with pytest.raises(
                UserError, match="cannot change here: data.json of the run has what it decided"
            ):
                dltrain(*verb, change)
    assert scored(plain, "dataset.root=more", "dataset.image_size=[8,12]") == scored(
        plain, "dataset.root=more"
    )


def test_what_is_typed_as_the_run_has_it_is_no_change(run: Path, scored: Any, dltrain: Any) -> None:
    other = write("other.csv", rows_of(40, seed=7))
    assert scored(run, other, "dataset.target=kind", "dataset.drop=[]") == scored(run, other)
    assert (
        dltrain(
            "predict", run, "other.csv", "dataset.target=kind", "dataset.delimiter=comma", "--output", "p.csv"
        )
        == 0
    )
    for change in ("path=t.csv", "missing=drop", "test_path=t.csv"):
        with pytest.raises(UserError, match="has no effect on the files to predict for, which are arguments"):
            dltrain("predict", run, "other.csv", f"dataset.{change}")


def test_rerun_tells_of_changed_data(run: Path, dltrain: Any, capsys: Any) -> None:
    assert dltrain("rerun", run) == 0
    assert "have changed" not in capsys.readouterr().err
    write("t.csv", rows_of(ROWS - 1))
    assert dltrain("rerun", run) == 0
    said = f"the data have changed since {run} was trained ({ROWS - 1} samples now, and {ROWS} then)"
    assert said in capsys.readouterr().err


def test_a_changed_array_or_test_file_is_not_divided_again(train: Any, dltrain: Any) -> None:
    import numpy as np

    draw = np.random.default_rng(0)
    inputs, targets = draw.normal(size=(200, 4)).astype(np.float32), np.arange(200) % 2
    np.savez("a.npz", inputs=inputs, targets=targets)
    run = train("dataset=npz", "dataset.path=a.npz", "model=linear", "steps=1").path
    inputs[1] += 1
    np.savez("a.npz", inputs=inputs, targets=targets)
    with pytest.raises(DataProblem, match="other values in some samples"):
        dltrain("evaluate", run)

    write("t.csv", rows_of(ROWS))
    write("u.csv", rows_of(40, seed=5))
    run = train(*KINDS, "dataset.test_path=u.csv").path
    write("u.csv", rows_of(41, seed=5))
    with pytest.raises(DataProblem, match=f"{ROWS + 41} samples now, and {ROWS + 40} then"):
        dltrain("evaluate", run)


@pytest.mark.parametrize("cached", ["true", "false"])
def test_a_changed_folder_is_not_divided_again(train: Any, dltrain: Any, scored: Any, cached: str) -> None:
    """Of files, four are decoded for the fingerprint; here another one changes."""
    draw = random.Random(0)
    for kind in ("cat", "dog"):
        Path(f"pets/{kind}").mkdir(parents=True)
        for i in range(20):
            Image.frombytes("RGB", (8, 8), draw.randbytes(192)).save(f"pets/{kind}/{i:02}.png")
    words = ("dataset=image_folder", "dataset.root=pets", "dataset.image_size=8", "model=linear", "steps=1")
    run = train(*words, f"dataset.cache={cached}").path
    shutil.copytree("pets", "former")
    own, _ = scored(run)
    Image.new("RGB", (8, 8)).save("pets/cat/02.png")
    with pytest.raises(DataProblem, match=r"trained on \(other (samples|files)") as refusal:
        dltrain("evaluate", run)
    assert str(refusal.value).endswith(f"dltrain evaluate {run} dataset.root=pets")
    with pytest.raises(DataProblem, match="are not those that it was trained on"):
        dltrain("report", run, "--samples")
    assert scored(run, "dataset.root=former")[0] == own
    assert set(scored(run, "dataset.root=pets")[0]) == {"all"}
    with pytest.raises(DataProblem, match="the data are not those that the run was trained on"):
        dltrain("resume", run, "steps=2")


def test_other_images_do_not_have_the_labels_of_the_training(
    train: Any, dltrain: Any, scored: Any, workdir: Path
) -> None:
    """Names of files repeat: 00.png of the training is a cat, that of the new folder a dog."""
    draw = random.Random(0)
    for place, kinds in (("own", "cat,dog"), ("new", "dog,cat")):
        Path(f"my {place}").mkdir()
        rows = [f"{i:02}.png,{kinds.split(',')[i % 2]}" for i in range(40)]
        Path(f"{place}.csv").write_text("\n".join(["file,kind", *rows]))
        for i in range(40):
            Image.frombytes("RGB", (8, 8), draw.randbytes(192)).save(f"my {place}/{i:02}.png")
    words = ("dataset=image_folder", "dataset.image_size=8", "model=linear", "steps=1")
    run = train(*words, "dataset.root=my own", "dataset.labels=own.csv")
    other = 'dataset.root="my new"'
    for verb in ("evaluate", "rerun"):
        with pytest.raises(UserError, match="`dataset.labels` is still own.csv, the file of the train") as no:
            dltrain(verb, run.path, other)
        lines = str(no.value).splitlines()
        assert lines[1].endswith(f"dltrain {verb} {run.path} 'dataset.root=\"my new\"' dataset.labels=FILE")
        assert lines[2].endswith(
            f"dltrain {verb} {run.path} 'dataset.root=\"my new\"' dataset.labels=own.csv"
        )
    with pytest.raises(UserError, match=r"`dataset.labels` is still own.csv"):
        from dltrain.api import Run

        Run(run.path).evaluate("dataset.root=my new")
    right = scored(run.path, other, "dataset.labels=new.csv")[0]["all"]
    wrong = scored(run.path, other, "dataset.labels=own.csv")[0]["all"]
    assert right["values"]["accuracy"] + wrong["values"]["accuracy"] == pytest.approx(1)
    assert set(scored(run.path, 'dataset.root="my own"')[0]) == {"val", "test"}
    own, _ = scored(run.path)
    Path("my own").rename("moved")
    with pytest.raises(DataProblem) as gone:
        dltrain("evaluate", run.path)
    cure = str(gone.value).splitlines()[-1].partition("dltrain ")[2]
    assert cure.endswith("dataset.root=NEW dataset.labels=own.csv")
    assert scored(*shlex.split(cure.replace("NEW", "moved"))[1:])[0] == own
    Path("own.csv").rename("moved/own.csv")
    with pytest.raises(UserError, match="is still own.csv.*\n.*dataset.root=moved dataset.labels=FILE$"):
        dltrain("evaluate", run.path, "dataset.root=moved")
