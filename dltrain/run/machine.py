"""The machine of a run: device, precision, threads and memory."""

from __future__ import annotations

import ctypes
from contextlib import suppress

import torch

from dltrain import processors
from dltrain.config.schema import Config
from dltrain.errors import UserError

# floating-point operations of a step below which a second thread gains at most 1.2 to 1.3 times on a quiet machine, and
# costs several times as much beside other work (docs/speed.md)
SMALL_STEP = 4e7


def set_machine(config: Config) -> None:
    """Set the process-wide switches: memory, threads, determinism."""
    keep_freed_memory()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if (
        config.deterministic != torch.are_deterministic_algorithms_enabled()
    ):  # the call imports torch._dynamo: 1 to 5 s
        torch.use_deterministic_algorithms(config.deterministic)
    torch.set_float32_matmul_precision("high" if config.precision != "fp32" else "highest")


def keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next step: 1.2 times the speed of a small CNN on a CPU.

    By default every activation above 128 kB is mapped from the system again, page fault by page fault.
    """
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
            libc.mallopt(option, 1 << 30)


def choose_device(asked: str) -> torch.device:
    """Return the device of a name; `auto` is the GPU if there is one. Raises UserError for one that does not exist."""
    fastest = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(fastest if asked == "auto" else asked)
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    count = there.get(device.type, 0)
    if (device.index or 0) >= count:
        devices = ", ".join(["cpu"] + [f"cuda:{i}" for i in range(there["cuda"])] + ["mps"] * there["mps"])
        raise UserError(
            f"`device` is {asked}, which this machine does not have. There is: {devices}. Or leave it: device=auto"
        )
    return torch.device(device.type, device.index or 0) if device.type == "cuda" else device


def choose_precision(asked: str, device: torch.device) -> str:
    """Return the precision; `auto` is bf16 on a GPU that has it, else fp32."""
    if asked != "auto":
        return asked
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def choose_threads(config: Config, device: torch.device, flops: float) -> None:
    """Set the CPU threads for steps of `flops` operations: `threads`, or one for small steps, else as many as torch chose.

    torch takes as many as there are cores, or OMP_NUM_THREADS.
    """
    if config.threads is None and device.type == "cpu" and flops < SMALL_STEP:
        torch.set_num_threads(1)


def slow_choices(device: torch.device, precision: str) -> tuple[str, ...]:
    """Return a line for each choice that is slow on this machine."""
    if device.type == "cpu" and precision == "bf16" and processors.lacks_bf16(processors.processor_flags()):
        return (
            "slow: precision=bf16 on a processor without bf16 units; precision=fp32 is up to 17 times faster",
        )
    return ()
