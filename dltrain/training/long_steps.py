"""Steps that take longer than a signal may wait: they are given up, and the run ends at the step before."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from dltrain.optimizers.stepping import ONE_LOSS, needs_of
from dltrain.training.parts import Parts, Plan
from dltrain.training.running_means import RunningMeans
from dltrain.training.signals import GRACE, Overdue, Signals
from dltrain.training.state import State, stateful


class LongSteps:
    """Give up a step in which a signal has waited for `GRACE` seconds, at one of its forward passes.

    What the step has changed is put back from a copy, so that a resume repeats the step. A copy is made before each step of an optimizer
    that evaluates many times (line searches, curvature), and after a step that took longer than `GRACE`, of which it is a small part.
    """

    def __init__(
        self, parts: Parts, plan: Plan, state: State, running: RunningMeans, signals: Signals
    ) -> None:
        self.parts, self.state, self.running, self.signals = parts, state, running, signals
        self.evaluates_often = ONE_LOSS in needs_of(parts.optimizer)
        # a hook on a compiled model compiles it again
        self.possible = not plan.compile
        self.started = self.seconds = 0.0

    def __call__(self, interrupt: Callable[[], None]) -> AbstractContextManager[None]:
        """Return the context of a step; `interrupt` saves and raises, with the state before the step where it is given up."""
        is_long = self.possible and (self.evaluates_often or self.seconds > GRACE)
        return self.given_up(interrupt) if is_long else self

    # a generator takes twice as long, at every step
    def __enter__(self) -> None:
        self.started = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self.seconds = time.monotonic() - self.started

    @contextmanager
    def given_up(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Take the step inside; where a signal waits for it, put its changes back and call `interrupt`."""
        restore = self.kept()
        try:
            with self, self.signals.ending(self.parts.model):
                yield
        except Overdue:
            restore()
            interrupt()

    def kept(self) -> Callable[[], None]:
        """Copy what a step changes; return a function that puts it back."""
        parts, state = self.parts, self.state
        weights = {name: tensor.clone() for name, tensor in parts.model.state_dict().items()}
        optimizer = copy.deepcopy(parts.optimizer.state_dict())
        order = stateful(parts).get("order")
        drawn = copy.deepcopy(order.state_dict()) if order is not None else None
        sums, first_loss = self.running.state(), state.first_loss

        def restore() -> None:
            parts.model.load_state_dict(weights)
            parts.optimizer.load_state_dict(optimizer)
            if order is not None:
                order.load_state_dict(drawn)
            self.running.load(sums)
            state.first_loss = first_loss

        return restore
