"""Metrics of classes that follow from the confusion matrix: its counts are exact for batches of any size.

Classes that occur neither among the targets nor among the predictions take no part in a macro mean, as in scikit-learn;
0/0 is 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

from dltrain.data.spec import DataSpec
from dltrain.errors import nearest
from dltrain.metrics.protocol import Metric
from dltrain.metrics.samples import classes_of

Average = Literal["macro", "micro", "weighted", "binary"]


def confusion_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return counts (C, C) float64 of true class (row) and predicted class (column)."""
    size = outputs.shape[1]
    cells = classes_of(outputs, targets) * size + outputs.argmax(1)
    counts = torch.zeros(size * size, dtype=torch.float64, device=outputs.device)
    ones = torch.ones(len(cells), dtype=torch.float64, device=outputs.device)
    return counts.index_add_(0, cells, ones).view(size, size)


class Counted(Metric):
    """A metric of the confusion matrix, which depends on the predicted classes alone."""

    direction = "max"
    needs = frozenset({"classes"})

    def __init__(self) -> None:
        self.counts: Tensor | None = None

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        found = confusion_of(outputs, targets)
        self.counts = found if self.counts is None else self.counts + found

    def compute(self) -> Tensor:
        return torch.tensor(torch.nan) if self.counts is None else self.value(self.counts)

    def value(self, counts: Tensor) -> Tensor:
        """Return the metric of a confusion matrix (C, C)."""
        raise NotImplementedError


