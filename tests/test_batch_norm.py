"""Batch norm and too few samples: what trains, what is refused before it trains, and random samples of the data."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn

from dltrain.batch_norm import leaves_one, micro_batches, samples_needed, size_without_rest
from dltrain.errors import UserError
from dltrain.seeding import sample_positions

NORMED = ("model=mlp", "model.norm=batch", "model.hidden=[8]", "early_stopping=none")


@pytest.mark.parametrize(
    "model, shape, needed",
    [
        (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), (4,), 2),
        (nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)), (1, 6, 6), 1),
        (nn.Sequential(nn.Conv2d(1, 3, 6), nn.BatchNorm2d(3)), (1, 6, 6), 2),
        (nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 3, 6), nn.BatchNorm2d(3)), (1, 6, 6), 2),
        (nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)), (4,), 1),
    ],
    ids=["table", "map", "map of one pixel", "both", "layer norm"],
)
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_samples_needed_is_what_torch_needs(model, shape, needed, samples):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert samples_needed(model, torch.randn(samples, *shape)) == needed
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training and not module._forward_pre_hooks for module in model.modules())
    model(torch.randn(needed, *shape))  # torch agrees
    if needed > 1:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            model(torch.randn(needed - 1, *shape))


def test_micro_batches_leave_enough_samples_in_each():
    for samples, accumulate in product(range(2, 70), range(1, 20)):
        batch = torch.zeros(samples)
        pieces = batch.chunk(micro_batches(samples, accumulate, 2))
        assert min(len(piece) for piece in pieces) >= 2
        assert micro_batches(samples, accumulate, 1) == accumulate
        if min(len(piece) for piece in batch.chunk(accumulate)) >= 2:
            assert len(pieces) == len(batch.chunk(accumulate)), "cut into fewer without need"


def test_batches_of_statistics_have_two_samples_and_miss_none():
    for count, size in product(range(2, 60), (2, 3, 4, 16)):
        parts = torch.arange(count).split(size_without_rest(count, size))
        assert min(len(part) for part in parts) >= 2
        assert not leaves_one(count, size_without_rest(count, size))


@pytest.mark.parametrize(
    "overrides",
    [
        # the last batch of an epoch has 14 samples: it is cut into 7
        (*NORMED, "accumulate=16", "epochs=2"),
        (*NORMED, "accumulate=32", "epochs=1"),
        (*NORMED, "batch_size=2", "steps=3"),
        ("model=cnn", "batch_size=1", "steps=2", "early_stopping=none"),
        ("model=cnn", "accumulate=64", "steps=2", "early_stopping=none"),
        (*NORMED, "averaging=ema", "batch_size=3", "dataset.limit=7", "steps=3"),
    ],
    ids=" ".join,
)
def test_what_has_enough_values_trains(train, overrides):
    assert train(*overrides).summary["status"] == "completed"


@pytest.mark.parametrize(
    "overrides, refusal, cure",
    [
        (
            ("batch_size=1",),
            "`batch_size` is 1, and the batch norm of model=mlp needs at least 2",
            "batch_size=2",
        ),
        (("accumulate=64",), "`accumulate` is 64, which leaves 1 of the 64 samples", "accumulate=32"),
        (("accumulate=24",), "`accumulate` is 24, which leaves 1 of the 64 samples", "accumulate=16"),
        (("dataset.limit=1",), "`batch_size` is 1, and the batch norm", "model.norm=layer"),
        (("lr=auto", "batch_size=1"), "`batch_size` is 1, and the batch norm", "batch_size=2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_has_too_few_is_refused_before_training_with_a_cure(
    dltrain, train, workdir, overrides, refusal, cure
):
    with pytest.raises(UserError, match=refusal) as refused:
        dltrain(*NORMED, *overrides, "quiet=true")
    assert refused.value.exit_code == 2
    assert cure in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 3
    assert not list(workdir.glob("outputs/**/config.yaml"))
    cured = {text.partition("=")[0]: text for text in (*overrides, cure)}
    if "lr" not in cured:  # the search trains for seconds
        assert train(*NORMED, *cured.values(), "steps=2").summary["status"] == "completed"


def test_micro_batches_of_a_small_last_batch_add_up_to_the_gradient_of_the_whole(train):
    """Layer norm looks at one sample: however a batch is cut, the sum of its gradients is that of the whole batch."""
    pieces = train("model=mlp", "model.norm=layer", "optimizer=sgd", "accumulate=16", "epochs=1")
    whole = train("model=mlp", "model.norm=layer", "optimizer=sgd", "epochs=1")
    for name, tensor in whole.best_weights.items():
        torch.testing.assert_close(pieces.best_weights[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_sample_is_a_function_of_seed_and_stream_and_looks_like_the_data():
    positions = sample_positions(10_000, 1_000, seed=3, stream="statistics")
    assert torch.equal(positions, sample_positions(10_000, 1_000, 3, "statistics"))
    assert len(positions.unique()) == 1_000
    # uniform over the file: the mean of 1,000 of 10,000 positions has the deviation 0.5/sqrt(3·1000)·10,000
    assert abs(positions.double().mean() - 5_000) < 4 * 91
    for seed, stream in ((4, "statistics"), (3, "initializer")):
        other = sample_positions(10_000, 1_000, seed, stream)
        # two independent samples share a tenth
        assert 50 < sum(p in set(positions.tolist()) for p in other.tolist()) < 160
    assert sorted(sample_positions(7, 10, 0, "check").tolist()) == list(range(7))


def test_the_header_says_that_a_sample_is_left_out(train):
    """Of 321 samples, five batches of 64 leave one."""
    inferred = train(*NORMED, "dataset.limit=65", "batch_size=64", "epochs=1").summary["inferred"]
    (line,) = (line for line in inferred if line.startswith("batches  1 sample of each epoch is left out"))
    assert line.endswith("would have one · none is with batch_size=65") and "shuffle" not in line
    again = train(*NORMED, "dataset.limit=65", "batch_size=64", "epochs=1", "shuffle=once").summary[
        "inferred"
    ]
    assert any("always the same one with shuffle=once · none is with batch_size=65" in line for line in again)
    for other in ("batch_size=65", "batch_size=64 shuffle=bernoulli", "batch_size=64 model.norm=layer"):
        told = train(*NORMED, "dataset.limit=65", "epochs=1", *other.split()).summary.get("inferred", [])
        assert not any("left out" in line for line in told), other
    whole = train(*NORMED, "dataset.limit=66", "batch_size=64", "epochs=1").summary.get("inferred", [])
    assert not [line for line in whole if line.startswith("batches")]
