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


@pytest.mark.parametrize("accuracy,better", [(0.9, True), (0.61, True), (0.59, False), (0.4, False)])
def test_a_constant_guess_is_that_of_scikit_learn(accuracy, better):
    targets = np.repeat([0, 1, 2], [50, 30, 20])
    classes = [{"class": str(k), "f1": "0", "support": str(n)} for k, n in enumerate([50, 30, 20])]
    run = record(HEALTHY, classes, test={"accuracy": accuracy, "loss": 0.5})
    guess = DummyClassifier(strategy="prior").fit(targets[:, None], targets)
    assert run.constant["accuracy"] == guess.score(targets[:, None], targets)
    assert run.constant["loss"] == pytest.approx(log_loss(targets, guess.predict_proba(targets[:, None])))
    (found,) = findings(run)
    # the standard deviation of 100 throws of a coin is 5
    end = f"{'' if better else 'not '}better than a constant guess (0.5000 ± 0.1000, 100 samples)."
    assert found == Finding("good" if better else "bad", f"Test accuracy {accuracy:.4f}: {end}")


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
    own = {"command": "dltrain epochs=40 --config-dir 'my conf'"}
    assert command("falling", **own) == [
        "dltrain",
        "rerun",
        "runs/a b",
        "epochs=80",
        "--config-dir",
        "my conf",
    ]
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
    own = {"overrides": ["lr=10", "model=cnn"], "command": "dltrain lr=10 model=cnn --config-dir=c"}
    assert command("nan", **own) == ["dltrain", "find-lr", "model=cnn", "--config-dir=c"]
    assert command("stalled", **own) == ["dltrain", "check", "lr=10", "model=cnn", "--config-dir=c"]
    assert command("spike", **own)[:4] == [
        "dltrain",
        "lr=10",
        "model=cnn",
        "regularization=[gradient_clipping]",
    ]
    other = record(CASES["spike"][0], overrides=["regularization=[l2]"])
    assert [finding.command for finding in findings(other)] == [""]


@pytest.mark.parametrize(
    "damage", [{"overrides": 3}, {"command": "dltrain 'x"}, {"command": None}, {"best": "x"}]
)
def test_a_damaged_summary_has_findings(damage):
    assert findings(record(CASES["falling"][0], **damage))
