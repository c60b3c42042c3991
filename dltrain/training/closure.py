"""One step's objective as a function that can be called again: same batch, same random draws, same answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
    returns the loss without a graph; `loss_gradient` and `finish_gradient` are the two halves of that, between which
    SAM goes back to its weights. `gradients(params)` returns both with their graph, for Hessian-vector products.
    Batch-norm statistics move at the first call only.
    """

    def __init__(self, trainer: Trainer, inputs: Tensor, targets: Tensor, indices: Tensor) -> None:
        self.trainer = trainer
        self.inputs, self.targets, self.indices = inputs, targets, indices
        self.calls = 0
        self.finished = self.decayed = False

    def __call__(self) -> Tensor:
        total = self.loss_gradient()
        self.finish_gradient()
        return total

    def loss_gradient(self) -> Tensor:
        """The loss; leave in `.grad` the gradient of loss and penalties, before any rule has changed it."""
        self.trainer.clear_gradients()
        with torch.enable_grad():
            total = self._backward()
        if self.calls == 0:
            self.first_loss = total
        self.calls += 1
        return total

    def finish_gradient(self) -> None:
        """Make the gradient in `.grad` that of the update; at the first time of a step look at it, and decay."""
        trainer, parts = self.trainer, self.trainer.parts
        for rule in parts.rules.gradients:
            rule.change_gradients(trainer.noise.at(trainer.step), trainer.penalty_scale, trainer.step)
        if not self.finished:
            self.finished = True
            trainer.guard.before_update(self.first_loss, gradients_of(trainer.parameters), trainer.step)
            self.decay()

    def decay(self) -> None:
        """Decoupled decay, once a step: after the gradient was taken and before the update (Loshchilov & Hutter 2019)."""
        if not self.decayed:
            self.decayed = True
            for rule in self.trainer.parts.rules.decays:
                rule.before_update(self.trainer.parts.optimizer.param_groups, self.trainer.penalty_scale)

    def _backward(self) -> Tensor:
        """Leave the gradient in `.grad` and return the loss."""
        values = []
        for root, gradient, value in self._terms():
            root.backward(gradient)
            values.append(value)
        return sum(values[1:], start=values[0])

    def _terms(self) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
        """What the loss is the sum of, each term with the gradient that it starts from, and its value.

        The gradient of a mean over B samples is 1/B each, and is handed in: to go through the mean costs 2 % of a step.
        """
        size = len(self.inputs)
        for losses, total in self._losses():
            yield losses, self.trainer.shares(losses, size), total / size
        for penalty in self._penalties():
            if penalty.requires_grad:  # not so where all that it weighs is frozen
                yield penalty, None, penalty.detach()

    def gradients(self, params: list[Tensor], create_graph: bool = True) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The loss and its gradients by `params`, with their graph (second-order optimizers build on it)."""
        with torch.enable_grad():
            loss = sum(losses.sum() for losses, _ in self._losses()) / len(self.inputs)
            loss = sum(self._penalties(), loss)
            assert isinstance(loss, Tensor)
            grads = torch.autograd.grad(
                loss, params, create_graph=create_graph, allow_unused=True, materialize_grads=True
            )
        if self.calls == 0:
            # where the rules after the update, and the gradient's norm, look for it
            for parameter, gradient in zip(params, grads, strict=True):
                parameter.grad = gradient.detach()
            self.trainer.guard.before_update(
                loss.detach(), gradients_of(self.trainer.parameters), self.trainer.step
            )
        self.calls += (
            1  # the decay waits for the end of the step: it would change weights that the graph still needs
        )
        return loss, grads

    def _losses(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The losses of the samples and, without a graph, their sum, in `accumulate` micro-batches."""
        trainer = self.trainer
        trainer.dropout.at(trainer.step)
        for inputs, targets, indices in self._micro_batches():
            with trainer.autocast, still_statistics(trainer.batch_norms) if self.calls else nullcontext():
                logits = trainer.forward(inputs)
            if logits.dtype is torch.bfloat16:
                logits = logits.float()
            losses = trainer.parts.loss(logits, targets)
            values = losses.detach()
            total = values.sum()
            if self.calls == 0:
                trainer.running.add(total, logits.detach(), targets)
                if trainer.parts.order_observes:  # sampler=hard
                    trainer.parts.order.observe(indices, values)
            yield losses, total

    def _micro_batches(self) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
        pieces = self.trainer.pieces(len(self.inputs))
        whole = (self.inputs, self.targets, self.indices)
        return (whole,) if pieces == 1 else zip(*(part.chunk(pieces) for part in whole), strict=True)

    def _penalties(self) -> Iterator[Tensor]:
        trainer = self.trainer
        for rule in trainer.parts.rules.penalties:
            yield trainer.penalty_scale * rule.penalty()


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
