"""Gradient noise of mini-batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from dltrain.diagnostics.probe import Probe
from dltrain.optimizers.curvature import dot
from dltrain.ranges import Count


class BatchNoise:
    """Gradient noise by batch size, and the noise scale: the batch size at which noise equals signal.

        mean ‖g_b − g‖² / ‖g‖²
        scale = tr Σ / ‖G‖² = (‖g_b‖² − ‖g_N‖²)/(1/b − 1/N) ÷ (N‖g_N‖² − b‖g_b‖²)/(N − b)

    The first quantity has a column for each of `sizes`; `scale` is unbiased, uses the smallest size, and is at most
    10⁶ tr Σ / ‖g‖². Costs a gradient of all `samples` for each size.

    Symbols: b a batch size; N = samples; g the mean gradient of all N, g_b that of a batch
    Use: choosing batch_size: far below the scale larger batches pay, far above it they do not.
    Defaults: the usual batch sizes, on 512 samples.
    Paper: McCandlish et al. 2018, arXiv:1812.06162, appendix A.1
    Lecture: L0 L2

    Args:
        samples: training samples; at least twice the largest size
        sizes: batch sizes
    """

    needs = frozenset({"samples"})

    def __init__(self, samples: Annotated[int, ">= 2"] = 512, sizes: Sequence[Count] = (8, 32, 128)) -> None:
        self.samples, self.sizes = samples, sorted(sizes or [8, 32, 128])
        if samples < 2 * self.sizes[-1]:
            raise ValueError(
                f"diagnostics.batch_noise.samples is {samples}; it must be an integer >= {2 * self.sizes[-1]}"
            )

    def measure(self, probe: Probe) -> dict[str, float]:
        count = len(probe.inputs)
        _, whole = probe.gradients()
        square = dot(whole, whole).clamp(min=torch.finfo(whole[0].dtype).tiny)
        columns: dict[str, Tensor] = {}
        squares: dict[int, Tensor] = {}
        for size in self.sizes:
            grads = [probe.gradients(slice(i, i + size))[1] for i in range(0, count - size + 1, size)]
            # the dataset may be smaller than a batch
            if not grads:
                continue
            away = [list(torch._foreach_sub(grad, whole)) for grad in grads]
            columns[str(size)] = torch.stack([dot(d, d) for d in away]).mean() / square
            squares[size] = torch.stack([dot(g, g) for g in grads]).mean()
        size = self.sizes[0]
        if size in squares and size < count:
            signal = (count * square - size * squares[size]) / (count - size)
            noise = (squares[size] - square) / (1 / size - 1 / count)
            columns["scale"] = noise / torch.maximum(signal, 1e-6 * square)
        return {name: float(value) for name, value in columns.items()}
