"""Samplers: the order of the training samples in each epoch.

Every sampler is built as `Sampler(targets, batch_size, seed, shuffle, **keys)`; `order(epoch)` returns positions in the
training split, `len(sampler)` their number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from dltrain.ranges import NonNegative, Part, Share
from dltrain.seeding import splitmix

Order = Literal["epoch", "once", "never", "replacement", "bernoulli"]


class Sampler(Protocol):
    """The interface of samplers."""

    def order(self, epoch: int) -> Tensor:
        """Return the positions in the training split for epoch `epoch` (from 0): (M,) int64, on the CPU."""
        ...

    def __len__(self) -> int: ...


def generator(seed: int, epoch: int, stream: int = 0) -> torch.Generator:
    """Return a CPU generator for one epoch; seed 0 in epoch 1 and seed 1 in epoch 0 give different ones."""
    state = 0
    for part in (seed, epoch, stream):
        state = splitmix(state + part)
    return torch.Generator().manual_seed(state % 2**63)


class Drawn(Protocol):
    """A sampler that may also draw the batches of an epoch, which may differ in size."""

    def draws(self, epoch: int, steps: int, least: int) -> tuple[Tensor, list[int]] | None:
        """Return the positions of all batches of an epoch, one batch after the other, and the sizes of the batches.

        None where the batches are parts of `order(epoch)` of equal size. `least`: samples that a batch needs.
        """
        ...


class Shuffle:
    """Draw all samples equally often, in the order given by `shuffle`.

        shuffle=epoch: a new permutation of the N samples in each epoch
        shuffle=once: the same permutation in each epoch
        shuffle=never: the order of the dataset
        shuffle=replacement: N independent draws in each epoch
        shuffle=bernoulli: each sample enters each batch with probability B/N, independently

    The order is a function of the seed and the epoch, so that a run can be resumed anywhere. Under bernoulli a batch has B
    samples on average, with variance B·(1 − B/N), and an epoch ⌈N/B⌉ batches; an empty batch is drawn again, and so is one
    with fewer samples than the batch norms of the model need.

    Symbols: N = training samples, B = batch_size
    Use: nearly always.
    Lecture: L0 L2 L3 L4
    """

    def __init__(self, targets: Tensor, batch_size: int, seed: int, shuffle: Order = "epoch") -> None:
        self._count, self._seed, self._shuffle = len(targets), seed, shuffle
        self._share = batch_size / max(len(targets), 1)
        if shuffle == "bernoulli" and self._share >= 1:
            raise ValueError(
                f"shuffle=bernoulli with batch_size={batch_size} takes all {len(targets)} samples in each step, so that nothing "
                "is drawn; use a smaller batch_size, or shuffle=epoch"
            )

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

    def draws(self, epoch: int, steps: int, least: int) -> tuple[Tensor, list[int]] | None:
        """See `Drawn.draws`."""
        if self._shuffle != "bernoulli":
            return None
        chosen = _successes(steps * self._count, self._share, generator(self._seed, epoch))
        step = chosen.div(self._count, rounding_mode="floor")
        batches = list((chosen - step * self._count).split(torch.bincount(step, minlength=steps).tolist()))
        for number, batch in enumerate(batches):
            random = generator(self._seed, epoch, 1 + number) if len(batch) < least else None
            while random is not None and len(batches[number]) < least:
                batches[number] = _successes(self._count, self._share, random)
        return torch.cat(batches), [len(batch) for batch in batches]


class Balanced:
    """Draw every class equally often in every batch.

        sample k of the epoch has class k mod C
        the samples of a class come in one permutation after the other, across epochs

    An epoch has as many samples as the data, without a last batch that would be too small to hold every class. Raises
    ValueError for a regression and for a batch smaller than C.

    Symbols: C = number of classes
    Use: classes of very different sizes; compare with dataset.class_weights=balanced (not both at once).
    Lecture: L3
    """

    needs = frozenset({"classes"})
    gives = frozenset({"balanced classes", "composed batches"})

    def __init__(self, targets: Tensor, batch_size: int, seed: int, shuffle: Order = "epoch") -> None:
        if targets.ndim != 1 or targets.is_floating_point():
            raise ValueError(
                "sampler=balanced needs classes, but the targets are quantities; use sampler=none"
            )
        classes, codes = targets.cpu().unique(return_inverse=True)
        if batch_size < len(classes):
            raise ValueError(
                f"sampler=balanced with batch_size={batch_size}: a batch cannot hold all {len(classes)} "
                f"classes; set batch_size to at least {len(classes)}"
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
        """Draw positions (slots,) among the members of a class."""
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
    """Draw samples with a large last loss more often, except outliers.

        p_i = (1 − share)/N + share·w_i/Σw
        w_i = loss_i^strength
        outliers, and samples without a loss so far: w_i = mean of the other w

    An epoch has N draws; with shuffle=epoch, sample i is drawn ⌊N·p_i⌋ or ⌈N·p_i⌉ times (systematic resampling).

    Symbols: p_i probability of sample i of N; loss_i its last loss; an outlier has a loss above the quantile
        outlier_quantile of all last losses
    Use: when most samples are learned early; check the outliers' labels before trusting a gain.
    Defaults: half of the draws uniform, so that every sample is seen; the largest 5 % of losses are outliers.
    Lecture: L3

    Args:
        share: fraction of the draws that follow the losses; 0 draws all samples equally often
        strength: exponent of the loss; 0 gives all samples the same weight
        outlier_quantile: quantile of the losses above which samples are outliers; 1 disables it
    """

    needs = frozenset({"samples"})

    def __init__(
        self,
        targets: Tensor,
        batch_size: int,
        seed: int,
        shuffle: Order = "epoch",
        share: Share = 0.5,
        strength: NonNegative = 1.0,
        outlier_quantile: Part = 0.95,
    ) -> None:
        del batch_size
        if shuffle not in ("epoch", "replacement"):
            raise ValueError(
                f"sampler=hard draws in each epoch; shuffle={shuffle} cannot go with it: use shuffle=epoch"
            )
        self._seed, self._shuffle = seed, shuffle
        self._share, self._strength, self._quantile = share, strength, outlier_quantile
        # on the CPU until the first losses are observed, then on their device
        self._losses = torch.full((len(targets),), torch.nan)
        # the losses at the start of the current epoch, from which a run resumed in mid-epoch computes its order
        self._epoch, self._at_start = -1, self._losses.clone()

    def __len__(self) -> int:
        return len(self._losses)

    def observe(self, indices: Tensor, losses: Tensor) -> None:
        """Keep the last loss (B,) of the samples at `indices` (B,), without a host sync."""
        if self._losses.device != losses.device:
            self._losses = self._losses.to(losses.device, non_blocking=True)
        values = losses.detach().to(self._losses.dtype)
        # keep the larger loss of a sample that is twice in a batch: on a GPU the order of two writes is undefined
        self._losses.scatter_reduce_(0, indices, values, "amax", include_self=False)

    def order(self, epoch: int) -> Tensor:
        """See `Sampler.order`; transfers the losses from the device once in each epoch."""
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
        """Return the losses now and at the start of the current epoch."""
        return {"losses": self._losses.clone(), "epoch": self._epoch, "at_start": self._at_start.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state from `state_dict`."""
        self._losses.copy_(state["losses"])
        self._epoch, self._at_start = int(state["epoch"]), state["at_start"].to(self._losses.device)


