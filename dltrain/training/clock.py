"""Training time, by a clock that cannot jump."""

from __future__ import annotations

import time


class Clock:
    """Seconds of all sessions of a run, and of the lap between two evaluations."""

    def __init__(self) -> None:
        # seconds of the sessions before a resume
        self.earlier = 0.0
        self.lap = 0.0
        self.start(0)

    def start(self, step: int) -> None:
        """Start this session and its first lap."""
        self.started = time.monotonic()
        self.start_lap(step)

    def start_lap(self, step: int) -> None:
        self.lap_started, self.lap_step = time.monotonic(), step

    def end_lap(self, step: int) -> float:
        """Store the seconds of the lap in `lap`; return its steps per second."""
        self.lap = time.monotonic() - self.lap_started
        return (step - self.lap_step) / max(self.lap, 1e-9)

    @property
    def seconds(self) -> float:
        return self.earlier + time.monotonic() - self.started
