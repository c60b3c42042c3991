"""The direction of a metric: one table, followed by the weights that are kept, by schedules and by sweeps."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys

import pytest
import yaml
from conftest import Run, assert_equal, every, run_folders

from dltrain import direction
from dltrain.config import saved
from dltrain.config.compose import open_catalogue
from dltrain.direction import direction_of, improves, problems, resolve_mode
from dltrain.errors import CheckpointProblem, UserError
from dltrain.metrics.samples import TASK_WORDS
from dltrain.schedules import Plateau
from dltrain.sweep.reuse import key_of

# a fast learner that overshoots: the best accuracy is neither the first nor the last, nor at the lowest loss
IRIS = (
    "dataset=iris",
    "dataset.val_fraction=0.3",
    "model=linear",
    "optimizer=sgd",
    "lr=1.0",
    "batch_size=16",
)


LOWER_IS_BETTER = {"loss", "gap", "mae", "rmse", "mape", "calibration_error"}


def test_every_column_that_can_be_watched_has_a_direction():
    names = {"loss", "gap", *", ".join(TASK_WORDS.values()).split(", ")}
    assert {name: direction_of(f"val/{name}") for name in names} == {
        name: "min" if name in LOWER_IS_BETTER else "max" for name in names
    }


def test_the_classes_of_metrics_state_the_same_directions():
    words = open_catalogue().words["metrics"]
    assert {name: word.node["_direction_"] for name, word in words.items() if word.target} == {
        name: direction_of(name) for name in ", ".join(TASK_WORDS.values()).split(", ")
    }


def test_it_is_known_without_torch():
    code = "import sys, dltrain.direction; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_columns_that_are_no_scores_have_no_neighbor():
    """`Did you mean val/r2`, of a classification."""
    (said,) = problems({"early_stopping": {"metric": "lr", "mode": "auto"}}, ["r2", "f1"]).values()
    assert "Did you mean" not in said and "Say which: early_stopping.mode=min" in said


def test_auto_follows_the_metric_and_an_unknown_one_is_refused():
    assert (resolve_mode("val/accuracy", "auto"), resolve_mode("train/loss", "auto")) == ("max", "min")
    assert resolve_mode("val/mine", "max") == "max"
    with pytest.raises(ValueError, match="val/mine"):
        resolve_mode("val/mine", "auto")
    assert resolve_mode("val/mine", "auto", {"mine": {"_direction_": "min"}}) == "min"
    assert Plateau(10, 5, metric="val/accuracy").mode == "max"


@pytest.mark.parametrize("word", ["patience", "none"])
def test_the_highest_accuracy_is_kept(train, word):
    run = train(*IRIS, "epochs=5", f"early_stopping={word}", "early_stopping.metric=val/accuracy")
    accuracies = [row["val/accuracy"] for row in run.rows]
    best = max(accuracies)
    assert best not in (accuracies[-1], min(accuracies)), "the case needs a best that is not the last"
    first = next(row for row in run.rows if row["val/accuracy"] == best)
    assert run.summary["objective"] == best and run.summary["best"]["step"] == first["step"]
    assert (run.summary["metric"], run.summary["mode"]) == ("val/accuracy", "max")
    assert yaml.safe_load((run.path / "config.yaml").read_text())["early_stopping"]["mode"] == "auto"


def test_smoothing_does_not_choose_the_weights(train):
    """FAULTS 1: it went on to epoch 60 and kept the weights of the last one."""
    run = train(
        "dataset.limit=150",
        "lr=0.01",
        "early_stopping.smoothing=0.9",
        "early_stopping.patience=15",
        "epochs=60",
    )
    losses = [row["val/loss"] for row in run.rows]
    assert losses.index(min(losses)) < len(losses) - 10, "the case needs a best that is not the last"
    assert run.summary["objective"] == min(losses)
    averages, m = [], 0.0
    for t, loss in enumerate(losses, start=1):
        m = 0.9 * m + 0.1 * loss
        averages.append(m / (1 - 0.9**t))
    lowest = averages.index(min(averages))
    assert len(losses) == min(lowest + 15 + 1, 60)
    assert run.summary["status"] == ("early_stopped" if len(losses) < 60 else "completed")


def test_a_plateau_lowers_the_rate_when_accuracy_stands_still(train):
    run = train(
        *IRIS, "epochs=12", "early_stopping=none", "schedule=plateau", "schedule.metric=val/accuracy", "schedule.patience=2"
    )  # fmt: skip
    best, stale, changes = None, 0, 0
    for row in run.rows:
        assert row["lr"] == pytest.approx(1.0 * 0.5**changes)
        stale = 0 if best is None or row["val/accuracy"] > best else stale + 1
        best = row["val/accuracy"] if best is None else max(best, row["val/accuracy"])
        if stale == 2:
            changes, stale = changes + 1, 0
    assert changes > 0


# Sweeps -----------------------------------------------------------------------------------------------------------


@pytest.mark.ci
@pytest.mark.parametrize(
    "arguments", [(), ("sweep=tpe", "sweep.trials=2"), ("sweep.backend=local", "sweep.jobs=1")]
)
def test_a_sweep_over_accuracy_crowns_the_highest(workdir, dltrain, arguments):
    rates = "lr=0.0001,0.3" if "sweep=tpe" not in arguments else "lr=choice(0.0001,0.3)"
    base = ["dataset=iris", "model=linear", "epochs=2", "early_stopping.metric=val/accuracy", "quiet=true"]
    assert dltrain("-m", rates, *base, *arguments) == 0
    (folder,) = {file.parent for file in workdir.glob("outputs/*/*/sweep.json")}
    with open(folder / "results.csv") as stream:
        rows = list(csv.DictReader(stream))
    best = max(rows, key=lambda row: float(row["objective"]))
    text = (folder / "best.yaml").read_text()
    assert yaml.safe_load(text)["lr"] == float(best["lr"]), text
    assert "(higher is better)" in text and "higher is better" in (folder / "report.html").read_text()
    for row in rows:
        with open(f"{row['folder']}/metrics.csv") as stream:
            seen = [float(line["val/accuracy"]) for line in csv.DictReader(stream)]
        assert float(row["objective"]) == max(seen)


@pytest.mark.parametrize(
    "arguments",
    every(
        4,
        [
            ["early_stopping.mode=max,min"],
            ["early_stopping.mode=auto,min"],
            ["early_stopping.metric=val/loss,val/accuracy"],
            ["lr=0.1,0.2", "+sweep.space={early_stopping.metric: [val/loss, val/accuracy]}"],
        ],
    ),
)  # fmt: skip
def test_an_axis_that_changes_the_comparison_is_refused(workdir, dltrain, arguments):
    arguments = [text.removeprefix("+") for text in arguments]
    with pytest.raises(
        UserError, match=r"`early_stopping\.\w+` cannot be an axis: the jobs .* compared by one metric"
    ):
        dltrain("-m", "dataset=iris", "epochs=1", *arguments)
    assert not any(workdir.iterdir())


def test_jobs_with_different_objectives_are_refused(workdir, dltrain):
    folder = workdir / "conf" / "early_stopping"
    folder.mkdir(parents=True)
    (folder / "by_accuracy.yaml").write_text("defaults: [patience]\nmetric: val/accuracy\n")
    with pytest.raises(
        UserError, match=r"val/accuracy \(higher is better\), but val/loss \(lower is better\) in the"
    ):
        dltrain("-m", "dataset=iris", "epochs=1", "early_stopping=patience,by_accuracy")
    assert [path.name for path in workdir.iterdir()] == ["conf"]


# Runs and sweeps of earlier versions ------------------------------------------------------------------------------


@pytest.fixture
def contradictory(train, monkeypatch):
    """A run as commit caa09af made it: `mode: min`, its default, beside val/accuracy."""
    with monkeypatch.context() as patch:
        patch.setattr("dltrain.config.validation.problems", lambda plain, words=(): {})

        def make(*overrides: str) -> Run:
            return train(*IRIS, "early_stopping.metric=val/accuracy", "early_stopping.mode=min", *overrides)

        short, long = make("epochs=3"), make("epochs=6")
    assert short.summary["objective"] == min(row["val/accuracy"] for row in short.rows)
    return short, long


def test_a_contradictory_run_of_an_earlier_version_goes_on_as_it_began(
    contradictory, workdir, dltrain, capsys
):
    short, long = contradictory
    assert dltrain("resume", short.path, "epochs=6") == 0
    said = capsys.readouterr().err
    assert "higher is better" in said and f"dltrain rerun {short.path} early_stopping.mode=auto" in said
    assert short.timeless_rows == long.timeless_rows
    assert_equal(short.best_weights, long.best_weights)


def test_it_can_be_evaluated_repeated_and_repeated_in_the_right_direction(
    contradictory, workdir, dltrain, capsys
):
    _, long = contradictory
    assert dltrain("evaluate", long.path) == 0
    before = run_folders(workdir)
    assert dltrain("rerun", long.path) == 0
    (again,) = run_folders(workdir) - before
    assert Run(again).summary["objective"] == long.summary["objective"]
    assert "early_stopping.mode=min for val/accuracy" in capsys.readouterr().err
    before = run_folders(workdir)
    assert dltrain("rerun", long.path, "early_stopping.mode=auto") == 0
    (right,) = run_folders(workdir) - before
    assert Run(right).summary["objective"] == max(row["val/accuracy"] for row in long.rows)
    assert "val/accuracy" not in capsys.readouterr().err


def test_a_change_that_contradicts_is_refused_for_a_saved_run_too(train, dltrain):
    run = train(*IRIS, "epochs=1")
    with pytest.raises(UserError, match=r"`early_stopping.mode` is max, but of val/loss lower is better"):
        dltrain("rerun", run.path, "early_stopping.mode=max")


def test_a_saved_min_and_auto_are_the_same_run(train, dltrain):
    """Every run of commit caa09af has `mode: min`; its checkpoints hold it in their manifests."""
    run = train(*IRIS, "epochs=1")
    config = saved.read(run.path, open_catalogue(), [])
    former = saved.read(run.path, open_catalogue(), ["early_stopping.mode=min"])
    assert config.early_stopping["mode"] == "auto" and former.early_stopping["mode"] == "min"
    assert saved.binding(config) == saved.binding(former)
    assert key_of(config.plain, False) == key_of(former.plain, False)
    by_accuracy = saved.read(run.path, open_catalogue(), ["early_stopping.metric=val/accuracy"])
    assert saved.binding(by_accuracy)["early_stopping.mode"] == "max"


@pytest.mark.ci
def test_a_sweep_of_an_earlier_version_over_accuracy_is_not_mixed_with_the_right_direction(workdir, dltrain):
    base = ["lr=0.1,0.3", "dataset=iris", "model=linear", "epochs=1", "quiet=true", "sweep.backend=local"]
    for metric, goes_on in (("val/loss", True), ("val/accuracy", False)):
        shutil.rmtree(workdir / "outputs", ignore_errors=True)
        arguments = [*base, f"early_stopping.metric={metric}"]
        assert dltrain("-m", *arguments) == 0
        (file,) = workdir.glob("outputs/*/*/sweep.json")
        record = json.loads(file.read_text())
        del record["modes"]
        file.write_text(json.dumps(record | {"finished": False}))
        if goes_on:
            assert dltrain("-m", f"sweep.resume={file.parent}") == 0
            continue
        with pytest.raises(
            UserError, match="an earlier version, which took lower values of val/accuracy for better"
        ):
            dltrain("-m", f"sweep.resume={file.parent}")
        assert dltrain("-m", *arguments) == 0, "the same command starts a new sweep"
        assert len(list(workdir.glob("outputs/*/*/sweep.json"))) == 2


def test_a_smoothed_run_of_an_earlier_version_is_refused_with_a_cure(train, dltrain, monkeypatch):
    from dltrain.early_stopping import Patience

    with monkeypatch.context() as patch:
        former = {
            "best": 1.0,
            "best_step": 1,
            "stop_reason": None,
            "reference": 1.0,
            "stale": 0,
            "smoothed": 1.0,
        }
        patch.setattr(Patience, "state_dict", lambda self: former)
        run = train(*IRIS, "epochs=1", "early_stopping.smoothing=0.5")
    with pytest.raises(CheckpointProblem, match=f"dltrain rerun {run.path}"):
        dltrain("resume", run.path, "epochs=2")


def test_resuming_a_smoothed_run_is_equal_to_the_last_bit(train, dltrain):
    words = [
        *IRIS,
        "early_stopping.metric=val/accuracy",
        "early_stopping.smoothing=0.8",
        "early_stopping.patience=20",
    ]
    whole, part = train(*words, "epochs=6"), train(*words, "epochs=3")
    assert dltrain("resume", part.path, "epochs=6") == 0
    assert_equal(part.last_state()["early_stopping"], whole.last_state()["early_stopping"])
    assert part.timeless_rows == whole.timeless_rows
    assert whole.last_state()["early_stopping"]["averaged"] == 6


def test_improves_is_strict_and_finite():
    assert improves(1.0, None, "min") and not improves(float("nan"), None, "min")
    assert not improves(float("-inf"), 1.0, "min") and not improves(float("inf"), 1.0, "max")
    assert improves(2.0, 1.0, "max") and not improves(1.0, 1.0, "max")


def test_problems_looks_at_all_that_compare_evaluations():
    plain = {group: {"metric": "val/accuracy", "mode": "min"} for group in ("early_stopping", "schedule")}
    assert set(problems(plain)) == {"early_stopping", "schedule"}
    assert problems({"mine": {"metric": "val/accuracy", "mode": "fan_in"}, "schedule": {}}) == {}
    assert set(direction.BETTER) == {"min", "max"}


@pytest.mark.parametrize(
    ("metric", "chosen", "near"),
    [
        ("train/topk", {"top_k": {}}, "train/top_k"),
        ("train/mappe", {"mape": {}}, "train/mape"),
        ("train/mea", {}, "train/mae"),
        ("val/mea", {}, "val/mae"),
        ("val/eror", {}, ""),
    ],
)
def test_the_nearest_metric_is_one_that_is_measured(metric, chosen, near):
    """`val/mse` was proposed, which no word and no column is, and val/top_k for a metric of the training."""
    words = ("accuracy", "mae", "mape", "rmse", "top_k", "r2", "none")
    plain = {"metrics": chosen, "early_stopping": {"metric": metric, "mode": "auto"}}
    text = problems(plain, words)["early_stopping"]
    assert (f"Did you mean `{near}`?" in text) if near else ("mse" not in text and "error" not in text)
