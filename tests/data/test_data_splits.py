"""Splits: disjoint, stratified, together by group, and a function of split_seed alone."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from dltrain.data.errors import DataError
from dltrain.data.prepare import prepare
from dltrain.data.raw import RawData
from dltrain.data.splits import bootstrapped, hashed_order, rare_classes, split

SIZES = [(100, 100, 100), (5, 50, 500), (3, 3, 3), (1000,) * 10, (7, 11, 13, 17, 19)]


def classes(sizes: tuple[int, ...], **keys: object) -> RawData:
    targets = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    targets = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(3))]
    names = tuple(f"c{i}" for i in range(len(sizes)))
    return RawData(torch.zeros(len(targets), 2), targets, "classification", names, **keys)  # type: ignore[arg-type]


def cut(raw: RawData, **keys: object) -> torch.Tensor:
    settings = {"val_fraction": 0.1, "test_fraction": 0.1, "split_seed": 0, **keys}
    return split(raw, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("fractions", [(0.1, 0.1), (0.25, 0.2), (0.0, 0.3), (0.3, 0.0)])
def test_every_class_has_its_share_within_one_sample(
    sizes: tuple[int, ...], fractions: tuple[float, float]
) -> None:
    val, test = fractions
    raw = classes(sizes)
    marks = cut(raw, val_fraction=val, test_fraction=test)
    counts = torch.stack(
        [torch.bincount(raw.targets[marks == part], minlength=len(sizes)) for part in range(3)]
    )
    assert counts.sum(0).tolist() == list(sizes)  # disjoint and complete
    wanted_test = torch.tensor(sizes) * test
    assert ((counts[2] - wanted_test).abs() <= 1).all()
    assert ((counts[1] - (torch.tensor(sizes) - counts[2]) * val).abs() <= 1).all()
    assert (counts[0] > 0).all()
    assert (counts[2] > 0).all() == (test > 0)


def test_totals_are_rounded_once_and_not_in_each_class() -> None:
    marks = cut(classes((15,) * 10), test_fraction=0.1, val_fraction=0.0)
    assert int((marks == 2).sum()) == 15


def test_only_the_split_seed_moves_the_test_split() -> None:
    raw = classes((60, 60))
    marks = cut(raw)
    torch.manual_seed(99)
    np.random.default_rng(1).random(10)
    assert cut(raw).equal(marks)
    for other in (
        {"val_fraction": 0.3},
        {"folds": 5, "fold": 0},
        {"folds": 3, "fold": 2},
        {"val_fraction": 0.0},
    ):
        assert (cut(raw, **other) == 2).equal(marks == 2)
    assert not (cut(raw, split_seed=1) == 2).equal(marks == 2)
    assert not (cut(raw, split_seed=-1) == 2).equal(marks == 2)


def test_the_global_generators_are_left_alone() -> None:
    before = torch.get_rng_state()
    cut(classes((60, 60)), folds=3, fold=1)
    assert torch.get_rng_state().equal(before)


def test_hashed_order_is_a_golden_permutation() -> None:
    # pinned: a split must stay the same under every version of numpy and torch
    assert hashed_order(10, 0, 1).tolist() == [9, 7, 0, 1, 6, 3, 4, 5, 2, 8]
    assert sorted(hashed_order(1000, 5, 7).tolist()) == list(range(1000))
    assert abs(np.corrcoef(hashed_order(5000, 1), np.arange(5000))[0, 1]) < 0.05


def test_hashed_order_sorts_by_splitmix64() -> None:
    def mixed(state: int) -> int:
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
        return state ^ state >> 31

    start = mixed(mixed(5) + 2**64 - 3)  # keys 5 and -3
    twin = sorted(range(50), key=lambda i: mixed((start + i) % 2**64))
    assert hashed_order(50, 5, -3).tolist() == twin


@pytest.mark.ci
def test_a_split_is_the_same_in_another_process() -> None:
    code = (
        "import torch; from dltrain.data.bundled import digits; from dltrain.data.splits import split;"
        "m = split(digits(), val_fraction=.1, test_fraction=.2, split_seed=0); print(int((m * "
        "torch.arange(len(m))).sum()))"
    )
    results = set()
    for hash_seed in ("0", "7"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        results.add(
            subprocess.run(
                [sys.executable, "-c", code], env=environment, capture_output=True, check=True
            ).stdout
        )
    assert len(results) == 1


def test_given_test_is_kept_and_val_is_cut_stratified_out_of_train() -> None:
    given = torch.zeros(300, dtype=torch.int8)
    given[250:] = 2
    raw = classes((100, 100, 100), split=given)
    marks = cut(raw, val_fraction=0.2)
    assert (marks == 2).equal(given == 2)
    for name in range(3):
        in_train = int(((given == 0) & (raw.targets == name)).sum())
        assert abs(int(((marks == 1) & (raw.targets == name)).sum()) - 0.2 * in_train) <= 1
    assert int((marks == 1).sum()) == 50


def test_given_val_is_kept_and_test_is_cut_out_of_train() -> None:
    given = torch.zeros(300, dtype=torch.int8)
    given[250:] = 1
    marks = cut(classes((100, 100, 100), split=given))
    assert (marks == 1).equal(given == 1)
    assert int((marks == 2).sum()) == 25
    assert int((cut(classes((100, 100, 100), split=given), test_fraction=0.0) == 2).sum()) == 0


def test_a_given_test_split_may_lack_a_class() -> None:
    given = torch.zeros(200, dtype=torch.int8)
    raw = classes((100, 100), split=given)
    given[(raw.targets == 0).nonzero().flatten()[:10]] = 2
    assert int((cut(raw) == 2).sum()) == 10


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_folds_partition_all_that_is_not_test(folds: int) -> None:
    raw = classes((31, 52, 17))
    marks = [cut(raw, folds=folds, fold=fold) for fold in range(folds)]
    test = marks[0] == 2
    seen = torch.stack([part == 1 for part in marks])
    assert all((part == 2).equal(test) for part in marks)
    assert seen.sum(0).equal((~test).long())
    for name in range(3):
        counts = (seen & (raw.targets == name)).sum(1)
        assert int(counts.max() - counts.min()) <= 1
    assert int(seen.sum(1).max() - seen.sum(1).min()) <= 1


@pytest.mark.parametrize("keys", [{}, {"folds": 4, "fold": 2}, {"test_fraction": 0.0}])
def test_groups_stay_together(keys: dict[str, object]) -> None:
    groups = torch.arange(600) // 6 * 17 % 1000
    raw = classes((200, 200, 200), groups=groups)
    marks = cut(raw, val_fraction=0.2, **keys) if "test_fraction" in keys else cut(raw, **keys)
    for group in groups.unique():
        assert len(marks[groups == group].unique()) == 1
    share = torch.bincount(raw.targets[marks == 1], minlength=3) / 200
    assert (share > 0.04).all() and (share < 0.35).all()


def test_grouped_folds_partition() -> None:
    groups = torch.arange(600) // 6
    raw = classes((200, 200, 200), groups=groups)
    seen = sum((cut(raw, folds=4, fold=fold) == 1).long() for fold in range(4))
    assert isinstance(seen, torch.Tensor)
    assert seen.equal((cut(raw) != 2).long())


def test_a_regression_is_split_at_random() -> None:
    raw = RawData(torch.zeros(100, 1), torch.arange(100.0), "regression")
    marks = cut(raw)
    assert torch.bincount(marks.long()).tolist() == [81, 9, 10]
    assert 20 < raw.targets[marks == 2].mean() < 80


REFUSED = [
    ({"folds": 3, "fold": 3}, "fold is 3; with folds=3 it must be from 0 to 2", {"folds": 3, "fold": 2}),
    ({"folds": 3}, "fold is None; with folds=3", {"folds": 3, "fold": 0}),
    (
        {"folds": 9, "fold": 0},
        "class 'c1' has only 7 samples outside the test .*set folds to 7",
        {"folds": 7, "fold": 0},
    ),
]


@pytest.mark.parametrize(("wrong", "message", "cure"), REFUSED)
def test_refusals_and_their_cures(wrong: dict[str, object], message: str, cure: dict[str, object]) -> None:
    raw = classes((100, 8))
    with pytest.raises(DataError, match=message):
        cut(raw, **wrong)
    cut(raw, **cure)


@pytest.mark.parametrize(("size", "counts"), [(1, [1, 0, 0]), (2, [1, 0, 1]), (3, [1, 1, 1])])
def test_a_rare_class_is_in_train_first_and_named(size: int, counts: list[int]) -> None:
    raw = classes((100, size))
    for seed in range(5):
        marks = cut(raw, split_seed=seed)
        assert torch.bincount(marks[raw.targets == 1], minlength=3).tolist() == counts
        named = (f"rare     too few samples for val or test: 'c1' ({size})",) if size < 3 else ()
        assert rare_classes(raw, marks) == named
    assert rare_classes(raw, cut(raw, val_fraction=0, test_fraction=0)) == ()


def test_a_class_that_a_given_split_lacks_is_named() -> None:
    """Of folders, val had no image of a class, and its accuracy said nothing of it."""
    given = torch.zeros(212, dtype=torch.int8)
    raw = classes((100, 100, 12), split=given)
    given[::5], given[1::5] = 1, 2
    assert rare_classes(raw, given) == ()
    given[(raw.targets == 2) & (given == 1)] = 0
    assert rare_classes(raw, given) == ("rare     no sample in val, though in other splits: 'c2' (12)",)


def test_a_hundred_rare_classes_lose_none_to_val_and_test() -> None:
    raw = classes((*[2] * 100, 50))
    marks = cut(raw)
    assert torch.bincount(raw.targets[marks == 0], minlength=101).min() == 1
    assert "(94 more)" in rare_classes(raw, marks)[0]


def test_a_class_missing_from_the_given_train_split_is_refused() -> None:
    given = torch.zeros(200, dtype=torch.int8)
    raw = classes((100, 100), split=given)
    given[raw.targets == 1] = 2
    with pytest.raises(
        DataError, match="'c1' is missing from the train split .0 in train, 0 in val, 100 in test"
    ):
        cut(raw)


def test_an_empty_split_is_refused() -> None:
    raw = RawData(torch.zeros(1, 1), torch.zeros(1), "regression")
    with pytest.raises(DataError, match="the val split of 1 samples is empty; .*dataset.val_fraction=0"):
        cut(raw)
    with pytest.raises(DataError, match="the test split of 1 samples is empty; .*dataset.test_fraction=0"):
        cut(raw, val_fraction=0)
    cut(raw, test_fraction=0, val_fraction=0)


def test_too_few_groups_or_samples_for_the_folds() -> None:
    with pytest.raises(DataError, match="folds is 5, but there are only 2 groups outside the test split"):
        cut(classes((50, 50), groups=torch.arange(100) % 2), folds=5, fold=0, test_fraction=0)
    with pytest.raises(DataError, match="folds is 5, but there are only 3 samples outside the test split"):
        cut(RawData(torch.zeros(3, 1), torch.zeros(3), "regression"), folds=5, fold=0, test_fraction=0)


def test_a_grouped_fold_without_a_class_is_refused() -> None:
    groups = torch.arange(100) % 4
    raw = RawData(torch.zeros(100, 1), (groups == 0).long(), "classification", groups=groups)
    # the classes lie in one group, so whichever fold has it leaves none for the rest, and the others lack it
    with pytest.raises(
        DataError, match="class 1 is missing from .*use fewer folds, or another dataset.split_seed"
    ):
        cut(raw, folds=4, fold=0, test_fraction=0)


# Bootstrap samples ---------------------------------------------------------------------------------------------------


def splitmix_by_hand(state: int) -> int:
    """SplitMix64 as published (Steele et al. 2014), in plain integers."""
    z = (state + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def test_a_bootstrap_sample_is_drawn_from_the_seed_alone() -> None:
    positions = torch.arange(1000, 1700)
    state = splitmix_by_hand(splitmix_by_hand(5) + 4)
    by_hand = [splitmix_by_hand(state + k) * 700 // 2**64 for k in range(700)]
    assert bootstrapped(positions, 5).tolist() == [1000 + k for k in sorted(by_hand)]
    assert not bootstrapped(positions, 5).equal(bootstrapped(positions, 6))


def test_bootstrap_samples_of_two_folds_are_drawn_independently() -> None:
    """Two folds with the same draws would share the positions of all of them; independent ones share about 63 %."""
    positions = torch.arange(2000)
    first, second = (bootstrapped(positions, 5, fold) for fold in (0, 1))
    shared = len(set(first.tolist()) & set(second.tolist())) / len(first.unique())
    assert shared == pytest.approx(1 - np.exp(-1), abs=0.05)
    assert first.equal(bootstrapped(positions, 5))
    raw = RawData(torch.zeros(3000, 1), torch.zeros(3000, 1), "regression")
    # the draws as positions within the training split of each fold
    ranks = []
    for fold in (0, 1):
        found = prepare(raw, folds=3, fold=fold, test_fraction=0.0, bootstrap=5)
        kept = (
            split(raw, val_fraction=0.1, test_fraction=0.0, split_seed=0, folds=3, fold=fold) == 0
        ).nonzero()
        assert found.source is not None
        ranks.append(torch.searchsorted(kept.flatten(), found.source.positions["train"]))
    assert not ranks[0].equal(ranks[1])


def test_a_bootstrap_sample_holds_63_percent_of_the_samples() -> None:
    """Mean 1 - (1 - 1/N)^N of the distinct samples, and variance (1/e)(1 - 2/e)/N, over 400 seeds."""
    count, seeds = 500, 400
    shares = torch.tensor([len(bootstrapped(torch.arange(count), s).unique()) / count for s in range(seeds)])
    wanted, deviation = 1 - (1 - 1 / count) ** count, (np.exp(-1) * (1 - 2 * np.exp(-1)) / count) ** 0.5
    assert abs(float(shares.mean()) - wanted) < 4 * deviation / seeds**0.5
    assert float(shares.std()) == pytest.approx(deviation, rel=0.15)
    drawn = torch.stack(
        [torch.bincount(bootstrapped(torch.arange(count), s), minlength=count) for s in range(seeds)]
    )
    # each sample is drawn once on average, and as often in the first half of the file as in the second
    assert float(drawn.double().mean()) == 1
    assert abs(float(drawn[:, :250].double().mean()) - 1) < 4 * (0.5 / (seeds * 250)) ** 0.5
