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


def slots_of(settings: dict[str, Any], num_gpus: int, num_jobs: int) -> list[Slot]:
    """As many slots as `sweep.jobs` says: one for each core, or `jobs_per_gpu` for each GPU."""
    cores = pool.cores()
    automatic = num_gpus * settings["jobs_per_gpu"] if num_gpus else cores
    count = max(1, min(automatic if settings["jobs"] == "auto" else settings["jobs"], num_jobs))
    threads = max(1, cores // count)
    return [Slot(f"cuda:{i % num_gpus}" if num_gpus else None, threads) for i in range(count)]