class _Averaged(Counted):
    """A ratio for each class, averaged over the classes."""

    def __init__(self, spec: DataSpec, average: Average = "macro", positive: str | int | None = None) -> None:
        super().__init__()
        self.average, self.positive = average, positive_class(spec, average, positive)

    def value(self, counts: Tensor) -> Tensor:
        above, below = self.parts(counts)
        if self.average == "micro":
            return ratio(above.sum(), below.sum())
        present = (counts.sum(0) + counts.sum(1)) > 0
        return averaged(ratio(above, below), counts.sum(1), present, self.average, self.positive)

    def parts(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Return numerators and denominators (C,) of the ratio."""
        raise NotImplementedError


class Precision(_Averaged):
    """Precision: the fraction of predictions of a class that are right.

        p_k = TP_k / (TP_k + FP_k)

    Symbols: TP_k samples of class k predicted as k; FP_k samples of other classes predicted as k
    Use: when a false alarm is expensive.
    Defaults: the mean over classes (macro).

    Args:
        average: macro, the mean over the classes; weighted, by their frequency in the targets; micro, all classes
            counted together, which is accuracy; binary, of the class `positive` alone
        positive: name of the class of average=binary; unset, the second of two
    """

    def parts(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        return counts.diagonal(), counts.sum(0)


class Recall(_Averaged):
    """Recall: the fraction of the samples of a class that are found.

        r_k = TP_k / (TP_k + FN_k)

    Symbols: TP_k samples of class k predicted as k; FN_k samples of class k predicted as another
    Use: when a miss is expensive.
    Defaults: the mean over classes (macro).

    Args:
        average: macro, the mean over the classes; weighted, by their frequency in the targets; micro, all classes
            counted together, which is accuracy; binary, of the class `positive` alone
        positive: name of the class of average=binary; unset, the second of two
    """

    def parts(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        return counts.diagonal(), counts.sum(1)


class F1(_Averaged):
    """F1 score: the harmonic mean of precision and recall.

        f_k = 2·TP_k / (2·TP_k + FP_k + FN_k)

    Symbols: TP, FP, FN true positives, false positives and false negatives of class k
    Use: classes of different frequency.
    Defaults: the mean over classes (macro).

    Args:
        average: macro, the mean over the classes; weighted, by their frequency in the targets; micro, all classes
            counted together, which is accuracy; binary, of the class `positive` alone
        positive: name of the class of average=binary; unset, the second of two
    """

    def parts(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * counts.diagonal(), counts.sum(0) + counts.sum(1)


class BalancedAccuracy(Counted):
    """Balanced accuracy: the mean of the recalls of the classes that occur.

        mean_k TP_k / (TP_k + FN_k)

    Symbols: TP_k samples of class k predicted as k; FN_k samples of class k predicted as another
    Use: classes of different frequency; a constant guess has 1/C.
    Paper: Brodersen et al. 2010
    """

    def value(self, counts: Tensor) -> Tensor:
        support = counts.sum(1)
        return averaged(ratio(counts.diagonal(), support), support, support > 0, "macro")


class CohenKappa(Counted):
    """Cohen's kappa: agreement of predictions and targets beyond that of chance.

        κ = 1 − Σ w_jk·n_jk / Σ w_jk·n_j·m_k/N
        w_jk = [j ≠ k] (none), |j − k| (linear) or (j − k)² (quadratic)

    NaN where all samples have one class and are predicted as it.

    Symbols: n_jk samples of class j predicted as k; n_j, m_k sums of rows and columns; N samples; with weights j and k are
        places in `order`
    Use: classes of different frequency; with weights, classes that are ordered.
    Defaults: no weights.
    Paper: Cohen 1960; Cohen 1968 (weights)

    Args:
        weights: how much a confusion counts: none, all alike; else by the distance of the classes in `order`
        order: all classes from the lowest to the highest, as in [low,medium,high]; unset, numbers by their value and texts in the
            order of the data's classes, which is alphabetical for tables and folders
    """

    def __init__(
        self,
        spec: DataSpec,
        weights: Literal["none", "linear", "quadratic"] = "none",
        order: Sequence[str] | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.weights = weights
        if order is not None and weights == "none":
            raise ValueError(
                f"order is {brief(order)}, and weights is none, which counts all confusions alike; set weights=quadratic, "
                "or leave order out"
            )
        self.order = ordered(names_in(spec), order)
        # of each class, its place in the order
        self.places = [self.order.index(name) for name in names_in(spec)]

    def value(self, counts: Tensor) -> Tensor:
        classes = torch.tensor(self.places, dtype=counts.dtype).to(counts.device)
        distance = (classes[:, None] - classes).abs()
        weights = {"none": (distance > 0).to(counts), "linear": distance, "quadratic": distance.square()}
        chance = torch.outer(counts.sum(1), counts.sum(0)) / counts.sum()
        costs = weights[self.weights]
        return 1 - (costs * counts).sum() / (costs * chance).sum()


class MCC(Counted):
    """Matthews correlation coefficient of predictions and targets; 0 for a constant guess.

        (c·N − Σ_k n_k·m_k) / √((N² − Σ m_k²)·(N² − Σ n_k²))

    Symbols: c samples predicted right; n_k samples of class k; m_k predictions of class k; N samples
    Use: classes of different frequency; all four cells of a binary confusion matrix count.
    Paper: Gorodkin 2004
    """

    def value(self, counts: Tensor) -> Tensor:
        total, truth, found = counts.sum(), counts.sum(1), counts.sum(0)
        above = counts.trace() * total - truth @ found
        below = (total**2 - found @ found) * (total**2 - truth @ truth)
        return ratio(above, below.sqrt())


def names_in(spec: DataSpec) -> tuple[str, ...]:
    """Return the names of the classes; their numbers where they have none."""
    return spec.class_names or tuple(map(str, range(spec.num_classes)))


def brief(names: Iterable[object]) -> str:
    """Return at most twenty names."""
    found = [str(name) for name in names]
    return ", ".join(found[:20]) + " …" * (len(found) > 20)


def values_of(names: Sequence[str]) -> list[float]:
    """Return the values of names that are all different finite numbers; none for others."""
    try:
        values = [float(name) for name in names]
    except ValueError:
        return []
    return values if len(set(values)) == len(values) and all(map(math.isfinite, values)) else []


def ordered(names: Sequence[str], order: Sequence[object] | None) -> list[str]:
    """Return the classes in a given order; without one, numbers by value and texts as they are. Raises ValueError for one that lacks a class."""
    if order is None:
        values = values_of(names)
        return [name for _, name in sorted(zip(values, names, strict=True))] if values else list(names)
    given = [str(name) for name in order]
    for name in given:
        if name not in names:
            raise ValueError(
                f"order has {name}, which is no class; the classes are {brief(names)}.{nearest(name, names)}"
            )
    lacking = [name for name in names if name not in given]
    if lacking or len(given) > len(names):
        what = f"lacks {brief(lacking)}" if lacking else "has a class twice"
        raise ValueError(f"order is {brief(given)}, which {what}; it must have each class once")
    return given


def positive_class(spec: DataSpec, average: str, positive: str | int | None) -> int:
    """Return the number of the class that average=binary scores, named by `positive`; ValueError for none, or without that average.

    Unset, it is the second of two classes, as in scikit-learn.
    """
    names = names_in(spec)
    if average != "binary" and positive is not None:
        raise ValueError(
            f"positive is {positive}, and average is {average}; set average=binary, or leave positive out"
        )
    if positive is not None and str(positive) not in names:
        known = ", ".join(names[:20])
        raise ValueError(
            f"positive is {positive}, which is no class; the classes are {known}.{nearest(str(positive), names)}"
        )
    if average == "binary" and positive is None and spec.num_classes != 2:
        raise ValueError(
            f"average is binary, and the data have {spec.num_classes} classes; use macro, micro or weighted, or name the class: positive=…"
        )
    return 1 if positive is None else names.index(str(positive))


def averaged(values: Tensor, support: Tensor, present: Tensor, average: str, positive: int = 1) -> Tensor:
    """Average values (C,) over the classes that are `present`; NaN where there is none.

    support: (C,) samples of each class, the weights of average=weighted. positive: the class of average=binary
    """
    if average == "binary":
        return values[positive]
    weights = (support if average == "weighted" else torch.ones_like(support)) * present
    return (values.where(present, torch.zeros_like(values)) * weights).sum() / weights.sum()


def ratio(above: Tensor, below: Tensor) -> Tensor:
    """Divide; 0/0 is 0."""
    return above / torch.where(below == 0, 1.0, below)
