"""Every metric against scikit-learn, over ragged batches, with classes that are absent from a batch or from the split."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn import metrics as sk

from dltrain.config.search_path import catalogue_dir
from dltrain.data.spec import DataSpec, TargetScale
from dltrain.metrics.counts import F1, MCC, BalancedAccuracy, CohenKappa, Precision, Recall, confusion_of
from dltrain.metrics.foreign import Adapter
from dltrain.metrics.measures import Measures
from dltrain.metrics.ranks import AUROC, AveragePrecision, Spearman
from dltrain.metrics.report import confusion_csv, per_class_csv
from dltrain.metrics.samples import TASK_WORDS, absolute_error, absolute_percentage_error, accuracy, top_k
from dltrain.metrics.sums import R2, RMSE, CalibrationError

# sizes of batches, the last ones ragged: a mean of batch means would be wrong
RAGGED = (64, 64, 64, 17, 1)
SAMPLES = sum(RAGGED)
AVERAGES = ("macro", "micro", "weighted")


def spec_of(classes, task="classification", scale=None):
    return DataSpec((3,), classes, task, torch.zeros(3), torch.ones(3), target_scale=scale)


def drawn(classes, absent=(), seed=0, ties=False):
    """Logits and classes, sorted by class, so that every batch lacks some; `absent` classes occur nowhere in the split."""
    g = torch.Generator().manual_seed(seed)
    present = torch.tensor([k for k in range(classes) if k not in absent])
    targets = present[torch.multinomial(torch.arange(1.0, len(present) + 1), SAMPLES, True, generator=g)]
    targets = targets.sort().values
    logits = torch.randn(SAMPLES, classes, generator=g) + 1.2 * torch.eye(classes)[targets]
    return (logits.round() if ties else logits), targets


def value(metric, outputs, targets, spec=None):
    """The metric as an evaluation computes it: batch by batch."""
    measures = Measures({"m": metric}, spec).fresh()
    for batch in zip(outputs.split(RAGGED), targets.split(RAGGED), strict=True):
        measures.update(*batch)
    # torchmetrics sums some in float32
    assert Measures({"m": metric}, spec).of(outputs, targets)["m"] == pytest.approx(
        measures.compute()["m"], rel=1e-6 if isinstance(metric, Adapter) else 1e-12, nan_ok=True
    )
    return measures.compute()["m"]


def probabilities(logits):
    return logits.double().softmax(1).numpy()


CASES = [(2, ()), (5, ()), (7, (0, 3)), (2, (1,))]


@pytest.mark.parametrize("classes, absent", CASES)
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize(
    "ours, theirs", [(Precision, sk.precision_score), (Recall, sk.recall_score), (F1, sk.f1_score)]
)
def test_precision_recall_and_f1(classes, absent, average, ours, theirs):
    logits, targets = drawn(classes, absent)
    truth = theirs(targets, logits.argmax(1), average=average, zero_division=0)
    assert value(ours(spec_of(classes), average), logits, targets) == pytest.approx(truth, abs=1e-6)


@pytest.mark.parametrize(
    "ours, theirs", [(Precision, sk.precision_score), (Recall, sk.recall_score), (F1, sk.f1_score)]
)
def test_binary_is_the_second_class(ours, theirs):
    logits, targets = drawn(2)
    assert value(ours(spec_of(2), "binary"), logits, targets) == pytest.approx(
        theirs(targets, logits.argmax(1)), abs=1e-6
    )
    with pytest.raises(ValueError, match="the data have 3 classes; use macro"):
        ours(spec_of(3), "binary")


def test_a_class_that_is_never_predicted_counts_0_in_precision():
    logits, targets = drawn(4)
    logits[:, 2] = -9
    truth = sk.precision_score(targets, logits.argmax(1), average="macro", zero_division=0)
    assert value(Precision(spec_of(4)), logits, targets) == pytest.approx(truth, abs=1e-6)


@pytest.mark.parametrize("classes, absent", CASES)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
def test_balanced_accuracy_kappa_and_mcc(classes, absent):
    logits, targets = drawn(classes, absent)
    predicted = logits.argmax(1)
    assert value(BalancedAccuracy(), logits, targets) == pytest.approx(
        sk.balanced_accuracy_score(targets, predicted), abs=1e-6
    )
    for weights in ("none", "linear", "quadratic"):
        known = None if weights == "none" else weights
        truth = sk.cohen_kappa_score(targets, predicted, weights=known, labels=range(classes))
        assert value(CohenKappa(spec_of(classes), weights), logits, targets) == pytest.approx(truth, abs=1e-6)
    assert value(MCC(), logits, targets) == pytest.approx(sk.matthews_corrcoef(targets, predicted), abs=1e-6)


@pytest.mark.parametrize("weights", ["linear", "quadratic"])
@pytest.mark.parametrize(
    "names, given, order",
    [
        (("high", "low", "medium"), ["low", "medium", "high"], (1, 2, 0)),
        (("high", "low", "medium"), None, (0, 1, 2)),
        (("1", "10", "2"), None, (0, 2, 1)),
        (("-1", "0", "0.5"), [0.5, 0, -1], (2, 1, 0)),
    ],
)
def test_kappa_measures_distances_in_the_order_of_the_classes(weights, names, given, order):
    logits, targets = drawn(3)
    metric = CohenKappa(replace(spec_of(3), class_names=names), weights, given)
    truth = sk.cohen_kappa_score(targets, logits.argmax(1), weights=weights, labels=order)
    assert value(metric, logits, targets) == pytest.approx(truth, abs=1e-6)


@pytest.mark.parametrize(
    "weights, order, says",
    [
        ("none", ["a", "b", "c"], "order is a, b, c, and weights is none.*set weights=quadratic"),
        ("linear", ["a", "b"], "order is a, b, which lacks c"),
        ("linear", ["a", "b", "c", "a"], "has a class twice"),
        ("linear", ["a", "b", "C"], "order has C, which is no class; the classes are a, b, c"),
    ],
)
def test_an_order_has_each_class_once(weights, order, says):
    with pytest.raises(ValueError, match=says):
        CohenKappa(replace(spec_of(3), class_names=("a", "b", "c")), weights, order)


def test_the_confusion_matrix():
    logits, targets = drawn(5)
    truth = sk.confusion_matrix(targets, logits.argmax(1), labels=range(5))
    assert confusion_of(logits, targets).long().tolist() == truth.tolist()


def test_names_of_classes_are_no_formulas_of_a_spreadsheet():
    """Names such as those of signs and numbers stay as they are."""
    names = [
        "=1+1",
        "@SUM(A1)",
        "+1+cmd|' /C calc'!A0",
        "-2+3",
        "\t=1",
        " =1",
        "-",
        "+",
        "-1.5",
        "+1e-3",
        "-inf",
        "a=b",
    ]
    for made in (per_class_csv, confusion_csv):
        rows = list(csv.reader(io.StringIO(made(torch.eye(len(names)), names))))
        assert [row[0] for row in rows[1:]][: len(names)] == [f"'{n}" for n in names[:6]] + names[6:]
    assert rows[0][1:] == [row[0] for row in rows[1:]]


@pytest.mark.parametrize("classes, absent", [(2, ()), (5, ()), (7, (0, 3))])
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    "ours, theirs", [(AUROC, sk.roc_auc_score), (AveragePrecision, sk.average_precision_score)]
)
def test_areas_under_curves(classes, absent, average, ties, ours, theirs):
    """One class against the rest; scikit-learn has no value for an absent class, which takes no part."""
    logits, targets = drawn(classes, absent, ties=ties)
    scores, truth = probabilities(logits), np.eye(classes, dtype=int)[targets]
    present = np.ones(classes, bool) if average == "micro" else truth.any(0)
    known = theirs(truth[:, present], scores[:, present], average=average)
    assert value(ours(spec_of(classes), average), logits, targets) == pytest.approx(known, abs=1e-6)


def test_areas_of_the_second_of_two_classes():
    logits, targets = drawn(2, ties=True)
    second = probabilities(logits)[:, 1]
    for ours, theirs in ((AUROC, sk.roc_auc_score), (AveragePrecision, sk.average_precision_score)):
        assert value(ours(spec_of(2), "binary"), logits, targets) == pytest.approx(
            theirs(targets, second), abs=1e-6
        )


def test_areas_agree_with_the_multiclass_form_of_scikit_learn():
    logits, targets = drawn(5)
    for average in ("macro", "weighted"):
        known = sk.roc_auc_score(targets, probabilities(logits), multi_class="ovr", average=average)
        assert value(AUROC(spec_of(5), average), logits, targets) == pytest.approx(known, abs=1e-6)


def test_a_split_of_one_class_has_no_curve():
    logits, targets = drawn(2, (1,))
    assert math.isnan(value(AUROC(spec_of(2)), logits, targets))


def test_a_constant_guess_scores_what_the_docstrings_say():
    targets = drawn(4)[1]
    constant = torch.zeros(SAMPLES, 4)
    assert value(AUROC(spec_of(4)), constant, targets) == 0.5
    assert value(AveragePrecision(spec_of(4)), constant, targets) == pytest.approx(0.25)
    assert value(BalancedAccuracy(), constant, targets) == pytest.approx(0.25)
    assert value(MCC(), constant, targets) == 0
    assert value(R2(), torch.full((SAMPLES, 1), 2.0), torch.arange(SAMPLES).float()[:, None] * 0 + 2) == 1


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("ties", [False, True])
def test_top_k(k, ties):
    logits, targets = drawn(5, ties=ties)
    known = sk.top_k_accuracy_score(targets, logits, k=k)
    assert float(top_k(logits, targets, k=k).mean()) == pytest.approx(known, abs=1e-6)
    assert float(accuracy(logits, targets).mean()) == pytest.approx(
        sk.accuracy_score(targets, logits.argmax(1)), abs=1e-6
    )


def test_calibration_error_equals_a_loop_over_bins():
    logits, targets = drawn(4)
    shares = probabilities(logits)
    confidence, right = shares.max(1), shares.argmax(1) == targets.numpy()
    for bins in (15, 4):
        total = 0.0
        for b in range(bins):
            inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
            if inside.any():
                total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
        assert value(CalibrationError(bins), logits, targets) == pytest.approx(total, abs=1e-9)


# Quantities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("scale", [False, True])
def test_errors_of_a_regression(columns, scale):
    """In the units of the data: outputs and targets of the model are standardized where `scale` is."""
    g = torch.Generator().manual_seed(1)
    truth = torch.randn(SAMPLES, columns, generator=g).double() * 1e3 + 1e6
    guess = truth + 200 * torch.randn(SAMPLES, columns, generator=g)
    spec = spec_of(columns, "regression")
    outputs, targets = guess, truth
    if scale:
        fitted = TargetScale(truth.mean(0), truth.std(0))
        spec = spec_of(columns, "regression", fitted)
        outputs, targets = ((v - fitted.mean) / fitted.std for v in (guess, truth))
    known = {
        RMSE(): sk.root_mean_squared_error(truth.numpy(), guess.numpy()),
        R2(): sk.r2_score(truth.numpy(), guess.numpy()),
        Spearman(): np.mean(
            [scipy.stats.spearmanr(a, b).statistic for a, b in zip(truth.T, guess.T, strict=True)]
        ),
    }
    for metric, number in known.items():
        assert value(metric, outputs, targets, spec) == pytest.approx(number, rel=1e-9), type(metric)
    for function, theirs in (
        (absolute_error, sk.mean_absolute_error),
        (absolute_percentage_error, sk.mean_absolute_percentage_error),
    ):
        assert float(function(guess, truth).mean()) == pytest.approx(
            theirs(truth.numpy(), guess.numpy()), rel=1e-9
        )


def test_ties_and_constants_of_a_regression():
    truth = torch.tensor([1.0, 1, 2, 3, 3, 3]).repeat(35)[:SAMPLES, None]
    guess = torch.randn(SAMPLES, 1, generator=torch.Generator().manual_seed(0)).round()
    known = scipy.stats.spearmanr(truth[:, 0], guess[:, 0]).statistic
    assert value(Spearman(), guess, truth) == pytest.approx(known, abs=1e-9)
    assert math.isnan(value(Spearman(), guess, torch.ones_like(truth)))
    assert value(R2(), guess, torch.ones_like(truth)) == sk.r2_score(np.ones(truth.shape), guess.numpy()) == 0
    # the mean of numbers that are no binary fractions is rounded: this was -1e31
    tenths = torch.full_like(truth, 0.1)
    assert value(R2(), guess, tenths) == 0
    assert value(R2(), tenths, tenths) == 1


def test_targets_of_one_column_are_never_broadcast():
    truth, guess = torch.arange(SAMPLES).float(), torch.zeros(SAMPLES, 1)
    spec = spec_of(1, "regression")
    assert value(RMSE(), guess, truth, spec) == pytest.approx(sk.root_mean_squared_error(truth, guess[:, 0]))


def test_outputs_that_are_not_finite_have_no_rank():
    """NaN sorts last, which would be a perfect score."""
    logits, targets = drawn(2)
    logits[targets == 1] = math.nan
    for metric in (AUROC(spec_of(2)), AveragePrecision(spec_of(2)), CalibrationError()):
        assert math.isnan(value(metric, logits, targets))


def test_no_samples_have_no_value():
    for metric in (F1(spec_of(2)), AUROC(spec_of(2)), Spearman(), RMSE(), R2(), CalibrationError()):
        assert math.isnan(float(metric.compute()))


def test_the_lists_of_words_are_those_of_the_files():
    words = {file.stem for file in (catalogue_dir() / "metrics").glob("*.yaml")} - {"none"}
    assert words == set(", ".join(TASK_WORDS.values()).split(", "))


# On the device ----------------------------------------------------------------------------------------------------

OF_CLASSES = [Precision(spec_of(5)), F1(spec_of(5), "weighted"), BalancedAccuracy(), CohenKappa(spec_of(5), "linear"), MCC(), AUROC(spec_of(5)),
              AveragePrecision(spec_of(5)), CalibrationError()]  # fmt: skip
OF_QUANTITIES = [RMSE(), R2(), Spearman()]


def on_some_device(metric, move, reads=()):
    """The value on a device, and the number of reads by the host while the batches came."""
    if "classes" in metric.needs:
        spec, (outputs, targets) = spec_of(5), drawn(5)
    else:
        spec = spec_of(2, "regression")
        outputs, targets = torch.randn(2, SAMPLES, 2, generator=torch.Generator().manual_seed(0))
    measures = Measures({"m": metric}, spec).fresh()
    before = len(reads)
    for batch in zip(outputs.split(RAGGED), targets.split(RAGGED), strict=True):
        measures.update(*map(move, batch))
    waited = len(reads) - before
    assert measures.compute()["m"] == pytest.approx(value(metric, outputs, targets, spec), rel=1e-9)
    return waited


@pytest.mark.parametrize("metric", [*OF_CLASSES, *OF_QUANTITIES], ids=lambda metric: type(metric).__name__)
def test_batches_stay_on_the_device_and_the_host_does_not_wait(metric):
    from pretend_device import Pretending, on_device, reads

    with Pretending():
        assert on_some_device(metric, on_device, reads) == 0


@pytest.mark.gpu
@pytest.mark.parametrize("metric", [*OF_CLASSES, *OF_QUANTITIES], ids=lambda metric: type(metric).__name__)
def test_on_a_gpu(metric):
    on_some_device(metric, lambda tensor: tensor.cuda())
