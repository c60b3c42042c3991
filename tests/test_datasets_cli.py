"""Every way to bring data, by the command line: files of one's own, downloads without net, splits, weights, folds."""

from __future__ import annotations

import gzip
import socket
import urllib.error
import urllib.request

import numpy as np
import pytest
from conftest import Run, run_folders
from PIL import Image

from dltrain.data.image_files import ImageFiles
from dltrain.errors import DataProblem, ResourceProblem, UserError
from dltrain.run import plan

GENERATOR = np.random.default_rng(0)


def table(workdir, name="table.csv", rows=60, spoil=lambda i, row: row):
    """Rows of two numbers, a colour, a class that follows from them, a price, a split and a patient."""
    lines = ["height,weight,colour,kind,price,part,patient"]
    for i in range(rows):
        height, weight = GENERATOR.normal(size=2).round(3)
        colour, kind = ("red", "green", "blue")[i % 3], ("small", "big")[int(height + weight > 0)]
        part = ("train", "train", "train", "val", "test")[i % 5]
        row = [height, weight, colour, kind, 2 * height - weight, part, f"p{i // 4}"]
        lines.append(",".join(map(str, spoil(i, row))))
    (workdir / name).write_text("\n".join(lines) + "\n")
    return name


def only_run(workdir):
    (folder,) = run_folders(workdir)
    return Run(folder)


CLASSIFY = ("dataset=csv", "dataset.path=table.csv", "dataset.target=kind")
WITHOUT = "dataset.features=[height,weight,colour]"


def test_csv_classification_with_categories(train, workdir):
    table(workdir, rows=200)
    run = train(*CLASSIFY, WITHOUT, "lr=0.01", "epochs=20")
    assert run.summary["test"]["accuracy"] > 0.9
    assert (
        run.summary["parameters"] == 5 * 256 + 256 + 256 * 128 + 128 + 128 * 2 + 2
    )  # three columns for the colours


def test_csv_regression(train, workdir):
    table(workdir, rows=200)
    run = train(
        "dataset=csv", "dataset.path=table.csv", "dataset.target=price", WITHOUT, "lr=0.01", "epochs=20"
    )
    assert run.summary["test"]["mae"] < 0.3


def test_a_regression_far_from_zero_is_learned_and_scored_in_its_units(train, workdir):
    """The second truth: the mean absolute error of least squares in float64, fitted and tested on the same rows."""
    from dltrain.data.splits import split
    from dltrain.data.table import csv

    table(
        workdir,
        rows=300,
        spoil=lambda i, row: [*row[:4], f"{200_000 + 60_000 * row[0] - 40_000 * row[1]:.0f}", *row[5:]],
    )
    words = (
        "dataset=csv",
        "dataset.path=table.csv",
        "dataset.target=price",
        "dataset.features=[height,weight]",
    )
    run = train(*words, "model=linear", "lr=0.03", "epochs=60", "early_stopping=none")
    raw = csv("table.csv", "price", features=["height", "weight"])
    marks = split(raw, val_fraction=0.1, test_fraction=0.1, split_seed=0).numpy()
    x = np.stack([np.ones(300), *(column.values for column in raw.inputs.columns)], 1)
    y = raw.targets.numpy()[:, 0]
    weights, *_ = np.linalg.lstsq(x[marks == 0], y[marks == 0], rcond=None)
    least_squares = np.abs(x @ weights - y)[marks == 2].mean()
    constant = np.abs(y[marks == 0].mean() - y)[marks == 2].mean()
    assert least_squares < 1 < 10_000 < constant
    assert run.summary["test"]["mae"] < 0.02 * constant


def test_evaluate_refuses_a_file_that_would_be_coded_again(train, dltrain, workdir, capsys):
    """Classes were numbered separately for each file: a renamed class gave an accuracy of 0 without a message."""
    table(workdir, rows=100)
    run = train(*CLASSIFY, WITHOUT, "epochs=3")
    assert dltrain("evaluate", run.path) == 0
    text = (workdir / "table.csv").read_text()
    for old, new, says in (
        ("small", "tiny", "column 'kind' holds 'tiny', which is none of the classes 'big', 'small'"),
        ("weight", "mass", "other.csv lacks 'weight' of the columns that the model was trained on"),
    ):
        (workdir / "other.csv").write_text(text.replace(old, new))
        with pytest.raises(DataProblem, match=says):
            dltrain("evaluate", run.path, "dataset.path=other.csv")


