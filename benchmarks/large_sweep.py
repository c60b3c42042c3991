"""A sweep of very many jobs that train nothing: the plan, the driver's bookkeeping, its memory, and how soon it goes on.

    python benchmarks/large_sweep.py [--jobs 100000] [--kills 10] [--only plan,driver]

plan: a dry run of the jobs, and of ten times as many. driver: the real driver with a backend whose workers only write a summary; one
in ten is killed once, the driver is killed `--kills` times and started again by the same command, and at the end the failed jobs run
again. Each job must be there once. CPU seconds are those of the process, memory is its largest resident set.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BACKEND = '''
"""A backend whose jobs end at once: their summary is all that they write."""
import json
import os
import time
from collections import deque

from dltrain.sweep.backends.protocol import Ended, Started


class Instant:
    """Jobs that train nothing.

        no-op

    Use: a benchmark.

    Args:
        kills: one in so many jobs is killed the first time
    """

    def __init__(self, sweep, kills: int = 0) -> None:
        self.waiting, self.kills, self.places = deque(), kills, 64

    def submit(self, job) -> None:
        self.waiting.append(job)

    def events(self):
        with open("started.txt", "a") as log:
            log.write(f"{time.time()}\\n") if log.tell() == 0 else None
        for _ in range(len(self.waiting)):
            job = self.waiting.popleft()
            yield Started(job)
            job.folder.mkdir(exist_ok=True)
            aside = job.folder.with_name(f"{job.folder.name}-failed-1")
            if self.kills and job.number % self.kills == 0 and not aside.exists():
                yield Ended(job, -9)
                continue
            value = (job.number * 7919 % 100003) / 1e5
            best = {"epoch": 1.0, "step": 10.0, "train/loss": value, "val/loss": value, "val/accuracy": 1 - value, "grad_norm": 1.0}
            summary = {"status": "completed", "objective": value, "best": best, "best_epoch": 1.0, "seconds": 0.0,
                       "overrides": job.overrides, "stop_reason": "all 10 steps done", "parameters": 650,
                       "config": dict.fromkeys(map(str, range(100)), 0.5)}
            beside = job.folder / ".summary.json.tmp"
            beside.write_text(json.dumps(summary))
            os.replace(beside, job.folder / "summary.json")
            with open("done.txt", "a") as log:
                log.write(f"{job.number}\\n")
            yield Ended(job, 0)

    def cancel(self, job) -> None:
        if job in self.waiting:
            self.waiting.remove(job)

    def close(self) -> None: ...
'''


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=10, help="of the driver")
    parser.add_argument("--only", default="plan,driver")
    args = parser.parse_args()
    for part in args.only.split(","):
        {"plan": plan, "driver": driver}[part](args.jobs, args.kills)


def axes(jobs: int) -> list[str]:
    """Twenty configurations of two axes, repeated."""
    return ["lr=0.1,0.03,0.01,0.003,0.001", "batch_size=16,32,64,128", f"seed=range({jobs // 20})"]


def dltrain(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    with open(folder / "out.txt", "ab") as out:
        return subprocess.Popen([sys.executable, "-m", "dltrain", "-m", *words], cwd=folder, stdout=out, stderr=out)  # fmt: skip


def ended(process: subprocess.Popen[bytes]) -> tuple[int, float, float]:
    """Return the exit code of a process, its CPU seconds and its largest resident set in MB."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000


def plan(jobs: int, kills: int) -> None:
    for count in (jobs, 10 * jobs):
        with tempfile.TemporaryDirectory() as name:
            code, cpu, memory = ended(dltrain(Path(name), *axes(count), "sweep.dry_run=true"))
            print(
                f"dry run of {count} jobs: exit code {code}, {cpu:.1f} s of CPU, {memory:.0f} MB", flush=True
            )


def driver(jobs: int, kills: int) -> None:
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "instant.py").write_text(BACKEND)
        (folder / "conf" / "sweep" / "backend").mkdir(parents=True)
        (folder / "conf" / "sweep" / "backend" / "instant.yaml").write_text("_target_: instant.Instant\n")
        command = [*axes(jobs), "sweep.backend=instant", "sweep.backend.kills=10"]
        cpu = memory = 0.0
        restarts = []
        for turn in range(kills + 2):
            last = turn == kills + 1
            before = count(folder)
            if last:
                (record,) = folder.glob("outputs/*/*/sweep.json")
                command += [f"sweep.resume={record.parent.relative_to(folder)}", "sweep.retry=failed"]
            begun, process = time.monotonic(), dltrain(folder, *command)
            while count(folder) == before and runs(process):
                time.sleep(0.05)
            restarts.append(time.monotonic() - begun)
            if turn < kills:
                goal = before + max(
                    1, (int(0.9 * jobs) - before) * draw.uniform(0.5, 1.5) / (kills + 1 - turn)
                )
                while count(folder) < goal and runs(process):
                    time.sleep(0.02)
                process.send_signal(signal.SIGKILL)
            code, used, most = ended(process)
            cpu, memory = cpu + used, max(memory, most)
            print(f"driver {turn}: first job after {restarts[-1]:.1f} s, {count(folder)} jobs done, exit code {code}, "
                  f"{used:.1f} s of CPU, {most:.0f} MB", flush=True)  # fmt: skip
        report(folder, jobs, kills, cpu, memory)


def runs(process: subprocess.Popen[bytes]) -> bool:
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def count(folder: Path) -> int:
    """Return how many jobs were done until now: a line each."""
    file = folder / "done.txt"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def report(folder: Path, jobs: int, kills: int, cpu: float, memory: float) -> None:
    (sweep,) = folder.glob("outputs/*/*")
    with open(sweep / "results.csv", encoding="utf-8") as stream:
        states = {int(row["job"]): row["status"] for row in csv.DictReader(stream)}
    numbers = [int(line) for line in (folder / "done.txt").read_text().split()]
    assert sorted(states) == list(range(jobs)) and set(states.values()) == {"completed"}, "a job is missing"
    assert len(numbers) - len(set(numbers)) <= kills, "a job ran twice"
    assert json.loads((sweep / "sweep.json").read_text())["finished"]
    sizes = {file.name: file.stat().st_size // 1000 for file in sweep.iterdir() if file.is_file()}
    print(
        f"{jobs} jobs, each once; {1000 * cpu / jobs:.2f} ms of CPU a job, all drivers together, {memory:.0f} MB; files in kB: {sizes}"
    )


if __name__ == "__main__":
    main()
