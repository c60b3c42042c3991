"""What the plan of a run lets begin during it: an average of the weights, and parameters that thaw."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dltrain.averaging import Averaging
from dltrain.early_stopping import KeepBest
from dltrain.text import counted


@dataclass(frozen=True)
class Planned:
    """Something that begins during a run.

    Args:
        key: what chooses it, as on the command line
        begins: the first step whose evaluated weights show it; None where only the average itself knows
    """

    key: str
    begins: int | None
    averaging: Averaging | None = None

    def is_pending(self, step: int) -> bool:
        """Return whether the weights that are evaluated after `step` steps are those without it."""
        if self.begins is None:
            return self.averaging is not None and not self.averaging.started
        return step < self.begins

    @property
    def start(self) -> str:
        return "it has not begun" if self.begins is None else f"it acts from step {self.begins:,} on"


def planned_of(
    word: str, averaging: Averaging | None, thaws: Iterable[tuple[str, int]], steps_per_epoch: int
) -> tuple[Planned, ...]:
    """Return what begins during a run; an average says when with an attribute `begins`.

    Args:
        thaws: the keys of what thaws, with the number of epochs after which it does
    """
    thawing = [Planned(f"{key}={epoch}", epoch * steps_per_epoch + 1) for key, epoch in thaws]
    if averaging is None:
        return tuple(thawing)
    return Planned(f"averaging={word}", getattr(averaging, "begins", None), averaging), *thawing


def wait(stopping: object, planned: Iterable[Planned], step: int) -> None:
    """Let early stopping count from 0 while something planned has not begun: it gets its chance before the run stops."""
    if isinstance(stopping, KeepBest) and any(one.is_pending(step) for one in planned):
        stopping.restart()


def counts_from(planned: Iterable[Planned], evaluate_every: int) -> str:
    """Return from which step patience counts, where it does not from the first evaluation on."""
    late = [one for one in planned if one.begins is None or one.begins > evaluate_every]
    if not late:
        return ""
    last = max(late, key=lambda one: one.begins or 0)
    when = "once it has begun" if last.begins is None else f"from step {last.begins:,} on"
    return f"patience counts {when} ({last.key})"


def remarks(planned: Iterable[Planned], step: int, best_step: int) -> list[str]:
    """Return what was planned and is not in the weights of a run that ended at a step, a line each."""
    lines = []
    for one in planned:
        if one.is_pending(step):
            lines.append(
                f"{one.key} had no effect: {one.start}, and the run ended after {counted(step, 'step')}"
            )
        elif one.begins is not None and one.is_pending(best_step):
            lines.append(
                f"{one.key} is not in the best weights: {one.start}, and they are of step {best_step:,}"
            )
    return lines
