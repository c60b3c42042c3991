"""Many runs as one: models of equal shapes that take every step together, in one forward and one backward pass.

Only the pass through the model is shared. Every run keeps its own trainer: order, random draws, rates, penalties,
optimizer, early stopping and folder. The weights of all runs are one tensor for each parameter, of which the weights
of a run are views, so that whatever works on the model of one run works here, too.

It is faster where the overhead of a step is larger than its arithmetic: small models on a CPU (docs/speed.md).

The file is long because the members share one step: its parts read and write the same stacked tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.data.batches import Split
from dltrain.data.spec import Batch
from dltrain.optimizers.startup import backward
from dltrain.storage.run_folder import RunFolder
from dltrain.storage.snapshot import Snapshot
from dltrain.training.cost import step_flops
from dltrain.training.evaluation import evaluating, means_of, outputs_of
from dltrain.training.objective import Objective
from dltrain.training.parts import Parts, Plan
from dltrain.training.stacked_layers import (
    Shared,
    StackedDropout,
    StackedLayerNorm,
    Vector,
    stacked_layers,
)
from dltrain.training.state import Checkpoints
from dltrain.training.trainer import Trainer, Watch

# between the checkpoints of a run: a step of a stack is short, and a file for each run is not
SAVE_SECONDS = 10.0
# of one run's step: beyond, its arithmetic outweighs the overhead that a stack saves
PAYING_FLOPS = 6e7


# Runs -------------------------------------------------------------------------------------------------------------


@dataclass
class Unsaved:
    """A checkpoint that waits to be written."""

    step: int
    content: dict[str, Any]
    weights: dict[str, Tensor]


class MemberCheckpoints(Checkpoints):
    """The checkpoints of a run in a stack: at most one in `SAVE_SECONDS`, and at the end the newest and the best."""

    # gives the run's own optimizer its state
    split_state: Callable[[], None]
    waiting: Unsaved | None = None

    def due(self) -> bool:
        if self.improved:
            # kept for a later checkpoint, which refers to it
            weights = Snapshot().of(self.parts.model.state_dict())
            self.waiting = Unsaved(self.state.step, self.content(), weights)
            self.improved = False
        due = super().due() or self.waiting is not None
        return due and self.folder.seconds_since_checkpoint() >= SAVE_SECONDS

    def save(self) -> None:
        self.save_best()
        super().save()

    def save_best(self) -> None:
        """Write the waiting checkpoint of the best evaluation, unless that of this step replaces it."""
        best, self.waiting = self.waiting, None
        if best is not None and best.step != self.state.step:
            self.folder.save_checkpoint(best.step, best.content, best.weights, None)

    def content(self) -> dict[str, Any]:
        """Return a copy: a file of views would hold the weights of all runs."""
        self.split_state()
        content: dict[str, Any] = Snapshot().of(super().content())
        return content


class Member(Trainer):
    """The trainer of one run of a stack: all of a run except the pass through the model."""

    stack: Stack
    checkpoints: MemberCheckpoints
    # its weights, by group of its optimizer
    vectors: Sequence[list[Vector]] = ()

    def __init__(
        self, parts: Parts, plan: Plan, folder: RunFolder, loggers: Iterable[object], watch: Watch
    ) -> None:
        super().__init__(parts, plan, folder, loggers, watch)
        self.checkpoints = MemberCheckpoints(
            parts, plan, folder, self.state, self.running, self.clock, self.guard
        )
        self.checkpoints.split_state = self.split_state

    def count(self) -> None:
        """Count a step as done."""
        self.state.step += 1

    def observe(self) -> None:
        """Observe the steps at which something is due: to look at each costs 1 % of a small one."""
        plan, step = self.plan, self.step
        due = (
            self.change.norm is not None
            or self.evaluates_at(step)
            or (plan.log_every and step % plan.log_every == 0)
            or self.signals.received is not None
            or self.folder.seconds_since_checkpoint() >= SAVE_SECONDS
        )
        if due:
            super().observe()

    def validate(self) -> dict[str, float]:
        return self.stack.validation(self) if self.parts.val is not None else {}

    def objective(self, batch: Batch) -> Objective:
        """Return the objective of this step, for the terms that each run has for itself."""
        return Objective(batch, self.step, self.rates.penalty_scale, self.terms)

    def split_state(self) -> None:
        """Give the run's own optimizer its state, parameter by parameter, from that of the stack's vectors."""
        if not self.vectors:
            return
        optimizer: Any = self.parts.optimizer
        places = self.stack.shared.places
        known = self.stack.optimizer_of(self).state
        for group, vectors in zip(optimizer.param_groups, self.vectors, strict=True):
            for parameter in group["params"]:
                place = places[parameter]
                vector = next(v for v in vectors if v.place.start <= place.start < v.place.stop)
                start = place.start - vector.place.start
                part = slice(start, start + parameter.numel())
                # plain descent has no state
                if known.get(vector.values):
                    optimizer.state[parameter] = {
                        name: value[part].view(parameter.shape)
                        if isinstance(value, Tensor) and value.dim()
                        else value
                        for name, value in known[vector.values].items()
                    }

    def leave(self) -> None:
        """Take weights and state out of the memory that all runs share."""
        self.split_state()
        for vector in chain(*self.vectors):
            del self.stack.optimizer_of(self).state[vector.values]
        self.vectors = ()
        for tensor in (*self.parts.model.parameters(), *self.parts.model.buffers()):
            tensor.data = tensor.data.clone()
            tensor.grad = tensor.grad.clone() if tensor.grad is not None else None
        self.running.share(self.running.sums.clone())


class Stack:
    """M runs that begin together; each leaves when it is done, stopped or failed, and `ended` is told of it.

    `current` is called with the member that is about to act, so that its log records reach its own log.
    """

    def __init__(
        self,
        members: list[Member],
        ended: Callable[[Member, Exception | None], None],
        current: Callable[[Member], None] = lambda member: None,
    ) -> None:
        self.members, self.ended, self.current = members, ended, current
        self.errors: dict[int, Exception] = {}  # by place among the members
        self.optimizers: dict[type, Any] = {}  # one of each kind, over the vectors of all runs
        for member in members:
            member.stack = self
        self.join()

    @property
    def step(self) -> int:
        return self.members[0].step

    def join(self) -> None:
        """Put weights, gradients and sums of the present members into shared memory, and divide the time among them."""
        for member in self.members:
            member.clock.share(len(self.members))
        models = [member.parts.model for member in self.members]
        self.shared = Shared(models)
        self.layers = stacked_layers(models, self.shared)
        for i, member in enumerate(self.members):
            groups = member.parts.optimizer.param_groups
            self.adopt(member, [self.shared.vectors(i, group["params"]) for group in groups])
        self.sums = torch.stack([member.running.sums for member in self.members])
        for member, sums in zip(self.members, self.sums, strict=True):
            member.running.share(sums)
        self.scores: tuple[int, list[dict[str, float]]] = (-1, [])
        self.augments = any(member.parts.augmentation is not None for member in self.members)
        self.rules = any(any(vars(member.parts.rules).values()) for member in self.members)

    def adopt(self, member: Member, vectors: list[list[Vector]]) -> None:
        """Let the optimizer of the member's kind update its vectors, with the state that it had."""
        kind: type[Any] = type(member.parts.optimizer)
        fresh = kind(groups_of(member, vectors))  # some have a state from the beginning
        optimizer = self.optimizers.setdefault(kind, fresh)
        former = [vector.values for vector in chain(*member.vectors)]
        for i, vector in enumerate(chain(*vectors)):
            known = optimizer.state.pop(former[i]) if former else fresh.state[vector.values]
            optimizer.state[vector.values] = known
        member.vectors = vectors

    def optimizer_of(self, member: Member) -> Any:
        return self.optimizers[type(member.parts.optimizer)]

    def run(self) -> None:
        """Train until the last member has left."""
        while self.members:
            self.train_epoch()

    def train_epoch(self) -> None:
        """Train on one pass over the training split, until a member leaves."""
        first, plan = self.members[0], self.members[0].plan
        epoch = plan.epoch_of(self.step)
        start = self.step - epoch * plan.steps_per_epoch
        together = len(self.members) * plan.batch_size
        for batch in first.parts.train.batches(self.order(epoch), together, start):
            self.train_step(batch, epoch)
            if self.part():
                return

    def order(self, epoch: int) -> Tensor:
        """Yield the batches of all members, step by step: M batches of the first step, M of the second, and so on."""
        plan = self.members[0].plan
        size, length = plan.batch_size, plan.steps_per_epoch * plan.batch_size
        orders = torch.stack([member.parts.order.order(epoch)[:length] for member in self.members])
        return torch.cat([part.reshape(-1) for part in orders.split(size, dim=1)])

    # One step, in the order of the mathematics ---------------------------------------------------------------------

    def train_step(self, batch: Batch, epoch: int) -> None:
        """Take the step of `Trainer.train_epoch` for all members."""
        self.each(lambda i, member: member.set_rates())
        batch = self.augment(batch, epoch)
        # forward, loss and backward: together
        losses = self.descend(batch)
        if self.step == 0:
            for member, loss in zip(self.members, losses, strict=True):
                member.state.first_loss = loss.clone()
        # penalties and gradient rules, decay, update, constraints: each for itself, except the update
        objectives = [member.objective(own) for member, own in zip(self.members, rows(batch), strict=True)]
        if self.rules:
            self.each(lambda i, member: objectives[i].penalty_gradient())
            self.each(lambda i, member: objectives[i].change_gradient())
        self.check_finite(losses, objectives)
        with ExitStack() as measured:
            for member in self.members:
                measured.enter_context(member.change.measured(evaluated=False))
            if self.rules:
                self.each(lambda i, member: objectives[i].decay())
            self.update(losses)
            if self.rules:
                self.each(lambda i, member: member.constrain(objectives[i]))
        # of all, before the first evaluation asks for the scores of all
        self.each(lambda i, member: member.count())
        self.each(lambda i, member: member.observe())

    def augment(self, batch: Batch, epoch: int) -> Batch:
        """Return flat inputs (M, B, features) and targets (M, B, …), augmented by each member's own draws."""
        batch = Batch(*(tensor.unflatten(0, (len(self.members), -1)) for tensor in batch))
        if self.augments:
            own = [
                member.augment(part, epoch) for member, part in zip(self.members, rows(batch), strict=True)
            ]
            batch = Batch(*map(torch.stack, zip(*own, strict=True)))
        return batch._replace(inputs=batch.inputs.flatten(2))

    def descend(self, batch: Batch) -> Tensor:
        """Leave each member's gradient of its mean loss in its parameters; return the losses (M,)."""
        self.draw(batch.inputs.shape[1])
        with torch.enable_grad():
            logits = self.forward(batch.inputs, training=True)
            losses = self.loss(logits, batch.targets)
            backward(losses, torch.full_like(losses, 1 / losses.shape[1]))
        for layer in self.layers:
            if isinstance(layer, StackedLayerNorm):
                layer.collect()
        self.record(logits.detach(), batch.targets, losses.detach())
        return losses.detach().mean(1)

    def draw(self, samples: int) -> None:
        """Draw each member's dropout factors of this step, layer by layer, from its own stream."""
        drops = [layer for layer in self.layers if isinstance(layer, StackedDropout)]
        for layer in drops:
            layer.factors = []
        for member in self.members if drops else ():
            member.streams.dropout.at(member.step)
            for layer in drops:
                layer.draw(samples)

    def forward(self, inputs: Tensor, training: bool) -> Tensor:
        """Return logits (M, B, outputs) of inputs (M, B, features)."""
        for layer in self.layers:
            if isinstance(layer, StackedDropout):
                layer.training = training
            inputs = layer(inputs)
        return inputs

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the losses (M, B) of all samples."""
        losses: Tensor = self.members[0].parts.loss(logits.flatten(0, 1), targets.flatten(0, 1))
        return losses.unflatten(0, logits.shape[:2])

    def record(self, logits: Tensor, targets: Tensor, losses: Tensor) -> None:
        """Add up the metrics of all members, whose samples are scored together."""
        first = self.members[0].parts
        self.sums[:, 0] += losses.shape[1]
        for column, (name, metric) in enumerate(first.metrics.items(), start=1):
            known = name == first.objective
            values = losses if known else metric(logits.flatten(0, 1), targets.flatten(0, 1))
            self.sums[:, column] += values.view_as(losses).sum(1)[:, None]

    def check_finite(self, losses: Tensor, objectives: list[Objective]) -> None:
        """End the members whose loss or gradient is not finite: one look at all of them."""
        # a sum that overflows is looked at closely
        if math.isfinite(float(losses.sum() + self.shared.slopes.sum())):
            return

        def check(i: int, member: Member) -> None:
            with member.policy(objectives[i].batch):
                objectives[i].check(losses[i])

        self.each(check)

    def update(self, losses: Tensor) -> None:
        """Take the step of the optimizers, one of each kind for all members."""
        present = [member for i, member in enumerate(self.members) if i not in self.errors]
        for kind, optimizer in self.optimizers.items():
            own = (m for m in present if type(m.parts.optimizer) is kind)
            optimizer.param_groups = merged(chain(*(groups_of(m, m.vectors) for m in own)))
            optimizer.step(lambda: losses)

    # Evaluation -----------------------------------------------------------------------------------------------------

    def validation(self, member: Member) -> dict[str, float]:
        """Return a member's scores of the validation split; those of all are computed at the first call of a step."""
        if self.scores[0] != member.step and member.parts.val is not None:
            self.scores = (member.step, self.score(member.parts.val))
        return self.scores[1][self.members.index(member)]

    def score(self, split: Split) -> list[dict[str, float]]:
        """Return the metrics of a split for each member, from one forward pass of all."""
        first, plan = self.members[0].parts, self.members[0].plan
        with evaluating(first.model):
            batches = list(
                outputs_of(self.evaluated, split, plan.evaluation_batch_size, plan.device, plan.precision)
            )
            return [
                means_of(
                    ((outputs[i], targets) for outputs, targets in batches),
                    first.metrics,
                    plan.device,
                    member.parts.measures,
                )
                for i, member in enumerate(self.members)
            ]

    def evaluated(self, inputs: Tensor) -> Tensor:
        """Return the outputs (M, B, K) of all members for the same inputs (B, ...)."""
        return self.forward(inputs.flatten(1).expand(len(self.members), -1, -1), training=False)

    # Members --------------------------------------------------------------------------------------------------------

    def each(self, act: Callable[[int, Member], object]) -> None:
        """Act for every member that has no error yet; an error is that member's alone."""
        for i, member in enumerate(self.members):
            if i in self.errors:
                continue
            self.current(member)
            try:
                act(i, member)
            except MemoryError:
                raise
            except Exception as error:
                self.errors[i] = error

    def part(self) -> bool:
        """Let go of the members that are done or failed; whether there were any."""
        going = [i for i, member in enumerate(self.members) if i in self.errors or not member.going]
        if not going:
            return False
        # the files of all are on their way before the first is waited for: the disk takes its time for each
        self.each(lambda i, member: member.checkpoints.save_best() if i in going else None)
        self.each(lambda i, member: member.save_end() if i in going else None)
        leaving = [(self.members[i], self.errors.get(i)) for i in going]
        for member, error in leaving:
            if error is not None:
                with suppress(Exception):  # what ended the run is what is told
                    member.checkpoints.save_best()
        self.members = [member for i, member in enumerate(self.members) if i not in going]
        self.errors = {}
        for member, error in leaving:
            self.current(member)
            member.leave()
            self.ended(member, error)
        if self.members:
            self.join()
        return True


def rows(batch: Batch) -> Iterator[Batch]:
    """Yield the batch of each member."""
    return map(Batch._make, zip(*batch, strict=True))


def groups_of(member: Member, vectors: Sequence[list[Vector]]) -> list[dict[str, Any]]:
    """Return the groups of a member's optimizer with their current rates, and vectors in place of its parameters."""
    groups = member.parts.optimizer.param_groups
    return [{**g, "params": [v.values for v in own]} for g, own in zip(groups, vectors, strict=True)]


def merged(groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge groups that are equal but for their parameters: an optimizer's call costs ten times a run's arithmetic."""
    found: dict[str, dict[str, Any]] = {}
    for group in groups:
        own = group.pop("params")
        found.setdefault(repr(group), {**group, "params": []})["params"] += own
    return list(found.values())


def is_faster(model: nn.Module, plan: Plan) -> bool:
    """Return whether a step of one run is so small that its overhead outweighs its arithmetic."""
    # multilayer perceptrons only: each weight is used once for each sample
    return step_flops(model, (1,), plan.batch_size) <= PAYING_FLOPS
