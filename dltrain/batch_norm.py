"""The number of samples that batch norm needs in a batch, and batch sizes that provide them.

In training a channel is normalized by the mean and variance of its values in the batch, which requires at
least two values. A sample gives each channel one value after a linear layer, and H·W values after a
convolution.
"""

from __future__ import annotations

import math
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# values of a channel in a batch: a single value has no variance
VALUES = 2


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms of a model in the order of registration."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def values_per_channel(inputs: Tensor) -> int:
    """Return the number of values of each channel of inputs (B, C, ...)."""
    return inputs.numel() // max(inputs.shape[1], 1)


@torch.no_grad()
def samples_needed(model: nn.Module, inputs: Tensor) -> int:
    """Return the number of samples that the batch norms of the model need in a batch; 1 without batch norms.

    Runs one forward pass of `inputs` (B, ...) in evaluation mode, which changes nothing.
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
    """Return the size of the smallest chunk into which `torch.chunk` splits a batch."""
    size = math.ceil(samples / pieces)
    return samples % size or size


def micro_batches(samples: int, accumulate: int, needed: int) -> int:
    """Return the number of micro-batches of a batch: `accumulate`, or fewer, so that each has `needed` samples.

    The last batch of an epoch may be smaller, and its micro-batches too small for batch norm.
    """
    if needed == 1 or smallest_piece(samples, accumulate) >= needed:
        return accumulate
    return next((n for n in range(accumulate, 1, -1) if smallest_piece(samples, n) >= needed), 1)


def leaves_one(samples: int, batch_size: int) -> bool:
    """Return whether the last of several batches of this size has a single sample."""
    return batch_size > 1 and samples > batch_size and samples % batch_size == 1


def size_without_rest(samples: int, batch_size: int) -> int:
    """Return the smallest batch size >= `batch_size` that leaves no single sample for the last batch."""
    size = batch_size
    while leaves_one(samples, size):
        size += 1
    return size
