"""Memory over one streamed epoch: the main process and each worker, sampled while `dltrain` trains on image files.

    python benchmarks/memory.py --root FOLDER [--workers 2] [key=value …]

Prints the most private memory (MiB) in each fifth of the life of a process, and how much the fourth is above the
second (the first holds the imports, the last the validation). The images stream
(dataset.resident_share=0), nothing is cached, and one process tree is watched through /proc (Linux).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """Private memory of one process at one moment: what it alone holds, in MiB; shared pages are not counted twice."""

    second: float
    mebibytes: float


def private_memory(pid: int) -> float | None:
    """MiB that the process alone holds (Private_* of smaps_rollup), or None when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def watch(process: subprocess.Popen[bytes], every: float) -> dict[int, list[Sample]]:
    """Return samples of the memory of the process and of its children until it ends."""
    samples: dict[int, list[Sample]] = {}
    while process.poll() is None:
        for pid in (process.pid, *children(process.pid)):
            held = private_memory(pid)
            if held:
                samples.setdefault(pid, []).append(Sample(time.monotonic(), held))
        time.sleep(every)
    return samples


def steady(samples: list[Sample]) -> list[float]:
    """Return the most MiB held in each fifth of a process's life; the first holds the imports."""
    size = max(len(samples) // 5, 1)
    return [max(s.mebibytes for s in samples[i * size : (i + 1) * size]) for i in range(5)]


def measure(root: Path, workers: int, more: list[str], every: float = 0.25) -> list[dict[str, float | str]]:
    """Train one epoch; for the main process and each worker that lived through it, the memory early and late."""
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-m", "dltrain", "dataset=image_folder", f"dataset.root={root}", "dataset.cache=false",
                   "dataset.resident_share=0", f"workers={workers}", "epochs=1", "evaluation.test=false", f"output={output}",
                   "quiet=true", *more]  # fmt: skip
        process = subprocess.Popen(command)
        samples = watch(process, every)
        if process.returncode != 0:
            sys.exit(f"the run ended with {process.returncode}")
        (summary,) = (json.loads(file.read_text()) for file in Path(output).glob("*/*/summary.json"))
    longest = max(map(len, samples.values()))
    rows: list[dict[str, float | str]] = []
    for pid, held in samples.items():
        if len(held) > longest // 3:  # the short-lived ones are those of the validation
            fifths = steady(held)
            name = "main" if pid == process.pid else "worker"
            shown = {f"fifth {i + 1}": value for i, value in enumerate(fifths)}
            rows.append({"process": name, **shown, "growth from second to fourth": fifths[3] - fifths[1]})
    rows.append({"process": f"val/accuracy {summary['best'].get('val/accuracy', float('nan')):.3f}"})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--root", type=Path, required=True, help="a folder of images, ROOT/CLASS or ROOT/train/CLASS"
    )
    parser.add_argument("--workers", type=int, default=2)
    arguments, more = parser.parse_known_args()
    for row in measure(arguments.root, arguments.workers, more):
        print(
            "  ".join(
                f"{key} {value:.1f}" if isinstance(value, float) else str(value) for key, value in row.items()
            )
        )


main()
