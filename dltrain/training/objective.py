"""The objective of one step, J(W) = mean loss of the batch + penalties, and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dltrain.data.spec import Batch
from dltrain.optimizers.groups import SteppingOptimizer
from dltrain.optimizers.startup import backward
from dltrain.seeding import GlobalStream, Stream
from dltrain.training.guard import gradients_of
from dltrain.training.parts import Plan, Rules


class Streams:
    """The random draws of a step: each is a function of (seed, step)."""

    def __init__(self, plan: Plan) -> None:
        self.augment = Stream(plan.seed, "augment", plan.device)
        self.noise = Stream(plan.seed, "noise", plan.device)
        self.dropout = GlobalStream(plan.seed, "dropout", plan.device)


@dataclass(frozen=True)
class Terms:
    """The constants of the objective, the same at every step of a run.

    Args:
        forward: inputs (B, ...) → outputs (B, K)
        loss: (outputs, targets) → losses (B,)
        optimizer: its groups have the rates of decoupled decay
        parameters: of the model, including frozen ones
        norms: the batch norms of the model
        pieces: batch size → number of micro-batches
        check: (J, gradients, step), called once a step before the update; raises NonFinite
        record: (micro-batch, outputs, losses, their sum), called at the first evaluation of a step
        before_rules: called where rules are about to change the gradient in `.grad`
    """

    forward: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    rules: Rules
    optimizer: SteppingOptimizer
    streams: Streams
    parameters: Sequence[Tensor]
    norms: Sequence[nn.Module]
    pieces: Callable[[int], int]
    check: Callable[[Tensor, Sequence[Tensor], int], None]
    record: Callable[[Batch, Tensor, Tensor, Tensor], None]
    before_rules: Callable[[], None]


class Objective:
    """The closure of one step: same batch and same random draws, however often an optimizer calls it.

    A call leaves the gradient of the update in `.grad` and returns J without a graph. `loss_gradient` and
    `finish_gradient` are its two halves, between which SAM returns to its weights. `gradients(params)` returns J and
    its gradient with their graph, for Hessian-vector products. Running statistics change at the first call only.
    """

    def __init__(self, batch: Batch, step: int, penalty_scale: float, terms: Terms) -> None:
        self.batch, self.step, self.penalty_scale, self.terms = batch, step, penalty_scale, terms
        self.calls = 0
        self.checked = self.decayed = False

    def __call__(self) -> Tensor:
        value = self.loss_gradient()
        self.finish_gradient()
        return value

    def loss_gradient(self) -> Tensor:
        """Return J; leave its gradient in `.grad`, before any rule changes it."""
        for parameter in self.terms.parameters:
            parameter.grad = None
        size = len(self.batch.inputs)
        values = []
        with torch.enable_grad():
            for losses, total in self.losses():
                # the gradient of the mean: 1/B for each sample
                backward(losses, torch.full_like(losses, 1 / size))
                values.append(total / size)
            values += self.penalty_gradient()
        value = sum(values[1:], start=values[0])
        if self.calls == 0:
            self.first_value = value
        self.calls += 1
        return value

    def losses(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the losses (B,) of each micro-batch with their graph, and their sum without."""
        terms = self.terms
        terms.streams.dropout.at(self.step)
        for batch in self.micro_batches():
            with still_statistics(terms.norms) if self.calls else nullcontext():
                outputs = terms.forward(batch.inputs)
            losses = terms.loss(outputs, batch.targets)
            values = losses.detach()
            total = values.sum()
            if self.calls == 0:
                terms.record(batch, outputs.detach(), values, total)
            yield losses, total

    def micro_batches(self) -> Iterable[Batch]:
        pieces = self.terms.pieces(len(self.batch.inputs))
        if pieces == 1:
            return (self.batch,)
        return map(Batch._make, zip(*(part.chunk(pieces) for part in self.batch), strict=True))

    def penalties(self) -> Iterator[Tensor]:
        """Yield the penalties, with their graph."""
        for rule in self.terms.rules.penalties:
            yield self.penalty_scale * rule.penalty()

    def penalty_gradient(self) -> list[Tensor]:
        """Add the gradients of the penalties to `.grad`; return their values."""
        values = []
        for penalty in self.penalties():
            # false if all that it weighs is frozen
            if penalty.requires_grad:
                penalty.backward()
                values.append(penalty.detach())
        return values

    def finish_gradient(self) -> None:
        """Turn the gradient in `.grad` into that of the update; at the first time, check it and decay the weights."""
        self.change_gradient()
        if not self.checked:
            self.check(self.first_value)
            self.decay()

    def change_gradient(self) -> None:
        """Apply the gradient rules: clipping, noise, coupled decay."""
        if self.terms.rules.gradients:
            self.terms.before_rules()
        for rule in self.terms.rules.gradients:
            rule.change_gradients(self.terms.streams.noise.at(self.step), self.penalty_scale, self.step)

    def check(self, value: Tensor) -> None:
        """Raise NonFinite if J or its gradient is not finite."""
        self.checked = True
        self.terms.check(value, gradients_of(self.terms.parameters), self.step)

    def decay(self) -> None:
        """Decay the weights once a step, after the gradient and before the update (Loshchilov & Hutter 2019)."""
        if not self.decayed:
            self.decayed = True
            for rule in self.terms.rules.decays:
                rule.before_update(self.terms.optimizer.param_groups, self.penalty_scale)

    def gradients(self, params: list[Tensor], create_graph: bool = True) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return J and its gradient by `params`, both with their graph.

        Decay waits for the end of the step: it would change weights that the graph needs.
        """
        with torch.enable_grad():
            value = sum(losses.sum() for losses, _ in self.losses()) / len(self.batch.inputs)
            value = sum(self.penalties(), value)
            assert isinstance(value, Tensor)
            grads = torch.autograd.grad(
                value, params, create_graph=create_graph, allow_unused=True, materialize_grads=True
            )
        if self.calls == 0:
            # for the rules after the update, and for the gradient's norm
            for parameter, gradient in zip(params, grads, strict=True):
                parameter.grad = gradient.detach()
            self.check(value.detach())
        self.calls += 1
        return value, grads


class still_statistics:  # noqa: N801 - a context manager, named like one
    """Keep running statistics unchanged while an objective is evaluated again."""

    def __init__(self, norms: Sequence[nn.Module]) -> None:
        self.norms = norms

    def __enter__(self) -> None:
        for norm in self.norms:
            norm.track_running_stats = False  # type: ignore[assignment]

    def __exit__(self, *error: object) -> None:
        for norm in self.norms:
            norm.track_running_stats = True  # type: ignore[assignment]
