"""Metrics: (logits, targets) → one number for each sample, so that sums over ragged batches are exact."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from dltrain.data.spec import Task


class Metric(Protocol):
    """logits: (B, K); targets as the losses take them; returns (B,) floats on the same device."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor: ...


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """1 where the largest logit is the class, else 0; of mixed targets (B, C) the heaviest class counts."""
    classes = targets.argmax(1) if targets.ndim == logits.ndim else targets
    return (logits.argmax(1) == classes).float()


def absolute_error(logits: Tensor, targets: Tensor) -> Tensor:
    """|logits − targets|, mean over the target columns; float64 stays so."""
    return _residuals(logits, targets).abs().mean(1)


def squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """(logits − targets)², mean over the target columns; float64 stays so."""
    return _residuals(logits, targets).square().mean(1)


def _residuals(logits: Tensor, targets: Tensor) -> Tensor:
    exact = logits if logits.dtype == torch.float64 else logits.float()
    return exact - targets.to(exact.dtype).reshape(exact.shape)


def default_metrics(task: Task) -> dict[str, Metric]:
    """What is reported beside the loss, by the name of its column."""
    by_task: dict[Task, dict[str, Metric]] = {
        "classification": {"accuracy": accuracy},
        "regression": {"mae": absolute_error},
        "objective": {},
    }
    return by_task[task]
