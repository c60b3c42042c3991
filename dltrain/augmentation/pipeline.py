"""All augmentations of a run, in their fixed order, as one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from dltrain.augmentation.geometric import Fused, Geometric
from dltrain.augmentation.protocols import COLOUR, BatchTransform


class Augmentation:
    """Apply `transforms` in the fixed order geometry, colour, noise, erasing, mixing.

    Within a stage the given order counts. Neighbouring geometric transforms become one resampling. All draws
    are (B,)-shaped and come from the generator of the call alone, in the order of the stages; the same
    generator state gives the same batch. An empty list of transforms changes nothing and draws nothing.
    """

    def __init__(self, transforms: Sequence[BatchTransform] = ()) -> None:
        self.transforms = list(transforms)
        ordered = sorted(transforms, key=lambda transform: getattr(transform, "stage", COLOUR))
        geometric = [transform for transform in ordered if isinstance(transform, Geometric)]
        self.fused = fuse(geometric)
        self.others = [transform for transform in ordered if not isinstance(transform, Geometric)]

    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        generator: torch.Generator,
        indices: Tensor | None = None,
        epoch: int = 0,
    ) -> tuple[Tensor, Tensor]:
        for step in self.fused:
            inputs, targets = step(inputs, targets, generator, indices, epoch)
        for transform in self.others:
            inputs, targets = transform(inputs, targets, generator)
        return inputs, targets


def fuse(transforms: Iterable[Geometric]) -> list[Fused]:
    """Runs of transforms that agree about what lies outside the picture, each as one resampling."""
    runs: list[list[Geometric]] = []
    border = None
    for transform in transforms:
        if not runs or (border and transform.border and (border, transform.border) != ("fill", "fill")):
            runs.append([])
            border = None
        runs[-1].append(transform)
        border = border or transform.border
    return [Fused(run) for run in runs]
