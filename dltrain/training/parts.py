"""The parts of one experiment and its plan in steps, which `build` passes to the trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dltrain.augmentation.pipeline import Augmentation
from dltrain.averaging import Averaging
from dltrain.data.batches import Split
from dltrain.data.contract import Contract
from dltrain.data.prepare import Splits
from dltrain.data.spec import DataSpec
from dltrain.diagnostics.probe import Diagnostic
from dltrain.direction import Mode
from dltrain.metrics.measures import Measures
from dltrain.optimizers.groups import SteppingOptimizer
from dltrain.regularization.protocols import DecayRule, GradientRule, Penalty, WeightRule
from dltrain.training.planned import Planned

Schedule = Callable[[int], float]
Metric = Callable[[Tensor, Tensor], Tensor]


class Order(Protocol):
    """The order of the samples of an epoch: a function of seed and epoch."""

    def order(self, epoch: int) -> Tensor: ...


class EarlyStopping(Protocol):
    """Decide which evaluation is the best so far, and whether to stop."""

    metric: str
    mode: Mode
    stop_reason: str | None
    best: float | None
    best_step: int | None
    tolerance: float | None

    def observe(self, row: Mapping[str, float], step: int) -> bool: ...
    def converged(self, update_norm: float) -> bool: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class Rules:
    """Regularization by where it acts: on the loss, on the gradients, before and after the update."""

    penalties: list[Penalty] = field(default_factory=list)
    gradients: list[GradientRule] = field(default_factory=list)
    decays: list[DecayRule] = field(default_factory=list)
    weights: list[WeightRule] = field(default_factory=list)
    # by word, the strengths of the terms that shrink the weights
    terms: dict[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Frozen:
    """Parameters that are trained after `thaw_epoch` epochs only."""

    parameters: list[nn.Parameter]
    thaw_epoch: int
    key: str  # that sets it

    def at(self, epoch: int) -> None:
        """Freeze or thaw by the number of completed epochs, so that a resumed run equals the undisturbed one."""
        for parameter in self.parameters:
            parameter.requires_grad_(epoch >= self.thaw_epoch)


@dataclass
class Parts:
    """Everything that changes the weights, built and on its device."""

    model: nn.Module
    spec: DataSpec
    train: Split
    val: Split | None
    test: Split | None
    order: Any
    order_observes: bool  # whether the order wants to see each sample's loss
    order_draws: bool  # whether the order may draw batches of different sizes (dltrain.sampling.Drawn)
    loss: Callable[[Tensor, Tensor], Tensor]  # what is minimized, before penalties: per-sample losses (B,)
    metrics: Mapping[str, Metric]  # what is measured in every split: `loss`, the yardstick of the task, first
    objective: (
        str  # which of the metrics is `loss` itself: "objective", or "loss" where that is the yardstick
    )
    optimizer: SteppingOptimizer
    schedule: Schedule
    momentum_schedule: Schedule | None
    penalty_schedule: Schedule | None
    plateaus: list[Any]  # the schedules with a memory: they observe every evaluation
    rules: Rules
    augmentation: Augmentation | None  # (inputs, targets, generator, indices, epoch) → (inputs, targets)
    averaging: Averaging | None
    early_stopping: EarlyStopping
    fingerprint: str  # of the data
    statistics: dict[str, Tensor]  # mean and std that normalise the inputs
    contract: Contract | None = None  # what the model takes and gives; None for an objective
    frozen: list[Frozen] = field(default_factory=list)  # what thaws later
    planned: tuple[Planned, ...] = ()  # what begins during the run
    loaded: str = ""  # which weights the initializer read from a file; empty where it read none
    diagnostics: dict[str, Diagnostic] = field(default_factory=dict)  # by word; they look, and change nothing
    # the metrics that are no means over samples, measured in val and test
    measures: Measures = field(default_factory=Measures)
    # the data as they were prepared, without what `spec` says of this run; for other runs of this process
    prepared: Splits | None = None


@dataclass(frozen=True)
class Plan:
    """Length, intervals and precision of a run; every time is a number of steps."""

    seed: int
    device: torch.device
    precision: str  # fp32 | bf16
    batch_size: int
    steps_per_epoch: int
    total_steps: int
    accumulate: int
    evaluate_every: int
    evaluation_batch_size: int
    checkpoint_every: int | None
    checkpoint_seconds: float | None
    log_every: int | None
    compile: bool
    non_finite: str = "stop"  # stop | skip | rollback
    samples_needed: int = 1  # in a batch or micro-batch, by the model's batch norms

    def epoch_of(self, step: int) -> int:
        """Return the epoch of a step, both from 0."""
        return step // self.steps_per_epoch
