"""Properties of devices: whether they are asynchronous, and their streams."""

from __future__ import annotations

from typing import Any

import torch


def is_asynchronous(device: torch.device) -> bool:
    """Return whether the host runs ahead of the device and waits only where it reads: CUDA and devices like it."""
    return device.type not in ("cpu", "mps")


def streams_of(device: torch.device) -> Any:
    """Return the module with the streams of an asynchronous device, such as `torch.cuda`."""
    return torch.get_device_module(device)
