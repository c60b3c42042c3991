"""Changes of color, as torchvision defines them, on raw pixels in [0, 1]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dltrain.augmentation.checks import check_brightness, picture_shape
from dltrain.augmentation.draws import Draw, draw_for
from dltrain.augmentation.protocols import COLOR, NOISE
from dltrain.data.spec import DataSpec
from dltrain.declare import Unused
from dltrain.ranges import Positive, Share
from dltrain.text import counted


class Color:
    """Change the brightness, the contrast and the saturation of each picture, in this order.

        v ← clip(o + f·(v − o), 0, 1)
        f uniform in [1 − a, 1 + a]

    The factors f are those of torchvision's adjust_brightness, adjust_contrast and adjust_saturation. The saturation
    changes only in pictures of three channels.

    Symbols: v raw pixel in [0, 1]; (a, o) = (brightness, 0), then (contrast, mean gray of the picture), then
        (saturation, gray of the pixel)
    Use: photographs under different light.
    Defaults: 0.2 each, mild.

    Args:
        brightness: largest change of the brightness; 0 disables it
        contrast: largest change of the contrast; 0 disables it
        saturation: largest change of the saturation, in pictures of three channels only; 0 disables it
    """

    needs = frozenset({"images"})

    stage = COLOR

    def __init__(
        self, spec: DataSpec, brightness: Share = 0.2, contrast: Share = 0.2, saturation: Share = 0.2
    ) -> None:
        picture_shape(spec, "color")
        check_brightness(spec, "color")
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation
        self.mean, self.std = spec.mean, spec.std
        self._channels = spec.input_shape[0]

    def unused_keys(self) -> dict[str, Unused]:
        """Return `saturation` where the pictures have no three channels."""
        if not self.saturation or self._channels == 3:
            return {}
        return {
            "saturation": Unused(f"the images have {counted(self._channels, 'channel')}, and it needs three")
        }

    def parameters(self, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """Draw the factors of brightness, contrast and saturation, (B,) each."""
        reaches = (self.brightness, self.contrast, self.saturation)
        brightness, contrast, saturation = (draw.uniform(1 - reach, 1 + reach) for reach in reaches)
        return brightness, contrast, saturation

    def __call__(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        brightness, contrast, saturation = self.parameters(draw_for(inputs, generator))
        # copies at the first call only
        self.mean, self.std = self.mean.to(inputs), self.std.to(inputs)
        pixels = inputs * self.std + self.mean
        if self.brightness:
            pixels = (pixels * column(brightness, pixels)).clamp(0, 1)
        if self.contrast:
            pixels = blend(pixels, gray(pixels).mean((1, 2, 3), keepdim=True), contrast)
        if self.saturation and pixels.shape[1] == 3:
            pixels = blend(pixels, gray(pixels), saturation)
        return (pixels - self.mean) / self.std, targets


class Noise:
    """Add independent Gaussian noise to every input value of pictures or tables.

        x ← x + std·z

    Symbols: z standard normal
    Use: tables and sensors; rarely the best choice for pictures.
    Defaults: 0.05 standard deviations of the data where dataset.normalize=unit.
    Paper: Bishop 1995 (training with noise is Tikhonov regularization)

    Args:
        std: standard deviation in units of the normalized inputs
    """

    stage = NOISE

    def __init__(self, spec: DataSpec, std: Positive = 0.05) -> None:
        self.std = std

    def __call__(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        noise = torch.randn(inputs.shape, generator=generator, device=inputs.device, dtype=inputs.dtype)
        return inputs.add(noise, alpha=self.std), targets


def column(values: Tensor, like: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, 1, 1), of the dtype of `like`."""
    return values.to(like.dtype).view(-1, 1, 1, 1)


def blend(pixels: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Return other + factor·(pixels − other), clipped to [0, 1]; exactly `pixels` where the factor is 1."""
    return (pixels + (column(factor, pixels) - 1) * (pixels - other)).clamp(0, 1)


def gray(pixels: Tensor) -> Tensor:
    """Return the luminance (B, 1, H, W) by ITU-R 601 for three channels, else the mean of the channels."""
    if pixels.shape[1] != 3:
        return pixels.mean(1, keepdim=True)
    red, green, blue = pixels.split(1, dim=1)
    return 0.2989 * red + 0.587 * green + 0.114 * blue


def smooth(pixels: Tensor) -> Tensor:
    """Average each inner pixel, with weight 5, and its eight neighbors; border pixels stay as they are."""
    channels = pixels.shape[1]
    box = F.avg_pool2d(pixels, 3, stride=1) * 9
    inner = (box + 4 * pixels[:, :, 1:-1, 1:-1]) / 13
    result = pixels.clone()
    result[:, :channels, 1:-1, 1:-1] = inner
    return result


def posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits` (B,) of the eight bits of every pixel."""
    step = torch.exp2(8 - column(bits, pixels))
    return ((pixels * 255).round() / step).floor() * step / 255


def solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Invert the pixels that are at least `threshold` (B,)."""
    return torch.where(pixels >= column(threshold, pixels), 1 - pixels, pixels)


def autocontrast(pixels: Tensor) -> Tensor:
    """Stretch every channel of every picture to [0, 1]; a constant channel stays as it is."""
    low, high = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    spread = high - low
    return torch.where(spread > 0, (pixels - low) / spread.clamp_min(1e-12), pixels)


def equalize(pixels: Tensor) -> Tensor:
    """Flatten the histogram of every channel of every picture, by Pillow's rule on 256 levels."""
    # (B·C, H·W)
    levels = (pixels * 255).round().long().flatten(0, 1).flatten(1).clamp(0, 255)
    counts = torch.zeros(len(levels), 256, dtype=torch.long, device=pixels.device)
    counts.scatter_add_(1, levels, torch.ones_like(levels))
    highest = levels.amax(1, keepdim=True)
    step = (levels.shape[1] - counts.gather(1, highest)) // 255
    below = counts.cumsum(1) - counts
    table = torch.div(below + step // 2, step.clamp_min(1), rounding_mode="floor").clamp(0, 255)
    mapped = torch.where(step > 0, table.gather(1, levels), levels)
    return mapped.view_as(pixels).to(pixels.dtype) / 255
