"""Run configurations and record what they give: every number of metrics.csv but times, the score, digests of the weights."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import platform
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configurations import Configuration, write_data

from dltrain.storage.job_names import job_label

FILE = Path(__file__).with_name("results.json")
TIMES = ("seconds", "images_per_second")
FACTS = ("status", "steps", "best_epoch", "objective", "test")
Result = dict[str, Any]  # of one run: {"metrics": {column: [values]}, "summary": {…}, "weights": {file: {…}}}


def machine() -> dict[str, str]:
    """What bits depend on: another torch or another processor sums in another order."""
    import torch

    return {
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "processor": processor(),
    }


def processor() -> str:
    """The processor's name: MKL chooses its kernels by it."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else []
    return names[0].strip() if names else platform.processor()


# Running ----------------------------------------------------------------------------------------------------------


def run_all(chosen: list[Configuration]) -> Iterator[tuple[Configuration, dict[str, Result] | str]]:
    """Yield the results of each configuration by job ("" for a single run), or the words of its failure."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    import dltrain.run.experiment  # noqa: F401  (imported once, before the forks)

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        write_data(Path(folder))
        for configuration in chosen:
            yield configuration, run(configuration, Path(folder))


def run(configuration: Configuration, folder: Path) -> dict[str, Result] | str:
    """Train in a forked process, so that no state leaks into the next configuration."""
    output = folder / "outputs" / configuration.name
    log = folder / f"{configuration.name}.log"
    arguments = [*configuration.arguments, f"output={output}"]
    code = in_child(arguments, folder, log, configuration.stop, configuration.kill)
    if configuration.stop or configuration.kill:
        expected = 143 if configuration.stop else 137
        if code != expected:
            return f"ended with {code} where {expected} was expected: {last_line(log)}"
        (path,) = {file.parent for file in output.glob("*/*/config.yaml")}
        code = in_child(["resume", str(path), "quiet=true"], folder, log)
    if code != 0:
        return f"exit code {code}: {last_line(log)}"
    found = {
        file.parent for file in output.glob("*/**/summary.json") if (file.parent / "metrics.csv").is_file()
    }
    results = {job_label(path.name) if "-m" in arguments else "": result_of(path) for path in sorted(found)}
    return results or f"left no run: {last_line(log)}"


def in_child(arguments: list[str], folder: Path, log: Path, stop: int = 0, kill: int = 0) -> int:
    """Run a command line in a fork, its output in a file; returns the exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        os.chdir(folder)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        if stop or kill:
            end_after(stop or kill, hard=bool(kill))
        code = command_line(arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def command_line(arguments: list[str]) -> int:
    from dltrain.cli import main

    try:
        main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    return 0


def end_after(steps: int, hard: bool) -> None:
    """Send SIGTERM, or die without saving, after so many steps of torch optimizers (a wrap's own step counts too)."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    done = 0

    def count(*_: object) -> None:
        nonlocal done
        done += 1
        if done == steps:
            os._exit(137) if hard else signal.raise_signal(signal.SIGTERM)

    register_optimizer_step_post_hook(count)


def last_line(log: Path) -> str:
    lines = log.read_text().strip().splitlines()
    return lines[-1] if lines else "without a message"


def result_of(path: Path) -> Result:
    """Read a run folder."""
    from safetensors.torch import load_file

    with open(path / "metrics.csv") as stream:
        rows = list(csv.DictReader(stream))
    columns = [name for name in rows[0] if name not in TIMES]
    summary = json.loads((path / "summary.json").read_text())
    checkpoints = path / "checkpoints"
    files = [file for file in (checkpoints / "best.safetensors",) if file.is_file()]
    files += sorted(checkpoints.glob("step-*/weights.safetensors"))[-1:]
    return {
        "metrics": {name: [float(row[name]) for row in rows] for name in columns},
        "summary": {key: summary.get(key) for key in FACTS},
        "weights": {
            "best" if file.parent == checkpoints else "last": digest(load_file(file)) for file in files
        },
    }


def digest(weights: dict[str, Any]) -> dict[str, Any]:
    """SHA-256 over names, types, shapes and bytes of all tensors, and their common norm, which can be compared loosely."""
    import torch

    sha256, squares = hashlib.sha256(), 0.0
    for name, tensor in sorted(weights.items()):
        flat = tensor.contiguous().reshape(-1)
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha256.update(flat.view(torch.uint8).numpy().tobytes())
        squares += float(flat.double().square().sum())
    return {"sha256": sha256.hexdigest(), "norm": math.sqrt(squares)}


# The file ---------------------------------------------------------------------------------------------------------


def write(file: Path, recorded: dict[str, Any]) -> None:
    """JSON with one line for each column: floats as Python's repr, which reads back as the same bits."""
    file.write_text(dump(recorded) + "\n", encoding="utf-8")


def dump(value: Any, indent: str = "") -> str:
    """Break dictionaries of dictionaries and of lists over lines; all else stays on one."""
    inner = isinstance(value, dict) and any(isinstance(item, dict | list) for item in value.values())
    if not inner:
        return json.dumps(value, ensure_ascii=False)
    deeper = indent + " "
    items = (f"{deeper}{json.dumps(key)}: {dump(item, deeper)}" for key, item in value.items())
    return "{\n" + ",\n".join(items) + f"\n{indent}}}"


def read(file: Path) -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return recorded


# Comparing --------------------------------------------------------------------------------------------------------


def differences(before: dict[str, Result], now: dict[str, Result], tolerance: float) -> list[str]:
    """Say what differs: which jobs, columns and rows; an empty list where nothing does."""
    if before.keys() != now.keys():
        return [f"jobs were {', '.join(before)} and are {', '.join(now)}"]
    found = []
    for job in before:
        for text in differences_of_a_run(before[job], now[job], tolerance):
            found.append(f"job {job}: {text}" if job else text)
    return found


def differences_of_a_run(before: Result, now: Result, tolerance: float) -> list[str]:
    found = []
    was, has = before["metrics"], now["metrics"]
    found += [f"column {name} is gone" for name in was if name not in has]
    found += [f"column {name} is new" for name in has if name not in was]
    for name in was:
        if name in has and (text := difference_of_a_column(was[name], has[name], tolerance)):
            found.append(f"column {name}: {text}")
    for key in before["summary"]:
        if not equal(before["summary"][key], now["summary"].get(key), tolerance):
            found.append(f"summary {key}: was {before['summary'][key]}, is {now['summary'].get(key)}")
    for name in before["weights"].keys() | now["weights"].keys():
        one, other = before["weights"].get(name), now["weights"].get(name)
        if one is None or other is None:
            found.append(f"{name} weights are {'new' if one is None else 'gone'}")
        elif tolerance == 0 and one["sha256"] != other["sha256"]:
            found.append(f"{name} weights: another digest (norm was {one['norm']!r}, is {other['norm']!r})")
        elif not equal(one["norm"], other["norm"], tolerance):
            found.append(f"{name} weights: norm was {one['norm']!r}, is {other['norm']!r}")
    return found


def difference_of_a_column(before: list[float], now: list[float], tolerance: float) -> str | None:
    if len(before) != len(now):
        return f"{len(before)} rows were recorded, there are {len(now)}"
    for row, (was, has) in enumerate(zip(before, now, strict=True), start=1):
        if not equal(was, has, tolerance):
            return f"first in row {row}: was {was!r}, is {has!r}"
    return None


def equal(before: Any, now: Any, tolerance: float) -> bool:
    """Equality of plain data; numbers within a relative tolerance (and 1e-6, where they are near 0)."""
    if isinstance(before, dict) and isinstance(now, dict):
        return before.keys() == now.keys() and all(equal(before[key], now[key], tolerance) for key in before)
    if isinstance(before, float | int) and isinstance(now, float | int):
        if math.isnan(before) or math.isnan(now):
            return math.isnan(before) and math.isnan(now)
        if tolerance == 0:
            return before == now
        return math.isclose(before, now, rel_tol=tolerance, abs_tol=min(tolerance, 1e-6))
    return bool(before == now)
