"""Scores of a regression with standardized targets are in the units of the file: numpy in float64 as second truth."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run, assert_equal
from sklearn import metrics as sk

from dltrain.config.compose import open_catalogue
from dltrain.config.door import door_for_saved
from dltrain.config.saved import read
from dltrain.errors import FindingsFailure
from dltrain.metrics.samples import default_metrics
from dltrain.metrics.targets import SCORES
from dltrain.run import scoring

COUNTS = {"train": 50, "val": 20, "test": 20}
TABLE = (
    "dataset=csv",
    "dataset.path=table.csv",
    "dataset.target=seen",
    "dataset.split_column=part",
    "model=linear",
)
BRIEF = ("steps=30", "lr=0.05", "early_stopping=none", "batch_size=16")


@pytest.fixture
def columns(workdir: Path) -> dict[str, np.ndarray]:
    """A table whose target is unix seconds: in float32 they have steps of 128 seconds."""
    draw = np.random.default_rng(5)
    parts = np.repeat(list(COUNTS), list(COUNTS.values()))
    size, age = draw.normal(3, 2, len(parts)), draw.normal(40, 9, len(parts))
    seen = np.round(1.7e9 + 1e4 * size - 2e3 * age + draw.normal(0, 5e3, len(parts)))
    rows = zip(size, age, seen, parts, strict=True)
    text = "".join(f"{float(a)!r},{float(b)!r},{c:.0f},{d}\n" for a, b, c, d in rows)
    (workdir / "table.csv").write_text("size,age,seen,part\n" + text)
    return {"inputs": np.stack([size, age], 1), "seen": seen, "part": parts}


def expected(columns: dict[str, np.ndarray], run: Run, part: str) -> dict[str, float]:
    """Loss, MAE, RMSE and R² of the run's best weights, by the formulas."""
    inputs, seen, parts = (columns[name] for name in ("inputs", "seen", "part"))
    training = parts == "train"
    scaled = (inputs - inputs[training].mean(0)) / inputs[training].std(0)
    weight, bias = (run.best_weights[f"head.{name}"].double().numpy() for name in ("weight", "bias"))
    outputs = (scaled @ weight.T + bias)[:, 0] * seen[training].std() + seen[training].mean()
    return by_formula((outputs - seen)[parts == part], seen[parts == part])


