"""Pieces that several models are made of: activations, normalisation, residual branches, checks of shapes."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

Choice = TypeVar("Choice")

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "identity": nn.Identity,
}


def choose(choices: Mapping[str, Choice], key: str, word: str) -> Choice:
    """Return the choice with that name; raise ValueError with the nearest name where there is none."""
    if word in choices:
        return choices[word]
    near = difflib.get_close_matches(str(word), choices, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ValueError(f"{key} is {word!r}; it must be one of {', '.join(choices)}{hint}")


def make_activation(activation: str) -> nn.Module:
    """Build the activation function with that word."""
    return choose(ACTIVATIONS, "model.activation", activation)()


def make_norm(norm: str, channels: int, images: bool) -> nn.Module:
    """Build the normalisation of `channels` channels, for inputs (B, C, H, W) if `images`, else (B, C).

    batch: Ioffe & Szegedy 2015, arXiv:1502.03167 (L0, L2, L3); layer: Ba 2016, arXiv:1607.06450, over
    channels and pixels; group: Wu & He 2018, arXiv:1803.08494, at most 8 groups of at least 2 channels.
    """
    if not images and channels == 1 and norm in ("layer", "group"):
        raise ValueError(
            f"model.norm is {norm!r}, but a layer of 1 unit has nothing to be normalised with; "
            "use model.norm=batch, model.norm=none or a wider layer"
        )
    groups = max((n for n in range(1, 9) if channels % (2 * n) == 0), default=1)
    norms: dict[str, Callable[[int], nn.Module]] = {
        "batch": nn.BatchNorm2d if images else nn.BatchNorm1d,
        "layer": functools.partial(nn.GroupNorm, 1) if images else nn.LayerNorm,
        "group": functools.partial(nn.GroupNorm, groups),
        "none": nn.Identity,
    }
    return choose(norms, "model.norm", norm)(channels)


def image_size(input_shape: Sequence[int], model: str) -> tuple[int, int, int]:
    """Return (channels, height, width); raise ValueError where a sample is not an image."""
    if len(input_shape) != 3:
        raise ValueError(
            f"model={model} needs images (channels, height, width), but a sample of this dataset has "
            f"the shape {tuple(input_shape)}; use model=mlp or model=linear"
        )
    channels, height, width = input_shape
    return channels, height, width


def check_probability(key: str, value: float) -> None:
    """Raise ValueError unless 0 <= value < 1."""
    if not 0 <= value < 1:
        raise ValueError(f"{key} is {value}; it must lie in [0, 1): it is the probability to drop")


def depth_rates(last: float, blocks: int) -> list[float]:
    """Return the drop probabilities of the residual branches, growing linearly up to `last` (Huang 2016,
    eq. 4).
    """
    check_probability("model.stochastic_depth", last)
    return [last * (block + 1) / blocks for block in range(blocks)]


class StochasticDepth(nn.Module):
    """Drop a residual branch for a whole sample with probability p, scaling what stays by 1/(1−p).

    inputs: (B, ...). Huang et al. 2016, arXiv:1603.09382. Draws from the global generator, as nn.Dropout
    does.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, inputs: Tensor) -> Tensor:
        if self.p == 0 or not self.training:
            return inputs
        ones = inputs.new_ones((inputs.shape[0],) + (1,) * (inputs.ndim - 1))
        return inputs * F.dropout(ones, self.p)


class Residual(nn.Module):
    """inputs + branch(inputs), the branch dropped by stochastic depth."""

    def __init__(self, branch: nn.Module, drop: float) -> None:
        super().__init__()
        self.branch = branch
        self.drop = StochasticDepth(drop)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = inputs + self.drop(self.branch(inputs))
        return outputs
