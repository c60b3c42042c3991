"""What a checkpoint costs: `python benchmarks/checkpoints.py`. Milliseconds, the median of the repetitions."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import torch

from dltrain.training.run_folder import RunFolder

REPETITIONS = 15


def milliseconds(action: object, *arguments: object) -> float:
    begun = time.perf_counter()
    action(*arguments)  # type: ignore[operator]
    return 1000 * (time.perf_counter() - begun)


def cost(count: int, background: bool) -> tuple[float, float]:
    """(what the loop waits for, the whole save) of `count` floats in weights and Adam's two moments."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = RunFolder(Path(name), 2, {}, background)
        weights = {f"w{i}": torch.randn(count // 12) for i in range(4)}
        moments = {"m": [torch.randn(count // 12) for _ in range(8)], "best_row": {}}
        waits, wholes = [], []
        for step in range(1, REPETITIONS + 1):
            begun = time.perf_counter()
            waits.append(milliseconds(folder.save_checkpoint, step, moments, weights, None))
            folder.wait()
            wholes.append(1000 * (time.perf_counter() - begun))
        folder.close()
    return statistics.median(waits), statistics.median(wholes)


for label, count in (("CNN, 0.1 M parameters with Adam, 1.3 MB", 330_000), ("134 MB", 33_500_000)):
    for background in (False, True):
        wait, whole = cost(count, background)
        print(
            f"{label:45} background={background!s:5}  the loop waits {wait:7.1f} ms, the save takes {whole:7.1f} ms"
        )
