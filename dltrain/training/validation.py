"""Scores of a split during training, with the averaged weights if averaging is on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dltrain.averaging import recompute_batch_norm
from dltrain.batch_norm import batch_norms, size_without_rest
from dltrain.data.batches import Split
from dltrain.seeding import sample_positions
from dltrain.training.evaluation import evaluate
from dltrain.training.forward import autocast
from dltrain.training.parts import Parts, Plan

# Batch-norm statistics of averaged weights come from all training samples up to this number, else from a random
# sample, in batches large enough for their statistics to be near those of the sample.
STATISTICS_SAMPLES, STATISTICS_BATCH = 10_000, 256


class Validation:
    """Evaluate the weights of a run on a split."""

    def __init__(self, parts: Parts, plan: Plan) -> None:
        self.parts, self.plan = parts, plan
        # of the averaged weights, with the step for which they were computed
        self.statistics: tuple[int, list[Tensor]] | None = None

    def score(self, split: Split) -> dict[str, float]:
        """Return the metrics of a split, with the weights that the model has."""
        parts, plan = self.parts, self.plan
        return evaluate(
            parts.model,
            split,
            parts.metrics,
            plan.evaluation_batch_size,
            plan.device,
            plan.precision,
            parts.measures,
        )

    def scores(self, step: int) -> dict[str, float]:
        """Return the metrics of the validation split; none without one."""
        if self.parts.val is None:
            return {}
        with self.averaged(step):
            return self.score(self.parts.val)

    def weights(self, step: int) -> dict[str, Tensor]:
        """Return a copy of the weights that `scores` evaluates."""
        with self.averaged(step):
            return {name: tensor.detach().clone() for name, tensor in self.parts.model.state_dict().items()}

    @contextmanager
    def averaged(self, step: int) -> Iterator[None]:
        """Give the model its averaged weights, if averaging is on and has started, and restore its own afterwards.

        Batch-norm statistics belong to weights: those of the averaged weights are recomputed.
        """
        averaging = self.parts.averaging
        if averaging is None or not averaging.started:
            yield
            return
        with averaging.swapped():
            self.set_statistics(step)
            yield

    def set_statistics(self, step: int) -> None:
        """Set the batch-norm statistics of the averaged weights, computed once for each step."""
        buffers = [buffer for norm in batch_norms(self.parts.model) for buffer in norm.buffers()]
        if not buffers:
            return
        if self.statistics is not None and self.statistics[0] == step:
            torch._foreach_copy_(buffers, self.statistics[1])
            return
        with autocast(self.plan.device, self.plan.precision):
            recompute_batch_norm(self.parts.model, self.plain_inputs)
        self.statistics = step, [buffer.detach().clone() for buffer in buffers]

    def plain_inputs(self) -> Iterator[Tensor]:
        """Yield training samples without augmentation, the same at every evaluation, in batches of at least two."""
        plan, train = self.plan, self.parts.train
        chosen = sample_positions(len(train), STATISTICS_SAMPLES, plan.seed, "statistics")
        size = size_without_rest(len(chosen), max(plan.batch_size // plan.accumulate, STATISTICS_BATCH))
        for batch in train.batches(chosen, size):
            yield batch.inputs
