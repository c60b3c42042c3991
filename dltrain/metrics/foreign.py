"""Metrics of the package torchmetrics, which is imported only where a word names one."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dltrain.metrics.protocol import Metric


class Adapter(Metric):
    """A torchmetrics metric of classes or of a regression, given what it expects.

    Metrics of classes get probabilities: from logits, torchmetrics decides batch by batch whether a softmax is needed.
    """

    def __init__(self, metric: Any) -> None:
        self.metric = metric
        kind = type(metric)
        room = kind.__module__.split(".")[1]
        self.task = room  # type: ignore[assignment]
        self.binary = kind.__name__.startswith("Binary")
        higher = getattr(metric, "higher_is_better", None)
        self.direction = None if higher is None else "max" if higher else "min"

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        if self.task == "classification":
            outputs = outputs.double().softmax(1)
            outputs = outputs[:, 1] if self.binary else outputs
        elif outputs.shape[1] == 1:
            outputs, targets = outputs[:, 0], targets[:, 0]
        self.metric.to(outputs.device).update(outputs, targets)

    def compute(self) -> Any:
        return self.metric.compute()


def is_torchmetrics(kind: Any) -> bool:
    """Return whether a class or function comes from torchmetrics itself."""
    return str(getattr(kind, "__module__", "")).split(".")[0] == "torchmetrics"
