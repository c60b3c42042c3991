"""The state of a run: where it is, and what a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dltrain.storage.run_folder import RunFolder
from dltrain.training.clock import Clock
from dltrain.training.guard import DeviceGuard, HostGuard, NonFinite, all_finite, first_non_finite
from dltrain.training.parts import Parts, Plan
from dltrain.training.running_means import RunningMeans
from dltrain.training.saved_state import check_moments, check_shapes
from dltrain.training.validation import evaluates_other_tensors


@dataclass
class State:
    """The position of a run in its training.

    Args:
        step: updates done
        stop: status and reason, once it is decided
        best_row: row of the best evaluation; `best_weights` are the tensors that were evaluated
        unevaluated: what the evaluation of this step needs, once a signal has ended it
        first_loss: mean () of the loss over the first batch; None for a run that an earlier version began
        bad_steps: skipped or rolled back, because they were not finite
    """

    step: int = 0
    stop: tuple[str, str] | None = None
    best_row: dict[str, float] = field(default_factory=dict)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    last_row: dict[str, float] = field(default_factory=dict)
    unevaluated: dict[str, Any] = field(default_factory=dict)
    first_loss: Tensor | None = None
    bad_steps: int = 0
    bad_in_a_row: int = 0


class Checkpoints:
    """Save the state of a run when it is due, and load it.

    Random streams have no state: they follow from seed and step.
    """

    def __init__(
        self,
        parts: Parts,
        plan: Plan,
        folder: RunFolder,
        state: State,
        running: RunningMeans,
        clock: Clock,
        guard: HostGuard | DeviceGuard,
    ) -> None:
        self.parts, self.plan, self.folder = parts, plan, folder
        self.state, self.running, self.clock, self.guard = state, running, clock, guard
        # whether the best evaluation has no checkpoint yet
        self.improved = False
        self.saved_step = -1

    def due(self) -> bool:
        """Return whether to save now; the best evaluation always has a checkpoint."""
        plan = self.plan
        if self.improved or (plan.checkpoint_every and self.state.step % plan.checkpoint_every == 0):
            return True
        return (
            plan.checkpoint_seconds is not None
            and self.folder.seconds_since_checkpoint() >= plan.checkpoint_seconds
        )

    def save(self) -> None:
        """Save a checkpoint of this step. Raises NonFinite rather than replace a good one by one with NaN."""
        self.guard.read()
        model, step = self.parts.model, self.state.step
        if not all_finite([p.detach() for p in model.parameters()]):
            raise NonFinite(step - 1, float("nan"), first_non_finite(model))
        others = self.improved and evaluates_other_tensors(self.parts)
        averaged = self.state.best_weights if others else None
        self.folder.save_checkpoint(step, self.content(), model.state_dict(), averaged)
        self.improved = False
        self.saved_step = step

    def save_once(self) -> None:
        """Save a checkpoint of this step, unless there is one."""
        if self.saved_step != self.state.step:
            self.save()

    def content(self) -> dict[str, Any]:
        """Return what a resume needs besides the weights, as plain data and tensors."""
        state, parts = self.state, self.parts
        sums, recent = self.running.state().unbind(1)
        return {
            "step": state.step,
            "sums": sums.clone(),
            "recent_sums": recent.clone(),
            "seconds": self.clock.seconds,
            "best_row": dict(state.best_row),
            "stop": list(state.stop) if state.stop else None,
            "bad_steps": [state.bad_steps, state.bad_in_a_row],
            "unevaluated": state.unevaluated,
            "first_loss": state.first_loss,
            "optimizer": parts.optimizer.state_dict(),
            "plateaus": [plateau.state_dict() for plateau in parts.plateaus],
            **{name: part.state_dict() for name, part in stateful(parts).items()},
        }

    def load(
        self, content: dict[str, Any], weights: dict[str, Tensor], best_weights: dict[str, Tensor]
    ) -> None:
        """Load a checkpoint into the parts, all of which are built."""
        state, parts = self.state, self.parts
        check_shapes(content, self.content())
        load_weights(parts, weights, content)
        check_moments(parts.optimizer)
        for plateau, saved in zip(parts.plateaus, content["plateaus"], strict=True):
            plateau.load_state_dict(saved)
        for name, part in stateful(parts).items():
            if name in content and part is not parts.averaging:
                part.load_state_dict(content[name])
        sums = content["sums"]
        # a run that an earlier version began has but those since the last evaluation
        self.running.load(torch.stack([sums, content.get("recent_sums", sums)], 1))
        self.clock.earlier = content["seconds"]
        state.step, state.best_row = content["step"], dict(content["best_row"])
        state.best_weights = {name: tensor.to(self.plan.device) for name, tensor in best_weights.items()}
        stop = content["stop"]
        # a run that was completed may get more epochs
        state.stop = tuple(stop) if stop and stop[0] != "completed" else None
        state.unevaluated = content.get("unevaluated", {})
        state.first_loss = content.get("first_loss")
        state.bad_steps, state.bad_in_a_row = content.get("bad_steps", (0, 0))
        self.saved_step = state.step


def stateful(parts: Parts) -> dict[str, Any]:
    """Return the parts with a state besides optimizer and plateaus, by their name in a checkpoint."""
    named = {"early_stopping": parts.early_stopping, "averaging": parts.averaging, "order": parts.order}
    return {name: part for name, part in named.items() if hasattr(part, "state_dict")}


def load_weights(parts: Parts, weights: dict[str, Tensor], content: dict[str, Any]) -> None:
    """Load the weights and averages of a checkpoint, and the optimizer's state that belongs to them."""
    parts.model.load_state_dict(weights)
    parts.optimizer.load_state_dict(content["optimizer"])
    if parts.averaging is not None and "averaging" in content:
        parts.averaging.load_state_dict(content["averaging"])
