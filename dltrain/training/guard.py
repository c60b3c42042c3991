"""Detect numbers that are not finite before they reach the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dltrain.optimizers.groups import SteppingOptimizer


def norm_of(gradients: Sequence[Tensor]) -> Tensor:
    """Return the 2-norm of all tensors together, a scalar on their device."""
    if not gradients:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradients))))


def gradients_of(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients that are not None."""
    return [p.grad for p in parameters if p.grad is not None]


class NonFinite(Exception):
    """The loss or a gradient of this step is not finite; the weights are those before it."""

    def __init__(self, step: int, loss: float, first: str | None, samples: str = "") -> None:
        super().__init__(f"step {step}: loss {loss}")
        self.step, self.loss, self.first, self.samples = step, loss, first, samples


class HostGuard:
    """Check every step on the host, and raise NonFinite before the update: on a CPU, reading a number does not wait."""

    def __init__(self, model: torch.nn.Module, optimizer: SteppingOptimizer) -> None:
        self.model = model

    def before_update(self, loss: Tensor, gradients: Sequence[Tensor], step: int) -> None:
        if not math.isfinite(loss.item()) or not all_finite(gradients):
            raise NonFinite(step, float(loss), first_non_finite(self.model))

    def after_update(self) -> None:
        """Do nothing: the update was not taken."""

    def read(self) -> None:
        """Do nothing: no check is pending."""


class DeviceGuard:
    """Freeze the update from the first bad step on by a flag on the device, which the host reads at log points.

    torch's fused optimizers skip the update by their own `found_inf`; for the others the weights before the step are
    kept and put back, which costs one copy of the weights a step.
    """

    def __init__(self, model: torch.nn.Module, optimizer: SteppingOptimizer) -> None:
        self.model = model
        self.parameters = list(model.parameters())
        self.bad_step = torch.full((), -1.0, device=self.parameters[0].device)
        self.bad_loss = torch.zeros_like(self.bad_step)
        fused = getattr(optimizer, "_step_supports_amp_scaling", False)
        self.optimizer: Any = optimizer if fused else None
        self.before: list[Tensor] = []

    def before_update(self, loss: Tensor, gradients: Sequence[Tensor], step: int) -> None:
        first = (self.bad_step < 0) & ~torch.isfinite(loss + norm_of(gradients))
        self.bad_step = torch.where(first, float(step), self.bad_step)
        self.bad_loss = torch.where(first, loss.float(), self.bad_loss)
        if self.optimizer is not None:
            self.optimizer.grad_scale = None
            self.optimizer.found_inf = (self.bad_step >= 0).float()
        else:
            self.before = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def after_update(self) -> None:
        frozen = self.bad_step >= 0
        for parameter, before in zip(self.parameters, self.before, strict=False):
            torch.where(frozen, before, parameter, out=parameter.data)

    def read(self) -> None:
        """Raise NonFinite if a step was bad: the one host sync, at a log point."""
        step = int(self.bad_step.item())
        if step >= 0:
            raise NonFinite(step, float(self.bad_loss), first_non_finite(self.model))


def first_non_finite(model: torch.nn.Module) -> str | None:
    """Name the first tensor that is not finite: a weight or, after those, a gradient, in the model's order."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"the weight {name}"
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"the gradient of {name}"
    return None


def first_in_forward(model: torch.nn.Module, inputs: Tensor) -> str | None:
    """Name the first tensor of the forward pass that is not finite: the inputs, or the output of a module."""
    if not torch.isfinite(inputs).all():
        return "the inputs"
    found: list[str] = []

    def look(name: str, output: Any) -> None:
        if not found and isinstance(output, Tensor) and not torch.isfinite(output).all():
            found.append(f"the output of {name or 'the model'}")

    hooks = [
        module.register_forward_hook(lambda m, i, output, name=name: look(name, output))
        for name, module in model.named_modules()
    ]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(inputs)  # in evaluation mode: the statistics of batch norm stay where they are
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Return whether all numbers are finite, on the host, which waits for the device.

    By their sums: a third of the cost of norms, and 2 % of a small step; a sum that overflows is checked element by element.
    """
    total = sum(tensor.sum().item() for tensor in tensors)
    return math.isfinite(total) or all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
