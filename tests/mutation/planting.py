"""Plant one bug in a copy of the package, and run the tests that should notice."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mutations import Mutation

ROOT = Path(__file__).parents[2]
COPIED = (
    "dltrain",
    "hydra_plugins",
    "conf",
    "tests",
    "docs",
    "benchmarks",
    "examples",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
)
SECONDS = 600  # after which a run counts as caught: the bug made it hang


@dataclass(frozen=True)
class Verdict:
    """`kind` is caught, missed, stale (the code has changed: the bug cannot be planted) or broken (no verdict)."""

    kind: str
    reason: str


def copy_to(folder: Path) -> None:
    """Copy the working tree: package, words, tests."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        elif source.exists():
            shutil.copy(source, folder / name)


def plant(mutation: Mutation, folder: Path) -> str | None:
    """Write the bug into a copy; returns why that cannot be done."""
    file = folder / "dltrain" / mutation.file
    if not file.is_file():
        return f"dltrain/{mutation.file} is gone"
    text = file.read_text(encoding="utf-8")
    if (times := text.count(mutation.old)) != 1:
        return f"its text stands {times} times in dltrain/{mutation.file}"
    file.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    return None


def tests_of(mutation: Mutation, folder: Path) -> list[str]:
    """The paths of its tests that are there."""
    return [f"tests/{path}" for path in mutation.tests.split() if (folder / "tests" / path).exists()]


def try_out(mutation: Mutation, folder: Path) -> Verdict:
    """Plant a bug in the copy in `folder`, run its tests, and put the file back."""
    paths = tests_of(mutation, folder)
    if not paths:
        return Verdict("stale", f"none of its tests is there: {mutation.tests}")
    if (reason := plant(mutation, folder)) is not None:
        return Verdict("stale", reason)
    try:
        return run_tests(paths, folder)
    finally:
        shutil.copy(ROOT / "dltrain" / mutation.file, folder / "dltrain" / mutation.file)


def run_tests(paths: list[str], folder: Path) -> Verdict:
    """Run test files of a copy until one fails."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-n",
        "0",
        "--tb=line",
        "--no-showlocals",
        "-p",
        "no:cacheprovider",
        *paths,
    ]
    try:
        answer = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return Verdict("caught", f"no end after {SECONDS} s")
    if answer.returncode == 0:
        return Verdict("missed", " ".join(paths))
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", answer.stdout, re.MULTILINE)
    if failed:
        return Verdict("caught", failed[0].removeprefix("tests/"))
    return Verdict(
        "broken", f"pytest ended with {answer.returncode}: {(answer.stdout + answer.stderr)[-300:]}"
    )
