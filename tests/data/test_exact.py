"""Large offsets in arrays: quantities keep them, features whose differences float32 cannot represent are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, TensorDataset

from dltrain.data.errors import DataError
from dltrain.data.exact import check_precision, quantities
from dltrain.errors import DataProblem

OFFSET = 1.7e9


def test_quantities_are_kept_exactly():
    values = np.array([OFFSET + 0.25, 1.0])
    assert quantities(values).dtype == torch.float64 and quantities(values)[0] == OFFSET + 0.25
    # what float32 holds stays float32, so that data of earlier versions have the fingerprint that they had
    assert quantities(np.array([0.5, 3.0])).dtype == torch.float32


def test_features_whose_differences_float32_cannot_represent_are_refused():
    draws = np.random.default_rng(0).normal(size=(100, 2))
    check_precision(draws + 1e3)
    check_precision((draws + OFFSET).astype(np.float32))
    check_precision(np.full((5, 1), OFFSET + 1))
    with pytest.raises(
        DataError,
        match="feature 1 has mean 1.7e\\+09 and deviation .*float32 cannot represent",
    ):
        check_precision(draws + [0.0, OFFSET])


def test_a_regression_with_a_large_offset_is_learned_in_real_units(workdir, train):
    """The same run with and without the offset: the errors are equal, in their units."""
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(200, 3))
    found = []
    for offset in (0.0, OFFSET):
        targets = inputs[:, 0] * 0.5 + offset
        np.savez(workdir / f"{offset}.npz", inputs=inputs, targets=targets)
        run = train(
            "dataset=npz", f"dataset.path={offset}.npz", "model=linear", "epochs=20", "lr=0.05", "quiet=true"
        )
        found.append(run.summary["test"]["mae"])
        assert run.summary["constant"]["mae"] == pytest.approx(0.4, abs=0.1)
    assert found[0] == pytest.approx(found[1], rel=0.01) and found[0] < 0.1


def test_features_with_a_large_offset_are_refused_before_a_folder_exists(workdir, dltrain):
    inputs = np.random.default_rng(0).normal(size=(60, 3)) + OFFSET
    np.savez("far.npz", inputs=inputs, targets=np.arange(60) % 2)
    with pytest.raises(DataProblem, match="Subtract the offset first"):
        dltrain("dataset=npz", "dataset.path=far.npz", "steps=1")
    assert not (workdir / "outputs").exists()


def test_an_own_dataset_is_checked_alike():
    from dltrain.data.torch_dataset import as_raw

    inputs = torch.randn(60, 3, dtype=torch.float64)
    assert as_raw(TensorDataset(inputs, inputs[:, 0] + OFFSET)).targets.dtype == torch.float64
    pairs = ConcatDataset([TensorDataset(inputs + OFFSET, inputs[:, 0])])  # read sample by sample
    with pytest.raises(DataError, match="Subtract the offset"):
        as_raw(pairs)
    with pytest.raises(DataError, match="Subtract the offset"):
        as_raw(TensorDataset(inputs + OFFSET, inputs[:, 0]))


def test_whole_numbers_that_float64_does_not_tell_apart_are_refused():
    large = 2**60 + np.arange(100) % 2
    with pytest.raises(DataError, match="float32 cannot represent"):
        check_precision(np.stack([np.arange(100), large], 1))
    check_precision(np.full((5, 1), 2**60))
    with pytest.raises(DataError, match="whole numbers up to 1152921504606846977.*Subtract the offset"):
        quantities(large)
    assert quantities(2**60 + 256 * np.arange(3)).tolist() == [2.0**60, 2.0**60 + 256, 2.0**60 + 512]
