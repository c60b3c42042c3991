"""Erase and mix samples: cutout, mixup and cutmix."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dltrain.augmentation.checks import picture_shape, require
from dltrain.augmentation.draws import Draw, draw_for
from dltrain.augmentation.protocols import ERASE, MIX
from dltrain.data.spec import DataSpec
from dltrain.ranges import Count, Part, Positive


class Cutout:
    """Cutout: cover a random square of each picture.

        v ← fill inside a square of size × size pixels around a uniform pixel

    Parts of the square may lie outside the picture, as in the paper.

    Symbols: v pixel
    Use: photographs, long training; with flip and crop.
    Defaults: 8 of 32 pixels; the paper uses 16 for CIFAR-10 and 8 for CIFAR-100.
    Paper: DeVries & Taylor 2017, arXiv:1708.04552

    Args:
        size: side of the square in pixels, at most the picture's shorter side
        fill: the training data's mean, as in the paper and whatever dataset.normalize is, or black: a raw value of 0, or the
            lowest of images that go below
    """

    needs = frozenset({"images"})

    stage = ERASE

    def __init__(self, spec: DataSpec, size: Count = 8, fill: Literal["mean", "black"] = "mean") -> None:
        _, height, width = picture_shape(spec, "cutout")
        side = min(height, width)
        require(size <= side, "cutout.size", size, f"<= {side}, the shorter side", "8 suits 32 pixels")
        self.size = size
        self.cover = spec.black if fill == "black" else spec.mean_pixel

    def parameters(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Draw the top and left edges of the squares, (B,) each; negative if outside the picture."""
        top, left = draw.integers(0, draw.height - 1), draw.integers(0, draw.width - 1)
        return top - self.size // 2, left - self.size // 2

    def __call__(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        draw = draw_for(inputs, generator)
        top, left = self.parameters(draw)
        # copies at the first call only
        self.cover = self.cover.to(inputs)
        covered = box(top, left, top + self.size, left + self.size, draw)
        return torch.where(covered, self.cover, inputs), targets


class Mixup:
    """Mixup: average each sample and its target with those of a random partner.

        x ← λ·x + (1 − λ)·x_partner
        y ← λ·y + (1 − λ)·y_partner
        λ ~ Beta(α, α) for each sample

    Inputs have any shape (B, ...). Class indices (B,) become probabilities (B, C); the targets of a regression, (B,) or
    (B, K), are mixed only with `regression`, else ValueError is raised.

    Symbols: α = alpha
    Use: pictures and tables, when the training loss falls far below the validation loss.
    Defaults: the paper's 0.2 for ImageNet (1 for CIFAR-10).
    Paper: Zhang et al. 2018, arXiv:1710.09412
    Lecture: L3

    Args:
        alpha: a small value mixes little, 1 draws λ uniformly
        regression: true allows mixing the real targets of a regression
    """

    stage = MIX

    def __init__(self, spec: DataSpec, alpha: Positive = 0.2, regression: bool = False) -> None:
        refuse_task(spec, "mixup", regression)
        self.alpha, self.num_classes, self.task = alpha, spec.num_classes, spec.task

    def parameters(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Draw the partners' positions in the batch (B,), a permutation, and λ (B,)."""
        return partners(draw), draw.beta(self.alpha)

    def __call__(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        partner, lam = self.parameters(draw_for(inputs, generator))
        share = lam.to(inputs.dtype).view(-1, *[1] * (inputs.ndim - 1))
        mixed = torch.lerp(inputs[partner], inputs, share)
        return mixed, mix_targets(targets, partner, lam, self.num_classes, self.task)


class CutMix:
    """CutMix: paste a box from a random partner into each picture and mix the targets by area.

        v ← v_partner inside a box of H·√(1 − λ) × W·√(1 − λ) pixels around a uniform pixel
        y ← k·y + (1 − k)·y_partner
        λ ~ Beta(α, α) for each sample

    The box is cut at the border of the picture. Shapes and types of targets are as in Mixup.

    Symbols: α = alpha; k = fraction of pixels outside the box
    Use: photographs, long training; stronger than cutout.
    Defaults: the paper's alpha of 1, for every sample.
    Paper: Yun et al. 2019, arXiv:1905.04899

    Args:
        alpha: 1 draws λ uniformly, a small value nearly 0 or 1
        p: probability to change a sample
        regression: true allows mixing the real targets of a regression
    """

    needs = frozenset({"images"})

    stage = MIX

    def __init__(
        self, spec: DataSpec, alpha: Positive = 1.0, p: Part = 1.0, regression: bool = False
    ) -> None:
        picture_shape(spec, "cutmix")
        refuse_task(spec, "cutmix", regression)
        self.alpha, self.p, self.num_classes, self.task = alpha, p, spec.num_classes, spec.task

    def parameters(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Draw the partners' positions in the batch (B,) and the boxes' edges (B, 4): top, left, bottom, right."""
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
    """Return a mask (B, 1, H, W), True inside the boxes; the bottom and right edges are outside."""
    y, x = (torch.arange(n, device=draw.device) for n in (draw.height, draw.width))
    inside_y = (y >= top[:, None]) & (y < bottom[:, None])
    inside_x = (x >= left[:, None]) & (x < right[:, None])
    return (inside_y[:, :, None] & inside_x[:, None, :])[:, None]


def partners(draw: Draw) -> Tensor:
    """Draw a random permutation of the batch (B,)."""
    return draw.uniform(0, 1).argsort()


def mix_targets(targets: Tensor, partner: Tensor, share: Tensor, num_classes: int, task: str) -> Tensor:
    """Return share·targets + (1 − share)·targets[partner], with class indices as probabilities; share: (B,)."""
    if task == "classification" and targets.ndim == 1:
        one_hot = torch.zeros(len(targets), num_classes, device=targets.device)
        targets = one_hot.scatter_(1, targets[:, None], 1.0)
    share = share.to(targets.dtype).view(-1, *[1] * (targets.ndim - 1))
    return torch.lerp(targets[partner], targets, share)


def refuse_task(spec: DataSpec, word: str, regression: bool) -> None:
    """Raise ValueError if targets cannot be mixed, or for a regression without `regression`."""
    if spec.task == "objective":
        raise ValueError(
            f"augmentation={word} mixes targets, but dataset=none has none; use augmentation=none"
        )
    if spec.task == "regression" and not regression:
        raise ValueError(
            f"augmentation={word} on a regression mixes the real targets, too; say that this is meant with "
            f"augmentation.{word}.regression=true, or use augmentation=none"
        )
