"""Batch norm: how many samples it needs in a batch, and the batches that give them to it.

In training a channel is normalized by the mean and variance of its values in the batch, which takes two values at
least. A sample gives a channel as many values as its map has places: one behind a linear layer, H·W in a convolution.
"""

from __future__ import annotations

import math
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

VALUES = 2  # of a channel in a batch: one value has no variance


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms of a model in the order of registration."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def values_per_channel(inputs: Tensor) -> int:
    """Return how many values each channel of the inputs (B, C, ...) of a batch norm has."""
    return inputs.numel() // max(inputs.shape[1], 1)


@torch.no_grad()
def samples_needed(model: nn.Module, inputs: Tensor) -> int:
    """Return how many samples a batch must have for every batch norm of the model; 1 for a model without any.

    One forward pass of `inputs` (B, ...) in evaluation mode, which changes nothing.
    """
    norms = batch_norms(model)
    if not norms:
        return 1
    fewest: list[int] = []
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with ExitStack() as hooks:
            for norm in norms:
                handle = norm.register_forward_pre_hook(
                    lambda _, args: fewest.append(values_per_channel(args[0]))
                )
                hooks.callback(handle.remove)
            model(inputs)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return math.ceil(VALUES * len(inputs) / max(min(fewest, default=VALUES), 1))


def smallest_piece(samples: int, pieces: int) -> int:
    """Return the size of the smallest part that `torch.chunk` makes of a batch."""
    size = math.ceil(samples / pieces)
    return samples % size or size


def micro_batches(samples: int, accumulate: int, needed: int) -> int:
    """Return into how many parts a batch is cut: `accumulate`, or as many as leave `needed` samples in each.

    The last batch of an epoch is smaller than the others, so that as many parts may be too small for batch norm.
    """
    if needed == 1 or smallest_piece(samples, accumulate) >= needed:
        return accumulate
    return next((n for n in range(accumulate, 1, -1) if smallest_piece(samples, n) >= needed), 1)


def leaves_one(samples: int, batch_size: int) -> bool:
    """Whether batches of this size leave a last one with a single sample, besides others."""
    return batch_size > 1 and samples > batch_size and samples % batch_size == 1


def size_without_rest(samples: int, batch_size: int) -> int:
    """Return the smallest batch size from `batch_size` on that leaves no single sample for the last batch."""
    size = batch_size
    while leaves_one(samples, size):
        size += 1
    return size
