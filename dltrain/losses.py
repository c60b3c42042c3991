"""Losses: (logits, targets) → one number for each sample.

logits: (B, K); targets: (B,) class indices, (B, K) probabilities, or real (B,) or (B, K). The trainer takes
the mean over the batch. Numbers in half precision are computed in float32.

The loss that is minimized is not what runs are compared by: `loss` in metrics.csv is the `yardstick` of the task,
and a loss that differs from it has the column `objective` (its mean over the samples, without penalties).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltrain.data.spec import DataSpec
from dltrain.ranges import Fraction, Positive


@runtime_checkable
class Combining(Protocol):
    """A loss that says how the outputs of several models, or of several passes of one, become one output."""

    def combine(self, outputs: Tensor) -> Tensor:
        """(P, B, K) → (B, K); P equal outputs give that output, up to rounding and what the loss does not see."""


class CrossEntropy(nn.Module):
    """Cross-entropy of softmax probabilities.

        −Σ_k w_k·y_k·log softmax(z)_k

    −Σ_k w_k·y_k·log softmax(logits)_k for class indices or probabilities y; (B, C) → (B,).

    w are `spec.class_weights` or 1; `label_smoothing` ε makes y into (1 − ε)·y + ε/C (Szegedy et al. 2016,
    arXiv:1512.00567). ValueError unless the task is a classification.

    Symbols: z logits; y the target, smoothed by label_smoothing; w class weights, 1 unless
        dataset.class_weights=balanced
    Use: classification into one of several classes.
    Defaults: no smoothing.
    Lecture: L3

    Args:
        label_smoothing: share of the target spread over all classes
    """

    weight: Tensor | None

    def __init__(self, spec: DataSpec, label_smoothing: Fraction = 0.0) -> None:
        super().__init__()
        refuse_task(spec, "cross_entropy", "classification")
        self.label_smoothing = smoothing_share(label_smoothing)
        self.register_buffer("weight", spec.class_weights, persistent=False)

    @property
    def plain(self) -> bool:
        """Whether neither smoothing nor weights change it."""
        return self.label_smoothing == 0 and self.weight is None

    def combine(self, outputs: Tensor) -> Tensor:
        """The logarithm of the mean of the softmax probabilities."""
        return log_mean(outputs.double().log_softmax(-1)).to(outputs.dtype)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        smoothing = self.label_smoothing
        logits, weight = precise(logits), self.weight
        if weight is not None:
            weight = weight.to(logits)
        if targets.is_floating_point():
            targets = targets.to(logits.dtype)
        return F.cross_entropy(logits, targets, weight, reduction="none", label_smoothing=smoothing)


class BCE(nn.Module):
    """Binary cross-entropy of sigmoids, one against the rest.

        −w·mean_k (y_k·log σ(z_k) + (1 − y_k)·log(1 − σ(z_k)))

    Mean over the classes of the sigmoids' binary cross-entropy, one against the rest; (B, C) → (B,).

    Targets as in `CrossEntropy`, smoothed alike (Wightman et al. 2021, arXiv:2110.00476).
    `spec.class_weights` multiply samples, by the class before smoothing: Σ_k w_k·y_k. To multiply the columns
    k instead would weigh the negatives of a class like its positives, and balance nothing. ValueError unless
    the task is a classification.

    Symbols: z logits; y the target, smoothed by label_smoothing; w the weight of the sample's class, 1 unless
        dataset.class_weights=balanced
    Use: classification with mixed targets (mixup, cutmix), or two classes.
    Defaults: no smoothing.
    Paper: Wightman et al. 2021, arXiv:2110.00476
    Lecture: L3

    Args:
        label_smoothing: share of the target spread over all classes
    """

    weight: Tensor | None

    def __init__(self, spec: DataSpec, label_smoothing: Fraction = 0.0) -> None:
        super().__init__()
        refuse_task(spec, "bce", "classification")
        self.label_smoothing = smoothing_share(label_smoothing)
        self.register_buffer("weight", spec.class_weights, persistent=False)

    def combine(self, outputs: Tensor) -> Tensor:
        """The logit of the mean of the sigmoids."""
        exact = outputs.double()
        return (log_mean(F.logsigmoid(exact)) - log_mean(F.logsigmoid(-exact))).to(outputs.dtype)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        logits = precise(logits)
        classes = probabilities(logits, targets)
        wanted = classes * (1 - self.label_smoothing) + self.label_smoothing / logits.shape[1]
        losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(1)
        return losses if self.weight is None else losses * (classes * self.weight.to(logits)).sum(1)


class MSE(nn.Module):
    """Mean squared error.

        mean_k (z_k − y_k)²

    Mean over the target columns of (logits − targets)²; (B, K) → (B,). ValueError unless a regression.

    Symbols: z outputs; y real targets, k over the target columns
    Use: regression with about normal errors.
    Lecture: L0 L3
    """

    plain = True

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        refuse_task(spec, "mse", "regression")

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return residuals(logits, targets).square().mean(1)


class MAE(nn.Module):
    """Mean absolute error.

        mean_k |z_k − y_k|

    Mean over the target columns of |logits − targets|; (B, K) → (B,). ValueError unless a regression.

    Symbols: z outputs; y real targets, k over the target columns
    Use: regression with outliers; predicts the median.
    Lecture: L3
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        refuse_task(spec, "mae", "regression")

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return residuals(logits, targets).abs().mean(1)


