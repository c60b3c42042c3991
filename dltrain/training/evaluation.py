"""Scoring a split: exact means over its samples, and nothing of the training disturbed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.metrics.counts import confusion_of
from dltrain.metrics.measures import Measures
from dltrain.training.parts import Metric


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode inside, in the mode that it had after."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """bf16 where asked for; a context that does nothing, and costs nothing, for fp32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def outputs_of(
    model: nn.Module, split: Any, batch_size: int, device: torch.device, precision: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """The logits (float32) and targets of a split, batch by batch, in its own order."""
    for batch in split.batches(torch.arange(len(split)), batch_size):
        with autocast(device, precision):
            logits = model(batch.inputs)
        yield logits.float() if logits.dtype is torch.bfloat16 else logits, batch.targets


def evaluate(
    model: nn.Module,
    split: Any,
    metrics: Mapping[str, Metric],
    batch_size: int,
    device: torch.device,
    precision: str = "fp32",
    measures: Measures | None = None,
) -> dict[str, float]:
    """The mean of each metric over all samples of a split, and the values of those that are no means.

    Sums over samples in float64 divided by their number: a mean of batch means would be wrong for a ragged last batch.
    """
    sums = torch.zeros(len(metrics), dtype=torch.float64, device=device)
    seen = (measures or Measures()).fresh()
    with evaluating(model):
        for logits, targets in outputs_of(model, split, batch_size, device, precision):
            sums += torch.stack(
                [metric(logits, targets).sum(dtype=torch.float64) for metric in metrics.values()]
            )
            seen.update(logits, targets)
        values = seen.compute()
    means = (sums / len(split)).tolist()  # one host sync for the whole split
    return dict(zip(metrics, means, strict=True)) | values


def confusion(
    model: nn.Module, split: Any, num_classes: int, batch_size: int, device: torch.device, precision: str
) -> Tensor:
    """Counts (C, C) int64 of true class (row) against predicted class (column), on the CPU."""
    counts = torch.zeros(num_classes, num_classes, dtype=torch.float64, device=device)
    with evaluating(model):
        for logits, targets in outputs_of(model, split, batch_size, device, precision):
            counts += confusion_of(logits, targets)
    return counts.long().cpu()
