"""A schedule of a user's own: a function of the step, sized by the length of the run."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi
from typing import Annotated


def snapshots(total_steps: int, rounds: Annotated[int, ">= 1"] = 3) -> Callable[[int], float]:
    """Cosine annealing with restarts, a given number of equal rounds.

    Args:
        rounds: number of rounds
    """
    length = max(total_steps // rounds, 1)
    return lambda step: (1 + cos(pi * (step % length) / length)) / 2
