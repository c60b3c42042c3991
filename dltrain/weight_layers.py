"""The weight layers of a module, and which of them a forward pass uses first and last.

The order of registration does not tell: a model may assign its last layer first.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrize import ParametrizationList
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


class Matrix(NamedTuple):
    """A parameter with two or more axes, and the module that owns it."""

    name: str
    owner: nn.Module
    parameter: nn.Parameter


class Use(NamedTuple):
    """What a forward pass did: the weights of layers that it used first and last, and its last matrix, by name; a gain.

    An empty name stands for the order of registration. The gain is that of the first activation function.
    """

    first: str = ""
    last: str = ""
    matrix: str = ""
    gain: float | None = None


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


def used_matrix(module: nn.Module) -> Matrix | None:
    """Return the parameter with two or more axes, of any name and any module, that `watch` saw last; None without a pass."""
    use = use_of(module)
    return next((matrix for matrix in _matrices(module) if use and matrix.name == use.matrix), None)


def _matrices(module: nn.Module) -> Iterator[Matrix]:
    """Yield the parameters with two or more axes in `modules()` order, a shared one for each module that has it."""
    for name, layer in module.named_modules():
        for key, parameter in layer.named_parameters(recurse=False):
            if parameter.ndim >= 2:
                yield Matrix(f"{name}.{key}".lstrip("."), layer, parameter)


def use_of(module: nn.Module) -> Use | None:
    """Return what `watch` or `note_use` noted on a module or on the one that it is a copy of."""
    use: Use | None = module.__dict__.get(_USE)
    return use


def note_use(module: nn.Module, use: Use) -> None:
    """Note on a module which weights it uses first and last."""
    module.__dict__[_USE] = use


def watch(module: nn.Module, inputs: Tensor) -> None:
    """Note on the module which weights a forward pass of `inputs` (B, ...) uses first and last.

    A copy of the module runs, in evaluation mode, and torch's generator is restored. The last layer is the last one with as many
    rows as there are outputs, if any: what is computed beside them, such as a reconstruction, is no head. A module that
    cannot be copied or cannot run notes nothing: its layers keep the order of registration.
    """
    # the code of the user's model may raise anything; the check of its outputs tells
    with suppress(Exception):
        use = _followed(copy.deepcopy(module), inputs.clone())
        if use is not None:
            note_use(module, use)


@torch.no_grad()
def _followed(module: nn.Module, inputs: Tensor) -> Use | None:
    """Run a module that is used for nothing else, and return its use of weights; None if no function of torch takes one."""
    module.eval()
    matrices = {id(matrix.parameter): matrix for matrix in _matrices(module)}
    watcher = _Watcher(set(matrices))
    with torch.random.fork_rng(devices=[]), watcher:
        outputs = module(inputs)
    if not watcher.used:
        return None
    width = _width(outputs)
    owners = list(_owners(module))
    firsts = {id(layer.weight): layer.name for layer in reversed(owners)}
    lasts = {id(layer.weight): layer for layer in owners}
    used = [lasts[key] for key in watcher.used if key in lasts]
    last = next((layer for layer in reversed(used) if len(layer.weight) == width), used[-1] if used else None)
    first = next((firsts[key] for key in watcher.used if key in firsts), "")
    matrix = _head_matrix([matrices[key] for key in watcher.used], set(lasts), width)
    return Use(first, last.name if last else "", matrix.name if matrix else "", watcher.gain)


def _width(outputs: object) -> int | None:
    """Return the number of outputs (B, ..., K) of a sample, 1 of outputs (B,); None of what is no tensor of samples."""
    if not isinstance(outputs, Tensor) or outputs.ndim == 0:
        return None
    return outputs.shape[-1] if outputs.ndim > 1 else 1


def _head_matrix(used: Sequence[Matrix], layers: set[int], width: int | None) -> Matrix | None:
    """Return the last used matrix with as many rows as there are outputs, or the last one; None if none can be an output layer."""
    candidates = [matrix for matrix in used if id(matrix.parameter) in layers or _may_be_head(matrix, width)]
    fitting = [matrix for matrix in candidates if _fits(matrix, id(matrix.parameter) in layers, width)]
    chosen = (fitting or candidates)[-1:]
    return _whole(chosen[0]) if chosen else None


def _may_be_head(matrix: Matrix, width: int | None) -> bool:
    """Return whether a parameter that is no weight of a layer may be that of the last one: scales and positions are not."""
    if isinstance(matrix.owner, NORMS):
        return False
    return isinstance(matrix.owner, ParametrizationList) or width == 1 or 1 not in matrix.parameter.shape


def _fits(matrix: Matrix, is_layer: bool, width: int | None) -> bool:
    shape = matrix.parameter.shape
    # of a parameter from elsewhere, either axis may be that of the outputs
    return shape[0] == width or (not is_layer and shape[-1] == width)


def _whole(matrix: Matrix) -> Matrix:
    """Return the last registered matrix of a parametrized weight, which may have several."""
    if not isinstance(matrix.owner, ParametrizationList):
        return matrix
    prefix = matrix.name.rpartition(".")[0]
    parts = [(key, p) for key, p in matrix.owner.named_parameters(recurse=False) if p.ndim >= 2]
    return Matrix(f"{prefix}.{parts[-1][0]}", matrix.owner, parts[-1][1])


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
        if _computes(func, result):
            self.used += [id(each) for each in _flat((*args, *kwargs.values())) if id(each) in self.weights]
            if self.gain is None:
                self.gain = gain_of_function(func, *args[1:2], **kwargs)
        return result


def _computes(func: Any, result: Any) -> bool:
    """Return whether a function of torch computes with its tensors: reads of a device or shape, and new tensors like one, do not."""
    name = getattr(func, "__name__", "")
    if name.startswith("new_") or name.endswith("_like"):
        return False
    # a torch.Size is a tuple, too
    return any(isinstance(each, Tensor) for each in _flat((result,)))


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    """Yield the values, and those inside of lists and tuples: recurrent layers take their weights in one."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


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
