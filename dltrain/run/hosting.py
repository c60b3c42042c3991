"""Running inside a process that belongs to somebody else: a script, a test, a notebook, a server.

What a run changes for the whole process (threads, generators, flags, signal handlers, logging, modules) is as before
when it ends, however it ends. One call at a time: these things exist once in a process.
"""

from __future__ import annotations

import importlib
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from multiprocessing import spawn
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from dltrain.config.compose import hydra_kept
from dltrain.errors import FULL, ResourceProblem, UserError
from dltrain.training.signals import EXIT_CODES, Interrupted, in_process_of_others

_BUSY = threading.Lock()


class hosted:
    """Context manager that puts back what a call changes, and raises what the command line prints; imports no torch.

    `alone=False` is for a call that only reads, also while a run goes on. Raises UserError where another call is running,
    KeyboardInterrupt once an interrupted run is saved. A mistake's traceback begins where the caller's code ends.
    """

    def __init__(self, alone: bool = True) -> None:
        self.alone = alone

    def __enter__(self) -> None:
        if self.alone and not _BUSY.acquire(blocking=False):
            raise UserError(
                "Another run is going on in this process, and threads, generators and signals exist once in it.\n"
                "Wait for it to end; for several runs at a time: dltrain.sweep(…)"
            )
        keeps = (_keep_python, _keep_modules, _keep_signals, _keep_warnings, hydra_kept, in_process_of_others)
        try:
            self.stack = ExitStack()
            for keep in keeps if self.alone else (_keep_path,):
                self.stack.enter_context(keep())
        except BaseException:
            self._release()
            raise

    def _release(self) -> None:
        if self.alone:
            _BUSY.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stack.__exit__(kind, error, trace)
        finally:
            self._release()
        if isinstance(error, Interrupted) and error.exit_code == EXIT_CODES[signal.SIGINT]:
            # no Exception: a loop over runs that catches their errors must end, too
            raise KeyboardInterrupt(str(error)) from None
        if isinstance(error, UserError):
            raise error.with_traceback(None) from None
        if isinstance(error, OSError) and error.filename is not None and error.errno in FULL:
            # as in dltrain.cli
            raise ResourceProblem(f"{error.filename} cannot be written: {error.strerror}") from None


@contextmanager
def _keep_warnings() -> Iterator[None]:
    """Turn what the command line prints to stderr into warnings, and keep the filters."""
    with redirect_stderr(_Notices(sys.stderr)), warnings.catch_warnings():
        # tqdm, which optuna imports, says so in a notebook without ipywidgets; nothing here uses it
        warnings.filterwarnings("ignore", "IProgress not found")
        yield


class _Notices:
    """A stderr on which lines of dltrain become warnings; all else passes."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self.waiting = ""

    def write(self, text: str) -> int:
        *lines, self.waiting = (self.waiting + text).split("\n")
        for line in lines:
            if line.startswith("dltrain: "):
                warnings.warn(line.removeprefix("dltrain: "), stacklevel=2)
            elif self.stream is not None:
                self.stream.write(line + "\n")
        if self.waiting and not "dltrain: ".startswith(self.waiting[:9]) and self.stream is not None:
            self.stream.write(self.waiting)
            self.waiting = ""
        return len(text)

    def flush(self) -> None:
        if self.stream is not None:
            self.stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


@contextmanager
def _keep_python() -> Iterator[None]:
    """Keep the working folder, sys.path, the environment and Python's generator."""
    here, path, environment, state = os.getcwd(), list(sys.path), dict(os.environ), random.getstate()
    try:
        yield
    finally:
        os.chdir(here)
        sys.path[:] = path
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        random.setstate(state)


@contextmanager
def _keep_path() -> Iterator[None]:
    """Keep sys.path, to which building code of the working folder adds it."""
    path = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = path


@contextmanager
def _keep_modules() -> Iterator[None]:
    """Forget the modules of the working folder that a call imports, so that the next call sees an edited file.

    Inside, worker processes do not import `__main__`, which would run a script that calls us once more.
    """
    before, here = set(sys.modules), Path.cwd()
    prepare = spawn.get_preparation_data
    importlib.invalidate_caches()
    spawn.get_preparation_data = lambda name: {
        key: value for key, value in prepare(name).items() if not key.startswith("init_main")
    }
    try:
        yield
    finally:
        spawn.get_preparation_data = prepare
        for name in set(sys.modules) - before:
            if _is_of_user(getattr(sys.modules[name], "__file__", None), here):
                del sys.modules[name]


def _is_of_user(file: str | None, here: Path) -> bool:
    """Return whether a module's file belongs to the project in the working folder: neither installed there nor ours."""
    ours = Path(__file__).parents[1]
    path = Path(file) if file else Path("/")
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return path.is_relative_to(here) and not path.is_relative_to(ours) and not installed


@contextmanager
def _keep_signals() -> Iterator[None]:
    """Keep the handlers, also where an interrupt comes while they are being set."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in EXIT_CODES}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextmanager
def torch_kept() -> Iterator[None]:
    """Put back torch's threads, flags and generators, and numpy's; inside they are those of a new process."""
    import numpy as np
    import torch

    numbers = np.random.get_state()  # noqa: NPY002
    kept = _torch_flags()
    generator, seed = torch.get_rng_state(), torch.initial_seed()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    device = torch.get_default_device()
    torch.manual_seed(torch.Generator().initial_seed())
    torch.set_default_dtype(torch.float32)
    if device.type != "cpu":
        torch.set_default_device(None)
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(without_autocast())
            yield
    finally:
        if device.type != "cpu":
            torch.set_default_device(device)
        _set_torch_flags(kept)
        # also where CUDA is not initialized yet: it is seeded with the last seed
        if gpus is None:
            torch.cuda.manual_seed_all(seed)
        else:
            torch.cuda.set_rng_state_all(gpus)
        torch.set_rng_state(generator)
        np.random.set_state(numbers)  # noqa: NPY002


@contextmanager
def without_autocast() -> Iterator[None]:
    """Compute in the precision of the tensors, outside of an autocast of the caller."""
    import torch

    with ExitStack() as stack:
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def _torch_flags() -> dict[str, Any]:
    import torch

    return {
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "precision": torch.get_float32_matmul_precision(),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
    }


def _set_torch_flags(kept: dict[str, Any]) -> None:
    """Set the flags that differ: setting some of them imports modules."""
    import torch

    now = _torch_flags()
    changed = {name: value for name, value in kept.items() if value != now[name]}
    if "threads" in changed:
        torch.set_num_threads(changed["threads"])
    if "dtype" in changed:
        torch.set_default_dtype(changed["dtype"])
    if "precision" in changed:
        torch.set_float32_matmul_precision(changed["precision"])
    if "deterministic" in changed:
        mode, warn_only = changed["deterministic"]
        torch.use_deterministic_algorithms(mode, warn_only=warn_only)
    if "cudnn" in changed:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = changed["cudnn"]


@contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Write run.log of a folder; the handlers of the caller's process get from us no more than their level asks for."""
    from dltrain.run.record import logging_to

    root, ours = logging.getLogger(), logging.getLogger("dltrain")
    former, wanted = ours.level, ours.getEffectiveLevel()
    handlers = list(root.handlers)

    def is_asked_for(record: logging.LogRecord) -> bool:
        return record.levelno >= wanted or not record.name.startswith("dltrain")

    for handler in handlers:
        handler.addFilter(is_asked_for)
    ours.setLevel(min(wanted, logging.INFO))
    try:
        with logging_to(folder):
            yield
    finally:
        ours.setLevel(former)
        for handler in handlers:
            handler.removeFilter(is_asked_for)
