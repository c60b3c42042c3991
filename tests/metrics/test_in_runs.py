"""Metrics in runs: columns, the best weights, schedules, sweeps, stacks, evaluate, and a user's own."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import Run, assert_equal, job_at, run_folders
from sklearn import metrics as sk
from sklearn.datasets import load_digits

from dltrain import api
from dltrain.errors import UserError

IRIS = (
    "dataset=iris",
    "dataset.val_fraction=0.3",
    "model=linear",
    "optimizer=sgd",
    "lr=1.0",
    "batch_size=16",
)
MINE = '''
import torch
from dltrain.metrics.protocol import Metric

class Within(Metric):
    """Share of predictions within a distance."""

    direction = "max"
    needs = {"quantities"}

    def __init__(self, distance: float = 50.0):
        self.distance, self.hits, self.samples = distance, 0, 0

    def update(self, outputs, targets):
        self.hits += ((outputs - targets).abs() <= self.distance).sum()
        self.samples += len(targets)

    def compute(self):
        return self.hits / self.samples

class Rare:  # no base class; the data fill in `num_classes`
    direction = "max"

    def __init__(self, num_classes, power=1.0):
        self.num_classes, self.seen = num_classes, set()

    def update(self, outputs, targets):
        self.seen |= set(outputs.argmax(1).tolist())

    def compute(self):
        return len(self.seen) / self.num_classes

class NoCompute:
    def update(self, outputs, targets): pass

class OneArgument:
    def update(self, outputs): pass
    def compute(self): return 0.0

class ByClass:
    average = "none"
    def update(self, outputs, targets): pass
    def compute(self): return torch.zeros(3)

class Crash:
    def update(self, outputs, targets): outputs[:, 99]
    def compute(self): return 0.0

class Sideways:
    direction = "up"
    def update(self, outputs, targets): pass
    def compute(self): return 0.0

def margin(outputs, targets, scale: float = 1.0):
    top = outputs.topk(2, 1).values
    return scale * (top[:, 0] - top[:, 1])

def whole(outputs, targets):
    return outputs.mean()
'''


@pytest.fixture(autouse=True)
def _forget_modules(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("my_metrics", None)


@pytest.fixture
def own(workdir):
    """A user's metrics, and a function that writes the file of a word."""
    (workdir / "my_metrics.py").write_text(MINE)

    def word(name, text):
        file = workdir / "conf" / "metrics" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")

    for name in ("Within", "Rare", "NoCompute", "OneArgument", "ByClass", "Crash", "Sideways"):
        word(name.lower(), f"_target_: my_metrics.{name}")
    word("margin", "_target_: my_metrics.margin\n_direction_: max")
    word("whole", "_target_: my_metrics.whole")
    return word


def outputs_of(run, split, *overrides):
    """Logits and targets of a split by the best weights, from `dltrain evaluate` itself."""
    from dltrain.config import saved
    from dltrain.config.compose import open_catalogue
    from dltrain.config.door import door_for_saved
    from dltrain.run import scoring
    from dltrain.storage.run_folder import read_contract

    config = saved.read(run.path, open_catalogue(), list(overrides))
    door = door_for_saved(config, open_catalogue(), [])
    parts, plan = scoring.build_scored(config, door, run.path, read_contract(run.path), False)
    scoring.load_best(parts, run.path)
    passes, targets = scoring.predict(parts, plan, parts.splits[split])
    return passes[0], targets


# Columns ----------------------------------------------------------------------------------------------------------


def test_columns_scores_and_events(train):
    run = train(
        *IRIS, "epochs=3", "metrics=[f1,auroc,accuracy,top_k]", "metrics.top_k.k=2", "evaluation.batch_size=7"
    )
    names = {name.split("/")[1] for name in run.rows[0] if name.startswith("val/")}
    assert names == {"loss", "f1", "auroc", "accuracy", "top_k"}
    assert set(run.summary["test"]) == names
    for split, found in (("val", run.summary["best"]), ("test", run.summary["test"])):
        logits, targets = outputs_of(run, split)
        prefix = "val/" if split == "val" else ""
        assert found[f"{prefix}f1"] == pytest.approx(
            sk.f1_score(targets, logits.argmax(1), average="macro"), abs=1e-6
        )
        scores = logits.double().softmax(1)
        assert found[f"{prefix}auroc"] == pytest.approx(
            sk.roc_auc_score(targets, scores, multi_class="ovr"), abs=1e-6
        )
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path)).Reload()
    seen = [event.value for event in events.Scalars("val/f1")]
    assert seen == pytest.approx([row["val/f1"] for row in run.rows])


def test_real_units(train):
    run = train("dataset=diabetes", "epochs=3", "metrics=[rmse,r2,mae]", "evaluation.batch_size=11")
    outputs, targets = outputs_of(run, "test")
    from sklearn.datasets import load_diabetes

    raw = torch.from_numpy(load_diabetes(scaled=False).target)
    assert run.summary["test"]["rmse"] == pytest.approx(run.summary["test"]["loss"] ** 0.5, rel=1e-6)
    assert 20 < run.summary["test"]["rmse"] < 400 and raw.std() > 70
    assert run.summary["test"]["r2"] == pytest.approx(sk.r2_score(targets.numpy(), outputs.numpy()), abs=1e-6)


