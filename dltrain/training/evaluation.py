"""Scoring a split: exact means over its samples, and nothing of the training disturbed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dltrain.data.batches import Split
from dltrain.errors import UserError
from dltrain.losses import to_softmax
from dltrain.metrics.counts import confusion_of
from dltrain.metrics.measures import Measures
from dltrain.training.forward import Forward
from dltrain.training.parts import Metric


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set the model to evaluation mode inside, and to its former mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def dropout_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of torch.nn that drop anything: dropout, and attention and recurrent layers with one inside."""
    return [layer for layer in model.modules() if _rate(layer) > 0]


def _rate(layer: nn.Module) -> float:
    if isinstance(layer, nn.modules.dropout._DropoutNd):
        return layer.p
    if isinstance(layer, nn.RNNBase):
        # between its layers
        return layer.dropout if layer.num_layers > 1 else 0.0
    return layer.dropout if isinstance(layer, nn.MultiheadAttention) else 0.0


@contextmanager
def drawing_dropout(model: nn.Module, active: bool) -> Iterator[None]:
    """Let the dropout layers draw as in training inside; all else is in evaluation mode."""
    layers = dropout_layers(model)
    if active and not layers:
        raise UserError(
            "`evaluation.mc_dropout` draws the dropout of layers of torch.nn, and this model has none (F.dropout in forward is no "
            "layer). Train with regularization=[dropout]."
        )
    for layer in layers:
        layer.train(active)
    for layer in model.modules():
        # in evaluation mode it calls one kernel, without the dropout layers in it
        if isinstance(layer, nn.TransformerEncoderLayer) and dropout_layers(layer):
            layer.training = active
    yield  # `evaluating`, around this, puts all modes back


def outputs_of(
    model: Callable[[Tensor], Tensor], split: Split, batch_size: int, device: torch.device, precision: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the outputs (float32) and targets of a split, batch by batch, in its order."""
    forward = Forward(model, device, precision)
    for batch in split.batches(torch.arange(len(split)), batch_size):
        yield forward(batch.inputs), batch.targets


def evaluate(
    model: nn.Module,
    split: Split,
    metrics: Mapping[str, Metric],
    batch_size: int,
    device: torch.device,
    precision: str = "fp32",
    measures: Measures | None = None,
) -> dict[str, float]:
    """Return the mean of each metric over all samples of a split, and the values of `measures`."""
    with evaluating(model):
        return means_of(outputs_of(model, split, batch_size, device, precision), metrics, device, measures)


def means_of(
    batches: Iterable[tuple[Tensor, Tensor]],
    metrics: Mapping[str, Metric],
    device: torch.device,
    measures: Measures | None = None,
) -> dict[str, float]:
    """Return the mean of each metric over the samples of batches of outputs and targets, and the values of `measures`.

    Sums over samples in float64 divided by their number: a mean of batch means would be wrong for a ragged last batch.
    """
    sums, count = torch.zeros(len(metrics), dtype=torch.float64, device=device), 0
    seen = (measures or Measures()).fresh()
    for outputs, targets in batches:
        sums += torch.stack(
            [metric(outputs, targets).sum(dtype=torch.float64) for metric in metrics.values()]
        )
        count += len(targets)
        seen.update(outputs, targets)
    # one host sync for the whole split
    return dict(zip(metrics, (sums / count).tolist(), strict=True)) | seen.compute()


def confusion(
    model: nn.Module,
    loss: object,
    split: Split,
    num_classes: int,
    batch_size: int,
    device: torch.device,
    precision: str,
) -> Tensor:
    """Return the counts (C, C) int64 of true class (row) against the most probable class (column), on the CPU."""
    counts = torch.zeros(num_classes, num_classes, dtype=torch.float64, device=device)
    with evaluating(model):
        for logits, targets in outputs_of(model, split, batch_size, device, precision):
            counts += confusion_of(to_softmax(loss, logits), targets)
    return counts.long().cpu()
