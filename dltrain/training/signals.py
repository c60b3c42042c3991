"""Signals that ask a run to stop: they are noted, and the loop saves at the next step boundary."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from dltrain.errors import UserError, typed
from dltrain.text import say

if TYPE_CHECKING:
    from torch import nn

# 128 + number for an interruption (SIGHUP: the terminal was closed), 75 ("try again") where a batch system is to requeue
# the job. Not every system has all of them.
_CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGUSR1": 75, "SIGUSR2": 75}
EXIT_CODES = {signal.Signals[name]: code for name, code in _CODES.items() if hasattr(signal, name)}
# Asks to end: a second one ends the process at once.
ENDINGS = tuple(number for number, code in EXIT_CODES.items() if code != 75)


def handled(numbers: Iterable[signal.Signals]) -> list[signal.Signals]:
    """Return the signals to handle: all of them, but SIGHUP where it is ignored, as `nohup` asks for."""
    return [n for n in numbers if n.name != "SIGHUP" or signal.getsignal(n) is not signal.SIG_IGN]


@contextmanager
def hangup_ignored() -> Iterator[None]:
    """Let processes that are started inside ignore SIGHUP: a closed terminal ends the driver and its jobs, in this order."""
    number = getattr(signal, "SIGHUP", None)
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, former)


@contextmanager
def held(number: signal.Signals) -> Iterator[None]:
    """Block a signal: processes that are started inside hold it back, and so do theirs, until `released`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def released(number: signal.Signals) -> None:
    """Deliver a signal that is held back in this process, now and from now on."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})


def leave_closed_terminal() -> None:
    """Redirect output from a closed terminal to the null device: writing there would raise in place of the save."""
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            with suppress(OSError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, descriptor)
                os.close(null)


class Interrupted(UserError):
    """The run was asked to stop; everything is saved. Its exit code is that of the signal."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class InterruptedWhenDone(Interrupted):
    """A signal came when only the end of the run was left, which was completed within `GRACE`: nothing is left to do."""


class Overdue(BaseException):
    """A signal has waited for `GRACE` seconds for the end of an evaluation, or of a run; no `except Exception` of a logger takes it."""


# An evaluation, or the end of a run, that takes less is completed; the rest of the two seconds is for saving and leaving
GRACE = 0.7

_early: list[int] = []  # signals that came before somebody listened


def hold_interrupt() -> None:
    """Keep a SIGINT until `Signals` listens: as a KeyboardInterrupt it could be lost, and where it is ignored it would be.

    A job of a sweep is told to end by its driver from the moment at which it says that it has begun.
    """
    signal.signal(signal.SIGINT, lambda number, frame: _early.append(number))


@contextmanager
def ended_by_signal(why: str) -> Iterator[None]:
    """Raise Interrupted inside, wherever it is, at a signal that asks to end; for work that loses nothing by it.

    why: what follows the name of the signal in the message
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        if signal.Signals(number).name == "SIGHUP":
            leave_closed_terminal()
        raise Interrupted(f"{signal.Signals(number).name} {why}", EXIT_CODES[signal.Signals(number)])

    former = {number: signal.signal(number, end) for number in handled(ENDINGS)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


_guests: list[bool] = []  # one entry inside `in_process_of_others`


@contextmanager
def in_process_of_others() -> Iterator[None]:
    """Let a second signal raise KeyboardInterrupt inside, and not end the process, which may be a notebook's kernel."""
    _guests.append(True)
    try:
        yield
    finally:
        _guests.pop()


class Signals:
    """Notes the first signal; a later SIGINT, SIGTERM or SIGHUP ends the process at once.

    Handlers save nothing: that would re-enter a save that is under way.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.deadline = float("inf")
        # whether the clock, and not only a forward pass, raises Overdue
        self.timed = False

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self._former = {number: signal.signal(number, self._note) for number in handled(EXIT_CODES)}
            if _early:
                self._note(_early.pop(), None)
        else:
            self._former = {}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if signal.Signals(number).name == "SIGHUP":
            leave_closed_terminal()
        if self.received is None:
            self.received, self.deadline = signal.Signals(number), time.monotonic() + GRACE
            self._arm()
        elif number in ENDINGS and _guests:
            raise KeyboardInterrupt(f"a second {signal.Signals(number).name}: the run stopped at once")
        elif number in ENDINGS:
            os._exit(EXIT_CODES[signal.Signals(number)])

    @contextmanager
    def ending(self, model: nn.Module) -> Iterator[None]:
        """Raise Overdue inside, from a forward pass of the model, once a signal has waited for `GRACE` seconds."""

        def look(*_: object) -> None:
            if time.monotonic() > self.deadline:
                raise Overdue

        hook = model.register_forward_pre_hook(look)
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def last_phase(self) -> Iterator[None]:
        """Raise Overdue inside, wherever it is, each time a signal has waited for `GRACE` seconds.

        For work of which nothing is lost: what is written there is written again by a resume. Not on Windows, and not
        outside of the main thread.
        """
        if not hasattr(signal, "setitimer") or not self._former:
            yield
            return
        former = signal.signal(signal.SIGALRM, self._alarm)
        self.timed = True
        self._arm()
        try:
            yield
        finally:
            self.timed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)

    def _arm(self) -> None:
        if self.timed and self.received is not None:
            pause = max(GRACE, 1e-3)
            signal.setitimer(signal.ITIMER_REAL, max(self.deadline - time.monotonic(), 1e-3), pause)

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        if self.timed:
            raise Overdue("a signal asked for the end")

    def check_done(self, folder: object) -> None:
        """Raise InterruptedWhenDone where a signal came while the run was ending; one that asks for a requeue is named only."""
        if self.received is None:
            return
        message = f"{self.received.name} at the end of the run: it is complete in {folder}, and nothing is left to do"
        if self.received in ENDINGS:
            raise InterruptedWhenDone(message, EXIT_CODES[self.received])
        say(message)

    def interruption(self, step: int, folder: object) -> Interrupted:
        """Return the exception to raise once all is saved."""
        assert self.received is not None
        name = self.received.name
        return Interrupted(
            f"{name} after step {step}: everything is saved. Go on with: {typed('resume', folder)}",
            EXIT_CODES[self.received],
        )
