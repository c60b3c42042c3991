"""Study problems (dataset=none): defaults that fit them, and what the lecture says of the saddle."""

from __future__ import annotations

import csv
import math

import pytest
import yaml

from dltrain.cli import dispatch
from dltrain.errors import UserError

LEFT = 0.125  # half of the saddle's value: below it, the saddle is left
LR, STEPS = 0.05, 200


def saddle(u, v):
    return 0.5 * u**2 + 0.25 * (v**2 - 1) ** 2


def slope(w):
    return [w[0], w[1] * (w[1] ** 2 - 1)]


def steps_to_leave(rule, state):
    """Count the steps of a recursion in Python's float64 from (1, 1e-3)."""
    w = [1.0, 1e-3]
    for step in range(1, STEPS + 1):
        w = [rule(x, g, state[i], step) for i, (x, g) in enumerate(zip(w, slope(w), strict=True))]
        if saddle(*w) < LEFT:
            return step
    return math.inf


def sgd(x, g, own, step):
    return x - LR * g


def momentum(x, g, own, step):
    own["v"] = 0.9 * own.get("v", 0.0) + g
    return x - LR * own["v"]


def nesterov(x, g, own, step):
    own["v"] = 0.9 * own.get("v", 0.0) + g
    return x - LR * (g + 0.9 * own["v"])


def adam(x, g, own, step):
    own["m"] = 0.9 * own.get("m", 0.0) + 0.1 * g
    own["s"] = 0.999 * own.get("s", 0.0) + 0.001 * g**2
    return x - LR * own["m"] / (1 - 0.9**step) / (math.sqrt(own["s"] / (1 - 0.999**step)) + 1e-8)


@pytest.mark.ci
def test_momentum_leaves_the_saddle_before_plain_descent(workdir, dltrain):
    """FAULTS 1: early stopping ended momentum on the plateau, so that it ranked last."""
    words = "optimizer=sgd,momentum,nesterov,adam"
    assert (
        dltrain(
            "-m",
            "model=saddle",
            "dataset=none",
            words,
            f"steps={STEPS}",
            f"lr={LR}",
            "quiet=true",
            f"checkpoint.every_epochs={STEPS}",
        )
        == 0
    )
    (folder,) = {file.parent for file in workdir.glob("outputs/*/*/sweep.json")}
    with open(folder / "results.csv") as stream:
        jobs = list(csv.DictReader(stream))
    left = {}
    for job in jobs:
        assert job["status"] == "completed"
        with open(f"{job['folder']}/metrics.csv") as stream:
            rows = list(csv.DictReader(stream))
        left[job["optimizer"]] = next(int(float(r["step"])) for r in rows if float(r["val/loss"]) < LEFT)
    expected = {rule.__name__: steps_to_leave(rule, [{}, {}]) for rule in (sgd, momentum, nesterov, adam)}
    for word, steps in expected.items():
        assert abs(left[word] - steps) <= 1, (word, left, expected)  # float32: a step more or less
    assert expected["nesterov"] <= expected["momentum"] < expected["sgd"] / 2
    assert left["nesterov"] <= left["momentum"] < left["sgd"] / 2
    objectives = {job["optimizer"]: float(job["objective"]) for job in jobs}
    assert max(objectives, key=lambda word: objectives[word]) == "sgd", "the slowest ranks last"


@pytest.mark.ci
@pytest.mark.parametrize(
    ("model", "optimizer", "reached"),
    [
        ("quadratic", "gd", 1.0),
        ("quadratic", "momentum", 1e-3),
        ("rosenbrock", "adam", 4.0),
        ("saddle", "gd", 1e-3),
    ],
)
def test_the_defaults_fit_each_problem(train, model, optimizer, reached):
    run = train("dataset=none", f"model={model}", f"optimizer={optimizer}", "evaluation.every_epochs=50")
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["words"]["early_stopping"] == "none" and run.summary["status"] == "completed"
    assert run.summary["steps"] == 200
    assert 1e-4 <= config["lr"] <= 1.0 and config["optimizer"]["lr"] == config["lr"], (
        "the number that was found is saved"
    )
    assert run.summary["objective"] < reached


def test_what_the_user_gives_is_kept(train, workdir, capsys):
    given = ("early_stopping=patience", "early_stopping.patience=2", "lr=0.003", "epochs=5")
    run = train("dataset=none", "model=quadratic", *given)
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert (config["words"]["early_stopping"], config["lr"], config["epochs"]) == ("patience", 0.003, 5)
    folder = workdir / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /dataset: none\n  - override /model: saddle\n"
        "  - override /early_stopping: patience\nlr: 0.02\nepochs: 3\n"
    )
    assert dispatch(["experiment=mine", "--cfg", "job"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["lr"], shown["epochs"], shown["early_stopping"]["patience"]) == (0.02, 3, 10)


def test_steps_replace_the_epochs_of_a_dataset_or_an_optimizer_in_a_sweep_too(dltrain, workdir):
    for words in (["dataset=none", "model=saddle", "lr=0.1"], ["dataset=iris", "optimizer=gd"]):
        assert dltrain("-m", *words, "steps=4,5", "sweep.dry_run=true") == 0
        with pytest.raises(UserError, match="both say how long to train"):
            dltrain("-m", *words, "steps=4,5", "epochs=3", "sweep.dry_run=true")


def test_other_datasets_keep_the_defaults_of_the_optimizers(dltrain, capsys):
    assert dltrain("dataset=iris", "optimizer=gd", "--cfg", "job") == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["lr"], shown["epochs"], shown["early_stopping"]["patience"]) == (0.3, 150, 10)
    assert dltrain("dataset=none", "model=saddle", "optimizer=gd", "--cfg", "job") == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["lr"], shown["epochs"]) == ("auto", 200) and "patience" not in shown["early_stopping"]
    with pytest.raises(UserError, match=r"`early_stopping.patience` is no key of early_stopping=none"):
        dltrain("dataset=none", "model=saddle", "early_stopping.patience=3")


@pytest.mark.parametrize("optimizer", ["steepest", "newton_cg", "lbfgs"])
def test_a_method_that_finds_its_own_step_keeps_its_rate(train, optimizer):
    """lr=auto, the default of a study problem, is for methods whose lr is the size of the step."""
    run = train("model=quadratic", "dataset=none", f"optimizer={optimizer}", "steps=2")
    assert yaml.safe_load((run.path / "config.yaml").read_text())["lr"] == 1.0
