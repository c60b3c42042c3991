"""The weight layers of a module, and which of them a forward pass uses first and last.

The order of registration does not tell: a model may assign its last layer first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode

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
# of functions of torch; those without a gain in calculate_gain that are near relu have that of relu
FUNCTION_GAINS: dict[str, float] = GAINS | {
    "selu": 3 / 4,
    **dict.fromkeys(("relu6", "hardswish", "elu", "celu", "mish"), GAINS["relu"]),
}
# the attribute of a module that keeps what `watch` saw
_USE = "_use_of_weights"


class WeightLayer(NamedTuple):
    """A module that has a weight with two or more axes, its weight and its bias."""

    name: str
    module: nn.Module
    weight: Tensor
    bias: Tensor | None


class Use(NamedTuple):
    """What a forward pass did: the weights that it used first and last, by name, and the gain of its first activation function."""

    first: str
    last: str
    gain: float | None


def weight_layers(module: nn.Module) -> list[WeightLayer]:
    """Return the weight layers in `modules()` order, with a shared weight once.

    Excludes normalization layers and parameters whose names do not end with "weight", such as position
    embeddings.
    """
    layers: dict[int, WeightLayer] = {}
    for layer in _owners(module):
        layers.setdefault(id(layer.weight), layer)
    return list(layers.values())


def _owners(module: nn.Module) -> Iterator[WeightLayer]:
    """Yield the weight layers in `modules()` order, with a shared weight for each module that has it."""
    for name, layer in module.named_modules():
        if isinstance(layer, NORMS):
            continue
        for key, weight in layer.named_parameters(recurse=False):
            if key.endswith("weight") and weight.ndim >= 2:
                bias = getattr(layer, key.removesuffix("weight") + "bias", None)
                yield WeightLayer(f"{name}.{key}".lstrip("."), layer, weight, bias)


def first_layer(module: nn.Module) -> WeightLayer | None:
    """Return the weight layer that `watch` saw first, or the one that was registered first; None without any."""
    use = use_of(module)
    layers = weight_layers(module)
    return next((layer for layer in layers if use and layer.name == use.first), next(iter(layers), None))


def last_layer(module: nn.Module) -> WeightLayer | None:
    """Return the weight layer that `watch` saw last, or the one that was registered last; None without any."""
    use = use_of(module)
    registered = next(reversed(weight_layers(module)), None)
    return next((layer for layer in _owners(module) if use and layer.name == use.last), registered)


def use_of(module: nn.Module) -> Use | None:
    """Return what `watch` noted on a module or on the one that it is a copy of."""
    use: Use | None = module.__dict__.get(_USE)
    return use


@torch.no_grad()
def watch(module: nn.Module, inputs: Tensor) -> None:
    """Note on the module which weights a forward pass of `inputs` (B, ...) uses first and last.

    The pass runs in evaluation mode and restores buffers, modes and torch's generator. The last layer is the last one with as many
    rows as there are outputs, if any: what is computed beside them, such as a reconstruction, is no head. A module that
    cannot run notes nothing: its layers keep the order of registration.
    """
    owners = list(_owners(module))
    if not owners:
        return
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    modes = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    watcher = _Watcher({id(layer.weight) for layer in owners})
    try:
        with torch.random.fork_rng(devices=[]), watcher:
            outputs = module(inputs)
    # the code of the user's model may raise anything; the check of its outputs tells
    except Exception:
        return
    finally:
        for layer, mode in modes:
            layer.training = mode
        for buffer, saved in buffers:
            buffer.copy_(saved)
    if not watcher.used:
        return
    firsts = {id(layer.weight): layer.name for layer in reversed(owners)}
    lasts = {id(layer.weight): layer for layer in owners}
    used = [lasts[key] for key in reversed(watcher.used)]
    width = outputs.shape[-1] if isinstance(outputs, Tensor) and outputs.ndim else None
    last = next((layer for layer in used if len(layer.weight) == width), used[0])
    module.__dict__[_USE] = Use(firsts[watcher.used[0]], last.name, watcher.gain)


class _Watcher(TorchFunctionMode):
    """Record which of some weights, by their ids, go into functions of torch, and the gain of the first activation."""

    def __init__(self, weights: set[int]) -> None:
        super().__init__()
        self.weights = weights
        self.used: list[int] = []
        self.gain: float | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        # others, such as the device of a weight, are no use of it
        if isinstance(result, Tensor | tuple):
            self.used += [id(each) for each in (*args, *kwargs.values()) if id(each) in self.weights]
            if self.gain is None:
                self.gain = gain_of_function(func, *args[1:2], **kwargs)
        return result


def gain_of_function(func: Any, slope: Any = None, **kwargs: Any) -> float | None:
    """Return the gain of an activation function of torch, in place or not; None for any other function."""
    name = getattr(func, "__name__", "").removesuffix("_")
    return _BY_SLOPE[name](slope, kwargs) if name in _BY_SLOPE else FUNCTION_GAINS.get(name)


def leaky_gain(slope: float) -> float:
    """Return the gain of a leaky ReLU (He et al. 2015, arXiv:1502.01852)."""
    return math.sqrt(2 / (1 + slope**2))


# functions whose gain depends on their second argument
_BY_SLOPE: dict[str, Callable[[Any, dict[str, Any]], float]] = {
    "leaky_relu": lambda slope, keys: leaky_gain(
        keys.get("negative_slope", 0.01 if slope is None else slope)
    ),
    "prelu": lambda slope, keys: leaky_gain(float(keys.get("weight", slope).detach().mean())),
}
