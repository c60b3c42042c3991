"""Metrics that follow from sums over the samples, but are no means: accumulated in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from dltrain.metrics.protocol import Metric
from dltrain.metrics.samples import classes_of
from dltrain.ranges import Count


class RMSE(Metric):
    """Root of the mean squared error, in the units of the targets.

        mean_k √(mean_i (z_ik − y_ik)²)

    Symbols: z outputs; y targets; k over the target columns
    Use: regression; large errors count more than in mae.
    """

    direction = "min"
    needs = frozenset({"quantities"})

    def __init__(self) -> None:
        self.samples, self.squares = 0, torch.zeros((), dtype=torch.float64)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        errors = outputs.double() - targets.double().reshape(outputs.shape)
        self.samples += len(errors)
        self.squares = self.squares.to(errors.device, non_blocking=True) + errors.square().sum(0)

    def compute(self) -> Tensor:
        return (self.squares / self.samples).sqrt().mean() if self.samples else torch.tensor(torch.nan)


class R2(Metric):
    """Coefficient of determination: the fraction of the variance of the targets that is explained.

        mean_k 1 − Σ_i (z_ik − y_ik)² / Σ_i (y_ik − ȳ_k)²

    0 for the mean of the split as a constant guess, negative for what is worse. A constant column counts 1 if it is
    predicted exactly, else 0, as in scikit-learn; NaN for less than two samples.

    Symbols: z outputs; y targets; ȳ their mean over the split; k over the target columns
    Use: regression; comparable between targets of different units.
    """

    direction = "max"
    needs = frozenset({"quantities"})

    def __init__(self) -> None:
        zero = torch.zeros((), dtype=torch.float64)
        self.samples, self.mean, self.variation, self.squares = 0, zero, zero, zero
        # by comparison, since the mean of equal numbers such as 0.1 is rounded
        self.low, self.high = zero + torch.inf, zero - torch.inf

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        truth = targets.double().reshape(outputs.shape)
        new, mean = len(truth), truth.mean(0)
        total = self.samples + new
        shift = mean - self.mean.to(mean.device, non_blocking=True)
        # merged batch by batch (Chan et al. 1979): sums of squares would lose the digits of a large offset
        self.variation = (
            self.variation.to(mean.device, non_blocking=True)
            + (truth - mean).square().sum(0)
            + shift.square() * (self.samples * new / total)
        )
        self.mean = mean if self.samples == 0 else self.mean + shift * (new / total)
        self.squares = self.squares.to(mean.device, non_blocking=True) + (
            outputs.double() - truth
        ).square().sum(0)
        self.low = torch.minimum(self.low.to(mean.device, non_blocking=True), truth.amin(0))
        self.high = torch.maximum(self.high.to(mean.device, non_blocking=True), truth.amax(0))
        self.samples = total

    def compute(self) -> Tensor:
        if self.samples < 2:
            return torch.tensor(torch.nan)
        constant = self.low == self.high
        explained = 1 - self.squares / torch.where(constant, 1.0, self.variation)
        return torch.where(constant, (self.squares == 0).double(), explained).mean()


class CalibrationError(Metric):
    """Expected calibration error: distance of predicted probabilities from the share that is right.

        Σ_b (n_b/N)·|accuracy_b − confidence_b|

    Symbols: b bins of equal width of the largest softmax probability; n_b samples in the bin; N all samples
    Use: when probabilities are used, not only classes.
    Defaults: 15 bins.
    Paper: Guo et al. 2017, arXiv:1706.04599

    Args:
        bins: number of bins
    """

    direction = "min"
    needs = frozenset({"classes"})

    def __init__(self, bins: Count = 15) -> None:
        # for each bin: samples, sum of the probabilities, samples that are right
        self.bins, self.sums = bins, torch.zeros(3, bins, dtype=torch.float64)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        confidence, predicted = outputs.double().softmax(1).max(1)
        # a bin holds its upper edge, as in the paper
        places = ((confidence * self.bins).ceil().long() - 1).clamp(0, self.bins - 1)
        right = (predicted == classes_of(outputs, targets)).double()
        found = torch.stack([torch.ones_like(confidence), confidence, right])
        self.sums = self.sums.to(found.device, non_blocking=True).index_add(1, places, found)

    def compute(self) -> Tensor:
        samples, confidence, right = self.sums
        return (right - confidence).abs().sum() / samples.sum()
