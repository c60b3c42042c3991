"""Synthetic datasets with a known answer."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import nn

from dltrain.data.errors import DataError
from dltrain.data.raw import RawData
from dltrain.declare import declares
from dltrain.ranges import Count, NonNegative


@declares(gives={"rows", "classes"})
def two_moons(samples: Annotated[int, ">= 2"] = 1000, noise: NonNegative = 0.1, seed: int = 0) -> RawData:
    """Points of two interleaving half circles in the plane: two classes that no line separates.

        (cos θ, sin θ) and (1 − cos θ, ½ − sin θ), θ ~ U(0, π), plus N(0, noise²)

    Without noise, a network with one hidden layer can reach an error of 0.

    Use: seeing what a hidden layer adds to a linear model.
    Defaults: noise 0.1 leaves the classes separable.

    Args:
        samples: number of points, half of them in each class
        noise: standard deviation of the noise on both coordinates
        seed: seed of the points; the run's own seed does not change them
    """
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(samples) % 2
    angle = math.pi * torch.rand(samples, generator=generator, dtype=torch.float64)
    upper = torch.stack((angle.cos(), angle.sin()), 1)
    lower = torch.stack((1 - angle.cos(), 0.5 - angle.sin()), 1)
    points = torch.where(targets[:, None] == 0, upper, lower)
    points += noise * torch.randn(samples, 2, generator=generator, dtype=torch.float64)
    return RawData(
        points.float(), targets, "classification", class_names=("upper", "lower"), feature_names=("x", "y")
    )


@declares(gives={"rows", "classes if task=classification", "quantities if task=regression"})
def teacher(
    samples: Annotated[int, ">= 2"] = 2000,
    features: Count = 10,
    hidden: Count = 8,
    outputs: Count = 3,
    task: Literal["classification", "regression"] = "classification",
    noise: NonNegative = 0.0,
    seed: int = 0,
) -> RawData:
    """Gaussian inputs labeled by a fixed network, which a student of the same form can imitate.

        x ~ N(0, I)
        y = W₂ tanh(W₁x + b₁) + b₂ (regression) or its largest entry (classification)

    Inputs have shape (N, features). A student of the same form can reach a training error of 0, or in a regression a
    mean squared error of noise².

    Symbols: W₁ is hidden × features, W₂ is outputs × hidden
    Use: comparing optimizers on a problem with a known smallest loss.
    Defaults: small enough that a run takes seconds.
    Paper: Gardner & Derrida 1989, Three unfinished works on the optimal storage capacity of networks

    Args:
        samples: number of inputs
        features: length of an input
        hidden: hidden units of the teacher
        outputs: classes (at least 2), or quantities of a regression
        task: the largest output as class, or the outputs themselves
        noise: standard deviation of the noise on the outputs, whose variance is 1
        seed: seed of the teacher and its inputs; the run's own seed does not change them
    """
    if task == "classification" and outputs < 2:
        raise DataError(
            f"dataset.outputs is {outputs}; it must be at least 2 for dataset.task=classification"
        )
    generator = torch.Generator().manual_seed(seed)
    network = teacher_network(features, hidden, outputs, generator)
    inputs = torch.randn(samples, features, generator=generator)
    with torch.no_grad():
        answers = network(inputs)
    answers = answers + noise * torch.randn(answers.shape, generator=generator)
    if task == "regression":
        return RawData(inputs, answers, "regression")
    return RawData(inputs, answers.argmax(1), "classification", class_names=tuple(map(str, range(outputs))))


def teacher_network(features: int, hidden: int, outputs: int, generator: torch.Generator) -> nn.Sequential:
    """Return a Linear, Tanh, Linear network with Gaussian weights, scaled to outputs of mean 0 and variance 1."""
    network = nn.Sequential(
        nn.Linear(features, hidden, device="meta"), nn.Tanh(), nn.Linear(hidden, outputs, device="meta")
    ).to_empty(device="cpu")
    first, last = network[0], network[2]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    with torch.no_grad():
        # wide enough to reach the nonlinear part of tanh
        _gaussian(first, 2.0 / math.sqrt(features), generator)
        _gaussian(last, 1.0, generator)
        std, mean = torch.std_mean(network(torch.randn(10_000, features, generator=generator)), 0)
        last.weight.div_(std[:, None])
        last.bias.sub_(mean).div_(std)
    return network


@declares(gives={"no samples"})
def none() -> RawData:
    """No data, for models that are themselves the objective (quadratic, rosenbrock, saddle).

    One dummy sample is both train and val; there is no test split.

    Use: looking at how an optimizer moves on a known surface.
    Defaults: 200 steps, no early stopping, and lr=auto, since the optimizers' own lr is meant for networks.
    Lecture: L0
    """
    return RawData(torch.zeros(1, 1), torch.zeros(1), "objective")


def _gaussian(layer: nn.Linear, std: float, generator: torch.Generator) -> None:
    layer.weight.copy_(std * torch.randn(layer.weight.shape, generator=generator))
    layer.bias.copy_(0.1 * torch.randn(layer.bias.shape, generator=generator))
