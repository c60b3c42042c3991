"""Reading a run's summary; needs no torch, so that a refusal comes at once."""

from __future__ import annotations

import csv
import io
import math
import os
import stat
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO, TypeAlias, overload

from dltrain.errors import CheckpointProblem
from dltrain.strict_json import loads

Row: TypeAlias = dict[str, float]

MAX_BYTES = 10_000_000
# tags that were added or removed after the run had begun
TAGS = "tags.json"
MAX_TABLE_BYTES = 200_000_000
# of metrics.csv and events.jsonl, which are read line by line: ten million steps with ten columns, evaluated at every step
MAX_LINES_BYTES = 5_000_000_000
MAX_ROWS, MAX_NUMBERS = 20_000_000, 100_000_000
MAX_LINE = 1_000_000
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
    with opened(file, most) as stream:
        return stream.read()


def opened(file: Path, most: int) -> TextIO:
    """Open a file from a folder that may come from elsewhere. Raises ValueError for more than `most` bytes, OSError."""
    # to open a pipe, or to read a file of the kernel, would wait
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    status = os.fstat(descriptor)
    problem = (
        "it is not a regular file"
        if not stat.S_ISREG(status.st_mode)
        else f"it has more than {most} bytes"
        if status.st_size > most
        else None
    )
    if problem is not None:
        os.close(descriptor)
        raise ValueError(problem)
    if status.st_size == 0:
        # also what files of the kernel say, which may have no end
        os.close(descriptor)
        return io.StringIO()
    return os.fdopen(descriptor, encoding="utf-8")


def read_summary(path: Path) -> dict[str, Any]:
    """Return the summary of a run folder. Raises CheckpointProblem when the folder is not that of a run."""
    file = path / "summary.json"
    try:
        summary = read_json(file)
    except PermissionError:
        # the command line says which file that is, with the exit code of what is kept from the user
        raise
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


def is_ended(path: Path) -> bool:
    """Return whether the run in a folder has ended, so that nothing is left to train."""
    with suppress(OSError, ValueError):
        return read_json(path / "summary.json").get("status") in ENDED
    return False


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


class Rows(Sequence[Row]):
    """Rows of numbers by name, kept by column in eight bytes a number; a row is a dict that is made when it is asked for.

    Raises ValueError for two columns of one name.
    """

    def __init__(self, names: Sequence[str]) -> None:
        check_names(names)
        self._columns = [array("d") for _ in names]
        self.columns = dict(zip(names, self._columns, strict=True))

    def add(self, values: Sequence[str]) -> None:
        """Add the texts of a row. Raises ValueError for what are no numbers, or not as many as there are names."""
        for column, value in zip(self._columns, values, strict=True):
            column.append(float(value))

    def __len__(self) -> int:
        return len(self._columns[0]) if self._columns else 0

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        if isinstance(place, slice):
            return [self[k] for k in range(len(self))[place]]
        # without a column, no place would end an iteration
        if not self._columns:
            raise IndexError(place)
        return {name: column[place] for name, column in self.columns.items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError for two columns of one name, of which each reader would take another one."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"it has two columns {twice[0][:60]!r}")


def column_of(rows: Sequence[Row], name: str, missing: float = math.nan) -> Sequence[float]:
    """Return a column of rows; the rows of a file give it without making a dict of each."""
    if isinstance(rows, Rows):
        return rows.columns[name] if name in rows.columns else repeated(missing, len(rows))
    return [row.get(name, missing) for row in rows]


def repeated(value: float, count: int) -> Sequence[float]:
    return array("d", [value]) * count


def read_rows(file: Path) -> Sequence[Row]:
    """Read the rows of a metrics.csv, none where there is no file; a last line that a kill cut short is left out.

    Raises CheckpointProblem for a file that no run wrote.
    """
    if not file.is_file():
        return []
    try:
        with opened(file, MAX_LINES_BYTES) as stream:
            lines = csv.reader(complete_lines(stream))
            names = next(lines, [])
            rows = Rows(names)
            for number, values in enumerate(filter(None, lines), start=1):
                if number > MAX_ROWS or number * len(names) > MAX_NUMBERS:
                    raise ValueError(f"it has more than {MAX_ROWS:,} rows or {MAX_NUMBERS:,} numbers")
                rows.add(values)
    except (ValueError, csv.Error) as error:
        raise CheckpointProblem(f"{file} is no table of a run: {str(error)[:100]}") from None
    if rows and (problem := problem_of_steps(rows)):
        raise CheckpointProblem(f"{file} is no table of a run: {problem}")
    return rows


def problem_of_steps(rows: Rows) -> str:
    """Return what is wrong with the steps of a table, one row for each; "" for those that a run writes."""
    if "step" not in rows.columns:
        return "it has no column `step`"
    steps = rows.columns["step"]
    if not all(map(float.is_integer, steps)):
        return "it has a step that is no whole number"
    row = next((row for row, (before, step) in enumerate(pairwise(steps), 2) if step <= before), None)
    return "" if row is None else f"its row {row} is of step {steps[row - 1]:.0f}, after {steps[row - 2]:.0f}"


def complete_lines(stream: TextIO) -> Iterator[str]:
    """Yield the lines of a file that grows, without a last one that has no end. Raises ValueError for a line of `MAX_LINE` letters."""
    while (line := stream.readline(MAX_LINE)).endswith("\n"):
        yield line
    if len(line) == MAX_LINE:
        raise ValueError(f"it has a line of more than {MAX_LINE:,} letters")
