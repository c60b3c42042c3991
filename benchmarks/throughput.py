"""Throughput of the training loop: dltrain beside the plain loop, Lightning, skorch, fastai and Keras.

    pip install -e '.[peers]'
    python benchmarks/throughput.py --data data --model mlp

The reference task: 60,000 images of 1×28×28 in memory (MNIST's where --data names a folder with MNIST/raw,
else synthetic ones), 50,000 to train on and 10,000 that validate after each epoch, batch 128, Adam 1e-3,
fp32. Every contender is a process of its own, in front of a pseudo-terminal, so that progress bars are really
drawn. All of them are under way at once, but one at a time trains: an epoch of the first, an epoch of the
second, and so on, then the next epoch of each. So a drift of the machine, which can be a factor of two, meets
all alike. Ratios are those to the plain loop's epoch of the same number; the first epoch is left out.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.util
import json
import os
import pty
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

HERE = Path(__file__).resolve().parent
NEEDS = {"lightning": "lightning", "skorch": "skorch", "fastai": "fastai", "keras": "keras"}
# each way to run a contender, and what `tuned` stands for
CONTENDERS = {
    "plain": "loop by hand: indexed tensors, fused Adam, no logging",
    "plain-tuned": "the fastest by hand: index_select, channels_last, memory kept",
    "dltrain": "its command, everything on",
    "lightning": "default: DataLoader, bar, logger, checkpoints",
    "lightning-tuned": "barebones, tensor batches, fused Adam, channels_last",
    "skorch": "default: DataLoader, table, scoring",
    "skorch-logged": "tensor batches, fused Adam, channels_last; table, scoring",
    "skorch-tuned": "no callbacks, tensor batches, fused Adam, channels_last",
    "fastai": "default: its loader and Adam, bar, recorder",
    "fastai-tuned": "no bar, no recorder, tensor batches, fused Adam, channels_last",
    "keras": "default: its layers, bar, metrics",
    "keras-tuned": "torch's layers, no bar, no metrics, channels_last",
}
MODULE = ["-m", "peers.run"]
TURN = "THROUGHPUT_TURN"  # as in peers/problem.py, which needs torch
Result = dict[str, Any]  # an Outcome as JSON


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", choices=("mlp", "cnn"), default="mlp", help="784-256-128-10, or 16 and 32 channels"
    )
    parser.add_argument("--data", type=Path, help="folder with MNIST/raw; unset, synthetic images")
    parser.add_argument("--images", type=int, default=60_000, help="images in all; a sixth of them validates")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument(
        "--epochs", type=int, default=12, help="epochs of each run, of which the first is left out"
    )
    parser.add_argument("--rounds", type=int, default=1, help="runs of each contender, from its start")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each contender")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME"
    )
    parser.add_argument("--prefix", default="", help="command in front of each run, such as 'taskset -c 0,1'")
    parser.add_argument("--json", type=Path, help="also write all outcomes here")
    args = parser.parse_args(argv)
    if args.epochs < 2:
        parser.error("--epochs must be at least 2: the first is left out")
    if args.images < 6 * args.batch_size:
        parser.error("--images must be at least 6 times --batch-size")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Run the contenders in turn and print the table."""
    args = parse(argv)
    contenders = present(args.contenders)
    with tempfile.TemporaryDirectory(prefix="throughput-") as name:
        folder = Path(name)
        task = prepare(args, folder)
        rounds = [relay(contenders, task, folder, args) for _ in range(args.rounds)]
    if args.json:
        facts = {"arguments": {key: str(value) for key, value in vars(args).items()}, "rounds": rounds}
        args.json.write_text(json.dumps(facts, indent=1))
    print(table(rounds, args.images))


def present(names: Sequence[str]) -> list[str]:
    """Return the contenders that are installed; the plain loop is always among them."""
    chosen = [name for name in CONTENDERS if name in {*names, "plain"}]
    missing = [p for p, module in NEEDS.items() if any(n.startswith(p) for n in chosen) and not find(module)]
    for peer in missing:
        print(f"{peer} is not installed and is left out: pip install -e '.[peers]'", file=sys.stderr)
    return [name for name in chosen if name.partition("-")[0] not in missing]


