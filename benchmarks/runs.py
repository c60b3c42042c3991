"""How long `dltrain runs` takes over many run folders: cold (without the cache of summaries) and warm.

    python benchmarks/runs.py [--runs 10000] [--folder FOLDER]

Makes that many run folders, in 20 names, with the files that a listing looks at: a summary as a run writes it, with its
configuration, and config.yaml. The targets: at most 3 s cold and 0.5 s warm for 10,000, filtered or not. CPU time (user + sys) is
printed beside wall time: it says the same where other programs share the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

CALLS = (
    ["runs"],
    ["runs", "optimizer=adam", "lr<0.01"],
    ["runs", "val/accuracy>0.9", "--sort", "val/accuracy", "--json"],
)


def make(folder: Path, count: int) -> None:
    """Make run folders with the summary of one real run, whose seed, choices and scores differ."""
    template = one_run(folder)
    draws = random.Random(0)
    begun = datetime(2026, 1, 1)
    for number in range(count):
        summary = json.loads(template)
        value = draws.random()
        lr = round(10 ** draws.uniform(-4, -1), 6)
        optimizer = draws.choice(["adam", "sgd", "momentum"])
        summary["config"] |= {"seed": number % 5, "lr": lr, "optimizer.lr": lr, "optimizer": optimizer}
        summary["best"] |= {"val/loss": value, "val/accuracy": 1 - value / 3}
        summary |= {"objective": value, "seconds": 60 * draws.random()}
        when = begun + timedelta(minutes=number)
        summary["written"] = when.astimezone().isoformat(timespec="seconds")
        name = f"name{number % 20}/{when:%Y-%m-%d_%H-%M-%S}-{number:04x}"
        (folder / "outputs" / name).mkdir(parents=True)
        (folder / "outputs" / name / "summary.json").write_text(json.dumps(summary, indent=2))


def one_run(folder: Path) -> str:
    """Train one run for a step, and return its summary."""
    command = [sys.executable, "-m", "dltrain", "steps=1", "model=linear", "quiet=true", "output=one"]
    subprocess.run(command, cwd=folder, check=True)
    (file,) = (folder / "one").glob("*/*/summary.json")
    return file.read_text()


def seconds(folder: Path, call: list[str]) -> tuple[float, float]:
    """Return wall time and CPU time of a call."""
    started, before = time.perf_counter(), os.times()
    # an installed program has its byte code
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(
        [sys.executable, "-m", "dltrain", *call], cwd=folder, check=True, stdout=subprocess.DEVNULL, env=env
    )
    after = os.times()
    used = sum(
        getattr(after, f"children_{kind}") - getattr(before, f"children_{kind}")
        for kind in ("user", "system")
    )
    return time.perf_counter() - started, used


def told(times: list[tuple[float, float]]) -> str:
    wall, cpu = (statistics.median(values) for values in zip(*times, strict=True))
    return f"{wall:.2f} s ({cpu:.2f} s CPU)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where the folders are kept; made if they are not there")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    if not (folder / "outputs").exists():
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, given.runs)
    try:
        for call in CALLS:
            cold = []
            for _ in range(3):
                (folder / "outputs" / ".runs.sqlite").unlink(missing_ok=True)
                cold.append(seconds(folder, call))
            warm = [seconds(folder, call) for _ in range(7)]
            print(f"dltrain {' '.join(call)}: cold {told(cold)}, warm {told(warm)}")
    finally:
        if given.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
