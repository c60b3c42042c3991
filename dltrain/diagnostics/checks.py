"""Checks before a long training (L3): each yields a measured value, the expected one and a verdict."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.data.equal_samples import most_by_chance
from dltrain.diagnostics.probe import still
from dltrain.models.parts import StochasticDepth

Loss = Callable[[Tensor, Tensor], Tensor]

# tolerances: of the first loss, of a gradient, of the loss left after overfitting, of an output
GUESS, GRADIENT, LEARNED, MIXED = 0.25, 1e-5, 0.01, 1e-6
# standard deviation of random outputs; a gain for tanh or relu also scales the last layer, to 5/3 or less
RANDOM = 2.0
# units in the last place by which a loss in float64 may be rounded
ROUNDED = 16
# distance of the two points of a finite difference from the weights, in float64
DISTANCE = 1e-6
# samples to overfit, and the most steps
SAMPLES, STEPS = 32, 500


@dataclass(frozen=True)
class Check:
    """One line of the table, and what to do about one that failed."""

    name: str
    found: str
    wanted: str
    passed: bool
    cure: str


def first_loss(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> Check:
    """Compare the loss before training with that of guesses: of outputs 0 (ln C for C classes) and of random outputs.

    It must lie between them, with a tolerance of 25 %; random outputs have the standard deviation 2, since the gain of the
    hidden layers may also scale the last layer. A larger loss means that the last layer starts too large; a smaller one, that
    the network knows the targets already.
    """
    with still(model), torch.no_grad():
        logits = model(inputs)
        found = float(loss(logits, targets).mean())
        guess = float(loss(torch.zeros_like(logits), targets).mean())
        drawn = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).to(logits)
        chance = float(loss(RANDOM * drawn, targets).mean())
    low, high = (1 - GUESS) * guess, (1 + GUESS) * max(guess, chance)
    wanted = f"{low:.4f} to {high:.4f} (a guess: {guess:.4f})"
    cure = (
        "an input may be made from the target, or the model knows these samples from another run"
        if found < low
        else "the outputs start too large: try initializer=default dataset.normalize=unit, or a smaller last layer of the model"
    )
    return Check("first loss", f"{found:.4f}", wanted, low <= found <= high, cure)


def independent(model: nn.Module, inputs: Tensor) -> Check:
    """Check that in evaluation the outputs of a sample depend neither on other samples nor on its place in the batch.

    The first half of the inputs is permuted and put behind the second half, in float64.
    """
    twin = copy.deepcopy(model).cpu().double()
    samples, others = inputs.cpu().double().chunk(2)
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
    with still(twin), torch.no_grad():
        expected = twin(samples)[order]
        found = twin(torch.cat([others, samples[order]]))[len(others) :]
    error = float((found - expected).abs().max() / (expected.abs().max() + 1e-12))
    return Check(
        "mixing of samples",
        f"{error:.0e}" if error else "none",
        f"error <= {MIXED:.0e}",
        error <= MIXED,
        "the model computes over the samples of a batch (dimension 0); in evaluation it may use statistics of the training only",
    )


def gradients(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> Iterator[Check]:
    """Compare the gradient of each parameter with central finite differences, in float64, along three random directions.

    The error is |difference − gᵀv| / max(|gᵀv|, ‖g‖/100, 10⁻⁴) for unit vectors v, minus the rounding error of two losses.
    The median of the three counts, since a ReLU may switch between the two points. The weights are perturbed beforehand:
    initial ones such as identities and zeros can lie exactly on a kink.
    """
    twin = copy.deepcopy(model).cpu().double()
    inputs, targets = inputs.cpu().double(), _double(targets.cpu())
    loss = copy.deepcopy(loss).cpu().double() if isinstance(loss, nn.Module) else loss
    generator = torch.Generator().manual_seed(0)
    named = [(name, p) for name, p in twin.named_parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in twin.parameters():
            size = 0.01 * (parameter.square().mean().sqrt() + 1)
            drawn = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(size * drawn)
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
                f"gradient of {name}",
                # the rounding error is subtracted
                f"off by {errors[1]:.0e}" if errors[1] else "off by rounding alone",
                f"error <= {GRADIENT:.0e}",
                errors[1] <= GRADIENT,
                "the model or the loss computes with numbers that have no gradient: look for detach(), .item(), rounding, "
                "in-place changes and a custom backward()",
            )


@torch.no_grad()
def _error(value: Callable[[], Tensor], parameter: Tensor, grad: Tensor, generator: torch.Generator) -> float:
    """Return the error along one random direction; the parameter is restored."""
    direction = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    direction /= direction.norm()
    before = parameter.clone()
    ends = []
    for side in (1, -1):
        parameter.copy_(before + side * DISTANCE * direction)
        ends.append(float(value()))
    parameter.copy_(before)
    slope, found = (ends[0] - ends[1]) / (2 * DISTANCE), float((grad * direction).sum())
    rounding = ROUNDED * torch.finfo(torch.float64).eps * max(map(abs, ends)) / DISTANCE
    return max(0.0, abs(slope - found) - rounding) / max(abs(found), float(grad.norm()) / 100, 1e-4)


def _double(targets: Tensor) -> Tensor:
    return targets.double() if targets.is_floating_point() else targets


def overfit(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> Check:
    """Check that a few samples can be fitted: 99 % of the way from the first loss to the lowest possible one.

    Uses Adam, then L-BFGS, without dropout, in at most 500 steps each. A model with few weights, such as a linear one, cannot
    fit many samples: their number is halved while the targets still differ. A model that cannot fit these has a mistake in
    it. Normalization uses the statistics of the batch.
    """
    count = len(inputs)
    while True:
        few, wanted = inputs[:count], targets[:count]
        floor = lowest(model, loss, few, wanted)
        for learn in (_by_adam, _by_lbfgs):
            first, found, step = learn(_without_draws(model), loss, few, wanted, floor)
            limit = floor + LEARNED * (first - floor)
            if found <= limit or not math.isfinite(first):
                break
        if found <= limit or count <= 4 or len(targets[: count // 2].unique(dim=0)) < 2:
            name = f"overfit {count} samples"
            cure = (
                "some of these samples have equal inputs and different targets: add inputs that tell them apart"
                if _contradict(few, wanted)
                else "the model cannot learn these samples: try initializer=default, or another model (dltrain model --help)"
            )
            return Check(name, f"{found:.4f} after {step} steps", f"<= {limit:.4f}", found <= limit, cure)
        count //= 2


def _contradict(inputs: Tensor, targets: Tensor) -> bool:
    """Return whether some samples have equal inputs and different targets."""
    _, places = inputs.flatten(1).unique(dim=0, return_inverse=True)
    pairs = torch.cat([places[:, None], targets.reshape(len(targets), -1)], 1)
    return len(pairs.unique(dim=0)) > int(places.max()) + 1


def lowest(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> float:
    """Return the lowest mean loss of any outputs: 0 for most losses, the entropy of the targets with label smoothing.

    The loss of each sample is minimized over its outputs alone, by Rprop, which needs no scale.
    """
    with still(model), torch.no_grad():
        outputs = model(inputs).detach().double().zero_().requires_grad_()
    wanted = _double(targets)
    loss = copy.deepcopy(loss).double() if isinstance(loss, nn.Module) else loss
    optimizer = torch.optim.Rprop([outputs], lr=0.1, step_sizes=(1e-9, 1e9))
    best = loss(outputs, wanted).detach()
    for _ in range(STEPS):
        values = loss(outputs, wanted)
        best = torch.minimum(best, values.detach())
        (outputs.grad,) = torch.autograd.grad(values.sum(), outputs)
        optimizer.step()
    return float(best.mean())


def _without_draws(model: nn.Module) -> nn.Module:
    """Return a copy in training mode whose layers drop nothing."""
    twin = copy.deepcopy(model).train()
    for layer in twin.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd | StochasticDepth):
            layer.p = 0.0
    return twin


# the first loss, the last one, and the number of steps between them
Learned = tuple[float, float, int]


def _by_adam(twin: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, floor: float) -> Learned:
    parameters = [p for p in twin.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    first = found = float(loss(twin(inputs), targets).mean().detach())
    step = 0
    while step < STEPS and found > floor + LEARNED * (first - floor):
        value = loss(twin(inputs), targets).mean()
        grads = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        optimizer.step()
        found, step = float(value.detach()), step + 1
    return first, found, step


def _by_lbfgs(twin: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, floor: float) -> Learned:
    """Train in float64 by L-BFGS, which finds the scale of large targets by itself."""
    twin, inputs, targets = twin.double(), inputs.double(), _double(targets)
    loss = copy.deepcopy(loss).double() if isinstance(loss, nn.Module) else loss
    parameters = [p for p in twin.parameters() if p.requires_grad]
    optimizer = torch.optim.LBFGS(parameters, max_iter=STEPS // 10, line_search_fn="strong_wolfe")

    def closure() -> float:
        value = loss(twin(inputs), targets).mean()
        grads = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        return float(value.detach())

    first = found = closure()
    step = 0
    while step < STEPS and found > floor + LEARNED * (first - floor):
        optimizer.step(closure)
        found, step = closure(), step + STEPS // 10
    return first, found, step


def inputs_are_centered(split: Any, normalized: bool) -> Check:
    """Check that normalized training inputs have the mean 0 over samples, positions and channels."""
    total, count = 0.0, 0
    for batch in split.batches(torch.arange(len(split)), 1024):
        total, count = total + float(batch.inputs.cpu().double().sum()), count + batch.inputs.numel()
    mean = total / max(count, 1)
    wanted = "0 ± 0.01" if normalized else "any (dataset.normalize=none)"
    cure = "some inputs are far larger than the others: look for outliers, or leave the inputs as they are: dataset.normalize=none"
    return Check("mean of the inputs", f"{mean:.4f}", wanted, not normalized or abs(mean) <= 0.01, cure)


def no_leak(splits: dict[str, Any], cure: str = "") -> Check:
    """Check that hardly a sample is in two splits, compared by the bits of its inputs: at most one, or 1 % of the smaller split.

    The data may hold a sample twice (iris has one), which can then be in two splits. cure: how these data are divided otherwise.
    """
    seen: dict[str, set[bytes]] = {name: _digests(split) for name, split in splits.items()}
    names = list(seen)
    shared = [
        (len(seen[one] & seen[other]), one, other)
        for i, one in enumerate(names)
        for other in names[i + 1 :]
        if seen[one] & seen[other]
    ]
    found = ", ".join(f"{count} of {one} in {other}" for count, one, other in shared) or "none"
    passed = all(
        count <= most_by_chance(len(splits[one]), len(splits[other])) for count, one, other in shared
    )
    fine = "copies of a sample belong in one split; equal samples of different things, as where few inputs are known, are no fault"
    return Check("samples in two splits", found, "at most 1, or 1 %", passed, f"{cure}\n{fine}".lstrip())


def _digests(split: Any) -> set[bytes]:
    return {
        hashlib.blake2b(row.numpy().tobytes(), digest_size=16).digest()
        for batch in split.batches(torch.arange(len(split)), 1024)
        for row in batch.inputs.cpu().contiguous()
    }
