"""The run folder: everything that one experiment leaves behind, and the lock that keeps others out."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from torch import Tensor

from dltrain.data.contract import Contract
from dltrain.data.errors import DataError
from dltrain.errors import CheckpointProblem, ResourceProblem
from dltrain.training import checkpoint
from dltrain.training.lock import Lock
from dltrain.training.summary import read_rows, read_text

_log = logging.getLogger(__name__)

STATISTICS = "normalization.safetensors"
CONTRACT = "data.json"
MAX_CONTRACT_BYTES = 100_000_000


class RunFolder:
    """One run's files. Construct it inside the folder of a run; it holds the lock until `close`.

    `background`: write checkpoints in a thread, from a copy, so that the loop waits for the copy only.
    `unsaved`: "stop" raises ResourceProblem when a checkpoint cannot be written, "continue" notes it among `problems`.
    """

    def __init__(
        self,
        path: Path,
        keep: int,
        facts: Mapping[str, Any],
        background: bool = False,
        unsaved: str = "stop",
        strict: bool = False,
    ) -> None:
        self.path, self.keep, self.facts = path, keep, dict(facts)
        self.background, self.unsaved, self.strict = background, unsaved, strict
        self.checkpoints = path / "checkpoints"
        self.problems: list[str] = []  # what could not be written; the run is `degraded`, not lost
        self._columns: list[str] = []
        self._waiting = ""  # lines of metrics.csv that the disk refused so far
        self._saved_at = time.monotonic()
        self._snapshot = Snapshot()
        self._thread: Thread | None = None
        self._failure: OSError | None = None
        self._lock = Lock(path)
        for file in (*path.glob(".*.tmp"), *self.checkpoints.glob(".*.tmp")):
            if file.is_file():  # half-written by a process that was killed: the lock says that it is gone
                file.unlink()

    def close(self) -> None:
        """Let the folder go, once the last checkpoint is written."""
        if self._thread is not None:
            self._thread.join()
        self._lock.release()

    def note_problem(self, problem: str) -> None:
        """Something beside the training failed: the summary will say `degraded`."""
        if problem not in self.problems:
            self.problems.append(problem)
            _log.warning("%s", problem)

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
        self._waiting += lines.getvalue()
        self.flush_rows()

    def flush_rows(self) -> None:
        """Write the rows that wait. A full disk keeps them waiting; a folder that is gone raises ResourceProblem."""
        self.check_there()
        before = self.metrics_file.stat().st_size if self.metrics_file.is_file() else 0
        try:
            with open(self.metrics_file, "a", encoding="utf-8") as stream:
                stream.write(self._waiting)
            self._waiting = ""
        except OSError as error:
            if self.metrics_file.is_file():
                os.truncate(self.metrics_file, before)  # half a line would spoil the next
            self.note_problem(f"{self.metrics_file} could not be written ({error.strerror})")

    def check_there(self) -> None:
        if not self.path.is_dir():
            raise ResourceProblem(f"{self.path} is gone: it was moved or deleted while the run was going on.")

    def rows(self) -> list[dict[str, float]]:
        """Return the rows of metrics.csv. Raises CheckpointProblem for a file that no run wrote."""
        return read_rows(self.metrics_file)

    def rewind_rows(self, step: int) -> None:
        """Drop the rows after a step: the resumed run writes them again."""
        rows = [row for row in self.rows() if row["step"] <= step]
        if not self.metrics_file.is_file():
            return
        self._columns = list(rows[0]) if rows else []
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerows([self._columns] * bool(rows))
        writer.writerows([number(row[column]) for column in self._columns] for row in rows)
        replace(self.metrics_file, lines.getvalue().encode())

    # Checkpoints --------------------------------------------------------------------------------------------------

    def save_checkpoint(
        self, step: int, state: dict[str, Any], weights: dict[str, Tensor], averaged: dict[str, Tensor] | None
    ) -> None:
        """Write a checkpoint, by and by where `background` is on. `averaged` must not change any more."""
        self.wait()
        best_row = state["best_row"]
        facts = {**self.facts, "best_step": int(best_row.get("step", 0)), "best": dict(best_row)}
        if self.background:
            state, weights = self._snapshot.of((state, weights))
            self._thread = Thread(target=self._save, args=(step, state, weights, averaged, facts))
            self._thread.start()
        else:
            self._save(step, state, weights, averaged, facts)
            self.wait()
        self._saved_at = time.monotonic()

    def _save(self, step: int, state: dict[str, Any], weights: Any, averaged: Any, facts: Any) -> None:
        try:
            self.check_there()
            self._sync_records()
            checkpoint.save(self.checkpoints, step, state, weights, averaged, facts)
            checkpoint.prune(self.checkpoints, self.keep)
        except OSError as error:
            self._failure = error
        except ResourceProblem as error:
            self._failure = OSError(2, str(error), str(self.path))

    def _sync_records(self) -> None:
        """Have what goes with a checkpoint on the disk before it: without its rows it could not be taken up whole."""
        records = (f for f in self.path.rglob("*") if self.checkpoints not in (f, f.parent, f.parent.parent))
        for file in (*records, self.path):
            with suppress(FileNotFoundError, PermissionError):  # replaced meanwhile, or not ours to read
                checkpoint.sync(file)

    def wait(self) -> None:
        """Until the checkpoint that is being written is whole. Raises ResourceProblem when it could not be written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check_saved()

    def check_saved(self) -> None:
        """Tell of a checkpoint that could not be written, as soon as it is known."""
        if self._failure is None:
            return
        error, self._failure = self._failure, None
        self.check_there()
        problem = (
            f"A checkpoint could not be written to {error.filename or self.checkpoints} ({error.strerror})"
        )
        if self.unsaved == "continue":
            self.note_problem(problem)
            return
        raise ResourceProblem(
            f"{problem}; those before it are as they were.\nMake room, then: dltrain resume {self.path} "
            "(checkpoint.unsaved=continue trains on all the same)"
        )

    def seconds_since_checkpoint(self) -> float:
        return time.monotonic() - self._saved_at

    def newest_checkpoint(self) -> checkpoint.Checkpoint | None:
        checkpoint.clear_unfinished(self.checkpoints)
        return checkpoint.newest(self.checkpoints, self.strict)

    def best_weights(self, best_step: int) -> dict[str, Tensor]:
        """The weights of the best evaluation, found through its own checkpoint."""
        if best_step == 0:
            return {}
        return checkpoint.verified(self.checkpoints / f"step-{best_step:08d}").weights(averaged=True)

    def write_best(self, weights: dict[str, Tensor]) -> None:
        """The best weights where everyone looks for them: checkpoints/best.safetensors."""
        self.checkpoints.mkdir(exist_ok=True)
        checkpoint.write_safetensors(self.checkpoints / "best.safetensors", weights)

    @property
    def has_statistics(self) -> bool:
        return (self.checkpoints / STATISTICS).is_file()

    def write_statistics(self, statistics: dict[str, Tensor]) -> None:
        """What normalised the inputs, for whoever uses the weights later."""
        self.checkpoints.mkdir(exist_ok=True)
        checkpoint.write_safetensors(self.checkpoints / STATISTICS, statistics)

    def write_contract(self, contract: Contract) -> None:
        """What the model takes and gives, so that other data are held to it."""
        replace(self.path / CONTRACT, contract.to_json().encode())

    # summary.json -------------------------------------------------------------------------------------------------

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        replace(self.path / "summary.json", json.dumps(summary, indent=2, default=str).encode() + b"\n")


