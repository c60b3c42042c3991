"""Check the journal of a sweep's study, before Optuna is imported to read it: the import takes longer than a refusal may."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dltrain.errors import CheckpointProblem
from dltrain.storage.files import unshare
from dltrain.storage.summary import MAX_LINE

# operations of lines of Optuna's journal, and a state
CREATE_TRIAL, SET_STATE = 4, 6
WAITING = 4


def check_journal(file: Path, most: int) -> None:
    """Drop an unfinished last line of a killed driver, to which Optuna would append; do nothing where there is no file.

    Raises CheckpointProblem for other damage, and for more than `most` trials, each of which would be begun again.
    """
    if not file.exists():
        return
    # a stranger's folder may hold a file of the user as a hard link
    unshare(file)
    whole = 0
    with open(file, "rb") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE + 1), b""), start=1):
            if len(line) > MAX_LINE:
                raise damaged(file, f" at line {number}: it has more than {MAX_LINE:,} bytes")
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            entry = entry_of(line)
            if entry is None:
                raise damaged(file, f" at line {number}")
            if is_prescribed(entry):
                raise damaged(file, f" at line {number}: it prescribes a trial, which no sweep does")
            most -= entry.get("op_code") == CREATE_TRIAL
            if most < 0:
                raise damaged(file, f" at line {number}: it holds more trials than the sweep has")
    if whole < file.stat().st_size:
        os.truncate(file, whole)


def entry_of(line: bytes) -> dict[str, Any] | None:
    """Return a line of the journal; None for what is no JSON object."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def is_prescribed(entry: Mapping[str, Any]) -> bool:
    """Return whether an operation begins a trial from a template, lets one wait, or fixes its values, which may lie outside the axes."""
    begun = entry.get("op_code") == CREATE_TRIAL and "state" in entry
    attributes = entry.get("system_attr")
    fixed = isinstance(attributes, dict) and "fixed_params" in attributes
    return begun or fixed or (entry.get("op_code") == SET_STATE and entry.get("state") == WAITING)


def damaged(file: Path, where: str = "") -> CheckpointProblem:
    return CheckpointProblem(
        f"{file} is damaged{where}, so what the sweep has tried is unknown. Put a copy of it back, "
        "or begin a new sweep: sweep.fresh=true"
    )
