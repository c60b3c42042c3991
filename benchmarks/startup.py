"""What a user waits for besides training: the default run above `import torch`, `--help`, and a refusal.

    python benchmarks/startup.py [--rounds 5]

Whole processes, in turn, so that a drift of the machine hits all alike; medians, and the ratios that are promised.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STOCK = """
import hydra
@hydra.main(version_base="1.3", config_path=None)
def main(cfg): pass
main()
"""


def seconds(command: list[str], folder: Path) -> float:
    begun = time.perf_counter()
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def commands(folder: Path) -> dict[str, list[str]]:
    stock = folder / "stock.py"
    stock.write_text(STOCK)
    program = [sys.executable, "-m", "dltrain"]
    return {
        "import torch": [sys.executable, "-c", "import torch"],
        "dltrain (the default run)": program,
        "stock Hydra --help": [sys.executable, str(stock), "--help"],
        "dltrain --help": [*program, "--help"],
        "dltrain optimizer=adma (refused)": [*program, "optimizer=adma"],
        "dltrain lr=-1 (refused)": [*program, "lr=-1"],
    }


def measure(rounds: int) -> dict[str, float]:
    """Return the median seconds of each command, over interleaved rounds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = commands(folder)
        times: dict[str, list[float]] = {label: [] for label in table}
        for number in range(rounds + 1):
            for label, command in table.items():
                took = seconds(command, folder)
                if number:  # the first round warms the disk
                    times[label].append(took)
    return {label: statistics.median(values) for label, values in times.items()}


def report(medians: dict[str, float]) -> None:
    for label, value in medians.items():
        print(f"{label:<34} {value:6.2f} s")
    above = medians["dltrain (the default run)"] - medians["import torch"]
    print(f"{'default run above import torch':<34} {above:6.2f} s   (promised: at most 1.4)")
    for label in ("dltrain --help", "dltrain optimizer=adma (refused)", "dltrain lr=-1 (refused)"):
        ratio = medians[label] / medians["stock Hydra --help"]
        print(f"{label:<34} {ratio:6.2f} of stock Hydra's --help   (promised: 0.8, or 0.6 s)")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rounds", type=int, default=5)
report(measure(parser.parse_args().rounds))
