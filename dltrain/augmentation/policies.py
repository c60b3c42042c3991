"""Policies that draw random operations for each sample: RandAugment and TrivialAugment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dltrain.augmentation import color, geometry
from dltrain.augmentation.checks import check_brightness, picture_shape
from dltrain.augmentation.draws import Draw, draw_for
from dltrain.augmentation.protocols import COLOR
from dltrain.data.spec import DataSpec
from dltrain.ranges import Count

# fmt: off
OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "saturation",
    "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)
(
    IDENTITY, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y, ROTATE, BRIGHTNESS, SATURATION,
    CONTRAST, SHARPNESS, POSTERIZE, SOLARIZE, AUTOCONTRAST, EQUALIZE,
) = range(len(OPERATIONS))
# fmt: on
# strengths 0 to 30, as in both papers
NUM_LEVELS = 31


@dataclass(frozen=True)
class Space:
    """The effect of the largest strength: tangent of shear, pixels (x, y), degrees, blend factor, bits removed."""

    shear: float
    translate: tuple[float, float]
    rotate: float
    blend: float
    bits: int


class RandAugment:
    """RandAugment: apply a few random operations of the same strength to each picture.

        num_ops times: x ← op(x, ±magnitude/30)
        op uniform over 14 operations, each sign with probability 1/2

    The operations and their strengths are torchvision's, but sampling is bilinear (torchvision: nearest) and shear is
    around the center (torchvision: the corner).

    Use: photographs, long training; two numbers to tune instead of a policy.
    Defaults: torchvision's.
    Paper: Cubuk et al. 2020, arXiv:1909.13719

    Args:
        num_ops: number of operations
        magnitude: strength of all operations
    """

    needs = frozenset({"images"})

    stage = COLOR

    def __init__(
        self, spec: DataSpec, num_ops: Count = 2, magnitude: Annotated[int, "in [0, 30]"] = 9
    ) -> None:
        _, height, width = picture_shape(spec, "randaugment")
        check_brightness(spec, "randaugment")
        self.num_ops, self.level = num_ops, magnitude / (NUM_LEVELS - 1)
        self.space = Space(0.3, (150 / 331 * width, 150 / 331 * height), 30.0, 0.9, 4)
        self.mean, self.std = spec.mean, spec.std

    def __call__(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        draw = draw_for(inputs, generator)
        # copies at the first call only
        self.mean, self.std = self.mean.to(inputs), self.std.to(inputs)
        pixels = inputs * self.std + self.mean
        for _ in range(self.num_ops):
            operation, sign = operations_and_signs(draw)
            pixels = operate(pixels, operation, torch.full_like(sign, self.level), sign, self.space)
        return (pixels - self.mean) / self.std, targets


class TrivialAugment:
    """TrivialAugment: apply one random operation of random strength to each picture.

        x ← op(x, ±k/30)
        op uniform over 14 operations, k uniform over 0, 1, …, 30, each sign with probability 1/2

    The strengths are those of the paper's wide space. Operations and sampling are as in RandAugment.

    Use: photographs, long training; nothing to tune.
    Paper: Müller & Hutter 2021, arXiv:2103.10158
    """

    needs = frozenset({"images"})

    stage = COLOR

    def __init__(self, spec: DataSpec) -> None:
        picture_shape(spec, "trivialaugment")
        check_brightness(spec, "trivialaugment")
        self.space = Space(0.99, (32.0, 32.0), 135.0, 0.99, 6)
        self.mean, self.std = spec.mean, spec.std

    def __call__(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        draw = draw_for(inputs, generator)
        # copies at the first call only
        self.mean, self.std = self.mean.to(inputs), self.std.to(inputs)
        operation, sign = operations_and_signs(draw)
        level = draw.integers(0, NUM_LEVELS - 1) / (NUM_LEVELS - 1)
        pixels = operate(inputs * self.std + self.mean, operation, level, sign, self.space)
        return (pixels - self.mean) / self.std, targets


def operations_and_signs(draw: Draw) -> tuple[Tensor, Tensor]:
    """Draw the number of each sample's operation and its sign, −1.0 or 1.0, (B,) each."""
    return draw.integers(0, len(OPERATIONS) - 1), 1 - 2 * draw.chance(0.5).float()


def operate(pixels: Tensor, operation: Tensor, level: Tensor, sign: Tensor, space: Space) -> Tensor:
    """Apply to each raw picture in [0, 1] its `operation` (B,) with strength `level` (B,) in [0, 1].

    All operations are computed for all samples: grouping the samples by operation would need a host sync.
    """
    pixels = move(pixels, operation, level * sign, space)
    pixels = shade(pixels, operation, level * sign * space.blend)
    return tone(pixels, operation, level, space)


def move(pixels: Tensor, operation: Tensor, amount: Tensor, space: Space) -> Tensor:
    """Apply the five geometric operations in one warp; `amount` (B,) is in [−1, 1]."""

    def picked(number: int, value: Tensor) -> Tensor:
        return torch.where(operation == number, value, 0.0)

    x, y = space.translate
    matrix = geometry.shearing(picked(SHEAR_X, amount * space.shear), picked(SHEAR_Y, amount * space.shear))
    matrix = matrix @ geometry.rotation(picked(ROTATE, amount * (space.rotate * math.pi / 180)))
    # whole pixels, rounded toward zero
    right, down = picked(TRANSLATE_X, (amount * x).trunc()), picked(TRANSLATE_Y, (amount * y).trunc())
    moved = geometry.warp(pixels, matrix @ geometry.shifting(right, down))
    geometric = (operation >= SHEAR_X) & (operation <= ROTATE)
    return torch.where(color.column(geometric, pixels) > 0, moved, pixels)


def shade(pixels: Tensor, operation: Tensor, amount: Tensor) -> Tensor:
    """Apply the four blends: with black, gray, mean gray and the smoothed picture."""
    number = operation.view(-1, 1, 1, 1)
    gray = color.gray(pixels)
    other = torch.where(number == SHARPNESS, color.smooth(pixels), torch.zeros_like(pixels))
    other = torch.where(number == SATURATION, gray, other)
    other = torch.where(number == CONTRAST, gray.mean((1, 2, 3), keepdim=True), other)
    blends = (operation >= BRIGHTNESS) & (operation <= SHARPNESS)
    return torch.where(color.column(blends, pixels) > 0, color.blend(pixels, other, 1 + amount), pixels)


def tone(pixels: Tensor, operation: Tensor, level: Tensor, space: Space) -> Tensor:
    """Apply the four maps of pixel values; `level` (B,) is in [0, 1]."""
    number = operation.view(-1, 1, 1, 1)
    result = torch.where(
        number == POSTERIZE, color.posterize(pixels, 8 - (level * space.bits).round()), pixels
    )
    result = torch.where(number == SOLARIZE, color.solarize(pixels, 1 - level), result)
    result = torch.where(number == AUTOCONTRAST, color.autocontrast(pixels), result)
    return torch.where(number == EQUALIZE, color.equalize(pixels), result)
