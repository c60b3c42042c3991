"""A small vision transformer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltrain.models.parts import Residual, check_probability, choose, depth_rates, image_size, make_activation
from dltrain.ranges import Activation, Count, Fraction

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class VisionTransformer(nn.Module):
    """Small vision transformer with fixed positions and a mean over the patches.

        h ← h + attention(norm(h)); h ← h + mlp(norm(h)); outputs = W·mean(norm(h)) + b

    A vision transformer with pre-norm blocks, fixed sine-cosine positions and a mean over the patches.

    inputs: (B, C, H, W); outputs: (B, num_classes). Dosovitskiy et al. 2020, arXiv:2010.11929, in the simple
    form of Beyer et al. 2022, arXiv:2205.01580 (no class token; positions are not learned, so nothing but
    weight layers needs an initializer). `attention=math` is written out and has second derivatives; torch's
    `fused` kernels have none. Raises ValueError for a patch that does not divide the image, or a dim that the
    heads or positions cannot share.

    Use: to see a transformer train on small images; Adam and a warm-up suit it.
    Defaults: 0.45 M parameters; at least 7 patches a side.
    Paper: Dosovitskiy et al. 2020, arXiv:2010.11929; Beyer et al. 2022, arXiv:2205.01580

    Args:
        patch: side of a patch in pixels; it must divide the image
        dim: width of a token, a multiple of 4 and of heads
        depth: number of blocks
        heads: attention heads
        mlp_ratio: hidden width of a block's MLP, in units of dim
        activation: inside a block's MLP
        attention: written out, with second derivatives; or torch's fused kernels, without
        dropout: probability to drop after attention and in the MLP
        stochastic_depth: probability to drop the last block's branches, growing linearly up to it
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        patch: Count | Literal["auto"] = "auto",
        dim: Annotated[int, ">= 4"] = 96,
        depth: Count = 6,
        heads: Count = 3,
        mlp_ratio: Count = 2,
        activation: Activation = "gelu",
        attention: Literal["math", "fused"] = "math",
        dropout: Fraction = 0.0,
        stochastic_depth: Fraction = 0.0,
    ) -> None:
        super().__init__()
        channels, height, width = image_size(input_shape, "vit_tiny")
        _check_dim(dim, heads)
        check_probability("model.dropout", dropout)
        self.activation = activation
        side = _patch_side(patch, height, width)
        self.embed = nn.Conv2d(channels, dim, side, side)
        # outside the state dict: it follows from the shape, and weights can move to other image sizes
        positions = sine_positions(height // side, width // side, dim)
        self.register_buffer("positions", positions, persistent=False)
        attend = choose(ATTENTIONS, "model.attention", attention)
        blocks: list[nn.Module] = []
        for rate in depth_rates(stochastic_depth, depth):
            mix: list[nn.Module] = [nn.LayerNorm(dim), Attention(dim, heads, attend), nn.Dropout(dropout)]
            think = [nn.LayerNorm(dim), nn.Linear(dim, mlp_ratio * dim), make_activation(activation)]
            think += [nn.Dropout(dropout), nn.Linear(mlp_ratio * dim, dim), nn.Dropout(dropout)]
            blocks += [Residual(nn.Sequential(*mix), rate), Residual(nn.Sequential(*think), rate)]
        self.blocks = nn.Sequential(*blocks, nn.LayerNorm(dim))
        self.head = nn.Linear(dim, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.embed(inputs).flatten(2).transpose(1, 2) + self.positions
        outputs: Tensor = self.head(self.blocks(tokens).mean(1))
        return outputs


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, arXiv:1706.03762): tokens (B, N, D) to (B, N, D)."""

    def __init__(self, dim: int, heads: int, attend: Attend) -> None:
        super().__init__()
        self.heads = heads
        self.attend = attend
        self.qkv = nn.Linear(dim, 3 * dim)
        self.merge = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        # (B, N, 3D) -> 3 of (B, heads, N, D / heads)
        queries, keys, values = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = self.attend(queries, keys, values)
        outputs: Tensor = self.merge(mixed.transpose(1, 2).flatten(2))
        return outputs


def math_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(QKᵀ/√d) V from plain operations, all of which can be derived twice; (B, heads, N, d) each."""
    scores = queries @ keys.transpose(-2, -1) * queries.shape[-1] ** -0.5
    return scores.softmax(-1) @ values


ATTENTIONS: dict[str, Attend] = {"math": math_attention, "fused": F.scaled_dot_product_attention}


def sine_positions(rows: int, columns: int, dim: int) -> Tensor:
    """Return (rows·columns, dim): sines and cosines of the row and of the column at dim/4 wavelengths to
    10⁴.
    """
    frequencies = 10_000.0 ** -torch.linspace(0, 1, dim // 4)
    vertical = torch.arange(rows)[:, None, None] * frequencies
    horizontal = torch.arange(columns)[None, :, None] * frequencies
    angles = torch.stack(torch.broadcast_tensors(vertical, horizontal), 2)  # (rows, columns, 2, dim / 4)
    return torch.cat([angles.sin(), angles.cos()], -1).reshape(rows * columns, dim)


def _patch_side(patch: int | str, height: int, width: int) -> int:
    """Auto: the longest side that divides the image and leaves 7 patches a side, but 2 pixels where it is
    tiny.
    """
    common = math.gcd(height, width)
    sides = [side for side in range(1, common + 1) if common % side == 0]
    if patch == "auto":
        return max(side for side in sides if side <= max(2, min(height, width) // 7))
    if patch not in sides:
        raise ValueError(
            f"model.patch is {patch}; it must divide the image of {height}×{width} pixels: use one of "
            f"{', '.join(map(str, sides))}, or auto"
        )
    return int(patch)


def _check_dim(dim: int, heads: int) -> None:
    if dim % 4 or dim % heads:
        raise ValueError(
            f"model.dim is {dim}; it must be a multiple of 4 (sine positions) and of model.heads={heads}: "
            f"use {math.lcm(4, heads) * max(1, round(dim / math.lcm(4, heads)))}"
        )
