"""Changes of colour, by torchvision's definitions, on raw pixels in [0, 1]."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dltrain.augmentation.checks import picture_shape, require
from dltrain.augmentation.draws import Draw, draw_for
from dltrain.augmentation.protocols import COLOUR, NOISE
from dltrain.data.spec import DataSpec
from dltrain.ranges import Positive, Share


class Color:
    """Change brightness, contrast and saturation of each picture.

        v ← clip(o + f·(v − o)) for o = black, mean gray, the pixel's gray
        f uniform in 1 ± key

    Change brightness, contrast and saturation, in this order, by factors uniform in 1 ± the key.

    The factors are torchvision's (`adjust_brightness`, `adjust_contrast`, `adjust_saturation`): 1 changes
    nothing, results are clipped to [black, white]. Pictures without three channels have no saturation to
    change.

    Symbols: v raw pixel in [0, 1]; factors as in torchvision's adjust_brightness, adjust_contrast,
        adjust_saturation
    Use: photographs under different light.
    Defaults: 0.2 each, mild.

    Args:
        brightness: greatest change of the brightness; 0 leaves it alone
        contrast: greatest change of the contrast; 0 leaves it alone
        saturation: greatest change of the saturation; 0 leaves it alone
    """

    stage = COLOUR

    def __init__(
        self, spec: DataSpec, brightness: Share = 0.2, contrast: Share = 0.2, saturation: Share = 0.2
    ) -> None:
        picture_shape(spec, "color")
        for key, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            require(0 <= value <= 1, f"color.{key}", value, "in [0, 1]", f"0 leaves the {key} alone")
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation
        self.mean, self.std = spec.mean, spec.std

    def parameters(self, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """Factors of brightness, contrast and saturation, (B,) each."""
        reaches = (self.brightness, self.contrast, self.saturation)
        brightness, contrast, saturation = (draw.uniform(1 - reach, 1 + reach) for reach in reaches)
        return brightness, contrast, saturation

    def __call__(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        brightness, contrast, saturation = self.parameters(draw_for(inputs, generator))
        self.mean, self.std = self.mean.to(inputs), self.std.to(inputs)  # copies at the first call only
        pixels = inputs * self.std + self.mean
        if self.brightness:
            pixels = (pixels * column(brightness, pixels)).clamp(0, 1)
        if self.contrast:
            pixels = blend(pixels, gray(pixels).mean((1, 2, 3), keepdim=True), contrast)
        if self.saturation and pixels.shape[1] == 3:
            pixels = blend(pixels, gray(pixels), saturation)
        return (pixels - self.mean) / self.std, targets


class Noise:
    """Add Gaussian noise to the inputs, pictures or tables.

        inputs ← inputs + std·z
        z standard normal, independent for every value

    Add independent Gaussian noise to every input value.

    `std` is in units of the normalised inputs (1 is the data's own standard deviation when normalize=unit).

    Use: tables and sensors; for pictures rarely the best.
    Defaults: 0.05 of the data's standard deviation when dataset.normalize=unit.
    Paper: Bishop 1995 (training with noise is Tikhonov regularization)

    Args:
        std: standard deviation in units of the normalised inputs
    """

    stage = NOISE

    def __init__(self, spec: DataSpec, std: Positive = 0.05) -> None:
        require(0 < std < math.inf, "noise.std", std, "> 0", "0.05 of the data's standard deviation is mild")
        self.std = std

    def __call__(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        noise = torch.randn(inputs.shape, generator=generator, device=inputs.device, dtype=inputs.dtype)
        return inputs.add(noise, alpha=self.std), targets


def column(values: Tensor, like: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1) of the dtype of `like`."""
    return values.to(like.dtype).view(-1, 1, 1, 1)


def blend(pixels: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """other + factor·(pixels − other), clipped to [0, 1]; exactly `pixels` where the factor is 1."""
    return (pixels + (column(factor, pixels) - 1) * (pixels - other)).clamp(0, 1)


def gray(pixels: Tensor) -> Tensor:
    """Luminance (B, 1, H, W) by ITU-R 601 for three channels, else the mean of the channels."""
    if pixels.shape[1] != 3:
        return pixels.mean(1, keepdim=True)
    red, green, blue = pixels.split(1, dim=1)
    return 0.2989 * red + 0.587 * green + 0.114 * blue


def smooth(pixels: Tensor) -> Tensor:
    """Each inner pixel as the mean of its neighbourhood with itself counted five times; the rim stays."""
    channels = pixels.shape[1]
    box = F.avg_pool2d(pixels, 3, stride=1) * 9
    inner = (box + 4 * pixels[:, :, 1:-1, 1:-1]) / 13
    result = pixels.clone()
    result[:, :channels, 1:-1, 1:-1] = inner
    return result


def posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits` (B,) of the eight of every pixel."""
    step = torch.exp2(8 - column(bits, pixels))
    return ((pixels * 255).round() / step).floor() * step / 255


def solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Invert the pixels that are at least `threshold` (B,)."""
    return torch.where(pixels >= column(threshold, pixels), 1 - pixels, pixels)


def autocontrast(pixels: Tensor) -> Tensor:
    """Stretch every channel of every picture to [0, 1]; a constant channel stays."""
    low, high = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    spread = high - low
    return torch.where(spread > 0, (pixels - low) / spread.clamp_min(1e-12), pixels)


def equalize(pixels: Tensor) -> Tensor:
    """Flatten the histogram of every channel of every picture, by Pillow's rule on 256 levels."""
    levels = (pixels * 255).round().long().flatten(0, 1).flatten(1).clamp(0, 255)  # (B·C, H·W)
    counts = torch.zeros(len(levels), 256, dtype=torch.long, device=pixels.device)
    counts.scatter_add_(1, levels, torch.ones_like(levels))
    highest = levels.amax(1, keepdim=True)
    step = (levels.shape[1] - counts.gather(1, highest)) // 255
    below = counts.cumsum(1) - counts
    table = torch.div(below + step // 2, step.clamp_min(1), rounding_mode="floor").clamp(0, 255)
    mapped = torch.where(step > 0, table.gather(1, levels), levels)
    return mapped.view_as(pixels).to(pixels.dtype) / 255
