"""The loss on a plane around the best weights, and on the line from the initial weights to them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor, nn

from dltrain.diagnostics.probe import Probe, moved
from dltrain.ranges import Count, Positive
from dltrain.storage.files import replace

# ends of the line, where 0 is the start and 1 the best weights
LINE = (-0.25, 1.5)
# quarters between these ends
QUARTERS = 7


class Surface:
    """A picture of the loss around the best weights, and along the line from the start to them.

        L(W₀ + t (W* − W₀))
        L(W* + x d₁ + y d₂) with ‖d‖ = ‖W*‖ for each filter

    Drawn at the end of the run into loss_surface.png, with the numbers in loss_line.csv and loss_surface.csv. d₁ and d₂ are
    normal draws, 0 for biases and normalization parameters; normalization statistics are those of W* everywhere. Costs about
    `points`² + 7/3 `points` passes over `samples`, and a copy of the initial weights.

    Symbols: W₀ the initial and W* the best weights; x, y in ±radius
    Use: seeing how flat or rugged the loss is around the solution.
    Defaults: the paper's radius of 1; 21 × 21 points.
    Paper: Li et al. 2018, arXiv:1712.09913; Goodfellow et al. 2015, arXiv:1412.6544, for the line
    Lecture: L0

    Args:
        samples: training samples of the loss
        points: points along each side of the plane
        radius: half of the plane's side, in norms of the filters
    """

    def __init__(
        self, samples: Count = 256, points: Annotated[int, ">= 3"] = 21, radius: Positive = 1.0
    ) -> None:
        self.samples, self.points, self.radius = samples, points, radius
        self.initial: list[Tensor] = []

    def begin(self, model: nn.Module) -> None:
        """Keep the initial weights; a resumed run builds them again from its seed."""
        self.initial = [p.detach().clone() for p in model.parameters() if p.requires_grad]

    def measure(self, probe: Probe) -> dict[str, float]:
        """Return no columns: the picture is drawn at the end."""
        return {}

    def draw(self, probe: Probe, folder: Path) -> None:
        """Write the picture and its numbers into the run folder."""
        from dltrain.training.landscape import landscape

        line, plane = self.line(probe), self.plane(probe)
        _write(folder / "loss_line.csv", ("t", "loss"), line)
        _write(folder / "loss_surface.csv", ("x", "y", "loss"), plane)
        side = [loss for _, _, loss in plane]
        replace(folder / "loss_surface.png", landscape(line, side, self.points, self.radius))

    def line(self, probe: Probe) -> list[tuple[float, float]]:
        """Return (t, loss) at even steps of t, including 0 and 1."""
        with moved(probe.parameters) as best:
            ways = torch._foreach_sub(best, self.initial) if self._fits(best) else [b * 0 for b in best]
            steps = torch.linspace(*LINE, QUARTERS * (self.points // 3) + 1, dtype=torch.float64).tolist()
            return [(t, self._loss(probe, best, [(ways, t - 1)])) for t in steps]

    def plane(self, probe: Probe) -> list[tuple[float, float, float]]:
        """Return (x, y, loss) row by row, from the lowest y, x changing first."""
        with moved(probe.parameters) as best:
            generator = torch.Generator(best[0].device).manual_seed(0)
            one, two = (directions(best, generator) for _ in range(2))
            at = torch.linspace(-self.radius, self.radius, self.points).tolist()
            return [(x, y, self._loss(probe, best, [(one, x), (two, y)])) for y in at for x in at]

    def _fits(self, best: Sequence[Tensor]) -> bool:
        """Return whether as many weights are trained now as at the start: some may have thawed."""
        return len(self.initial) == len(best)

    @torch.no_grad()
    def _loss(self, probe: Probe, best: list[Tensor], moves: list[tuple[Sequence[Tensor], float]]) -> float:
        torch._foreach_copy_(probe.parameters, best)
        for direction, length in moves:
            torch._foreach_add_(probe.parameters, list(direction), alpha=length)
        return float(probe.mean_loss())


def directions(weights: list[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Return a random direction with the norm of each filter; 0 for vectors, unless there are only vectors."""
    matrices = any(weight.ndim > 1 for weight in weights)
    found = []
    for weight in weights:
        draw = torch.randn(weight.shape, generator=generator, device=weight.device, dtype=weight.dtype)
        rows = (draw.flatten(1), weight.flatten(1)) if weight.ndim > 1 else (draw[None], weight[None])
        scale = rows[1].norm(dim=1) / rows[0].norm(dim=1).clamp(min=1e-12)
        scaled = (rows[0] * scale[:, None]).view_as(weight)
        found.append(scaled if weight.ndim > 1 or not matrices else torch.zeros_like(weight))
    return found


def _write(file: Path, columns: tuple[str, ...], rows: Sequence[tuple[float, ...]]) -> None:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    replace(file, stream.getvalue().encode())
