"""Thresholds between two classes: scikit-learn's scores at every threshold as second truth; evaluate and predict agree."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from dltrain import api, errors
from dltrain.metrics.thresholds import Threshold, best_thresholds, simplest


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run on a table with one `yes` in six, and two classes that overlap."""
    folder = tmp_path_factory.mktemp("thresholds")
    draw = np.random.default_rng(0)
    rows = [f"{draw.normal(i % 6 == 0):.5f},{'yes' if i % 6 == 0 else 'no'}" for i in range(600)]
    (folder / "t.csv").write_text("\n".join(["x,kind", *rows]) + "\n")
    keys: dict[str, Any] = {"dataset.path": folder / "t.csv", "dataset.target": "kind", "output": folder}
    return api.train("model=linear", dataset="csv", steps=60, lr=0.05, quiet=True, **keys).path


@pytest.fixture
def ask(dltrain, capsys):
    def call(*words: Any) -> tuple[str, str]:
        capsys.readouterr()
        assert dltrain(*words) == 0
        return capsys.readouterr()

    return call


@pytest.mark.parametrize("place", [0, 1])
def test_the_best_thresholds_are_those_of_a_search_by_scikit_learn(place):
    draw = torch.Generator().manual_seed(place)
    outputs = torch.randn(200, 2, generator=draw).mul(4).round() / 4  # with equal probabilities
    targets = (outputs[:, 1] - outputs[:, 0] + torch.randn(200, generator=draw) > 1.5).long()
    p = outputs.double().softmax(1)[:, place].numpy()
    truth = targets.numpy() == place
    found, best = best_thresholds(outputs, targets, place)
    assert found == place and [one.kind for one in best] == ["f1", "balanced_accuracy"]
    for one, score in zip(best, (sk.f1_score, sk.balanced_accuracy_score), strict=True):
        assert one.score == pytest.approx(max(score(truth, p >= t) for t in np.unique(p)), abs=1e-12)
        assert one.score == pytest.approx(score(truth, p >= one.threshold), abs=1e-12)
        assert one.at_half == pytest.approx(score(truth, p >= 0.5), abs=1e-12)
    counts = torch.bincount(targets)
    assert best_thresholds(outputs, targets)[0] == int(counts.argmin())
    assert best_thresholds(outputs, torch.zeros(200, dtype=torch.int64))[1] == []


def test_a_threshold_is_written_with_few_digits():
    pairs = {(0.301, 0.42): 0.4, (0.312, 0.319): 0.319, (0.4, 0.6): 0.5, (0.61, 0.93): 0.7, (0.0, 0.04): 0.04}
    for (low, high), value in pairs.items():
        assert simplest(low, high) == value
    assert 0.25 < simplest(0.25, 0.25 + 1e-12) <= 0.25 + 1e-12


def test_a_threshold_of_one_half_changes_nothing():
    outputs = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    for place, name in enumerate(("no", "yes")):
        cut = Threshold.of(name, 0.5, "classification", 2, ("no", "yes"))
        assert torch.equal(cut.decide(outputs), outputs.argmax(1))
        assert cut.place == place and str(cut) == f"{name} where p({name}) ≥ 0.5"


