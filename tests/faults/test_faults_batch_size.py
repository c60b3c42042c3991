"""`batch_size=auto`: the largest power of two whose activations fit into half of the free memory."""

from __future__ import annotations

import pytest
import yaml

from dltrain.run import tuning

USUAL = ("model.hidden=[32]", "steps=2", "threads=1")


@pytest.fixture
def found(train, monkeypatch):
    """Train with so many free bytes; returns the bytes of a sample, and the batch size of the run's config.yaml."""
    original = tuning.bytes_per_sample

    def run(free, *overrides):
        needed = []
        monkeypatch.setattr(tuning, "free_memory", lambda device: free)
        monkeypatch.setattr(
            tuning, "bytes_per_sample", lambda parts: needed.append(original(parts)) or needed[0]
        )
        run = train("batch_size=auto", *USUAL, *overrides)
        return needed[0], yaml.safe_load((run.path / "config.yaml").read_text())["batch_size"]

    return run


def test_what_a_sample_keeps_is_what_autograd_keeps(found):
    """64 inputs and 32 hidden units in float32, 10 logits and an int64 label: the tensors that a backward pass needs."""
    needed, _ = found(10**9)
    assert 4 * (64 + 32 + 10) <= needed <= 4 * (64 + 2 * 32 + 2 * 10) + 8


@pytest.mark.parametrize("samples", [1, 2, 3, 63, 64, 65, 500])
def test_the_largest_power_of_two_that_fits_into_half(found, samples):
    needed, _ = found(10**9)
    assert found(2 * needed * samples) == (needed, 2 ** (samples.bit_length() - 1))


def test_never_more_than_the_training_split(found):
    assert found(10**12)[1] == 1024  # of 1,294 samples
    assert found(10**12, "dataset.limit=100")[1] == 64


def test_twice_the_hidden_units_need_more(found):
    assert found(10**9, "model.hidden=[64]")[0] - found(10**9)[0] >= 4 * 32


def test_a_run_is_resumed_with_the_size_that_was_found(train, dltrain, monkeypatch):
    from faults import cut_run

    monkeypatch.setattr(tuning, "free_memory", lambda device: 100_000)
    golden = train("batch_size=auto", "steps=12", "checkpoint.every_steps=5", "name=golden")
    run = cut_run(
        golden.path.parents[2], 8, "batch_size=auto", "steps=12", "checkpoint.every_steps=5", "quiet=true"
    )
    monkeypatch.setattr(tuning, "free_memory", lambda device: 10**9)  # the machine is another by then
    assert dltrain("resume", run.path) == 0
    assert run.timeless_rows == golden.timeless_rows


@pytest.mark.ci
def test_with_lr_auto_both_are_found(train, monkeypatch):
    monkeypatch.setattr(tuning, "TRIAL_STEPS", 3)
    run = train("batch_size=auto", "lr=auto", "dataset.limit=200", "steps=3", "evaluation.every_steps=3")
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert isinstance(config["batch_size"], int) and isinstance(config["lr"], float)
