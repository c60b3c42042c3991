"""Samples of one split that are equal to samples of another one, where the data themselves say which is which."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dltrain.data.raw import TEST, TRAIN, VAL, RawData
from dltrain.text import counted

# fraction of the smaller split: equal samples by chance, such as a flower measured twice, are no leak
BY_CHANCE = 0.01
AT_ONCE = 65_536  # rows whose sums are taken together


def copies_note(raw: RawData, positions: Sequence[Tensor]) -> tuple[str, ...]:
    """Return a line on the rows of val and test that are equal to rows of training in all inputs and the target.

    Only for splits that the data define, such as a separate test file, and only above `most_by_chance`. `dltrain check` compares
    the splits that this program draws.
    """
    rows = raw.samples
    if raw.split is None or not isinstance(rows, Tensor) or rows.ndim != 2:
        return ()
    found = []
    for name, split in (("val", VAL), ("test", TEST)):
        count = copies(rows, raw.targets, positions[TRAIN], positions[split])
        if count > most_by_chance(len(positions[TRAIN]), len(positions[split])):
            found.append(f"{count:,} of the {counted(len(positions[split]), f'{name} sample')}")
    if not found:
        return ()
    return (
        f"copies   {' and '.join(found)} are equal to training samples in all inputs and the target, so that their scores are too good",
    )


def most_by_chance(one: int, other: int) -> float:
    """Return up to how many equal samples two splits of these sizes may have."""
    return max(1, BY_CHANCE * min(one, other))


def copies(rows: Tensor, targets: Tensor, known: Tensor, asked: Tensor) -> int:
    """Return how many samples at `asked` (M,) are equal to one at `known` (N,) in all bits of rows (·, F) and targets.

    Hashes of the rows, sums of products with fixed numbers, are compared first; only rows with equal hashes are compared in full.
    """
    targets = targets.reshape(len(targets), -1)
    sums = torch.cat([_sums(*part) for part in zip(rows.split(AT_ONCE), targets.split(AT_ONCE), strict=True)])
    alike = [part[torch.isin(sums[part], sums[other])] for part, other in ((known, asked), (asked, known))]
    there, here = (map(_bytes, rows[part], targets[part]) for part in alike)
    seen = set(there)
    return sum(row in seen for row in here)


def _sums(rows: Tensor, targets: Tensor) -> Tensor:
    """Return a number in float64 for each row (N, F) and its targets (N, K), equal for equal rows."""
    numbers = torch.cat([rows.double(), targets.double()], 1).nan_to_num()
    weights = torch.rand(numbers.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # a product with a matrix would add in an order that depends on the number of rows
    return (numbers * weights).sum(1)


def _bytes(row: Tensor, target: Tensor) -> bytes:
    # −0 is 0
    return b"".join((part + 0).numpy().tobytes() for part in (row, target))
