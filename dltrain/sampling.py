"""The order of the training samples in each epoch, as a function of the seed and the epoch alone.

Every sampler is built as `Sampler(targets, batch_size, seed, shuffle, **keys)`; `order(epoch)` gives
positions in the training split, `len(sampler)` their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from dltrain.ranges import NonNegative, Part, Share

SHUFFLES = ("epoch", "once", "never", "replacement")


class Sampler(Protocol):
    """What the loop asks for."""

    def order(self, epoch: int) -> Tensor:
        """(M,) int64 positions in the training split, on the CPU, in the order of epoch `epoch` (from 0)."""
        ...

    def __len__(self) -> int: ...


def generator(seed: int, epoch: int, stream: int = 0) -> torch.Generator:
    """A generator on the CPU for one epoch: (0, 1) and (1, 0) give different ones."""
    state = 0
    for part in (seed, epoch, stream):
        state = _mixed((state + part) % 2**64)
    return torch.Generator().manual_seed(state % 2**63)


def _mixed(state: int) -> int:
    """One step of splitmix64 (Steele et al. 2014): neighbouring numbers become unrelated ones."""
    state = (state + 0x9E3779B97F4A7C15) % 2**64
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


class Shuffle:
    """Every sample as often as any other, in the order that `shuffle` asks for.

        shuffle=epoch: a new permutation each epoch; once: one permutation; never: as they lie; replacement: N
        draws

    Every sample once an epoch, or N draws with replacement (lectures L0, L2, L3, L4).

    Use: nearly always.
    Defaults: a function of the seed and the epoch alone, so that a run can be resumed anywhere.
    Lecture: L0 L2 L3 L4
    """

    def __init__(self, targets: Tensor, batch_size: int, seed: int, shuffle: str = "epoch") -> None:
        """targets: (N, ...); shuffle: epoch, once, never or replacement."""
        _check_shuffle(shuffle)
        del batch_size  # other samplers need it
        self._count, self._seed, self._shuffle = len(targets), seed, shuffle

    def __len__(self) -> int:
        return self._count

    def order(self, epoch: int) -> Tensor:
        """See `Sampler.order`."""
        if self._shuffle == "never":
            return torch.arange(self._count)
        if self._shuffle == "replacement":
            return torch.randint(self._count, (self._count,), generator=generator(self._seed, epoch))
        # "once" is the permutation of epoch 0 in every epoch
        epoch = 0 if self._shuffle == "once" else epoch
        return torch.randperm(self._count, generator=generator(self._seed, epoch))


class Balanced:
    """Every batch holds every class equally often: rare ones repeat, frequent ones take turns.

        slot k of the epoch holds class k mod C; each class goes through permutations of its samples

    Every batch holds every class equally often (lecture L3).

    Slot k of an epoch holds class k mod C. Each class goes through one permutation of its samples after the
    other, across epochs, so that within a class all come equally often. An epoch is as long as the data, less
    a last batch that would be too small to hold every class.

    Symbols: C = number of classes; needs batch_size >= C
    Use: classes of very different sizes; compare with dataset.class_weights=balanced (both at once are
        refused).
    Defaults: within a class all samples come equally often over the epochs.
    Lecture: L3
    """

    def __init__(self, targets: Tensor, batch_size: int, seed: int, shuffle: str = "epoch") -> None:
        """targets: (N,) int64; raises ValueError for a regression or a batch smaller than the classes."""
        _check_shuffle(shuffle)
        if targets.ndim != 1 or targets.is_floating_point():
            raise ValueError(
                "sampler=balanced needs classes, but the targets are quantities; use sampler=none"
            )
        classes, codes = targets.cpu().unique(return_inverse=True)
        if batch_size < len(classes):
            raise ValueError(
                f"sampler=balanced with batch_size={batch_size}: a batch cannot hold all {len(classes)} "
                "classes; set "
                f"batch_size to at least {len(classes)}"
            )
        self._members = [(codes == code).nonzero().flatten() for code in range(len(classes))]
        left_over = len(targets) % batch_size
        self._count = len(targets) - (
            left_over if left_over < len(classes) and len(targets) > batch_size else 0
        )
        self._seed, self._shuffle = seed, shuffle

    def __len__(self) -> int:
        return self._count

    def order(self, epoch: int) -> Tensor:
        """See `Sampler.order`."""
        order = torch.empty(self._count, dtype=torch.int64)
        for code, members in enumerate(self._members):
            slots = order[code :: len(self._members)]
            slots.copy_(members[self._draw(code, len(members), len(slots), epoch)])
        return order

    def _draw(self, code: int, members: int, slots: int, epoch: int) -> Tensor:
        """Places (slots,) among the members of a class."""
        if self._shuffle == "replacement":
            return torch.randint(members, (slots,), generator=generator(self._seed, epoch, code))
        first = epoch * slots if self._shuffle == "epoch" else 0
        rounds = range(first // members, (first + slots - 1) // members + 1)
        turns = torch.cat([self._round(code, members, number) for number in rounds])
        start = first - rounds[0] * members
        return turns[start : start + slots]

    def _round(self, code: int, members: int, number: int) -> Tensor:
        if self._shuffle == "never":
            return torch.arange(members)
        return torch.randperm(members, generator=generator(self._seed, number, code))


class Hard:
    """Samples with a large last loss come more often, outliers excepted.

        p_i = (1 − share)/N + share · w_i/Σw,  w = loss^strength
        an outlier's w is the mean of the others'

    Samples with a large last loss come more often; above a quantile they are outliers and do not (L3).

    p_i = (1 − share)/N + share · w_i/Σw with w = loss^strength; an outlier, and a sample without a loss so
    far, weighs as much as the others on average. N draws an epoch, each sample within one of N·p_i times
    (systematic resampling).

    Symbols: a loss above the quantile outlier_quantile of all last losses marks an outlier
    Use: when most samples are learnt early; check the outliers' labels before trusting a gain.
    Defaults: half of the draws stay uniform, so that every sample is seen, and the largest 5 % count as
        outliers.
    Lecture: L3

    Args:
        share: part of the draws that follow the losses; 0 draws all samples equally often
        strength: power of the loss
        outlier_quantile: losses above this quantile count as outliers; 1 knows no outliers
    """

    def __init__(
        self,
        targets: Tensor,
        batch_size: int,
        seed: int,
        shuffle: str = "epoch",
        share: Share = 0.5,
        strength: NonNegative = 1.0,
        outlier_quantile: Part = 0.95,
    ) -> None:
        """targets: (N, ...); raises ValueError for a key out of its range."""
        del batch_size
        if shuffle not in ("epoch", "replacement"):
            raise ValueError(
                f"sampler=hard draws anew each epoch; shuffle={shuffle} cannot go with it: use shuffle=epoch"
            )
        if not 0 <= share <= 1:
            raise ValueError(
                f"sampler.share is {share}; it must be in [0, 1] (0 draws all samples equally often)"
            )
        if not strength >= 0:
            raise ValueError(f"sampler.strength is {strength}; it must be >= 0 (0 makes all weigh the same)")
        if not 0 < outlier_quantile <= 1:
            raise ValueError(
                f"sampler.outlier_quantile is {outlier_quantile}; it must be in (0, 1] (1: no outliers)"
            )
        self._seed, self._shuffle = seed, shuffle
        self._share, self._strength, self._quantile = share, strength, outlier_quantile
        # on the CPU until the first losses come, then where they are
        self._losses = torch.full((len(targets),), torch.nan)
        # the losses as they were when the epoch at hand began: a run resumed in mid-epoch needs its order
        # again
        self._epoch, self._at_start = -1, self._losses.clone()

    def __len__(self) -> int:
        return len(self._losses)

    def observe(self, indices: Tensor, losses: Tensor) -> None:
        """Keep the last loss (B,) of the samples at `indices` (B,); no value is read back from the device."""
        if self._losses.device != losses.device:
            self._losses = self._losses.to(losses.device)
        values = losses.detach().to(self._losses.dtype)
        # the larger loss of a sample that is twice in a batch: which of two writes wins is left open on a GPU
        self._losses.scatter_reduce_(0, indices, values, "amax", include_self=False)

    def order(self, epoch: int) -> Tensor:
        """See `Sampler.order`; costs one transfer of the losses an epoch, and none in between."""
        if epoch != self._epoch:
            self._epoch, self._at_start = epoch, self._losses.clone()
        random = generator(self._seed, epoch)
        shares = self._probabilities(self._at_start.cpu().double())
        if self._shuffle == "replacement":
            return torch.multinomial(shares, len(self), replacement=True, generator=random)
        drawn = _systematic(shares, random)
        return drawn[torch.randperm(len(drawn), generator=random)]

    def _probabilities(self, losses: Tensor) -> Tensor:
        known = losses.isfinite()
        uniform = torch.full_like(losses, 1 / len(losses))
        if not known.any():
            return uniform
        usual = known & (losses <= _quantile(losses[known], self._quantile))
        weights = losses.clamp_min(0) ** self._strength
        weights = torch.where(usual, weights, weights[usual].mean())
        total = weights.sum()
        return (1 - self._share) * uniform + self._share * weights / total if total > 0 else uniform

    def state_dict(self) -> dict[str, Any]:
        """Losses now and at the start of the epoch at hand."""
        return {"losses": self._losses.clone(), "epoch": self._epoch, "at_start": self._at_start.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._losses.copy_(state["losses"])
        self._epoch, self._at_start = int(state["epoch"]), state["at_start"].to(self._losses.device)


def _systematic(shares: Tensor, random: torch.Generator) -> Tensor:
    """N draws, each sample floor(N·p) or ceil(N·p) times: N points evenly spread over the sum of shares."""
    count = len(shares)
    offset = torch.rand(1, generator=random, dtype=torch.float64)
    points = (torch.arange(count) + offset) / count
    return torch.searchsorted(shares.cumsum(0), points).clamp_max(count - 1)


def _quantile(values: Tensor, share: float) -> Tensor:
    """The smallest value that `share` of the values do not exceed (torch.quantile ends at 16 M entries)."""
    place = max(int(torch.tensor(share * len(values), dtype=torch.float64).ceil()) - 1, 0)
    return values.sort().values[place]


def _check_shuffle(shuffle: str) -> None:
    if shuffle not in SHUFFLES:
        raise ValueError(f"shuffle is {shuffle!r}; it must be one of {', '.join(SHUFFLES)}")
