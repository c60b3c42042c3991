"""Tables that come with dltrain, and the user's datasets with feature names, are predicted by name."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn import datasets

import dltrain
from dltrain.data.errors import DataError
from dltrain.data.raw import Encoder, RawData
from dltrain.errors import DataProblem
from dltrain.run.data import with_columns


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes"])
def test_a_csv_is_matched_by_the_names_of_scikit_learn(name, tmp_path):
    run = dltrain.train(f"dataset={name}", "epochs=1", "quiet=true", f"output={tmp_path}")
    keys = {"scaled": False} if name == "diabetes" else {}
    bunch = getattr(datasets, f"load_{name}")(**keys)
    file = tmp_path / "new.csv"
    with open(file, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["target", *reversed(bunch.feature_names)])
        writer.writerows([7, *reversed(row)] for row in bunch.data.tolist())
    found = run.predict(str(file))
    saved = load_file(next(run.path.rglob("normalization.safetensors")))
    with torch.no_grad():
        expected = run.model((torch.from_numpy(bunch.data).float() - saved["mean"]) / saved["std"])
    assert np.allclose(found.outputs, expected, rtol=1e-4, atol=1e-5)
    if name == "diabetes":
        assert found.names == ("target",)
    else:
        assert set(found.labels) <= set(bunch.target_names)
    assert run.summary["constant"]


def test_a_missing_column_is_named(tmp_path):
    run = dltrain.train("dataset=iris", "epochs=1", "quiet=true", f"output={tmp_path}")
    with pytest.raises(DataProblem, match=r"lacks 'petal length \(cm\)', 'petal width \(cm\)'"):
        run.predict({"sepal length (cm)": [5.0], "sepal width (cm)": [3.0]})


def test_feature_names_of_ones_own_are_columns():
    raw = RawData(torch.arange(6.0).view(3, 2), torch.tensor([0, 1, 0]), "classification")
    assert with_columns(raw).inputs is raw.inputs
    named = RawData(raw.inputs, raw.targets, "classification", feature_names=("a", "b"))
    encoder = with_columns(named).inputs
    assert isinstance(encoder, Encoder)
    found = encoder.encode(torch.tensor([0, 2]))
    assert found.feature_names == ("a", "b")
    assert torch.equal(found.inputs, raw.inputs)
    assert [rule.fill for rule in found.rules] == [2.0, 3.0]


@pytest.mark.parametrize("names", [("a",), ("a", "a"), ("a", "b", "c")])
def test_names_that_do_not_fit_are_refused(names):
    raw = RawData(torch.zeros(3, 2), torch.tensor([0, 1, 0]), "classification", feature_names=names)
    with pytest.raises(DataError, match="feature_names"):
        with_columns(raw)
