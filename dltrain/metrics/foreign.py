"""Metrics of the package torchmetrics, which is imported only where a word names one."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dltrain.metrics.protocol import Metric


class Adapter(Metric):
    """A torchmetrics metric of classes or of a regression, given what it expects.

    Metrics of classes get probabilities: from logits, torchmetrics decides batch by batch whether a softmax is needed.
    Raises ValueError for another kind of metric.
    """

    def __init__(self, metric: Any) -> None:
        self.metric = metric
        kind = type(metric)
        package = kind.__module__.split(".")[1]
        if package not in ("classification", "regression"):
            raise ValueError(
                f"{kind.__name__} is of torchmetrics.{package}; metrics can be of torchmetrics.classification and "
                "torchmetrics.regression"
            )
        if kind.__name__.startswith("Multilabel"):
            raise ValueError(f"{kind.__name__} needs several labels for each sample; use its Multiclass form")
        self.needs = frozenset({"classes" if package == "classification" else "quantities"})
        self.binary = kind.__name__.startswith("Binary")
        higher = getattr(metric, "higher_is_better", None)
        self.direction = None if higher is None else "max" if higher else "min"

    def check_classes(self, classes: int) -> None:
        """Raise ValueError for the form of two classes where there are more."""
        if self.binary and classes != 2:
            name = type(self.metric).__name__
            raise ValueError(
                f"{name} is for two classes, and the data have {classes}; use Multiclass{name.removeprefix('Binary')}"
            )

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        if "classes" in self.needs:
            outputs = outputs.double().softmax(1)
            outputs = outputs[:, 1] if self.binary else outputs
        elif outputs.shape[1] == 1:
            outputs, targets = outputs[:, 0], targets[:, 0]
        self.metric.to(outputs.device).update(outputs, targets)

    def compute(self) -> Any:
        return self.metric.compute()


def is_torchmetrics(kind: object) -> bool:
    """Return whether a class or function comes from torchmetrics itself."""
    return str(getattr(kind, "__module__", "")).split(".")[0] == "torchmetrics"
