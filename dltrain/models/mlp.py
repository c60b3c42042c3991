"""Models that take a sample as a flat vector: a linear layer, the multilayer perceptron, a product of
matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from dltrain.models.parts import Residual, check_probability, depth_rates, make_activation, make_norm
from dltrain.ranges import Activation, Count, Fraction, Norm


class Linear(nn.Module):
    """One linear layer on the flattened sample: logistic or linear regression.

        outputs = W·flatten(x) + b

    One linear layer on the flattened sample: least squares, or logistic regression with cross-entropy.

    inputs: (B, *input_shape); outputs: (B, num_classes). `dropout` drops inputs. L0, L3.

    Use: the baseline that every deeper net has to beat; with it the loss is convex.
    Defaults: no dropout.
    Lecture: L0 L3

    Args:
        dropout: probability to drop an input
    """

    def __init__(self, input_shape: tuple[int, ...], num_classes: int, *, dropout: Fraction = 0.0) -> None:
        super().__init__()
        check_probability("model.dropout", dropout)
        self.activation = "identity"
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(math.prod(input_shape), num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.drop(inputs.flatten(1)))
        return outputs


class MLP(nn.Module):
    """Multilayer perceptron on the flattened sample.

        h ← dropout(activation(norm(W·h + b))) for each hidden layer; outputs = W·h + b

    Multilayer perceptron: linear, norm, activation and dropout for each hidden layer, then a linear head.

    inputs: (B, *input_shape), flattened; outputs: (B, num_classes). `bottleneck`: a linear layer without
    activation in front of the last hidden one, narrower than both its neighbours (L1). `residual`: a skip
    over each hidden layer that keeps the width, which `stochastic_depth` may drop. L0 to L4. Raises
    ValueError for widths that leave nothing to skip or no room for the bottleneck.

    Use: tables and small images; the default.
    Defaults: two hidden layers that reach 0.97 on digits in seconds.
    Paper: Rumelhart, Hinton & Williams 1986
    Lecture: L0 L1 L2 L3 L4

    Args:
        hidden: widths of the hidden layers; [] leaves a linear model
        activation: after each hidden layer
        norm: normalisation before each activation
        dropout: probability to drop a hidden unit
        bottleneck: width of a linear layer in front of the last hidden one, narrower than both
        residual: a skip connection over each hidden layer that keeps the width
        stochastic_depth: probability to drop the last residual branch, growing linearly up to it
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        hidden: list[Count] = (256, 128),
        activation: Activation = "relu",
        norm: Norm = "none",
        dropout: Fraction = 0.0,
        bottleneck: Count | None = None,
        residual: bool = False,
        stochastic_depth: Fraction = 0.0,
    ) -> None:
        super().__init__()
        _check_widths(hidden, bottleneck)
        check_probability("model.dropout", dropout)
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


def _hidden_layer(inner: int, outer: int, activation: str, norm: str, dropout: float) -> nn.Sequential:
    layers = [nn.Linear(inner, outer), make_norm(norm, outer, images=False), make_activation(activation)]
    if dropout > 0:
        layers.append(nn.Dropout(dropout))
    # a missing normalisation is left out: calling Identity costs as much as launching a small kernel
    return nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.Identity)))


def _check_widths(hidden: Sequence[int], bottleneck: int | None) -> None:
    if any(width < 1 for width in hidden):
        raise ValueError(f"model.hidden is {list(hidden)}; each width must be an integer >= 1")
    if bottleneck is None:
        return
    if len(hidden) < 2:
        raise ValueError(
            f"model.bottleneck is {bottleneck}, but model.hidden is {list(hidden)}; a bottleneck lies "
            "between two hidden layers: give two, as in model.hidden=[256,128]"
        )
    if not 1 <= bottleneck < min(hidden[-2:]):
        raise ValueError(
            f"model.bottleneck is {bottleneck}; it must be >= 1 and narrower than the two hidden layers "
            f"around it ({hidden[-2]} and {hidden[-1]})"
        )


def _skip_rates(skips: Sequence[bool], stochastic_depth: float, hidden: Sequence[int]) -> list[float]:
    if stochastic_depth > 0 and not any(skips):
        raise ValueError(
            f"model.stochastic_depth is {stochastic_depth}, but no hidden layer of widths {list(hidden)} "
            "has a residual branch to drop; set model.residual=true with equal neighbouring widths, as "
            "in model.hidden=[128,128,128]"
        )
    return depth_rates(stochastic_depth, sum(skips))


class DeepLinear(nn.Module):
    """Product of matrices: linear in the data, but not in the weights.

        outputs = W_depth ⋯ W₂ W₁ flatten(x)

    A product of `depth` matrices, W_depth ⋯ W₂ W₁ x: linear in x, but not in the weights.

    inputs: (B, *input_shape), flattened; outputs: (B, num_classes). The network with which L1 shows why
    gradients vanish and explode; its dynamics: Saxe et al. 2013, arXiv:1312.6120.

    Use: to watch gradients vanish and explode, and saddles, without any non-linearity.
    Defaults: four matrices.
    Paper: Saxe, McClelland & Ganguli 2013, arXiv:1312.6120
    Lecture: L1

    Args:
        depth: number of matrices
        width: inner dimension of the product
        dropout: probability to drop an input of a matrix
    """

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
        if depth < 1:
            raise ValueError(f"model.depth is {depth}; it must be >= 1: the number of matrices")
        check_probability("model.dropout", dropout)
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
