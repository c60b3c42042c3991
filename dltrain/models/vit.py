"""A small vision transformer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltrain.models.parts import Residual, depth_rates, image_size, make_activation
from dltrain.ranges import Activation, Count, Fraction

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
AttentionWord = Literal["math", "fused"]


class VisionTransformer(nn.Module):
    """Small vision transformer with fixed positions and a mean over the patches.

        h = W·patches + b + positions
        h ← h + dropout(attention(norm(h)))  in each block
        h ← h + dropout(W₂·dropout(activation(W₁·norm(h) + b₁)) + b₂)  in each block
        outputs = W·mean(norm(h)) + b

    Maps inputs (B, C, H, W) to outputs (B, num_classes). Positions are sines and cosines of row and column;
    there is no class token. Raises ValueError if `patch` does not divide the image, if `dim` is not a
    multiple of 4 and of `heads`, or if a sample is not an image.

    Symbols: mean over the patches
    Use: to see a transformer train on small images; with Adam and a warm-up.
    Defaults: 0.45 M parameters.
    Paper: Dosovitskiy et al. 2020, arXiv:2010.11929; Beyer et al. 2022, arXiv:2205.01580 (simplified form)

    Args:
        patch: side of a patch in pixels; auto is the longest that gives 7 patches a side, or 2 for tiny
            images
        dim: width of a token
        depth: number of blocks
        heads: number of attention heads
        mlp_ratio: hidden width of a block's MLP as a multiple of dim
        activation: activation function of the MLPs
        attention: plain operations, which have second derivatives, or torch's fused kernels, which have none
        dropout: probability to drop after attention and in the MLP
        stochastic_depth: probability to drop the last block's branches, rising linearly from the first
    """

    needs = frozenset({"images"})
    gives = frozenset({"no second derivatives if attention=fused"})
    instead = {"no second derivatives": "model.attention=math"}

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
        attention: AttentionWord = "math",
        dropout: Fraction = 0.0,
        stochastic_depth: Fraction = 0.0,
    ) -> None:
        super().__init__()
        channels, height, width = image_size(input_shape, "vit_tiny")
        _check_dim(dim, heads)
        self.activation = activation
        side = _patch_side(patch, height, width)
        self.embed = nn.Conv2d(channels, dim, side, side)
        # not in the state dict: positions follow from the shape, so weights fit other image sizes too
        positions = sine_positions(height // side, width // side, dim)
        self.register_buffer("positions", positions, persistent=False)
        attend = ATTENTIONS[attention]
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
    """Compute softmax(QKᵀ/√d)·V from operations with second derivatives; arguments are (B, heads, N, d)."""
    scores = queries @ keys.transpose(-2, -1) * queries.shape[-1] ** -0.5
    return scores.softmax(-1) @ values


ATTENTIONS: dict[AttentionWord, Attend] = {"math": math_attention, "fused": F.scaled_dot_product_attention}


def sine_positions(rows: int, columns: int, dim: int) -> Tensor:
    """Return positions (rows·columns, dim): sines and cosines of row and column at dim/4 frequencies, 1 to 10⁻⁴."""
    frequencies = 10_000.0 ** -torch.linspace(0, 1, dim // 4)
    vertical = torch.arange(rows)[:, None, None] * frequencies
    horizontal = torch.arange(columns)[None, :, None] * frequencies
    # (rows, columns, 2, dim / 4)
    angles = torch.stack(torch.broadcast_tensors(vertical, horizontal), 2)
    return torch.cat([angles.sin(), angles.cos()], -1).reshape(rows * columns, dim)


def _patch_side(patch: int | Literal["auto"], height: int, width: int) -> int:
    """Return the side of a patch; auto gives 7 patches a side or more, except that tiny images get 2 pixels."""
    common = math.gcd(height, width)
    sides = [side for side in range(1, common + 1) if common % side == 0]
    if patch == "auto":
        return max(side for side in sides if side <= max(2, min(height, width) // 7))
    if patch not in sides:
        raise ValueError(
            f"model.patch is {patch}; it must divide the image of {height}×{width} pixels: use one of "
            f"{', '.join(map(str, sides))}, or auto"
        )
    return patch


def _check_dim(dim: int, heads: int) -> None:
    if dim % 4 or dim % heads:
        raise ValueError(
            f"model.dim is {dim}; it must be a multiple of 4 (sine positions) and of model.heads={heads}: "
            f"use {math.lcm(4, heads) * max(1, round(dim / math.lcm(4, heads)))}"
        )
