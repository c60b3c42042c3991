"""Initializers that depend on shapes alone: each fills all weights and sets their biases to 0.

Tensors are drawn on the CPU and copied, so that a model on a GPU starts with the same bits.

The file is long because the docstring of each initializer is its page in the manual.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from dltrain.data.spec import Batch
from dltrain.declare import declares
from dltrain.initializers.layers import fans, resolve_gain
from dltrain.ranges import Count, InitializerWord, Positive
from dltrain.weight_layers import last_layer, weight_layers

Mode = Literal["fan_in", "fan_out"]


@declares(needs=frozenset())
def default(module: nn.Module, generator: torch.Generator, batch: Batch | None = None) -> None:
    """The initialization of torch: the values that the layers' constructors drew.

        w, b ~ U(−1/√d_in, 1/√d_in) for linear layers and convolutions

    Symbols: d_in = inputs of a unit: features, or channels times kernel size
    Use: to compare a result with that of plain torch code.
    Paper: LeCun et al. 1998, "Efficient backprop"
    """


def zeros(
    module: nn.Module,
    generator: torch.Generator,
    batch: Batch | None = None,
    *,
    last: InitializerWord | None = None,
) -> None:
    """All weights 0: a symmetric start, from which hidden layers do not learn.

        w = 0

    Use: to see why it fails: hidden units stay equal.
    Lecture: L1 L2 L3

    Args:
        last: initializer of the last weight layer, with its defaults; null treats all layers alike
    """
    _fill(module, generator, last, lambda weight: weight.zero_())


def constant(
    module: nn.Module,
    generator: torch.Generator,
    batch: Batch | None = None,
    *,
    value: float = 0.1,
    last: InitializerWord | None = None,
) -> None:
    """All weights equal: a symmetric start, from which hidden units stay equal.

        w = value

    Use: to see why it fails: a layer learns no more than a single unit.
    Defaults: a value large enough to pass signals on.
    Lecture: L2 L3

    Args:
        value: value of every weight
        last: initializer of the last weight layer, with its defaults; null treats all layers alike
    """
    _fill(module, generator, last, lambda weight: weight.fill_(value))


def uniform(
    module: nn.Module,
    generator: torch.Generator,
    batch: Batch | None = None,
    *,
    a: float = -0.1,
    b: float = 0.1,
    last: InitializerWord | None = None,
) -> None:
    """Uniform weights with the same bounds for all layers.

        w ~ U(a, b)

    Raises ValueError unless a < b.

    Use: to compare with a rule that depends on the width of a layer.
    Defaults: about the bounds of fan_in_uniform for 100 inputs.
    Lecture: L2 L4

    Args:
        a: lower bound
        b: upper bound
        last: initializer of the last weight layer, with its defaults; null treats all layers alike
    """
    if not a < b:
        raise ValueError(
            f"initializer.a is {a} and initializer.b is {b}; a must be below b, as in a=-0.1 b=0.1"
        )
    _fill(module, generator, last, lambda weight: weight.uniform_(a, b, generator=generator))


def normal(
    module: nn.Module,
    generator: torch.Generator,
    batch: Batch | None = None,
    *,
    mean: float = 0.0,
    std: Positive = 0.05,
    last: InitializerWord | None = None,
) -> None:
    """Normal weights with the same standard deviation for all layers.

        w ~ N(mean, std²)

    Use: to compare with a rule that depends on the width of a layer; AlexNet was trained with std=0.01.
    Defaults: about the standard deviation of fan_in_uniform for 100 inputs.
    Lecture: L2 L4

    Args:
        mean: mean of the weights
        std: standard deviation of the weights
        last: initializer of the last weight layer, with its defaults; null treats all layers alike
    """
    _fill(module, generator, last, lambda weight: weight.normal_(mean, std, generator=generator))


def truncated_normal(
    module: nn.Module,
    generator: torch.Generator,
    batch: Batch | None = None,
    *,
    mean: float = 0.0,
    std: Positive = 0.05,
    bound: Positive = 2.0,
    last: InitializerWord | None = None,
) -> None:
    """Normal weights without outliers: the same truncated distribution for all layers.

        w ~ N(mean, std²) given that |w − mean| ≤ bound·std

    Use: the usual start of transformers, with std=0.02.
    Defaults: those of normal, truncated at the usual two standard deviations.
    Lecture: L2 L4

    Args:
        mean: mean of the weights
        std: standard deviation before truncation
        bound: largest distance from the mean, in standard deviations
        last: initializer of the last weight layer, with its defaults; null treats all layers alike
    """
    low, high = mean - bound * std, mean + bound * std
    _fill(
        module,
        generator,
        last,
        lambda weight: nn.init.trunc_normal_(weight, mean, std, low, high, generator=generator),
    )


def fan_in_uniform(
    module: nn.Module,
    generator: torch.Generator,
    batch: Batch | None = None,
    *,
    last: InitializerWord | None = None,
) -> None:
    """LeCun's rule: uniform weights, scaled by the number of inputs.

        w ~ U(−1/√d_in, 1/√d_in)

    Symbols: d_in = inputs of a unit: features, or channels times kernel size
    Use: the oldest rule that scales; its variance is 1/(3·d_in), where linear layers need 1/d_in to keep that
        of signals.
    Paper: LeCun et al. 1998, "Efficient backprop"
    Lecture: L0

    Args:
        last: initializer of the last weight layer, with its defaults; null treats all layers alike
    """

    def rule(weight: Tensor) -> None:
        bound = 1 / math.sqrt(fans(weight)[0])
        weight.uniform_(-bound, bound, generator=generator)

    _fill(module, generator, last, rule)


def xavier_uniform(
    module: nn.Module,
    generator: torch.Generator,
    batch: Batch | None = None,
    *,
    gain: Positive | Literal["auto"] = "auto",
    last: InitializerWord | None = None,
) -> None:
    """Glorot's rule, uniform: a compromise that keeps the variance forward and backward.

        w ~ U(−a, a), a = gain·√(6/(d_in + d_out))

    L0 writes the bound as 6/√(d_in·d_out); this is the published one.

    Symbols: d_in, d_out = inputs and outputs: features, or channels times kernel size
    Use: tanh and sigmoid networks.
    Defaults: the gain of the model's activation; the paper's is 1.
    Paper: Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks"
    Lecture: L0 L1 L2

    Args:
        gain: factor of the weights; auto is the gain of the model's activation (√2 for relu)
        last: initializer of the last weight layer, with its defaults; null treats all layers alike
    """
    scale = resolve_gain(module, gain)

    def rule(weight: Tensor) -> None:
        bound = math.sqrt(3.0) * _xavier_std(weight, scale)
        weight.uniform_(-bound, bound, generator=generator)

    _fill(module, generator, last, rule)


def xavier_normal(
    module: nn.Module,
    generator: torch.Generator,
    batch: Batch | None = None,
    *,
    gain: Positive | Literal["auto"] = "auto",
    last: InitializerWord | None = None,
) -> None:
    """Glorot's rule, normal: a compromise that keeps the variance forward and backward.

        w ~ N(0, gain²·2/(d_in + d_out))

    Symbols: d_in, d_out = inputs and outputs: features, or channels times kernel size
    Use: tanh and sigmoid networks.
    Defaults: the gain of the model's activation; the paper's is 1.
    Paper: Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks"
    Lecture: L1 L2

    Args:
        gain: factor of the weights; auto is the gain of the model's activation (√2 for relu)
        last: initializer of the last weight layer, with its defaults; null treats all layers alike
    """
    scale = resolve_gain(module, gain)
    _fill(
        module,
        generator,
        last,
        lambda weight: weight.normal_(0, _xavier_std(weight, scale), generator=generator),
    )


def kaiming_uniform(
    module: nn.Module,
    generator: torch.Generator,
    batch: Batch | None = None,
    *,
    mode: Mode = "fan_in",
    gain: Positive | Literal["auto"] = "auto",
    last: InitializerWord | None = None,
) -> None:
    """He's rule, uniform: keeps the variance through ReLU layers.

        w ~ U(−a, a), a = gain·√(3/d)

    Symbols: d = inputs (mode=fan_in) or outputs (fan_out): features, or channels times kernel size
    Use: deep ReLU networks without normalization.
    Defaults: the paper's forward form.
    Paper: He, Zhang, Ren & Sun 2015, arXiv:1502.01852
    Lecture: L1

    Args:
        mode: fan_in keeps the variance of the activations, fan_out that of the gradients
        gain: factor of the weights; auto is the gain of the model's activation (√2 for relu)
        last: initializer of the last weight layer, with its defaults; null treats all layers alike
    """
    scale = resolve_gain(module, gain)

    def rule(weight: Tensor) -> None:
        bound = math.sqrt(3.0) * (scale / math.sqrt(_fan(weight, mode)))
        weight.uniform_(-bound, bound, generator=generator)

    _fill(module, generator, last, rule)


def kaiming_normal(
    module: nn.Module,
    generator: torch.Generator,
    batch: Batch | None = None,
    *,
    mode: Mode = "fan_in",
    gain: Positive | Literal["auto"] = "auto",
    last: InitializerWord | None = None,
) -> None:
    """He's rule, normal: keeps the variance through ReLU layers.

        w ~ N(0, gain²/d)

    Symbols: d = inputs (mode=fan_in) or outputs (fan_out): features, or channels times kernel size
    Use: deep ReLU networks without normalization, and ResNets.
    Defaults: the paper's forward form.
    Paper: He, Zhang, Ren & Sun 2015, arXiv:1502.01852
    Lecture: L1

    Args:
        mode: fan_in keeps the variance of the activations, fan_out that of the gradients
        gain: factor of the weights; auto is the gain of the model's activation (√2 for relu)
        last: initializer of the last weight layer, with its defaults; null treats all layers alike
    """
    scale = resolve_gain(module, gain)
    _fill(
        module,
        generator,
        last,
        lambda weight: weight.normal_(0, scale / math.sqrt(_fan(weight, mode)), generator=generator),
    )


def orthogonal(
    module: nn.Module,
    generator: torch.Generator,
    batch: Batch | None = None,
    *,
    gain: Positive | Literal["auto"] = "auto",
    last: InitializerWord | None = None,
) -> None:
    """Random orthogonal matrices, which keep lengths and angles.

        WᵀW = gain²·I, or WWᵀ = gain²·I for a wide matrix

    The weight of a convolution is taken as the matrix (out, in·kernel). The QR decomposition takes
    O(out·in·min(out, in)).

    Use: very deep linear or tanh networks.
    Defaults: the gain of the model's activation; the paper's is 1.
    Paper: Saxe, McClelland & Ganguli 2013, arXiv:1312.6120
    Lecture: L0

    Args:
        gain: factor of the weights; auto is the gain of the model's activation (√2 for relu)
        last: initializer of the last weight layer, with its defaults; null treats all layers alike
    """
    scale = resolve_gain(module, gain)
    _fill(module, generator, last, lambda weight: nn.init.orthogonal_(weight, scale, generator=generator))


def sparse(
    module: nn.Module,
    generator: torch.Generator,
    batch: Batch | None = None,
    *,
    connections: Count = 15,
    std: Positive | Literal["auto"] = "auto",
    last: InitializerWord | None = None,
) -> None:
    """A fixed number of nonzero incoming weights for each unit.

        each row of W has k weights from N(0, std²) at random places; the others are 0

    A unit with fewer than k inputs uses all of them. torch's `sparse_` fixes the number for each column of W
    instead.

    Symbols: k = connections
    Use: wide layers: signals stay large and units stay different.
    Defaults: the paper's 15 connections; the paper's std is 1.
    Paper: Martens 2010, "Deep learning via Hessian-free optimization"
    Lecture: L0

    Args:
        connections: number of nonzero incoming weights of a unit
        std: standard deviation of the nonzero weights; auto is gain/√k with the gain of the model's
            activation
        last: initializer of the last weight layer, with its defaults; null treats all layers alike
    """
    gain = resolve_gain(module, "auto") if std == "auto" else 1.0

    def rule(weight: Tensor) -> None:
        count = min(connections, fans(weight)[0])
        scale = gain / math.sqrt(count) if std == "auto" else std
        chosen = torch.rand(weight.flatten(1).shape, generator=generator).topk(count).indices
        values = torch.randn(chosen.shape, generator=generator, dtype=weight.dtype) * scale
        weight.copy_(torch.zeros_like(weight).flatten(1).scatter_(1, chosen, values).view_as(weight))

    _fill(module, generator, last, rule)


def dirac(
    module: nn.Module,
    generator: torch.Generator,
    batch: Batch | None = None,
    *,
    last: InitializerWord | None = "fan_in_uniform",
) -> None:
    """Each layer begins as the identity.

        w[i, i, center] = 1 for i ≤ min(d_in, d_out), all other weights of these units 0
        further units ~ U(−1/√n, 1/√n)

    Further units are random, since with zeros they would pass nothing on.

    Symbols: d_in, d_out = input and output channels; n = d_in times kernel size
    Use: deep convolutional networks without shortcuts.
    Defaults: those of the CIFAR-10 speed recipe, whose head starts from fan_in_uniform.
    Paper: Zagoruyko & Komodakis 2017, arXiv:1706.00388; Jordan 2024, arXiv:2404.00498

    Args:
        last: initializer of the last weight layer, with its defaults; null treats all layers alike
    """

    def rule(weight: Tensor) -> None:
        bound = 1 / math.sqrt(fans(weight)[0])
        weight.uniform_(-bound, bound, generator=generator)
        identity = min(weight.shape[:2])
        center = tuple(side // 2 for side in weight.shape[2:])
        weight[:identity] = 0
        for unit in range(identity):
            weight[(unit, unit, *center)] = 1

    _fill(module, generator, last, rule)


def by_word(word: InitializerWord) -> Callable[..., None]:
    """Return the initializer of this module with that name."""
    return next(function for function in CLOSED_FORMS if function.__name__ == word)


def _fill(
    module: nn.Module,
    generator: torch.Generator,
    last: InitializerWord | None,
    rule: Callable[[Tensor], object],
) -> None:
    """Fill every weight by the rule, which works in place on a CPU tensor, and the last layer by `last` if given."""
    head = last_layer(module) if last else None
    with torch.no_grad():
        for layer in weight_layers(module):
            if head and layer.weight is head.weight:
                continue
            weight = torch.empty_like(layer.weight, device="cpu", memory_format=torch.contiguous_format)
            rule(weight)
            layer.weight.copy_(weight)
            if layer.bias is not None:
                layer.bias.zero_()
    if last and head:
        by_word(last)(head.module, generator)


def _xavier_std(weight: Tensor, gain: float) -> float:
    return gain * math.sqrt(2.0 / sum(fans(weight)))


def _fan(weight: Tensor, mode: Mode) -> int:
    return fans(weight)[mode == "fan_out"]


CLOSED_FORMS: tuple[Callable[..., None], ...] = (
    default,
    zeros,
    constant,
    uniform,
    normal,
    truncated_normal,
    fan_in_uniform,
    xavier_uniform,
    xavier_normal,
    kaiming_uniform,
    kaiming_normal,
    orthogonal,
    sparse,
    dirac,
)
