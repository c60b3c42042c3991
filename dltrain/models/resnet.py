"""Residual networks for small images: the CIFAR ResNets of He et al. and the wide ones of Zagoruyko."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from dltrain.models.parts import StochasticDepth, depth_rates, image_size, make_activation, make_norm
from dltrain.ranges import Activation, Count, Fraction, Norm


def _conv(inner: int, outer: int, stride: int, norm: Norm) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, 3, stride, padding=1, bias=norm == "none")


def _blocks_per_stage(depth: int, rest: int, model: str) -> int:
    if (depth - rest) % 6:
        raise ValueError(
            f"model.depth is {depth}; {model} has 6n + {rest} layers: use one of "
            f"{', '.join(str(6 * n + rest) for n in (1, 2, 3, 5, 9))}, …"
        )
    return (depth - rest) // 6


class ResNet(nn.Module):
    """CIFAR ResNet of 6n + 2 layers with parameter-free shortcuts.

        h ← activation(shortcut(h) + norm(conv₃ₓ₃(activation(norm(conv₃ₓ₃(h))))))  n blocks in each of 3 stages
        outputs = W·dropout(mean(h)) + b

    Maps inputs (B, C, H, W) to outputs (B, num_classes). The first block of the second and third stage halves
    the image. 20 layers have 0.27 M parameters, 32 have 0.46 M and 56 have 0.85 M. Raises ValueError for a
    depth other than 6n + 2, or if a sample is not an image.

    Symbols: n = (depth − 2)/6; mean over the pixels
    Use: small color images; the usual test of an optimizer on CIFAR-10.
    Defaults: the paper's.
    Paper: He, Zhang, Ren & Sun 2015, arXiv:1512.03385 (section 4.2, shortcuts of option A)
    Lecture: L2

    Args:
        depth: number of layers, 6n + 2
        width: channels of the first stage; the second has twice and the third four times as many
        activation: activation function after the first convolution and after the sum
        norm: normalization after each convolution; group has at most 8 groups of at least 2 channels: one, as layer, of an odd number
        dropout: probability to drop an input of the linear head
        stochastic_depth: probability to drop the last residual branch, rising linearly from the first
    """

    needs = frozenset({"images"})

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        depth: Annotated[int, ">= 8"] = 20,
        width: Count = 16,
        activation: Activation = "relu",
        norm: Norm = "batch",
        dropout: Fraction = 0.0,
        stochastic_depth: Fraction = 0.0,
    ) -> None:
        super().__init__()
        channels, _, _ = image_size(input_shape, f"resnet{depth}")
        blocks = _blocks_per_stage(depth, 2, "a CIFAR ResNet")
        self.activation = activation
        self.stem = nn.Sequential(
            _conv(channels, width, 1, norm), make_norm(norm, width, True), make_activation(activation)
        )
        widths = [width * 2**stage for stage in range(3) for _ in range(blocks)]
        rates = depth_rates(stochastic_depth, len(widths))
        self.blocks = nn.Sequential(
            *(
                _BasicBlock(inner, outer, activation, norm, rate)
                for inner, outer, rate in zip([width, *widths], widths, rates, strict=False)
            )
        )
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.blocks(self.stem(inputs))
        outputs: Tensor = self.head(self.drop(features.mean((2, 3))))
        return outputs


class _BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut; a block that adds channels halves the image."""

    def __init__(self, inner: int, outer: int, activation: Activation, norm: Norm, drop: float) -> None:
        super().__init__()
        self.stride = 1 if inner == outer else 2
        self.new_channels = outer - inner
        self.conv1, self.norm1 = _conv(inner, outer, self.stride, norm), make_norm(norm, outer, True)
        self.act1 = make_activation(activation)
        self.conv2, self.norm2 = _conv(outer, outer, 1, norm), make_norm(norm, outer, True)
        self.drop = StochasticDepth(drop)
        self.act2 = make_activation(activation)

    def forward(self, inputs: Tensor) -> Tensor:
        branch = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(inputs)))))
        outputs: Tensor = self.act2(self._shortcut(inputs) + self.drop(branch))
        return outputs

    def _shortcut(self, inputs: Tensor) -> Tensor:
        """Take every other pixel and pad the new channels with zeros (option A)."""
        if self.stride == 1:
            return inputs
        before = self.new_channels // 2
        pixels = inputs[:, :, :: self.stride, :: self.stride]
        return F.pad(pixels, (0, 0, 0, 0, before, self.new_channels - before))


