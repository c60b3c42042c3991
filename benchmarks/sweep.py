"""A sweep of the reference MLP on digits: processes and stacks against a stock Hydra app, and what a job costs.

    python benchmarks/sweep.py [--runs 32 128] [--epochs 60] [--threads 1 null] [--only launchers,compose,report,start,many]

All train the same jobs (seeds), with checkpoints as by default. The time of a sweep is taken from its folders, from the
first job's start, after the imports, to the last `summary.json`. Run it on
a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dltrain.storage.job_names import job_number

OURS = {"processes": "sweep.backend=local", "stacked": "sweep.backend=auto"}
PROGRAM = ("-m", "dltrain")
HYDRA_APP = (str(Path(__file__).with_name("hydra_app.py")),)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, nargs="+", default=[32])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument(
        "--threads", nargs="+", default=["1", "null"], help="of Hydra's runs; null is torch's choice"
    )
    parser.add_argument("--only", default="launchers,compose,report,start,many")
    args = parser.parse_args()
    wanted = args.only.split(",")
    if "compose" in wanted:
        compose_cost()
    if "report" in wanted:
        report_cost()
    if "start" in wanted:
        start_cost()
    if "launchers" in wanted:
        for runs in args.runs:
            launchers(runs, args.epochs, args.threads)
    if "many" in wanted:
        many_jobs()


# Whole sweeps -----------------------------------------------------------------------------------------------------


def launchers(runs: int, epochs: int, threads: list[str]) -> None:
    """Seconds of the same sweep by each launcher, and their ratio to the best of Hydra's."""
    axes = [f"seed=range({runs})", f"epochs={epochs}"]
    seconds = {
        f"hydra basic, threads={count}": timed([*axes, f"threads={count}"], HYDRA_APP) for count in threads
    }
    best = min(seconds.values())
    seconds |= {
        name: timed([*axes, "early_stopping=none", "quiet=true", word]) for name, word in OURS.items()
    }
    for name, value in seconds.items():
        print(f"{runs} runs of {epochs} epochs  {name:<26} {value:7.2f} s  {value / best:5.2f}", flush=True)


def timed(overrides: list[str], program: tuple[str, ...] = PROGRAM) -> float:
    """Seconds from the start of the first job to the end of the last."""
    with tempfile.TemporaryDirectory() as folder:
        sweep(folder, overrides, program)
        summaries = list(Path(folder).glob("outputs/**/summary.json"))
        begun = min(began(f) for f in summaries)
        stacks = [f.stat() for f in Path(folder).glob("outputs/*/*/stacks.log")]
        if stacks:  # its runs are all built before the first one begins; nothing is written to it but errors
            assert stacks[0].st_size == 0, "the stack said something: see stacks.log"
            begun = stacks[0].st_mtime
        return max(f.stat().st_mtime for f in summaries) - begun


def began(summary: Path) -> float:
    """When a job's process was there, with everything imported: its config.yaml is written once it is built."""
    startup = json.loads(summary.read_text())["startup"]
    return (summary.parent / "config.yaml").stat().st_mtime - startup.get("fork", 0.0) - startup["build"]


def sweep(folder: str, overrides: list[str], program: tuple[str, ...] = PROGRAM) -> subprocess.Popen[bytes]:
    """Run a sweep to its end in a folder."""
    environment = {
        key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    }
    command = [sys.executable, *program, "-m", *overrides]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    assert process.wait() == 0
    return process


def start_cost() -> None:
    """Measure the time from the end of one job to the first step of the next: driver, fork, build, folder."""
    with tempfile.TemporaryDirectory() as folder:
        sweep(folder, ["seed=range(12)", "steps=1", "sweep.jobs=1", "quiet=true", "sweep.backend=local"])
        jobs = sorted(Path(folder).glob("outputs/*/*/[0-9]*"), key=lambda job: job_number(job.name) or 0)
        costs = [
            (job / "config.yaml").stat().st_mtime - (before / "summary.json").stat().st_mtime
            for before, job in zip(jobs, jobs[1:], strict=False)
        ]
    print(f"start of a job after another: median {statistics.median(costs):.3f} s")


def many_jobs(jobs: int = 1000) -> None:
    """Measure the driver's memory over many jobs of one step each."""
    with tempfile.TemporaryDirectory() as folder:
        axes = [f"dataset.split_seed=range({jobs})", "steps=1", "quiet=true", "sweep.backend=local"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        begun = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "dltrain", "-m", *axes],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        memory: dict[int, float] = {}
        while process.poll() is None:
            done = len(list(Path(folder).glob("outputs/*/*/[0-9]*/.hydra")))
            memory[done // 100 * 100] = resident_mib(process.pid) or memory.get(done // 100 * 100, 0.0)
            time.sleep(1)
        done = len(list(Path(folder).glob("outputs/*/*/*/summary.json")))
    shown = "  ".join(f"{count}: {mib:.0f}" for count, mib in sorted(memory.items()))
    print(f"{done} one-step jobs in {time.monotonic() - begun:.0f} s; driver in MiB by jobs begun: {shown}")


def resident_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
    except (OSError, StopIteration):
        return 0.0


# Parts of the driver ----------------------------------------------------------------------------------------------


def compose_cost() -> None:
    """Composing and validating a job: Hydra's composition alone, with our checks, and the sweep's."""
    from hydra.types import RunMode

    from dltrain.config.compose import compose, open_catalogue, open_hydra
    from dltrain.config.validation import validate
    from dltrain.sweep.plan.composer import Composer

    catalogue = open_catalogue()
    hydra = open_hydra(catalogue)
    composer = Composer(catalogue, hydra)
    texts = [
        ["optimizer=momentum", f"lr={0.01 * i:.3f}", f"model.dropout={0.001 * i:.4f}"] for i in range(1, 201)
    ]
    composer.config(texts[0])
    ours = median_ms(lambda text: composer.config(text), texts)
    checked = median_ms(lambda text: validate(compose(text, catalogue, hydra)), texts[:10])
    stock = median_ms(
        lambda text: hydra.compose_config("config", text, RunMode.RUN, with_log_configuration=False),
        texts[:10],
    )
    print(
        f"compose and validate a job: ours {ours:.2f} ms, Hydra's composition alone {stock:.1f} ms "
        f"({stock / ours:.0f} ×), Hydra with our checks {checked:.1f} ms"
    )


def median_ms(act: Any, items: list[Any]) -> float:
    times = []
    for item in items:
        begun = time.perf_counter()
        act(item)
        times.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(times)


def report_cost(trials: int = 40, evaluations: int = 30) -> None:
    """Report and prune, in the driver, with the journal on the disk."""
    from dltrain.sweep.plan.space import Axis
    from dltrain.sweep.samplers import random
    from dltrain.sweep.study import Study, make_pruner

    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder), [Axis("lr", low=0.0, high=1.0)], random(0), ["minimize"])
        pruner = make_pruner("asha", evaluations, "auto")
        assert pruner is not None
        study.use_pruner(pruner)
        times = []
        for _ in range(trials):
            trial, chosen = study.ask()
            for step in range(1, evaluations + 1):
                begun = time.perf_counter()
                study.report(trial, step, chosen["lr"] + 1 / step)
                stop = study.should_prune(trial)
                times.append(time.perf_counter() - begun)
                if stop:
                    break
            study.finish(trial, None if stop else [chosen["lr"]], pruned=stop)
    print(f"report and prune: median {1e3 * statistics.median(times):.2f} ms, of {len(times)}")


main()
