"""Reading samples ahead of their use, in worker processes that live as long as the split."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dltrain.data.errors import DataError
from dltrain.data.raw import Reader

_READ_AT_ONCE = 64  # samples a thread reads at a time; decoding an image frees Python's lock
_PREFETCH = 4  # batches ahead of each worker


def read_in_threads(reader: Reader, positions: Tensor, threads: int) -> Tensor:
    """The samples at `positions` (N,) in one tensor; threads: 0 for as many as torch computes with."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads or torch.get_num_threads()) as pool:
        return torch.cat(list(pool.map(reader.read, positions.split(_READ_AT_ONCE))))


class WorkerPool:
    """Reads lists of positions through `workers` processes (0: in this one), keeping their order."""

    def __init__(self, reader: Reader, workers: int, pin: bool, timeout: float = 60.0) -> None:
        self._reader, self._workers, self._pin, self._timeout = reader, workers, pin, timeout
        self._look_after = min(5.0, timeout)
        self._asked = _Asked()
        self._loader: DataLoader[Tensor | str] | None = None
        self._busy = False

    def read(self, positions: list[Tensor]) -> Iterator[Tensor]:
        """One host tensor (B, ...) for each of `positions`; raises DataError when a sample cannot be read."""
        # a second reading while one is under way (say, an evaluation in mid-epoch) must not take over its
        # workers
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
            batches = iter(self._loader)
            while (read := self._next(batches)) is not None:
                yield _unwrapped(read)
        except (RuntimeError, ConnectionError, EOFError) as error:
            # torch's word for a worker that was killed; it looks every 5 s (and, given a time-out, only then)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"a worker process that reads the data is gone: {reason}; try workers=0"
            ) from error
        finally:
            self._busy = False

    def _next(self, batches: Iterator[Tensor | str]) -> Tensor | str | None:
        """The next batch, None after the last. torch looks for dead workers each time its own short wait is over."""
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
            generator=torch.Generator(),  # else the loader would draw from the global one
        )


def _context() -> str:
    """Fork server: a fork of a process with threads (CUDA's, TensorBoard's) can hang; spawn costs seconds."""
    methods = torch.multiprocessing.get_all_start_methods()
    if "forkserver" not in methods:
        return "spawn"
    # torch is imported once, in the server, and not once in each worker
    torch.multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["torch", "dltrain.data.streaming"]
    )
    return "forkserver"


def _leave_signals_to_the_run(worker: int) -> None:
    """Ctrl-C and a closed terminal reach all its processes: the run saves and stops; its readers must last until then."""
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(signal.Signals[name], signal.SIG_IGN)


class _Asked:
    """The positions of the epoch at hand: the loader outlives an epoch, its order does not."""

    positions: list[Tensor]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.positions)

    def __len__(self) -> int:
        return len(self.positions)


class _Reading(torch.utils.data.Dataset[Tensor | str]):
    """A reader as torch's loader wants it; trouble with the data comes back as text, not as a traceback."""

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
