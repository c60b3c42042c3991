"""Copies of a state that stay as they are while training continues."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dltrain.devices import is_asynchronous, streams_of


class Snapshot:
    """Copies of nested plain data with its tensors on the CPU, each copy in the memory of the one before.

    A thread may read it while training continues. Fresh memory would cost six times the copy, at every checkpoint.
    """

    def __init__(self) -> None:
        self._former: list[Tensor] = []

    def of(self, value: Any) -> Any:
        """Return a copy, valid until the next one."""
        originals: list[Tensor] = []
        copies: list[Tensor] = []
        copy = self._laid_out(value, originals, copies)
        for to, tensor in zip(copies, originals, strict=True):
            to.copy_(tensor, non_blocking=True)
        for device in {tensor.device for tensor in originals if is_asynchronous(tensor.device)}:
            streams_of(device).current_stream(device).synchronize()
        self._former = copies
        return copy

    def _laid_out(self, value: Any, originals: list[Tensor], copies: list[Tensor]) -> Any:
        if isinstance(value, Tensor):
            originals.append(value.detach())
            copies.append(self._room(value.detach(), len(copies)))
            return copies[-1]
        if isinstance(value, dict):
            return {key: self._laid_out(item, originals, copies) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._laid_out(item, originals, copies) for item in value)
        return value

    def _room(self, tensor: Tensor, position: int) -> Tensor:
        former = self._former[position] if position < len(self._former) else None
        if former is not None and (former.dtype, former.shape, former.stride()) == (
            tensor.dtype,
            tensor.shape,
            tensor.stride(),
        ):
            return former
        return torch.empty_like(tensor, device="cpu", pin_memory=is_asynchronous(tensor.device))
