"""Bootstrap intervals: how much a score depends on which samples are in the split."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dltrain.metrics.measures import Measures
from dltrain.metrics.protocol import Values

LEVEL, SEED = 0.95, 0


def intervals(
    functions: Mapping[str, Values],
    measures: Measures,
    outputs: Tensor,
    targets: Tensor,
    resamples: int,
) -> dict[str, tuple[float, float]]:
    """Return the percentile interval of each metric over resamples of the samples with replacement (Efron 1979).

    The draws depend on the number of samples alone. Resamples for which a metric is not defined are left out of its
    interval; nothing is returned for less than two samples.
    """
    size = len(outputs)
    if size < 2 or resamples < 1:
        return {}
    generator = torch.Generator().manual_seed(SEED)
    values = torch.stack([metric(outputs, targets).double() for metric in functions.values()], 1)
    rows: list[list[float]] = []
    for _ in range(resamples):
        drawn = torch.randint(size, (size,), generator=generator).to(outputs.device)
        row = values[drawn].mean(0).tolist()
        if measures:
            row += measures.of(outputs[drawn], targets[drawn]).values()
        rows.append(row)
    table = torch.tensor(rows, dtype=torch.float64)
    tails = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    names = [*functions, *measures.metrics]
    found = {name: column[column.isfinite()] for name, column in zip(names, table.T, strict=True)}
    return {
        name: (float(low), float(high))
        for name, column in found.items()
        if len(column)
        for low, high in [column.quantile(tails)]
    }
