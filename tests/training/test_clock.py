"""The time of a run, alone and among runs that train together."""

from __future__ import annotations

import pytest

from dltrain.training import clock as module
from dltrain.training.clock import Clock


@pytest.fixture
def now(monkeypatch):
    moment = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: moment[0])
    return moment


def test_laps_and_sessions_add_up(now):
    clock = Clock()
    clock.earlier = 7.0
    now[0] += 5  # building: before the start
    clock.start(10)
    now[0] += 2
    assert clock.end_lap(14) == 4 / 2 and clock.lap == 2
    now[0] += 1  # saving: between two laps
    clock.start_lap(14)
    now[0] += 4
    assert clock.end_lap(16) == 2 / 4 and clock.lap == 4
    assert clock.seconds == 7 + 2 + 1 + 4


def test_runs_that_train_together_share_the_time(now):
    """Two of three stay after 6 s, one of them after 4 more: the sum is the time that passed."""
    clocks = [Clock() for _ in range(3)]
    for clock in clocks:
        clock.share(3)
        clock.start(0)
    now[0] += 6
    times = [clocks[0].seconds]
    for clock in clocks[1:]:
        clock.share(2)
    now[0] += 4
    times.append(clocks[1].seconds)
    clocks[2].share(1)
    now[0] += 5
    times.append(clocks[2].seconds)
    assert times == [2, 2 + 2, 2 + 2 + 5]
    assert sum(times) == 15
    assert clocks[2].end_lap(9) == pytest.approx(9 / 9)
