"""The run folder: all files of one run, and the lock that keeps other processes out.

The file is long because every file of a run is written here, under that lock.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

from torch import Tensor

from dltrain.data.contract import Contract
from dltrain.data.errors import DataError, some
from dltrain.errors import UNASKED, CheckpointProblem, FolderInUse, ResourceProblem, typed
from dltrain.storage import checkpoint, manifest
from dltrain.storage.event_log import EVENTS, SAVED, EventLog
from dltrain.storage.files import clear_temporary, overwrite, replace
from dltrain.storage.folder_names import CONTRACT, METRICS
from dltrain.storage.growing_file import GrowingFile
from dltrain.storage.lock import Lock
from dltrain.storage.snapshot import Snapshot
from dltrain.storage.summary import read_rows, read_text
from dltrain.storage.tensors import load_tensors
from dltrain.text import first_line, utf8

_log = logging.getLogger(__name__)

STATISTICS = "normalization.safetensors"
MAX_CONTRACT_BYTES = 100_000_000


class RunFolder:
    """The files of one run. It holds the lock of the folder until `close`.

    `background`: write checkpoints in a thread, from a copy, so that the loop waits for the copy only.
    `lock`: that of the folder, if the process holds it already.
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
        lock: Lock | None = None,
    ) -> None:
        self.path, self.keep, self.facts = path, keep, dict(facts)
        self.background, self.unsaved, self.strict = background, unsaved, strict
        self.checkpoints = path / "checkpoints"
        self.problems: list[str] = []  # what could not be written; the run is `degraded`, not lost
        self._columns: list[str] = []
        self._rows = GrowingFile(path / METRICS, self.note_problem, self.is_ours)
        self.events = EventLog(path, self.note_problem, self.is_ours)
        self._saved_steps: list[int] = []  # checkpoints whose event is to be written
        self._hashes: dict[str, str] = {}  # of large files, from the time when they were written
        self._saved_at = time.monotonic()
        self._snapshot = Snapshot()
        self._thread: Thread | None = None
        self._failure: Exception | None = None
        self._synced: dict[Path, tuple[int, ...]] = {}
        self._lock = lock or Lock(path)
        for folder in (path, self.checkpoints, path / ".hydra"):
            clear_temporary(folder)

    def close(self) -> None:
        """Release the folder when the last checkpoint is written."""
        self.finish_saving()
        self._lock.release()

    def note_problem(self, problem: str) -> None:
        """Note that something besides the training failed: the status becomes `degraded`."""
        if problem not in self.problems:
            self.problems.append(problem)
            _log.warning("%s", problem)

    # metrics.csv --------------------------------------------------------------------------------------------------

    @property
    def metrics_file(self) -> Path:
        return self.path / METRICS

    def append_row(self, row: Mapping[str, float]) -> None:
        """Add a row of metrics.csv; the first row names the columns, and later ones are a problem of the run.

        A full disk keeps rows waiting. Raises as `check_there`.
        """
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        if not self._columns:
            self._columns = list(row)
            writer.writerow(self._columns)
        if late := row.keys() - self._columns:
            self.note_problem(
                f"metrics.csv has no column {some(sorted(late), 3)}: its first row names the columns, and a diagnostic or "
                "metric must return the same columns at every evaluation, nan where it has no value"
            )
        writer.writerow([number(row.get(column, float("nan"))) for column in self._columns])
        self._rows.add(lines.getvalue())
        self.check_there()
        self._rows.write()

    def is_ours(self) -> bool:
        """Return whether no other process can hold the folder: it is there, and its lock file is the one that is locked here."""
        return self._lock.is_held

    def check_there(self) -> None:
        """Raise ResourceProblem if the folder was deleted, FolderInUse if another process may have written to it meanwhile."""
        if not self.path.is_dir():
            raise ResourceProblem(f"{self.path} is missing: it was moved or deleted during the run.")
        if not self.is_ours():
            raise FolderInUse(
                f"{self._lock.file} was removed or replaced during the run, so that another process may have written to the folder.\n"
                f"Nothing more is written to it. To continue from its newest checkpoint: {typed('resume', self.path)}"
            )

    def rows(self) -> Sequence[dict[str, float]]:
        """Return the rows of metrics.csv. Raises CheckpointProblem for a file that no run wrote."""
        return read_rows(self.metrics_file)

    def rewind_rows(self, step: int) -> None:
        """Remove the rows and events after a step: the resumed run writes them again."""
        rows = self.rows()
        saved = [int(folder.name.removeprefix("step-")) for folder in checkpoint.folders(self.checkpoints)]
        self.events.rewind(step, rows, saved)
        if not self.metrics_file.is_file():
            return
        kept = array("q", (place for place, row in enumerate(rows) if row["step"] <= step))
        self._columns = list(rows[kept[0]]) if kept else []
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerows([self._columns] * bool(kept))
        writer.writerows(map(number, rows[place].values()) for place in kept)
        self._rows.replace([lines.getvalue()])

    def check_rows(self, facts: Mapping[str, Any]) -> None:
        """Note that metrics.csv is not the one that a checkpoint was written with, or refuse to go on (`strict`).

        `facts` is the checkpoint's manifest; those of earlier versions know their best row only.
        """
        lines = facts.get("metrics")
        missing = int(facts["best_step"]) > 0 and not self.metrics_file.is_file()
        if not missing and (not isinstance(lines, dict) or manifest.begins_with(self.metrics_file, lines)):
            return
        state = (
            "has other rows than" if self.metrics_file.is_file() else "is missing, and with it the rows of"
        )
        problem = f"{self.metrics_file} {state} the run up to step {int(facts['step'])}"
        if self.strict:
            raise CheckpointProblem(f"{problem}.\nPut it back; leave out strict=true to go on without them.")
        self.note_problem(problem)

    # Checkpoints --------------------------------------------------------------------------------------------------

    def save_checkpoint(
        self, step: int, state: dict[str, Any], weights: dict[str, Tensor], averaged: dict[str, Tensor] | None
    ) -> None:
        """Write a checkpoint, in a thread if `background` is on. `averaged` must not change afterwards."""
        self.wait()
        self.check_there()
        # what a checkpoint is resumed with is on the disk before it
        self.events.write()
        best_row = state["best_row"]
        best = {"best_step": int(best_row.get("step", 0)), "best": dict(best_row)}
        facts = {**self.facts, **best, "metrics": self._rows.lines.as_json()}
        if self.background:
            state, weights = self._snapshot.of((state, weights))
            thread = Thread(target=self._save, args=(step, state, weights, averaged, facts))
            # where no thread can start, nothing is saved, which `wait` tells
            try:
                thread.start()
                self._thread = thread
            except RuntimeError as error:
                self._failure = error
        else:
            self._save(step, state, weights, averaged, facts)
            self.wait()
        self._saved_at = time.monotonic()

    def _save(self, step: int, state: dict[str, Any], weights: Any, averaged: Any, facts: Any) -> None:
        try:
            self.check_there()
            # without its rows, a checkpoint could not be resumed
            records = self._unsynced_records()
            checkpoint.save(self.checkpoints, step, state, weights, averaged, facts, list(records))
            self._synced |= records
            self._saved_steps.append(step)
            checkpoint.prune(self.checkpoints, self.keep)
        except Exception as error:
            # whatever it is: an error that ends the thread would leave a run without checkpoints that nobody misses
            self._failure = error

    def _unsynced_records(self) -> dict[Path, tuple[int, ...]]:
        """Return files and folders of the run that changed since they were synced, with what tells so."""
        found = {}
        for path in (*records(self.path, self.checkpoints), self.path):
            with suppress(FileNotFoundError):
                status = path.stat()
                found[path] = (status.st_ino, status.st_size, status.st_mtime_ns)
        return {path: version for path, version in found.items() if self._synced.get(path) != version}

    def wait(self) -> None:
        """Wait for the checkpoint that is being written. Raises ResourceProblem if it could not be written."""
        self.finish_saving()
        self.check_saved()

    def check_saved(self) -> None:
        """Raise ResourceProblem, or note it, if a checkpoint could not be written."""
        self._tell_saved()
        if self._failure is None:
            return
        error, self._failure = self._failure, None
        self.check_there()
        where = getattr(error, "filename", None) or self.checkpoints
        reason = getattr(error, "strerror", None) or first_line(str(error)) or type(error).__name__
        problem = f"A checkpoint could not be written to {where} ({reason})"
        if self.unsaved == "continue":
            self.note_problem(problem)
            return
        raise ResourceProblem(
            f"{problem}; those before it are as they were.\nMake room, then: {typed('resume', self.path)} "
            "(checkpoint.unsaved=continue goes on without it)"
        )

    def finish_saving(self) -> None:
        """Wait for the checkpoint that is being written; `check_saved` tells whether it could be."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._tell_saved()

    def _tell_saved(self) -> None:
        """Write the events of checkpoints that are on the disk."""
        while self._saved_steps:
            self.events.add(SAVED, self._saved_steps.pop(0))
            self.events.write()

    def seconds_since_checkpoint(self) -> float:
        return time.monotonic() - self._saved_at

    def newest_checkpoint(self) -> checkpoint.Checkpoint | None:
        checkpoint.clear_unfinished(self.checkpoints)
        return checkpoint.newest(self.checkpoints, self.strict)

    def best_weights(self, best_step: int) -> dict[str, Tensor]:
        """Return the weights of the best evaluation, from its checkpoint."""
        if best_step == 0:
            return {}
        return checkpoint.verified(self.checkpoints / f"step-{best_step:08d}").weights(averaged=True)

    def write_best(self, weights: dict[str, Tensor]) -> None:
        """Write the best weights to checkpoints/best.safetensors."""
        self.check_there()
        self.checkpoints.mkdir(exist_ok=True)
        file = self.checkpoints / "best.safetensors"
        self._hashes["checkpoints/best.safetensors"] = checkpoint.write_safetensors(file, weights)

    @property
    def has_statistics(self) -> bool:
        return (self.checkpoints / STATISTICS).is_file()

    def write_statistics(self, statistics: dict[str, Tensor]) -> None:
        """Write mean and std of the inputs, for later uses of the weights."""
        self.checkpoints.mkdir(exist_ok=True)
        checkpoint.write_safetensors(self.checkpoints / STATISTICS, statistics)

    def write_contract(self, contract: Contract) -> None:
        """Write data.json, which other data for this model are checked against."""
        # JSON reads the escapes of names in another encoding as the same names
        replace(self.path / CONTRACT, utf8(contract.to_json()))

    # summary.json -------------------------------------------------------------------------------------------------

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        self.check_there()
        replace(self.path / "summary.json", json.dumps(summary, indent=2, default=str).encode() + b"\n")

    def write_ending(self, summary: Mapping[str, Any]) -> None:
        """Write how a run ended. On a full disk, its status and reason take the place of the former summary.

        Write nothing where another process may have written to the folder.
        """
        if not self.is_ours():
            return
        try:
            self.write_summary(summary)
        except OSError:
            file = self.path / "summary.json"
            room = file.stat().st_size
            words = {"status": summary["status"], "stop_reason": str(summary["stop_reason"])[:80]}
            whole = json.dumps(json.loads(file.read_bytes()) | words).encode()
            content = whole if len(whole) <= room else json.dumps(words).encode()
            if len(content) <= room:
                overwrite(file, content.ljust(room))

    def write_manifest(self) -> None:
        """Write the hashes of all records, as the last file of a run; none where another process may have written to the folder."""
        self.finish_saving()
        if self.is_ours():
            manifest.write(self.path, manifest.covered(self.path), self._hashes)


def forget_rows(folder: Path) -> None:
    """Remove the rows and events of a run that ended before its first checkpoint, and begins again."""
    for name in (METRICS, EVENTS):
        (folder / name).unlink(missing_ok=True)


def records(folder: Path, left_out: Path) -> Iterator[Path]:
    """Yield the files and folders below a folder, without one of its folders."""
    # a folder may vanish meanwhile, or belong to somebody else
    with suppress(FileNotFoundError, PermissionError):
        for path in folder.iterdir():
            if path != left_out:
                yield path
                if path.is_dir() and not path.is_symlink():
                    yield from records(path, left_out)


def number(value: float) -> str:
    """Return a number as text that reads back as itself; whole ones have no point."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def read_statistics(path: Path) -> dict[str, Tensor] | None:
    """Return mean and std of the inputs of a run, None if the folder has none yet."""
    from safetensors import SafetensorError

    file = path / "checkpoints" / STATISTICS
    try:
        return load_tensors(file) if file.is_file() else None
    except (SafetensorError, OSError) as error:
        if isinstance(error, OSError) and error.errno in UNASKED:
            raise
        raise CheckpointProblem(f"{file} is damaged ({error})") from None


def checked_statistics(path: Path, contract: Contract | None) -> dict[str, Tensor] | None:
    """Return the statistics of a run, as `read_statistics` does.

    Raises CheckpointProblem for a contract that encodes columns, classes or targets otherwise than the run did.
    """
    statistics = read_statistics(path)
    if contract is None:
        return statistics
    try:
        again = f"put the one that the run wrote back, or train again: {typed('rerun', path)}"
        contract.check(statistics, f"{path / CONTRACT}", again)
    except DataError as error:
        raise CheckpointProblem(str(error)) from None
    return statistics


def read_contract(path: Path) -> Contract | None:
    """Return the contract of a run, None in a folder of a version that did not write it.

    Raises CheckpointProblem for a file that cannot be read.
    """
    file = path / CONTRACT
    if not file.exists():
        return None
    try:
        return Contract.from_json(read_text(file, MAX_CONTRACT_BYTES))
    except (OSError, ValueError, RecursionError, DataError) as error:
        raise CheckpointProblem(f"{file} cannot be read: {error}") from None
