"""The forward pass that training, validation and scoring share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return the context of a precision: autocast to bf16, or one that does nothing for fp32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


class Forward:
    """A model in its precision: inputs (B, ...) → outputs (B, K) in float32 or wider."""

    def __init__(self, model: Callable[[Tensor], Tensor], device: torch.device, precision: str) -> None:
        self.model = model
        self.autocast = autocast(device, precision)

    def __call__(self, inputs: Tensor) -> Tensor:
        with self.autocast:
            outputs = self.model(inputs)
        return outputs.float() if outputs.dtype is torch.bfloat16 else outputs
