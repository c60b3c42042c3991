"""Residual networks for small images: the CIFAR ResNets of He et al. and the wide ones of Zagoruyko."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from dltrain.models.parts import (
    StochasticDepth,
    check_probability,
    depth_rates,
    image_size,
    make_activation,
    make_norm,
)
from dltrain.ranges import Activation, Count, Fraction, Norm


def _conv(inner: int, outer: int, stride: int, norm: str) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, 3, stride, padding=1, bias=norm == "none")


def _blocks_per_stage(depth: int, rest: int, smallest: int, model: str) -> int:
    if depth < smallest or (depth - rest) % 6:
        raise ValueError(
            f"model.depth is {depth}; {model} has 6n + {rest} layers: use one of "
            f"{', '.join(str(6 * n + rest) for n in (1, 2, 3, 5, 9))}, …"
        )
    return (depth - rest) // 6


class ResNet(nn.Module):
    """CIFAR ResNet of 20 layers, 0.27 M parameters.

        h ← activation(shortcut(h) + norm(conv(activation(norm(conv(h)))))), 3 such blocks in each of three
        stages

    The CIFAR ResNet: 6n + 2 layers in three stages of `width`, 2·width and 4·width channels.

    inputs: (B, C, H, W); outputs: (B, num_classes). He et al. 2015, arXiv:1512.03385, section 4.2, with the
    shortcuts without parameters (option A): 0.27 M (depth 20), 0.46 M (32), 0.85 M (56) parameters. `dropout`
    stands before the head; `stochastic_depth` is the last block's probability. Raises ValueError for another
    depth or no image.

    Use: small colour images; the usual measure of an optimizer on CIFAR-10.
    Defaults: the paper's.
    Paper: He, Zhang, Ren & Sun 2015, arXiv:1512.03385 (section 4.2, shortcuts of option A)
    Lecture: L2

    Args:
        depth: number of layers, 6n + 2 with n blocks in a stage
        width: channels of the first stage; the next two have twice and four times as many
        activation: after each addition and inside
        norm: normalisation after each convolution
        dropout: probability to drop an input of the linear head
        stochastic_depth: probability to drop the last residual branch, growing linearly up to it
    """

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
        blocks = _blocks_per_stage(depth, 2, 8, "a CIFAR ResNet")
        check_probability("model.dropout", dropout)
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
    """Two 3×3 convolutions beside a shortcut; more channels halve the image."""

    def __init__(self, inner: int, outer: int, activation: str, norm: str, drop: float) -> None:
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
        """Option A: every other pixel, and zeros for the channels that are new."""
        if self.stride == 1:
            return inputs
        before = self.new_channels // 2
        pixels = inputs[:, :, :: self.stride, :: self.stride]
        return F.pad(pixels, (0, 0, 0, 0, before, self.new_channels - before))


class WideResNet(nn.Module):
    """Wide residual network WRN-depth-width with pre-activation blocks.

        h ← shortcut(h) + conv(dropout(activation(norm(conv(activation(norm(h)))))))

    WRN-depth-width: pre-activation residual blocks of 16·width, 32·width and 64·width channels.

    inputs: (B, C, H, W); outputs: (B, num_classes). Zagoruyko & Komodakis 2016, arXiv:1605.07146; depth = 6n
    + 4; WRN-28-10 has 36.5 M parameters. `dropout` stands between the two convolutions of a block, as in the
    paper; `stochastic_depth` is the last block's probability. Raises ValueError for another depth or no
    image.

    Use: more accuracy than a deep thin ResNet at equal cost; WRN-28-10 (36.5 M) is depth=28 width=10.
    Defaults: WRN-16-4, 2.7 M parameters, which a CPU can still train.
    Paper: Zagoruyko & Komodakis 2016, arXiv:1605.07146

    Args:
        depth: number of layers, 6n + 4 with n blocks in a stage
        width: multiplies the 16, 32 and 64 channels of the three stages
        activation: before each convolution
        norm: normalisation before each activation
        dropout: probability to drop between the two convolutions of a block
        stochastic_depth: probability to drop the last residual branch, growing linearly up to it
    """

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
        blocks = _blocks_per_stage(depth, 4, 10, "a wide ResNet")
        check_probability("model.dropout", dropout)
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
    """Norm, activation, convolution, twice; a 1×1 convolution is the shortcut where the width changes."""

    def __init__(
        self, inner: int, outer: int, stride: int, activation: str, norm: str, dropout: float, drop: float
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
