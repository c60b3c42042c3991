"""Reading a run's summary; needs no torch, so that a refusal comes at once."""

from __future__ import annotations

import csv
import io
import stat
from pathlib import Path
from typing import Any

from dltrain.errors import CheckpointProblem
from dltrain.strict_json import loads

MAX_BYTES = 10_000_000
# tags that were added or removed after the run had begun
TAGS = "tags.json"
MAX_TABLE_BYTES = 200_000_000
# values of `status`, beside running and interrupted: trained to the planned end or by a criterion of the run
WHOLE = ("completed", "early_stopped", "converged")
# nothing is left to train
FINISHED = (*WHOLE, "pruned", "degraded", "diverged")
# its objective, if it has one, does not count
UNRANKED = ("failed", "diverged")
# it will not change by itself
ENDED = (*FINISHED, "failed")


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object from a folder that may come from elsewhere; its size is bounded.

    Raises OSError where there is no such file, ValueError where it holds anything but one object.
    """
    content = loads(read_text(file, MAX_BYTES))
    if not isinstance(content, dict):
        raise ValueError("it is not an object")
    return content


def read_text(file: Path, most: int) -> str:
    """Read a file from a folder that may come from elsewhere. Raises ValueError for more than `most` bytes, OSError."""
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would block
        raise ValueError("it is not a regular file")
    if status.st_size > most:
        raise ValueError(f"it has more than {most} bytes")
    return file.read_text(encoding="utf-8")


def read_summary(path: Path) -> dict[str, Any]:
    """Return the summary of a run folder. Raises CheckpointProblem when the folder is not that of a run."""
    file = path / "summary.json"
    try:
        summary = read_json(file)
    except OSError:
        if (path / "config.yaml").is_file():  # killed before its first summary
            return {"status": "running"}
        raise CheckpointProblem(
            f"{path} is not a run folder: it has no summary.json. "
            "Name one that dltrain made, such as outputs/NAME/DATE_TIME-xxxx."
        ) from None
    except ValueError as error:
        raise CheckpointProblem(f"{path}/summary.json cannot be read: {error}") from None
    if not isinstance(summary.get("status"), str):
        raise CheckpointProblem(f"{path}/summary.json is no summary of a run.")
    if (path / TAGS).exists():
        summary["tags"] = merged_tags(path, summary.get("tags"))
    return summary


def merged_tags(path: Path, own: Any) -> list[str]:
    """Return the tags of a run: those it was begun with, as tags.json changes them; a damaged tags.json changes none."""
    tags = texts(own)
    try:
        changes = read_json(path / TAGS)
    except (OSError, ValueError):
        return tags
    removed = set(texts(changes.get("removed")))
    return list(dict.fromkeys([*(tag for tag in tags if tag not in removed), *_added(changes, tags)]))


def _added(changes: dict[str, Any], tags: list[str]) -> list[str]:
    known = set(tags)
    return [tag for tag in texts(changes.get("added")) if tag not in known]


def texts(value: Any) -> list[str]:
    """Return the texts of a list, each once; none of anything else."""
    return list(dict.fromkeys(v for v in value if isinstance(v, str))) if isinstance(value, list) else []


def read_rows(file: Path) -> list[dict[str, float]]:
    """Read the rows of a metrics.csv, none where there is no file; a last line that a kill cut short is left out.

    Raises CheckpointProblem for a file that no run wrote.
    """
    if not file.is_file():
        return []
    try:
        text = read_text(file, MAX_TABLE_BYTES)
        complete = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
        rows = [{key: float(value) for key, value in row.items()} for row in complete]
    except (ValueError, TypeError, csv.Error) as error:
        raise CheckpointProblem(f"{file} is no table of a run: {str(error)[:100]}") from None
    if rows and "step" not in rows[0]:
        raise CheckpointProblem(f"{file} is no table of a run: it has no column `step`")
    return rows
