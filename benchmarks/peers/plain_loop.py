"""The yardstick: the loop that one writes by hand, without logging, bar or checkpoint."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from peers.problem import LR, Data, Laps, Outcome, Task, accuracy, load, model_for, shuffled, tensor_batches


def fit(task: Task, tuned: bool) -> Outcome:
    """Indexed float tensors, fused Adam. Tuned: index_select, channels_last, and glibc keeps freed memory."""
    if tuned:
        keep_freed_memory()
    data = load(task)
    fast, val = tensor_batches(task, data)
    model = model_for(task, channels_last=tuned)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    laps = Laps(task.device)
    for _ in range(task.epochs):
        laps.epoch_begins()
        model.train()
        for inputs, targets in fast if tuned else indexed(task, data):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        laps.validation_begins()
        validate(model, val)
    laps.end()
    return Outcome(laps.after_the_first(), accuracy(model, data), torch.__version__)


def indexed(task: Task, data: Data) -> Iterable[tuple[Tensor, Tensor]]:
    """Batches as one takes them by hand."""
    for chosen in shuffled(len(data.train_targets), task.batch_size, data.train_targets.device):
        yield data.train_inputs[chosen], data.train_targets[chosen]


@torch.no_grad()
def validate(model: torch.nn.Module, val: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Return the sums of losses and of hits."""
    model.eval()
    loss = hits = 0.0
    for inputs, targets in val:
        logits = model(inputs)
        loss += float(F.cross_entropy(logits, targets, reduction="sum"))
        hits += float((logits.argmax(1) == targets).sum())
    return loss, hits


def keep_freed_memory() -> None:
    """As MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ in the environment: no page faults in a step."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for option in (-1, -3) if mallopt else ():  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        mallopt(option, 2**30)
