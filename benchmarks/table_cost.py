"""CPU time and memory of reading a large CSV file, from the command to the end of the first step.

    python benchmarks/table_cost.py [--rows 50000 500000] [--holes]

Each run is a process with one thread that trains `dataset=csv` for one step and scores validation and test; a table of 100 rows,
which takes the imports and all else alike, is subtracted. The table has 19 numbers, a category, a date and a target.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CHILD = """
import resource, sys
from dltrain.cli import dispatch
assert dispatch(sys.argv[1:]) == 0
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def write(file: Path, rows: int, holes: bool) -> None:
    draw = np.random.default_rng(0)
    dates = np.datetime64("2020-01-01") + draw.integers(0, 1500, rows)
    kinds = np.array(["red", "green", "blue", "black"])[draw.integers(0, 4, rows)]
    with open(file, "w", encoding="utf-8") as stream:
        print(*(f"n{i}" for i in range(19)), "kind", "day", "y", sep=",", file=stream)
        for values, kind, day in zip(
            draw.normal(size=(rows, 20)).round(4).tolist(), kinds, dates, strict=True
        ):
            if holes:
                values[int(values[0] * 1e4) % 19] = ""
            print(*values[:19], kind, day, values[19], sep=",", file=stream)


def cost(file: Path, folder: Path) -> tuple[float, float]:
    """Return seconds of CPU and the peak memory in MB."""
    words = [
        "dataset=csv",
        f"dataset.path={file}",
        "dataset.target=y",
        "steps=1",
        f"output={folder / 'runs'}",
        "quiet=true",
    ]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds, megabytes = done.stdout.split()[-2:]
    return float(seconds), float(megabytes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", type=int, default=[50_000, 500_000])
    parser.add_argument("--holes", action="store_true", help="a missing value in every row")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        costs = []
        for rows in (100, *options.rows):
            write(folder / f"{rows}.csv", rows, options.holes)
            costs.append(cost(folder / f"{rows}.csv", folder))
        for rows, (seconds, megabytes) in zip(options.rows, costs[1:], strict=True):
            print(
                f"{rows:>9,} rows  {seconds - costs[0][0]:6.2f} s of CPU  {megabytes - costs[0][1]:6.0f} MB"
            )


if __name__ == "__main__":
    main()
