"""All augmentations of a run as one call, in the order of their stages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from dltrain.augmentation.geometric import Fused, Geometric
from dltrain.augmentation.protocols import COLOR, BatchTransform


class Augmentation:
    """Apply `transforms` in the order geometry, color, noise, erasing, mixing.

    Transforms of the same stage are applied in the given order. Adjacent geometric transforms are fused into one
    resampling. All random numbers come from the generator of the call, so the same generator state gives the same batch.
    """

    def __init__(self, transforms: Sequence[BatchTransform] = ()) -> None:
        self.transforms = list(transforms)
        ordered = sorted(transforms, key=lambda transform: getattr(transform, "stage", COLOR))
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
    """Fuse each run of transforms that fill the outside of the picture alike into one resampling."""
    runs: list[list[Geometric]] = []
    border = None
    for transform in transforms:
        if not runs or (border and transform.border and (border, transform.border) != ("fill", "fill")):
            runs.append([])
            border = None
        runs[-1].append(transform)
        border = border or transform.border
    return [Fused(run) for run in runs]
