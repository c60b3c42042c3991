"""Assignment of samples to train, val and test: a function of the data and `split_seed` alone.

The order of the draws comes from a hash of (split_seed, stream, position) instead of a library's generator, so that
a split is the same on every machine and under every version of torch and numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dltrain.data.errors import DataError, some
from dltrain.data.raw import TEST, TRAIN, VAL, RawData, class_numbers
from dltrain.data.split_names import SPLIT_NAMES
from dltrain.seeding import GOLDEN, mix, splitmix

Ints = NDArray[np.int64]
# the class of each sample; all zero for a regression
Strata = Ints
_TEST_STREAM, _VAL_STREAM, _FOLD_STREAM, _BOOTSTRAP_STREAM = 1, 2, 3, 4


def split(
    raw: RawData,
    *,
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
    folds: int | None = None,
    fold: int | None = None,
    every_class: bool = True,
    without_val: str = "dataset.val_fraction=0",
) -> Tensor:
    """Return (N,) int8 marks: 0 train, 1 val, 2 test.

    Splits that the data define are kept; missing ones are cut from train: first test, the share `test_fraction`, then
    val, the share `val_fraction` of the rest. With `folds`, all samples outside test are divided into that many parts, and
    part `fold` is val. Splits are stratified by class, and groups stay together. Raises DataError where a class or a group
    is too small for that; a split may lack a class where `every_class` is false, and val and test one of less than three
    samples (`rare_classes`), the first of which is in train. `without_val` is what to type for a run without a val split.
    """
    marks = np.zeros(len(raw), np.int8) if raw.split is None else raw.split.cpu().numpy().astype(np.int8)
    marks = marks.copy()
    strata = _strata(raw)
    groups = None if raw.groups is None else torch.unique(raw.groups, return_inverse=True)[1].cpu().numpy()
    given = {part for part in (TRAIN, VAL, TEST) if (marks == part).any()}
    if TEST not in given and test_fraction > 0:
        _cut(marks, TEST, test_fraction, (split_seed, _TEST_STREAM), strata, groups)
    if folds is not None:
        _mark_fold(marks, folds, fold, split_seed, strata, groups, raw)
    elif VAL not in given and val_fraction > 0:
        _cut(marks, VAL, val_fraction, (split_seed, _VAL_STREAM), strata, groups)
    parts = _parts_to_check(marks, given, val_fraction, test_fraction)
    _check_parts(marks, raw, parts, folds, every_class, without_val)
    return torch.from_numpy(marks)


def hashed_order(count: int, *keys: int) -> Ints:
    """Return a permutation of range(count) that depends on `keys` alone (splitmix64, Steele et al. 2014)."""
    return np.argsort(_hashes(count, *keys), kind="stable")


def bootstrapped(positions: Tensor, seed: int, fold: int | None = None) -> Tensor:
    """Return as many independent draws from `positions` (N,) as it has entries, in ascending order: a bootstrap sample.

    On average 1 - (1 - 1/N)^N of the entries, about 63 %, are drawn at least once (Efron 1979). The draws of two folds are
    independent of each other; those of the first one are those of a run without folds.
    """
    count = len(positions)
    keys = (seed, _BOOTSTRAP_STREAM, fold) if fold else (seed, _BOOTSTRAP_STREAM)
    # the upper 53 bits of a hash make a uniform number in [0, 1)
    uniform = (_hashes(count, *keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return positions[torch.from_numpy(np.sort((uniform * count).astype(np.int64)))]


def stratified_sample(raw: RawData, positions: Tensor, limit: int, seed: int) -> Tensor:
    """Return at most `limit` of `positions` (N,), in ascending order: of each class its share, and at least one if possible."""
    if limit >= len(positions):
        return positions
    strata = _strata(raw)[positions.cpu().numpy()]
    chosen = _stratified(strata, _shares_of(np.bincount(strata), limit), (seed,))
    return positions[torch.from_numpy(np.sort(chosen))]


def _hashes(count: int, *keys: int) -> NDArray[np.uint64]:
    state = 0
    for key in keys:
        state = splitmix(state + key)
        # of a key beyond 64 bits, what the line above does not see
        while (key := key >> 64) not in (0, -1):
            state = splitmix(state + key)
    first = np.array([(state + GOLDEN) % 2**64], np.uint64)
    hashes: NDArray[np.uint64] = mix(first + np.arange(count).astype(np.uint64))
    return hashes


def _strata(raw: RawData) -> Strata:
    if raw.task != "classification":
        return np.zeros(len(raw), np.int64)
    return raw.targets.cpu().numpy().astype(np.int64)


def _cut(
    marks: NDArray[np.int8],
    mark: int,
    fraction: float,
    seed: tuple[int, int],
    strata: Strata,
    groups: Ints | None,
) -> None:
    """Move `fraction` of the training samples to the split `mark`, in place."""
    pool = np.flatnonzero(marks == TRAIN)
    if groups is None:
        chosen = _stratified_share(strata[pool], fraction, seed)
    else:
        chosen = _grouped_share(strata[pool], groups[pool], fraction, seed)
    marks[pool[chosen]] = mark


def _stratified_share(strata: Strata, fraction: float, seed: tuple[int, int]) -> Ints:
    """Return positions of `fraction` of the samples; each class within one of its share, and at least one."""
    sizes = np.bincount(strata)
    counts = _whole_shares(sizes * fraction)
    # at least one sample is taken and one left
    return _stratified(strata, np.clip(counts, np.minimum(sizes // 2, 1), np.maximum(sizes - 1, 0)), seed)


def _stratified(strata: Strata, counts: Ints, seed: tuple[int, ...]) -> Ints:
    """Return positions of `counts` samples of each class."""
    order = hashed_order(len(strata), *seed)
    # class by class, shuffled within each
    order = order[np.argsort(strata[order], kind="stable")]
    sizes = np.bincount(strata)
    first = np.cumsum(sizes) - sizes
    rank = np.arange(len(strata)) - first[strata[order]]
    return order[rank < counts[strata[order]]]


def _whole_shares(exact: NDArray[Any]) -> Ints:
    """Round `exact` to whole numbers by largest remainder, so that their sum is the rounded sum; each differs by less than 1."""
    counts = np.floor(exact).astype(np.int64)
    missing = round(float(exact.sum())) - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return counts


def _shares_of(sizes: Ints, total: int) -> Ints:
    """Return shares of `sizes` that add up to `total`, in proportion; where it suffices for all, no share is 0."""
    counts = _whole_shares(sizes * (total / sizes.sum()))
    for empty in np.flatnonzero((counts == 0) & (sizes > 0)):
        largest = int(np.argmax(counts))
        # one fewer of the class that loses least by it
        if counts[largest] > 1:
            counts[largest] -= 1
            counts[empty] += 1
    return counts


def _grouped_share(strata: Strata, groups: Ints, fraction: float, seed: tuple[int, int]) -> Ints:
    """Return positions of whole groups that approach `fraction` of every class, largest groups first."""
    table = _group_table(strata, groups)
    target, taken = table.sum(0) * fraction, np.zeros(table.shape[1])
    chosen = np.zeros(len(table), bool)
    for group in _large_first(table, seed):
        with_it = taken + table[group]
        if ((with_it - target) ** 2).sum() < ((taken - target) ** 2).sum():
            taken, chosen[group] = with_it, True
    return np.flatnonzero(chosen[groups])


def _group_table(strata: Strata, groups: Ints) -> NDArray[np.float64]:
    """Return a (groups, classes) table: the number of samples of each class in each group."""
    table = np.zeros((int(groups.max(initial=-1)) + 1, int(strata.max(initial=0)) + 1))
    np.add.at(table, (groups, strata), 1.0)
    return table


def _large_first(table: NDArray[np.float64], seed: tuple[int, int]) -> Ints:
    order = hashed_order(len(table), *seed)
    return order[np.argsort(-table[order].sum(1), kind="stable")]


def _mark_fold(
    marks: NDArray[np.int8],
    folds: int,
    fold: int | None,
    split_seed: int,
    strata: Strata,
    groups: Ints | None,
    raw: RawData,
) -> None:
    """Divide all samples outside test into `folds` parts; part `fold` becomes val, the rest train, in place."""
    if fold is None or not 0 <= fold < folds:
        raise DataError(f"fold is {fold}; with folds={folds} it must be from 0 to {folds - 1}")
    pool = np.flatnonzero(marks != TEST)
    _check_folds(strata[pool], None if groups is None else groups[pool], folds, raw)
    seed = (split_seed, _FOLD_STREAM)
    if groups is None:
        part = _stratified_folds(strata[pool], folds, seed)
    else:
        part = _grouped_folds(strata[pool], groups[pool], folds, seed)
    marks[pool] = np.where(part == fold, VAL, TRAIN)


def _stratified_folds(strata: Strata, folds: int, seed: tuple[int, int]) -> Ints:
    order = hashed_order(len(strata), *seed)
    order = order[np.argsort(strata[order], kind="stable")]
    part = np.empty(len(strata), np.int64)
    # assigned in turn, class after class: each class and each fold is within one sample of even
    part[order] = np.arange(len(strata)) % folds
    return part


def _grouped_folds(strata: Strata, groups: Ints, folds: int, seed: tuple[int, int]) -> Ints:
    """Assign each group, largest first, to the fold that keeps the classes most even."""
    table = _group_table(strata, groups)
    filled = np.zeros((folds, table.shape[1]))
    part = np.zeros(len(table), np.int64)
    for group in _large_first(table, seed):
        # the growth of the sum of squares
        part[group] = int(np.argmin((2 * filled * table[group]).sum(1)))
        filled[part[group]] += table[group]
    return part[groups]


def _check_folds(strata: Strata, groups: Ints | None, folds: int, raw: RawData) -> None:
    count = len(set(groups.tolist())) if groups is not None else folds
    if count < folds:
        raise DataError(
            f"folds is {folds}, but there are only {count} groups outside the test split; use fewer folds"
        )
    if raw.task != "classification":
        if len(strata) < folds:
            raise DataError(
                f"folds is {folds}, but there are only {len(strata)} samples outside the test split; use fewer folds"
            )
        return
    sizes = np.bincount(strata, minlength=class_numbers(raw))
    small = int(np.argmin(sizes))
    if sizes[small] < folds:
        raise DataError(
            f"folds is {folds}, but class {_class_name(raw, small)} has only {sizes[small]} samples outside the "
            f"test split; every fold needs one: set folds to {max(int(sizes[small]), 2)} or fewer, or add samples"
        )


def _parts_to_check(
    marks: NDArray[np.int8], given: set[int], val_fraction: float, test_fraction: float
) -> list[int]:
    """Return train and the splits cut from it: a val or test split that the data define may lack a class."""
    parts = [TRAIN]
    parts += [VAL] if VAL not in given and (val_fraction > 0 or (marks == VAL).any()) else []
    parts += [TEST] if TEST not in given and test_fraction > 0 else []
    return parts


def _check_parts(
    marks: NDArray[np.int8],
    raw: RawData,
    parts: Sequence[int],
    folds: int | None,
    every_class: bool,
    without_val: str,
) -> None:
    """Refuse an empty split, and a split that lacks one of the classes."""
    for part in parts:
        cure = _cure(part, raw.groups is not None, folds, without_val)
        if not (marks == part).any():
            raise DataError(f"the {SPLIT_NAMES[part]} split of {len(raw)} samples is empty; {cure}")
        if raw.task == "classification" and every_class:
            _check_classes(marks, raw, part, cure)


def _check_classes(marks: NDArray[np.int8], raw: RawData, part: int, cure: str) -> None:
    targets = raw.targets.cpu().numpy()
    sizes = np.bincount(targets, minlength=class_numbers(raw))
    lacking = np.bincount(targets[marks == part], minlength=len(sizes)) == 0
    missing = np.flatnonzero(lacking & ~((part != TRAIN) & _is_rare(sizes)))
    if len(missing):
        first = int(missing[0])
        where = [f"{int(((targets == first) & (marks == p)).sum())} in {SPLIT_NAMES[p]}" for p in range(3)]
        raise DataError(
            f"class {_class_name(raw, first)} is missing from the {SPLIT_NAMES[part]} split "
            f"({', '.join(where)}; missing there: {some(_class_name(raw, int(c)) for c in missing)}); {cure}"
        )


def _is_rare(sizes: Ints) -> NDArray[np.bool_]:
    """Return which classes have samples, but not one for each split."""
    rare: NDArray[np.bool_] = (sizes > 0) & (sizes < len(SPLIT_NAMES))
    return rare


def rare_classes(raw: RawData, marks: Tensor) -> tuple[str, ...]:
    """Return a line that names the classes with too few samples for every split that the data have; none without them."""
    if raw.task != "classification":
        return ()
    targets, parts = raw.targets.cpu().numpy(), marks.numpy()
    sizes = np.bincount(targets, minlength=class_numbers(raw))
    cut = [part for part in (VAL, TEST) if (parts == part).any()]
    lacking = [np.bincount(targets[parts == part], minlength=len(sizes)) == 0 for part in cut]
    rare = np.flatnonzero(_is_rare(sizes) & np.any(lacking, axis=0)).tolist() if cut else []
    names = some((f"{_class_name(raw, int(c))} ({sizes[c]})" for c in rare), 6)
    where = " or ".join(SPLIT_NAMES[part] for part in cut)
    notes: tuple[str, ...] = (f"rare     too few samples for {where}: {names}",) if len(rare) else ()
    for part, lacks in zip(cut, lacking, strict=True):
        others = np.flatnonzero(lacks & ~_is_rare(sizes) & (sizes > 0)).tolist()
        if others:
            names = some((f"{_class_name(raw, int(c))} ({sizes[c]})" for c in others), 6)
            notes += (f"rare     no sample in {SPLIT_NAMES[part]}, though in other splits: {names}",)
    return notes


def _class_name(raw: RawData, index: int) -> str:
    return repr(raw.class_names[index]) if raw.class_names else str(index)


def _cure(part: int, grouped: bool, folds: int | None, without_val: str) -> str:
    if part != TEST and folds is not None:
        return "use fewer folds, or another dataset.split_seed"
    if part == TRAIN:
        return "add samples to it, or give less to val and test (dataset.val_fraction, dataset.test_fraction)"
    key = f"dataset.{SPLIT_NAMES[part]}_fraction"
    more = ", or try another dataset.split_seed" if grouped else ""
    without = without_val if part == VAL else f"{key}=0"
    return f"add samples, raise {key}, or do without this split: {without}{more}"
