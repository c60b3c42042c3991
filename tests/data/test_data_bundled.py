"""scikit-learn's data, read without it, equal what it reads itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dltrain.data import bundled
from dltrain.data.errors import DataError
from dltrain.data.prepare import prepare
from dltrain.data.raw import RawData

CASES = [
    (bundled.digits, "load_digits", {}, (1797, 1, 8, 8), 10),
    (bundled.breast_cancer, "load_breast_cancer", {}, (569, 30), 2),
    (bundled.wine, "load_wine", {}, (178, 13), 3),
    (bundled.iris, "load_iris", {}, (150, 4), 3),
    (bundled.diabetes, "load_diabetes", {"scaled": False}, (442, 10), 0),
]


@pytest.mark.parametrize(("load", "name", "keys", "shape", "classes"), CASES)
@pytest.mark.filterwarnings("ignore")
def test_equal_to_scikit_learn(
    load: Callable[[], RawData], name: str, keys: dict[str, Any], shape: tuple[int, ...], classes: int
) -> None:
    from sklearn import datasets

    raw, truth = load(), getattr(datasets, name)(**keys)
    assert isinstance(raw.inputs, torch.Tensor)
    assert raw.inputs.shape == shape
    scale = 16 if name == "load_digits" else 1
    np.testing.assert_allclose(raw.inputs.reshape(len(raw), -1) * scale, truth.data, rtol=1e-6)
    np.testing.assert_allclose(raw.targets, truth.target)
    assert len(raw.class_names) == classes
    if classes:
        assert list(raw.class_names) == [str(word) for word in truth.target_names]
    if raw.feature_names:
        assert list(raw.feature_names) == [str(word) for word in truth.feature_names]


def test_loading_and_preparing_digits_is_quick() -> None:
    """The samples are read and normalized together: about 2,200 calls in all, where a loop over them would add 1,797 and more."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    prepare(bundled.digits())
    sys.setprofile(count)
    try:
        prepare(bundled.digits())
    finally:
        sys.setprofile(None)
    assert 0 < calls < 2 * 1797


def test_a_missing_package_is_told_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "find_spec", lambda name: None)
    with pytest.raises(
        DataError, match="digits.csv.gz of scikit-learn's package is not there; .*pip install"
    ):
        bundled.digits()
