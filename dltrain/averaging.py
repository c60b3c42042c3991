"""Averages of the weights over the steps.

With averaging on, the averaged weights are validated, used for early stopping, saved as best and tested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dltrain.batch_norm import VALUES, batch_norms, values_per_channel
from dltrain.ranges import Count, Fraction, Index, NonNegative
from dltrain.text import counted

# up to this many batch norms get a pass over the samples each
EXACT = 4


class Averaging(Protocol):
    """The interface that the trainer uses: `update` after each optimizer step, `swapped` around an evaluation."""

    started: bool

    def update(self, step: int) -> None: ...

    def swapped(self) -> AbstractContextManager[None]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class _RunningAverage:
    """An average that moves toward the model's parameters by a weight in [0, 1] at chosen steps.

    Raises ValueError if fewer than two iterates would be averaged in total_steps (0: unknown).

    Args:
        last: whether the last step is averaged, too
    """

    def __init__(
        self, model: nn.Module, total_steps: int, start_step: int, every_steps: int, last: bool = False
    ) -> None:
        self.model = model
        self.start_step, self.every_steps = start_step, every_steps
        self.last_step = total_steps if last else None
        self.first_step = start_step or every_steps
        # the first one whose average is of more than one iterate
        self.begins = self.first_step + every_steps
        if last and self.first_step < total_steps:
            self.begins = min(self.begins, total_steps)
        if total_steps and self.begins > total_steps:
            raise ValueError(too_few(total_steps, start_step, every_steps))
        # iterates averaged so far
        self.count = 0
        self.average = [parameter.detach().clone() for parameter in model.parameters()]

    @property
    def started(self) -> bool:
        """Return whether the average has a value; before that the model's weights are evaluated."""
        return self.count > 0

    def weight(self) -> float:
        """Return the fraction by which the average moves toward the new weights after `count` earlier ones."""
        raise NotImplementedError

    def takes(self, step: int) -> bool:
        """Return whether the weights after `step` updates are averaged."""
        regular = step >= self.start_step and (step - self.start_step) % self.every_steps == 0
        return regular or step == self.last_step

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Include the weights after `step` updates in the average, if it is their turn."""
        if not self.takes(step):
            return
        parameters = [parameter.detach() for parameter in self.model.parameters()]
        if self.count == 0:
            # exact, unlike lerp with a weight of 1
            torch._foreach_copy_(self.average, parameters)
        else:
            torch._foreach_lerp_(self.average, parameters, self.weight())
        self.count += 1

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Put the averaged weights into the model; on exit restore its weights and all its buffers.

        The buffers are restored too because `recompute_batch_norm` may change batch-norm statistics inside.
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


def too_few(total_steps: int, start_step: int, every_steps: int) -> str:
    """Return that fewer than two iterates would be averaged, and the keys with which there are two."""
    first = start_step or every_steps
    late = 0 < total_steps <= start_step
    key = f"start_step is {start_step}" if late else f"every_steps is {every_steps}"
    what = (
        "nothing would be averaged"
        if first > total_steps
        else f"a single iterate, of step {first}, would be averaged, which is no average"
    )
    largest = total_steps - start_step if start_step else total_steps // 2
    if total_steps < 2:
        cure = "train for more steps"
    elif largest > 0:
        less = " or less" * (largest > 1)
        cure = f"use averaging.every_steps={largest}{less}, or train for more epochs"
    elif every_steps < total_steps:
        cure = f"use averaging.start_step={total_steps - every_steps} or less, or train for more epochs"
    else:
        cure = "use averaging.start_step=1 averaging.every_steps=1, or train for more epochs"
    return f"{key}, and the run has {counted(total_steps, 'step')}: {what}; {cure}"


@torch.no_grad()
def _copy(to: list[Tensor], source: list[Tensor]) -> None:
    for destination, tensor in zip(to, source, strict=False):
        destination.copy_(tensor)


class EMA(_RunningAverage):
    """Exponential moving average of the weights.

        a ← d·a + (1−d)·w
        d = min(decay, (1+t)/(10+t)) with warmup, else decay

    Symbols: t = iterates averaged so far
    Use: smoother and often better weights at no cost in training; most useful without a decreasing schedule.
    Defaults: decay averages over about 1000 steps; warmup is for shorter runs.
    Paper: Ruppert 1988; Tarvainen & Valpola 2017, arXiv:1703.01780

    Args:
        decay: factor of the previous average
        warmup: reduce decay for the first iterates
        start_step: first step that is averaged
        every_steps: steps between two updates
    """

    def __init__(
        self,
        model: nn.Module,
        total_steps: int = 0,
        steps_per_epoch: int = 1,
        *,
        decay: Fraction = 0.999,
        warmup: bool = True,
        start_step: Index = 0,
        every_steps: Count = 1,
    ) -> None:
        # only SWA uses it
        del steps_per_epoch
        super().__init__(model, total_steps, start_step, every_steps)
        self.decay, self.warmup = decay, warmup

    def weight(self) -> float:
        decay = min(self.decay, (1 + self.count) / (10 + self.count)) if self.warmup else self.decay
        return 1 - decay


class Polyak(_RunningAverage):
    """Polyak averaging: the mean of all iterates.

        a ← a + (1+η)/(t+1+η)·(w − a), with η = 0 the plain mean

    Symbols: η = forget; t = iterates averaged so far
    Use: convex problems at a large constant lr; forget 8 reduces the influence of poor first iterates.
    Defaults: forget 0 is the mean of the paper.
    Paper: Polyak & Juditsky 1992; η: Shamir & Zhang 2013, arXiv:1212.1824
    Lecture: L0 L3

    Args:
        forget: larger values give more weight to recent iterates
        start_step: first step that is averaged
        every_steps: steps between two updates
    """

    def __init__(
        self,
        model: nn.Module,
        total_steps: int = 0,
        steps_per_epoch: int = 1,
        *,
        forget: NonNegative = 0.0,
        start_step: Index = 0,
        every_steps: Count = 1,
    ) -> None:
        # only SWA uses it
        del steps_per_epoch
        super().__init__(model, total_steps, start_step, every_steps)
        self.forget = forget

    def weight(self) -> float:
        return (1 + self.forget) / (self.count + 1 + self.forget)


class SWA(_RunningAverage):
    """Stochastic weight averaging: the mean of weights sampled late in training.

        a ← (n·a + w)/(n + 1), at start_step and every every_steps after it

    The patience of early stopping counts from the first average of two weights on; where no average is the best evaluation, a
    line at the end says so.

    Symbols: n = weights averaged so far
    Use: a constant or cyclic lr (schedule=cosine_restarts, triangular).
    Defaults: from three quarters of the run on, as in the paper, at the end of each epoch and of the run.
    Paper: Izmailov et al. 2018, arXiv:1803.05407

    Args:
        start_step: first step that is averaged; null is the last end of an epoch in the first three quarters of the run
        every_steps: steps between two updates; null is one epoch, and the last step of the run
    """

    def __init__(
        self,
        model: nn.Module,
        total_steps: int = 0,
        steps_per_epoch: int = 1,
        *,
        start_step: Index | None = None,
        every_steps: Count | None = None,
    ) -> None:
        start = (
            total_steps * 3 // 4 // steps_per_epoch * steps_per_epoch if start_step is None else start_step
        )
        # the last step is averaged also where it is not the end of an epoch
        every = min(steps_per_epoch, total_steps or steps_per_epoch) if every_steps is None else every_steps
        super().__init__(model, total_steps, start, every, last=every_steps is None and total_steps > 0)

    def weight(self) -> float:
        return 1 / (self.count + 1)


class _Moments:
    """Count, mean and sum of squared deviations per channel over all batches, in float64."""

    def __init__(self, norm: _BatchNorm) -> None:
        self.norm, self.count, self.batches = norm, 0, 0
        assert norm.running_mean is not None
        self.mean = torch.zeros_like(norm.running_mean, dtype=torch.float64)
        self.squares = torch.zeros_like(self.mean)

    def add(self, inputs: Tensor) -> None:
        """Merge a batch (B, C, ...) into the moments (parallel variance, Chan et al. 1983)."""
        values = inputs.float() if inputs.dtype in (torch.bfloat16, torch.float16) else inputs
        number = values_per_channel(values)
        variance, mean = torch.var_mean(values, [d for d in range(values.dim()) if d != 1], correction=0)
        away = mean.double() - self.mean
        share = number / (self.count + number)
        self.mean += share * away
        self.squares += number * variance.double() + share * self.count * away.square()
        self.count += number
        self.batches += 1

    def write(self) -> None:
        """Store the moments as running statistics, with the unbiased variance as in torch."""
        # fewer: the forward pass did not reach this batch norm
        if self.count < VALUES:
            return
        assert self.norm.running_mean is not None and self.norm.running_var is not None
        self.norm.running_mean.copy_(self.mean)
        self.norm.running_var.copy_(self.squares / (self.count - 1))
        if self.norm.num_batches_tracked is not None:
            self.norm.num_batches_tracked.fill_(self.batches)


@torch.no_grad()
def recompute_batch_norm(model: nn.Module, inputs: Callable[[], Iterable[Tensor]]) -> None:
    """Set the running statistics of all batch norms to those of the given samples.

    `inputs()` returns the same batches at each call. For models with up to `EXACT` batch norms, each of them gets a
    pass over the samples, in the order of execution, and the mean and unbiased variance of all its inputs in
    evaluation mode, independent of the batches. In deeper models all get theirs in one pass in which each batch is
    normalized by its own statistics, as in training (precise batch norm, Wu & Johnson 2021, arXiv:2105.07576); the
    variance includes that of the batch means.

    Without batch norms, `inputs` is not called. Dropout is off and draws no random numbers.
    """
    norms = [norm for norm in batch_norms(model) if norm.running_mean is not None]
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    model.eval()
    try:
        for norm in norms:
            # the forward pass leaves the running statistics alone
            norm.momentum = 0.0
        ordered = norms
        for done in range(len(norms) if len(norms) <= EXACT else min(len(norms), 1)):
            ordered = _measure(model, ordered, done, inputs())
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode


def _measure(
    model: nn.Module, norms: list[_BatchNorm], done: int, batches: Iterable[Tensor]
) -> list[_BatchNorm]:
    """Set the statistics of all batch norms after the first `done` in one pass; return all in execution order."""
    moments = {norm: _Moments(norm) for norm in norms[done:]}
    seen: dict[_BatchNorm, None] = dict.fromkeys(norms[:done])

    def note(norm: _BatchNorm, args: tuple[Tensor, ...]) -> None:
        seen.setdefault(norm)
        moments[norm].add(args[0])

    hooks = [norm.register_forward_pre_hook(note) for norm in moments]
    for norm in norms:
        norm.train(norm in moments)
    try:
        for batch in batches:
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    for norm in moments:
        moments[norm].write()
    return [*seen, *(norm for norm in norms if norm not in seen)]
