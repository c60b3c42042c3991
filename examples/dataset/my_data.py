"""Datasets of a user's own: what torch code already has."""

from __future__ import annotations

import torch
from torch.utils.data import Dataset, TensorDataset


def parity(count: int = 400) -> TensorDataset:
    """Bits of the numbers below `count`; the class is whether the number is odd.

    Args:
        count: number of samples
    """
    numbers = torch.arange(count)
    bits = (numbers[:, None] >> torch.arange(9)) % 2
    return TensorDataset(bits.float(), numbers % 2)


class Waves(Dataset):
    """Sines of a random frequency, which is to be predicted.

    Args:
        count: number of samples
    """

    def __init__(self, count: int = 300) -> None:
        generator = torch.Generator().manual_seed(0)
        self.frequencies = 1 + torch.rand(count, generator=generator)
        self.time = torch.linspace(0, 3, 32)

    def __len__(self) -> int:
        return len(self.frequencies)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, float]:
        return (self.frequencies[i] * self.time).sin(), float(self.frequencies[i])


def split_by_hand() -> tuple[Dataset, Dataset]:
    """Return a training set and a test set."""
    return parity(300), parity(500)
