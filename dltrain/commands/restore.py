"""`dltrain restore RUN…`: bring runs and sweeps back from the archive or the trash."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dltrain.commands.archive import MOVED, carry, report
from dltrain.commands.asked import ambiguous, document_schema, is_sweep, read_options, text_of
from dltrain.errors import CheckpointProblem, UserError
from dltrain.storage.folder_names import OUTPUT, is_run
from dltrain.storage.shelves import Place, place_of, shelved

HELP = """
    RUN is the folder where it was, the folder in .dltrain, or the end of its name. Nothing is replaced.

  --json    one JSON document on standard output

    To list them: dltrain runs --archived, dltrain trash --list

Examples
  dltrain restore outputs/digits_mlp/2026-01-31_12-00-00-abcd
  dltrain restore abcd
  dltrain restore .dltrain/trash/outputs/digits_mlp/2026-01-31_12-00-00-abcd
"""
SCHEMA = document_schema(moved=MOVED)


def run(arguments: list[str]) -> int:
    """Move the runs back, and print where they are now."""
    rest, given = read_options("restore", arguments)
    report(back(rest), "--json" in given)
    return 0


def restore(*runs: Any) -> list[Path]:
    """Bring runs and sweeps back from the archive or the trash, and return where they are now.

    Args:
        runs: the folders where they were, or are, or the ends of their names

    Raises CheckpointProblem for what is in neither, and where something has taken its place.
    """
    return [to for _, to in back(runs)]


def back(runs: Sequence[Any]) -> list[tuple[Path, Path]]:
    if not runs:
        raise UserError(
            "Name a run: dltrain restore outputs/NAME/DATE_TIME-xxxx\nWhat is there: dltrain trash --list, dltrain runs --archived"
        )
    return carry([place_named(text_of(run)) for run in runs], None)


def place_named(text: str) -> Place:
    """Return the place on a shelf that a text names. Raises CheckpointProblem where there is none, or more than one."""
    path = Path(text)
    if is_run(path) or is_sweep(path):
        place = place_of(path)
        if place.shelf is not None:
            return place
    found = shelved(OUTPUT, text.rstrip("/"))
    if not found and os.sep in text and len(path.parts) > 2:
        # runs of another output folder
        found = shelved(path.parent.parent, text.rstrip("/"))
    if len(found) == 1:
        return found[0]
    if found:
        raise ambiguous(text, [place.folder for place in found])
    here = f" {path} is where it was." if is_run(path) or is_sweep(path) else ""
    raise CheckpointProblem(
        f"`{text}` is neither in the archive nor in the trash.{here}\nWhat is there: dltrain runs --archived, dltrain trash --list"
    )
