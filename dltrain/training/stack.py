"""Many runs as one: models of equal shapes that take every step together, in one forward and one backward pass.

Only the pass through the model is shared. Every run keeps its own trainer: order, random draws, rates, penalties,
optimizer, early stopping and folder. The weights of all runs are one tensor for each parameter, of which the weights
of a run are views, so that whatever works on the model of one run works here, too.

It pays where the overhead of a step is larger than its arithmetic: small models on a CPU (docs/speed.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
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
from dltrain.training.run_folder import copied
from dltrain.training.trainer import Trainer

SAVE_SECONDS = (
    10.0  # between the checkpoints of a run: a step of a stack is short, and a file of each run is not
)
PAYING_FLOPS = 6e7  # of one run's step: beyond, its arithmetic outweighs the overhead that a stack saves
ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.Identity)


# Layers for all runs at once: (M, B, features) → (M, B, features) ------------------------------------------------


def joined(parameters: list[nn.Parameter]) -> tuple[Tensor, Tensor]:
    """One tensor (M, …) with the values of M parameters, and one for their gradients; the parameters become views."""
    values = torch.stack([p.detach() for p in parameters])
    slopes = torch.zeros_like(values)
    for parameter, value, slope in zip(parameters, values, slopes, strict=True):
        parameter.data, parameter.grad = value, slope
    return values, slopes


class StackedLinear:
    """M linear layers by one batched product; the backward pass writes into the gradients of the runs directly."""

    def __init__(self, layers: list[nn.Linear]) -> None:
        self.weight, self.weight_slope = joined([layer.weight for layer in layers])
        self.bias: Tensor | None = None
        if layers[0].bias is not None:
            bias, slope = joined([layer.bias for layer in layers])
            self.bias, self.bias_slope = bias.unsqueeze(1), slope.unsqueeze(1)
        self.slopes = [self.weight_slope] + ([self.bias_slope] if self.bias is not None else [])
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


class _Affine:
    """The gains and offsets of M normalisations, as leaves of the graph whose gradients are those of the runs."""

    def __init__(self, layers: list[Any]) -> None:
        self.weight, self.weight.grad = joined([layer.weight for layer in layers])
        self.bias, self.bias.grad = joined([layer.bias for layer in layers])
        self.weight.requires_grad_()
        self.bias.requires_grad_()
        self.eps, self.training = layers[0].eps, True
        self.slopes = [self.weight.grad, self.bias.grad]

    def clear(self) -> None:
        """Autograd adds to gradients."""
        for slope in self.slopes:
            slope.zero_()


class StackedLayerNorm(_Affine):
    """M layer normalisations."""

    def __call__(self, inputs: Tensor) -> Tensor:
        normal = F.layer_norm(inputs, inputs.shape[-1:], eps=self.eps)
        return torch.addcmul(self.bias.unsqueeze(1), normal, self.weight.unsqueeze(1))


class StackedBatchNorm(_Affine):
    """M batch normalisations: one over M times as many features."""

    def __init__(self, layers: list[nn.BatchNorm1d]) -> None:
        super().__init__(layers)
        self.momentum, self.layers = layers[0].momentum, layers
        self.mean, self.variance = (
            torch.stack([getattr(layer, name) for layer in layers])
            for name in ("running_mean", "running_var")
        )
        for layer, mean, variance in zip(layers, self.mean, self.variance, strict=True):
            layer.running_mean, layer.running_var = mean, variance

    def __call__(self, inputs: Tensor) -> Tensor:
        runs, samples, width = inputs.shape
        if self.training:
            for layer in self.layers:
                assert layer.num_batches_tracked is not None
                layer.num_batches_tracked += 1
        outputs = F.batch_norm(
            inputs.transpose(0, 1).reshape(samples, runs * width),
            self.mean.view(-1),
            self.variance.view(-1),
            self.weight.view(-1),
            self.bias.view(-1),
            self.training,
            self.momentum or 0.0,
            self.eps,
        )
        return outputs.view(samples, runs, width).transpose(0, 1)


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


def stacked_layers(models: list[nn.Module]) -> list[Callable[[Tensor], Tensor]]:
    """The layers of M equal models, each for all of them. Raises TypeError for a layer that is not known here."""
    layers: list[Callable[[Tensor], Tensor]] = []
    width = 0
    for column in zip(*(leaves(model) for model in models), strict=True):
        members: list[Any] = list(column)
        first = members[0]
        if isinstance(first, nn.Linear):
            layers.append(StackedLinear(members))
        elif isinstance(first, nn.Dropout):
            if any(layer.p > 0 for layer in members):
                layers.append(StackedDropout(members, width or _inputs_of(models[0])))
        elif isinstance(first, nn.LayerNorm):
            layers.append(StackedLayerNorm(members))
        elif isinstance(first, nn.BatchNorm1d):
            layers.append(StackedBatchNorm(members))
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
    best_state: Unsaved | None = None

    def validate(self) -> dict[str, float]:
        return self.stack.validation(self) if self.parts.val is not None else {}

    def checkpoint_is_due(self) -> bool:
        if self.improved:  # what a later checkpoint needs of this one
            self.best_state = Unsaved(self.step, self.state(), copied(self.parts.model.state_dict()))
            self.improved = False
        due = super().checkpoint_is_due() or self.best_state is not None
        return due and self.folder.seconds_since_checkpoint() >= SAVE_SECONDS

    def save_checkpoint(self) -> None:
        best, self.best_state = self.best_state, None
        if best is not None and best.step != self.step:
            self.folder.save_checkpoint(best.step, best.state, best.weights, None)
        super().save_checkpoint()

    def state(self) -> dict[str, Any]:
        """Copies: a file of views would hold the weights of all runs."""
        state: dict[str, Any] = copied(super().state())
        return state

    def leave(self) -> None:
        """Take the weights along, out of the memory that all share."""
        for tensor in (*self.parts.model.parameters(), *self.parts.model.buffers()):
            tensor.data = tensor.data.clone()
            tensor.grad = tensor.grad.clone() if tensor.grad is not None else None
        self.sums = self.sums.clone()
        self.sum_of = self.sums.unbind()


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
        for member in members:
            member.stack = self
        self.join()

    @property
    def step(self) -> int:
        return self.members[0].step

    def join(self) -> None:
        """Put weights, gradients and sums of the present members into shared memory."""
        self.layers = stacked_layers([member.parts.model for member in self.members])
        self.sums = torch.stack([member.sums for member in self.members])
        for member, sums in zip(self.members, self.sums, strict=True):
            member.sums, member.sum_of = sums, sums.unbind()
        self.scores: tuple[int, list[dict[str, float]]] = (-1, [])
        self.augments = any(member.parts.augmentation is not None for member in self.members)
        self.rules = any(
            member.parts.rules.penalties or member.parts.rules.gradients for member in self.members
        )

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
        moved: dict[int, list[Tensor]] = {}

        def update(i: int, member: Member) -> None:
            moved[i] = update_one(member, losses[i])

        def observe(i: int, member: Member) -> None:
            member.step += 1
            member.observe(moved[i])

        self.each(update)
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
        for layer in self.layers:
            if isinstance(layer, _Affine):
                layer.clear()
        with torch.enable_grad():
            logits = self.forward(inputs, training=True)
            losses = self.loss(logits, targets)
            means = losses.mean(1)
            torch.autograd.backward(means.sum())
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
            if isinstance(layer, StackedDropout | _Affine):
                layer.training = training
            inputs = layer(inputs)
        return inputs

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The losses (M, B) of all samples."""
        losses: Tensor = self.members[0].parts.loss(logits.flatten(0, 1), targets.flatten(0, 1))
        return losses.unflatten(0, logits.shape[:2])

    def measured(self, logits: Tensor, targets: Tensor) -> list[Tensor]:
        """The metrics (M, B) of all samples."""
        flat, truth = logits.flatten(0, 1), targets.flatten(0, 1)
        return [
            metric(flat, truth).unflatten(0, logits.shape[:2])
            for metric in self.members[0].parts.metrics.values()
        ]

    def record(self, logits: Tensor, targets: Tensor, losses: Tensor) -> None:
        """Add up loss and metrics of all members."""
        self.sums[:, 0] += losses.shape[1]
        for column, values in enumerate((losses, *self.measured(logits, targets)), start=1):
            self.sums[:, column] += values.sum(1)

    def check_finite(self, losses: Tensor, inputs: Tensor, targets: Tensor, indices: Tensor) -> None:
        """Put away, with words, the members whose loss or gradient is not finite: one look at all of them."""
        totals = losses.double()
        for layer in self.layers:
            for slope in getattr(layer, "slopes", ()):
                totals = totals + slope.flatten(1).sum(1)
        if math.isfinite(float(totals.sum())):
            return

        def look(i: int, member: Member) -> None:
            try:
                member.guard.before_update(losses[i], gradients_of(member.parameters), member.step)
            except NonFinite as error:
                batch = Batch(inputs[i], targets[i], indices[i])
                raise member.explained(error, Closure(member, inputs[i], targets[i]), batch) from None

        self.each(look)

    # Evaluation -----------------------------------------------------------------------------------------------------

    def validation(self, member: Member) -> dict[str, float]:
        """A member's scores of the validation split; those of all are computed at the first question of a step."""
        if self.scores[0] != member.step:
            self.scores = (member.step, self.score(member.parts.val))
        return self.scores[1][self.members.index(member)]

    def score(self, split: Any) -> list[dict[str, float]]:
        """Mean loss and metrics of a split, for each member."""
        first = self.members[0]
        sums = torch.zeros(1 + len(first.parts.metrics), len(self.members), dtype=torch.float64)
        with evaluating(first.parts.model):
            for batch in split.batches(torch.arange(len(split)), first.plan.evaluation_batch_size):
                inputs = batch.inputs.flatten(1).expand(len(self.members), -1, -1)
                targets = batch.targets.expand(len(self.members), *batch.targets.shape)
                logits = self.forward(inputs, training=False)
                values = (self.loss(logits, targets), *self.measured(logits, targets))
                sums += torch.stack([value.sum(1, dtype=torch.float64) for value in values])
        names = ("loss", *first.parts.metrics)
        return [dict(zip(names, column, strict=True)) for column in (sums / len(split)).T.tolist()]

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
        leaving = [(self.members[i], self.errors.get(i)) for i in going]
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
    if rules.penalties:
        with torch.enable_grad():
            torch.autograd.backward(member.penalty_scale * sum(rule.penalty() for rule in rules.penalties))
    for rule in rules.gradients:
        rule.change_gradients(member.noise.at(member.step), member.penalty_scale, member.step)


def update_one(member: Member, loss: Tensor) -> list[Tensor]:
    """One step of a member's own optimizer, with what comes before and after it; how far it moved, if that is asked."""
    parts = member.parts
    with member.before_and_after() as moved:
        groups = parts.optimizer.param_groups
        for rule in parts.rules.decays:
            rule.before_update(groups, member.penalty_scale)
        parts.optimizer.step(lambda: loss)
        for rule in parts.rules.weights:
            rule.after_update(groups, member.penalty_scale)
    return moved


def pays(model: nn.Module, plan: Plan) -> bool:
    """Whether a step of one run is so small that its overhead outweighs its arithmetic."""
    return 6.0 * plan.batch_size * sum(p.numel() for p in model.parameters()) <= PAYING_FLOPS
