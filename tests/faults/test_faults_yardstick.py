"""Resuming runs whose loss is not the yardstick: those of today to the last bit, those of before not at all."""

from __future__ import annotations

import pytest
from faults import EVERYTHING, cut_run, equal, golden_run

from dltrain.errors import CheckpointProblem
from dltrain.storage import checkpoint


def test_a_run_with_an_objective_resumes_in_mid_epoch_to_the_last_bit(workdir, dltrain):
    words = (
        *(w for w in EVERYTHING if not w.startswith("regularization")),
        "regularization=[l2,dropout,label_smoothing]",
    )
    golden, cut = golden_run(workdir, *words), cut_run(workdir, 47, *words)
    dltrain("resume", cut.path)
    equal(cut, golden)
    assert {"train/objective", "val/objective"} <= golden.rows[-1].keys()


def test_a_run_of_before_is_not_gone_on_with_on_another_scale(workdir, dltrain, monkeypatch):
    """A checkpoint of commit caa09af has three sums: samples, what was minimized, accuracy."""
    run = cut_run(
        workdir, 25, "model.hidden=[16]", "steps=40", "checkpoint.every_steps=10", "loss=bce", "quiet=true"
    )
    state = checkpoint.Checkpoint.state

    def of_before(self):
        found = state(self)
        return found | {"sums": found["sums"][[0, 3, 2]]}

    monkeypatch.setattr(checkpoint.Checkpoint, "state", of_before)
    before = (run.path / "metrics.csv").read_bytes()
    with pytest.raises(
        CheckpointProblem, match=r"earlier version, whose val/loss depends on .*\n.*dltrain rerun .*"
    ):
        dltrain("resume", run.path)
    assert (run.path / "metrics.csv").read_bytes() == before
    assert dltrain("rerun", run.path, "quiet=true") == 0  # the cure
