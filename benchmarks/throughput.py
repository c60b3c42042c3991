"""Throughput of the training loop: dltrain beside the plain loop, Lightning, skorch, fastai and Keras.

    pip install -e '.[peers]'
    python benchmarks/throughput.py --data data --model mlp

The reference task: 60,000 images of 1×28×28 in memory (MNIST's where --data names a folder with MNIST/raw,
else synthetic ones), 50,000 to train on and 10,000 that validate after each epoch, batch 128, Adam 1e-3,
fp32. Every contender runs in a process of its own, in turn (A B C A B C …), so that a drift of the machine
meets all alike, and in front of a pseudo-terminal, so that progress bars are really drawn. Ratios are those
to the plain loop of the same round; the first epoch of each process is left out.
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
from statistics import median
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
    "skorch-tuned": "no callbacks, tensor batches, fused Adam, channels_last",
    "fastai": "default: its loader and Adam, bar, recorder",
    "fastai-tuned": "no bar, no recorder, tensor batches, fused Adam, channels_last",
    "keras": "default: its layers, bar, metrics",
    "keras-tuned": "torch's layers, no bar, no metrics, channels_last",
}
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
        "--epochs", type=int, default=4, help="epochs of each run, of which the first is left out"
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contender")
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
        rounds: list[dict[str, Result]] = []
        for number in range(1, args.rounds + 1):
            rounds.append({})
            for contender in contenders:
                outcome = run(contender, task, folder, args.prefix)
                if outcome is not None:
                    rounds[-1][contender] = outcome
                    progress = images_per_second(outcome, args.images)
                    print(f"round {number}  {contender:15} {progress:9,.0f} images/s", file=sys.stderr)
    if args.json:
        facts = {"arguments": {key: str(value) for key, value in vars(args).items()}, "rounds": rounds}
        args.json.write_text(json.dumps(facts, indent=1))
    print(table(rounds, args.images))


def present(names: Sequence[str]) -> list[str]:
    """The contenders that are installed; the plain loop is always among them."""
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


def run(contender: str, task: Path, folder: Path, prefix: str) -> Result | None:
    """One contender in a process, a folder and a terminal of its own; None if it fails, with its last words."""
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    command = [*shlex.split(prefix), sys.executable, "-m", "peers.run", str(task), contender, str(result)]
    with tempfile.TemporaryDirectory(dir=folder) as own:
        code, output = run_in_terminal(command, own, environment(json.loads(task.read_text())["threads"]))
    if code != 0 or not result.is_file():
        print(f"{contender} ended with code {code}:\n{output[-2000:]}", file=sys.stderr)
        return None
    outcome: Result = json.loads(result.read_text())
    return outcome


def environment(threads: int) -> dict[str, str]:
    """The same threads for all; this folder and the repository are importable, after PYTHONPATH."""
    paths = [os.environ.get("PYTHONPATH", ""), str(HERE), str(HERE.parent)]
    fixed = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "TERM": "xterm-256color"}
    return {**os.environ, **fixed, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def run_in_terminal(command: list[str], folder: str, environ: dict[str, str]) -> tuple[int, str]:
    """The exit code and the output of a command that writes to a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    process = subprocess.Popen(command, cwd=folder, env=environ, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    output: list[bytes] = []
    reader = threading.Thread(target=read_all, args=(ours, output))
    reader.start()
    code = process.wait()
    reader.join()
    os.close(ours)
    return code, b"".join(output).decode(errors="replace")


def read_all(terminal: int, output: list[bytes]) -> None:
    """Read until the last writer has closed the terminal, which Linux reports as an error."""
    try:
        while block := os.read(terminal, 65536):
            output.append(block)
    except OSError:
        pass


# The table ----------------------------------------------------------------------------------------


def images_per_second(outcome: Result, images: int, whole: bool = False) -> float:
    """Training images a second in the median epoch: of the training alone, or of the whole epoch."""
    return (images - images // 6) / median(epoch[whole] for epoch in outcome["epochs"])


def table(rounds: list[dict[str, Result]], images: int) -> str:
    """A row for each contender in Markdown, with the median over the rounds; ratios within a round."""
    head = (
        "| contender | version | images/s | × plain | lowest–highest | with validation | × plain | accuracy |"
    )
    rows = [head, "|---|---|--:|--:|--:|--:|--:|--:|"]
    for name in (name for name in CONTENDERS if any(name in outcomes for outcomes in rounds)):
        runs = [outcomes for outcomes in rounds if name in outcomes and "plain" in outcomes]
        rows.append(row(name, runs, images))
    return "\n".join(rows)


def row(name: str, runs: list[dict[str, Result]], images: int) -> str:
    def speeds(contender: str, whole: bool) -> list[float]:
        return [images_per_second(outcomes[contender], images, whole) for outcomes in runs]

    def ratios(whole: bool) -> list[float]:
        return [a / b for a, b in zip(speeds(name, whole), speeds("plain", whole), strict=True)]

    training, whole = ratios(False), ratios(True)
    version, accuracy = runs[0][name]["version"], median(outcomes[name]["accuracy"] for outcomes in runs)
    return (
        f"| {name}: {CONTENDERS[name]} | {version} "
        f"| {median(speeds(name, False)):,.0f} | {median(training):.2f} "
        f"| {min(training):.2f}–{max(training):.2f} "
        f"| {median(speeds(name, True)):,.0f} | {median(whole):.2f} | {accuracy:.4f} |"
    )


if __name__ == "__main__":
    main()
