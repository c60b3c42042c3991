"""Many runs as one: models of equal shapes that take every step together, in one forward and one backward pass.

Only the pass through the model is shared. Every run keeps its own trainer: order, random draws, rates, penalties,
optimizer, early stopping and folder. The weights of all runs are one tensor for each parameter, of which the weights
of a run are views, so that whatever works on the model of one run works here, too.

It pays where the overhead of a step is larger than its arithmetic: small models on a CPU (docs/speed.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltrain.data.spec import Batch
from dltrain.models.mlp import MLP, DeepLinear, Linear
from dltrain.training.closure import Closure
from dltrain.training.evaluation import evaluating
from dltrain.training.guard import NonFinite, gradients_of
from dltrain.training.parts import Plan
from dltrain.training.run_folder import Snapshot
from dltrain.training.trainer import Trainer

SAVE_SECONDS = (
    10.0  # between the checkpoints of a run: a step of a stack is short, and a file of each run is not
)
PAYING_FLOPS = 6e7  # of one run's step: beyond, its arithmetic outweighs the overhead that a stack saves
ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.Identity)


# Layers for all runs at once: (M, B, features) → (M, B, features) ------------------------------------------------


@dataclass(frozen=True)
class Vector:
    """Neighbouring parameters of one of an optimizer's groups, as one vector for the optimizer of the stack."""

    place: slice
    values: nn.Parameter


class Shared:
    """The weights of M equal runs in one tensor (M, numbers), their gradients in another.

    The parameters of the runs become views. Matrices come first: what an optimizer's own weight decay leaves alone is
    one vector then, too.
    """

    def __init__(self, models: list[nn.Module]) -> None:
        rows = [sorted(model.parameters(), key=lambda p: p.dim() < 2) for model in models]
        self.values = torch.stack([torch.cat([p.detach().reshape(-1) for p in row]) for row in rows])
        self.slopes = torch.zeros_like(self.values)
        self.places: dict[Tensor, slice] = {}
        start = 0
        for column in zip(*rows, strict=True):
            place = slice(start, start + column[0].numel())
            for i, parameter in enumerate(column):
                self.places[parameter] = place
                parameter.data = self.values[i, place].view(parameter.shape)
                parameter.grad = self.slopes[i, place].view(parameter.shape)
            start = place.stop

    def of(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        """Values and gradients (M, …) of a parameter of one run, for all runs."""
        values, slopes = (
            whole[:, self.places[parameter]].unflatten(1, parameter.shape)
            for whole in (self.values, self.slopes)
        )
        return values, slopes

    def vectors(self, run: int, parameters: list[Tensor]) -> list[Vector]:
        """The parameters of a run's group, neighbours joined."""
        joined: list[slice] = []
        for place in sorted((self.places[p] for p in parameters), key=lambda place: place.start):
            if joined and joined[-1].stop == place.start:
                joined[-1] = slice(joined[-1].start, place.stop)
            else:
                joined.append(place)
        vectors = [Vector(place, nn.Parameter(self.values[run, place])) for place in joined]
        for vector in vectors:
            vector.values.grad = self.slopes[run, vector.place]
        return vectors


class StackedLinear:
    """M linear layers by one batched product; the backward pass writes into the gradients of the runs directly."""

    def __init__(self, layer: nn.Linear, shared: Shared) -> None:
        self.weight, self.weight_slope = shared.of(layer.weight)
        self.bias: Tensor | None = None
        if layer.bias is not None:
            bias, slope = shared.of(layer.bias)
            self.bias, self.bias_slope = bias.unsqueeze(1), slope.unsqueeze(1)
        self.trigger = torch.zeros(
            (), requires_grad=True
        )  # autograd calls back only for what needs a gradient

    def __call__(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = _Product.apply(inputs, self.trigger, self)
        return outputs


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, trigger: Tensor, layer: StackedLinear) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.layer = layer
        if layer.bias is None:
            return torch.bmm(inputs, layer.weight.mT)
        return torch.baddbmm(layer.bias, inputs, layer.weight.mT)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, None, None]:
        (slope,), (inputs,), layer = slopes, ctx.saved_tensors, ctx.layer
        torch.bmm(slope.mT, inputs, out=layer.weight_slope)
        if layer.bias is not None:
            torch.sum(slope, 1, keepdim=True, out=layer.bias_slope)
        return torch.bmm(slope, layer.weight) if ctx.needs_input_grad[0] else None, None, None


