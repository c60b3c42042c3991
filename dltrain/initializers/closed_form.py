"""Initializers that look at nothing but shapes: each fills all weights, and zeroes the biases that belong to
them.

Tensors are drawn on the CPU and copied, so that a net on a GPU starts with the same bits. `last` names
another initializer of this page, with its own defaults, for the last weight layer alone.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from dltrain.data.spec import Batch
from dltrain.initializers.layers import WeightLayer, fans, resolve_gain, weight_layers
from dltrain.ranges import Count, InitializerWord, Positive

Function = TypeVar("Function", bound=Callable[..., None])


def symmetric(function: Function) -> Function:
    """Mark an initializer from which hidden units stay equal for ever."""
    function.__dict__["symmetric"] = True
    return function


def default(module: nn.Module, generator: torch.Generator, batch: Batch | None = None) -> None:
    """torch's own: what the constructors of the layers draw.

        w ~ U(−1/√d_in, 1/√d_in) for linear layers and convolutions, and so are their biases

    Leave the weights as the layers' constructors drew them: torch's own choice, U(±1/√d_in) for most layers.

    Use: when a result is to be compared with plain torch code.
    Paper: LeCun et al. 1998, "Efficient backprop"
    """


@symmetric
def zeros(
    module: nn.Module,
    generator: torch.Generator,
    batch: Batch | None = None,
    *,
    last: InitializerWord | None = None,
) -> None:
    """All weights 0: the symmetric start, which does not learn.

        w = 0

    Set all weights to 0: the symmetric start that does not learn (L1, L2, L3).

    Use: to see why it fails: hidden units stay equal.
    Lecture: L1 L2 L3

    Args:
        last: another initializer for the last layer
    """
    _fill(module, generator, last, lambda weight: weight.zero_())


@symmetric
def constant(
    module: nn.Module,
    generator: torch.Generator,
    batch: Batch | None = None,
    *,
    value: float = 0.1,
    last: InitializerWord | None = None,
) -> None:
    """All weights the same: the symmetric start, hidden units stay equal.

        w = value

    Set all weights to `value`: hidden units stay equal for ever (L2, L3).

    Use: to see why it fails: a layer learns no more than one unit could.
    Defaults: a value that is seen to pass signals on.
    Lecture: L2 L3

    Args:
        value: every weight
        last: another initializer for the last layer
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
    """Fuzz: weights from a uniform distribution, the same for all layers.

        w ~ U(a, b)

    Draw weights from U(a, b): "fuzz" (L2, L4). Raises ValueError unless a < b.

    Use: to compare with a rule that knows the width of a layer.
    Defaults: about the bounds of fan_in_uniform at 100 inputs.
    Lecture: L2 L4

    Args:
        a: lower bound
        b: upper bound, above a
        last: another initializer for the last layer
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
    """Fuzz: weights from a normal distribution, the same for all layers.

        w ~ N(mean, std²)

    Draw weights from N(mean, std²): "fuzz" (L2, L4).

    Use: to compare with a rule that knows the width of a layer; std=0.01 was AlexNet's.
    Defaults: about the deviation of fan_in_uniform at 100 inputs.
    Lecture: L2 L4

    Args:
        mean: mean of the weights
        std: standard deviation of the weights
        last: another initializer for the last layer
    """
    _check_positive("std", std)
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
    """Fuzz without outliers: a normal distribution cut at a bound.

        w ~ N(mean, std²) given that |w − mean| ≤ bound·std

    Draw weights from N(mean, std²) without what lies further than `bound` standard deviations from the mean.

    Use: transformers are often started with it, at std=0.02.
    Defaults: as normal; two deviations, as is usual.
    Lecture: L2 L4

    Args:
        mean: mean of the weights
        std: standard deviation before the cut
        bound: largest distance from the mean, in standard deviations
        last: another initializer for the last layer
    """
    _check_positive("std", std)
    _check_positive("bound", bound)
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
    """Uniform weights, scaled by the number of inputs.

        w ~ U(−1/√d_in, 1/√d_in)

    Draw weights from U(±1/√d_in), LeCun's rule (L0).

    Use: the oldest rule that scales; a third of the variance that keeps signals alive in linear layers.
    Paper: LeCun et al. 1998, "Efficient backprop"
    Lecture: L0

    Args:
        last: another initializer for the last layer
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
    """Glorot's rule, uniform: variance kept forward and backward.

        w ~ U(−a, a), a = gain·√(6/(d_in + d_out))

    Draw weights from U(±gain·√(6/(d_in + d_out))) (Glorot & Bengio 2010, AISTATS; also "glorot").

    L0 writes the bound as 6/√(d_in·d_out), without the sum and the root: this is the published one (L1, L2).

    Use: tanh and sigmoid networks.
    Defaults: the gain of the model's activation; the paper's is 1.
    Paper: Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks"
    Lecture: L0 L1 L2

    Args:
        gain: factor of the weights; auto is that of the model's activation (√2 for relu)
        last: another initializer for the last layer
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
    """Glorot's rule, normal: variance kept forward and backward.

        w ~ N(0, gain²·2/(d_in + d_out))

    Draw weights from N(0, gain²·2/(d_in + d_out)) (Glorot & Bengio 2010, AISTATS; L1, L2).

    Use: tanh and sigmoid networks.
    Defaults: the gain of the model's activation; the paper's is 1.
    Paper: Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks"
    Lecture: L1 L2

    Args:
        gain: factor of the weights; auto is that of the model's activation (√2 for relu)
        last: another initializer for the last layer
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
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    gain: Positive | Literal["auto"] = "auto",
    last: InitializerWord | None = None,
) -> None:
    """He's rule, uniform: variance kept through ReLU layers.

        w ~ U(−a, a), a = gain·√(3/d_in)

    Draw weights from U(±gain·√(3/fan)) (He et al. 2015, arXiv:1502.01852; also "he"; L1).

    Symbols: d_in is d_out with mode=fan_out
    Use: deep ReLU networks without normalisation.
    Defaults: the paper's forward form.
    Paper: He, Zhang, Ren & Sun 2015, arXiv:1502.01852
    Lecture: L1

    Args:
        mode: keep the variance of the signals forward, or of the gradients backward
        gain: factor of the weights; auto is that of the model's activation (√2 for relu)
        last: another initializer for the last layer
    """
    scale = resolve_gain(module, gain)
    fan = _fan_chooser(mode)

    def rule(weight: Tensor) -> None:
        bound = math.sqrt(3.0) * (scale / math.sqrt(fan(weight)))
        weight.uniform_(-bound, bound, generator=generator)

    _fill(module, generator, last, rule)


