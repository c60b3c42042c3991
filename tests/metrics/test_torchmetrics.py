"""Any torchmetrics class of classes or of a regression, by its name: values against scikit-learn's."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch
import torchmetrics
from sklearn import metrics as sk
from test_values import RAGGED, drawn, spec_of, value

from dltrain.data.spec import TargetScale
from dltrain.errors import UserError
from dltrain.metrics.foreign import Adapter
from dltrain.metrics.sums import CalibrationError

IRIS = ("dataset=iris", "dataset.val_fraction=0.3", "model=linear", "lr=0.05", "epochs=2", "quiet=true")


@pytest.fixture
def word(workdir):
    """Write conf/metrics/NAME.yaml."""

    def write(name, text):
        file = workdir / "conf" / "metrics" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")

    return write


def test_values_are_those_of_scikit_learn():
    logits, targets = drawn(5)
    predicted = logits.argmax(1)
    f1 = torchmetrics.classification.MulticlassF1Score(5)
    assert value(Adapter(f1), logits, targets) == pytest.approx(
        sk.f1_score(targets, predicted, average="macro"), abs=1e-6
    )
    jaccard = torchmetrics.classification.MulticlassJaccardIndex(5, average="weighted")
    known = sk.jaccard_score(targets, predicted, average="weighted")
    assert value(Adapter(jaccard), logits, targets) == pytest.approx(known, abs=1e-6)


def test_logits_that_look_like_probabilities_are_not_taken_for_them():
    """torchmetrics decides batch by batch whether a softmax is needed: all logits of the first batch are in [0, 1]."""
    logits, targets = drawn(3)
    logits[: RAGGED[0]] = logits[: RAGGED[0]].sigmoid()
    area = torchmetrics.classification.MulticlassAUROC(3)
    known = sk.roc_auc_score(targets, logits.double().softmax(1), multi_class="ovr")
    assert value(Adapter(area), logits, targets) == pytest.approx(known, abs=1e-6)


def test_the_second_of_two_classes():
    logits, targets = drawn(2)
    second = logits.double().softmax(1)[:, 1]
    area = torchmetrics.classification.BinaryAUROC()
    assert value(Adapter(area), logits, targets) == pytest.approx(sk.roc_auc_score(targets, second), abs=1e-6)
    f1 = torchmetrics.F1Score(task="binary")
    assert value(Adapter(f1), logits, targets) == pytest.approx(sk.f1_score(targets, second > 0.5), abs=1e-6)


@pytest.mark.parametrize("columns", [1, 2])
def test_a_regression_in_real_units(columns):
    g = torch.Generator().manual_seed(0)
    truth = 100 + 30 * torch.randn(sum(RAGGED), columns, generator=g).double()
    guess = truth + 5 * torch.randn(sum(RAGGED), columns, generator=g)
    fitted = TargetScale(truth.mean(0), truth.std(0))
    outputs, targets = ((v - fitted.mean) / fitted.std for v in (guess, truth))
    error = torchmetrics.regression.MeanAbsoluteError()
    spec = spec_of(columns, "regression", fitted)
    assert value(Adapter(error), outputs, targets, spec) == pytest.approx(
        sk.mean_absolute_error(truth, guess), rel=1e-6
    )


def test_our_calibration_error_is_that_of_torchmetrics():
    logits, targets = drawn(4)
    theirs = torchmetrics.classification.MulticlassCalibrationError(4, n_bins=15)
    known = value(Adapter(theirs), logits, targets)
    assert value(CalibrationError(15), logits, targets) == pytest.approx(known, abs=1e-6)


def test_a_word_with_what_the_data_fill_in(train, word):
    word("macro", "_target_: torchmetrics.classification.MulticlassF1Score")
    word("any_task", "_target_: torchmetrics.F1Score\naverage: macro\n_direction_: max")
    run = train(*IRIS, "metrics=[macro,any_task,f1]", "early_stopping.metric=val/macro")
    assert run.summary["mode"] == "max"
    for row in run.rows:
        assert row["val/macro"] == pytest.approx(row["val/f1"], abs=1e-6)
        assert row["val/any_task"] == pytest.approx(row["val/f1"], abs=1e-6)


def test_keys_of_the_class_are_those_of_the_word(train, dltrain, word):
    word("tm_f1", "_target_: torchmetrics.classification.MulticlassF1Score")
    run = train(*IRIS, "metrics=[tm_f1,f1]", "metrics.tm_f1.average=weighted", "metrics.f1.average=weighted")
    assert run.rows[-1]["val/tm_f1"] == pytest.approx(run.rows[-1]["val/f1"], abs=1e-6)
    with pytest.raises(UserError, match="it must be: micro or macro or weighted"):
        dltrain(*IRIS, "metrics=[tm_f1]", "metrics.tm_f1.average=mean")
    assert dltrain("evaluate", run.path, "metrics=[tm_f1]", "evaluation.bootstrap=3") == 0
    assert dltrain("rerun", run.path, "quiet=true") == 0


@pytest.mark.ci
def test_a_regression_and_a_sweep(train, dltrain, workdir, word):
    word("tm_rmse", "_target_: torchmetrics.MeanSquaredError\nsquared: false")
    run = train("dataset=diabetes", "epochs=2", "metrics=[tm_rmse,rmse]", "early_stopping.metric=val/tm_rmse")
    assert run.summary["mode"] == "min"
    assert run.rows[-1]["val/tm_rmse"] == pytest.approx(run.rows[-1]["val/rmse"], rel=1e-5)
    words = ["dataset=diabetes", "model=linear", "epochs=1", "metrics=[tm_rmse]", "quiet=true"]
    assert dltrain("-m", "lr=0.01,0.1", *words, "sweep.vectorize=always") == 0


REFUSED = {
    "_target_: torchmetrics.regression.MeanSquaredError": r"it needs quantities, and the task of this dataset is classification",
    "_target_: torchmetrics.classification.MulticlassF1Score\naverage: none": r"of shape \(3,\).*\nFor one number: metrics.mine.average=macro",
    "_target_: torchmetrics.classification.MulticlassConfusionMatrix": r"returns a tensor of shape \(3, 3\)",
    "_target_: torchmetrics.classification.BinaryF1Score": r"BinaryF1Score is for two classes, and the data have 3",
    "_target_: torchmetrics.classification.MultilabelF1Score\nnum_labels: 3": r"several labels",
    "_target_: torchmetrics.MeanMetric": r"MeanMetric is of torchmetrics.aggregation",
    "_target_: torchmetrics.classification.MulticlassF1Scor": r"cannot be imported",
    "_target_: torchmetrics.utilities.data.dim_zero_cat\nx: 1": r"neither in the catalogue nor in the working folder",
    "_target_: torchmetrics.image.fid.FrechetInceptionDistance": r"neither in the catalogue nor in the working folder",
    "_target_: torchmetrics.PIL": r"neither in the catalogue|cannot be imported|stands for something|must be a class",
}  # fmt: skip


@pytest.mark.parametrize(
    "text, says", REFUSED.items(), ids=[t.split("_target_: ")[1].split("\n")[0] for t in REFUSED]
)
def test_what_does_not_fit(dltrain, workdir, word, text, says):
    word("mine", text)
    with pytest.raises(UserError, match=says) as error:
        dltrain(*IRIS, "metrics=[mine]")
    assert len(str(error.value).splitlines()) <= 3
    assert not (workdir / "outputs").exists()


def test_other_groups_do_not_take_a_metric(dltrain, workdir):
    (workdir / "conf" / "loss").mkdir(parents=True)
    (workdir / "conf" / "loss" / "mine.yaml").write_text("_target_: torchmetrics.MeanSquaredError\n")
    with pytest.raises(UserError, match="neither in the catalogue nor in the working folder"):
        dltrain(*IRIS, "loss=mine")


def test_without_the_package_the_message_says_how_to_get_it(dltrain, workdir, word, monkeypatch):
    word("mine", "_target_: torchmetrics.classification.MulticlassF1Score")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "torchmetrics" else find(name, *a)
    )
    with pytest.raises(
        UserError, match=r"torchmetrics is not installed.\nInstall it: pip install torchmetrics"
    ):
        dltrain(*IRIS, "metrics=[mine]")
    assert not (workdir / "outputs").exists()
    assert dltrain(*IRIS, "metrics=[f1]") == 0


def test_a_strangers_run_cannot_name_a_class_that_is_no_word(train, dltrain, workdir, word):
    word("mine", "_target_: torchmetrics.classification.MulticlassF1Score")
    run = train(*IRIS, "metrics=[mine]")
    file = run.path / "config.yaml"
    file.write_text(file.read_text().replace("MulticlassF1Score", "MulticlassHingeLoss"))
    with pytest.raises(UserError, match="neither in the catalogue nor in the working folder"):
        dltrain("evaluate", run.path)


def test_a_users_subclass_of_torchmetrics(train, workdir, word, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("my_torchmetrics", None)
    (workdir / "my_torchmetrics.py").write_text(
        "import torch\nfrom torchmetrics import Metric\n\n"
        "class Hits(Metric):\n    higher_is_better = True\n\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.add_state('hits', torch.tensor(0.0), dist_reduce_fx='sum')\n"
        "        self.add_state('seen', torch.tensor(0.0), dist_reduce_fx='sum')\n\n"
        "    def update(self, outputs, targets):\n"
        "        self.hits += (outputs.argmax(1) == targets).sum()\n        self.seen += len(targets)\n\n"
        "    def compute(self):\n        return self.hits / self.seen\n"
    )
    word("hits", "_target_: my_torchmetrics.Hits")
    run = train(*IRIS, "metrics=[hits,accuracy]", "early_stopping.metric=val/hits")
    assert run.summary["mode"] == "max"
    assert [row["val/hits"] for row in run.rows] == pytest.approx([row["val/accuracy"] for row in run.rows])
