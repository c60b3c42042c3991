"""The order of samples: a function of (seed, epoch), balanced by class, or after the last losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from conftest import Run, assert_equal
from torch import Tensor

from dltrain.config import saved
from dltrain.config.compose import open_catalogue
from dltrain.config.door import Door, shipped_targets
from dltrain.errors import UserError
from dltrain.run.build import build
from dltrain.sampling import Balanced, Hard, Order, Sampler, Shuffle, generator
from dltrain.seeding import derive
from dltrain.training.trainer import Trainer

TARGETS = torch.tensor([0] * 90 + [1] * 30 + [2] * 9)
Make = Callable[..., Sampler]


# of parts of one order; bernoulli draws each batch by itself
ORDERS = [shuffle for shuffle in get_args(Order) if shuffle != "bernoulli"]
ALL = [(make, shuffle) for make in (Shuffle, Balanced) for shuffle in ORDERS]


@pytest.mark.parametrize(("make", "shuffle"), [*ALL, (Hard, "epoch"), (Hard, "replacement")])
def test_an_order_is_a_function_of_seed_and_epoch_alone(make: Make, shuffle: str) -> None:
    before = torch.get_rng_state()
    one, other = make(TARGETS, 8, 5, shuffle), make(TARGETS, 8, 5, shuffle)
    later = other.order(3)
    assert one.order(0).equal(other.order(0))  # whatever was asked before
    assert one.order(3).equal(later)
    assert later.dtype == torch.int64 and len(later) == len(one)
    assert torch.get_rng_state().equal(before)
    if shuffle != "never":
        assert not make(TARGETS, 8, 6, shuffle).order(0).equal(one.order(0))


@pytest.mark.parametrize("make", [Shuffle, Balanced])
def test_epochs_differ_unless_told_otherwise(make: Make) -> None:
    for shuffle, equal in (("epoch", False), ("replacement", False), ("once", True), ("never", True)):
        sampler = make(TARGETS, 8, 0, shuffle)
        assert sampler.order(0).equal(sampler.order(1)) == equal


def test_seed_and_epoch_are_not_added() -> None:
    firsts = {
        (seed, epoch): torch.randint(2**62, (1,), generator=generator(seed, epoch)).item()
        for seed in range(-2, 20)
        for epoch in range(20)
    }
    assert len(set(firsts.values())) == len(firsts)


@pytest.mark.parametrize("shuffle", ["epoch", "once", "never"])
def test_without_replacement_every_sample_comes_once(shuffle: str) -> None:
    assert Shuffle(TARGETS, 8, 0, shuffle).order(2).sort().values.equal(torch.arange(129))
    if shuffle == "never":
        assert Shuffle(TARGETS, 8, 0, shuffle).order(2).equal(torch.arange(129))


def test_with_replacement_some_come_twice_and_all_equally_often() -> None:
    sampler = Shuffle(torch.zeros(1000), 8, 0, "replacement")
    share = len(sampler.order(0).unique()) / 1000
    assert share == pytest.approx(1 - 1 / torch.e, abs=0.03)  # 1 − (1 − 1/N)^N
    counts = sum(torch.bincount(sampler.order(epoch), minlength=1000) for epoch in range(100))
    assert isinstance(counts, Tensor)
    assert abs(counts.float().std().item() - 10) < 1  # Poisson of mean 100


@pytest.mark.parametrize("shuffle", ORDERS)
@pytest.mark.parametrize("batch_size", [3, 8, 10, 64, 128, 129])
def test_every_batch_holds_every_class_equally_often(shuffle: str, batch_size: int) -> None:
    sampler = Balanced(TARGETS, batch_size, 0, shuffle)
    for epoch in range(3):
        for batch in TARGETS[sampler.order(epoch)].split(batch_size):
            counts = torch.bincount(batch, minlength=3)
            assert counts.min() > 0
            assert counts.max() - counts.min() <= 1


# Bernoulli draws ---------------------------------------------------------------------------------------------------


def bernoulli(count: int, size: int, epoch: int = 0, least: int = 1, seed: int = 0) -> list[Tensor]:
    """Draw the batches of one epoch."""
    steps = math.ceil(count / size)
    drawn = Shuffle(torch.zeros(count), size, seed, "bernoulli").draws(epoch, steps, least)
    assert drawn is not None
    return list(drawn[0].split(drawn[1]))


@pytest.mark.parametrize("count, size", [(1000, 50), (60, 40), (2000, 3)])
def test_bernoulli_batches_have_the_moments_of_the_binomial(count: int, size: int) -> None:
    batches = [batch for epoch in range(400) for batch in bernoulli(count, size, epoch)]
    sizes = torch.tensor([len(batch) for batch in batches], dtype=torch.float64)
    share = size / count
    full = 1 - (1 - share) ** count  # an empty batch is drawn again
    mean = size / full
    variance = (size * (1 - share) + size**2) / full - mean**2
    error = (variance / len(sizes)) ** 0.5
    assert sizes.mean().item() == pytest.approx(mean, abs=4 * error)
    assert sizes.var().item() == pytest.approx(variance, rel=4 * (2 / len(sizes)) ** 0.5 + 0.01)
    for batch in batches[:50]:
        assert len(batch.unique()) == len(batch) and 0 <= batch.min() <= batch.max() < count
    # each sample alike, and independent of its neighbor
    counts = torch.bincount(torch.cat(batches), minlength=count).double()
    expected = len(batches) * share / full
    assert counts.mean().item() == pytest.approx(expected, rel=4 * error / mean)
    assert counts.var(unbiased=False).item() == pytest.approx(
        len(batches) * share / full * (1 - share / full), rel=5 * (2 / count) ** 0.5
    )
    together = sum(float(bool((batch == 7).any()) and bool((batch == 8).any())) for batch in batches)
    pairs = len(batches) * share**2 / full
    assert together == pytest.approx(pairs, abs=4 * pairs**0.5 + 1)


def test_bernoulli_draws_are_those_of_a_loop_over_the_gaps() -> None:
    """Which samples enter: a pass over all samples of all steps, which jumps from one that enters to the next."""
    count, size, steps = 40, 8, 5
    random = generator(3, 2)
    # the first call draws as many gaps as it expects to need
    uniform = torch.rand(
        max(16, round((count * steps + 1) * size / count)), generator=random, dtype=torch.float64
    )
    place, entered = -1, [[] for _ in range(steps)]
    for value in uniform.tolist():
        place += 1 + math.floor(math.log(1 - value) / math.log(1 - size / count))
        if place < count * steps:
            entered[place // count].append(place % count)
    drawn = [batch.tolist() for batch in bernoulli(count, size, epoch=2, seed=3)]
    assert drawn[:4] == entered[:4]


def test_bernoulli_batches_are_a_function_of_seed_and_epoch_alone() -> None:
    before = torch.get_rng_state()
    one, other = bernoulli(1000, 10, 3, seed=5), bernoulli(1000, 10, 3, seed=5)
    assert all(left.equal(right) for left, right in zip(one, other, strict=True))
    for batches in (bernoulli(1000, 10, 4, seed=5), bernoulli(1000, 10, 3, seed=6)):
        assert [batch.tolist() for batch in batches] != [batch.tolist() for batch in one]
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("least", [1, 2, 5])
def test_a_bernoulli_batch_has_the_samples_that_it_needs(least: int) -> None:
    usual, enough = bernoulli(300, 3, least=1), bernoulli(300, 3, least=least)
    assert min(len(batch) for batch in enough) >= least
    for left, right in zip(usual, enough, strict=True):  # only the small ones are drawn again
        assert len(left) < least or left.equal(right)


class Killed(BaseException):
    """Stands in for SIGKILL: nothing of the product catches it."""


def die_at_17(trainer: Trainer) -> None:
    if trainer.step == 17:
        raise Killed
    observe(trainer)


observe = Trainer.observe


def test_bernoulli_runs_equal_a_plain_loop_and_go_on_in_mid_epoch(train, dltrain, workdir):
    choices = ("shuffle=bernoulli", "model=linear", "optimizer=sgd", "lr=0.5", "dataset.limit=200", "batch_size=20", "epochs=3",
               "evaluation.every_steps=4", "checkpoint.every_steps=3", "early_stopping=none", "initializer=zeros")  # fmt: skip
    golden = train(*choices)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "observe", die_at_17)
        with pytest.raises(Killed):
            train(*choices, "name=killed")
    (file,) = workdir.glob("outputs/killed/*/config.yaml")
    dltrain("resume", file.parent)
    assert_equal(Run(file.parent).timeless_rows, golden.timeless_rows)
    found = golden.last_state()["weights"]
    assert_equal(Run(file.parent).last_state()["weights"], found)

    catalogue = open_catalogue()
    parts, _ = build(saved.read(golden.path, catalogue, []), Door(shipped_targets(catalogue), []))
    data = parts.train
    inputs, targets = data.inputs.flatten(1).double(), data.targets
    weights, bias = torch.zeros(10, 64, dtype=torch.float64), torch.zeros(10, dtype=torch.float64)
    for epoch in range(3):
        for batch in bernoulli(200, 20, epoch, seed=derive(0, "shuffle")):
            x, y = inputs[batch], torch.nn.functional.one_hot(targets[batch], 10)
            slope = (torch.softmax(x @ weights.T + bias, 1) - y) / len(batch)
            weights, bias = weights - 0.5 * slope.T @ x, bias - 0.5 * slope.sum(0)
    named = {tuple(value.shape): value.double() for value in found.values()}
    torch.testing.assert_close(named[10, 64], weights, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(named[10,], bias, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "typed, says",
    [
        ("optimizer=gd", "every step takes all samples, so that nothing is drawn. Use shuffle=epoch"),
        ("batch_size=50", "shuffle=bernoulli with batch_size=50 takes all 50 samples in each step"),
        ("sampler=balanced", "Use shuffle=epoch, or use sampler=none"),
        ("sampler=hard", "shuffle=bernoulli cannot go with it: use shuffle=epoch"),
    ],
)
def test_bernoulli_refusals(dltrain, workdir, typed, says):
    with pytest.raises(UserError, match=says):
        dltrain("shuffle=bernoulli", "dataset.limit=50", "steps=1", typed)
    assert not (workdir / "outputs").exists()


def test_a_last_batch_too_small_for_all_classes_is_left_out() -> None:
    assert len(Balanced(TARGETS, 128, 0)) == 128
    assert len(Balanced(TARGETS, 126, 0)) == 129
    assert len(Balanced(TARGETS, 129, 0)) == 129


def test_within_a_class_all_samples_come_equally_often() -> None:
    sampler = Balanced(TARGETS, 10, 0)
    counts = sum(torch.bincount(sampler.order(epoch), minlength=129) for epoch in range(50))
    assert isinstance(counts, Tensor)
    for code in range(3):
        own = counts[code == TARGETS]
        assert own.max() - own.min() <= 1
        assert own.sum() == 50 * 43


def test_classes_may_have_gaps_in_their_numbers() -> None:
    assert len(Balanced(torch.tensor([7, 7, 3, 3]), 2, 0).order(0)) == 4


def hard(**keys: float) -> Hard:
    return Hard(torch.zeros(100), 10, 0, "epoch", **keys)


def test_before_any_loss_every_sample_comes_once() -> None:
    assert hard().order(0).sort().values.equal(torch.arange(100))


def test_draws_follow_the_formula_within_one() -> None:
    sampler, losses = hard(outlier_quantile=1.0), torch.linspace(0.1, 2, 100)
    sampler.observe(torch.arange(100), losses)
    wanted = 0.5 + 0.5 * 100 * losses / losses.sum()
    counts = torch.bincount(sampler.order(1), minlength=100)
    assert (counts - wanted).abs().max() <= 1
    many = sum(torch.bincount(sampler.order(epoch), minlength=100) for epoch in range(1, 401))
    assert isinstance(many, Tensor)
    torch.testing.assert_close(many / 400, wanted, atol=0.1, rtol=0)
    assert (many > 0).all()  # none is forgotten


def test_outliers_are_left_alone() -> None:
    losses = torch.linspace(0.1, 1, 100)
    losses[17] = 1e6
    sampler = hard(outlier_quantile=0.99)
    sampler.observe(torch.arange(100), losses)
    counts = sum(torch.bincount(sampler.order(epoch), minlength=100) for epoch in range(1, 201))
    assert isinstance(counts, Tensor)
    assert counts[17].item() / 200 == pytest.approx(1, abs=0.02)  # as often as an average sample
    assert counts[99] > 1.3 * counts[17] > 1.3 * counts[0]
    greedy = hard(outlier_quantile=1.0)
    greedy.observe(torch.arange(100), losses)
    assert (greedy.order(1) == 17).sum() > 40


def test_strength_and_share() -> None:
    losses = torch.linspace(0.1, 2, 100)
    for keys in ({"share": 0.0}, {"strength": 0.0}):
        sampler = hard(**keys)
        sampler.observe(torch.arange(100), losses)
        assert sampler.order(1).sort().values.equal(torch.arange(100))
    counts = []
    for strength in (1.0, 3.0):
        sampler = hard(strength=strength, share=1.0, outlier_quantile=1.0)
        sampler.observe(torch.arange(100), losses)
        counts.append((sampler.order(1) >= 80).sum())
    assert counts[1] > counts[0]


def test_losses_that_are_not_finite_or_not_known_weigh_the_average() -> None:
    sampler = hard(outlier_quantile=1.0)
    sampler.observe(
        torch.arange(50), torch.cat([torch.tensor([torch.nan, torch.inf]), torch.linspace(1, 2, 48)])
    )
    many = sum(torch.bincount(sampler.order(epoch), minlength=100) for epoch in range(1, 101))
    assert isinstance(many, Tensor)
    torch.testing.assert_close(many[[0, 1, 60, 99]] / 100, torch.ones(4), atol=0.02, rtol=0)
    zeros = hard()
    zeros.observe(torch.arange(100), torch.zeros(100))
    assert zeros.order(1).sort().values.equal(torch.arange(100))


def test_a_sample_twice_in_a_batch_keeps_its_larger_loss() -> None:
    sampler = hard()
    sampler.observe(torch.tensor([3, 3, 4]), torch.tensor([1.0, 5.0, 2.0]))
    sampler.observe(torch.tensor([4]), torch.tensor([0.5]))
    assert sampler.state_dict()["losses"][3:5].tolist() == [5.0, 0.5]


def test_a_run_resumed_in_mid_epoch_sees_the_same_order() -> None:
    losses = torch.rand(100, generator=torch.Generator().manual_seed(0))
    sampler = hard()
    sampler.observe(torch.arange(100), losses)
    order = sampler.order(4)
    sampler.observe(order[:30], torch.full((30,), 9.0))  # the epoch goes on
    resumed = hard()
    resumed.load_state_dict(sampler.state_dict())
    assert resumed.order(4).equal(order)
    assert resumed.order(5).equal(sampler.order(5))
    assert not resumed.order(5).equal(order)


@pytest.mark.parametrize("shuffle", ["epoch", "replacement"])
def test_hard_with_replacement_draws_the_same_shares(shuffle: str) -> None:
    sampler = Hard(torch.zeros(100), 10, 0, shuffle, outlier_quantile=1.0)
    losses = torch.linspace(0.1, 2, 100)
    sampler.observe(torch.arange(100), losses)
    many = sum(torch.bincount(sampler.order(epoch), minlength=100) for epoch in range(1, 301))
    assert isinstance(many, Tensor)
    torch.testing.assert_close(many / 300, 0.5 + 50 * losses / losses.sum(), atol=0.35, rtol=0)


REFUSED = [
    (
        Balanced,
        {"batch_size": 2},
        "batch_size=2: a batch cannot hold all 3 classes; set batch_size to at least 3",
    ),
    (Balanced, {"targets": torch.rand(9, 1)}, "sampler=balanced needs classes.*use sampler=none"),
    (Hard, {"shuffle": "once"}, "sampler=hard draws in each epoch; shuffle=once .*use shuffle=epoch"),
]


@pytest.mark.parametrize(("make", "keys", "message"), REFUSED)
def test_refusals(make: Make, keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**{"targets": TARGETS, "batch_size": 8, "seed": 0, "shuffle": "epoch", **keys})


def test_hard_sees_the_losses_of_all_parts_of_an_accumulated_batch(train):
    """It took the losses of each part for those of the whole batch, and ended with an error of torch's."""
    usual = ("sampler=hard", "epochs=3", "batch_size=32", "threads=1")
    whole, parts = (train(*usual, f"accumulate={pieces}").rows for pieces in (1, 2))
    assert [row["train/loss"] for row in whole] == pytest.approx(
        [row["train/loss"] for row in parts], rel=1e-4
    )