class StackedDropout:
    """M dropout layers, each with its own p and with the draws that its run would make alone."""

    def __init__(self, layers: list[nn.Dropout], width: int) -> None:
        self.rates, self.width, self.training = [layer.p for layer in layers], width, True
        self.factors: list[Tensor] = []

    def draw(self, samples: int) -> None:
        """Draw the factors of the run whose turn it is from the global generator, as F.dropout does."""
        p, factors = self.rates[len(self.factors)], torch.ones(samples, self.width)
        self.factors.append(factors.bernoulli_(1 - p).div_(1 - p) if p > 0 else factors)

    def __call__(self, inputs: Tensor) -> Tensor:
        return inputs * torch.stack(self.factors) if self.training else inputs


class StackedLayerNorm:
    """M layer normalisations; gains and offsets are leaves of the graph, whose gradients are those of the runs."""

    def __init__(self, layer: Any, shared: Shared) -> None:
        self.pairs = [shared.of(layer.weight), shared.of(layer.bias)]
        self.weight, self.bias = (values.detach().requires_grad_() for values, _ in self.pairs)
        self.eps = layer.eps

    def collect(self) -> None:
        """Take the gradients to where the runs have theirs."""
        for leaf, (_, slope) in zip((self.weight, self.bias), self.pairs, strict=True):
            assert leaf.grad is not None
            slope.copy_(leaf.grad)
            leaf.grad = None

    def __call__(self, inputs: Tensor) -> Tensor:
        normal = F.layer_norm(inputs, inputs.shape[-1:], eps=self.eps)
        return torch.addcmul(self.bias.unsqueeze(1), normal, self.weight.unsqueeze(1))


def leaves(model: nn.Module) -> list[nn.Module]:
    """The layers of a model in the order of its forward pass. Raises KeyError for a model that is not known here."""
    orders: dict[type, Callable[[Any], list[nn.Module]]] = {
        MLP: lambda mlp: [*mlp.layers, mlp.head],
        Linear: lambda linear: [linear.drop, linear.head],
        DeepLinear: lambda deep: [layer for matrix in deep.matrices for layer in (deep.drop, matrix)],
    }
    found: list[nn.Module] = []
    for layer in orders[type(model)](model):
        found += layer if isinstance(layer, nn.Sequential) else [layer]
    return found


def stacked_layers(models: list[nn.Module], shared: Shared) -> list[Callable[[Tensor], Tensor]]:
    """The layers of M equal models, each for all of them. Raises TypeError for a layer that is not known here."""
    layers: list[Callable[[Tensor], Tensor]] = []
    width = 0
    for column in zip(*(leaves(model) for model in models), strict=True):
        members: list[Any] = list(column)
        first = members[0]
        if isinstance(first, nn.Linear):
            layers.append(StackedLinear(first, shared))
        elif isinstance(first, nn.Dropout):
            if any(layer.p > 0 for layer in members):
                layers.append(StackedDropout(members, width or _inputs_of(models[0])))
        elif isinstance(first, nn.LayerNorm):
            layers.append(StackedLayerNorm(first, shared))
        elif type(first) in ELEMENTWISE:
            layers.append(first)
        else:
            raise TypeError(type(first).__name__)
        width = getattr(first, "out_features", width)
    return layers


def _inputs_of(model: nn.Module) -> int:
    return next(layer.in_features for layer in leaves(model) if isinstance(layer, nn.Linear))


