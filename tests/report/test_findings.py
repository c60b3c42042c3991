"""What the report says of the columns of metrics.csv: each sentence where it holds, with its numbers, and not elsewhere."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import log_loss

from dltrain.report.findings import Finding, findings
from dltrain.report.record import Record

EPOCHS = 40


def record(
    columns: dict[str, list[float]], classes: list[dict[str, str]] | None = None, **summary: Any
) -> Record:
    """Return a run with these columns, one row an epoch, whose best epoch is that of the lowest val/loss."""
    count = len(next(iter(columns.values())))
    rows = [
        {"epoch": i + 1.0, "step": 10.0 * (i + 1), **{k: v[i] for k, v in columns.items()}}
        for i in range(count)
    ]
    best = min(rows, key=lambda row: row.get("val/loss", -row["step"]), default={})
    facts = {
        "status": "completed",
        "metric": "val/loss",
        "mode": "min",
        "best": best,
        "overrides": ["epochs=40"],
    }
    return Record(Path("runs/a b"), facts | summary, rows, classes or [], [])


def decay(start: float, end: float, count: int = EPOCHS) -> list[float]:
    return list(np.geomspace(start, end, count))


def level(start: float, end: float) -> list[float]:
    """Return a curve that falls in the first ten epochs and then stays."""
    return [*decay(start, end, 10), *[end] * (EPOCHS - 10)]


def texts(found: Record) -> list[str]:
    return [finding.text for finding in findings(found)]


HEALTHY = {
    "train/loss": level(2.0, 0.5),
    "val/loss": level(2.0, 0.55),
    "lr": [0.1] * EPOCHS,
    "grad_norm": level(3.0, 0.4),
}


def test_a_healthy_run_has_nothing_conspicuous():
    assert findings(record(HEALTHY)) == [Finding("note", "Nothing conspicuous in 40 evaluations.")]


def rising(from_epoch: int) -> list[float]:
    """Return val/loss that falls to 0.5 at an epoch and then rises by 0.02 an epoch."""
    return [*decay(2.0, 0.5, from_epoch), *(0.5 + 0.02 * k for k in range(1, EPOCHS - from_epoch + 1))]


CASES: dict[str, tuple[dict[str, list[float]], str, list[str]]] = {
    # the last three of 28 rises: 26, 27 and 28 times 0.02 above 0.5
    "overfitting": ({"train/loss": decay(2, 0.1), "val/loss": rising(12)}, "warn",
                    ["val/loss rose from 0.5000 in epoch 12 to 1.0400", "to 0.1000: overfitting since epoch 12"]),
    "falling": ({"train/loss": decay(2, 0.1), "val/loss": decay(2, 0.2)}, "warn",
                ["train/loss was still falling at the end", "epoch 40 of 40: train longer"]),
    "stalled": ({"train/loss": [2.3] * EPOCHS}, "bad", ["did not fall: 2.3000 in the first evaluation, 2.3000 in the last"]),
    "nan": ({"train/loss": [2.0, 1.0, math.nan, math.inf, 0.9]}, "bad", ["not finite in 2 of 5 evaluations, first in epoch 3"]),
    "gap": ({**HEALTHY, "train/accuracy": [0.99] * EPOCHS, "val/accuracy": [0.9] * EPOCHS}, "note",
            ["train/accuracy is 0.9900 and val/accuracy 0.9000: a gap of 0.0900"]),
    "underfitting": ({**HEALTHY, "train/loss": level(2.0, 0.9)}, "note", ["train/loss (0.9000) is above val/loss (0.5500)"]),
    "lr": ({**HEALTHY, "lr": [0.1] * 30 + [0.0005] * 10}, "note", ["below 1% of its maximum (0.1000) in the last 10 of 40", "down to 5.00e-04"]),
    "gradient": ({**HEALTHY, "grad_norm": decay(1, 1e-8)}, "note", ["grad_norm is 1.00e-08 in the last evaluation (first: 1.0000)"]),
    "spike": ({**HEALTHY, "grad_norm": [1.0] * 20 + [200.0] + [1.0] * 19}, "warn",
              ["reached 200.00 in epoch 21, 200 times that of the evaluations around it (median 1.0000)"]),
    "vanishing": ({**HEALTHY, "layers/first/gradient": [1e-12] * EPOCHS, "layers/head/gradient": [1.0] * EPOCHS}, "bad",
                  ["Layer first receives 1.0e-12 of the gradient of layer head"]),
    "dead": ({**HEALTHY, "layers/f.2/dead": [0.75] * EPOCHS}, "warn", ["75% of the units of layer f.2 are dead"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_sentence_has_its_numbers(case):
    columns, kind, parts = CASES[case]
    (found,) = (f for f in findings(record(columns)) if parts[0] in f.text)
    assert found.kind == kind
    assert all(part in found.text for part in parts), found.text
    assert not any(parts[0].split(" ")[0] in text for text in texts(record(HEALTHY)))


def test_a_run_that_overfits_is_not_told_to_train_longer():
    assert not any("train longer" in text for text in texts(record(CASES["overfitting"][0])))


def test_few_evaluations_show_no_trend():
    short = {name: values[:7] for name, values in CASES["falling"][0].items()}
    assert texts(record(short)) == ["Nothing conspicuous in 7 evaluations."]
    assert findings(record({"lr": []})) == []


WITHIN = "not distinguishable from a constant guess by accuracy"
NOT = "not better than a constant guess"


@pytest.mark.parametrize(
    "accuracy,loss,kind,verdict",
    [
        (0.9, 2.0, "good", "better than a constant guess"),
        (0.61, 0.5, "good", "better than a constant guess"),
        (0.59, 0.5, "warn", WITHIN),
        (0.59, 2.0, "warn", WITHIN),
        (0.5, 0.5, "warn", NOT),
        (0.5, 2.0, "bad", NOT),
        (0.4, 2.0, "bad", NOT),
    ],
)
def test_a_constant_guess_is_that_of_scikit_learn(accuracy, loss, kind, verdict):
    targets = np.repeat([0, 1, 2], [50, 30, 20])
    classes = [{"class": str(k), "f1": "0", "support": str(n)} for k, n in enumerate([50, 30, 20])]
    run = record(HEALTHY, classes, test={"accuracy": accuracy, "loss": loss})
    guess = DummyClassifier(strategy="prior").fit(targets[:, None], targets)
    entropy = log_loss(targets, guess.predict_proba(targets[:, None]))
    assert run.constant["accuracy"] == guess.score(targets[:, None], targets)
    assert run.constant["loss"] == pytest.approx(entropy)
    (found,) = findings(run)
    # the standard deviation of 100 throws of a coin is 5
    end = f"{verdict} (0.5000 ± 0.1000, 100 samples)"
    if kind != "good":
        end += f"; by loss it is {'' if loss < entropy else 'not '}better ({loss:.4f}, guess {entropy:.4f})"
    assert found == Finding(kind, f"Test accuracy {accuracy:.4f}: {end}.")


RARE = {"loss": 0.1505, "accuracy": 0.95, "balanced_accuracy": 0.9728, "auroc": 0.998, "mine": 3.0}
GUESS = {"loss": 0.2788, "accuracy": 0.92, "balanced_accuracy": 0.5, "auroc": 0.5, "mine": 4.0}


@pytest.mark.parametrize(
    "metric,mode,name",
    [
        ("val/balanced_accuracy", "max", "balanced_accuracy"),
        ("val/auroc", "max", "auroc"),
        ("val/mine", "min", "mine"),
        ("val/f1", "max", "accuracy"),  # no constant of it is known
        ("gap", "min", "accuracy"),
        ("val/loss", "min", "accuracy"),  # the default, which nobody chose
    ],
)
def test_a_run_is_compared_with_a_constant_guess_by_its_own_metric(metric, mode, name):
    """With a rare class, 16 of 200 samples, 0.92 ± 2·√(0.92·0.08/200) = 0.0384 holds an accuracy of 0.95."""
    classes = [{"class": str(k), "f1": "0", "support": str(n)} for k, n in enumerate([184, 16])]
    run = record(HEALTHY, classes, test=RARE, constant=GUESS, metric=metric, mode=mode)
    (found,) = (finding for finding in findings(run) if "constant guess" in finding.text)
    if name == "accuracy":
        loss = "by loss it is better (0.1505, guess 0.2788)"
        text = f"Test accuracy 0.9500: {WITHIN} (0.9200 ± 0.0384, 200 samples); {loss}."
        assert found == Finding("warn", text)
    else:
        text = f"Test {name} {RARE[name]:.4f}: better than a constant guess ({GUESS[name]:.4f})."
        assert found == Finding("good", text)


def test_a_constant_of_somebody_else_that_is_no_fraction_has_no_interval():
    classes = [{"class": "0", "f1": "0", "support": "9"}]
    run = record(HEALTHY, classes, test={"accuracy": 0.5}, constant={"accuracy": 2.0})
    assert findings(run)[0] == Finding("bad", f"Test accuracy 0.5000: {NOT} (2.0000).")


def test_gradients_that_shrink_do_not_spike():
    assert texts(record({**HEALTHY, "grad_norm": decay(100, 1e-3)})) == [
        "Nothing conspicuous in 40 evaluations."
    ]


def test_a_measured_constant_guess_comes_first():
    run = record(HEALTHY, test={"loss": 5.0}, constant={"loss": 4.0})
    assert findings(run)[0] == Finding("bad", "Test loss 5.0000: not better than a constant guess (4.0000).")


def test_the_worst_comes_first():
    columns = {
        **CASES["vanishing"][0],
        **{k: CASES["lr"][0][k] for k in ("lr",)},
        "layers/x/dead": [0.9] * EPOCHS,
    }
    kinds = [finding.kind for finding in findings(record(columns))]
    assert kinds == ["bad", "warn", "note"]


# The commands: what a run was made of goes on in them ---------------------------------------------------------------


def command(case: str, **summary: Any) -> list[str]:
    (found,) = (f for f in findings(record(CASES[case][0], **summary)) if f.command)
    return shlex.split(found.command)


def test_the_command_to_train_longer():
    assert command("falling") == ["dltrain", "rerun", "runs/a b", "epochs=80"]
    assert findings(record(CASES["falling"][0], overrides=["steps=400"]))[0].command == ""


@pytest.mark.parametrize("status", ["killed", "interrupted", "failed"])
def test_a_run_that_did_not_finish_is_resumed(status):
    assert command("falling", status=status) == ["dltrain", "resume", "runs/a b"]
    (found,) = findings(record(CASES["falling"][0], status=status))
    assert found.text.endswith(f" of 40. The run is {status}: go on with it.")


def test_a_run_that_still_trains_is_not_told_to_train_longer():
    assert texts(record(CASES["falling"][0], status="running")) == ["Nothing conspicuous in 40 evaluations."]


@pytest.mark.parametrize(
    "chosen, end",
    [
        ({}, "the model underfits."),
        (
            {"augmentation": ["flip"], "regularization": ["dropout"]},
            "its augmentation (flip) and its regularization (dropout) act in training only, or the model underfits.",
        ),
        (
            {"regularization": ["l2"], "augmentation": []},
            "its regularization (l2) acts in training only, or the model underfits.",
        ),
        (
            {"sampler": "hard", "averaging": "ema"},
            "its sampler (hard) acts in training only, or its averaging (ema) acts in validation only, or the model underfits.",
        ),
        ({"sampler": "none", "averaging": "none"}, "val/loss (0.5500): the model underfits."),
    ],
)
def test_only_methods_that_a_run_has_explain_its_training_loss(chosen, end):
    columns = {**HEALTHY, "train/loss": level(2.0, 0.9)}
    (found,) = texts(record(columns, config=chosen))
    assert found.startswith("In the best epoch train/loss (0.9000) is above val/loss (0.5500): ")
    assert found.endswith(end)
    assert ("augmentation" in found) == bool(chosen.get("augmentation"))


def test_a_loss_that_falls_within_an_epoch_is_no_underfitting():
    # the weights improve from 0.27 to 0.18 on both splits, and train/loss is the mean on the way
    falling = {"train/loss": [1.85, 0.63, 0.2566], "val/loss": [0.9, 0.27, 0.1764]}
    assert texts(record(falling)) == ["Nothing conspicuous in 3 evaluations."]
    assert texts(record({"train/loss": [1.85], "val/loss": [0.9]})) == [
        "Nothing conspicuous in 1 evaluation."
    ]
    settled = {"train/loss": [1.85, 0.63, 0.6], "val/loss": [0.9, 0.27, 0.26]}
    assert any("the model underfits" in text for text in texts(record(settled)))


def test_the_commands_of_runs_that_fail():
    own = {"overrides": ["lr=10", "model=cnn"], "command": "dltrain lr=10 model=cnn --config-name=c"}
    assert command("nan", **own) == ["dltrain", "find-lr", "model=cnn", "--config-name", "c"]
    assert command("stalled", **own) == ["dltrain", "check", "lr=10", "model=cnn", "--config-name", "c"]
    assert command("spike", **own)[:4] == [
        "dltrain",
        "lr=10",
        "model=cnn",
        "regularization=[gradient_clipping]",
    ]
    foreign = {**own, "overrides": ["model=cnn", "trust=[theirs]"]}
    assert command("spike", **foreign) == [
        "dltrain",
        "rerun",
        "runs/a b",
        "regularization=[gradient_clipping]",
    ]
    for case in ("nan", "stalled"):
        assert not any(finding.command for finding in findings(record(CASES[case][0], **foreign)))
    for asked in ({"overrides": ["regularization=[l2]"]}, {"config": {"regularization": ["l2"]}}):
        other = record(CASES["spike"][0], **asked)
        assert [finding.command for finding in findings(other)] == [""]


def test_changes_of_a_repeated_run_are_no_configuration():
    """`dltrain check seed=1` was proposed for a run that repeats one on other data with another model."""
    again = {"overrides": ["seed=1"], "command": "dltrain rerun outputs/a seed=1"}
    for case in ("nan", "stalled"):
        assert not any(finding.command for finding in findings(record(CASES[case][0], **again)))
    assert command("spike", **again) == [
        "dltrain",
        "rerun",
        "runs/a b",
        "regularization=[gradient_clipping]",
    ]


@pytest.mark.parametrize(
    "damage", [{"overrides": 3}, {"command": "dltrain 'x"}, {"command": None}, {"best": "x"}]
)
def test_a_damaged_summary_has_findings(damage):
    assert findings(record(CASES["falling"][0], **damage))