@pytest.mark.parametrize("target", ["kind", "price"])
def test_a_run_of_an_earlier_version_is_scored_as_it_was(train, dltrain, workdir, capsys, target):
    """Runs of caa09af kept mean and std alone, and learned quantities as they were."""
    from safetensors.torch import load_file, save_file

    table(workdir, rows=100)
    run = train(
        "dataset=csv",
        "dataset.path=table.csv",
        f"dataset.target={target}",
        WITHOUT,
        "epochs=2",
        *(["dataset.target_scale=none"] if target == "price" else []),
    )
    kept = run.path / "checkpoints" / "normalization.safetensors"
    save_file({key: value for key, value in load_file(kept).items() if key in ("mean", "std")}, kept)
    config = (run.path / "config.yaml").read_text().splitlines()
    new = ("target_scale:", "missing", "drop:", "keep:", "test_path:", "dates:", "date_format:", "decimal:")
    (run.path / "config.yaml").write_text(
        "\n".join(line for line in config if not line.strip().startswith(new))
    )
    capsys.readouterr()
    assert dltrain("evaluate", run.path) == 0
    last = next(line for line in capsys.readouterr().out.splitlines() if " test " in line).split()
    assert [float(value) for value in last[3:]] == pytest.approx(list(run.summary["test"].values()), abs=6e-5)


def test_check_says_what_was_inferred_from_a_table(dltrain, workdir, capsys):
    table(workdir, rows=100)
    dltrain("check", *CLASSIFY, "dataset.drop=[price]")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "table    table.csv · 100 rows · 2 numbers, 3 categories · left out: price (dropped)"
    assert lines[1] == "target   kind: classification, 2 classes"


def test_csv_with_given_splits_and_groups(train, workdir):
    table(workdir)
    lines = said_header(workdir, *CLASSIFY, WITHOUT, "dataset.split_column=part")
    assert "36 train · 12 val · 12 test" in lines
    assert (
        train(*CLASSIFY, WITHOUT, "dataset.group_column=patient", "steps=2").summary["status"] == "completed"
    )


def said_header(workdir, *arguments):
    """What the header says of the data."""
    import contextlib
    import io

    from dltrain.cli import dispatch

    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert dispatch([*arguments, "steps=2"]) == 0
    return next(line for line in out.getvalue().splitlines() if line.strip().startswith("data"))


@pytest.mark.ci
def test_class_weights_and_folds(dltrain, train, workdir):
    table(workdir)
    assert (
        train(*CLASSIFY, WITHOUT, "dataset.class_weights=balanced", "steps=3").summary["status"]
        == "completed"
    )
    assert dltrain("-m", *CLASSIFY, WITHOUT, "folds=3", "fold=0,1,2", "steps=2", "quiet=true") == 0
    folds = [Run(p) for p in run_folders(workdir) if p.parent.parent.name == "csv_table_mlp"]
    assert len({str(run.rows) for run in folds}) == len(folds) == 3


def test_folds_depend_on_the_split_seed_alone(workdir):
    from dltrain.config.compose import compose, open_catalogue, open_hydra
    from dltrain.config.door import Door, shipped_targets
    from dltrain.config.validation import validate
    from dltrain.run.build import build

    def test_samples(*overrides):
        catalogue = open_catalogue()
        config = validate(compose(list(overrides), catalogue, open_hydra(catalogue)))
        parts, _ = build(config, Door(shipped_targets(catalogue), []))
        assert parts.val is not None
        assert parts.test is not None
        return [parts.val.targets.tolist(), parts.test.targets.tolist()]

    assert test_samples("seed=0") == test_samples("seed=5")
    assert test_samples("dataset.split_seed=0") != test_samples("dataset.split_seed=1")
    first, second = (test_samples("folds=3", f"fold={fold}") for fold in (0, 1))
    assert first[1] == second[1], "every fold has the same test split"
    assert first[0] != second[0]