# Runs -------------------------------------------------------------------------------------------------------------


@dataclass
class Unsaved:
    """A checkpoint that waits to be written."""

    step: int
    state: dict[str, Any]
    weights: dict[str, Tensor]


class Member(Trainer):
    """The trainer of one run of a stack: all of a run but the pass through the model.

    Its checkpoints are those of a run alone, at most one in `SAVE_SECONDS`; the newest and the best are there at the end.
    """

    stack: Stack
    vectors: Sequence[list[Vector]] = ()  # its weights, by group of its optimizer
    best_state: Unsaved | None = None

    def observe(self, update_norm: list[Tensor]) -> None:
        """As of a run alone, but for the steps at which nothing is due: to look at each costs 1 % of a small one."""
        plan, step = self.plan, self.step
        due = (
            update_norm
            or self.evaluates_at(step)
            or (plan.log_every and step % plan.log_every == 0)
            or self.signals.received is not None
            or self.folder.seconds_since_checkpoint() >= SAVE_SECONDS
        )
        if due:
            super().observe(update_norm)

    def validate(self) -> dict[str, float]:
        return self.stack.validation(self) if self.parts.val is not None else {}

    def checkpoint_is_due(self) -> bool:
        if self.improved:  # what a later checkpoint needs of this one
            self.best_state = Unsaved(self.step, self.state(), Snapshot().of(self.parts.model.state_dict()))
            self.improved = False
        due = super().checkpoint_is_due() or self.best_state is not None
        return due and self.folder.seconds_since_checkpoint() >= SAVE_SECONDS

    def save_checkpoint(self) -> None:
        self.save_best()
        super().save_checkpoint()

    def save_best(self) -> None:
        """Write the checkpoint of the best evaluation, if it waits; that of this step is written anyhow."""
        best, self.best_state = self.best_state, None
        if best is not None and best.step != self.step:
            self.folder.save_checkpoint(best.step, best.state, best.weights, None)

    def state(self) -> dict[str, Any]:
        """As a run alone has it, and copied: a file of views would hold the weights of all runs."""
        if self.vectors:
            self.split_state()
        state: dict[str, Any] = Snapshot().of(super().state())
        return state

    def split_state(self) -> None:
        """Give the run's own optimizer its state, parameter by parameter, from that of the stack's vectors."""
        optimizer, places = self.parts.optimizer, self.stack.shared.places
        known = self.stack.optimizer_of(self).state
        for group, vectors in zip(optimizer.param_groups, self.vectors, strict=True):
            for parameter in group["params"]:
                place = places[parameter]
                vector = next(v for v in vectors if v.place.start <= place.start < v.place.stop)
                start = place.start - vector.place.start
                part = slice(start, start + parameter.numel())
                if known.get(vector.values):  # plain descent has none
                    optimizer.state[parameter] = {
                        name: value[part].view(parameter.shape)
                        if isinstance(value, Tensor) and value.dim()
                        else value
                        for name, value in known[vector.values].items()
                    }

    def leave(self) -> None:
        """Take weights and state along, out of the memory that all share."""
        self.split_state()
        for vector in chain(*self.vectors):
            del self.stack.optimizer_of(self).state[vector.values]
        self.vectors = ()
        for tensor in (*self.parts.model.parameters(), *self.parts.model.buffers()):
            tensor.data = tensor.data.clone()
            tensor.grad = tensor.grad.clone() if tensor.grad is not None else None
        self.share_sums(self.running.sums.clone())

    def share_sums(self, sums: Tensor) -> None:
        """Let the running means add up in a row of a tensor of all runs."""
        self.running.share(sums)


