"""Signals that ask a run to stop: they are noted, and the loop saves at the next step boundary."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

from dltrain.errors import UserError

# The exit code of each: 128 + number for an interruption, 75 ("try again") where a batch system is to requeue the job.
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 75, signal.SIGUSR2: 75}
_IMPATIENT = (signal.SIGINT, signal.SIGTERM)


class Interrupted(UserError):
    """The run was asked to stop; everything is saved. Its exit code is that of the signal."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Signals:
    """Notes the first signal; a later SIGINT or SIGTERM ends the process at once.

    Handlers do nothing else: saving inside of one would re-enter a save that is under way.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self._former = {number: signal.signal(number, self._note) for number in EXIT_CODES}
        else:
            self._former = {}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signal.Signals(number)
        elif number in _IMPATIENT:
            os._exit(EXIT_CODES[signal.Signals(number)])

    def interruption(self, step: int, folder: object) -> Interrupted:
        """What to raise once all is saved."""
        assert self.received is not None
        name = self.received.name
        return Interrupted(
            f"{name} after step {step}: everything is saved. Go on with: dltrain resume {folder}",
            EXIT_CODES[self.received],
        )
