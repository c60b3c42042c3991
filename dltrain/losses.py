"""Losses: map logits (B, K) and targets to one value for each sample, (B,).

Targets are class indices (B,), probabilities (B, K), or real values (B,) or (B, K). The trainer averages over the batch.
Half-precision inputs are converted to float32. Each loss raises ValueError if it does not fit the task of the data.

Runs are compared by the column `loss` of metrics.csv, which is the `yardstick` of the task whatever loss is minimized. A
loss that differs from it is logged in the column `objective`: its mean over the samples, without penalties.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltrain.data.spec import DataSpec
from dltrain.ranges import Fraction, Positive


class Loss(Protocol):
    """A function, module or object that maps outputs (B, K) and targets to the loss of each sample, (B,)."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor: ...


@runtime_checkable
class Combining(Protocol):
    """A loss that defines how the outputs of several models, or of several passes of one, are combined."""

    def combine(self, outputs: Tensor) -> Tensor:
        """Combine outputs (P, B, K) to (B, K); P equal outputs give an output of the same loss, up to rounding."""


@runtime_checkable
class Softmaxed(Protocol):
    """A loss whose probabilities are not the softmax of the outputs, and which says of what they are."""

    def to_softmax(self, outputs: Tensor) -> Tensor:
        """Return the logits (…, K) whose softmax are the probabilities of `outputs` (…, K)."""


class CrossEntropy(nn.Module):
    """Cross-entropy of softmax probabilities.

        −Σ_k w_k·ỹ_k·log softmax(z)_k
        ỹ = (1 − ε)·y + ε/K

    Symbols: z logits; y the target, one-hot or probabilities; K classes; ε = label_smoothing; w class weights, 1 unless
        dataset.class_weights=balanced
    Use: classification into one of several classes.
    Defaults: no smoothing.
    Paper: Szegedy et al. 2016, arXiv:1512.00567 (label smoothing)
    Lecture: L3

    Args:
        label_smoothing: weight of the uniform distribution in the target
    """

    needs = frozenset({"classes"})

    weight: Tensor | None

    def __init__(self, spec: DataSpec, label_smoothing: Fraction = 0.0) -> None:
        super().__init__()
        refuse_task(spec, "cross_entropy", "classification")
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", spec.class_weights, persistent=False)

    @property
    def plain(self) -> bool:
        """Return whether the loss has neither smoothing nor class weights."""
        return self.label_smoothing == 0 and self.weight is None

    def combine(self, outputs: Tensor) -> Tensor:
        """Return the logarithm of the mean of the softmax probabilities."""
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
    """Binary cross-entropy of sigmoids, one class against the rest.

        −(Σ_k w_k·y_k)·mean_k (ỹ_k·log σ(z_k) + (1 − ỹ_k)·log(1 − σ(z_k)))
        ỹ = (1 − ε)·y + ε/K

    The probability of a class is its sigmoid, divided by the sum of all: p_k = σ(z_k)/Σ_j σ(z_j). Predictions, metrics
    and val/loss = −log p_y follow from it.

    Class weights multiply samples, not columns: a weight of a column would multiply the negatives of a class as its
    positives, and balance nothing.

    Symbols: z logits; y the target, one-hot or probabilities; K classes; ε = label_smoothing; w class weights, 1 unless
        dataset.class_weights=balanced
    Use: classification with mixed targets (mixup, cutmix), or two classes.
    Defaults: no smoothing.
    Paper: Wightman et al. 2021, arXiv:2110.00476
    Lecture: L3

    Args:
        label_smoothing: weight of the uniform distribution in the target
    """

    needs = frozenset({"classes"})

    weight: Tensor | None

    def __init__(self, spec: DataSpec, label_smoothing: Fraction = 0.0) -> None:
        super().__init__()
        refuse_task(spec, "bce", "classification")
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", spec.class_weights, persistent=False)

    def combine(self, outputs: Tensor) -> Tensor:
        """Return the logit of the mean of the sigmoids."""
        exact = outputs.double()
        return (log_mean(F.logsigmoid(exact)) - log_mean(F.logsigmoid(-exact))).to(outputs.dtype)

    def to_softmax(self, outputs: Tensor) -> Tensor:
        """Return the logarithms of the sigmoids: their softmax are the sigmoids divided by their sum."""
        z = precise(outputs)
        # not F.logsigmoid, which is log(sigmoid(z)) in ONNX: −∞ from z = −104 on
        return z.clamp(max=0) - z.abs().neg().exp().log1p()

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        logits = precise(logits)
        classes = probabilities(logits, targets)
        wanted = classes * (1 - self.label_smoothing) + self.label_smoothing / logits.shape[1]
        losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(1)
        return losses if self.weight is None else losses * (classes * self.weight.to(logits)).sum(1)


class MSE(nn.Module):
    """Mean squared error.

        mean_k (z_k − y_k)²

    Symbols: z outputs; y real targets; k over the target columns
    Use: regression with approximately normal errors.
    Lecture: L0 L3
    """

    needs = frozenset({"quantities"})

    plain = True

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        refuse_task(spec, "mse", "regression")

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return residuals(logits, targets).square().mean(1)


