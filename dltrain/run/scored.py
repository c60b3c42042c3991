"""What scoring needs of a run, and what the members of an ensemble share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dltrain.augmentation.pipeline import Augmentation
from dltrain.config.schema import Config, objective_of
from dltrain.data.batches import Joined, Split
from dltrain.data.contract import Contract
from dltrain.data.spec import DataSpec
from dltrain.data.units import InUnits
from dltrain.losses import to_softmax, yardstick
from dltrain.metrics.measures import Measures
from dltrain.metrics.probabilities import of_logits
from dltrain.metrics.thresholds import Threshold
from dltrain.run.build import measures
from dltrain.training.parts import Metric

Predicted = dict[str, tuple[Tensor, Tensor]]  # outputs and targets by split


@dataclass(frozen=True)
class Scored:
    """The parts of a run that scoring needs."""

    model: nn.Module
    spec: DataSpec
    splits: Mapping[str, Split | Joined]  # those to be scored, by name
    loss: Metric
    metrics: Mapping[str, Metric]
    measures: Measures
    augmentation: Augmentation | None
    contract: Contract | None
    train: Split
    threshold: Threshold | None = None  # by which a class is predicted; None for the most probable one
    following: Sequence[str] = ()  # metrics that the threshold changes
    notes: tuple[str, ...] = ()  # on what the metrics mean


def in_shared_units(
    parts: Scored, outputs: list[Predicted], specs: list[DataSpec]
) -> tuple[Scored, list[Predicted]]:
    """Return outputs of members that standardized their targets differently, in real units, and parts that measure these."""
    if len({scale_of(spec) for spec in specs}) == 1:
        return parts, outputs
    plain = replace(parts.spec, target_scale=None)
    kept = {
        name: plain_measure(metric)
        for name, metric in parts.metrics.items()
        if name not in ("loss", "objective")
    }
    metrics, _ = measures(yardstick(plain), plain, kept)
    real = [
        {name: (spec.in_units(logits), spec.in_units(targets)) for name, (logits, targets) in found.items()}
        for spec, found in zip(specs, outputs, strict=True)
    ]
    return replace(parts, spec=plain, metrics=metrics, measures=replace(parts.measures, spec=plain)), real


def plain_measure(metric: Metric) -> Metric:
    """Return the measure inside one that turns standardized values into real units."""
    return metric.measure if isinstance(metric, InUnits) else metric


def scale_of(spec: DataSpec) -> tuple[float, ...]:
    """Return mean and deviation of the targets as comparable numbers; empty where they were not standardized."""
    scale = spec.target_scale
    return () if scale is None else (*scale.mean.tolist(), *scale.std.tolist())


def same_targets(left: Tensor, right: Tensor) -> bool:
    """Return whether two runs score the same samples; targets in real units differ by the rounding of their scales."""
    if left.shape != right.shape:
        return False
    close = 1e-5 * float(left.double().std(correction=0)) if left.is_floating_point() else 0.0
    return torch.equal(left, right) or (
        close > 0 and torch.allclose(left.double(), right.double(), rtol=0, atol=close)
    )


def shared_measures(
    parts: Scored, losses: list[object], configs: list[Config], outputs: list[Predicted]
) -> tuple[Scored, list[Predicted]]:
    """Return the parts of an ensemble, without what its members do not share, and the outputs of its members.

    Members that minimized different objectives have none together, and the probabilities of members whose losses are of
    different kinds are combined as the yardstick combines.
    """
    if any(objective_of(config) != objective_of(configs[0]) for config in configs):
        kept = {name: metric for name, metric in parts.metrics.items() if name != "objective"}
        parts = replace(parts, metrics=kept)
    if len({type(loss) for loss in losses}) == 1:
        return parts, outputs
    plain = {name: of_logits(metric) for name, metric in parts.metrics.items()}
    shared = replace(
        parts,
        loss=yardstick(parts.spec),
        metrics=plain,
        measures=replace(parts.measures, to_softmax=None),
    )
    return shared, [
        {name: (to_softmax(loss, logits), targets) for name, (logits, targets) in found.items()}
        for loss, found in zip(losses, outputs, strict=True)
    ]
