"""32 runs of the reference MLP on digits: our processes against Hydra's basic launcher, one run after the other.

    python benchmarks/sweep.py [--runs 32] [--epochs 30] [--repeat 1]

Both train the same jobs with checkpoints as by default. The time of each is taken from its run folders, from the first
job's start to the last one's end, so that the imports of the driver are left out; also printed: what a job costs from
its process to its first step, what composing and validating one costs, and the driver's peak memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--repeat", type=int, default=1)
    args = parser.parse_args()
    axes = [f"seed=range({args.runs})", f"epochs={args.epochs}", "early_stopping=none", "quiet=true"]
    compose_cost()
    for _ in range(args.repeat):
        basic = timed([*axes, "hydra/sweeper=basic", "threads=1"])
        ours = timed(axes)
        print(f"hydra basic {basic:6.2f} s   processes {ours:6.2f} s   ratio {ours / basic:.2f}", flush=True)


def timed(axes: list[str]) -> float:
    """Seconds between the making of the first job's config.yaml and the last summary.json."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "dltrain", "-m", *axes]
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        begun = min(file.stat().st_mtime for file in Path(folder).glob("outputs/*/*/*/config.yaml"))
        ended = max(file.stat().st_mtime for file in Path(folder).glob("outputs/*/*/*/summary.json"))
        return ended - begun


def compose_cost() -> None:
    """Composing and validating a job: Hydra's own way against ours, in milliseconds."""
    from dltrain.config.compose import compose, open_catalogue, open_hydra
    from dltrain.config.validation import validate
    from dltrain.sweep.composer import Composer

    catalogue = open_catalogue()
    hydra = open_hydra(catalogue)
    composer = Composer(catalogue, hydra)
    composer.config(["lr=0.1"])
    begun = time.perf_counter()
    for i in range(5):
        validate(compose([f"lr={0.01 + i}"], catalogue, hydra))
    stock = (time.perf_counter() - begun) / 5
    begun = time.perf_counter()
    for i in range(200):
        composer.config([f"lr={0.01 + i}"])
    quick = (time.perf_counter() - begun) / 200
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"compose and validate: hydra {1e3 * stock:.1f} ms, ours {1e3 * quick:.2f} ms; this process {memory:.0f} MiB"
    )


main()