class MAE(nn.Module):
    """Mean absolute error.

        mean_k |z_k − y_k|

    Symbols: z outputs; y real targets; k over the target columns
    Use: regression with outliers; predicts the median.
    Lecture: L3
    """

    needs = frozenset({"quantities"})

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        refuse_task(spec, "mae", "regression")

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return residuals(logits, targets).abs().mean(1)


class Huber(nn.Module):
    """Huber loss: squared for small errors, absolute for large ones.

        mean_k h(z_k − y_k)
        h(e) = e²/2 if |e| ≤ δ, else δ·(|e| − δ/2)

    Symbols: δ = delta; z outputs; y real targets; k over the target columns
    Use: regression with some outliers.
    Defaults: torch's 1.
    Paper: Huber 1964
    Lecture: L3

    Args:
        delta: largest error of the squared part, in standard deviations of the training targets where the dataset
            standardizes them (tables unless dataset.target_scale=none, arrays, images), else in the units of the targets;
            the header of a run says how much that is
    """

    needs = frozenset({"quantities"})

    def __init__(self, spec: DataSpec, delta: Positive = 1.0) -> None:
        super().__init__()
        refuse_task(spec, "huber", "regression")
        self.delta = delta
        self.notes = (f"loss     delta {delta:g} {_in_real_units(delta, spec)}",)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        error = residuals(logits, targets)
        return F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.delta).mean(1)


def _in_real_units(size: float, spec: DataSpec) -> str:
    """Return what a size of the errors of standardized targets is in their units, for each column."""
    if spec.target_scale is None:
        return "in the units of the targets"
    real = ", ".join(f"{size * std:.4g}" for std in spec.target_scale.std.tolist())
    return f"standard deviations of the training targets: {real} in their units"


class Objective(nn.Module):
    """The output of the model, for study problems (dataset=none)."""

    plain = True

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        refuse_task(spec, "auto", "objective")

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return logits.reshape(len(logits), -1).sum(1)


def auto(spec: DataSpec, label_smoothing: Fraction = 0.0) -> nn.Module:
    """The loss that fits the task of the dataset.

        classification: cross_entropy
        regression: mse
        objective (dataset=none): the output of the model

    Raises ValueError for label smoothing of a task other than classification.

    Use: unless there is a reason for another loss.
    Lecture: L3

    Args:
        label_smoothing: weight of the uniform distribution in the target; classification only
    """
    if spec.task == "classification":
        return CrossEntropy(spec, label_smoothing)
    if label_smoothing != 0:
        raise ValueError(
            f"loss.label_smoothing is {label_smoothing}, but this dataset's task is {spec.task}, which "
            "has no labels to smooth; leave out label_smoothing"
        )
    return MSE(spec) if spec.task == "regression" else Objective(spec)


def yardstick(spec: DataSpec) -> nn.Module:
    """Return the loss that the column `loss` of every split holds: `auto` without class weights or smoothing."""
    return auto(replace(spec, class_weights=None))


def is_yardstick(loss: object, spec: DataSpec) -> bool:
    """Return whether a loss is the yardstick of its task: of exactly that type, without weights or smoothing.

    A subclass is not, since it may compute anything.
    """
    return type(loss) is type(yardstick(spec)) and bool(getattr(loss, "plain", False))


def combine(loss: object, outputs: Tensor) -> Tensor:
    """Combine the outputs (P, B, K) of several models or passes to (B, K): as the loss defines it, else by the mean."""
    return loss.combine(outputs) if isinstance(loss, Combining) else outputs.mean(0)


def to_softmax(loss: object, outputs: Tensor) -> Tensor:
    """Return the logits whose softmax are the probabilities of a loss: as the loss says, else the outputs themselves."""
    return loss.to_softmax(outputs) if isinstance(loss, Softmaxed) else outputs


def softmax_of(loss: object) -> Callable[[Tensor], Tensor] | None:
    """Return how a loss turns outputs into the logits of its probabilities; None where the outputs are these."""
    return loss.to_softmax if isinstance(loss, Softmaxed) else None


def log_mean(logarithms: Tensor) -> Tensor:
    """Return the logarithm of the mean of exp(logarithms) over the first axis, without overflow."""
    return logarithms.logsumexp(0) - math.log(len(logarithms))


def refuse_task(spec: DataSpec, word: str, task: str) -> None:
    """Raise ValueError if the loss `word`, which is for `task`, does not fit the data."""
    if spec.task != task:
        raise ValueError(
            f"loss={word} is for the task {task}, but this dataset's task is {spec.task}; "
            "use loss=auto, which fits it"
        )


def precise(logits: Tensor) -> Tensor:
    """Convert half precision to float32: the logarithm of a sum needs more than eight bits."""
    return logits if logits.dtype == torch.float64 else logits.float()


def probabilities(logits: Tensor, targets: Tensor) -> Tensor:
    """Convert class indices (B,) to one-hot rows (B, C); return probabilities unchanged."""
    if targets.ndim == logits.ndim:
        return targets.to(logits.dtype)
    return torch.zeros_like(logits).scatter_(1, targets[:, None], 1.0)


def residuals(logits: Tensor, targets: Tensor) -> Tensor:
    """Return outputs minus targets (B, K); targets (B,) are one column, never broadcast against (B, 1) to (B, B)."""
    logits = precise(logits).reshape(len(logits), -1)
    return logits - targets.to(logits.dtype).reshape(logits.shape)
