"""The fans of a weight, and the gain that the activation of a module requires."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn

from dltrain.weight_layers import FUNCTION_GAINS, GAINS, leaky_gain, use_of

MODULE_GAINS: dict[type[nn.Module], float] = {
    nn.Sigmoid: FUNCTION_GAINS["sigmoid"],
    nn.Tanh: FUNCTION_GAINS["tanh"],
    nn.ReLU: FUNCTION_GAINS["relu"],
    nn.ReLU6: FUNCTION_GAINS["relu6"],
    nn.GELU: FUNCTION_GAINS["gelu"],
    nn.SiLU: FUNCTION_GAINS["silu"],
    nn.Hardswish: FUNCTION_GAINS["hardswish"],
    nn.ELU: FUNCTION_GAINS["elu"],
    nn.CELU: FUNCTION_GAINS["celu"],
    nn.Mish: FUNCTION_GAINS["mish"],
    nn.SELU: FUNCTION_GAINS["selu"],
}
ACTIVATIONS: tuple[type[nn.Module], ...] = (*MODULE_GAINS, nn.LeakyReLU, nn.PReLU, nn.RReLU)


def fans(weight: Tensor) -> tuple[int, int]:
    """Return (fan in, fan out) of a weight (out, in, *kernel)."""
    kernel = math.prod(weight.shape[2:])
    return weight.shape[1] * kernel, weight.shape[0] * kernel


def resolve_gain(module: nn.Module, gain: float | Literal["auto"]) -> float:
    """Return the gain; `auto` is that of the module's activation, or 1 where none is known."""
    if gain != "auto":
        return float(gain)
    found = known_gain(module)
    return GAINS["identity"] if found is None else found


def known_gain(module: nn.Module) -> float | None:
    """Return the gain of the module's `activation`, its first activation layer or the first function that `watch` saw."""
    activation = getattr(module, "activation", None)
    if isinstance(activation, str) and activation in GAINS:
        return GAINS[activation]
    layer = next((layer for layer in module.modules() if isinstance(layer, ACTIVATIONS)), None)
    use = use_of(module)
    return _gain_of_layer(layer) if layer is not None else use.gain if use else None


def _gain_of_layer(layer: nn.Module) -> float:
    if isinstance(layer, nn.LeakyReLU):
        return leaky_gain(layer.negative_slope)
    if isinstance(layer, nn.PReLU):
        return leaky_gain(float(layer.weight.detach().mean()))
    if isinstance(layer, nn.RReLU):
        return leaky_gain((layer.lower + layer.upper) / 2)
    return next(gain for kind, gain in MODULE_GAINS.items() if isinstance(layer, kind))