def by_formula(errors: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    squares = float(np.mean(errors**2))
    return {
        "loss": squares,
        "mae": float(np.mean(np.abs(errors))),
        "rmse": squares**0.5,
        "r2": 1 - squares / float(truth.var()),
    }


def close(found: dict[str, float], wanted: dict[str, float]) -> None:
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name


def evaluated(run: Run, *more: Run) -> list[scoring.Score]:
    paths = [run.path, *(other.path for other in more)]
    configs = [read(path, open_catalogue(), []) for path in paths]
    doors = [door_for_saved(config, open_catalogue(), []) for config in configs]
    return scoring.score_runs(paths, configs, doors)


@pytest.mark.parametrize("loss", ["auto", "huber"])
def test_single_run_and_evaluate(train, columns, loss):
    run = train(*TABLE, *BRIEF, f"loss={loss}")
    best = {
        name.removeprefix("val/"): value
        for name, value in run.summary["best"].items()
        if name.startswith("val/")
    }
    close(best, expected(columns, run, "val"))
    close(run.summary["test"], expected(columns, run, "test"))
    scores = {score.split: score.values for score in evaluated(run)}
    for part, values in scores.items():
        close(values, expected(columns, run, part))
    # what is minimized: in standard deviations
    deviation = columns["seen"][columns["part"] == "train"].std()
    if loss == "auto":
        assert best["objective"] == pytest.approx(best["loss"] / deviation**2, rel=1e-4)
    assert 0 < best["objective"] < 5


def test_scores_are_exact_over_ragged_batches_and_leave_the_training_alone(train, columns):
    """20 samples in batches of 7; `metrics=[mae]` leaves rmse and r2 out."""
    run = train(*TABLE, *BRIEF, "evaluation.batch_size=7")
    alone = train(*TABLE, *BRIEF, "evaluation.batch_size=7", "metrics=[mae]")
    close(run.summary["test"], expected(columns, run, "test"))
    assert set(run.rows[0]) - set(alone.rows[0]) == {"val/rmse", "val/r2"}
    shared = [{name: row[name] for name in alone.timeless_rows[0]} for row in run.timeless_rows]
    assert shared == alone.timeless_rows
    assert_equal(run.best_weights, alone.best_weights)
    assert (run.summary["metric"], run.summary["mode"]) == ("val/loss", "min")


def test_r2_can_be_watched_without_naming_it(train, columns):
    run = train(*TABLE, *BRIEF, "early_stopping.metric=val/r2")
    assert run.summary["objective"] == max(row["val/r2"] for row in run.rows)


def test_the_header_says_how_much_delta_is(train, columns):
    """The help said deviations, and nothing said of how much: 0.5 of them are so many units of the file."""
    deviation = columns["seen"][columns["part"] == "train"].std()
    run = train(*TABLE, "steps=1", "loss=huber", "loss.delta=0.5")
    text = f"loss     delta 0.5 standard deviations of the training targets: {0.5 * deviation:.4g} in their units"
    assert text in run.summary["inferred"]
    run = train(*TABLE, "steps=1", "loss=huber", "dataset.target_scale=none")
    assert "loss     delta 1 in the units of the targets" in run.summary["inferred"]


def test_training_scores_are_in_real_units(train, columns):
    """One batch an epoch: train/loss is that of the weights before its step."""
    run = train(*TABLE, "batch_size=full", "epochs=1", "early_stopping=none", "initializer=zeros")
    seen = columns["seen"][columns["part"] == "train"]
    row = run.rows[0]
    assert row["train/loss"] == pytest.approx(seen.var(), rel=1e-4)
    assert row["train/mae"] == pytest.approx(np.abs(seen - seen.mean()).mean(), rel=1e-4)
    assert row["train/objective"] == pytest.approx(1, rel=1e-4)


def test_stacked_runs(dltrain, columns, workdir):
    """Through the command line; tests/sweep/test_stacked.py compares stacked runs with runs alone, number by number."""
    sweep = (
        "-m",
        *TABLE,
        *BRIEF[:1],
        *BRIEF[2:],
        "lr=0.05,0.02,0.01",
        "sweep.backend=stacked",
        "sweep.jobs=1",
        "quiet=true",
    )
    assert dltrain(*sweep) == 0
    assert list(workdir.glob("**/stacks.log")), "the runs were not stacked"
    runs = [Run(file.parent.parent) for file in sorted(workdir.glob("**/checkpoints/best.safetensors"))]
    assert len(runs) == 3
    for run in runs:
        best = {name.removeprefix("val/"): value for name, value in run.summary["best"].items()}
        close(best, expected(columns, run, "val"))


def test_resumed_run_equals_the_undisturbed_one(train, dltrain, columns):
    whole = train(*TABLE, *BRIEF)
    half = train(*TABLE, *BRIEF, "steps=16")
    assert dltrain("resume", half.path, "steps=30", "quiet=true") == 0
    assert Run(half.path).timeless_rows[-1]["val/loss"] == whole.timeless_rows[-1]["val/loss"]
    close(Run(half.path).summary["test"], expected(columns, Run(half.path), "test"))


def test_ensemble_of_runs_with_different_scales(train, columns):
    """Members that standardized by 50 and by 30 samples: the mean of their outputs in seconds."""
    runs = [train(*TABLE, *BRIEF, *more) for more in ((), ("dataset.limit=30",))]
    scores = evaluated(*runs)
    assert [score.run for score in scores[-2:]] == ["ensemble of 2"] * 2
    singles = [score.values["mae"] for score in scores[:-2] if score.split == "test"]
    assert scores[-1].values["mae"] <= max(singles) * (1 + 1e-6)
    assert "objective" not in scores[-1].values
    (same,) = (score for score in evaluated(runs[0], runs[0])[-1:])
    close(same.values, scores[1].values)


def test_metrics_keep_float64():
    outputs, targets = (torch.tensor([[value]], dtype=torch.float64) for value in (1.7e9 + 1, 1.7e9))
    (metric,) = default_metrics("regression").values()
    assert float(metric(outputs, targets)) == 1


def test_a_run_without_the_scale_scores_as_before(train, columns, workdir):
    """A run of an earlier version learned the targets as they are, and its statistics hold no scale."""
    run = train(*TABLE, *BRIEF, "dataset.target_scale=none", "lr=1e-4")
    assert "val/objective" not in run.summary["best"]
    before = run.summary["test"]
    file = run.path / "config.yaml"
    file.write_text(file.read_text().replace("target_scale: none", "target_scale: unit"))
    (score,) = (score for score in evaluated(run) if score.split == "test")
    assert score.values == pytest.approx(before, rel=1e-6)


def test_the_constant_guess_and_what_was_inferred_are_told(dltrain, workdir, columns, capsys):
    assert dltrain(*TABLE, *BRIEF) == 0
    (run,) = (Run(file.parent) for file in workdir.glob("**/summary.json"))
    seen, part = columns["seen"], columns["part"]
    errors = seen[part == "test"] - seen[part == "train"].mean()
    close(run.summary["constant"], by_formula(errors, seen[part == "test"]))
    assert (
        run.summary["inferred"][0]
        == "table    table.csv · 90 rows · 2 numbers · left out: part (splits the rows)"
    )
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "table    table.csv · 90 rows · 2 numbers · left out: part (splits the rows)" in lines
    assert any(line.startswith("target   seen: regression") for line in lines)
    (constant,) = (line for line in lines if line.startswith("constant "))
    (test,) = (line for line in lines if line.startswith("test "))
    for name in ("loss ", " · mae ", " · rmse ", " · r2 "):
        assert name in constant and name in test


def test_the_constant_guess_of_classes(train, workdir):
    """Shares 3/4 and 1/4 in every split: cross-entropy and accuracy by hand."""
    kinds = ["a", "a", "a", "b"] * 20
    rows = [
        f"{i % 7}.5,{kind},{('train', 'val', 'test', 'train')[i // 4 % 4]}" for i, kind in enumerate(kinds)
    ]
    (workdir / "t.csv").write_text("\n".join(["x,kind,part", *rows]) + "\n")
    run = train(
        "dataset=csv", "dataset.path=t.csv", "dataset.target=kind", "dataset.split_column=part", *BRIEF
    )
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert run.summary["constant"] == pytest.approx({"loss": entropy, "accuracy": 0.75}, rel=1e-5)


def test_nothing_is_inferred_of_digits(train):
    assert "inferred" not in train("steps=2", "dataset=digits").summary


def test_targets_of_different_size_are_named_with_a_cure(dltrain, workdir, capsys):
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(80, 3)).astype("f4")
    for name, size in (("far", 1e5), ("near", 3.0)):
        np.savez(workdir / f"{name}.npz", inputs=inputs, targets=inputs[:, :2] * np.array([size, 1.0]))
    common = ("dataset=npz", "model=linear", "steps=3", "logger=none")
    said = {}
    for name, more in (("far", ()), ("near", ()), ("far", ("early_stopping.metric=val/objective",))):
        assert dltrain(*common, f"dataset.path={name}.npz", *more) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  targets")]
        said[name, more] = lines
    (line,) = said.pop(("far", ()))
    assert "val/loss is in real units: y0 (deviation" in line and "outweighs y1" in line
    assert not any(said.values())


