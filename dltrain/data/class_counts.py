"""How many training samples each class has, and what needs one of every class."""

from __future__ import annotations

import torch
from torch import Tensor

from dltrain.data.errors import DataError
from dltrain.data.raw import RawData, class_numbers


def class_counts(raw: RawData, positions: Tensor) -> tuple[int, ...]:
    """Return how many of the samples at these positions each class has; nothing for a regression."""
    if raw.task != "classification":
        return ()
    return tuple(torch.bincount(raw.targets[positions], minlength=class_numbers(raw)).tolist())


def check_bootstrapped(raw: RawData, counts: tuple[int, ...], drawn: Tensor) -> None:
    """Raise DataError where a bootstrap sample has none of a class that it was drawn from, as a split without a class is refused."""
    pairs = zip(counts, class_counts(raw, drawn), strict=True)
    lost = [(number, had) for number, (had, has) in enumerate(pairs) if had and not has]
    if lost:
        number, had = lost[0]
        name = repr(raw.class_names[number]) if raw.class_names else number
        raise DataError(
            f"the bootstrap sample has none of the {had} training samples of class {name}; use another "
            "seed, add samples of that class, or do without: dataset.bootstrap=false"
        )


def check_weighted(counts: tuple[int, ...], class_weights: str) -> None:
    """Raise DataError where `balanced` would divide by zero: a class that `dataset.limit` leaves no training sample of."""
    if class_weights == "balanced" and 0 in counts:
        raise DataError(
            f"dataset.class_weights=balanced has no weight for {counts.count(0)} of {len(counts)} classes, which have no training "
            "sample; set it to none, or use a larger dataset.limit"
        )