# On an accelerator ------------------------------------------------------------------------------------------------


def test_hard_draws_on_an_accelerator_what_it_draws_on_the_cpu():
    """Built with targets on the CPU, fed with losses from the device: no read by the host in a step, one an epoch."""
    import pretend_device

    count, size = 60, 12
    losses = torch.rand(count, generator=torch.Generator().manual_seed(1)) ** 3
    here, there = (Hard(torch.zeros(count, dtype=torch.int64), size, seed=3) for _ in range(2))
    orders = []
    for epoch in range(3):
        pretend_device.reads.clear()
        order = there.order(epoch)
        assert order.device.type == "cpu"
        assert len(pretend_device.reads) == (epoch > 0)
        assert order.equal(here.order(epoch))
        pretend_device.reads.clear()
        for indices in order.split(size):
            here.observe(indices, losses[indices] / (epoch + 1))
            on_device = (pretend_device.on_device(t) for t in (indices, losses[indices] / (epoch + 1)))
            with pretend_device.Pretending():
                there.observe(*on_device)
        assert pretend_device.reads == []
        orders.append(order)
    assert not orders[1].equal(orders[2])
    with pytest.raises(RuntimeError, match="same device"):  # what the pretended device is for
        torch.zeros(3).add_(pretend_device.on_device(torch.ones(3)))


def test_hard_resumes_from_losses_of_an_accelerator():
    import pretend_device

    first = Hard(torch.zeros(8, dtype=torch.int64), 4, seed=3)
    first.order(0)
    with pretend_device.Pretending():
        first.observe(*(pretend_device.on_device(t) for t in (torch.arange(8), torch.linspace(0, 1, 8))))
    state = {
        k: v.inner if isinstance(v, pretend_device.PretendTensor) else v
        for k, v in first.state_dict().items()
    }
    resumed = Hard(torch.zeros(8, dtype=torch.int64), 4, seed=3)
    resumed.load_state_dict(state)
    assert resumed.order(1).equal(first.order(1))


def test_the_header_says_that_losses_of_earlier_epochs_choose_nothing_within_one(train):
    line = "sampler  hard changes nothing within one epoch: it follows the losses of those before"
    one = train("sampler=hard", "dataset=iris", "epochs=1").summary
    assert line in one["inferred"]
    assert line not in train("sampler=hard", "dataset=iris", "epochs=2").summary.get("inferred", [])
