"""The reaction to a step whose loss or gradient is not finite: stop, skip it, or roll back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dltrain.data.spec import Batch
from dltrain.optimizers.stepping import OWN_EVALUATIONS, needs_of
from dltrain.storage.run_folder import RunFolder
from dltrain.text import shown
from dltrain.training.guard import NonFinite, first_in_forward, first_non_finite
from dltrain.training.parts import Parts, Plan
from dltrain.training.running_means import RunningMeans
from dltrain.training.state import State, load_weights

# beyond these the run cannot recover, and stops
SKIPS_IN_A_ROW, ROLLBACKS = 10, 3
_NAMED = 8
_log = logging.getLogger(__name__)


class Stop:
    """End the run."""

    # steps that were skipped or rolled back are counted in metrics.csv
    counts = False
    # last line of the message of a run that it ends
    advice = "non_finite=skip leaves such a step out."

    def __init__(
        self, parts: Parts, plan: Plan, folder: RunFolder, state: State, running: RunningMeans
    ) -> None:
        self.parts, self.plan, self.folder = parts, plan, folder
        self.state, self.running = state, running

    @contextmanager
    def __call__(self, batch: Batch) -> Iterator[None]:
        """Apply the policy to the step that is taken inside, of a batch as the model sees it."""
        try:
            yield
        except NonFinite as error:
            raise self.explained(error, batch) from None

    def explained(self, error: NonFinite, batch: Batch) -> NonFinite:
        """Return the error with the samples of its step and the first tensor, in the order of computation."""
        model = self.parts.model
        first = first_non_finite(model)
        if first is None or not first.startswith("the weight"):
            first = first_in_forward(model, batch.inputs) or first
        return NonFinite(error.step, error.loss, first, self.samples(batch.indices.cpu()))

    def samples(self, indices: Tensor) -> str:
        """Return where samples of the training split come from: `58, 60 of house.csv`, counted from 1 as in other messages."""
        source = self.parts.prepared.source if self.parts.prepared else None
        if source is None:
            return ", ".join(str(i + 1) for i in indices[:_NAMED].tolist())
        places = source.locate(source.positions["train"][indices])
        more = ", …" if len(indices) > _NAMED else ""
        named = f"{', '.join(map(str, places.rows[:_NAMED].tolist()))}{more}"
        return f"{named} of {shown(places.file)}" if places.file else named


class Skip(Stop):
    """Restore what the step changed, and continue with the next batch."""

    counts = True
    advice = f"With non_finite=skip the run ends after more than {SKIPS_IN_A_ROW} such steps in a row."

    @contextmanager
    def __call__(self, batch: Batch) -> Iterator[None]:
        state, moved = self.state, self.moved()
        sums, first, before = self.running.state(), state.first_loss, [tensor.clone() for tensor in moved]
        try:
            yield
            state.bad_in_a_row = 0
        except NonFinite as error:
            explained = self.explained(error, batch)
            self.running.load(sums)
            state.first_loss = first
            with torch.no_grad():
                for tensor, former in zip(moved, before, strict=True):
                    tensor.copy_(former)
            state.bad_steps += 1
            state.bad_in_a_row += 1
            _log.warning(
                "step %d is not finite (%s): %s", state.step + 1, explained.first, self.plan.non_finite
            )
            for parameter in self.parts.model.parameters():
                parameter.grad = None
            self.recover()
            if self.exhausted():
                raise explained from None

    def moved(self) -> list[Tensor]:
        """Return what a step may change before it is found bad: buffers, and the weights where the optimizer evaluates elsewhere."""
        model = self.parts.model
        elsewhere = OWN_EVALUATIONS in needs_of(self.parts.optimizer)
        return [*model.buffers(), *(model.parameters() if elsewhere else ())]

    def recover(self) -> None:
        """Do nothing: the weights are those before the step."""

    def exhausted(self) -> bool:
        return self.state.bad_in_a_row > SKIPS_IN_A_ROW


class RollBack(Skip):
    """Load weights, optimizer and averages of the newest checkpoint, and continue with the next batch."""

    advice = f"With non_finite=rollback the run ends after more than {ROLLBACKS} such steps, or {SKIPS_IN_A_ROW} in a row."

    def recover(self) -> None:
        self.folder.wait()
        checkpoint = self.folder.newest_checkpoint()
        if checkpoint is not None:
            load_weights(self.parts, checkpoint.weights(), checkpoint.state())

    def exhausted(self) -> bool:
        return super().exhausted() or self.state.bad_steps > ROLLBACKS


POLICIES = {"stop": Stop, "skip": Skip, "rollback": RollBack}