class Huber(nn.Module):
    """Huber loss: squared near zero, absolute far away.

        mean_k: e²/2 if |e| ≤ δ, else δ·(|e| − δ/2)
        e = z_k − y_k

    e²/2 for errors |e| ≤ delta, delta·(|e| − delta/2) beyond; mean over the columns, (B, K) → (B,).

    Huber 1964. `delta` is in the units of the targets. ValueError unless the task is a regression and delta >
    0.

    Symbols: δ = delta; z outputs; y real targets
    Use: regression with some outliers.
    Defaults: torch's 1.
    Paper: Huber 1964
    Lecture: L3

    Args:
        delta: error, in the targets' units, at which the squared part ends
    """

    def __init__(self, spec: DataSpec, delta: Positive = 1.0) -> None:
        super().__init__()
        refuse_task(spec, "huber", "regression")
        if not 0 < delta < math.inf:
            raise ValueError(f"loss.delta is {delta}; it must be > 0 (loss=mae is the limit of small deltas)")
        self.delta = delta

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        error = residuals(logits, targets)
        return F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.delta).mean(1)


class Objective(nn.Module):
    """The model's own output, for study problems (dataset=none); (B,) → (B,)."""

    plain = True

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        refuse_task(spec, "auto", "objective")

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return logits.reshape(len(logits), -1).sum(1)


def auto(spec: DataSpec, label_smoothing: Fraction = 0.0) -> nn.Module:
    """The loss that fits the task: cross_entropy, mse, or the model's own output.

        classification: cross_entropy
        regression: mse
        objective (dataset=none): the model's output

    The loss that fits the task: cross-entropy, mean squared error, or the model's own output.

    ValueError for label smoothing where there are no labels.

    Use: unless there is a reason for another.
    Lecture: L3

    Args:
        label_smoothing: share of the target spread over all classes (classification only)
    """
    if spec.task == "classification":
        return CrossEntropy(spec, label_smoothing)
    if label_smoothing != 0:
        raise ValueError(
            f"loss.label_smoothing is {label_smoothing}, but this dataset's task is {spec.task}, which "
            "has no labels to smooth; leave label_smoothing away"
        )
    return MSE(spec) if spec.task == "regression" else Objective(spec)


def yardstick(spec: DataSpec) -> nn.Module:
    """What `loss` means in every split: cross-entropy, squared error or the model's output, without weights or smoothing."""
    return auto(replace(spec, class_weights=None))


def is_yardstick(loss: object, spec: DataSpec) -> bool:
    """Whether a loss is the yardstick of its task: of that very type, with nothing switched on that changes it.

    A subclass may compute anything, and is therefore none.
    """
    return type(loss) is type(yardstick(spec)) and bool(getattr(loss, "plain", False))


def combine(loss: object, outputs: Tensor) -> Tensor:
    """The outputs (P, B, K) of several models or passes as one (B, K).

    In the space of the loss that made them where it has one (`Combining`), else their mean.
    """
    return loss.combine(outputs) if isinstance(loss, Combining) else outputs.mean(0)


def log_mean(logarithms: Tensor) -> Tensor:
    """log of the mean over the first axis of exp(logarithms), without leaving the logarithms."""
    return logarithms.logsumexp(0) - math.log(len(logarithms))


def refuse_task(spec: DataSpec, word: str, task: str) -> None:
    """ValueError if the loss `word`, made for `task`, does not fit the data."""
    if spec.task != task:
        raise ValueError(
            f"loss={word} is for the task {task}, but this dataset's task is {spec.task}; "
            "use loss=auto, which fits it"
        )


def smoothing_share(label_smoothing: float) -> float:
    """The key as it is; ValueError outside [0, 1)."""
    if not 0 <= label_smoothing < 1:
        raise ValueError(
            f"loss.label_smoothing is {label_smoothing}; it must be in [0, 1) (0 switches it off)"
        )
    return label_smoothing


def precise(logits: Tensor) -> Tensor:
    """Half precision as float32: a logarithm of a sum needs more than eight bits."""
    return logits if logits.dtype == torch.float64 else logits.float()


def probabilities(logits: Tensor, targets: Tensor) -> Tensor:
    """Class indices (B,) as one-hot rows (B, C); probabilities as they are."""
    if targets.ndim == logits.ndim:
        return targets.to(logits.dtype)
    return torch.zeros_like(logits).scatter_(1, targets[:, None], 1.0)


def residuals(logits: Tensor, targets: Tensor) -> Tensor:
    """Outputs minus targets (B, K); a target (B,) is one column, never broadcast against (B, 1) to (B, B)."""
    logits = precise(logits).reshape(len(logits), -1)
    return logits - targets.to(logits.dtype).reshape(logits.shape)
