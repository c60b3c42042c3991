"""A run without a val split: what each message proposes works when it is typed."""

from __future__ import annotations

import re

import numpy as np
import pytest

from dltrain.errors import UserError

FEW = "dataset=npz dataset.path=few.npz model=linear"
MORE = "dataset=npz dataset.path=more.npz model=linear"
PLATEAUS = "schedule=plateau penalty_schedule=plateau regularization=[l2]"
# what is typed → the cure: one command leads out of each refusal, and not into the other
CASES = {
    FEW: "dataset.val_fraction=0 early_stopping.metric=train/loss",
    f"{FEW} early_stopping.metric=val/accuracy": "dataset.val_fraction=0 early_stopping.metric=train/loss",
    f"{FEW} {PLATEAUS}": (
        "dataset.val_fraction=0 early_stopping.metric=train/loss schedule.metric=train/loss penalty_schedule.metric=train/loss"
    ),
    f"{MORE} dataset.val_fraction=0": "early_stopping.metric=train/loss",
    f"{MORE} dataset.val_fraction=0 early_stopping=none": "early_stopping.metric=train/loss",
    f"{MORE} dataset.val_fraction=0 early_stopping.metric=gap": "early_stopping.metric=train/loss",
    f"{MORE} dataset.val_fraction=0 early_stopping.metric=val/accuracy": "early_stopping.metric=train/accuracy",
    f"{MORE} dataset.val_fraction=0 {PLATEAUS}": (
        "early_stopping.metric=train/loss schedule.metric=train/loss penalty_schedule.metric=train/loss"
    ),
    f"{MORE} dataset.split=split dataset.val_fraction=0": "early_stopping.metric=train/loss",
}


@pytest.mark.parametrize("typed, cure", CASES.items(), ids=CASES)
def test_one_cure_is_enough(dltrain, workdir, typed, cure):
    np.savez("few.npz", inputs=np.eye(3, dtype=np.float32), targets=np.array([0, 0, 1]))
    inputs = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    marks = np.array([0] * 50 + [2] * 10)
    np.savez("more.npz", inputs=inputs, targets=np.arange(60) % 2, split=marks)
    words = [*typed.split(), "steps=2", "quiet=true"]
    with pytest.raises(UserError) as error:
        dltrain(*words)
    found = re.search(r"(?:Add|do without this split:) ([^\n]*)", str(error.value))
    assert found is not None and found[1] == cure
    assert not (workdir / "outputs").exists()
    replaced = {text.partition("=")[0] for text in cure.split()}
    kept = [word for word in words if word.partition("=")[0] not in replaced]
    assert dltrain(*kept, *cure.split()) == 0
