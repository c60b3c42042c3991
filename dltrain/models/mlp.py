"""Models of a flattened sample: a linear layer, a multilayer perceptron, a product of matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from dltrain.models.parts import Residual, depth_rates, make_activation, make_norm
from dltrain.ranges import Activation, Count, Fraction, Norm


class Linear(nn.Module):
    """Linear layer on the flattened sample: logistic or linear regression.

        outputs = W·dropout(flatten(x)) + b

    Maps inputs (B, *input_shape) to outputs (B, num_classes).

    Use: the baseline that a deeper network has to beat; the loss is convex.
    Defaults: no dropout.
    Lecture: L0 L3

    Args:
        dropout: probability to drop an input
    """

    needs = frozenset({"samples"})

    def __init__(self, input_shape: tuple[int, ...], num_classes: int, *, dropout: Fraction = 0.0) -> None:
        super().__init__()
        self.activation = "identity"
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(math.prod(input_shape), num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.drop(inputs.flatten(1)))
        return outputs


class MLP(nn.Module):
    """Multilayer perceptron on the flattened sample.

        h ← dropout(activation(norm(W·h + b)))  for each hidden layer
        outputs = W·h + b

    Maps inputs (B, *input_shape) to outputs (B, num_classes). Raises ValueError for a bottleneck that is not
    narrower than both its neighbors, and for `stochastic_depth` without a residual layer.

    Use: tables and small images; the default model.
    Defaults: two hidden layers, which reach an accuracy of 0.97 on digits in seconds.
    Paper: Rumelhart, Hinton & Williams 1986
    Lecture: L0 L1 L2 L3 L4

    Args:
        hidden: widths of the hidden layers; [] gives a linear model
        activation: activation function of the hidden layers
        norm: normalization before each activation; group has at most 8 groups of at least 2 units: one, as layer, of an odd number
        dropout: probability to drop a hidden unit
        bottleneck: width of a linear layer without activation before the last hidden layer
        residual: add a skip connection over each hidden layer that keeps the width
        stochastic_depth: probability to drop the last residual branch, rising linearly from the first
    """

    needs = frozenset({"samples"})
    gives = frozenset({"no skips unless residual"})
    instead = {"no skips": "model.residual=true model.hidden=[128,128]"}

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        hidden: Sequence[Count] = (256, 128),
        activation: Activation = "relu",
        norm: Norm = "none",
        dropout: Fraction = 0.0,
        bottleneck: Count | None = None,
        residual: bool = False,
        stochastic_depth: Fraction = 0.0,
    ) -> None:
        super().__init__()
        if bottleneck is not None:
            _check_bottleneck(bottleneck, hidden)
        self.activation = activation
        widths = [math.prod(input_shape), *hidden]
        skips = [residual and inner == outer for inner, outer in zip(widths, hidden, strict=False)]
        drops = iter(_skip_rates(skips, stochastic_depth, hidden))
        layers: list[nn.Module] = []
        for index, (inner, outer) in enumerate(zip(widths, hidden, strict=False)):
            if bottleneck is not None and index == len(hidden) - 1:
                layers.append(nn.Linear(inner, bottleneck))
                skips[index], inner = False, bottleneck
            layer = _hidden_layer(inner, outer, activation, norm, dropout)
            layers.append(Residual(layer, next(drops)) if skips[index] else layer)
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.layers(inputs.flatten(1)))
        return outputs


def _hidden_layer(
    inner: int, outer: int, activation: Activation, norm: Norm, dropout: float
) -> nn.Sequential:
    layers = [nn.Linear(inner, outer), make_norm(norm, outer, images=False), make_activation(activation)]
    if dropout > 0:
        layers.append(nn.Dropout(dropout))
    # without Identity, whose call costs as much as the launch of a small kernel
    return nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.Identity)))


def _check_bottleneck(bottleneck: int, hidden: Sequence[int]) -> None:
    if len(hidden) < 2:
        raise ValueError(
            f"model.bottleneck is {bottleneck}, but model.hidden is {list(hidden)}; a bottleneck lies "
            "between two hidden layers: give two, as in model.hidden=[256,128]"
        )
    if bottleneck >= min(hidden[-2:]):
        raise ValueError(
            f"model.bottleneck is {bottleneck}; it must be narrower than the two hidden layers "
            f"around it ({hidden[-2]} and {hidden[-1]})"
        )


def _skip_rates(skips: Sequence[bool], stochastic_depth: float, hidden: Sequence[int]) -> list[float]:
    if stochastic_depth > 0 and not any(skips):
        raise ValueError(
            f"model.stochastic_depth is {stochastic_depth}, but no hidden layer of widths {list(hidden)} "
            "has a residual branch to drop; set model.residual=true with equal neighboring widths, as "
            "in model.hidden=[128,128,128]"
        )
    return depth_rates(stochastic_depth, sum(skips))


class DeepLinear(nn.Module):
    """Product of matrices: linear in the data, but not in the weights.

        outputs = W_depth ⋯ W₂ W₁ flatten(x)

    Maps inputs (B, *input_shape) to outputs (B, num_classes).

    Use: to study saddles and vanishing or exploding gradients without a non-linearity.
    Defaults: four matrices.
    Paper: Saxe, McClelland & Ganguli 2013, arXiv:1312.6120
    Lecture: L1

    Args:
        depth: number of matrices
        width: inner dimension of the product
        dropout: probability to drop an input of a matrix
    """

    needs = frozenset({"samples"})

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        depth: Count = 4,
        width: Count = 128,
        dropout: Fraction = 0.0,
    ) -> None:
        super().__init__()
        self.activation = "identity"
        self.drop = nn.Dropout(dropout)
        widths = [math.prod(input_shape), *[width] * (depth - 1), num_classes]
        self.matrices = nn.ModuleList(
            nn.Linear(inner, outer, bias=False) for inner, outer in zip(widths, widths[1:], strict=False)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = inputs.flatten(1)
        for matrix in self.matrices:
            outputs = matrix(self.drop(outputs))
        return outputs
