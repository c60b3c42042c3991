"""Check before anything runs that the jobs that share a GPU fit into its memory."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dltrain.config.door import Rights
from dltrain.config.schema import Config
from dltrain.errors import UserError
from dltrain.screen.numbers import in_bytes
from dltrain.sweep.backends import pool
from dltrain.sweep.backends.slots import Slot

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from torch import Tensor

CONTEXT = 400 * 2**20  # bytes that a process takes for CUDA itself and its libraries before the first tensor
# What changes nothing in the memory that a job needs.
WITHOUT_WEIGHT = frozenset(
    "lr seed epochs steps shuffle schedule momentum_schedule penalty_schedule initializer early_stopping logger name tags notes "
    "output threads quiet trust log checkpoint evaluation".split()
)


def check_memory(slots: list[Slot], free: int, configs: Iterable[Config], rights: Rights) -> None:
    """Raise UserError where the jobs of one GPU need more than the `free` bytes of the fullest GPU.

    What a job needs is a lower bound, measured on the CPU: CUDA's own, the data where they are resident, weights,
    gradients, the optimizer's state, and what autograd keeps of one batch. A job that fits by this bound and runs out of
    memory all the same is run once more, alone.
    """
    together = max(Counter(slot.device for slot in slots if slot.device is not None).values(), default=1)
    if together == 1:
        return
    distinct = {json.dumps(weighty(config), sort_keys=True, default=str): config for config in configs}
    needed = largest_need(list(distinct.values()), rights)
    fitting = free // needed
    if fitting < together:
        raise UserError(
            f"{together} jobs at a time on one GPU need at least {in_bytes(together * needed)} of its memory "
            f"({in_bytes(needed)} each), and {in_bytes(free)} are free. "
            + (
                f"Use sweep.jobs_per_gpu={fitting}"
                if fitting > 0
                else "Not even one fits: use a smaller model"
            )
            + ", or a smaller batch_size."
        )


def weighty(config: Config) -> dict[str, object]:
    """Return the keys on which a job's memory depends."""
    return {key: value for key, value in config.plain.items() if key not in WITHOUT_WEIGHT}


def largest_need(configs: list[Config], rights: Rights) -> int:
    """Return the bytes that the largest of some jobs needs at least; a child is asked, so that the driver needs no torch."""
    worker = pool.start(measure_all, configs, rights, os.getcwd())
    needed = CONTEXT
    with suppress(EOFError):  # a job that cannot be built reports it when it runs
        needed = worker.channel.recv()
    worker.end()
    return needed


def measure_all(configs: list[Config], rights: Rights, cwd: str, channel: Connection) -> None:
    os.chdir(cwd)
    needs = [CONTEXT]
    for config in configs:
        with suppress(Exception):
            needs.append(CONTEXT + measure(config, rights))
    channel.send(max(needs))
    os._exit(0)


def measure(config: Config, rights: Rights) -> int:
    """Return the bytes of a job's tensors in one training step, at least: the model is built here, on the CPU."""
    import torch

    from dltrain.data.batches import ResidentSplit
    from dltrain.run.build import build
    from dltrain.run.tuning import CANDIDATES, bytes_per_sample, with_values

    size = None if config.batch_size == "auto" else config.batch_size  # auto takes what is free
    lr = CANDIDATES[0] if config.lr == "auto" else config.lr
    config = with_values(config, device="cpu", lr=lr, batch_size=size)
    parts, plan = build(config, rights.door(config.trust))
    share = 1.0 if config.precision == "fp32" else 0.5  # auto may be bf16 on the GPU
    activations = share * bytes_per_sample(parts) * plan.batch_size / plan.accumulate
    splits = [split for split in (parts.train, parts.val) if isinstance(split, ResidentSplit)]
    data = sum(tensor_bytes([split.inputs, split.targets]) for split in splits)
    weights = [p for p in parts.model.parameters() if p.requires_grad]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer: Any = parts.optimizer
    with suppress(Exception):  # one that needs a closure: its state is not counted
        optimizer.step()
    state = sum(
        tensor_bytes(v for v in kept.values() if isinstance(v, torch.Tensor))
        for kept in optimizer.state.values()
    )
    return int(activations) + data + 2 * tensor_bytes(weights) + state


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
