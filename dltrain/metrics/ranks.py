"""Metrics of the order of the outputs: they keep all outputs of a split and are exact, in float64, ties included."""

from __future__ import annotations

import torch
from torch import Tensor

from dltrain.data.spec import DataSpec
from dltrain.metrics.counts import Average, averaged, positive_class
from dltrain.metrics.protocol import Metric
from dltrain.metrics.samples import classes_of


class _Kept(Metric):
    """A metric of all outputs and targets of a split."""

    def __init__(self) -> None:
        self.batches: list[tuple[Tensor, Tensor]] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        # a resident split hands out views of itself
        self.batches.append((outputs, targets.clone()))

    def compute(self) -> Tensor:
        if not self.batches:
            return torch.tensor(torch.nan)
        outputs, targets = (torch.cat(column) for column in zip(*self.batches, strict=True))
        # NaN has a rank, too: the last
        if not bool(outputs.isfinite().all()):
            return torch.tensor(torch.nan)
        return self.value(outputs.double(), targets)

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the metric of all outputs (N, K) float64 and targets."""
        raise NotImplementedError


class _OneAgainstRest(_Kept):
    """A metric of the probability of each class against whether a sample has it, averaged over the classes."""

    direction = "max"
    needs = frozenset({"classes"})

    def __init__(self, spec: DataSpec, average: Average = "macro", positive: str | int | None = None) -> None:
        super().__init__()
        self.average, self.positive = average, positive_class(spec, average, positive)

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        scores, classes = outputs.softmax(1), classes_of(outputs, targets)
        truth = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, classes[:, None], True)
        if self.average == "micro":
            return self.binary(scores.flatten(), truth.flatten())
        values = torch.stack([self.binary(s, t) for s, t in zip(scores.T, truth.T, strict=True)])
        return averaged(values, truth.sum(0).double(), ~values.isnan(), self.average, self.positive)

    def binary(self, scores: Tensor, truth: Tensor) -> Tensor:
        """Return the metric of scores (N,) for the samples where `truth` (N,); NaN where it is not defined."""
        raise NotImplementedError


class AUROC(_OneAgainstRest):
    """Area under the ROC curve: how often a sample of a class is ranked above one of another class.

        a_k = P(p_ik > p_jk) + P(p_ik = p_jk)/2, with y_i = k ≠ y_j

    A class without samples in the split, or with all of them, is left out; NaN where no class is left.

    Symbols: p softmax of the outputs; y classes
    Use: ranking, and classes of different frequency; it does not depend on a threshold. A constant guess has 1/2.
    Defaults: the mean over classes, one against the rest (macro).
    Paper: Hanley & McNeil 1982; Fawcett 2006

    Args:
        average: macro, the mean over the classes; weighted, by their frequency in the targets; micro, the probabilities
            of all classes ranked together; binary, of the class `positive` alone
        positive: name of the class of average=binary; unset, the second of two
    """

    # of two classes: one is ranked above the other as often as the other below it
    equal_for_two = True

    def binary(self, scores: Tensor, truth: Tensor) -> Tensor:
        positives, negatives = scores[truth], scores[~truth].sort().values
        below = torch.searchsorted(negatives, positives)
        upto = torch.searchsorted(negatives, positives, right=True)
        # without pairs: 0/0, which is NaN
        return (below + upto).double().sum() / (2 * len(positives) * len(negatives))


class AveragePrecision(_OneAgainstRest):
    """Average precision: the area under the curve of precision over recall, as a step function.

        mean over samples i of class k of (samples j of class k with p_jk ≥ p_ik) / (all samples j with p_jk ≥ p_ik)

    A class without samples in the split is left out.

    Symbols: p softmax of the outputs
    Use: rare classes; a constant guess has the frequency of the class.
    Defaults: the mean over classes, one against the rest (macro).
    Paper: Zhu 2004

    Args:
        average: macro, the mean over the classes; weighted, by their frequency in the targets; micro, the probabilities
            of all classes ranked together; binary, of the class `positive` alone
        positive: name of the class of average=binary; unset, the second of two
    """

    def binary(self, scores: Tensor, truth: Tensor) -> Tensor:
        positives = scores[truth]
        # of no positives: NaN
        return (at_least(positives, positives) / at_least(scores, positives)).mean()


class Spearman(_Kept):
    """Spearman's rank correlation of outputs and targets.

        corr(rank z, rank y), the mean over the target columns; equal values have the mean of their ranks

    NaN where outputs or targets are constant.

    Symbols: z outputs; y targets
    Use: regression where the order matters, not the scale.
    Paper: Spearman 1904
    """

    direction = "max"
    needs = frozenset({"quantities"})

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        columns = zip(outputs.T, targets.double().reshape(outputs.shape).T, strict=True)
        return torch.stack([correlation(midranks(z), midranks(y)) for z, y in columns]).mean()


def midranks(values: Tensor) -> Tensor:
    """Return the ranks (N,) of values, from 1; equal values have the mean of their ranks."""
    values = values.contiguous()
    ordered = values.sort().values
    below = torch.searchsorted(ordered, values)
    return (below + torch.searchsorted(ordered, values, right=True) + 1).double() / 2


def at_least(values: Tensor, bounds: Tensor) -> Tensor:
    """Return how many of `values` (N,) are at least each of `bounds` (M,)."""
    return (len(values) - torch.searchsorted(values.sort().values, bounds)).double()


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Return the correlation of two vectors; NaN where one of them is constant."""
    one, other = one - one.mean(), other - other.mean()
    below = (one.square().sum() * other.square().sum()).sqrt()
    return (one @ other) / below if float(below) > 0 else below * torch.nan
