"""Erasing and mixing: cutout, mixup and cutmix."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from dltrain.augmentation.checks import picture_shape, require
from dltrain.augmentation.draws import Draw, draw_for
from dltrain.augmentation.protocols import ERASE, MIX
from dltrain.data.spec import DataSpec
from dltrain.ranges import Count, Part, Positive


class Cutout:
    """Cover a random square of each picture.

        v ← fill inside a square of size × size around a uniform pixel, cut at the border

    Cover a square around a uniformly drawn pixel (DeVries & Taylor 2017, arXiv:1708.04552).

    The square has `size` pixels a side. Parts of the square may lie outside the picture, as in the paper.
    `fill` mean covers with the training data's mean (0 after normalisation, as in the paper), black with a
    raw value of 0.

    Use: photographs, long training; after flip and crop.
    Defaults: 8 of 32 pixels; the paper takes 16 for CIFAR-10 and 8 for CIFAR-100.
    Paper: DeVries & Taylor 2017, arXiv:1708.04552

    Args:
        size: side of the square in pixels (at most the picture's shorter side)
        fill: what covers: the training data's mean (the paper's) or a raw 0
    """

    stage = ERASE

    def __init__(self, spec: DataSpec, size: Count = 8, fill: Literal["mean", "black"] = "mean") -> None:
        _, height, width = picture_shape(spec, "cutout")
        side = min(height, width)
        require(1 <= size <= side, "cutout.size", size, f"a whole number in 1..{side}", "8 suits 32 pixels")
        require(fill in ("mean", "black"), "cutout.fill", fill, "mean or black", "mean is the paper's")
        self.size = size
        self.cover = -spec.mean / spec.std if fill == "black" else torch.zeros_like(spec.mean)

    def parameters(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Top and left edge of the square (B,), negative where it begins outside."""
        top, left = draw.integers(0, draw.height - 1), draw.integers(0, draw.width - 1)
        return top - self.size // 2, left - self.size // 2

    def __call__(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        draw = draw_for(inputs, generator)
        top, left = self.parameters(draw)
        self.cover = self.cover.to(inputs)  # copies at the first call only
        covered = box(top, left, top + self.size, left + self.size, draw)
        return torch.where(covered, self.cover, inputs), targets


class Mixup:
    """Mix each sample and its target with a random partner's.

        x ← λ·x + (1 − λ)·x_partner
        y ← λ·y + (1 − λ)·y_partner
        λ from Beta(α, α) for each sample

    Mix each sample and its target with a random partner's (Zhang et al. 2018, arXiv:1710.09412; L3).

    The sample's own share lam is drawn for each sample from Beta(alpha, alpha). inputs: any shape (B, ...);
    targets: (B,) class indices or (B, C) probabilities, returned as (B, C) probabilities; with `regression`
    real (B,) or (B, K). ValueError for a regression without `regression`, since a mean of two targets need
    not be one.

    Symbols: α = alpha
    Use: pictures and tables, when training loss falls far below validation loss.
    Defaults: the paper's 0.2 for ImageNet (it takes 1 for CIFAR-10).
    Paper: Zhang et al. 2018, arXiv:1710.09412
    Lecture: L3

    Args:
        alpha: small mixes little, 1 gives any mixture
        regression: true says that the mean of two real targets makes sense
    """

    stage = MIX

    def __init__(self, spec: DataSpec, alpha: Positive = 0.2, regression: bool = False) -> None:
        require(0 < alpha < math.inf, "mixup.alpha", alpha, "> 0", "augmentation=none switches mixup off")
        refuse_task(spec, "mixup", regression)
        self.alpha, self.num_classes, self.task = alpha, spec.num_classes, spec.task

    def parameters(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """The partners' places in the batch (B,), a permutation, and each sample's own share (B,)."""
        return partners(draw), draw.beta(self.alpha)

    def __call__(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        partner, lam = self.parameters(draw_for(inputs, generator))
        share = lam.to(inputs.dtype).view(-1, *[1] * (inputs.ndim - 1))
        mixed = torch.lerp(inputs[partner], inputs, share)
        return mixed, mix_targets(targets, partner, lam, self.num_classes, self.task)


class CutMix:
    """Paste a box out of a random partner and mix the targets by area.

        box of share 1 − λ at a uniform centre
        y ← k·y + (1 − k)·y_partner, k = share of pixels kept
        λ from Beta(α, α)

    Paste a box out of a random partner and mix the targets by area (Yun et al. 2019, arXiv:1905.04899).

    The box has a share 1 − lam of the picture, lam from Beta(alpha, alpha), its centre is uniform, and it is
    cut at the border; the targets are mixed by the exact share of pixels that stayed. Each sample takes part
    with probability `p`. Targets as in `Mixup`.

    Symbols: α = alpha
    Use: photographs, long training; stronger than cutout.
    Defaults: the paper's alpha 1, on every sample.
    Paper: Yun et al. 2019, arXiv:1905.04899

    Args:
        alpha: 1 gives any size of box, small all or nothing
        p: probability that a sample takes part
        regression: true says that the mean of two real targets makes sense
    """

    stage = MIX

    def __init__(
        self, spec: DataSpec, alpha: Positive = 1.0, p: Part = 1.0, regression: bool = False
    ) -> None:
        picture_shape(spec, "cutmix")
        require(0 < alpha < math.inf, "cutmix.alpha", alpha, "> 0", "augmentation=none switches cutmix off")
        require(0 < p <= 1, "cutmix.p", p, "a probability in (0, 1]", "0.5 mixes every second picture")
        refuse_task(spec, "cutmix", regression)
        self.alpha, self.p, self.num_classes, self.task = alpha, p, spec.num_classes, spec.task

    def parameters(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """The partners' places in the batch (B,) and the boxes' edges (B, 4): top, left, bottom, right."""
        partner, size = partners(draw), (1 - draw.beta(self.alpha)).clamp_min(0).sqrt()
        size = torch.where(draw.chance(self.p), size, 0.0)
        row, column = draw.integers(0, draw.height - 1), draw.integers(0, draw.width - 1)
        tall, wide = (size * draw.height).long(), (size * draw.width).long()
        top, left = row - tall // 2, column - wide // 2
        return partner, torch.stack([top, left, top + tall, left + wide], dim=1)

    def __call__(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        draw = draw_for(inputs, generator)
        partner, edges = self.parameters(draw)
        top, left, bottom, right = edges.unbind(1)
        pasted = box(top, left, bottom, right, draw)
        kept = 1 - pasted.float().mean((1, 2, 3))
        mixed = torch.where(pasted, inputs[partner], inputs)
        return mixed, mix_targets(targets, partner, kept, self.num_classes, self.task)


def box(top: Tensor, left: Tensor, bottom: Tensor, right: Tensor, draw: Draw) -> Tensor:
    """True inside the boxes, (B, 1, H, W); the bottom and right edges are outside."""
    y, x = (torch.arange(n, device=draw.device) for n in (draw.height, draw.width))
    inside_y = (y >= top[:, None]) & (y < bottom[:, None])
    inside_x = (x >= left[:, None]) & (x < right[:, None])
    return (inside_y[:, :, None] & inside_x[:, None, :])[:, None]


def partners(draw: Draw) -> Tensor:
    """A random permutation of the batch (B,)."""
    return draw.uniform(0, 1).argsort()


def mix_targets(targets: Tensor, partner: Tensor, share: Tensor, num_classes: int, task: str) -> Tensor:
    """share·targets + (1 − share)·targets[partner], class indices as probabilities; share: (B,)."""
    if task == "classification" and targets.ndim == 1:
        one_hot = torch.zeros(len(targets), num_classes, device=targets.device)
        targets = one_hot.scatter_(1, targets[:, None], 1.0)
    share = share.to(targets.dtype).view(-1, *[1] * (targets.ndim - 1))
    return torch.lerp(targets[partner], targets, share)


def refuse_task(spec: DataSpec, word: str, regression: bool) -> None:
    """ValueError where targets cannot be mixed, or for a regression that has not asked for it."""
    if spec.task == "objective":
        raise ValueError(
            f"augmentation={word} mixes targets, but dataset=none has none; use augmentation=none"
        )
    if spec.task == "regression" and not regression:
        raise ValueError(
            f"augmentation={word} on a regression mixes the real targets, too; say that this is meant with "
            f"augmentation.{word}.regression=true, or use augmentation=none"
        )
