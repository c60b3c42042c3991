"""Samples for which predictions are wanted, in memory or decoded from image files batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dltrain.data.contract import Contract
from dltrain.data.errors import BrokenSamples, DataError
from dltrain.data.image_files import ImageFiles
from dltrain.data.pixels import COLORS, Form
from dltrain.processors import cores
from dltrain.run.table import Array

_DECODED_AT_ONCE = 64


@dataclass(frozen=True)
class Broken:
    """A sample that cannot be predicted: its row from 1, or its file, and why. line: ` (line 4)`, where a row begins in its file."""

    where: int | str
    reason: str
    line: str = ""


class Samples(Protocol):
    """Samples (N, …), not normalized, with what names them: rows counted from 1, or files.

    broken: those that were left out; complete once all batches are read. notes: what was filled, unknown or not used.
    """

    notes: tuple[str, ...]
    broken: list[Broken]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Array]]:
        """Yield samples (B, …) with their rows or files (B,). Raises DataError for a broken one unless it may be left out."""
        ...


class InMemory:
    """Samples in one tensor."""

    def __init__(
        self,
        inputs: Tensor,
        where: Array | None = None,
        notes: tuple[str, ...] = (),
        broken: Sequence[Broken] = (),
    ) -> None:
        self.inputs, self.notes, self.broken = inputs, notes, list(broken)
        self.where = np.arange(1, len(inputs) + 1) if where is None else where

    def batches(self, size: int) -> Iterator[tuple[Tensor, Array]]:
        """See `Samples.batches`."""
        for first in range(0, len(self.inputs), size):
            yield self.inputs[first : first + size], self.where[first : first + size]


class Pictures:
    """Image files, decoded batch by batch."""

    def __init__(
        self, files: Sequence[str], contract: Contract, notes: tuple[str, ...], tolerant: bool
    ) -> None:
        channels, height, width = contract.input_shape
        color = next((name for name, count in COLORS.items() if count == channels), None)
        if color is None:
            raise DataError(
                f"the model takes images of {channels} channels, and image files have 1 or 3; give an .npz file"
            )
        rule = f"the model takes images {width} wide and {height} high; crop or scale it"
        self.reader = ImageFiles(
            "", files, Form(height, width, color, contract.resize, contract.full_scale), rule
        )
        self.files, self.notes, self.tolerant = files, notes, tolerant
        self.broken: list[Broken] = []

    def batches(self, size: int) -> Iterator[tuple[Tensor, Array]]:
        """See `Samples.batches`."""
        with ThreadPoolExecutor(cores()) as pool:
            for positions in torch.arange(len(self.files)).split(size):
                parts = list(pool.map(self._decoded, positions.split(_DECODED_AT_ONCE)))
                names = [self.files[i] for _, kept in parts for i in kept]
                if names:
                    yield torch.cat([images for images, _ in parts]), np.array(names, object)

    def _decoded(self, positions: Tensor) -> tuple[Tensor, list[int]]:
        """Return the images that can be read, and their positions."""
        images, kept = [torch.empty(0, *self.reader.shape, dtype=torch.uint8)], []
        for position in positions.split(1):
            try:
                images.append(self.reader.read(position))
                kept.append(int(position))
            except BrokenSamples as error:
                if not self.tolerant:
                    raise
                self.broken += [
                    Broken(file, f"cannot use it ({reason}); {error.cure}") for file, reason in error.broken
                ]
        return torch.cat(images), kept
