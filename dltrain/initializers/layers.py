"""The weight layers of a module, and the gain that its activation requires."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from dltrain.ranges import Activation

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

# as torch.nn.init.calculate_gain, with the gain of relu for gelu and silu, which it does not have
GAINS: dict[str, float] = {
    "identity": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
    "leaky_relu": math.sqrt(2 / (1 + 0.01**2)),
    "gelu": math.sqrt(2),
    "silu": math.sqrt(2),
}
ACTIVATION_MODULES: dict[type[nn.Module], Activation] = {
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.ReLU: "relu",
    nn.ReLU6: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Hardswish: "silu",
}


class WeightLayer(NamedTuple):
    """A module that has a weight with two or more axes, its weight and its bias."""

    name: str
    module: nn.Module
    weight: Tensor
    bias: Tensor | None


def weight_layers(module: nn.Module) -> list[WeightLayer]:
    """Return the weight layers in `modules()` order, with a shared weight once.

    Excludes normalization layers and parameters whose names do not end with "weight", such as position
    embeddings.
    """
    layers: dict[int, WeightLayer] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, NORMS):
            continue
        for key, weight in layer.named_parameters(recurse=False):
            if key.endswith("weight") and weight.ndim >= 2:
                bias = getattr(layer, key.removesuffix("weight") + "bias", None)
                layers.setdefault(id(weight), WeightLayer(f"{name}.{key}".lstrip("."), layer, weight, bias))
    return list(layers.values())


def fans(weight: Tensor) -> tuple[int, int]:
    """Return (fan in, fan out) of a weight (out, in, *kernel)."""
    kernel = math.prod(weight.shape[2:])
    return weight.shape[1] * kernel, weight.shape[0] * kernel


def resolve_gain(module: nn.Module, gain: float | Literal["auto"]) -> float:
    """Return the gain; `auto` is that of the module's `activation`, or of its first activation layer, or 1."""
    if gain != "auto":
        return float(gain)
    activation = getattr(module, "activation", None)
    if not isinstance(activation, str):
        found = (
            ACTIVATION_MODULES[type(layer)] for layer in module.modules() if type(layer) in ACTIVATION_MODULES
        )
        activation = next(found, "identity")
    return GAINS[activation]
