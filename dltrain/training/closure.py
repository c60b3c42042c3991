"""One step's objective as a function that can be called again: same batch, same random draws, same answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dltrain.training.guard import gradients_of

if TYPE_CHECKING:
    from dltrain.training.trainer import Trainer


class Closure:
    """The loss of one step and its gradient, for whatever optimizer calls it, once or many times.

    Calling it leaves the gradient of loss and penalties in `.grad`, after clipping and the other gradient rules, and
    returns the loss without a graph. `gradients(params)` returns both with their graph, for Hessian-vector products.
    Batch-norm statistics move at the first call only.
    """

    def __init__(self, trainer: Trainer, inputs: Tensor, targets: Tensor) -> None:
        self.trainer = trainer
        self.inputs, self.targets = inputs, targets
        self.calls = 0
        self.decayed = False

    def __call__(self) -> Tensor:
        trainer, parts = self.trainer, self.trainer.parts
        parts.optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            total = self._backward()
        for rule in parts.rules.gradients:
            rule.change_gradients(trainer.noise.at(trainer.step), trainer.penalty_scale, trainer.step)
        if self.calls == 0:
            trainer.guard.before_update(total, gradients_of(trainer.parameters), trainer.step)
            self.decay()
        self.calls += 1
        return total

    def decay(self) -> None:
        """Decoupled decay, once a step: after the gradient was taken and before the update (Loshchilov & Hutter 2019)."""
        if not self.decayed:
            self.decayed = True
            for rule in self.trainer.parts.rules.decays:
                rule.before_update(self.trainer.parts.optimizer.param_groups, self.trainer.penalty_scale)

    def _backward(self) -> Tensor:
        total: Tensor | None = None
        for share, inputs, targets in self._micro_batches():
            loss = self._loss(inputs, targets) * share if share < 1 else self._loss(inputs, targets)
            loss.backward()
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return total

    def gradients(self, params: list[Tensor], create_graph: bool = True) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The loss and its gradients by `params`, with their graph (second-order optimizers build on it)."""
        with torch.enable_grad():
            loss = sum(
                self._loss(inputs, targets) * share for share, inputs, targets in self._micro_batches()
            )
            assert isinstance(loss, Tensor)
            grads = torch.autograd.grad(
                loss, params, create_graph=create_graph, allow_unused=True, materialize_grads=True
            )
        if self.calls == 0:
            self.trainer.gradients = [gradient.detach() for gradient in grads]
            self.trainer.guard.before_update(loss.detach(), self.trainer.gradients, self.trainer.step)
        self.calls += (
            1  # the decay waits for the end of the step: it would change weights that the graph still needs
        )
        return loss, grads

    def _micro_batches(self) -> Iterator[tuple[float, Tensor, Tensor]]:
        """The batch in `accumulate` parts, each with its share of the samples, under this step's dropout draws."""
        self.trainer.dropout.at(self.trainer.step)
        pieces = self.trainer.plan.accumulate
        if pieces == 1:
            yield 1.0, self.inputs, self.targets
            return
        for inputs, targets in zip(self.inputs.chunk(pieces), self.targets.chunk(pieces), strict=True):
            yield len(inputs) / len(self.inputs), inputs, targets

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of a (micro-)batch plus the penalties."""
        trainer = self.trainer
        with trainer.autocast, still_statistics(trainer.batch_norms) if self.calls else nullcontext():
            logits = trainer.forward(inputs)
        if logits.dtype is torch.bfloat16:
            logits = logits.float()
        losses = trainer.parts.loss(logits, targets)
        if self.calls == 0:
            trainer.record(logits.detach(), targets, losses.detach())
        loss = losses.mean()
        for rule in trainer.parts.rules.penalties:
            loss = loss + trainer.penalty_scale * rule.penalty()
        return loss


class still_statistics:  # noqa: N801 - a context manager, named like one
    """Keeps running statistics where they are while a closure is called again."""

    def __init__(self, norms: Sequence[nn.Module]) -> None:
        self.norms = norms

    def __enter__(self) -> None:
        for norm in self.norms:
            norm.track_running_stats = False  # type: ignore[assignment]

    def __exit__(self, *error: object) -> None:
        for norm in self.norms:
            norm.track_running_stats = True  # type: ignore[assignment]
