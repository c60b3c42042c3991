"""What the data, the model or the length of a run make idle is refused before trials, or named in the header."""

from __future__ import annotations

import shlex

import numpy as np
import pytest

from dltrain.errors import UserError
from dltrain.run import tuning


@pytest.fixture
def data(workdir):
    inputs = np.random.default_rng(0).normal(size=(60, 3)).astype("f4")
    np.savez("d.npz", inputs=inputs, targets=np.arange(60) % 3, split=np.repeat([0, 1, 2], [40, 10, 10]))
    np.savez("two.npz", inputs=inputs, targets=np.arange(60) % 2)
    return "dataset=npz", "dataset.path=d.npz", "dataset.split=split", "model=linear", "logger=none"


@pytest.mark.parametrize("typed", ["find-lr", "lr=auto steps=2", "batch_size=auto steps=2"])
def test_an_idle_key_is_refused_before_the_first_trial(dltrain, data, monkeypatch, typed):
    monkeypatch.setattr(tuning, "_loss_after", lambda *parts: pytest.fail("a trial has run"))
    with pytest.raises(UserError, match=r"`dataset.val_fraction` has no effect here"):
        dltrain(*typed.split(), *data, "dataset.val_fraction=0.3")


@pytest.mark.parametrize(
    "typed, says",
    [
        ("wrap=[lookahead] wrap.lookahead.k=9", "wrap.lookahead.k=9: the run has 2 steps"),
        ("optimizer=ranger optimizer.k=3", "optimizer.k=3: the run has 2 steps"),
        ("optimizer=ranger optimizer.k=2", ""),
        ("log.every_steps=3", "log.every_steps=3: the run has 2 steps"),
        ("wrap=[lookahead] wrap.lookahead.k=2 log.every_steps=2", ""),
    ],
)
def test_an_interval_beyond_the_run_is_named(dltrain, data, capsys, typed, says):
    assert dltrain(*data, *typed.split(), "steps=2") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  unused")]
    assert (says in lines[0]) if says else lines == []


@pytest.mark.parametrize("name", ["d", "two"])
def test_a_rank_beyond_the_classes_has_a_cure(dltrain, data, name):
    more = ("dataset.path=two.npz", "dataset.split=null") if name == "two" else ()
    with pytest.raises(UserError, match="it must be below the number of classes") as error:
        dltrain(*data, *more, "metrics=[top_k]", "steps=2")
    cure = shlex.split(str(error.value).rpartition(": use ")[2])[0]
    words = ("metrics=[top_k]", cure) if "=" in cure else (f"metrics=[{cure}]",)
    assert dltrain(*data, *more, *words, "steps=2") == 0