class WideResNet(nn.Module):
    """Wide residual network WRN-depth-width with pre-activation blocks.

        h ← shortcut(h) + conv₃ₓ₃(dropout(activation(norm(conv₃ₓ₃(activation(norm(h)))))))  n blocks in each of 3 stages
        outputs = W·mean(activation(norm(h))) + b

    Maps inputs (B, C, H, W) to outputs (B, num_classes). The first block of the second and third stage halves
    the image. Raises ValueError for a depth other than 6n + 4, or if a sample is not an image.

    Symbols: n = (depth − 4)/6; mean over the pixels
    Use: more accuracy than a deep thin ResNet at equal cost; depth=28 width=10 is the paper's WRN-28-10 (36.5
        M parameters).
    Defaults: WRN-16-4, 2.7 M parameters, which can be trained on a CPU.
    Paper: Zagoruyko & Komodakis 2016, arXiv:1605.07146

    Args:
        depth: number of layers, 6n + 4
        width: factor of the 16, 32 and 64 channels of the three stages
        activation: activation function before each convolution
        norm: normalization before each activation
        dropout: probability to drop an input of the second convolution of a block
        stochastic_depth: probability to drop the last residual branch, rising linearly from the first
    """

    needs = frozenset({"images"})

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        depth: Annotated[int, ">= 10"] = 16,
        width: Count = 4,
        activation: Activation = "relu",
        norm: Norm = "batch",
        dropout: Fraction = 0.0,
        stochastic_depth: Fraction = 0.0,
    ) -> None:
        super().__init__()
        channels, _, _ = image_size(input_shape, "wide_resnet")
        blocks = _blocks_per_stage(depth, 4, "a wide ResNet")
        self.activation = activation
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=norm == "none")
        widths = [16 * width * 2**stage for stage in range(3) for _ in range(blocks)]
        strides = [2 if stage and not block else 1 for stage in range(3) for block in range(blocks)]
        rates = depth_rates(stochastic_depth, len(widths))
        self.blocks = nn.Sequential(
            *(
                _WideBlock(inner, outer, stride, activation, norm, dropout, rate)
                for inner, outer, stride, rate in zip([16, *widths], widths, strides, rates, strict=False)
            )
        )
        self.last = nn.Sequential(make_norm(norm, widths[-1], True), make_activation(activation))
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.last(self.blocks(self.stem(inputs)))
        outputs: Tensor = self.head(features.mean((2, 3)))
        return outputs


class _WideBlock(nn.Module):
    """Norm, activation and convolution, twice; the shortcut is a 1×1 convolution if the width changes."""

    def __init__(
        self,
        inner: int,
        outer: int,
        stride: int,
        activation: Activation,
        norm: Norm,
        dropout: float,
        drop: float,
    ) -> None:
        super().__init__()
        self.before = nn.Sequential(make_norm(norm, inner, True), make_activation(activation))
        self.branch = nn.Sequential(
            _conv(inner, outer, stride, norm),
            make_norm(norm, outer, True),
            make_activation(activation),
            nn.Dropout(dropout),
            _conv(outer, outer, 1, norm),
        )
        self.shortcut = None if inner == outer else nn.Conv2d(inner, outer, 1, stride, bias=False)
        self.drop = StochasticDepth(drop)

    def forward(self, inputs: Tensor) -> Tensor:
        active = self.before(inputs)
        shortcut = inputs if self.shortcut is None else self.shortcut(active)
        outputs: Tensor = shortcut + self.drop(self.branch(active))
        return outputs
