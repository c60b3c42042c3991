"""The scores of a constant output: what a model must beat."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from dltrain.data.spec import DataSpec
from dltrain.metrics.measures import Measures
from dltrain.metrics.probabilities import of_logits
from dltrain.training.parts import Metric

_log = logging.getLogger(__name__)


def constant_scores(
    spec: DataSpec, metrics: Mapping[str, Metric], measures: Measures, known: Tensor, targets: Tensor
) -> dict[str, float]:
    """Return the scores on `targets` (N, …) of the mean of the training targets `known`, or of the fractions of their classes."""
    if spec.task == "classification":
        outputs = torch.bincount(known, minlength=spec.num_classes).clamp(min=1).log()
    else:
        outputs = known.double().mean(0)
    outputs = outputs.expand(len(targets), -1)
    # the logarithms of fractions are logits of a softmax, whatever loss was minimized
    reported = {name: of_logits(metric) for name, metric in metrics.items() if name != "objective"}
    try:
        means = {name: float(metric(outputs, targets).double().mean()) for name, metric in reported.items()}
        found = means | replace(measures, to_softmax=None).of(outputs, targets)
    except Exception as error:
        # a user's metric may need outputs of another form, which must not cost the result
        _log.warning("the scores of a constant guess are missing: %s", error)
        return {}
    # a constant has no rank correlation
    return {name: value for name, value in found.items() if math.isfinite(value)}


def constant_beside(
    spec: DataSpec, metrics: Mapping[str, Metric], measures: Measures, known: Tensor | None, targets: Tensor
) -> dict[str, float]:
    """Return the scores of a constant; where no training targets are known, those of quantities are 0 on average, if standardized."""
    if known is None and spec.target_scale is not None:
        known = torch.zeros(1, len(spec.target_scale.mean))
    if known is None or spec.task == "objective":
        return {}
    return constant_scores(spec, metrics, measures, known.to(targets.device), targets)
