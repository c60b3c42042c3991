"""A loss from elsewhere is told what it sees of the targets of a regression, and how it sees them as they are."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from dltrain.errors import UserError

LOSSES = """
import torch.nn.functional as F

def poisson(outputs, targets):
    return F.poisson_nll_loss(outputs, targets, log_input=True, reduction="none").mean(1)

def labels(outputs, targets):
    assert ((targets == 0) | (targets == 1)).all()
    return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(1)
"""
DATA = """
import numpy as np
from dltrain.data.raw import RawData
import torch

def counts():
    arrays = np.load("counts.npz")
    return arrays["inputs"], arrays["targets"]

def plain():
    inputs, targets = counts()
    return RawData(torch.from_numpy(inputs), torch.from_numpy(targets), "regression")
"""
STANDARDIZED = "gets targets of mean 0 and variance 1"
BY_SQUARES = "early_stopping.metric=val/objective"
BRIEF = ("model=linear", "logger=none", "epochs=1")


@pytest.fixture
def own(workdir, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("losses_of_mine", "data_of_mine"):
        sys.modules.pop(name, None)
    (workdir / "losses_of_mine.py").write_text(LOSSES)
    (workdir / "data_of_mine.py").write_text(DATA)
    for group, names in {"loss": ("poisson", "labels"), "dataset": ("counts", "plain")}.items():
        (workdir / "conf" / group).mkdir(parents=True)
        for name in names:
            file = {"loss": "losses_of_mine", "dataset": "data_of_mine"}[group]
            (workdir / "conf" / group / f"{name}.yaml").write_text(f"_target_: {file}.{name}\n")
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(2000, 4)).astype("float32")
    counts = draw.poisson(np.exp(1 + 0.5 * inputs[:, 0])).astype("float32")
    np.savez(workdir / "counts.npz", inputs=inputs, targets=counts)
    marks = (inputs[:, :3] + draw.normal(size=(2000, 3)) > 0.8).astype("int64")
    np.savez(workdir / "labels.npz", inputs=inputs, targets=marks)


@pytest.fixture
def header(own, dltrain, capsys):
    def run(*words):
        capsys.readouterr()
        assert dltrain(*BRIEF, *words) == 0
        return capsys.readouterr().out

    return run


def test_counts_as_they_are_give_the_rates_that_drew_them(own, train):
    """The second truth: the logarithm of the rate is 1 + 0.5 x."""
    run = train("dataset=npz", "dataset.path=counts.npz", "dataset.target_scale=none", "loss=poisson", "model=linear", "optimizer=lbfgs",
                "batch_size=full", "steps=20", "early_stopping=none", "dataset.normalize=none")  # fmt: skip
    weights = run.best_weights
    np.testing.assert_allclose(weights["head.weight"].numpy(), [[0.5, 0, 0, 0]], atol=0.05)
    np.testing.assert_allclose(weights["head.bias"].numpy(), [1], atol=0.05)


@pytest.mark.parametrize(
    ("data", "cure"),
    [
        (("dataset=npz", "dataset.path=counts.npz"), ("dataset.target_scale=none",)),
        (("dataset=counts",), ("dataset=plain",)),
    ],
)
def test_the_header_says_what_a_loss_gets_and_the_cure_works(header, data, cure):
    shown = header(*data, "loss=poisson")
    assert STANDARDIZED in shown and BY_SQUARES in shown
    assert (cure[0] if "scale" in cure[0] else 'RawData(inputs, targets, "regression")') in shown
    cured = header(*data, *cure, "loss=poisson", BY_SQUARES)
    assert STANDARDIZED not in cured and "early_stopping.metric" not in cured
    assert STANDARDIZED not in header(*data, "loss=huber")


def test_several_labels_of_a_sample_are_named(header):
    data = ("dataset=npz", "dataset.path=labels.npz")
    line = "all values of the 3 targets are 0 or 1, and are learned as quantities"
    assert line in header(*data)
    assert line not in header(*data, "loss=labels", "dataset.target_scale=none")
    assert line not in header("dataset=npz", "dataset.path=counts.npz")


def test_the_scale_of_a_trained_run_is_not_changed(own, train, dltrain):
    run = train("dataset=npz", "dataset.path=counts.npz", "model=linear", "steps=1")
    with pytest.raises(UserError, match="cannot change here: data.json of the run has what it decided"):
        dltrain("evaluate", run.path, "dataset.target_scale=none")
