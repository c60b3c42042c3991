"""Metrics that are means over samples: map outputs and targets to one value for each sample.

Targets are those of the losses: classes (B,), mixed ones (B, C), or values (B, K).
"""

from __future__ import annotations

import torch
from torch import Tensor

from dltrain.data.spec import Task
from dltrain.declare import declares
from dltrain.metrics.protocol import Values
from dltrain.ranges import Count


@declares(needs={"classes"})
def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Fraction of samples whose class has the largest output.

        mean_i [argmax_k z_ik = y_i]

    The class of mixed targets is the largest.

    Symbols: z outputs; y classes
    Use: classes of similar frequency.
    """
    return (outputs.argmax(1) == classes_of(outputs, targets)).float()


@declares(needs={"classes"})
def top_k(outputs: Tensor, targets: Tensor, k: Count = 5) -> Tensor:
    """Fraction of samples whose class is among those of the k largest outputs.

        mean_i [rank of z_iy among z_i1 … z_iC ≤ k]

    Of equal outputs, those of later classes come first, as in scikit-learn. Raises ValueError unless k is below the number
    of classes.

    Symbols: z outputs; y classes; C classes
    Use: many classes that are easily confused.
    Defaults: k = 5.

    Args:
        k: largest rank that counts
    """
    if k >= outputs.shape[1]:
        most = outputs.shape[1] - 1
        cure = f"use metrics.top_k.k={most}" if most > 1 else "use accuracy"
        raise ValueError(f"k is {k}; it must be below the number of classes, {most + 1}: {cure}")
    classes = classes_of(outputs, targets)[:, None]
    own = outputs.gather(1, classes)
    later = torch.arange(outputs.shape[1], device=outputs.device) > classes
    return (((outputs > own) | ((outputs == own) & later)).sum(1) < k).float()


@declares(needs={"quantities"})
def absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error, in the units of the targets.

        mean_i mean_k |z_ik − y_ik|

    Symbols: z outputs; y targets; k over the target columns
    Use: regression; less sensitive to outliers than rmse.
    """
    return _residuals(outputs, targets).abs().mean(1)


@declares(needs={"quantities"})
def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of (outputs − targets)² over the target columns, in float64 where the outputs are."""
    return _residuals(outputs, targets).square().mean(1)


@declares(needs={"quantities"})
def absolute_percentage_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error relative to the target; 0.1 is 10 %.

        mean_i mean_k |z_ik − y_ik| / max(|y_ik|, 2⁻⁵²)

    Targets near 0 make it large without limit, as in scikit-learn.

    Symbols: z outputs; y targets; k over the target columns
    Use: regression of positive quantities over several orders of magnitude.
    """
    errors = _residuals(outputs, targets).double().abs()
    sizes = targets.double().reshape(errors.shape).abs()
    return (errors / sizes.clamp(min=torch.finfo(torch.float64).eps)).mean(1)


# metrics that divide by the targets
RELATIVE = (absolute_percentage_error,)
# share of the mean size of the targets up to which one is nearly 0
NEARLY_ZERO = 1e-6


def classes_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return classes (B,); of mixed targets (B, C) the largest."""
    return targets.argmax(1) if targets.ndim == outputs.ndim else targets


def _residuals(outputs: Tensor, targets: Tensor) -> Tensor:
    exact = outputs if outputs.dtype == torch.float64 else outputs.float()
    return exact - targets.to(exact.dtype).reshape(exact.shape)


# the shipped words for each task, as messages list them
TASK_WORDS: dict[str, str] = {
    "classification": "accuracy, top_k, balanced_accuracy, precision, recall, f1, auroc, average_precision, cohen_kappa, mcc, "
    "calibration_error",
    "regression": "mae, rmse, mape, r2, spearman",
}


def default_metrics(task: Task) -> dict[str, Values]:
    """Return the metrics that are measured where none are chosen, by the name of their column."""
    by_task: dict[Task, dict[str, Values]] = {
        "classification": {"accuracy": accuracy},
        "regression": {"mae": absolute_error},
        "objective": {},
    }
    return by_task[task]
