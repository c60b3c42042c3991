"""Study problems (dataset=none): models that are the function to minimize, with a known minimum."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from dltrain.ranges import AtLeastOne, Count, Positive


class Quadratic(nn.Module):
    """Quadratic bowl with a given condition number (with dataset=none).

        f(w) = ½ Σᵢ λᵢ wᵢ²
        λᵢ = κ^((i − 1)/(d − 1))
        minimum: 0 at w = 0

    Returns f(w) for each sample, (B,), whatever its inputs. Raises ValueError for a condition number other
    than 1 in one dimension. From start=worst, each exact step of gd divides f by ((κ + 1)/(κ − 1))²
    only, its lower bound.

    Symbols: κ = condition_number; d = dimension; i = 1 … d
    Use: to compare an optimizer with its closed form; gd needs lr < 2/κ.
    Defaults: a condition number that separates gd from momentum.
    Lecture: L0 L1 L4

    Args:
        dimension: number of parameters
        condition_number: ratio of the largest to the smallest eigenvalue
        start: ones starts at w = (1, …, 1), worst at (κ, 0, …, 0, 1)
    """

    gives = frozenset({"an objective"})

    minimum = 0.0
    eigenvalues: Tensor

    def __init__(
        self,
        input_shape: tuple[int, ...] = (1,),
        num_classes: int = 1,
        *,
        dimension: Count = 10,
        condition_number: AtLeastOne = 100.0,
        start: Literal["ones", "worst"] = "ones",
    ) -> None:
        super().__init__()
        if dimension == 1 and condition_number != 1:
            raise ValueError(
                f"model.condition_number is {condition_number}, but model.dimension=1 has a single eigenvalue; "
                "use model.condition_number=1 or a larger model.dimension"
            )
        exponents = torch.linspace(0, 1, dimension, dtype=torch.float64)
        self.register_buffer("eigenvalues", (condition_number**exponents).to(torch.get_default_dtype()))
        worst = torch.zeros(dimension)
        worst[0], worst[-1] = condition_number, 1.0
        starts = {"ones": torch.ones(dimension), "worst": worst}
        self.w = nn.Parameter(starts[start])

    def forward(self, inputs: Tensor) -> Tensor:
        value = 0.5 * (self.eigenvalues * self.w.square()).sum()
        return value.expand(inputs.shape[0])


class Rosenbrock(nn.Module):
    """Rosenbrock's curved valley (with dataset=none).

        f(w) = Σᵢ steepness·(wᵢ₊₁ − wᵢ²)² + (1 − wᵢ)²
        minimum: 0 at w = (1, …, 1)

    Returns f(w) for each sample, (B,), whatever its inputs. Starts at w = (−1.2, 1, −1.2, 1, …).

    Symbols: i = 1 … dimension − 1
    Use: to see an optimizer follow a narrow curved valley.
    Defaults: the classical function.
    Paper: Rosenbrock 1960, "An automatic method for finding the greatest or least value of a function"

    Args:
        dimension: number of parameters
        steepness: factor of the distance from the valley floor
    """

    gives = frozenset({"an objective"})

    minimum = 0.0

    def __init__(
        self,
        input_shape: tuple[int, ...] = (1,),
        num_classes: int = 1,
        *,
        dimension: Annotated[int, ">= 2"] = 2,
        steepness: Positive = 100.0,
    ) -> None:
        super().__init__()
        self.steepness = steepness
        self.w = nn.Parameter(torch.tensor([-1.2, 1.0]).repeat(dimension // 2 + 1)[:dimension])

    def forward(self, inputs: Tensor) -> Tensor:
        valley = self.w[1:] - self.w[:-1].square()
        value = (self.steepness * valley.square() + (1 - self.w[:-1]).square()).sum()
        return value.expand(inputs.shape[0])


class Saddle(nn.Module):
    """Saddle point between two minima (with dataset=none).

        f(u, v) = ½u² + ¼(v² − 1)²
        saddle: ¼ at (0, 0)
        minima: 0 at (0, ±1)

    Returns f(w) for each sample, (B,), whatever its inputs. The eigenvalues of the Hessian at the saddle are
    1 and −1.

    Symbols: w = (u, v); start at (1, offset)
    Use: to see which optimizers leave a saddle, and how soon.
    Defaults: a start close to the line that leads into the saddle.
    Lecture: L0 L4

    Args:
        offset: v of the start; from 0, gradient descent ends in the saddle
    """

    gives = frozenset({"an objective"})

    minimum = 0.0

    def __init__(
        self, input_shape: tuple[int, ...] = (1,), num_classes: int = 1, *, offset: float = 1e-3
    ) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, offset]))

    def forward(self, inputs: Tensor) -> Tensor:
        along, across = self.w
        value = 0.5 * along.square() + 0.25 * (across.square() - 1).square()
        return value.expand(inputs.shape[0])
