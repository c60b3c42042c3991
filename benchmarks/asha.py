"""ASHA against the full grid: how good a configuration it finds, for what share of the compute.

    python benchmarks/asha.py [--keep FOLDER] [--seeds 0 1 2 3 4] [--live]

The space: 64 configurations (lr × optimizer × activation × dropout) of the reference CNN on digits, 27 epochs, half of the
samples (898) for validation. For each seed the whole grid is trained once, by a sweep like any other (a minute on two
cores). Its curves, kept in `--keep`, are then played to the sweep's own study and pruner in the order in which a driver with
two slots would hear them, each epoch taking the time that it took: once shuffled, as a pruned sweep tries a grid, and once in
the order of the axes. That is what a pruned sweep does, without training everything again; `--live` trains the pruned sweep
of the first seed besides, to compare.

Compute counts in epochs. The target: within 0.2 points of the grid's best validation accuracy for at most 35 %.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dltrain.storage.job_names import job_number
from dltrain.sweep.plan.grid import shuffled
from dltrain.sweep.plan.space import Axis
from dltrain.sweep.study import Listed, Study, make_pruner

EPOCHS = 27
AXES = (
    "lr=1e-5,1e-4,1e-3,3e-3,1e-2,3e-2,1e-1,1",
    "optimizer=momentum,adam",
    "model.activation=relu,sigmoid",
    "model.dropout=0,0.5",
)
FIXED = (
    "model=cnn", "dataset.val_fraction=0.5", f"epochs={EPOCHS}", "early_stopping=none",
    "early_stopping.metric=val/accuracy", "early_stopping.mode=max", "threads=1", "quiet=true",
)  # fmt: skip


@dataclass
class Curve:
    """A configuration's validation accuracy after each epoch, fewer than all where it diverged, and an epoch's seconds."""

    accuracies: list[float]
    seconds: float
    whole: bool


@dataclass
class Found:
    """What a search came to: its best accuracy and the epochs that it trained."""

    best: float
    epochs: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", default=None, help="folder of the grids; unset, a temporary one")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--live", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.keep or temporary)
        grids = {seed: grid(folder / f"grid-{seed}", seed) for seed in args.seeds}
        for order in ("shuffled", "axes"):
            results = [compare(curves, seed, order) for seed, curves in grids.items()]
            gaps, shares = zip(*results, strict=True)
            print(
                f"order {order}, mean of {len(results)} seeds: {statistics.mean(gaps):.2f} points below the grid's best, "
                f"{100 * statistics.mean(shares):.1f} % of its epochs"
            )
        if args.live:
            live(folder / "live", args.seeds[0])


def sweep(folder: Path, seed: int, *more: str) -> None:
    """Train the space in a folder; jobs that diverge are part of it."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "dltrain",
        "-m",
        *AXES,
        *FIXED,
        f"seed={seed}",
        *more,
    ]
    code = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=False).returncode
    assert code in (0, 7), code


def grid(folder: Path, seed: int) -> list[Curve]:
    """Return the curves of the whole space, which are trained now unless they are stored."""
    if not finished(folder):
        sweep(folder, seed, f"sweep.jobs={os.environ.get('JOBS', 'auto')}")
    return curves_of(folder)


def finished(folder: Path) -> bool:
    records = [json.loads(file.read_text()) for file in folder.glob("outputs/*/*/sweep.json")]
    return any(record["finished"] for record in records)


def curves_of(folder: Path) -> list[Curve]:
    """In the order of the jobs."""
    curves = []
    for job in sorted(
        folder.glob("outputs/*/*/*/summary.json"), key=lambda file: job_number(file.parent.name) or 0
    ):
        file = job.parent / "metrics.csv"
        rows = list(csv.DictReader(file.read_text().splitlines())) if file.is_file() else []
        seconds = statistics.median([float(row["seconds"]) for row in rows] or [0.1])
        accuracies = [float(row["val/accuracy"]) for row in rows]
        curves.append(Curve(accuracies, seconds, len(accuracies) == EPOCHS))
    return curves


def compare(curves: list[Curve], seed: int, order: str) -> tuple[float, float]:
    """Points below the best of the grid, and the share of its epochs, of ASHA; prints both and the space."""
    whole = Found(max(best_of(c) for c in curves), sum(len(c.accuracies) for c in curves))
    median = statistics.median(best_of(c) for c in curves)
    jobs = shuffled(len(curves)) if order == "shuffled" else list(range(len(curves)))
    asha = replay(curves, jobs)
    gap, share = 100 * (whole.best - asha.best), asha.epochs / whole.epochs
    print(
        f"order {order}, seed {seed}: {len(curves)} configurations, best {100 * whole.best:.2f} %, median {100 * median:.2f} %; "
        f"ASHA {gap:.2f} points below the best, {100 * share:.1f} % of the epochs",
        flush=True,
    )
    return gap, share


def best_of(curve: Curve) -> float:
    return max(curve.accuracies, default=0.0)


def replay(curves: list[Curve], order: list[int], slots: int = 2) -> Found:
    """Run a pruned sweep over recorded curves, with the study, the pruner and the order of events of the driver."""
    with tempfile.TemporaryDirectory() as folder:
        labels = tuple((str(i), (f"job={i}",)) for i in range(len(curves)))
        configurations = [{"job": labels[job][0]} for job in order]
        study = Study(Path(folder), [Axis("job", labels)], Listed(configurations), ["maximize"])
        pruner = make_pruner("asha", EPOCHS, "auto", "max")
        assert pruner is not None
        study.use_pruner(pruner)
        waiting, found = list(order), Found(0.0, 0)
        trials, events = {}, []  # events: (time, job, epoch)

        def begin(now: float) -> None:
            if waiting:
                job = waiting.pop(0)
                trials[job] = study.ask()[0]
                heapq.heappush(events, (now + curves[job].seconds, job, 1))

        for _ in range(slots):
            begin(0.0)
        while events:
            now, job, epoch = heapq.heappop(events)
            curve, trial = curves[job], trials[job]
            over = epoch > len(curve.accuracies)  # it diverged in this epoch
            if not over:
                found.epochs += 1
                found.best = max(found.best, curve.accuracies[epoch - 1])
                study.report(trial, epoch, curve.accuracies[epoch - 1])
            if over:
                study.finish(trial, None)
            elif study.should_prune(trial):
                study.finish(trial, None, pruned=True)
            elif epoch == EPOCHS:
                study.finish(trial, [best_of(curve)])
            else:
                heapq.heappush(events, (now + curve.seconds, job, epoch + 1))
                continue
            begin(now)
        return found


def live(folder: Path, seed: int) -> None:
    """Run the pruned sweep itself."""
    sweep(folder, seed, "sweep.pruner=asha")
    curves = curves_of(folder)
    best, epochs = max(best_of(c) for c in curves), sum(len(c.accuracies) for c in curves)
    print(f"live, seed {seed}: best {100 * best:.2f} %, {epochs} epochs")


main()
