"""The forward pass that training, validation and scoring share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.weight_layers import last_layer


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


def keep_head_in_float32(model: nn.Module) -> None:
    """Make the last weight layer compute in float32 under autocast: bf16 would round quantities to three digits."""
    last = last_layer(model)
    if last is not None:
        head = last.module
        # a subclass, not a hook or a closure: copies of the model compute with their own weights
        head.__class__ = type(type(head).__name__, (_InFloat32, type(head)), {})


class _InFloat32(nn.Module):
    def forward(self, *inputs: Any) -> Any:
        kind = next(self.parameters()).device.type
        if not torch.is_autocast_enabled(kind):
            return super().forward(*inputs)
        with torch.autocast(kind, enabled=False):
            return super().forward(*(each.float() if _is_half(each) else each for each in inputs))


def _is_half(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype is torch.bfloat16
