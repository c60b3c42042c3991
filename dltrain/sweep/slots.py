"""Where the jobs of a sweep run: some cores each, or a share of a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dltrain.sweep import pool


@dataclass
class Slot:
    """A place where one job, or one stack of jobs, at a time runs: some cores, or a share of a GPU."""

    device: str | None
    threads: int


def slots_of(settings: dict[str, Any], gpus: list[str], num_jobs: int) -> list[Slot]:
    """As many slots as `sweep.jobs` says: one for each core, or `jobs_per_gpu` for each GPU."""
    cores = pool.cores()
    automatic = len(gpus) * settings["jobs_per_gpu"] if gpus else cores
    count = max(1, min(automatic if settings["jobs"] == "auto" else settings["jobs"], num_jobs))
    threads = max(1, cores // count)
    return [Slot(gpus[i % len(gpus)] if gpus else None, threads) for i in range(count)]


def gpus_for(device: str) -> dict[str, int]:
    """The GPUs that `device` means, each with its free bytes: all of them, the one that is named, or none."""
    if not device.startswith(("auto", "cuda")):
        return {}
    found = {f"cuda:{i}": free for i, free in enumerate(pool.gpus())}
    return found if device in ("auto", "cuda") else {name: found[name] for name in found if device == name}
