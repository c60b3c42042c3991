"""Building blocks shared by several models: activations, normalization, residual branches, shape checks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from dltrain.ranges import Activation, Norm

ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "identity": nn.Identity,
}


def make_activation(activation: Activation) -> nn.Module:
    """Build an activation function."""
    return ACTIVATIONS[activation]()


def make_norm(norm: Norm, channels: int, images: bool) -> nn.Module:
    """Build the normalization of `channels` channels, for inputs (B, C, H, W) if `images`, else (B, C).

    batch: Ioffe & Szegedy 2015, arXiv:1502.03167; layer: Ba et al. 2016, arXiv:1607.06450, over channels and
    pixels; group: Wu & He 2018, arXiv:1803.08494, with at most 8 groups of at least 2 channels. Raises
    ValueError for layer and group where a table's layer has a single unit.
    """
    if not images and channels == 1 and norm in ("layer", "group"):
        raise ValueError(
            f"model.norm is {norm!r}, but normalizing a layer of 1 unit always gives 0; "
            "use model.norm=batch, model.norm=none or a wider layer"
        )
    groups = max((n for n in range(1, 9) if channels % (2 * n) == 0), default=1)
    norms: dict[Norm, Callable[[int], nn.Module]] = {
        "batch": nn.BatchNorm2d if images else nn.BatchNorm1d,
        "layer": functools.partial(nn.GroupNorm, 1) if images else nn.LayerNorm,
        "group": functools.partial(nn.GroupNorm, groups),
        "none": nn.Identity,
    }
    return norms[norm](channels)


def image_size(input_shape: Sequence[int], model: str) -> tuple[int, int, int]:
    """Return (channels, height, width); raise ValueError if a sample is not an image."""
    if len(input_shape) != 3:
        raise ValueError(
            f"model={model} needs images (channels, height, width), but a sample of this dataset has "
            f"the shape {tuple(input_shape)}; use model=mlp or model=linear"
        )
    channels, height, width = input_shape
    return channels, height, width


def depth_rates(last: float, blocks: int) -> list[float]:
    """Return the drop probability of each residual branch, which grows linearly to `last`.

    Huang et al. 2016, arXiv:1603.09382, equation 4.
    """
    return [last * (block + 1) / blocks for block in range(blocks)]


class StochasticDepth(nn.Module):
    """Drop a residual branch for a whole sample with probability p, and scale the kept ones by 1/(1−p).

    Inputs are (B, ...). Draws from the global generator, as nn.Dropout does. Huang et al. 2016,
    arXiv:1603.09382.
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
    """Add a branch to its inputs; stochastic depth may drop the branch."""

    def __init__(self, branch: nn.Module, drop: float) -> None:
        super().__init__()
        self.branch = branch
        self.drop = StochasticDepth(drop)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = inputs + self.drop(self.branch(inputs))
        return outputs
