"""The layers of M equal models as one: (M, B, features) → (M, B, features), on weights that the models share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltrain.models.mlp import MLP, DeepLinear, Linear

ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.Identity)


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
        """Return values and gradients (M, …) of a parameter of one run, for all runs."""
        values, slopes = (
            whole[:, self.places[parameter]].unflatten(1, parameter.shape)
            for whole in (self.values, self.slopes)
        )
        return values, slopes

    def vectors(self, run: int, parameters: list[Tensor]) -> list[Vector]:
        """Return the parameters of a run's group, neighbors joined."""
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
        """Draw the factors of the current run from the global generator, as F.dropout does."""
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
    """Return the layers of a model in the order of its forward pass. Raises KeyError for a model that is not known here."""
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
    """Return the layers of M equal models, each for all of them. Raises TypeError for a layer that is not known here."""
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
