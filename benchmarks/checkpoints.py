"""What a checkpoint costs.

python benchmarks/checkpoints.py                      milliseconds of a save, the median of the repetitions
python benchmarks/checkpoints.py --mnist data         its share of an epoch of the CNN on MNIST, with and without in one run
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dltrain.storage.run_folder import RunFolder

REPETITIONS = 15
SIZES = {"CNN, 0.1 M parameters with Adam, 1.3 MB": 330_000, "134 MB": 33_500_000}


def milliseconds(action: Callable[..., Any], *arguments: Any) -> float:
    begun = time.perf_counter()
    action(*arguments)
    return 1000 * (time.perf_counter() - begun)


def cost(count: int, background: bool) -> tuple[float, float]:
    """Return the seconds that the loop waits and those of the whole save, for `count` floats in weights and Adam's two moments."""
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


def share(mnist: Path, epochs: int) -> None:
    """Train the CNN with a checkpoint after every second epoch only, and compare the epochs that follow one and none."""
    from dltrain.cli import dispatch

    waits: list[float] = []  # ms that the loop stood still
    works: list[
        float
    ] = []  # ms of CPU that the saving thread used: at most so much is taken from the loop besides
    calls: list[int] = []
    save, write = RunFolder.save_checkpoint, RunFolder._save

    def every_second(self: RunFolder, step: int, *rest: Any) -> None:
        calls.append(step)
        if len(calls) % 2:
            waits.append(milliseconds(save, self, step, *rest))

    def watched(self: RunFolder, *rest: Any) -> None:
        begun = time.thread_time()
        write(self, *rest)
        works.append(1000 * (time.thread_time() - begun))

    RunFolder.save_checkpoint, RunFolder._save = every_second, watched  # type: ignore[method-assign,assignment]
    root = mnist.resolve()
    with tempfile.TemporaryDirectory(dir=".") as name:
        os.chdir(name)
        dispatch(["dataset=mnist", f"dataset.root={root}", "model=cnn", f"epochs={epochs}", "early_stopping=none",
                  "output=.", "name=run", "quiet=true"])  # fmt: skip
        with open(next(Path.cwd().glob("run/*/metrics.csv"))) as stream:
            seconds = [float(row["seconds"]) for row in csv.DictReader(stream)]
        os.chdir("..")
    with_one, without = seconds[1::2], seconds[2::2]  # the first epoch warms up
    plain = statistics.median(without)
    print(f"epochs after a checkpoint  {statistics.median(with_one):7.3f} s (median of {len(with_one)})")
    print(f"epochs after none          {plain:7.3f} s (median of {len(without)})")
    print(f"difference                 {100 * (statistics.median(with_one) / plain - 1):7.2f} % of an epoch")
    wait, work = statistics.median(waits), statistics.median(works)
    print(f"the loop waits             {wait:7.2f} ms, {wait / plain / 10:.3f} % of an epoch")
    print(f"CPU of the saving thread   {work:7.2f} ms, {work / plain / 10:.3f} % of an epoch")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--mnist", type=Path, help="folder with MNIST/raw; unset, the cost of a save is measured")
parser.add_argument("--epochs", type=int, default=13, help="of the run on MNIST")
arguments = parser.parse_args()
if arguments.mnist:
    share(arguments.mnist, arguments.epochs)
else:
    for label, count in SIZES.items():
        for background in (False, True):
            wait, whole = cost(count, background)
            print(
                f"{label:45} background={background!s:5}  the loop waits {wait:7.1f} ms, the save takes {whole:7.1f} ms"
            )
