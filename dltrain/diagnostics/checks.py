"""What to look at before a long training (L3): each check is a line with its number, what it should be, and a verdict."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.diagnostics.probe import still
from dltrain.models.parts import StochasticDepth

Loss = Callable[[Tensor, Tensor], Tensor]

GUESS, GRADIENT, LEARNT = (
    0.25,
    1e-5,
    0.01,
)  # how far the first loss may be off; errors; share of the first loss
DISTANCE = 1e-6  # of the two points of a finite difference, in float64
SAMPLES, STEPS = 32, 500  # to learn by heart


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    name: str
    found: str
    wanted: str
    passed: bool


def first_loss(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> Check:
    """The loss before training is that of outputs that are all 0: ln C for C classes, within 25 %.

    A larger one says that the last layer starts too large; a smaller one, that the net knows the answer already.
    """
    with still(model), torch.no_grad():
        logits = model(inputs)
        found = float(loss(logits, targets).mean())
        guess = float(loss(torch.zeros_like(logits), targets).mean())
    return Check(
        "first loss", f"{found:.4f}", f"{guess:.4f} (a guess) ±25 %", abs(found - guess) <= GUESS * guess
    )


def gradients(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> Iterator[Check]:
    """The gradient of each parameter against central finite differences in float64, along three random directions.

    The error is |difference − gᵀv| / max(|gᵀv|, ‖g‖/100, 10⁻⁴) for unit vectors v (below, the difference of two losses is
    rounding); of the three the middle one counts, since a ReLU may turn between the two points.
    """
    twin = copy.deepcopy(model).cpu().double()
    inputs, targets = inputs.cpu().double(), _double(targets.cpu())
    loss = copy.deepcopy(loss).cpu().double() if isinstance(loss, nn.Module) else loss
    generator = torch.Generator().manual_seed(0)
    named = [(name, p) for name, p in twin.named_parameters() if p.requires_grad]
    with still(twin):
        grads = torch.autograd.grad(
            loss(twin(inputs), targets).mean(),
            [p for _, p in named],
            allow_unused=True,
            materialize_grads=True,
        )
        for (name, parameter), grad in zip(named, grads, strict=True):
            errors = sorted(
                _error(lambda: loss(twin(inputs), targets).mean(), parameter, grad, generator)
                for _ in range(3)
            )
            yield Check(
                f"gradient of {name}", f"{errors[1]:.0e}", f"error <= {GRADIENT:.0e}", errors[1] <= GRADIENT
            )


@torch.no_grad()
def _error(value: Callable[[], Tensor], parameter: Tensor, grad: Tensor, generator: torch.Generator) -> float:
    """Along one random direction; the parameter is put back."""
    direction = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    direction /= direction.norm()
    before = parameter.clone()
    ends = []
    for side in (1, -1):
        parameter.copy_(before + side * DISTANCE * direction)
        ends.append(float(value()))
    parameter.copy_(before)
    slope, found = (ends[0] - ends[1]) / (2 * DISTANCE), float((grad * direction).sum())
    return abs(slope - found) / max(abs(found), float(grad.norm()) / 100, 1e-4)


def _double(targets: Tensor) -> Tensor:
    return targets.double() if targets.is_floating_point() else targets


def overfit(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> Check:
    """A few samples can be learnt by heart, to 1 % of the first loss: by Adam without dropout, in at most 500 steps.

    A model that cannot has a mistake in it, or too few weights. Normalisation takes the statistics of the batch.
    """
    twin = copy.deepcopy(model).train()
    for layer in twin.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd | StochasticDepth):
            layer.p = 0.0
    parameters = [p for p in twin.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    first = found = float(loss(twin(inputs), targets).mean().detach())
    step = 0
    while step < STEPS and found > LEARNT * first:
        value = loss(twin(inputs), targets).mean()
        grads = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        optimizer.step()
        found, step = float(value.detach()), step + 1
    name = f"overfit {len(inputs)} samples"
    return Check(name, f"{found:.4f} after {step} steps", f"<= {LEARNT * first:.4f}", found <= LEARNT * first)


def inputs_are_centred(split: Any, normalized: bool) -> Check:
    """The training inputs have the mean 0 over samples, places and channels, where they are normalised."""
    total, count = 0.0, 0
    for batch in split.batches(torch.arange(len(split)), 1024):
        total, count = total + float(batch.inputs.cpu().double().sum()), count + batch.inputs.numel()
    mean = total / max(count, 1)
    wanted = "0 ± 0.01" if normalized else "any (dataset.normalize=none)"
    return Check("mean of the inputs", f"{mean:.4f}", wanted, not normalized or abs(mean) <= 0.01)


def no_leak(splits: dict[str, Any]) -> Check:
    """No sample of one split is, to the last bit of its inputs, also in another."""
    seen: dict[str, set[bytes]] = {name: _digests(split) for name, split in splits.items()}
    names = list(seen)
    shared = [
        (len(seen[one] & seen[other]), one, other)
        for i, one in enumerate(names)
        for other in names[i + 1 :]
        if seen[one] & seen[other]
    ]
    found = ", ".join(f"{count} of {one} in {other}" for count, one, other in shared) or "none"
    return Check("samples in two splits", found, "none", not shared)


def _digests(split: Any) -> set[bytes]:
    return {
        hashlib.blake2b(row.numpy().tobytes(), digest_size=16).digest()
        for batch in split.batches(torch.arange(len(split)), 1024)
        for row in batch.inputs.cpu().contiguous()
    }
