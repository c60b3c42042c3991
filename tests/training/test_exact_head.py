"""bf16 of a regression: the last layer, the loss and the metrics stay in float32."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import dltrain
from dltrain.training.forward import Forward, keep_head_in_float32

CPU = torch.device("cpu")


@pytest.fixture
def offset(tmp_path, monkeypatch):
    """Targets 1e6 ± 1, a linear function of the inputs with a little noise, in the units of the file."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(400, 4)).astype(np.float32)
    targets = 1e6 + inputs @ np.array([0.5, -0.5, 0.3, 0.2], np.float32) + 0.1 * draw.normal(size=400)
    np.savez("offset.npz", x=inputs, y=targets.astype(np.float64))
    np.savetxt(
        "offset.csv", np.column_stack([inputs, targets]), delimiter=",", header="a,b,c,d,y", comments=""
    )
    return tmp_path


def trained(precision: str, *words: str) -> dict[str, float]:
    common = [f"precision={precision}", "device=cpu", "quiet=true"]
    run = dltrain.train(*common, *words)
    return {name: float(value) for name, value in run.summary["test"].items()}


def test_a_linear_model_is_that_of_float32(offset):
    words = ["dataset=csv", "dataset.path=offset.csv", "dataset.target=y", "model=linear", "lr=0.01"]
    assert trained("bf16", *words) == trained("fp32", *words)


def test_offsets_that_the_model_learns_are_not_rounded(offset):
    """bf16 has 8 bits: neighbors of 1,000 are 4 apart, and the targets are within 1 of it."""
    rows = np.genfromtxt("offset.csv", delimiter=",", skip_header=1)
    rows[:, 4] -= 999_000
    np.savetxt("offset.csv", rows, delimiter=",", header="a,b,c,d,y", comments="")
    words = ["dataset=csv", "dataset.path=offset.csv", "dataset.target=y", "dataset.target_scale=none"]
    words += ["model=linear", "lr=20", "schedule=cosine", "epochs=80"]
    exact = trained("fp32", *words)
    assert exact["mae"] < 0.2
    assert trained("bf16", *words) == exact


def test_predictions_are_those_of_float32(offset):
    words = ["dataset=csv", "dataset.path=offset.csv", "dataset.target=y", "model=linear", "lr=0.01"]
    common = ["epochs=2", "device=cpu", "quiet=true"]
    runs = [dltrain.train(*words, f"precision={precision}", *common) for precision in ("fp32", "bf16")]
    exact, found = (run.predict("offset.csv").values for run in runs)
    assert np.array_equal(exact, found)


def test_the_head_computes_in_float32_and_its_copies_with_their_own_weights():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    inputs = torch.randn(5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model[:2](inputs)
    expected = nn.functional.linear(hidden.float(), model[2].weight, model[2].bias)
    keep_head_in_float32(model)
    assert isinstance(model[2], nn.Linear)
    assert torch.equal(Forward(model, CPU, "bf16")(inputs), expected)
    twin = copy.deepcopy(model)
    nn.init.zeros_(twin[2].weight)
    nn.init.zeros_(twin[2].bias)
    assert not Forward(twin, CPU, "bf16")(inputs).any()
    assert torch.equal(Forward(model, CPU, "bf16")(inputs), expected)


@pytest.mark.parametrize(
    ("dataset", "features", "dtype"), [("iris", 4, torch.bfloat16), ("diabetes", 10, torch.float32)]
)
def test_only_quantities_are_exact(dataset, features, dtype, tmp_path):
    words = [f"dataset={dataset}", "epochs=1", "precision=bf16", "device=cpu", "quiet=true"]
    run = dltrain.train(*words, f"output={tmp_path}")
    with torch.autocast("cpu", torch.bfloat16):
        assert run.model(torch.ones(2, features)).dtype is dtype
