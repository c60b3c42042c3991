"""Starts on a folder of images: `python benchmarks/images.py FOLDER`, first line, decoding by threads, second start.

60,000 JPEGs of 32×32 pixels are CIFAR-10's; the figures in docs/images.md name the machine. Times are seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from dltrain.data.image_files import Found, ImageFiles, common_size
from dltrain.data.pixels import Form
from dltrain.data.streaming import in_threads

# of how many images the speed of decoding is measured, and how often
_DECODED, _REPEATED = 4000, 5


def start(folder: str) -> dict[str, float]:
    """Start a run of one step; return the seconds to its first line, those before the first step, and those of imports."""
    command = [sys.executable, "-m", "dltrain", "dataset=image_folder", f"dataset.root={folder}"]
    begun = time.perf_counter()
    with subprocess.Popen(
        [*command, "model=linear", "steps=1", "evaluation.test=false", f"output={tempfile.mkdtemp()}"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        found: dict[str, float] = {}
        for line in process.stdout or ():
            found.setdefault("first line", time.perf_counter() - begun)
            if line.startswith("epoch"):
                found.setdefault("first step", time.perf_counter() - begun)
    return found


def imports() -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import dltrain.run.experiment"], check=True)
    return time.perf_counter() - begun


def decoding(folder: str, threads: int) -> float:
    """Return the seconds for some of the images."""
    paths = [path for path, _ in Found.below(folder).images][:_DECODED]
    height, width = common_size(Path(folder), paths)
    reader = ImageFiles(folder, paths, Form(height, width, "rgb"))
    begun = time.perf_counter()
    for _ in in_threads(reader.records, torch.arange(len(reader)), threads):
        pass
    return time.perf_counter() - begun


def main(folder: str) -> None:
    times = [(decoding(folder, 1), decoding(folder, 2)) for _ in range(_REPEATED)]
    one, two = (min(column) for column in zip(*times, strict=True))
    print(
        f"decoding {_DECODED:,}: one thread {one:.2f}, two {two:.2f}, {one / two:.2f} times as fast (load {os.getloadavg()[0]:.1f})"
    )
    with tempfile.TemporaryDirectory() as caches:
        os.environ["DLTRAIN_CACHE"] = caches
        for name in ("first start", "second start"):
            found, imported = start(folder), imports()
            print(
                f"{name}: line {found['first line']:.2f}, step {found['first step']:.2f}, of which imports {imported:.2f}"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
