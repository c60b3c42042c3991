"""Tensors in files and in nested plain data, as in the state of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file. Raises SafetensorError for a damaged one, OSError."""
    from safetensors.torch import load, load_file

    try:
        str(file).encode()
    except UnicodeEncodeError:
        # the library takes paths as text only
        return load(file.read_bytes())
    return load_file(file)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of nested plain data."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(inner)


def is_dense(tensor: Tensor) -> bool:
    """Return whether each number has its own place in memory, without gaps, in whatever order of the axes.

    Kernels that take a tensor for a block of memory would read and write behind the end of any other.
    """
    if tensor.layout is not torch.strided:
        return False
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n != 1):
        if tensor.numel() and stride != expected:
            return False
        expected *= size
    return True


def num_bytes(value: Any) -> int:
    """Return the bytes of all tensors in nested plain data."""
    return sum(tensor.nbytes for tensor in tensors_in(value))
