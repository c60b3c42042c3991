"""How much the gradient of a mini-batch differs from that of many samples."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from dltrain.diagnostics.probe import Probe, require_at_least
from dltrain.optimizers.curvature import dot
from dltrain.ranges import Count


class BatchNoise:
    """Noise of the gradient by batch size, and the batch size at which noise and signal are equal.

        mean ‖g_b − g‖² / ‖g‖²
        scale = tr Σ / ‖G‖² = (‖g_b‖² − ‖g_N‖²)/(1/b − 1/N) ÷ (N‖g_N‖² − b‖g_b‖²)/(N − b)

    mean ‖g_b − g‖² / ‖g‖² over the batches of b of `samples`, for each of `sizes`; and the noise scale tr Σ /
    ‖G‖².

    g is the mean gradient of all `samples`. `scale` is the batch size at which noise and signal are equal,
    from the smallest size and all samples without bias (McCandlish et al. 2018, arXiv:1812.06162, A.1):
    batches far below it profit from being larger, batches far above it do not (L0, L2). It is at most 10⁶ tr
    Σ / ‖g‖², where ‖G‖² cannot be told from 0. Costs a gradient of `samples` for each size.

    Symbols: b of sizes; N = samples; g the gradient of all N
    Use: to choose batch_size: far below the scale larger batches pay, far above it they do not.
    Defaults: the usual batch sizes, on 512 samples.
    Paper: McCandlish et al. 2018, arXiv:1812.06162
    Lecture: L0 L2

    Args:
        samples: training samples; at least twice the largest size
        sizes: batch sizes
    """

    def __init__(self, samples: Annotated[int, ">= 2"] = 512, sizes: list[Count] = (8, 32, 128)) -> None:
        self.samples, self.sizes = samples, sorted(sizes or [8, 32, 128])
        require_at_least(1, "diagnostics.batch_noise.sizes", self.sizes[0])
        require_at_least(2 * self.sizes[-1], "diagnostics.batch_noise.samples", samples)

    def measure(self, probe: Probe) -> dict[str, float]:
        count = len(probe.inputs)
        _, whole = probe.gradients()
        square = dot(whole, whole).clamp(min=torch.finfo(whole[0].dtype).tiny)
        columns: dict[str, Tensor] = {}
        squares: dict[int, Tensor] = {}
        for size in self.sizes:
            grads = [probe.gradients(slice(i, i + size))[1] for i in range(0, count - size + 1, size)]
            if not grads:  # a small dataset
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
