"""Batches: every order, every size, from any batch on; streams through real workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from conftest import no_host_sync
from torch import Tensor

from dltrain.data import batches as batches_module
from dltrain.data.batches import ResidentSplit, StreamingSplit
from dltrain.data.errors import DataError
from dltrain.data.normalization import Normalizer

N = 1003
INPUTS = torch.arange(N * 6, dtype=torch.float32).view(N, 6)
TARGETS = torch.arange(N) % 7
ORDER = torch.randperm(N, generator=torch.Generator().manual_seed(0))


class Numbers:
    """A reader whose sample i holds the byte i mod 256; refuses one of them."""

    shape = (1, 2, 2)

    def __init__(self, count: int, bad: int = -1, kill: int = -1) -> None:
        self.count, self.bad, self.kill = count, bad, kill

    def __len__(self) -> int:
        return self.count

    def read(self, indices: Tensor) -> Tensor:
        if self.bad in indices.tolist():
            raise DataError(f"cannot read the image number_{self.bad}.jpg (truncated)")
        if self.kill in indices.tolist():
            os.kill(os.getpid(), signal.SIGKILL)
        return (indices % 256).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, *self.shape).contiguous()


def resident() -> ResidentSplit:
    return ResidentSplit(INPUTS, TARGETS)


def streaming(workers: int = 0, **keys: int) -> StreamingSplit:
    plain = Normalizer(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    return StreamingSplit(Numbers(2 * N, **keys), 2 * torch.arange(N), TARGETS, plain, workers)


@pytest.mark.parametrize("batch_size", [1, 7, 128, 1003, 5000])
@pytest.mark.parametrize("order", [ORDER, ORDER[:300], None, torch.zeros(10, dtype=torch.int64)])
def test_batches_follow_the_order(batch_size: int, order: Tensor | None) -> None:
    whole = torch.arange(N) if order is None else order
    given = list(resident().batches(order, batch_size))
    assert [len(batch.inputs) for batch in given] == [len(part) for part in whole.split(batch_size)]
    assert torch.cat([batch.indices for batch in given]).equal(whole)
    assert torch.cat([batch.inputs for batch in given]).equal(INPUTS[whole])
    assert torch.cat([batch.targets for batch in given]).equal(TARGETS[whole])


@pytest.mark.parametrize("split", [resident(), streaming()], ids=["resident", "streaming"])
@pytest.mark.parametrize("start", [0, 1, 3, 10, 15, 16, 99])
def test_starting_in_mid_epoch_gives_the_same_batches(
    split: ResidentSplit | StreamingSplit, start: int
) -> None:
    whole = list(split.batches(ORDER, 64))
    rest = list(split.batches(ORDER, 64, start))
    assert len(rest) == max(len(whole) - start, 0)
    for left, right in zip(whole[start:], rest, strict=True):
        assert all(a.equal(b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("split", [resident(), streaming()], ids=["resident", "streaming"])
@pytest.mark.parametrize("start", [0, 1, 9, 20, 21])
def test_batches_of_given_sizes(split: ResidentSplit | StreamingSplit, start: int) -> None:
    sizes = [3, 1, 40, 7, 7, 100, 2, 1, 64, 9, 5, 5, 5, 30, 1, 1, 77, 8, 8, 6]
    order = ORDER[: sum(sizes)]
    (whole,) = split.batches(order, len(order))
    given = list(split.batches(order, sizes, start))
    assert [len(batch.inputs) for batch in given] == sizes[start:]
    for batch, *expected in zip(given, *(part.split(sizes)[start:] for part in whole), strict=True):
        assert all(one.equal(other) for one, other in zip(batch, expected, strict=True))


def test_few_samples_are_gathered_at_once_when_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches_module, "_BYTES_AT_ONCE", {"cpu": 1})
    assert torch.cat([batch.indices for batch in resident().batches(ORDER, 100)]).equal(ORDER)


def test_a_batch_in_a_given_order_is_a_copy() -> None:
    split = ResidentSplit(INPUTS.clone(), TARGETS)
    next(iter(split.batches(ORDER, 8))).inputs.zero_()
    assert split.inputs.equal(INPUTS)


@pytest.mark.parametrize("order", [ORDER, None])
def test_a_stream_without_workers_reads_by_position(order: Tensor | None) -> None:
    given = list(streaming().batches(order, 100))
    whole = torch.arange(N) if order is None else order
    assert torch.cat([batch.indices for batch in given]).equal(whole)
    values = torch.cat([batch.inputs for batch in given])[:, 0, 0, 0] * 255
    assert values.round().long().equal(2 * whole % 256)


def test_an_unreadable_sample_of_a_stream_is_named() -> None:
    with pytest.raises(DataError, match="number_20.jpg"):
        list(streaming(bad=20).batches(ORDER, 64))


@pytest.fixture(scope="module")
def with_workers() -> StreamingSplit:
    return streaming(workers=2, bad=40)


@pytest.mark.ci
def test_workers_keep_the_order_over_epochs_and_touch_no_global_generator(
    with_workers: StreamingSplit,
) -> None:
    readable = ORDER[ORDER != 20]
    before = torch.get_rng_state()
    for start in (0, 3):
        given = list(with_workers.batches(readable, 64, start))
        assert torch.cat([batch.indices for batch in given]).equal(readable[start * 64 :])
        values = torch.cat([batch.inputs for batch in given])[:, 0, 0, 0] * 255
        assert values.round().long().equal(2 * readable[start * 64 :] % 256)
    assert torch.get_rng_state().equal(before)


@pytest.mark.ci
def test_a_second_reading_in_mid_epoch_leaves_the_first_alone(with_workers: StreamingSplit) -> None:
    readable = ORDER[ORDER != 20]
    outer = with_workers.batches(readable, 64)
    first = next(outer)
    inner = list(with_workers.batches(readable[:200], 50))
    assert torch.cat([batch.indices for batch in inner]).equal(readable[:200])
    rest = [first, *outer]
    assert torch.cat([batch.indices for batch in rest]).equal(readable)


def test_an_epoch_broken_off_does_not_leak_into_the_next(with_workers: StreamingSplit) -> None:
    readable = ORDER[ORDER != 20]
    abandoned = with_workers.batches(readable, 16)
    next(abandoned)
    del abandoned
    again = list(with_workers.batches(readable, 64))
    assert torch.cat([batch.indices for batch in again]).equal(readable)
    values = torch.cat([batch.inputs for batch in again])[:, 0, 0, 0] * 255
    assert values.round().long().equal(2 * readable % 256)


def test_an_unreadable_sample_in_a_worker_is_named_in_one_line(with_workers: StreamingSplit) -> None:
    with pytest.raises(DataError, match="^cannot read the image number_40.jpg .truncated.$"):
        list(with_workers.batches(ORDER, 64))


def test_a_killed_worker_is_an_error_and_no_hang() -> None:
    split = streaming(workers=1, kill=40)
    with pytest.raises(DataError, match="a worker process that reads the data is gone.*try workers=0"):
        list(split.batches(torch.arange(100), 10))


@pytest.mark.gpu
def test_on_a_gpu_streams_and_caches_give_the_same(tmp_path: Path) -> None:
    device = torch.device("cuda")
    plain = Normalizer(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    stream = StreamingSplit(
        Numbers(2 * N), 2 * torch.arange(N), TARGETS.to(device), plain.to(device), workers=2
    )
    given = list(stream.batches(ORDER, 64))
    assert torch.cat([batch.indices for batch in given]).cpu().equal(ORDER)
    values = torch.cat([batch.inputs for batch in given])[:, 0, 0, 0] * 255
    assert values.round().long().cpu().equal(2 * ORDER % 256)
    cached = ResidentSplit(INPUTS.to(device), TARGETS.to(device))
    with no_host_sync():
        parts = list(cached.batches(ORDER, 64))
    assert torch.cat([batch.inputs for batch in parts]).cpu().equal(INPUTS[ORDER])
