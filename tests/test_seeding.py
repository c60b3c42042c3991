"""Random streams: published numbers of SplitMix64, no collisions, and each stream moves what it names and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import assert_equal

from dltrain import sampling, seeding
from dltrain.augmentation.color import Noise
from dltrain.regularization.gradients import GradientNoise
from dltrain.training.trainer import Trainer

STREAMS = ("init", "shuffle", "augment", "dropout", "noise")
# SplitMix64 from the state 1234567: the test vector of Rosetta Code and of S. Vigna's splitmix64.c
PUBLISHED = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


def test_derive_is_splitmix64(monkeypatch):
    monkeypatch.setattr(seeding, "_base", lambda seed, stream: 1234567)
    assert [seeding.derive(0, "any", n) for n in range(1, 6)] == [x >> 1 for x in PUBLISHED]
    assert [seeding.Stream(0, "any").at(n).initial_seed() for n in range(1, 6)] == [x >> 1 for x in PUBLISHED]


def test_order_of_an_epoch_is_seeded_by_splitmix64():
    first = seeding.splitmix(1234567)
    assert first == PUBLISHED[0]
    # the second state of the sequence is the first plus the odd constant 0x9E37…: the golden ratio times 2^64
    assert seeding.splitmix(1234567 + 0x9E3779B97F4A7C15) == PUBLISHED[1]
    assert sampling.generator(1234567, 0).initial_seed() == seeding.splitmix(seeding.splitmix(first)) % 2**63


def test_arrays_are_mixed_as_numbers_are():
    states = [0, 1, 1234567, 2**64 - 1]
    assert seeding.mix(np.array(states, np.uint64)).tolist() == [seeding.mix(state) for state in states]


def test_bases_are_blake2b_of_stream_and_seed():
    """`printf init:0 | b2sum -l 64`, the bytes from the least significant on."""
    told = {
        ("init", 0): "2081b935380e4465",
        ("shuffle", 0): "40e622dac21b19e2",
        ("init", 1): "58a221038694d215",
    }
    for (stream, seed), digest in told.items():
        assert seeding._base(seed, stream) == int.from_bytes(bytes.fromhex(digest), "little")


def test_no_two_draws_share_a_seed():
    """torch's CPU generator looks at the low 32 bits alone: of 20,000 of them a handful may meet by chance."""
    seeds = [
        seeding.derive(seed, stream, step)
        for seed in range(4)
        for stream in (*STREAMS, "diagnostics", "samples")
        for step in range(700)
    ]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**63 for seed in seeds)
    assert len(seeds) - len({seed % 2**32 for seed in seeds}) <= 2


def test_neighbouring_steps_draw_what_is_unrelated():
    stream = seeding.Stream(0, "noise")
    draws = torch.stack([torch.randn(4096, generator=stream.at(step)) for step in range(8)])
    correlations = torch.corrcoef(draws) - torch.eye(8)
    assert correlations.abs().max() < 5 / 4096**0.5


def test_a_stream_goes_back_to_any_step():
    stream = seeding.Stream(3, "augment")
    first = torch.rand(5, generator=stream.at(7))
    torch.rand(5, generator=stream.at(8))
    assert torch.equal(first, torch.rand(5, generator=stream.at(7)))
    assert torch.equal(first, torch.rand(5, generator=seeding.Stream(3, "augment").at(7)))


# Who uses which stream ----------------------------------------------------------------------------------------------

WORDS = ("model.hidden=[24]", "augmentation=[noise]", "regularization=[dropout,gradient_noise]", "steps=3", "dataset.limit=300",
         "early_stopping=none", "regularization.dropout.p=0.5")  # fmt: skip


@pytest.fixture
def draws(train, monkeypatch):
    """Run with overrides; returns what each stream has drawn, by its name, and the validation targets as `split`."""

    def run(*words: str):
        drawn = {name: [] for name in (*STREAMS, "split")}
        with monkeypatch.context() as patch:
            record(patch, drawn)
            train(*WORDS, *words)
        return drawn

    return run


def record(patch, drawn) -> None:
    begin, augmented, dropout = Trainer.begin, Trainer.augment, torch.nn.functional.dropout
    augment, noise = Noise.__call__, GradientNoise.change_gradients

    def first_weights(self):
        drawn["init"] = [p.detach().clone() for p in self.parts.model.parameters()]
        drawn["split"] = [self.parts.val.inputs.clone(), self.parts.test.inputs.clone()]
        begin(self)

    def order(self, batch, epoch):
        drawn["shuffle"].append(batch.indices.clone())
        return augmented(self, batch, epoch)

    def masks(inputs, p=0.5, training=True, inplace=False):
        if not training:
            return inputs
        mask = dropout(torch.ones_like(inputs), p, training)
        drawn["dropout"].append(mask)
        return inputs * mask

    def added(self, inputs, *rest, **named):
        out = augment(self, inputs, *rest, **named)
        changed = out[0] if isinstance(out, tuple) else out
        drawn["augment"].append((changed - inputs).mul(1000).round())
        return out

    def noisy(self, generator, *rest, **named):
        before = [p.grad.clone() for p in self.parameters]
        noise(self, generator, *rest, **named)
        drawn["noise"] += [
            (p.grad - g).mul(1000).round() for p, g in zip(self.parameters, before, strict=True)
        ]

    patch.setattr(Trainer, "begin", first_weights)
    patch.setattr(Trainer, "augment", order)
    patch.setattr(torch.nn.functional, "dropout", masks)
    patch.setattr(Noise, "__call__", added)
    patch.setattr(GradientNoise, "change_gradients", noisy)