def test_parquet(train, workdir):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    heights = GENERATOR.normal(size=60)
    columns = {
        "height": heights,
        "colour": ["red", "blue"] * 30,
        "kind": np.where(heights > 0, "big", "small"),
    }
    parquet.write_table(pyarrow.table(columns), workdir / "table.parquet")
    run = train("dataset=csv", "dataset.path=table.parquet", "dataset.target=kind", "steps=5")
    assert run.summary["parameters"] == 3 * 256 + 256 + 256 * 128 + 128 + 128 * 2 + 2


def test_npz(train, workdir):
    images = GENERATOR.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    np.savez(workdir / "images.npz", x=images, y=np.arange(60) % 3, part=np.arange(60) % 3)
    keys = ("dataset=npz", "dataset.path=images.npz", "dataset.inputs=x", "dataset.targets=y")
    assert train(*keys, "model=cnn", "steps=2").summary["status"] == "completed"


def photos(workdir, count=12):
    for part in ("train", "val", "test"):
        for name in ("cats", "dogs"):
            folder = workdir / "photos" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = GENERATOR.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.jpg")
    return ("dataset=image_folder", "dataset.root=photos", "model=cnn", "augmentation=[flip,crop]", "steps=2")


@pytest.mark.parametrize("streamed", [False, True])
def test_image_folder(workdir, streamed):
    arguments = photos(workdir)
    more = ("dataset.resident_share=0", "dataset.cache=false", "workers=0") if streamed else ()
    assert "24 train · 24 val · 24 test · 3×16×16 inputs → 2 classes" in said_header(
        workdir, *arguments[:-1], *more
    )


def test_resident_and_streamed_images_give_the_same_run(train, workdir):
    """The residency changes where the data lie, not what is learnt."""
    arguments = (*photos(workdir)[:-1], "steps=4")
    resident = train(*arguments)
    streamed = train(*arguments, "dataset.resident_share=0", "workers=0")
    for left, right in zip(resident.timeless_rows, streamed.timeless_rows, strict=True):
        assert left == pytest.approx(right, rel=1e-4, nan_ok=True)


# what is wrong with the data ---------------------------------------------------------------------------------------


def refused(dltrain, workdir, *arguments):
    with pytest.raises(DataProblem) as error:
        dltrain(*arguments, "quiet=true")
    assert error.value.exit_code == 3
    assert len(str(error.value).splitlines()) <= 3
    assert not (workdir / "outputs").exists()
    return str(error.value)


def test_a_missing_value_is_named_by_column_and_row(dltrain, workdir):
    table(workdir, spoil=lambda i, row: ["", *row[1:]] if i == 7 else row)
    message = refused(dltrain, workdir, *CLASSIFY, "dataset.missing=refuse")
    assert "column 'height' has no value in row 8 of table.csv" in message


def test_a_missing_column_is_named_with_the_nearest(dltrain, workdir):
    table(workdir)
    message = refused(dltrain, workdir, "dataset=csv", "dataset.path=table.csv", "dataset.target=knid")
    assert "dataset.target names the column 'knid'" in message
    assert "did you mean 'kind'?" in message


def test_a_class_missing_from_a_split_is_named(dltrain, workdir):
    table(workdir, spoil=lambda i, row: [*row[:3], "rare" if row[5] == "train" else row[3], *row[4:]])
    message = refused(dltrain, workdir, *CLASSIFY, WITHOUT, "dataset.split_column=part")
    assert "is missing from the train split" in message


@pytest.mark.parametrize("more", [(), ("dataset.resident_share=0", "dataset.cache=false", "workers=0"),
                                  ("dataset.resident_share=0", "dataset.cache=false", "workers=1")])  # fmt: skip
def test_an_unreadable_image_is_named(dltrain, workdir, more):
    arguments = photos(workdir)
    broken = workdir / "photos" / "train" / "dogs" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(DataProblem) as error:
        dltrain(*arguments[:-1], "epochs=1", "quiet=true", *more)
    assert error.value.exit_code == 3
    assert "cannot use the image photos/train/dogs/3.jpg" in str(error.value)
    assert len(str(error.value).splitlines()) <= 3
    broken.unlink()  # the cure
    assert dltrain(*arguments, "quiet=true", *more) == 0