def _successes(trials: int, probability: float, random: torch.Generator) -> Tensor:
    """Return which of `trials` independent Bernoulli trials succeed, ascending, from the geometric gaps between them."""
    found, last = [torch.empty(0, dtype=torch.int64)], -1
    while last < trials:
        count = max(16, round((trials - last) * probability))
        uniform = torch.rand(count, generator=random, dtype=torch.float64)
        # P(gap > k) = (1 − p)^k
        gaps = 1 + (torch.log1p(-uniform) / math.log1p(-probability)).floor().clamp_max(trials).long()
        found.append(last + gaps.cumsum(0))
        last = int(found[-1][-1])
    places = torch.cat(found)
    return places[places < trials]


def _systematic(shares: Tensor, random: torch.Generator) -> Tensor:
    """Draw N samples, each floor(N·p) or ceil(N·p) times, at N evenly spaced points of the cumulative sum of shares."""
    count = len(shares)
    offset = torch.rand(1, generator=random, dtype=torch.float64)
    points = (torch.arange(count) + offset) / count
    return torch.searchsorted(shares.cumsum(0), points).clamp_max(count - 1)


def _quantile(values: Tensor, share: float) -> Tensor:
    """Return the smallest value that `share` of the values do not exceed (torch.quantile is limited to 16 M values)."""
    place = max(int(torch.tensor(share * len(values), dtype=torch.float64).ceil()) - 1, 0)
    return values.sort().values[place]