def kaiming_normal(
    module: nn.Module,
    generator: torch.Generator,
    batch: Batch | None = None,
    *,
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    gain: Positive | Literal["auto"] = "auto",
    last: InitializerWord | None = None,
) -> None:
    """He's rule, normal: variance kept through ReLU layers.

        w ~ N(0, gain²/d_in)

    Draw weights from N(0, gain²/fan), which keeps the variance through ReLU layers (He et al. 2015,
    arXiv:1502.01852; also "he"; L1).

    Symbols: d_in is d_out with mode=fan_out
    Use: deep ReLU networks without normalisation, and ResNets.
    Defaults: the paper's forward form.
    Paper: He, Zhang, Ren & Sun 2015, arXiv:1502.01852
    Lecture: L1

    Args:
        mode: keep the variance of the signals forward, or of the gradients backward
        gain: factor of the weights; auto is that of the model's activation (√2 for relu)
        last: another initializer for the last layer
    """
    scale = resolve_gain(module, gain)
    fan = _fan_chooser(mode)
    _fill(
        module,
        generator,
        last,
        lambda weight: weight.normal_(0, scale / math.sqrt(fan(weight)), generator=generator),
    )


def orthogonal(
    module: nn.Module,
    generator: torch.Generator,
    batch: Batch | None = None,
    *,
    gain: Positive | Literal["auto"] = "auto",
    last: InitializerWord | None = None,
) -> None:
    """Random orthogonal matrices: lengths and angles are kept.

        WᵀW = gain²·I (or WWᵀ, for a wide matrix)

    Draw random matrices with orthogonal columns or rows, times gain (Saxe et al. 2013, arXiv:1312.6120; L0).

    A convolution's weight counts as the matrix (out, in·kernel). The QR decomposition costs O(out·in·min(out,
    in)).

    Use: very deep linear or tanh networks.
    Defaults: the gain of the model's activation; the paper's is 1.
    Paper: Saxe, McClelland & Ganguli 2013, arXiv:1312.6120
    Lecture: L0

    Args:
        gain: factor of the weights; auto is that of the model's activation (√2 for relu)
        last: another initializer for the last layer
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
    """A fixed number of incoming weights for each unit, the others 0.

        each row of W has k weights from N(0, std²), at random places

    Give each unit `connections` incoming weights from N(0, std²), and zeros elsewhere (Martens 2010, ICML;
    L0).

    `auto` is gain/√connections, He's rule for that many inputs; Martens took 1. A unit with fewer inputs
    takes all. torch's sparse_ counts by outgoing column in place of incoming row, so it is not used.

    Symbols: k = connections
    Use: wide layers: signals stay large and units stay different.
    Defaults: the paper's 15 connections; auto is gain/√k, the paper's std is 1.
    Paper: Martens 2010, "Deep learning via Hessian-free optimization"
    Lecture: L0

    Args:
        connections: incoming weights of a unit that are not 0
        std: their standard deviation; auto keeps the variance, as kaiming_normal does
        last: another initializer for the last layer
    """
    if connections < 1:
        raise ValueError(
            f"initializer.connections is {connections}; each unit needs at least 1 incoming weight"
        )
    gain = resolve_gain(module, "auto") if std == "auto" else 1.0
    if std != "auto":
        _check_positive("std", std)

    def rule(weight: Tensor) -> None:
        count = min(connections, fans(weight)[0])
        scale = gain / math.sqrt(count) if std == "auto" else float(std)
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

        w[i, i, centre] = 1 for i ≤ min(d_in, d_out) and 0 elsewhere; further units ~ U(±1/√d_in)

    Let each layer begin as the identity: unit i passes on input i, in the centre of a kernel.

    Units beyond the number of inputs are drawn from U(±1/√d_in), since as zeros they would pass nothing on;
    so is the last layer by default. Zagoruyko & Komodakis 2017, arXiv:1706.00388; in this form Jordan 2024,
    arXiv:2404.00498.

    Use: deep convolutional networks without shortcuts.
    Defaults: the form of the CIFAR-10 speed recipe, which leaves the head at fan_in_uniform.
    Paper: Zagoruyko & Komodakis 2017, arXiv:1706.00388; Jordan 2024, arXiv:2404.00498

    Args:
        last: another initializer for the last layer
    """

    def rule(weight: Tensor) -> None:
        bound = 1 / math.sqrt(fans(weight)[0])
        weight.uniform_(-bound, bound, generator=generator)
        identity = min(weight.shape[:2])
        centre = tuple(side // 2 for side in weight.shape[2:])
        weight[:identity] = 0
        for unit in range(identity):
            weight[(unit, unit, *centre)] = 1

    _fill(module, generator, last, rule)


def fill_last(word: str, layer: WeightLayer, generator: torch.Generator) -> None:
    """Fill one layer by the closed-form initializer `word`, with its own defaults."""
    functions: dict[str, Callable[..., Any]] = {function.__name__: function for function in CLOSED_FORMS}
    if word not in functions:
        near = difflib.get_close_matches(str(word), functions, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(
            f"initializer.last is {word!r}; it must be null or one of {', '.join(functions)}{hint}"
        )
    functions[word](layer.module, generator)


def _fill(
    module: nn.Module, generator: torch.Generator, last: str | None, rule: Callable[[Tensor], object]
) -> None:
    """Apply the rule, which works in place on a CPU tensor, to every weight but the last if that has its
    own.
    """
    layers = weight_layers(module)
    with torch.no_grad():
        for layer in layers[:-1] if last else layers:
            weight = torch.empty_like(layer.weight, device="cpu", memory_format=torch.contiguous_format)
            rule(weight)
            layer.weight.copy_(weight)
            if layer.bias is not None:
                layer.bias.zero_()
    if last and layers:
        fill_last(last, layers[-1], generator)


def _xavier_std(weight: Tensor, gain: float) -> float:
    return gain * math.sqrt(2.0 / sum(fans(weight)))


def _fan_chooser(mode: str) -> Callable[[Tensor], int]:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(
            f"initializer.mode is {mode!r}; it must be fan_in (keeps the forward variance) or fan_out"
        )
    return lambda weight: fans(weight)[mode == "fan_out"]


def _check_positive(key: str, value: float | str) -> None:
    if isinstance(value, str) or not value > 0:
        raise ValueError(f"initializer.{key} is {value!r}; it must be a number > 0")


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
