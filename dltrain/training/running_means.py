"""Means over the samples since the last evaluation and since the last log point, added up where the numbers are."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dltrain.training.parts import Metric

HELD_BATCHES, HELD_LOGITS = 32, 1 << 18  # scored together: at most so many batches, and 1 MB of logits


class RunningMeans:
    """The means of the metrics, in float64 on the device, read by the host only in `means` and `take_recent`.

    `known` names the metric whose values the step has computed anyhow: the loss that is minimized.
    Batches are held and scored many at once: on a small step each call of a metric costs as much for 128 logits as
    for 4,096. Each batch is summed on its own all the same, so that no sum depends on when it was scored.
    """

    def __init__(self, metrics: Mapping[str, Metric], known: str, device: torch.device) -> None:
        self.metrics, self.known = metrics, known
        self.share(torch.zeros(1 + len(metrics), 2, dtype=torch.float64, device=device))
        self.held: list[tuple[Tensor, Tensor, Tensor]] = []
        self.held_logits = 0

    def share(self, sums: Tensor) -> None:
        """Add up in this tensor (1 + metrics, 2) from now on: the number of samples, then the sums of the metrics in their order.

        The first column is since the last evaluation, the second since the last log point or evaluation; one call adds to both.
        """
        self.sums = sums
        # views of it: to index it at every step costs 1 % of a small one
        self.count, *columns = sums.unbind()
        totals = dict(zip(self.metrics, columns, strict=True))
        self.known_sum = totals.pop(self.known)
        self.computed = [(self.metrics[name], total) for name, total in totals.items()]

    def add(self, known: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add a batch: the sum () of the known metric, its logits (B, K) and targets, none of which has a graph."""
        if self.held and targets.ndim != self.held[0][2].ndim:  # class indices, then mixed ones
            self.flush()
        self.held.append((known, logits, targets))
        self.held_logits += logits.numel()
        if len(self.held) >= HELD_BATCHES or self.held_logits >= HELD_LOGITS:
            self.flush()

    def flush(self) -> None:
        """Score the batches that wait."""
        if not self.held:
            return
        known, logits, targets = zip(*self.held, strict=True)
        self.held, self.held_logits = [], 0
        sizes = [len(batch) for batch in logits]
        self.count += sum(sizes)
        for value in known:
            self.known_sum += value
        if self.computed:
            scored = torch.cat(logits), torch.cat(targets)
            for metric, total in self.computed:
                for batch in metric(*scored).split(sizes):
                    total += batch.sum()

    def means(self) -> dict[str, float]:
        """Return the mean of each metric since the last evaluation, by name; NaN without samples. The host waits for the device."""
        return self._means_of(0)

    def take_recent(self) -> dict[str, float]:
        """Return the means since the last log point or evaluation, and begin the next ones. The host waits for the device."""
        means = self._means_of(1)
        self.sums[:, 1] = 0
        return means

    def _means_of(self, column: int) -> dict[str, float]:
        self.flush()
        count, *sums = self.sums[:, column].tolist()
        return {
            name: value / count if count else math.nan for name, value in zip(self.metrics, sums, strict=True)
        }

    def state(self) -> Tensor:
        """Return a copy of the sums of `share`."""
        self.flush()
        return self.sums.clone()

    def load(self, sums: Tensor) -> None:
        """Go on from the sums of a `state`."""
        self.held, self.held_logits = [], 0
        self.sums.copy_(sums)

    def reset(self) -> None:
        """Set the sums to zero."""
        self.load(torch.zeros_like(self.sums))