@pytest.mark.parametrize("arguments, says", [
    (("dataset=csv", "dataset.path=nowhere.csv", "dataset.target=y"), "dataset.path is nowhere.csv, which is not a file"),
    (("dataset=npz", "dataset.path=nowhere.npz"), "dataset.path is nowhere.npz, which is not a file"),
    (("dataset=image_folder", "dataset.root=nowhere"), "dataset.root is nowhere, which is not a folder"),
    (("dataset=mnist", "dataset.download=false"), "set dataset.download=true, or set dataset.root"),
])  # fmt: skip
def test_files_that_are_not_there(dltrain, workdir, arguments, says):
    assert says in refused(dltrain, workdir, *arguments)


@pytest.mark.parametrize("word", ["mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100", "svhn"])
def test_without_net_a_download_says_what_to_do(dltrain, workdir, monkeypatch, word):
    def no_net(*args, **keys):
        raise urllib.error.URLError(socket.gaierror(-3, "Temporary failure in name resolution"))

    monkeypatch.setattr(urllib.request, "urlopen", no_net)
    message = refused(dltrain, workdir, f"dataset={word}")
    for words in ("could not download", "name resolution", "by hand", "SHA-256", "dataset.root"):
        assert words in message
    assert max(map(len, message.splitlines())) < 400


def test_mnist_in_the_layout_of_torchvision(train, workdir):
    def idx(array):
        head = (0x800 | array.ndim).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in array.shape)
        return head + array.astype(np.uint8).tobytes()

    raw = workdir / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 60), ("t10k", 20)):
        images = GENERATOR.integers(0, 256, (count, 28, 28))
        (raw / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 10))
    line = said_header(workdir, "dataset=mnist", "model=cnn", "dataset.val_fraction=0.2")
    assert "48 train · 12 val · 20 test · 1×28×28 inputs → 10 classes" in line


def test_a_loss_that_does_not_fit_is_refused(dltrain, workdir):
    table(workdir)
    with pytest.raises(UserError, match="loss: "):
        dltrain(
            "dataset=csv", "dataset.path=table.csv", "dataset.target=price", WITHOUT, "loss=cross_entropy"
        )
    assert not (workdir / "outputs").exists()


@pytest.mark.ci
def test_streaming_holds_no_more_at_the_end_of_an_epoch_than_near_its_start(dltrain, workdir, monkeypatch):
    """The main process and its worker, over 60 batches of image files; the whole is benchmarks/memory.py."""
    from pathlib import Path

    from dltrain.loggers.terminal import Terminal

    def private(pid):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024

    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("this system does not tell the memory of a process")
    held: dict[int, list[float]] = {}

    def look(self, progress):
        children = Path("/proc/self/task").glob("*/children")
        for pid in ("self", *(pid for file in children for pid in file.read_text().split())):
            held.setdefault(pid, []).append(private(pid))

    monkeypatch.setattr(Terminal, "stepped", look)
    arguments = photos(workdir, count=120)[:2]
    assert dltrain(*arguments, "model=linear", "dataset.resident_share=0", "dataset.cache=false", "workers=1", "epochs=1",
                   "batch_size=4", "quiet=true") == 0  # fmt: skip
    watched = [samples for samples in held.values() if len(samples) == 60]
    assert len(watched) >= 2, "the main process and at least one worker"
    for samples in watched:
        assert max(samples[45:]) - max(samples[10:30]) < 8, "MiB"


def test_images_larger_than_the_memory_are_refused_before_they_are_read(dltrain, workdir, monkeypatch):
    for i in range(40):
        path = workdir / "photos" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), (i, 0, 0)).save(path)
    images = ("dataset=image_folder", "dataset.root=photos", "dataset.cache=false", "model=linear", "steps=1")
    # 40 images as bytes and as floats
    monkeypatch.setattr(plan, "free_memory", lambda device: 40 * 5 * 3 * 20 * 30 - 1)
    monkeypatch.setattr(ImageFiles, "read", lambda *_: pytest.fail("read"))
    with pytest.raises(ResourceProblem, match="40 samples of shape 3×20×30 .*\n.*dataset.image_size=224"):
        dltrain(*images)
    assert not (workdir / "outputs").exists()
    monkeypatch.undo()
    monkeypatch.chdir(workdir)
    monkeypatch.setattr(plan, "free_memory", lambda device: 40 * 5 * 3 * 20 * 30)
    assert dltrain(*images) == 0
