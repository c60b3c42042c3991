"""Targets of a regression: standardized for the model, and measures in their real units."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dltrain.data.raw import RawData
from dltrain.data.spec import DataSpec, TargetScale

Measure = Callable[[Tensor, Tensor], Tensor]


class InUnits:
    """A measure of outputs and targets that are standardized, taken in real units."""

    def __init__(self, measure: Measure, scale: TargetScale) -> None:
        self.measure, self.scale = measure, scale

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """outputs and targets: (B, K), standardized."""
        to_units = self.scale.to_units
        return self.measure(to_units(outputs), to_units(targets.reshape(outputs.shape)))


def in_units(measure: Measure, spec: DataSpec) -> Measure:
    """Return `measure` in real units; as it is where the targets were not standardized."""
    return measure if spec.target_scale is None else InUnits(measure, spec.target_scale)


def target_scale(raw: RawData, train: Tensor, statistics: Mapping[str, Tensor] | None) -> TargetScale | None:
    """Mean and deviation of the training targets, or those of an earlier run, which may have had none."""
    if raw.task != "regression" or raw.target_scale == "none":
        return None
    if statistics is not None:
        known = "target_mean" in statistics
        return TargetScale(statistics["target_mean"], statistics["target_std"]) if known else None
    variance, mean = torch.var_mean(raw.targets[train].double(), 0, correction=0)
    return TargetScale(mean, torch.where(variance > 0, variance, 1.0).sqrt())


def learned(raw: RawData, scale: TargetScale | None) -> Tensor:
    """The targets that a model learns: classes as they are, quantities as float32."""
    if raw.task == "classification":
        return raw.targets
    return raw.targets.float() if scale is None else scale.standardize(raw.targets)
