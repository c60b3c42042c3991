"""Properties of the processors: how many this process may use, and their instructions."""

from __future__ import annotations

import os
from contextlib import suppress


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_flags() -> frozenset[str]:
    """Return the instruction sets of the first processor; empty where the system does not list them."""
    with suppress(OSError), open("/proc/cpuinfo") as lines:
        return next((frozenset(line.split()) for line in lines if line.startswith("flags")), frozenset())
    return frozenset()


def lacks_bf16(flags: frozenset[str]) -> bool:
    """Return whether an x86 processor with these flags has no instructions for bf16."""
    return bool(flags) and not flags & {"avx512_bf16", "amx_bf16", "avx_ne_convert"}
