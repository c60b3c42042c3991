"""Keys of a dataset that nothing reads, because the data decide what they would: found once the data are read."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from dltrain.data.errors import DataError
from dltrain.data.raw import TEST, VAL, RawData
from dltrain.text import counted

# the arguments of `prepare` that are keys of every dataset
COMMON_KEYS = (
    "val_fraction", "test_fraction", "split_seed", "normalize", "class_weights", "resident_share", "limit", "bootstrap",
    "layout",
)  # fmt: skip
# keys that name the groups of the samples
_GROUPS = ("group_column", "groups")


def unused_keys(
    raw: RawData, val_fraction: float, test_fraction: float, folds: int | None, draws: bool
) -> dict[str, str]:
    """Return the keys of a dataset that change nothing for these data, with the reason as the end of a sentence.

    draws: whether `split_seed` draws something besides splits and folds, such as the samples of `limit`
    """
    if raw.task == "objective":
        return dict.fromkeys(COMMON_KEYS, "a study problem has no samples")
    found = dict(raw.unused)
    own = {mark for mark in (VAL, TEST) if raw.split is not None and bool((raw.split == mark).any())}
    if VAL in own and folds is None:
        found["val_fraction"] = f"the data have a val split already, of {counted(_size(raw, VAL), 'sample')}"
    if TEST in own:
        found["test_fraction"] = (
            f"the data have a test split already, of {counted(_size(raw, TEST), 'sample')}"
        )
    cut = (
        folds is not None or (VAL not in own and val_fraction > 0) or (TEST not in own and test_fraction > 0)
    )
    if not cut and not draws:
        found["split_seed"] = "no split is drawn: the data have theirs"
    if not cut and raw.groups is not None:
        found |= dict.fromkeys(_GROUPS, "no split is drawn that could part a group: the data have theirs")
    if raw.task == "classification":
        found["target_scale"] = "the targets are classes, which have no scale"
    return found


def refuse_unused(unused: Mapping[str, str], given: Collection[str]) -> None:
    """Raise DataError for a key that was given and changes nothing; `given` are dotted keys."""
    for key, why in unused.items():
        if f"dataset.{key}" in given:
            raise DataError(f"`dataset.{key}` has no effect here: {why}. Leave dataset.{key} out")


def limit_note(limit: int | None, train: Tensor) -> tuple[str, ...]:
    """Return a line where `dataset.limit` leaves no training sample out; none where it does."""
    if limit is None or limit < len(train):
        return ()
    return (f"limit    dataset.limit={limit} leaves none of the {len(train):,} training samples out",)


def cut_note(raw: RawData, test: Tensor) -> tuple[str, ...]:
    """Return a line if the data define splits without a test split, for which samples of their training split are taken."""
    if raw.split is None or not len(test) or _size(raw, TEST):
        return ()
    return (
        f"splits   the data define no test split, so that {counted(len(test), 'sample')} of their train split are taken for one; "
        "to train on them: dataset.test_fraction=0",
    )


def _size(raw: RawData, mark: int) -> int:
    assert raw.split is not None
    return int((raw.split == mark).sum())
