"""Reading samples ahead of time, in worker processes that live as long as the split."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dltrain.children import outside_working_folder
from dltrain.data.errors import BrokenSamples, DataError
from dltrain.data.progress import Progress
from dltrain.data.raw import Reader
from dltrain.processors import cores

# samples that a thread reads at a time; decoding an image releases the GIL, and a signal waits for these
_READ_AT_ONCE = 8
# batches that each worker reads ahead
_PREFETCH = 4
T = TypeVar("T")


def read_in_threads(reader: Reader, positions: Tensor, threads: int) -> Tensor:
    """Return the samples at `positions` (N,) in one tensor. threads: 0 for torch's number of threads."""
    found = torch.empty(len(positions), *reader.shape, dtype=torch.uint8)
    begin = 0
    for part in in_threads(reader.read, positions, threads):
        found[begin : begin + len(part)] = part
        begin += len(part)
    return found


def in_threads(read: Callable[[Tensor], T], positions: Tensor, threads: int = 0) -> Iterator[T]:
    """Yield `read(part)` for parts of `positions` (N,) in their order, while threads read ahead.

    Samples that cannot be read are left out of what is yielded, and named together at the end. Raises DataError.
    """
    threads = threads or cores()
    ahead: deque[Future[T]] = deque()
    broken: list[BrokenSamples] = []
    progress = Progress("reading ", len(positions))
    parts = iter(positions.split(_READ_AT_ONCE))
    pool = ThreadPoolExecutor(threads)
    try:
        for part in islice(parts, 4 * threads):
            ahead.append(pool.submit(read, part))
        while ahead:
            try:
                yield _awaited(ahead[0], progress)
            except BrokenSamples as error:
                broken.append(error)
            ahead.popleft()
            # the last part is smaller
            progress.advance(min(_READ_AT_ONCE, progress.total - progress.done))
            ahead.extend(pool.submit(read, part) for part in islice(parts, 1))
    finally:
        # an interrupt does not wait for what is still to be read
        pool.shutdown(wait=False, cancel_futures=True)
        progress.close()
    if broken:
        raise BrokenSamples.together(broken, len(positions))


def _awaited(future: Future[T], progress: Progress) -> T:
    while True:
        try:
            return future.result(timeout=0.2)
        except TimeoutError:
            if future.done():
                return future.result()
            progress.advance()


class WorkerPool:
    """Read lists of positions through `workers` processes (0: in this process), keeping their order."""

    def __init__(self, reader: Reader, workers: int, pin: bool, timeout: float = 60.0) -> None:
        self._reader, self._workers, self._pin, self._timeout = reader, workers, pin, timeout
        self._look_after = min(5.0, timeout)
        self._asked = _Asked()
        self._loader: DataLoader[Tensor | str] | None = None
        self._busy = False

    def read(self, positions: list[Tensor]) -> Iterator[Tensor]:
        """Yield one host tensor (B, ...) for each of `positions`. Raises DataError when a sample cannot be read."""
        # a second read during the first one, such as an evaluation in mid-epoch, must not use its workers
        if self._workers == 0 or self._busy:
            return self._read_here(positions)
        return self._read_there(positions)

    def _read_here(self, positions: list[Tensor]) -> Iterator[Tensor]:
        for chosen in positions:
            inputs = self._reader.read(chosen)
            yield inputs.pin_memory() if self._pin else inputs

    def _read_there(self, positions: list[Tensor]) -> Iterator[Tensor]:
        self._busy = True
        try:
            self._asked.positions = positions
            if self._loader is None:
                self._loader = self._start()
            with outside_working_folder():
                batches = iter(self._loader)
            while (read := self._next(batches)) is not None:
                yield _unwrapped(read)
        except (RuntimeError, ConnectionError, EOFError) as error:
            # torch reports a killed worker like this; it looks every 5 s, or at each timeout where one is given
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"a worker process that reads the data is gone: {reason}; try workers=0"
            ) from error
        finally:
            self._busy = False

    def _next(self, batches: Iterator[Tensor | str]) -> Tensor | str | None:
        """Return the next batch, None after the last. Each short wait lets torch look for dead workers."""
        waited = 0.0
        while True:
            try:
                return next(batches, None)
            except RuntimeError as error:
                waited += self._look_after
                if "timed out" not in str(error):
                    raise
                if waited >= self._timeout:
                    raise DataError(
                        f"the processes that read the data gave nothing for {self._timeout:g} s: one of them hangs; "
                        "try workers=0 to see where, or a longer worker_timeout"
                    ) from error

    def _start(self) -> DataLoader[Tensor | str]:
        return DataLoader(
            _Reading(self._reader),
            batch_size=None,
            sampler=self._asked,
            num_workers=self._workers,
            pin_memory=self._pin,
            prefetch_factor=_PREFETCH,
            timeout=self._look_after,
            worker_init_fn=_leave_signals_to_the_run,
            persistent_workers=True,
            multiprocessing_context=_context(),
            # otherwise the loader draws from the global generator
            generator=torch.Generator(),
        )


def _context() -> str:
    """Return `forkserver`: a fork of a process with threads (CUDA, TensorBoard) can hang; spawn takes seconds."""
    methods = torch.multiprocessing.get_all_start_methods()
    if "forkserver" not in methods:
        return "spawn"
    # torch is imported once, in the server, instead of in each worker
    torch.multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["torch", "dltrain.data.streaming"]
    )
    return "forkserver"


def _leave_signals_to_the_run(worker: int) -> None:
    """Ignore signals: they reach all processes of a terminal, and the run needs its workers until it has saved."""
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(signal.Signals[name], signal.SIG_IGN)


class _Asked:
    """Sampler of the positions of the current epoch, which the loader outlives."""

    positions: list[Tensor]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.positions)

    def __len__(self) -> int:
        return len(self.positions)


class _Reading(torch.utils.data.Dataset[Tensor | str]):
    """A reader as a torch dataset; a DataError is returned as text, since a worker's exception comes with its traceback."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __getitem__(self, positions: Tensor) -> Tensor | str:
        try:
            return self.reader.read(positions)
        except DataError as error:
            return str(error)


def _unwrapped(read: Tensor | str) -> Tensor:
    if isinstance(read, str):
        raise DataError(read)
    return read