def moved(one, other) -> set[str]:
    """The streams whose draws differ (a rounding apart, in at most one entry of a hundred)."""
    return {name for name in one if any(differ(a, b) for a, b in zip(one[name], other[name], strict=True))}


def differ(one, other) -> bool:
    return bool((one != other).double().mean() > 0.01)


@pytest.mark.parametrize("stream", STREAMS)
def test_each_stream_moves_what_it_names_and_nothing_else(draws, monkeypatch, stream):
    usual = draws()
    assert all(usual.values())
    base = seeding._base
    monkeypatch.setattr(seeding, "_base", lambda seed, name: base(seed, name) + (name == stream))
    assert moved(usual, draws()) == {stream}


def test_seed_moves_every_stream_and_no_split(draws):
    usual = draws("seed=0")
    assert moved(usual, draws("seed=1")) == set(STREAMS)
    assert moved(usual, draws("seed=0")) == set()


def test_split_seed_moves_the_splits(draws):
    assert "split" in moved(draws(), draws("dataset.split_seed=1"))


def test_every_step_draws_on_its_own(draws):
    """Three steps: no two of them share an order, a mask, an augmentation or a noise."""
    drawn = draws()
    for name in ("shuffle", "augment", "dropout"):
        steps = drawn[name][-3:]  # the first augmentation may be that of the sample pictures
        assert len(steps) == 3
        assert all(differ(a, b) for i, a in enumerate(steps) for b in steps[:i])
    first, second = (
        drawn["noise"][at].flatten() for at in (0, 4)
    )  # of the first weight, which has 1,536 entries
    # it fades from step to step: the same draws would still be proportional
    assert torch.corrcoef(torch.stack([first, second]))[0, 1].abs() < 0.15


@pytest.mark.parametrize(
    "part, shares",
    [
        (2, {"val_fraction": 0.0, "test_fraction": 0.2}),
        (
            1,
            {"val_fraction": 0.2, "test_fraction": 0.0},
        ),  # without a test split, whose move would move it too
        (1, {"val_fraction": 0.0, "test_fraction": 0.0, "folds": 5, "fold": 2}),
    ],
    ids=["test", "val", "fold"],
)
def test_each_split_moves_with_split_seed(part, shares):
    from dltrain.data.raw import RawData
    from dltrain.data.splits import split

    raw = RawData(torch.zeros(200, 3), torch.arange(200) % 4, "classification", class_names=tuple("abcd"))
    first, other, again = (split(raw, split_seed=seed, **shares) == part for seed in (0, 1, 0))
    assert first.any() and not first.equal(other)
    assert first.equal(again)


@pytest.mark.parametrize("word", ["none", "balanced", "hard"])
@pytest.mark.parametrize("shuffle", ["epoch", "replacement"])
def test_order_moves_with_seed_and_epoch(word, shuffle):
    if (word, shuffle) == ("balanced", "replacement"):
        shuffle = "once"
    sampler = {"none": sampling.Shuffle, "balanced": sampling.Balanced, "hard": sampling.Hard}[word]
    targets = torch.arange(120) % 3
    orders = {(s, e): sampler(targets, 12, s, shuffle).order(e) for s in (0, 1) for e in (0, 1)}
    assert not orders[0, 0].equal(orders[1, 0])
    assert orders[0, 0].equal(orders[0, 1]) == (shuffle == "once")
    # (seed 0, epoch 1) and (seed 1, epoch 0) are not the same stream
    assert not orders[0, 1].equal(orders[1, 0])


def test_second_call_of_the_closure_sees_the_same_masks(train, monkeypatch):
    """SAM without a move: both gradients of a step are of one function."""
    masks = []
    dropout = torch.nn.functional.dropout

    def spy(inputs, p=0.5, training=True, inplace=False):
        if training:
            mask = dropout(torch.ones_like(inputs), p, training)
            masks.append(mask)
            return inputs * mask
        return inputs

    monkeypatch.setattr(torch.nn.functional, "dropout", spy)
    train("steps=2", "wrap=[sam]", "model.hidden=[24]", "regularization=[dropout]", "optimizer=sgd")
    first, again, second, _ = masks
    assert_equal(first, again)
    assert not torch.equal(first, second)
