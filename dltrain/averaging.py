"""Averages of the weights over the steps: what is validated, stopped on, kept and tested when averaging is
on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Averaging(Protocol):
    """What the trainer calls: `update` after each optimizer step, `swapped` around an evaluation."""

    started: bool

    def update(self, step: int) -> None: ...

    def swapped(self) -> Any: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class _RunningAverage:
    """An average that moves by a weight in [0, 1] towards the model's parameters at chosen steps.

    Raises ValueError for a start after the end of the run, which has `total_steps` (0: not known).
    """

    def __init__(self, model: nn.Module, total_steps: int, start_step: int, every_steps: int) -> None:
        if total_steps and start_step > total_steps:
            raise ValueError(
                f"start_step is {start_step}, and the run has {total_steps} steps: nothing would be averaged; lower it, or "
                "train for more epochs"
            )
        self.model = model
        self.start_step, self.every_steps = start_step, every_steps
        self.count = 0  # iterates averaged so far
        self.average = [parameter.detach().clone() for parameter in model.parameters()]

    @property
    def started(self) -> bool:
        """Whether the average holds anything; before that the model's own weights are evaluated."""
        return self.count > 0

    def weight(self) -> float:
        """How far the average moves towards the new weights, given `count` earlier ones."""
        raise NotImplementedError

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after the 0-based `step`."""
        if step < self.start_step or (step - self.start_step) % self.every_steps:
            return
        parameters = [parameter.detach() for parameter in self.model.parameters()]
        if self.count == 0:
            torch._foreach_copy_(self.average, parameters)  # exact, as lerp with a weight of 1 need not be
        else:
            torch._foreach_lerp_(self.average, parameters, self.weight())
        self.count += 1

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the model holds the averaged weights; at the end its own weights and all its buffers are
        back.

        The buffers come back too because batch-norm statistics are recomputed inside
        (`recompute_batch_norm`).
        """
        if not self.started:
            yield
            return
        own = [*self.model.parameters(), *self.model.buffers()]
        kept = [tensor.detach().clone() for tensor in own]
        _copy(own, self.average)
        try:
            yield
        finally:
            _copy(own, kept)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "average": [tensor.clone() for tensor in self.average]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]
        _copy(self.average, state["average"])


@torch.no_grad()
def _copy(to: list[Tensor], source: list[Tensor]) -> None:
    for destination, tensor in zip(to, source, strict=False):
        destination.copy_(tensor)


class EMA(_RunningAverage):
    """Exponential moving average: a ← d a + (1 - d) w, with d = min(decay, (1 + t) / (10 + t)) while it warms
    up.
    """

    def __init__(
        self,
        model: nn.Module,
        total_steps: int = 0,
        steps_per_epoch: int = 1,
        *,
        decay: float = 0.999,
        warmup: bool = True,
        start_step: int = 0,
        every_steps: int = 1,
    ) -> None:
        del steps_per_epoch  # swa needs it
        super().__init__(model, total_steps, start_step, every_steps)
        self.decay, self.warmup = decay, warmup

    def weight(self) -> float:
        decay = min(self.decay, (1 + self.count) / (10 + self.count)) if self.warmup else self.decay
        return 1 - decay


class Polyak(_RunningAverage):
    """The mean of all iterates since `start_step` (Polyak & Juditsky 1992; L0, L3).

    With `forget` η > 0 the newest count for more: a ← a + (1 + η)/(t + η) (w - a) (Shamir & Zhang 2013,
    arXiv:1212.1824), which leaves the poor iterates of the start behind.
    """

    def __init__(
        self,
        model: nn.Module,
        total_steps: int = 0,
        steps_per_epoch: int = 1,
        *,
        forget: float = 0.0,
        start_step: int = 0,
        every_steps: int = 1,
    ) -> None:
        del steps_per_epoch  # swa needs it
        super().__init__(model, total_steps, start_step, every_steps)
        self.forget = forget

    def weight(self) -> float:
        return (1 + self.forget) / (self.count + 1 + self.forget)


class SWA(_RunningAverage):
    """Stochastic weight averaging: the mean of the weights every so many steps (Izmailov 2018,
    arXiv:1803.05407).

    Unset, `start_step` is three quarters of the run, as the paper trains before it averages, and `every_steps` one epoch.
    """

    def __init__(
        self,
        model: nn.Module,
        total_steps: int = 0,
        steps_per_epoch: int = 1,
        *,
        start_step: int | None = None,
        every_steps: int | None = None,
    ) -> None:
        start = total_steps * 3 // 4 if start_step is None else start_step
        every = steps_per_epoch if every_steps is None else every_steps
        super().__init__(model, total_steps, start, every)

    def weight(self) -> float:
        return 1 / (self.count + 1)


@torch.no_grad()
def recompute_batch_norm(model: nn.Module, inputs: Iterable[Tensor]) -> None:
    """Set the running statistics of all batch norms to their mean over the batches; one forward pass over
    `inputs`.

    A model without batch norm costs nothing: `inputs` is not even read. Only the batch norms are put in
    training mode, so that dropout draws nothing.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.running_mean is not None]
    if not norms:
        return
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's sign for a cumulative mean
        norm.train()
    try:
        for batch in inputs:
            model(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
