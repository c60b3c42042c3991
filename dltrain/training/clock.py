"""Training time, by a clock that cannot jump."""

from __future__ import annotations

import time


class Clock:
    """Seconds of all sessions of a run, and of the lap between two evaluations.

    Of runs that train together, each has an equal share of the time, so that the sum of all is the time that passed.
    """

    def __init__(self) -> None:
        # seconds of the sessions before a resume
        self.earlier = 0.0
        self.lap = 0.0
        self.shared_by = 1
        self.start(0)

    def start(self, step: int) -> None:
        """Start this session and its first lap."""
        self.spent, self.read_at = 0.0, time.monotonic()
        self.start_lap(step)

    def share(self, runs: int) -> None:
        """Divide the time from now on among so many runs."""
        self._read()
        self.shared_by = runs

    def start_lap(self, step: int) -> None:
        self.lap_started, self.lap_step = self._read(), step

    def end_lap(self, step: int) -> float:
        """Store the seconds of the lap in `lap`; return its steps per second."""
        self.lap = self._read() - self.lap_started
        return (step - self.lap_step) / max(self.lap, 1e-9)

    @property
    def seconds(self) -> float:
        return self.earlier + self._read()

    def _read(self) -> float:
        """Return the seconds of this session."""
        now = time.monotonic()
        self.spent += (now - self.read_at) / self.shared_by
        self.read_at = now
        return self.spent
