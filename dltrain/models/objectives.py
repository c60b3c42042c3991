"""Study problems (dataset=none): models that are themselves the function to minimise, with a known answer."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from dltrain.models.parts import choose
from dltrain.ranges import AtLeastOne, Count, Positive


class Quadratic(nn.Module):
    """Quadratic bowl of a chosen condition number (with dataset=none).

        f(w) = ½ Σᵢ λᵢ wᵢ², λ log-spaced from 1 to κ; minimum 0 at w = 0

    f(w) = ½ Σ λᵢ wᵢ² with eigenvalues λ log-spaced from 1 to `condition_number`; minimum 0 at w = 0.

    inputs: (B, ...), ignored; outputs: (B,), the same value for each sample. start `ones`: w = (1, …, 1);
    `worst`: w = (κ, 0, …, 0, 1), from where the exact step gains no more than its bound ((κ−1)/(κ+1))² (L0,
    L4; L1 on momentum). Raises ValueError for a condition number below 1, or other than 1 in one dimension.

    Symbols: κ = condition_number; i = 1 … dimension
    Use: to compare an optimizer with its closed form; gd needs lr < 2/κ.
    Defaults: a condition number that separates gd from momentum.
    Lecture: L0 L1 L4

    Args:
        dimension: number of parameters
        condition_number: largest over smallest eigenvalue
        start: (1, …, 1), or (κ, 0, …, 0, 1), where the exact step is slowest
    """

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
        if condition_number < 1 or (dimension == 1 and condition_number != 1):
            raise ValueError(
                f"model.condition_number is {condition_number} in model.dimension={dimension}; it must be "
                ">= 1, and 1 in one dimension: largest over smallest eigenvalue"
            )
        exponents = torch.linspace(0, 1, dimension, dtype=torch.float64)
        self.register_buffer("eigenvalues", (condition_number**exponents).to(torch.get_default_dtype()))
        worst = torch.zeros(dimension)
        worst[0], worst[-1] = condition_number, 1.0
        starts = {"ones": torch.ones(dimension), "worst": worst}
        self.w = nn.Parameter(choose(starts, "model.start", start))

    def forward(self, inputs: Tensor) -> Tensor:
        value = 0.5 * (self.eigenvalues * self.w.square()).sum()
        return value.expand(inputs.shape[0])


class Rosenbrock(nn.Module):
    """Rosenbrock's curved valley (with dataset=none).

        f(w) = Σᵢ steepness·(wᵢ₊₁ − wᵢ²)² + (1 − wᵢ)²; minimum 0 at w = (1, …, 1)

    f(w) = Σ steepness·(wᵢ₊₁ − wᵢ²)² + (1 − wᵢ)², a curved valley; minimum 0 at w = (1, …, 1).

    inputs: (B, ...), ignored; outputs: (B,). Starts from (−1.2, 1, −1.2, 1, …). Rosenbrock 1960, "An
    automatic method for finding the greatest or least value of a function". Raises ValueError below two
    dimensions.

    Use: to see an optimizer turn along a narrow valley.
    Defaults: the classical function from (−1.2, 1).
    Paper: Rosenbrock 1960, "An automatic method for finding the greatest or least value of a function"

    Args:
        dimension: number of parameters
        steepness: weight of leaving the valley
    """

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
        if dimension < 2:
            raise ValueError(f"model.dimension is {dimension}; Rosenbrock's valley needs at least 2")
        self.steepness = steepness
        self.w = nn.Parameter(torch.tensor([-1.2, 1.0]).repeat(dimension // 2 + 1)[:dimension])

    def forward(self, inputs: Tensor) -> Tensor:
        valley = self.w[1:] - self.w[:-1].square()
        value = (self.steepness * valley.square() + (1 - self.w[:-1]).square()).sum()
        return value.expand(inputs.shape[0])


class Saddle(nn.Module):
    """A saddle between two minima (with dataset=none).

        f(u, v) = ½u² + ¼(v² − 1)²; saddle ¼ at (0, 0), minima 0 at (0, ±1)

    f(u, v) = ½ u² + ¼ (v² − 1)²: a saddle at 0, of eigenvalues 1 and −1 and value ¼; minima 0 at (0, ±1).

    inputs: (B, ...), ignored; outputs: (B,). Starts at (1, offset): with an offset of 0 the gradient leads
    into the saddle and stays there (L0, L4).

    Symbols: start = (1, offset)
    Use: to see which optimizers leave a saddle, and how soon.
    Defaults: a start just beside the line that leads into the saddle.
    Lecture: L0 L4

    Args:
        offset: distance of the start from the line into the saddle; at 0 the gradient never leaves it
    """

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
