"""The run folder: everything that one experiment leaves behind, and the lock that keeps others out."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import socket
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from dltrain.errors import CheckpointProblem, FolderInUse
from dltrain.training import checkpoint

STATISTICS = "normalization.safetensors"


class RunFolder:
    """One run's files. Construct it inside the folder of a run; it holds the lock until `close`."""

    def __init__(self, path: Path, keep: int, facts: Mapping[str, Any]) -> None:
        self.path, self.keep, self.facts = path, keep, dict(facts)
        self.checkpoints = path / "checkpoints"
        self._columns: list[str] = []
        self._saved_at = time.monotonic()
        self._lock = open(path / "run.lock", "a+", encoding="utf-8")  # noqa: SIM115 - held for the whole run
        self._take_lock()

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            owner = self._lock.read().strip() or "another process"
            raise FolderInUse(f"{self.path} is in use by {owner}. Wait for it to end, or stop it.") from None
        self._lock.truncate(0)
        self._lock.write(
            f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n"
        )
        self._lock.flush()

    def close(self) -> None:
        """Let the folder go. A process that dies lets go too: the system frees its locks."""
        (self.path / "run.lock").unlink(missing_ok=True)
        self._lock.close()

    # metrics.csv --------------------------------------------------------------------------------------------------

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.csv"

    def append_row(self, row: Mapping[str, float]) -> None:
        """Add a row of metrics.csv; the first row names the columns."""
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        if not self._columns:
            self._columns = list(row)
            writer.writerow(self._columns)
        writer.writerow([number(row.get(column, float("nan"))) for column in self._columns])
        with open(self.metrics_file, "a", encoding="utf-8") as stream:
            stream.write(lines.getvalue())

    def rows(self) -> list[dict[str, float]]:
        """The rows of metrics.csv; a last line that a kill cut short is left out."""
        if not self.metrics_file.is_file():
            return []
        text = self.metrics_file.read_text(encoding="utf-8")
        complete = text[: text.rfind("\n") + 1]
        return [
            {key: float(value) for key, value in row.items()} for row in csv.DictReader(io.StringIO(complete))
        ]

    def rewind_rows(self, step: int) -> None:
        """Drop the rows after a step: the resumed run writes them again."""
        rows = [row for row in self.rows() if row["step"] <= step]
        self.metrics_file.unlink(missing_ok=True)
        self._columns = []
        for row in rows:
            self.append_row(row)

    # Checkpoints --------------------------------------------------------------------------------------------------

    def save_checkpoint(
        self, step: int, state: dict[str, Any], weights: dict[str, Tensor], averaged: dict[str, Tensor] | None
    ) -> None:
        best_step = int(state["best_row"].get("step", 0))
        if (
            averaged is None
            and (kept := self.checkpoints / f"step-{step:08d}" / "averaged.safetensors").is_file()
        ):
            averaged = checkpoint.Checkpoint(kept.parent, {}).weights(
                averaged=True
            )  # the final save of the best step
        facts = {**self.facts, "best_step": best_step, "best": state["best_row"]}
        checkpoint.save(self.checkpoints, step, state, weights, averaged, facts)
        checkpoint.prune(self.checkpoints, self.keep, best_step)
        self._saved_at = time.monotonic()

    def seconds_since_checkpoint(self) -> float:
        return time.monotonic() - self._saved_at

    def newest_checkpoint(self) -> checkpoint.Checkpoint | None:
        checkpoint.clear_unfinished(self.checkpoints)
        return checkpoint.newest(self.checkpoints)

    def best_weights(self, best_step: int) -> dict[str, Tensor]:
        """The weights of the best evaluation, found through its own checkpoint."""
        if best_step == 0:
            return {}
        return checkpoint.verified(self.checkpoints / f"step-{best_step:08d}").weights(averaged=True)

    def write_best(self, weights: dict[str, Tensor]) -> None:
        """The best weights where everyone looks for them: checkpoints/best.safetensors."""
        self.checkpoints.mkdir(exist_ok=True)
        checkpoint.write_safetensors(self.checkpoints / "best.safetensors", weights)

    def write_statistics(self, statistics: dict[str, Tensor]) -> None:
        """What normalised the inputs, for whoever uses the weights later."""
        self.checkpoints.mkdir(exist_ok=True)
        checkpoint.write_safetensors(self.checkpoints / STATISTICS, statistics)

    # summary.json -------------------------------------------------------------------------------------------------

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        beside = self.path / ".summary.json.tmp"
        checkpoint.write_synced(beside, json.dumps(summary, indent=2, default=str).encode() + b"\n")
        os.replace(beside, self.path / "summary.json")


def number(value: float) -> str:
    """A number that reads back as itself; whole ones without a point."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def read_summary(path: Path) -> dict[str, Any]:
    """The summary of a run folder. Raises CheckpointProblem when the folder is not that of a run."""
    try:
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    except OSError:
        raise CheckpointProblem(
            f"{path} is not a run folder: it has no summary.json. "
            "Name one that dltrain made, such as outputs/NAME/DATE_TIME-xxxx."
        ) from None
    except ValueError as error:
        raise CheckpointProblem(f"{path}/summary.json cannot be read: {error}") from None
    assert isinstance(summary, dict)
    return summary


def read_statistics(path: Path) -> dict[str, Tensor] | None:
    """Mean and std that normalised the inputs of a run, or None in a folder that has none yet."""
    from safetensors.torch import load_file

    file = path / "checkpoints" / STATISTICS
    return load_file(file) if file.is_file() else None