def test_each_of_several_targets_is_scored_in_its_units(dltrain, workdir, capsys):
    """Found by a data scientist: the mean of errors in euro and in counts says nothing of either."""
    generator = np.random.default_rng(1)
    x = generator.normal(size=(120, 3)).round(4)
    bill = (100 + 40 * x[:, 0] + 5 * generator.normal(size=120)).round(3)
    visits = (3 + x[:, 1] + 0.3 * generator.normal(size=120)).round(3)
    lines = [",".join(map(str, row)) for row in np.column_stack([x, bill, visits]).tolist()]
    Path("bills.csv").write_text("\n".join(["a,b,c,bill,visits", *lines]) + "\n")
    keys = ("dataset=csv", "dataset.path=bills.csv", "dataset.target=[bill,visits]", "model=linear")
    assert dltrain(*keys, "epochs=3", "name=bills") == 0
    run = str(next(Path("outputs/bills").iterdir()))
    capsys.readouterr()
    assert dltrain("evaluate", run, "--json") == 0
    scores = {item["split"]: item for item in json.loads(capsys.readouterr().out)["scores"]}
    assert dltrain("predict", run, "--split", "test", "--output", "found.csv") == 0
    with open("found.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    capsys.readouterr()
    told = scores["test"]["per_target"]
    assert [row["name"] for row in told] == ["bill", "visits"]
    for row in told:
        true = [float(line[f"truth({row['name']})"]) for line in rows]
        found = [float(line[row["name"]]) for line in rows]
        close(
            {name: row[name] for name in ("mae", "rmse", "r2")},
            {
                "mae": sk.mean_absolute_error(true, found),
                "rmse": sk.root_mean_squared_error(true, found),
                "r2": sk.r2_score(true, found),
            },
        )
    # the run keeps them, beside its means, and its card has them
    with open(Path(run) / "per_target.csv", newline="") as file:
        kept = list(csv.DictReader(file))
    assert [row["target"] for row in kept] == ["bill", "visits"]
    for row, other in zip(kept, told, strict=True):
        close({name: float(row[name]) for name in SCORES}, {name: other[name] for name in SCORES})
    assert dltrain("export", run, "--format", "safetensors", "--output", "card") == 0
    assert f"| bill | {told[0]['mae']:.4g} | {told[0]['rmse']:.4g} |" in Path("card/README.md").read_text()
    assert dltrain("verify", run) == dltrain("reproduce", run) == 0
    means = {name: sum(row[name] for row in told) / 2 for name in ("mae", "rmse", "r2")}
    close({name: scores["test"]["values"][name] for name in means}, means)
    assert dltrain("evaluate", run) == 0
    lines = capsys.readouterr().out.splitlines()
    place = lines.index(next(line for line in lines if line.startswith("target ")))
    assert lines[place].split() == ["target", "mae", "rmse", "r2"]
    assert [line.split()[0] for line in lines[place + 1 :]] == ["bill", "visits"]
    for text, found in (
        ("target,mae,rmse,r2\nbill,1,1,1\nvisits,1,1,1\n", "mean mae 1"),
        ("a,b\n1,2\n", ""),
    ):
        (Path(run) / "per_target.csv").write_text(text)
        with pytest.raises(FindingsFailure):
            dltrain("verify", run)
        assert "per_target.csv" in (said := capsys.readouterr().out) and found in said
