"""Scores of a split during training, with the averaged weights if averaging is on.

Batch-norm statistics belong to weights. Those that training keeps are of the weights at which gradients are computed; where
others are evaluated, they are recomputed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dltrain.averaging import recompute_batch_norm
from dltrain.batch_norm import batch_norms, size_without_rest
from dltrain.data.batches import Split
from dltrain.optimizers.stepping import OWN_AVERAGE, all_needs_of
from dltrain.seeding import sample_positions
from dltrain.training.evaluation import evaluate
from dltrain.training.forward import autocast
from dltrain.training.parts import Parts, Plan

# Recomputed batch-norm statistics come from all training samples up to this number, else from a random sample, in
# batches large enough for their statistics to be near those of the sample.
STATISTICS_SAMPLES, STATISTICS_BATCH = 10_000, 256


def has_foreign_statistics(parts: Parts) -> bool:
    """Return whether the model has batch norm and its optimizer computes gradients at other weights than it leaves in the model."""
    return OWN_AVERAGE in all_needs_of(parts.optimizer) and bool(batch_norms(parts.model))


def evaluates_other_tensors(parts: Parts) -> bool:
    """Return whether weights or statistics may be evaluated that are not those of the model between two steps."""
    return parts.averaging is not None or has_foreign_statistics(parts)


class Validation:
    """Evaluate the weights of a run on a split."""

    def __init__(self, parts: Parts, plan: Plan) -> None:
        self.parts, self.plan = parts, plan
        self.has_foreign_statistics = has_foreign_statistics(parts)
        # recomputed ones, with the step and whether they are of averaged weights
        self.statistics: tuple[tuple[int, bool], list[Tensor]] | None = None

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
        with self.evaluated(step):
            return self.score(self.parts.val)

    def zero_share(self, step: int) -> dict[str, float]:
        """Return the fraction of exact zeros in the weights that are evaluated, for a rule that measures it."""
        measuring = [rule for rule in self.parts.rules.weights if hasattr(rule, "zero_share")]
        if not measuring:
            return {}
        with self.evaluated(step):
            return {"zero_share": float(measuring[0].zero_share())}

    def weights(self, step: int) -> dict[str, Tensor]:
        """Return a copy of the weights that `scores` evaluates."""
        with self.evaluated(step):
            return {name: tensor.detach().clone() for name, tensor in self.parts.model.state_dict().items()}

    @contextmanager
    def evaluated(self, step: int) -> Iterator[None]:
        """Give the model the tensors that are evaluated, and restore its own afterwards.

        These are its averaged weights, if averaging is on and has started, or else its weights, with the batch-norm
        statistics that belong to them.
        """
        averaging = self.parts.averaging
        if averaging is None or not averaging.started:
            with self.own_statistics(step):
                yield
            return
        with averaging.swapped():
            self.set_statistics(step, averaged=True)
            yield

    @contextmanager
    def own_statistics(self, step: int) -> Iterator[None]:
        """Give the model the batch-norm statistics of the weights that it has, and restore the others afterwards."""
        if not self.has_foreign_statistics:
            yield
            return
        buffers = self.buffers()
        kept = [buffer.detach().clone() for buffer in buffers]
        self.set_statistics(step, averaged=False)
        try:
            yield
        finally:
            torch._foreach_copy_(buffers, kept)

    def buffers(self) -> list[Tensor]:
        return [buffer for norm in batch_norms(self.parts.model) for buffer in norm.buffers()]

    def set_statistics(self, step: int, averaged: bool) -> None:
        """Set the batch-norm statistics of the weights in the model, computed once for each step."""
        buffers = self.buffers()
        if not buffers:
            return
        if self.statistics is not None and self.statistics[0] == (step, averaged):
            torch._foreach_copy_(buffers, self.statistics[1])
            return
        with autocast(self.plan.device, self.plan.precision):
            recompute_batch_norm(self.parts.model, self.plain_inputs)
        self.statistics = (step, averaged), [buffer.detach().clone() for buffer in buffers]

    def plain_inputs(self) -> Iterator[Tensor]:
        """Yield training samples without augmentation, the same at every evaluation, in batches of at least two."""
        plan, train = self.plan, self.parts.train
        chosen = sample_positions(len(train), STATISTICS_SAMPLES, plan.seed, "statistics")
        size = size_without_rest(len(chosen), max(plan.batch_size // plan.accumulate, STATISTICS_BATCH))
        for batch in train.batches(chosen, size):
            yield batch.inputs
