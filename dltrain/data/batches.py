"""Batches in a given order: from a cache on the device, or streamed through workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from dltrain.data.normalization import Normalizer
from dltrain.data.raw import Reader
from dltrain.data.spec import Batch
from dltrain.data.streaming import WorkerPool
from dltrain.devices import is_asynchronous, streams_of

# batches gathered with one call, measured 2 to 4 % faster than one call per batch
_BATCHES_AT_ONCE = 8
# limits of one call: on a CPU the size of its cache (more was up to 2 times slower), on a GPU a size that keeps a
# large batch from being held eight times
_BYTES_AT_ONCE = {"cpu": 4 * 2**20, "cuda": 64 * 2**20}


# of batches: one for all, or one for each
Sizes = int | list[int]


class Split(Protocol):
    """One of train, val and test, ready for the training loop."""

    targets: Tensor

    def __len__(self) -> int: ...

    def batches(self, order: Tensor | None, batch_size: Sizes, start: int = 0) -> Iterator[Batch]:
        """Yield batches of `batch_size` samples in `order`, on the device, from batch `start` on; the last may be smaller.

        batch_size: one size, or that of each batch, which add up to M.
        order: (M,) int64 positions within the split, on the CPU. None is the split's own order, whose batches may be views
        of the cache and must not be written to.
        """
        ...


class Joined:
    """All samples of several splits, one split after the other, in the order of each."""

    def __init__(self, splits: list[Split]) -> None:
        self.splits = splits

    def __len__(self) -> int:
        return sum(map(len, self.splits))

    def batches(self, order: Tensor | None, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of each split in its own order; `order` and `start` are not used."""
        for split in self.splits:
            yield from split.batches(torch.arange(len(split)), batch_size)


class ResidentSplit:
    """A split whose samples are on the device: as normalized floats where they fit, else in raw form."""

    def __init__(self, inputs: Tensor, targets: Tensor, normalize: Normalizer | None = None) -> None:
        """inputs: (N, ...) on the device, normalized unless `normalize` is given; targets: (N, ...)."""
        self.inputs, self.targets, self.normalize = inputs, targets, normalize

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, order: Tensor | None, batch_size: Sizes, start: int = 0) -> Iterator[Batch]:
        """See `Split.batches`."""
        sizes = sizes_of(batch_size, len(self) if order is None else len(order))
        first, sizes = sum(sizes[:start]), sizes[start:]
        if not sizes:
            return
        room = _BYTES_AT_ONCE.get(self.targets.device.type, 4 * 2**20)
        affordable = room // (max(sizes) * _sample_bytes(self.inputs))
        together = max(1, min(_BATCHES_AT_ONCE, affordable))
        groups = [sizes[i : i + together] for i in range(0, len(sizes), together)]
        for own, parts in zip(groups, self._chunks(order, [sum(own) for own in groups], first), strict=True):
            inputs, targets, indices = parts
            if self.normalize is not None:
                inputs = self.normalize(inputs)
            yield from map(Batch, *(t.split(own) for t in (inputs, targets, indices)))

    def _chunks(
        self, order: Tensor | None, chunks: list[int], first: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        if order is None:
            everything = torch.arange(len(self), device=self.targets.device)
            parts = (tensor[first:].split(chunks) for tensor in (self.inputs, self.targets, everything))
            yield from zip(*parts, strict=True)
            return
        for indices in to_device(order[first:], self.targets.device).split(chunks):
            yield self.inputs.index_select(0, indices), self.targets.index_select(0, indices), indices


class StreamingSplit:
    """A split too large for the device: worker processes read its samples in the requested order."""

    def __init__(
        self,
        reader: Reader,
        positions: Tensor,
        targets: Tensor,
        normalize: Normalizer,
        workers: int,
        worker_timeout: float = 60.0,
    ) -> None:
        """positions: (N,) positions of the split's samples in the reader; targets: (N, ...) on the device."""
        self.targets, self.normalize = targets, normalize
        self._positions, self._pool = (
            positions,
            WorkerPool(reader, workers, is_asynchronous(targets.device), worker_timeout),
        )

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, order: Tensor | None, batch_size: Sizes, start: int = 0) -> Iterator[Batch]:
        """See `Split.batches`."""
        whole = torch.arange(len(self)) if order is None else order
        sizes = sizes_of(batch_size, len(whole))
        read = self._pool.read([self._positions[chosen] for chosen in whole.split(sizes)[start:]])
        # one transfer for all indices of the epoch instead of one per batch
        on_device = to_device(whole, self.targets.device).split(sizes)[start:]
        for inputs, chosen in zip(self._normalized(read), on_device, strict=False):
            yield Batch(inputs, self.targets[chosen], chosen)

    def _normalized(self, host_batches: Iterable[Tensor]) -> Iterator[Tensor]:
        if is_asynchronous(self.targets.device):
            return prefetched(host_batches, self.normalize, self.targets.device)
        return map(self.normalize, host_batches)


def sizes_of(batch_size: Sizes, samples: int) -> list[int]:
    """Return the size of each batch of an epoch of `samples`; the last may be smaller."""
    if not isinstance(batch_size, int):
        return batch_size
    whole, rest = divmod(samples, batch_size)
    return [batch_size] * whole + [rest] * (rest > 0)


def prefetched(
    host_batches: Iterable[Tensor], normalize: Normalizer, device: torch.device
) -> Iterator[Tensor]:
    """Copy and normalize batch k+1 on a second stream while batch k is processed (L1)."""
    streams = streams_of(device)
    side = streams.Stream(device)
    # the statistics of the normalizer may still be on their way
    side.wait_stream(streams.current_stream(device))
    ahead: Tensor | None = None
    for host in host_batches:
        current, ahead = ahead, _copy_on(side, host, normalize, device)
        if current is not None:
            yield current
        # the main stream waits for the copy; the host does not
        streams.current_stream(device).wait_stream(side)
        ahead.record_stream(streams.current_stream(device))
    if ahead is not None:
        yield ahead


def _copy_on(side: Any, host: Tensor, normalize: Normalizer, device: torch.device) -> Tensor:
    with streams_of(device).stream(side):
        return normalize(host.to(device, non_blocking=True))


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return `tensor` on `device` without blocking the host, through pinned memory where the device is a GPU."""
    if is_asynchronous(device) and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _sample_bytes(inputs: Tensor) -> int:
    return max(1, inputs[0].numel() * inputs.element_size()) if len(inputs) else 1