def find(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def prepare(args: argparse.Namespace, folder: Path) -> Path:
    """Write the data and the task; returns the task's file."""
    from peers import problem

    arrays = problem.read_mnist(args.data, args.images) if args.data else problem.synthetic(args.images)
    problem.write_data(folder / "data.npz", *arrays)
    fields = {name: getattr(args, name) for name in ("model", "epochs", "batch_size", "threads", "device")}
    task = folder / "task.json"
    task.write_text(json.dumps({**fields, "data": str(folder / "data.npz")}))
    return task


def relay(contenders: Sequence[str], task: Path, folder: Path, args: argparse.Namespace) -> dict[str, Result]:
    """All contenders from start to end, an epoch of each in turn; those that fail are missing."""
    runners = []
    for number, contender in enumerate(contenders):  # one at a time reads the data and waits
        own = Path(tempfile.mkdtemp(dir=folder))
        runners.append(Runner(contender, task, own, args.prefix, args.threads))
        runners[-1].wait()
        print(f"{number + 1} of {len(contenders)} ready: {contender}", file=sys.stderr)
    for epoch in range(args.epochs):
        first = epoch % len(runners)  # who comes after whom is always the same, who begins is not
        for runner in (*runners[first:], *runners[:first]):
            runner.take_turn()
        print(f"epoch {epoch + 1} of {args.epochs}", file=sys.stderr)
    outcomes = {runner.name: runner.outcome() for runner in runners}
    return {name: outcome for name, outcome in outcomes.items() if outcome is not None}


class Runner:
    """A contender under way, in a process, a folder and a terminal of its own."""

    def __init__(self, name: str, task: Path, folder: Path, prefix: str, threads: int) -> None:
        self.name, self.result = name, folder / "result.json"
        (self.over, their_over), (their_turn, self.turn) = os.pipe(), os.pipe()
        command = [*shlex.split(prefix), sys.executable, *MODULE, str(task), name, str(self.result)]
        self.process = Process(command, folder, environment(threads, (their_over, their_turn)))
        os.close(their_over)
        os.close(their_turn)
        self.going = True

    def wait(self) -> None:
        """Until its turn is over; a process that has died ends it, too."""
        self.going = self.going and os.read(self.over, 1) == b"."

    def take_turn(self) -> None:
        if self.going:
            os.write(self.turn, b".")
            self.wait()

    def outcome(self) -> Result | None:
        """Let it come to its end; None if it failed, with its last words."""
        if self.going:
            os.write(self.turn, b".")
        code, output = self.process.end()
        os.close(self.over)
        os.close(self.turn)
        if code != 0 or not self.result.is_file():
            print(f"{self.name} ended with code {code}:\n{output[-2000:]}", file=sys.stderr)
            return None
        outcome: Result = json.loads(self.result.read_text())
        return outcome


def environment(threads: int, turn: tuple[int, int]) -> dict[str, str]:
    """Return the environment of a contender: the same threads for all; this folder and the repository are importable, after PYTHONPATH."""
    paths = [os.environ.get("PYTHONPATH", ""), str(HERE), str(HERE.parent)]
    fixed = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "TERM": "xterm-256color"}
    own = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), TURN: f"{turn[0]} {turn[1]}"}
    return {**os.environ, **fixed, **own}


class Process:
    """A command that writes to a terminal of 100 columns."""

    def __init__(self, command: list[str], folder: Path, environ: dict[str, str]) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        passed = tuple(map(int, environ.get(TURN, "").split()))
        self.process = subprocess.Popen(
            command, cwd=folder, env=environ, stdin=theirs, stdout=theirs, stderr=theirs, pass_fds=passed
        )
        os.close(theirs)
        self.terminal, self.output = ours, list[bytes]()
        self.reader = threading.Thread(target=read_all, args=(ours, self.output))
        self.reader.start()

    def end(self) -> tuple[int, str]:
        """Wait for it; its exit code and what it wrote."""
        code = self.process.wait()
        self.reader.join()
        os.close(self.terminal)
        return code, b"".join(self.output).decode(errors="replace")


def read_all(terminal: int, output: list[bytes]) -> None:
    """Read until the last writer has closed the terminal, which Linux reports as an error."""
    try:
        while block := os.read(terminal, 65536):
            output.append(block)
    except OSError:
        pass


# The table ----------------------------------------------------------------------------------------


def table(rounds: list[dict[str, Result]], images: int) -> str:
    """Return a row for each contender in Markdown: medians over the epochs of all rounds, ratios epoch by epoch."""
    head = "| contender | version | images/s | × plain | middle half | with validation | × plain | accuracy |"
    rows = [head, "|---|---|--:|--:|--:|--:|--:|--:|"]
    for name in (name for name in CONTENDERS if any(name in outcomes for outcomes in rounds)):
        runs = [outcomes for outcomes in rounds if name in outcomes and "plain" in outcomes]
        rows.append(row(name, runs, images - images // 6))
    return "\n".join(rows)


def row(name: str, runs: list[dict[str, Result]], images: int) -> str:
    def seconds(contender: str, whole: bool) -> list[float]:
        return [epoch[whole] for outcomes in runs for epoch in outcomes[contender]["epochs"]]

    def ratios(whole: bool) -> list[float]:
        return [p / s for p, s in zip(seconds("plain", whole), seconds(name, whole), strict=True)]

    training, whole = ratios(False), ratios(True)
    low, _, high = quantiles(training, n=4, method="inclusive") if len(training) > 1 else training * 3
    version, accuracy = runs[0][name]["version"], median(outcomes[name]["accuracy"] for outcomes in runs)
    return (
        f"| {name}: {CONTENDERS[name]} | {version} "
        f"| {images / median(seconds(name, False)):,.0f} | {median(training):.3f} | {low:.2f}–{high:.2f} "
        f"| {images / median(seconds(name, True)):,.0f} | {median(whole):.3f} | {accuracy:.4f} |"
    )


if __name__ == "__main__":
    main()