class Stack:
    """M runs that begin together; each leaves when it is done, stopped or failed, and `ended` is told of it.

    `turn` is told whose turn it is, so that what a run logs comes into its own log.
    """

    def __init__(
        self,
        members: list[Member],
        ended: Callable[[Member, Exception | None], None],
        turn: Callable[[Member], None] = lambda member: None,
    ) -> None:
        self.members, self.ended, self.turn = members, ended, turn
        self.errors: dict[int, Exception] = {}  # by place among the members
        self.optimizers: dict[type, Any] = {}  # one of each kind, over the vectors of all runs
        for member in members:
            member.stack = self
        self.join()

    @property
    def step(self) -> int:
        return self.members[0].step

    def join(self) -> None:
        """Put weights, gradients and sums of the present members into shared memory."""
        models = [member.parts.model for member in self.members]
        self.shared = Shared(models)
        self.layers = stacked_layers(models, self.shared)
        for i, member in enumerate(self.members):
            groups = member.parts.optimizer.param_groups
            self.adopt(member, [self.shared.vectors(i, group["params"]) for group in groups])
        self.sums = torch.stack([member.running.sums for member in self.members])
        for member, sums in zip(self.members, self.sums, strict=True):
            member.share_sums(sums)
        self.scores: tuple[int, list[dict[str, float]]] = (-1, [])
        self.augments = any(member.parts.augmentation is not None for member in self.members)
        self.rules = any(any(vars(member.parts.rules).values()) for member in self.members)

    def adopt(self, member: Member, vectors: list[list[Vector]]) -> None:
        """Let the optimizer of the member's kind update its vectors, with the state that it had."""
        kind = type(member.parts.optimizer)
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
        """One pass over the training split, until a member leaves."""
        first, plan = self.members[0], self.members[0].plan
        epoch = plan.epoch_of(self.step)
        start = self.step - epoch * plan.steps_per_epoch
        together = len(self.members) * plan.batch_size
        for batch in first.parts.train.batches(self.order(epoch), together, start):
            self.train_step(batch, epoch)
            if self.part():
                return

    def order(self, epoch: int) -> Tensor:
        """The batches of all members, step by step: M batches of the first step, M of the second, and so on."""
        plan = self.members[0].plan
        size, length = plan.batch_size, plan.steps_per_epoch * plan.batch_size
        orders = torch.stack([member.parts.order.order(epoch)[:length] for member in self.members])
        return torch.cat([part.reshape(-1) for part in orders.split(size, dim=1)])

    # One step, in the order of the mathematics ---------------------------------------------------------------------

    def train_step(self, batch: Batch, epoch: int) -> None:
        """What `Trainer.train_epoch` does at a step, for all members."""
        inputs, targets = self.transform(batch, epoch)
        indices = batch.indices.unflatten(0, (len(self.members), -1))
        self.each(lambda i, member: member.set_rates())
        losses = self.descend(inputs, targets)
        if self.rules:
            self.each(lambda i, member: apply_rules(member))
        self.check_finite(losses, inputs, targets, indices)
        moved = self.update(losses)

        def observe(i: int, member: Member) -> None:
            member.step += 1
            member.observe(moved[i])

        self.each(observe)  # the first one evaluated asks for the scores of all: every one is updated by now

    def transform(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """Flat inputs (M, B, features) and targets (M, B, …), augmented by each member's own draws."""
        inputs, targets, indices = (tensor.unflatten(0, (len(self.members), -1)) for tensor in batch)
        if self.augments:
            pairs = [
                member.transform(Batch(inputs[i], targets[i], indices[i]), epoch)
                for i, member in enumerate(self.members)
            ]
            inputs, targets = (torch.stack(column) for column in zip(*pairs, strict=True))
        return inputs.flatten(2), targets

    def descend(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Leave each member's gradient of its mean loss in its parameters; returns the losses (M,)."""
        self.draw(inputs.shape[1])
        with torch.enable_grad():
            logits = self.forward(inputs, training=True)
            losses = self.loss(logits, targets)
            means = losses.mean(1)
            torch.autograd.backward(means.sum())
        for layer in self.layers:
            if isinstance(layer, StackedLayerNorm):
                layer.collect()
        self.record(logits.detach(), targets, losses.detach())
        return means.detach()

    def draw(self, samples: int) -> None:
        """Each member's dropout factors of this step, layer by layer, from its own stream."""
        drops = [layer for layer in self.layers if isinstance(layer, StackedDropout)]
        for layer in drops:
            layer.factors = []
        for member in self.members if drops else ():
            member.dropout.at(member.step)
            for layer in drops:
                layer.draw(samples)

    def forward(self, inputs: Tensor, training: bool) -> Tensor:
        """Logits (M, B, outputs) of inputs (M, B, features)."""
        for layer in self.layers:
            if isinstance(layer, StackedDropout):
                layer.training = training
            inputs = layer(inputs)
        return inputs

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The losses (M, B) of all samples."""
        losses: Tensor = self.members[0].parts.loss(logits.flatten(0, 1), targets.flatten(0, 1))
        return losses.unflatten(0, logits.shape[:2])

    def measured(
        self, logits: Tensor, targets: Tensor, known: Mapping[str, Tensor] | None = None
    ) -> list[Tensor]:
        """The metrics (M, B) of all samples; those that are known already are not computed again."""
        flat, truth, known = logits.flatten(0, 1), targets.flatten(0, 1), known or {}
        return [
            known[name] if name in known else metric(flat, truth).unflatten(0, logits.shape[:2])
            for name, metric in self.members[0].parts.metrics.items()
        ]

    def record(self, logits: Tensor, targets: Tensor, losses: Tensor) -> None:
        """Add up the metrics of all members."""
        self.sums[:, 0] += losses.shape[1]
        known = {self.members[0].parts.objective: losses}
        for column, values in enumerate(self.measured(logits, targets, known), start=1):
            self.sums[:, column] += values.sum(1)

    def check_finite(self, losses: Tensor, inputs: Tensor, targets: Tensor, indices: Tensor) -> None:
        """Put away, with words, the members whose loss or gradient is not finite: one look at all of them."""
        totals = losses.sum() + self.shared.slopes.sum()  # one that overflows is looked at closely
        if math.isfinite(float(totals)):
            return

        def look(i: int, member: Member) -> None:
            try:
                member.guard.before_update(losses[i], gradients_of(member.parameters), member.step)
            except NonFinite as error:
                batch = Batch(inputs[i], targets[i], indices[i])
                raise member.explained(
                    error, Closure(member, inputs[i], targets[i], indices[i]), batch
                ) from None

        self.each(look)

    def update(self, losses: Tensor) -> dict[int, list[Tensor]]:
        """The optimizers' step, with what comes before and after it; how far each member moved, if that is asked."""
        with ExitStack() as measured:
            moved = {i: measured.enter_context(m.before_and_after()) for i, m in enumerate(self.members)}
            if self.rules:
                self.each(lambda i, member: apply_decays(member))
            present = [member for i, member in enumerate(self.members) if i not in self.errors]
            for kind, optimizer in self.optimizers.items():
                own = (m for m in present if type(m.parts.optimizer) is kind)
                optimizer.param_groups = merged(chain(*(groups_of(m, m.vectors) for m in own)))
                optimizer.step(lambda: losses)
            if self.rules:
                self.each(lambda i, member: restore_constraints(member))
        return moved

    # Evaluation -----------------------------------------------------------------------------------------------------

    def validation(self, member: Member) -> dict[str, float]:
        """A member's scores of the validation split; those of all are computed at the first question of a step."""
        if self.scores[0] != member.step:
            self.scores = (member.step, self.score(member.parts.val))
        return self.scores[1][self.members.index(member)]

    def score(self, split: Any) -> list[dict[str, float]]:
        """Mean metrics of a split, for each member."""
        first = self.members[0]
        sums = torch.zeros(len(first.parts.metrics), len(self.members), dtype=torch.float64)
        seen = [member.parts.measures.fresh() for member in self.members]
        with evaluating(first.parts.model):
            for batch in split.batches(torch.arange(len(split)), first.plan.evaluation_batch_size):
                inputs = batch.inputs.flatten(1).expand(len(self.members), -1, -1)
                targets = batch.targets.expand(len(self.members), *batch.targets.shape)
                logits = self.forward(inputs, training=False)
                values = self.measured(logits, targets)
                sums += torch.stack([value.sum(1, dtype=torch.float64) for value in values])
                for own, outputs in zip(seen, logits, strict=True):
                    own.update(outputs, batch.targets)
        columns = (sums / len(split)).T.tolist()
        return [
            dict(zip(first.parts.metrics, column, strict=True)) | own.compute()
            for column, own in zip(columns, seen, strict=True)
        ]

    # Members --------------------------------------------------------------------------------------------------------

    def each(self, act: Callable[[int, Member], None]) -> None:
        """Act for every member that has no error yet; an error is that member's alone."""
        for i, member in enumerate(self.members):
            if i in self.errors:
                continue
            self.turn(member)
            try:
                act(i, member)
            except MemoryError:
                raise
            except Exception as error:
                self.errors[i] = error

    def part(self) -> bool:
        """Let go of the members that are done or failed; whether there were any."""
        going = [
            i
            for i, member in enumerate(self.members)
            if i in self.errors or member.stop is not None or member.step >= member.plan.total_steps
        ]
        if not going:
            return False
        # the files of all are on their way before the first is waited for: the disk takes its time for each
        self.each(lambda i, member: member.save_best() if i in going else None)
        self.each(lambda i, member: member.save_end() if i in going else None)
        leaving = [(self.members[i], self.errors.get(i)) for i in going]
        for member, error in leaving:
            if error is not None:
                with suppress(Exception):  # what ended the run is what is told
                    member.save_best()
        self.members = [member for i, member in enumerate(self.members) if i not in going]
        self.errors = {}
        for member, error in leaving:
            self.turn(member)
            member.leave()
            self.ended(member, error)
        if self.members:
            self.join()
        return True


def apply_rules(member: Member) -> None:
    """Add the penalties' gradients, then let the gradient rules act, as the closure of a run alone does."""
    rules = member.parts.rules
    for rule in rules.penalties:
        with torch.enable_grad():
            torch.autograd.backward(member.penalty_scale * rule.penalty())
    for rule in rules.gradients:
        rule.change_gradients(member.noise.at(member.step), member.penalty_scale, member.step)


def apply_decays(member: Member) -> None:
    """Decoupled decay, before the update."""
    for rule in member.parts.rules.decays:
        rule.before_update(member.parts.optimizer.param_groups, member.penalty_scale)


def restore_constraints(member: Member) -> None:
    """What holds for the weights after every update."""
    for rule in member.parts.rules.weights:
        rule.after_update(member.parts.optimizer.param_groups, member.penalty_scale)


def groups_of(member: Member, vectors: Sequence[list[Vector]]) -> list[dict[str, Any]]:
    """The groups of a member's optimizer as they are now, with vectors in place of its parameters."""
    groups = member.parts.optimizer.param_groups
    return [{**g, "params": [v.values for v in own]} for g, own in zip(groups, vectors, strict=True)]


def merged(groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups that are equal but for their parameters as one: an optimizer's call costs ten times a run's arithmetic."""
    found: dict[str, dict[str, Any]] = {}
    for group in groups:
        own = group.pop("params")
        found.setdefault(repr(group), {**group, "params": []})["params"] += own
    return list(found.values())


def pays(model: nn.Module, plan: Plan) -> bool:
    """Whether a step of one run is so small that its overhead outweighs its arithmetic."""
    return 6.0 * plan.batch_size * sum(p.numel() for p in model.parameters()) <= PAYING_FLOPS