def test_evaluate_and_predict_follow_it_alike(run, ask):
    words = ("metrics=[accuracy,f1,auroc,recall]", "evaluation.bootstrap=50", "--json")
    plain = json.loads(ask("evaluate", run, *words)[0])["scores"][-1]
    out, _ = ask("evaluate", run, "--threshold", "yes=0.2", *words)
    score = json.loads(out)["scores"][-1]
    changed = ["accuracy", "f1", "recall"]
    assert score["threshold"] == {"class": "yes", "value": 0.2, "changes": changed}
    assert "suggested_thresholds" not in score
    out, _ = ask("evaluate", run, "--threshold", "yes=0.2", *words[:2])
    told = "threshold: yes where p(yes) ≥ 0.2; it changes accuracy, f1, recall, confusion matrix"
    assert told in out and "thresholds on p(yes)" not in out
    out, _ = ask("predict", run, "--split", "test", "--threshold=yes=0.2", "--output", "-")
    rows = list(csv.DictReader(io.StringIO(out)))
    truth, labels = ([row[name] for row in rows] for name in ("truth", "label"))
    assert labels == ["yes" if float(row["p(yes)"]) >= 0.2 else "no" for row in rows]
    assert score["confusion_matrix"] == sk.confusion_matrix(truth, labels, labels=["no", "yes"]).tolist()
    assert score["confusion_matrix"] != plain["confusion_matrix"]
    values = score["values"]
    assert values["accuracy"] == pytest.approx(sk.accuracy_score(truth, labels))
    assert values["f1"] == pytest.approx(sk.f1_score(truth, labels, average="macro"))
    assert {row["name"]: row["recall"] for row in score["per_class"]}["yes"] == pytest.approx(
        sk.recall_score(truth, labels, pos_label="yes")
    )
    assert all(values[name] == plain["values"][name] for name in ("loss", "auroc"))
    low, high = score["intervals"]["accuracy"]
    assert low <= values["accuracy"] <= high and score["intervals"]["auroc"] == plain["intervals"]["auroc"]
    # the other class, by its own name
    other = json.loads(ask("evaluate", run, "--threshold", "no=0.2", *words)[0])["scores"][-1]
    assert other["confusion_matrix"] != score["confusion_matrix"]


def test_a_suggestion_is_for_the_val_split_and_holds_when_typed(run, ask):
    out, _ = ask("evaluate", run, "evaluation.bootstrap=0", "--json")
    val, test = json.loads(out)["scores"]
    assert "suggested_thresholds" not in test and val["suggested_thresholds"]["class"] == "yes"
    shown, _ = ask("evaluate", run, "evaluation.bootstrap=0")
    assert "thresholds on p(yes) with the highest scores on val" in shown
    for best in val["suggested_thresholds"]["best"]:
        option = f"--threshold yes={best['threshold']!r}"
        assert (f"{option}: " in shown) == (best["score"] > best["at_half"])
        found = json.loads(
            ask(
                "evaluate",
                run,
                *option.split(),
                "metrics=[f1,balanced_accuracy]",
                "evaluation.bootstrap=0",
                "--json",
            )[0]
        )["scores"][0]
        scores = {row["name"]: row["f1"] for row in found["per_class"]}
        value = scores["yes"] if best["kind"] == "f1" else found["values"]["balanced_accuracy"]
        assert value == pytest.approx(best["score"], abs=1e-12)


def test_the_api_does_the_same(run, ask):
    loaded = api.load(run)
    found = loaded.predict(split="test", threshold={"yes": 0.2})
    labels = np.where(found.probabilities[:, 1] >= 0.2, "yes", "no")
    assert (found.labels == labels).all()
    values = loaded.evaluate(threshold={"yes": 0.2})["test"]
    assert values["accuracy"] == pytest.approx(np.mean(labels == found.truth))
    assert (loaded.predict({"x": [0.1]}, threshold={"yes": 0.001}).labels == "yes").all()
    document = json.loads(ask("predict", run, "--split", "val", "--threshold", "yes=0.2", "--json")[0])
    assert document["threshold"] == {"class": "yes", "value": 0.2}
    with pytest.raises(errors.UserError, match="it must be one class with a probability"):
        loaded.predict(split="test", threshold=0.3)


def test_what_is_refused(run, dltrain, train):
    iris, diabetes = (train(f"dataset={name}", "steps=1").path for name in ("iris", "diabetes"))
    for verb in ("evaluate", "predict"):
        more = ("--split", "test") if verb == "predict" else ()
        for place, words, reason in (
            (run, ("--threshold", "0.3"), r"`--threshold` is 0\.3; it must be a class and the probability"),
            (run, ("--threshold", "yes=1.5"), r"between 0 and 1, such as --threshold yes=0\.3"),
            (
                run,
                ("--threshold", "yess=0.3"),
                r"yess is no class of the run\. Did you mean `yes`\?\nClasses: no, yes",
            ),
            (run, ("threshold=0.3",), r"Write --threshold CLASS=0\.3"),
            (iris, ("--threshold", "setosa=0.3"), r"the run has 3 classes; a threshold decides between two"),
            (diabetes, ("--threshold", "yes=0.3"), r"the run is a regression, which has no classes"),
        ):
            with pytest.raises(errors.UserError, match=reason):
                dltrain(verb, place, *words, *more)
