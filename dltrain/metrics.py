"""Metrics: map logits and targets to one value for each sample, so that means over batches of any size are exact."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from dltrain.data.spec import Task


class Metric(Protocol):
    """Map logits (B, K) and targets, in the form of the losses, to floats (B,) on the same device."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor: ...


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return 1 where the largest logit is that of the class, else 0; the class of mixed targets (B, K) is the largest."""
    classes = targets.argmax(1) if targets.ndim == logits.ndim else targets
    return (logits.argmax(1) == classes).float()


def absolute_error(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of |logits − targets| over the target columns, in float64 where the logits are."""
    return _residuals(logits, targets).abs().mean(1)


def squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of (logits − targets)² over the target columns, in float64 where the logits are."""
    return _residuals(logits, targets).square().mean(1)


def _residuals(logits: Tensor, targets: Tensor) -> Tensor:
    exact = logits if logits.dtype == torch.float64 else logits.float()
    return exact - targets.to(exact.dtype).reshape(exact.shape)


def default_metrics(task: Task) -> dict[str, Metric]:
    """Return the metrics reported with the loss, by the name of their column."""
    by_task: dict[Task, dict[str, Metric]] = {
        "classification": {"accuracy": accuracy},
        "regression": {"mae": absolute_error},
        "objective": {},
    }
    return by_task[task]
