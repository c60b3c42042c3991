"""How much the passes of one model, or several models, disagree."""

from __future__ import annotations

import torch
from torch import Tensor

from dltrain.data.spec import DataSpec
from dltrain.losses import to_softmax
from dltrain.training.parts import Metric


def uncertainty(
    metric: Metric, spec: DataSpec, passes: Tensor, targets: Tensor, loss: object = None
) -> dict[str, float]:
    """Return measures of the uncertainty of several passes; none for one.

    metric: the column `loss`. loss: what was minimized, by whose probabilities classes are measured.

    `loss_sd` is the standard deviation of a single pass's `loss`. For classes `entropy` is that of the mean probabilities, in
    nats, and `disagreement` the part of it that the passes do not share: the mutual information of class and pass (Houlsby
    et al. 2011, arXiv:1112.5745), 0 where all passes say the same. For quantities `deviation` is the standard deviation of
    the outputs over the passes, in the mean over samples.
    """
    if len(passes) == 1:
        return {}
    losses = torch.stack([metric(logits, targets).double().mean() for logits in passes])
    found = {"loss_sd": losses.std()}
    if spec.task == "classification":
        single = to_softmax(loss, passes).double().softmax(-1)
        whole = entropy(single.mean(0))
        found |= {"entropy": whole.mean(), "disagreement": (whole - entropy(single).mean(0)).mean()}
    else:
        found["deviation"] = spec.in_units(passes.double()).std(0).mean()
    return {name: float(value) for name, value in found.items()}


def entropy(probabilities: Tensor) -> Tensor:
    """Return −Σ p log p over the last axis, in nats."""
    return torch.special.entr(probabilities).sum(-1)
