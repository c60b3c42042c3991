"""Measures of a regression in the units of its targets, where the model was trained on standardized ones."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

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
