"""Slots: where the jobs of a sweep run, some cores each or a share of a GPU."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dltrain import processors
from dltrain.config import saved
from dltrain.config.catalogue import Catalogue
from dltrain.config.schema import Config
from dltrain.sweep.backends import pool
from dltrain.sweep.jobs import has_checkpoint


@dataclass
class Slot:
    """A place where one job, or one stack of jobs, at a time runs: some cores, or a share of a GPU."""

    device: str | None
    threads: int


def num_slots(settings: dict[str, Any], num_gpus: int, num_jobs: int) -> int:
    """Return `sweep.jobs`: by default one job for each core, or `jobs_per_gpu` for each GPU."""
    automatic = num_gpus * settings["jobs_per_gpu"] if num_gpus else processors.cores()
    return max(1, min(automatic if settings["jobs"] == "auto" else settings["jobs"], num_jobs))


def slots_of(count: int, gpus: list[str]) -> list[Slot]:
    """Share the cores and GPUs among `count` slots."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    most = int(asked) if asked.isdecimal() else processors.cores()
    threads = max(1, min(processors.cores() // count, most))
    return [Slot(gpus[i % len(gpus)] if gpus else None, threads) for i in range(count)]


def gpus_for(device: str) -> dict[str, int]:
    """Return the GPUs that `device` means, each with its free bytes: all of them, the one that is named, or none."""
    if not device.startswith(("auto", "cuda")):
        return {}
    found = {f"cuda:{i}": free for i, free in enumerate(pool.gpus())}
    return found if device in ("auto", "cuda") else {name: found[name] for name in found if device == name}


def placed(config: Config, slot: Slot, folder: Path, catalogue: Catalogue) -> Config:
    """Return a configuration with the slot's device and threads, where the user left them open.

    A job that continues from a checkpoint keeps its former ones: with others it would be another run.
    """
    had = saved.placement(folder, catalogue) if has_checkpoint(folder) else {}
    changes: dict[str, Any] = {}
    if config.threads is None:
        changes["threads"] = had.get("threads") or slot.threads
    if slot.device is not None:
        changes["device"] = had.get("device") or slot.device
    return replace(config, **changes, plain={**config.plain, **changes}) if changes else config