@pytest.mark.ci
def test_the_default_run_is_unchanged_by_the_group(train):
    """accuracy alone is the default: equal to the last bit; and it imports no torchmetrics."""
    plain, named = train(*IRIS, "epochs=2"), train(*IRIS, "epochs=2", "metrics=[accuracy]")
    assert plain.timeless_rows == named.timeless_rows
    assert_equal(plain.best_weights, named.best_weights)
    code = (
        "import sys; from dltrain.cli import dispatch\n"
        "dispatch(['dataset=iris', 'steps=1', 'quiet=true', 'metrics=[f1,auroc]'])\n"
        "sys.exit(any(name.split('.')[0] in ('torchmetrics', 'sklearn') and name != 'sklearn' for name in sys.modules"
        " if name.startswith('torchmetrics')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_metrics_do_not_change_training(train):
    plain = train(*IRIS, "epochs=2")
    more = train(*IRIS, "epochs=2", "metrics=[accuracy,f1,auroc,calibration_error,mcc]")
    assert_equal(plain.best_weights, more.best_weights)
    assert [row["val/accuracy"] for row in plain.rows] == [row["val/accuracy"] for row in more.rows]


def test_resuming_is_equal_to_the_last_bit(train, dltrain):
    words = [*IRIS, "metrics=[f1,auroc]", "early_stopping.metric=val/f1", "evaluation.every_steps=3"]
    whole, part = train(*words, "epochs=4"), train(*words, "epochs=2")
    assert dltrain("resume", part.path, "epochs=4") == 0
    assert part.timeless_rows == whole.timeless_rows
    assert_equal(part.best_weights, whole.best_weights)


# The best, schedules, sweeps --------------------------------------------------------------------------------------


def test_the_highest_f1_is_kept(train):
    run = train(*IRIS, "epochs=5", "metrics=[f1]", "early_stopping.metric=val/f1")
    scores = [row["val/f1"] for row in run.rows]
    assert (run.summary["mode"], run.summary["objective"]) == ("max", max(scores))
    assert run.summary["best"]["step"] == run.rows[scores.index(max(scores))]["step"]


def test_a_plateau_of_a_metric(train):
    run = train(
        *IRIS, "epochs=12", "metrics=[mcc]", "early_stopping=none", "schedule=plateau", "schedule.metric=val/mcc",
        "schedule.patience=2",
    )  # fmt: skip
    best, stale, changes = None, 0, 0
    for row in run.rows:
        assert row["lr"] == pytest.approx(1.0 * 0.5**changes)
        better = best is None or row["val/mcc"] > best
        best, stale = (row["val/mcc"], 0) if better else (best, stale + 1)
        if stale == 2:
            changes, stale = changes + 1, 0
    assert changes > 0


def test_a_metric_that_is_not_measured_names_the_words(dltrain, workdir):
    with pytest.raises(UserError, match=r"does not measure.*\n.*\nTo measure it: metrics=\[accuracy,auroc\]"):
        dltrain("dataset=iris", "early_stopping.metric=val/auroc", "quiet=true")
    with pytest.raises(UserError, match="`early_stopping.mode` is min, but of val/auroc higher is better"):
        dltrain(
            "dataset=iris", "metrics=[auroc]", "early_stopping.metric=val/auroc", "early_stopping.mode=min"
        )
    assert not any(workdir.iterdir())


@pytest.mark.ci
@pytest.mark.parametrize("extra", [("sweep.vectorize=always",), ("sweep.vectorize=never", "sweep.jobs=1")])
def test_a_sweep_crowns_the_best_f1(workdir, dltrain, extra):
    base = [
        "dataset=iris",
        "model=linear",
        "epochs=2",
        "metrics=[f1,auroc]",
        "early_stopping.metric=val/f1",
        "quiet=true",
    ]
    assert dltrain("-m", "lr=0.0001,0.3", *base, *extra) == 0
    (folder,) = {file.parent for file in workdir.glob("outputs/*/*/sweep.json")}
    with open(folder / "results.csv") as stream:
        rows = list(csv.DictReader(stream))
    best = max(rows, key=lambda row: float(row["objective"]))
    assert yaml.safe_load((folder / "best.yaml").read_text())["lr"] == float(best["lr"])
    for row in rows:
        run = Run(Path(row["folder"]))
        assert float(row["objective"]) == max(line["val/f1"] for line in run.rows)
        assert (run.path / "per_class.csv").is_file()


def test_a_stack_measures_what_a_run_alone_measures(workdir, dltrain, train):
    words = ["dataset=iris", "epochs=3", "model.hidden=[8]", "metrics=[f1,auroc,accuracy]"]
    assert dltrain("-m", "lr=0.01,0.1", *words, "sweep.vectorize=always", "quiet=true") == 0
    (folder,) = {file.parent for file in workdir.glob("outputs/*/*/sweep.json")}
    stacked = Run(job_at(folder, 1))
    alone = train(*words, "lr=0.1")
    for one, other in zip(stacked.rows, alone.rows, strict=True):
        for name in ("val/f1", "val/auroc", "val/accuracy"):
            assert one[name] == pytest.approx(other[name], abs=1e-4)


@pytest.mark.ci
def test_several_objectives(workdir, dltrain):
    words = ["dataset=iris", "model=linear", "epochs=1", "metrics=[auroc]", "quiet=true", "sweep.jobs=1"]
    assert dltrain(
        "-m", "sweep=nsga2", "sweep.trials=2", "sweep.objectives=[val/auroc,val/loss]", "lr=choice(0.01,0.1)", *words
    ) == 0  # fmt: skip
    (record,) = workdir.glob("outputs/*/*/sweep.json")
    assert json.loads(record.read_text())["modes"] == ["max", "min"]


def test_an_axis_that_changes_how_jobs_are_compared_is_refused(workdir, dltrain):
    words = ["-m", "dataset=iris", "metrics=[f1]", "metrics.f1.average=macro,micro", "epochs=1", "quiet=true"]
    with pytest.raises(
        UserError,
        match=r"val/f1, .* \(metrics.f1.average is macro or micro\).*\n.*: early_stopping.metric=val/loss; or",
    ):
        dltrain(*words, "early_stopping.metric=val/f1")
    assert not any(workdir.iterdir())
    assert dltrain(*words) == 0  # compared by val/loss


# Unbalanced classes, reports --------------------------------------------------------------------------------------


@pytest.fixture
def rare(workdir):
    """A table of 400 rows, in which 5 % are `fraud`."""
    draw = np.random.default_rng(0)
    kinds = np.where(np.arange(400) % 20 == 0, "fraud", "fine")
    values = draw.normal(size=400) + 2 * (kinds == "fraud")
    rows = [f"{value:.4f},{draw.normal():.4f},{kind}" for value, kind in zip(values, kinds, strict=True)]
    (workdir / "rare.csv").write_text("\n".join(["a,b,kind", *rows]) + "\n")
    return (
        "dataset=csv",
        "dataset.path=rare.csv",
        "dataset.target=kind",
        "model=linear",
        "lr=0.05",
        "epochs=3",
    )


def test_rare_classes_show_more_than_accuracy_and_say_so(rare, dltrain, workdir, capsys):
    assert dltrain(*rare) == 0
    said = capsys.readouterr().out
    assert (
        "metrics  accuracy, balanced_accuracy and f1 (macro) · class fraud has 4.94 % of the training samples"
        in said
    )
    (folder,) = run_folders(workdir)
    run = Run(folder)
    assert {"val/accuracy", "val/balanced_accuracy", "val/f1"} <= run.rows[0].keys()
    assert {"accuracy", "balanced_accuracy", "f1"} <= run.summary["test"].keys()
    assert run.summary["constant"]["balanced_accuracy"] == 0.5
    logits, targets = outputs_of(run, "test")
    assert run.summary["test"]["f1"] == pytest.approx(
        sk.f1_score(targets, logits.argmax(1), average="macro"), abs=1e-6
    )


def test_means_over_two_classes_are_said_to_be_means_and_the_cure_measures_one_class(
    rare, dltrain, workdir, capsys
):
    """The mean with the frequent class hides the rare one: a reader would take it for that of the rare class."""
    assert dltrain(*rare, "metrics=[average_precision]") == 0
    said = capsys.readouterr().out
    assert (
        "metrics  average_precision is the mean over both classes · of fraud alone: metrics.average_precision.average=binary"
        in said
    )
    assert dltrain(*rare, "metrics=[average_precision]", "metrics.average_precision.average=binary") == 0
    said = capsys.readouterr().out
    assert "over both classes" not in said
    assert "metrics  average_precision is of class fraud\n" in said
    run = Run(max(run_folders(workdir), key=lambda folder: (folder / "summary.json").stat().st_mtime_ns))
    logits, targets = outputs_of(run, "test")
    assert run.summary["test"]["average_precision"] == pytest.approx(
        sk.average_precision_score(targets, logits[:, 1] - logits[:, 0]), abs=1e-6
    )


def test_every_dataset_has_the_scores_of_a_constant_guess(train):
    """Digits have no columns. The training split is what val and test leave of all samples."""
    run = train("epochs=1")
    every = np.bincount(load_digits().target, minlength=10)
    val, test = (np.bincount(outputs_of(run, name)[1], minlength=10) for name in ("val", "test"))
    shares = (every - val - test) / (every - val - test).sum()
    assert run.summary["constant"] == pytest.approx(
        {
            "loss": -(test * np.log(shares)).sum() / test.sum(),
            "accuracy": test[shares.argmax()] / test.sum(),
        },
        rel=1e-5,
    )


def test_the_users_choice_replaces_the_default(rare, train):
    run = train(*rare, "metrics=[accuracy]")
    assert {name for name in run.rows[0] if name.startswith("val/")} == {"val/loss", "val/accuracy"}


@pytest.mark.ci
def test_rare_classes_in_a_stack_equal_those_alone(rare, train, dltrain, workdir):
    words = [word for word in rare if not word.startswith("lr=")]
    assert dltrain("-m", "lr=0.05,0.1", *words, "sweep.vectorize=always", "quiet=true") == 0
    (folder,) = {file.parent for file in workdir.glob("outputs/*/*/sweep.json")}
    alone = train(*rare)
    for one, other in zip(Run(job_at(folder, 0)).rows, alone.rows, strict=True):
        assert one["val/f1"] == pytest.approx(other["val/f1"], abs=1e-4)


def test_the_report_and_the_matrix_of_the_best_weights(train):
    run = train(*IRIS, "epochs=3")
    logits, targets = outputs_of(run, "test")
    predicted = logits.argmax(1)
    with open(run.path / "per_class.csv") as stream:
        rows = list(csv.DictReader(stream))
    known = sk.precision_recall_fscore_support(targets, predicted, zero_division=0)
    assert [row["class"] for row in rows] == [
        "setosa",
        "versicolor",
        "virginica",
        "macro mean",
        "weighted mean",
    ]
    for k, row in enumerate(rows[:3]):
        found = [float(row[name]) for name in ("precision", "recall", "f1", "support")]
        assert found == pytest.approx([column[k] for column in known])
    for row, average in zip(rows[3:], ("macro", "weighted"), strict=True):
        wanted = sk.precision_recall_fscore_support(targets, predicted, average=average, zero_division=0)[:3]
        assert [float(row[name]) for name in ("precision", "recall", "f1")] == pytest.approx(wanted)
    with open(run.path / "confusion_matrix.csv") as stream:
        table = list(csv.reader(stream))
    assert table[0][1:] == ["setosa", "versicolor", "virginica"]
    assert [list(map(int, row[1:])) for row in table[1:]] == sk.confusion_matrix(targets, predicted).tolist()


def test_names_of_classes_do_not_act_on_the_terminal(dltrain, train, workdir, capsys):
    rows = [f"{i % 7},{('plain', chr(27) + '[31mred')[i % 2]}" for i in range(60)]
    (workdir / "t.csv").write_text("\n".join(["x,kind", *rows]) + "\n")
    run = train("dataset=csv", "dataset.path=t.csv", "dataset.target=kind", "model=linear", "steps=2")
    capsys.readouterr()
    assert dltrain("evaluate", run.path, "evaluation.bootstrap=2") == 0
    assert chr(27) not in capsys.readouterr().out


def test_a_report_that_cannot_be_written_costs_no_result(dltrain, workdir, monkeypatch):
    from dltrain.errors import ResourceProblem
    from dltrain.run import experiment

    def full(file, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(experiment, "replace", full)
    with pytest.raises(ResourceProblem, match="per_class.csv could not be written"):
        dltrain(*IRIS, "epochs=1", "quiet=true")
    (folder,) = run_folders(workdir)
    assert Run(folder).summary["status"] == "degraded" and Run(folder).summary["test"]


def test_a_regression_has_no_report_by_class(train):
    run = train("dataset=diabetes", "steps=2")
    assert not (run.path / "per_class.csv").exists() and not (run.path / "confusion_matrix.csv").exists()


# evaluate ---------------------------------------------------------------------------------------------------------


def evaluated(dltrain, capsys, *arguments):
    capsys.readouterr()
    assert dltrain("evaluate", *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_evaluate_with_other_metrics(train, dltrain, capsys):
    run = train(*IRIS, "epochs=2")
    found = evaluated(dltrain, capsys, run.path, "metrics=[f1,auroc]", "metrics.f1.average=weighted")
    logits, targets = outputs_of(run, "test")
    (score,) = (score for score in found["scores"] if score["split"] == "test")
    assert set(score["values"]) == {"loss", "f1", "auroc"}
    assert score["values"]["f1"] == pytest.approx(
        sk.f1_score(targets, logits.argmax(1), average="weighted"), abs=1e-6
    )
    assert score["confusion_matrix"] == sk.confusion_matrix(targets, logits.argmax(1)).tolist()
    assert (
        [row["name"] for row in score["per_class"]][:3]
        == score["classes"]
        == ["setosa", "versicolor", "virginica"]
    )
    with pytest.raises(UserError, match=r"`metrics=aurc`: there is no such word. Did you mean `auroc`"):
        dltrain("evaluate", run.path, "metrics=[aurc]")
    with pytest.raises(UserError, match=r"it must be: macro or micro"):
        dltrain("evaluate", run.path, "metrics=[f1]", "metrics.f1.average=mean")


def test_evaluate_with_metrics_of_the_run_keeps_their_keys(train, dltrain, capsys):
    """Other numbers came under the same names: the 5 most probable classes in place of 2, and unweighted differences."""
    words = ("metrics=[top_k,cohen_kappa]", "metrics.top_k.k=2", "metrics.cohen_kappa.weights=quadratic")
    run = train(*IRIS, "epochs=1", "lr=0.001", *words)
    logits, targets = outputs_of(run, "test")

    def of_test(*overrides):
        found = evaluated(dltrain, capsys, run.path, *overrides)
        return next(score["values"] for score in found["scores"] if score["split"] == "test")

    kept = of_test("metrics=[cohen_kappa,top_k,f1]")
    assert kept["top_k"] == pytest.approx(sk.top_k_accuracy_score(targets, logits, k=2), abs=1e-6)
    kappa = sk.cohen_kappa_score(targets, logits.argmax(1), weights="quadratic")
    assert kept["cohen_kappa"] == pytest.approx(kappa, abs=1e-6)
    plain = of_test("metrics=[cohen_kappa]", "metrics.cohen_kappa.weights=none")["cohen_kappa"]
    assert plain == pytest.approx(sk.cohen_kappa_score(targets, logits.argmax(1)), abs=1e-6)


def test_a_metric_that_was_typed_is_that_of_the_word_whatever_a_record_holds(train, dltrain, capsys):
    """Found by a hostile tester: recall was printed under the name `mcc`."""
    run = train(*IRIS, "epochs=1", "metrics=[f1]")
    asked = ("metrics=[mcc,f1]",)
    honest = evaluated(dltrain, capsys, run.path, *asked)
    file = run.path / "config.yaml"
    content = yaml.safe_load(file.read_text())
    recall = {"_target_": "dltrain.metrics.counts.Recall"}
    content["metrics"] |= {"mcc": recall, "f1": content["metrics"]["f1"] | recall}
    file.write_text(yaml.safe_dump(content))
    for file in run.path.glob("checkpoints/*/config.yaml"):
        file.write_text((run.path / "config.yaml").read_text())
    assert evaluated(dltrain, capsys, run.path, *asked)["scores"] == honest["scores"]


def test_a_seed_that_draws_nothing_is_told(train, dltrain, capsys):
    run = train(*IRIS, "epochs=1", "model.dropout=0.5")
    for more, is_told in ((), True), (("evaluation.mc_dropout=2",), False):
        capsys.readouterr()
        assert dltrain("evaluate", run.path, "seed=3", *more) == 0
        assert ("`seed` changes nothing here" in capsys.readouterr().err) == is_told


def test_evaluate_from_python_takes_the_same_changes(train, dltrain, capsys):
    run = train(*IRIS, "epochs=2")
    found = evaluated(dltrain, capsys, run.path, "metrics=[f1,auroc]", "metrics.f1.average=weighted")
    scores = api.load(run.path).evaluate("metrics.f1.average=weighted", metrics=["f1", "auroc"])
    assert scores == {score["split"]: score["values"] for score in found["scores"]}


def test_evaluate_from_python_scores_all_samples_of_other_data(train, workdir):
    rows = ["x,kind", *(f"{i / 7:.3f},{'ab'[i % 2]}" for i in range(40))]
    (workdir / "t.csv").write_text("\n".join(rows) + "\n")
    run = train("dataset=csv", "dataset.path=t.csv", "dataset.target=kind", "model=linear", "steps=2")
    (workdir / "other.csv").write_text("\n".join(rows[:12]) + "\n")
    with pytest.warns(UserWarning, match="8 of the 11 samples .* are equal to samples"):
        assert set(api.load(run.path).evaluate("dataset.path=other.csv")) == {"all"}


def test_the_page_of_evaluate(train, dltrain, capsys):
    run = train(*IRIS, "epochs=2")
    capsys.readouterr()
    assert dltrain("evaluate", run.path, "evaluation.bootstrap=50") == 0
    page = capsys.readouterr().out
    assert "95 % intervals (50 bootstrap resamples, seed 0)" in page
    assert "macro mean" in page and "true \\ predicted" in page and "virginica" in page
    assert dltrain("evaluate", run.path, "evaluation.bootstrap=0") == 0
    assert "bootstrap" not in capsys.readouterr().out


def test_intervals_of_groups_are_said_to_be_too_narrow(train, dltrain, capsys, workdir):
    """The accuracy of 20 persons with 20 rows each was shown as certain as that of 400."""
    draws = np.random.default_rng(0)
    rows = [f"{draws.normal():.4f},p{i // 4},{'ab'[i // 4 % 2]}" for i in range(160)]
    (workdir / "g.csv").write_text("\n".join(["u,person,label", *rows]))
    words = ("dataset=csv", "dataset.path=g.csv", "dataset.target=label", "model=linear", "epochs=1")
    for more, is_told in ((["dataset.group_column=person"], True), (["dataset.drop=[person]"], False)):
        run = train(*words, *more)
        for resamples in (1000, 0):
            capsys.readouterr()
            assert dltrain("evaluate", run.path, f"evaluation.bootstrap={resamples}") == 0
            told = "those of one group (dataset.group_column=person) are not" in capsys.readouterr().err
            assert told == (is_told and resamples > 0)


def test_intervals_are_those_of_the_binomial_and_repeat(train, dltrain, capsys):
    run = train("dataset=digits", "epochs=2", "model=linear", "dataset.val_fraction=0.4")
    found, again = (evaluated(dltrain, capsys, run.path) for _ in range(2))
    assert found == again and found["bootstrap"] == {"resamples": 1000, "level": 0.95, "seed": 0}
    score = found["scores"][0]
    share, samples = score["values"]["accuracy"], score["samples"]
    low, high = score["intervals"]["accuracy"]
    width = 1.96 * math.sqrt(share * (1 - share) / samples)
    assert low == pytest.approx(share - width, abs=0.3 * width) and high == pytest.approx(
        share + width, abs=0.3 * width
    )


def test_every_row_of_another_file_is_scored(rare, train, dltrain, workdir, capsys):
    run = train(*rare)
    lines = (workdir / "rare.csv").read_text().splitlines()
    # all 400 would be a copy, which is divided
    for rows in (1, 7, 399):
        (workdir / "other.csv").write_text("\n".join([lines[0], *lines[1 : rows + 1]]) + "\n")
        (score,) = evaluated(dltrain, capsys, run.path, "dataset.path=other.csv")["scores"]
        assert (score["split"], score["samples"]) == ("all", rows)
        assert sum(map(sum, score["confusion_matrix"])) == rows
    splits = evaluated(dltrain, capsys, run.path)["scores"]
    assert {(s["split"], s["samples"]) for s in splits} == {("val", 36), ("test", 40)}
    with pytest.raises(
        UserError, match=r"`dataset.val_fraction` belongs to the training.*\nLeave out dataset.val_fraction"
    ):
        dltrain("evaluate", run.path, "dataset.path=other.csv", "dataset.val_fraction=0.5")


def test_every_row_of_another_file_though_training_had_a_column_of_splits(train, dltrain, workdir, capsys):
    draw = np.random.default_rng(0)
    rows = [
        f"{draw.normal():.3f},{'ab'[i % 2]},{('train', 'train', 'val', 'test')[i // 2 % 4]}"
        for i in range(200)
    ]
    (workdir / "t.csv").write_text("\n".join(["x,kind,part", *rows]) + "\n")
    (workdir / "o.csv").write_text(
        "\n".join(["x,kind", *(row.rpartition(",")[0] for row in rows[:30])]) + "\n"
    )
    run = train(
        "dataset=csv", "dataset.path=t.csv", "dataset.target=kind", "dataset.split_column=part", "steps=3", "folds=null",
        "dataset.limit=20",
    )  # fmt: skip
    (score,) = evaluated(dltrain, capsys, run.path, "dataset.path=o.csv")["scores"]
    assert (score["split"], score["samples"]) == ("all", 30)


def test_scores_of_another_file_equal_a_loop(rare, train, dltrain, workdir, capsys):
    run = train(*rare)
    # a copy would be divided
    other = (workdir / "rare.csv").read_text().splitlines(keepends=True)[:-1]
    (workdir / "other.csv").write_text("".join(other))
    (score,) = evaluated(dltrain, capsys, run.path, "dataset.path=other.csv")["scores"]
    from safetensors.torch import load_file

    statistics = load_file(run.path / "checkpoints" / "normalization.safetensors")
    lines = [line.strip().split(",") for line in other[1:]]
    inputs = torch.tensor([[float(a), float(b)] for a, b, _ in lines])
    contract = json.loads((run.path / "data.json").read_text())
    centers = torch.tensor([column.get("centers", [0.0])[0] for column in contract["columns"]])
    weights = run.best_weights
    logits = (inputs - centers - statistics["mean"]) / statistics["std"] @ weights["head.weight"].T + weights[
        "head.bias"
    ]
    truth = torch.tensor([contract["class_names"].index(kind) for _, _, kind in lines])
    assert score["values"]["accuracy"] == pytest.approx(float((logits.argmax(1) == truth).double().mean()))


def test_an_ensemble_has_the_metrics_too(train, dltrain, capsys):
    runs = [train(*IRIS, "epochs=2", f"seed={seed}", "metrics=[f1]").path for seed in (0, 1)]
    found = evaluated(dltrain, capsys, *runs)["scores"]
    assert (
        found[-1]["run"] == "ensemble of 2" and "f1" in found[-1]["values"] and found[-1]["confusion_matrix"]
    )
    quantities = [
        train("dataset=diabetes", "steps=20", f"dataset.limit={n}", "metrics=[rmse,mape]").path
        for n in (200, 250)
    ]
    found = evaluated(dltrain, capsys, *quantities)["scores"]
    alone, together = found[1]["values"], found[-1]["values"]
    assert together["rmse"] == pytest.approx(together["loss"] ** 0.5, rel=1e-5)
    assert together["mape"] == pytest.approx(alone["mape"], rel=0.5)


# A user's own metrics ---------------------------------------------------------------------------------------------


def test_a_class_of_ones_own(own, train, dltrain):
    run = train(
        "dataset=diabetes",
        "epochs=4",
        "metrics=[within]",
        "metrics.within.distance=60.5",
        "early_stopping.metric=val/within",
    )
    assert run.summary["mode"] == "max"
    assert run.summary["objective"] == max(row["val/within"] for row in run.rows)
    assert 0 < run.summary["test"]["within"] < 1
    assert yaml.safe_load((run.path / "config.yaml").read_text())["metrics"]["within"]["distance"] == 60.5
    assert dltrain("evaluate", run.path, "metrics=[within,rmse]", "metrics.within.distance=1e9") == 0
    assert dltrain("rerun", run.path, "quiet=true") == 0


def test_a_plain_class_with_facts_of_the_data_and_a_function(own, train, dltrain, capsys):
    run = train(
        *IRIS,
        "epochs=2",
        "metrics=[rare,margin]",
        "metrics.margin.scale=2",
        "early_stopping.metric=val/margin",
    )
    assert run.rows[-1]["val/rare"] == 1.0 and run.summary["mode"] == "max"
    logits, _ = outputs_of(run, "test")
    top = logits.topk(2, 1).values
    assert run.summary["test"]["margin"] == pytest.approx(
        float(2 * (top[:, 0] - top[:, 1]).double().mean()), rel=1e-6
    )
    assert dltrain("metrics=rare", "--help") == 0
    said = capsys.readouterr().out
    assert "metrics.rare.power" in said and "num_classes" not in said


def test_a_word_that_builds_on_another(own, train):
    own("f1_micro", "defaults: [f1]\naverage: micro")
    run = train(*IRIS, "epochs=1", "metrics=[f1,f1_micro,accuracy]", "early_stopping.metric=val/f1_micro")
    assert run.summary["mode"] == "max" and set(yaml.safe_load((run.path / "config.yaml").read_text())["metrics"]) == {
        "f1", "f1_micro", "accuracy"
    }  # fmt: skip
    assert run.rows[0]["val/f1_micro"] == pytest.approx(run.rows[0]["val/accuracy"], abs=1e-6)


def test_own_metrics_in_a_sweep(own, dltrain, workdir):
    words = [
        "dataset=diabetes",
        "model=linear",
        "epochs=1",
        "metrics=[within]",
        "early_stopping.metric=val/within",
    ]
    assert dltrain("-m", "lr=0.001,0.1", *words, "quiet=true") == 0
    (record,) = workdir.glob("outputs/*/*/sweep.json")
    assert "(higher is better)" in (record.parent / "best.yaml").read_text()


REFUSED = {
    "no method": ("nocompute", r"`metrics.nocompute` gives an object of NoCompute, which has no method `compute\(self\)`"),
    "other arguments": ("oneargument", r"has update\(outputs\), and must have `update\(self, outputs, targets\)`: too many"),
    "many numbers": ("byclass", r"`ByClass.compute` returns a tensor of shape \(3,\); it must be one number"),
    "an error": ("crash", r"`Crash.update`: it fails with outputs of shape \(2, 3\) and targets of shape \(2,\):\nIndexError"),
    "a direction": ("sideways", r'`Sideways.direction` is \'up\'; it must be "min" or "max"'),
    "another task": ("within", r"`metrics=within`: a class has no distance"),
    "a mean of all": ("whole", r"metrics.whole gives \(\); it must be one value for each sample.*\nFor a metric .* write a class"),
}  # fmt: skip


@pytest.mark.parametrize("word, says", REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_explained(own, dltrain, workdir, word, says):
    with pytest.raises(UserError, match=says) as error:
        dltrain("dataset=iris", f"metrics=[{word}]", "steps=1", "quiet=true")
    assert len(str(error.value).splitlines()) <= 3 and error.value.exit_code == 2
    assert not (workdir / "outputs").exists()


def test_a_column_that_exists_is_refused(own, dltrain):
    own("loss", "_target_: my_metrics.Rare")
    with pytest.raises(UserError, match="a column `loss` exists already; rename the file of the word"):
        dltrain("dataset=iris", "metrics=[loss]", "steps=1")


def test_an_unknown_direction_is_refused_with_both_cures(own, dltrain):
    own("plain", "_target_: my_metrics.Crash")
    with pytest.raises(
        UserError, match=r'mode=max \(higher\); a metric of yours says it itself by `direction = "max"`'
    ):
        dltrain("dataset=iris", "metrics=[plain]", "early_stopping.metric=val/plain")


def test_a_class_may_be_scored_alone_and_is_named(rare, dltrain, workdir, capsys):
    """average=binary scored the second class, here the frequent one, and no line said so."""
    path = workdir / "kunden.csv"
    x = np.random.default_rng(0).normal(size=(400, 2))
    left = np.where(x[:, 0] + x[:, 1] > 1.6, "Ja", "Nein")
    path.write_text("a,b,left\n" + "".join(f"{a},{b},{y}\n" for (a, b), y in zip(x, left, strict=True)))
    own = (
        "dataset=csv",
        f"dataset.path={path}",
        "dataset.target=left",
        "epochs=8",
        "optimizer=adam",
        "lr=0.01",
    )
    words = ("metrics=[f1,recall,auroc]", "metrics.f1.average=binary", "metrics.recall.average=binary",
             "metrics.recall.positive=Ja")  # fmt: skip
    assert dltrain(*own, *words) == 0
    said = capsys.readouterr().out
    assert "metrics  auroc is equal for both classes\n" in said
    assert "metrics  recall is of class Ja\n" in said
    assert "metrics  f1 is of class Nein · of Ja: metrics.f1.positive=Ja\n" in said
    run = Run(max(run_folders(workdir), key=lambda folder: (folder / "summary.json").stat().st_mtime_ns))
    logits, targets = outputs_of(run, "test")
    found = logits.argmax(1)
    assert run.summary["test"]["recall"] == pytest.approx(
        sk.recall_score(targets, found, pos_label=0), abs=1e-6
    )
    assert run.summary["test"]["f1"] == pytest.approx(sk.f1_score(targets, found, pos_label=1), abs=1e-6)


def test_one_of_several_classes_is_scored_alone(dltrain, workdir):
    one = [
        f"metrics.{word}.{key}"
        for word in ("auroc", "precision")
        for key in ("average=binary", "positive=virginica")
    ]
    assert dltrain("dataset=iris", "epochs=3", "metrics=[auroc,precision]", *one, "quiet=true") == 0
    (folder,) = run_folders(workdir)
    run = Run(folder)
    logits, targets = outputs_of(run, "test")
    place = run.data.class_names.index("virginica") if hasattr(run, "data") else 2
    assert run.summary["test"]["auroc"] == pytest.approx(
        sk.roc_auc_score(targets == place, logits.softmax(1)[:, place]), abs=1e-6
    )
    assert run.summary["test"]["precision"] == pytest.approx(
        sk.precision_score(targets, logits.argmax(1), labels=[place], average="macro"), abs=1e-6
    )


def test_the_order_of_distances_is_said_and_can_be_given(dltrain, workdir, capsys):
    """Weights of low, medium and high were distances in alphabetical order, and no line said so."""
    draws = np.random.default_rng(0)
    x = draws.normal(size=300)
    levels = np.select([x < -0.5, x < 0.5], ["low", "medium"], "high")
    rows = zip(x + 0.5 * draws.normal(size=300), levels, strict=True)
    Path("levels.csv").write_text("x,level\n" + "".join(f"{a:.4f},{level}\n" for a, level in rows))
    own = ("dataset=csv", "dataset.path=levels.csv", "dataset.target=level", "epochs=3", "metrics=[cohen_kappa]")  # fmt: skip
    weighted = "metrics.cohen_kappa.weights=quadratic"
    line = "metrics  cohen_kappa: distances of the classes in the order"
    assert dltrain(*own, weighted) == 0
    said = capsys.readouterr().out
    assert f"{line} high, low, medium · another: 'metrics.cohen_kappa.order=[high,low,medium]'\n" in said
    order = "metrics.cohen_kappa.order=[low,medium,high]"
    assert dltrain(*own, weighted, order, "name=ordered") == 0
    assert f"{line} low, medium, high\n" in capsys.readouterr().out
    (folder,) = (folder for folder in run_folders(workdir) if folder.parent.name == "ordered")
    run = Run(folder)
    logits, targets = outputs_of(run, "test")
    truth = sk.cohen_kappa_score(targets, logits.argmax(1), weights="quadratic", labels=[1, 2, 0])
    assert run.summary["test"]["cohen_kappa"] == pytest.approx(truth, abs=1e-6)
    assert dltrain("evaluate", folder, "--json", "evaluation.bootstrap=0") == 0
    assert f"{truth:.6f}"[:7] in capsys.readouterr().out
    assert dltrain(*own, "quiet=false", "name=plain") == 0
    assert line not in capsys.readouterr().out


TASKS = [
    ("dataset=diabetes metrics=[f1]", r"`metrics=f1`.*a quantity is no class"),
    ("dataset=iris metrics=[rmse]", r"`metrics=rmse`.*a class has no distance"),
    ("dataset=none model=quadratic metrics=[rmse]", r"`metrics=rmse`.*a study problem is a function"),
    ("dataset=iris metrics=[top_k] metrics.top_k.k=3", r"metrics.top_k: k is 3; it must be below the number of classes, 3"),
    ("dataset=iris metrics=[f1] metrics.f1.average=binary", r"average is binary, and the data have 3 classes; use macro"),
    ("dataset=breast_cancer metrics=[f1] metrics.f1.positive=benign", r"positive is benign, and average is macro; set average=binary"),
    ("dataset=iris metrics=[auroc] metrics.auroc.average=binary metrics.auroc.positive=setossa",
     r"is no class; the classes are .*Did you mean `setosa`"),
    ("dataset=iris metrics=[f1] metrics.f1.average=mean", r"it must be: macro or micro or weighted or binary"),
    ("dataset=iris metrics=[f1] metrics.f1.averge=micro", r"Did you mean `metrics.f1.average`"),
]  # fmt: skip


@pytest.mark.parametrize("words, says", TASKS)
def test_mistakes(dltrain, workdir, words, says):
    with pytest.raises(UserError, match=says):
        dltrain(*words.split(), "steps=1", "quiet=true")
    assert not any(workdir.iterdir())


def test_every_average_over_classes_that_was_asked_for_is_said(train, dltrain, capsys):
    """Only the default said (macro): a reader of columns f1 and auroc of three classes had to guess."""
    words = ("metrics=[f1,auroc,recall,precision,mcc]", "metrics.recall.average=weighted", "metrics.precision.average=binary",
             "metrics.precision.positive=virginica")  # fmt: skip
    assert dltrain(*IRIS, "epochs=1", *words) == 0
    averages = "metrics  f1, auroc (macro), recall (weighted) · averages over the 3 classes"
    said = capsys.readouterr().out
    assert f"{averages}\n" in said and "metrics  precision is of class virginica\n" in said
    run = train(*IRIS, "epochs=1").path
    assert dltrain("evaluate", run, "metrics=[f1,auroc]", "metrics.f1.average=micro") == 0
    assert "metrics  auroc (macro), f1 (micro) · averages over the 3 classes" in capsys.readouterr().out
    assert dltrain("evaluate", run) == 0
    assert "averages over" not in capsys.readouterr().out


def test_weighted_averages_of_two_classes_are_said(rare, dltrain, workdir, capsys):
    assert dltrain(*rare, "metrics=[f1,auroc]", "metrics.f1.average=weighted") == 0
    said = capsys.readouterr().out
    assert "metrics  f1 (weighted) · averages over the 2 classes\n" in said
    assert "metrics  auroc is equal for both classes" in said


TABLE = ("dataset=csv", "dataset.path=t.csv", "dataset.target=y", "model=linear", "steps=2")


def test_a_metric_that_divides_by_targets_of_zero_says_so(dltrain, workdir, capsys):
    y = [0.0 if i % 5 == 0 else 100.0 + i for i in range(60)]
    (workdir / "t.csv").write_text("x,y\n" + "".join(f"{i % 7},{v}\n" for i, v in enumerate(y)))
    words = (*TABLE, "dataset.split_seed=1")
    assert dltrain(*words, "metrics=[mape,mae]") == 0
    said = capsys.readouterr().out
    (folder,) = run_folders(workdir)
    # they are standardized: 0 is the lowest by far
    targets = {name: outputs_of(Run(folder), name)[1] for name in ("val", "test")}
    zeros = {name: int((found < -1).sum()) for name, found in targets.items()}
    sizes = {name: len(found) for name, found in targets.items()}
    assert sum(zeros.values())
    assert (
        f"metrics  mape: {sum(zeros.values())} of {sum(sizes.values())} targets of val and test are 0 or nearly, by which it divides; mae, "
        "rmse and r2 do not\n" in said
    )
    capsys.readouterr()
    assert dltrain("evaluate", folder) == 0
    said = capsys.readouterr().err
    for name, count in zeros.items():
        assert (f"mape: {count} of {sizes[name]} targets of {name} are 0 or nearly" in said) == bool(count)
    assert dltrain(*words, "metrics=[mae]") == 0
    assert "or nearly" not in capsys.readouterr().out
    (workdir / "t.csv").write_text((workdir / "t.csv").read_text().replace(",0.0\n", ",0.1\n"))
    assert dltrain(*words, "metrics=[mape]") == 0
    assert "or nearly" not in capsys.readouterr().out


def test_what_several_runs_say_alike_is_said_once(train, dltrain, workdir, capsys):
    rows = [f"{i % 7},{'abc'[i % 3]},{'no' if i % 2 else 'yes'}" for i in range(60)]
    (workdir / "t.csv").write_text("\n".join(["x,kind,y", *rows]) + "\n")
    words = (*TABLE, "dataset.split_seed=0")
    runs = [train(*words, f"seed={seed}").path for seed in (1, 2)]
    new = [row.replace("a", "new") for row in rows[:20]]
    (workdir / "new.csv").write_text("\n".join(["x,kind,y", *new, "oops,b,no"]) + "\n")
    capsys.readouterr()
    assert dltrain("evaluate", *runs, "dataset.path=new.csv", "metrics=[f1]") == 3
    output = capsys.readouterr()
    said = output.err
    for once in ("unseen   kind", "row 21 of new.csv"):
        assert said.count(once) == 1, said
    assert output.out.count("metrics  f1 is the mean") == 1
    for run in runs:
        assert said.count(f"{run} is scored on other data") or said.count(f"that {run} was trained on")