def replace(file: Path, content: bytes) -> None:
    """Write a file in one move: readers see the former one or the new one, whole."""
    beside = file.with_name(f".{file.name}.tmp")
    beside.write_bytes(content)
    checkpoint.sync(beside)
    os.replace(beside, file)


class Snapshot:
    """Copies of nested plain data with its tensors on the CPU, each copy in the memory of the one before.

    A thread may read it while training goes on. Fresh memory would cost six times the copy, at every checkpoint.
    """

    def __init__(self) -> None:
        self._former: list[Tensor] = []

    def of(self, value: Any) -> Any:
        """A copy, valid until the next one."""
        originals: list[Tensor] = []
        copies: list[Tensor] = []
        copy = self._laid_out(value, originals, copies)
        for to, tensor in zip(copies, originals, strict=True):
            to.copy_(tensor, non_blocking=True)
        if any(tensor.is_cuda for tensor in originals):
            torch.cuda.current_stream().synchronize()
        self._former = copies
        return copy

    def _laid_out(self, value: Any, originals: list[Tensor], copies: list[Tensor]) -> Any:
        if isinstance(value, Tensor):
            originals.append(value.detach())
            copies.append(self._room(value.detach(), len(copies)))
            return copies[-1]
        if isinstance(value, dict):
            return {key: self._laid_out(item, originals, copies) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._laid_out(item, originals, copies) for item in value)
        return value

    def _room(self, tensor: Tensor, position: int) -> Tensor:
        former = self._former[position] if position < len(self._former) else None
        if former is not None and (former.dtype, former.shape, former.stride()) == (
            tensor.dtype,
            tensor.shape,
            tensor.stride(),
        ):
            return former
        return torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)


def number(value: float) -> str:
    """A number that reads back as itself; whole ones without a point."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def read_statistics(path: Path) -> dict[str, Tensor] | None:
    """Mean and std that normalised the inputs of a run, or None in a folder that has none yet."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = path / "checkpoints" / STATISTICS
    try:
        return load_file(file) if file.is_file() else None
    except (SafetensorError, OSError) as error:
        raise CheckpointProblem(f"{file} is damaged ({error})") from None


def read_contract(path: Path) -> Contract | None:
    """What the model of a run takes and gives; None in a folder of a version that did not write it.

    Raises CheckpointProblem for a file that cannot be read.
    """
    file = path / CONTRACT
    if not file.exists():
        return None
    try:
        return Contract.from_json(read_text(file, MAX_CONTRACT_BYTES))
    except (OSError, ValueError, RecursionError, DataError) as error:
        raise CheckpointProblem(f"{file} cannot be read: {error}") from None
