"""The jobs of a sweep. A job's summary.json states how it ended."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from dltrain.config.schema import Config
from dltrain.direction import COSTS
from dltrain.storage import manifest
from dltrain.storage.files import replace
from dltrain.storage.index import finite, number_of
from dltrain.storage.summary import ENDED, UNRANKED, read_json
from dltrain.text import first_line, utf8

# the value of each axis, by its name
Chosen: TypeAlias = dict[str, Any]
# jobs that are done before a pruner stops one, by its word; a word that is not here compares from the second one on
STARTUP = {"median": 4}


# of a summary, beside the best row: the scores of the test split, from where a run was taken over, and what is not in its weights
FACTS = ("test", "reused", "remarks", "searched", "longer")


@dataclass(slots=True)
class Job:
    """One run of one configuration.

    A backend reads:

    Args:
        number: number of the job
        overrides: overrides of its configuration
        folder: its run folder; it exists where the job was begun before
        config: its validated configuration, while it waits
        command: the command that runs it in its folder, from the working folder
        pruned: why the pruner stops it
        retried: whether it ran out of memory beside other jobs, and must now run alone
    """

    number: int
    trial: int
    chosen: Chosen  # axis → value, repetitions included
    overrides: list[str]
    folder: Path
    state: str = "waiting"  # or running, interrupted, and the states of summary.json
    config: Config | None = None
    command: list[str] = field(default_factory=list)
    pruned: str = ""
    reason: str = ""
    summary: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    evaluations: int = 0  # that it will have, once it has begun
    share: float = 0.0  # of them that are done
    epoch: float = 0.0
    value: float = math.nan  # of the newest evaluation
    best: float | None = None
    retried: bool = False

    @property
    def is_done(self) -> bool:
        return self.state in ENDED

    @property
    def failed(self) -> bool:
        return self.state in UNRANKED

    @property
    def short_reason(self) -> str:
        """Return the first line of the reason; empty where none is known."""
        return first_line(self.reason)

    @property
    def objective(self) -> float | None:
        return None if self.failed else finite(self.summary.get("objective"))

    def number_at_best(self, name: str) -> float | None:
        """Return a column of metrics.csv at the best epoch, or a number of the whole run; None where it is not finite."""
        best = {} if name in COSTS else self.summary.get("best") or {}
        return finite(best.get(name, self.summary.get(name)))

    @property
    def test_scores(self) -> dict[str, float]:
        """Return the scores of the test split in the summary; empty where it has none, or none that are numbers."""
        found = self.summary.get("test")
        known = isinstance(found, dict) and all(number_of(value) is not None for value in found.values())
        return dict(found) if isinstance(found, dict) and known else {}

    def read(self) -> None:
        """Read the state from the job's folder, if it has one."""
        try:
            summary = read_json(self.folder / "summary.json")
            if not isinstance(summary.get("best") or {}, dict):
                return
            seconds = float(summary.get("seconds") or 0.0)
        except (OSError, ValueError, TypeError, OverflowError):
            return
        if finite(summary.get("best_epoch")) is None:
            summary.pop("best_epoch", None)
        self.summary, self.seconds = summary, seconds
        self.state = str(self.summary.get("status", "running"))
        self.reason = str(self.summary.get("stop_reason") or "")
        self.best = self.objective
        if self.state in ENDED and not self.failed and self.objective is None:
            self.state = "failed"
            self.reason = "the metric is not a finite number in any evaluation"

    def read_again(self, otherwise: str) -> None:
        """Read the state of a job that ended; one that is not done gets the state `otherwise`."""
        self.state, self.reason, self.config = otherwise, "", None
        self.read()
        if not self.is_done:
            self.state = otherwise

    def trim(self) -> None:
        """Keep of the summary what tables and reports show: a large sweep holds its jobs in memory."""
        best = {
            sys.intern(name): value for name, value in (self.summary.get("best") or {}).items() if "/" in name
        }
        kept: dict[str, Any] = {
            key: self.summary[key] for key in ("objective", "best_epoch") if key in self.summary
        }
        kept |= {key: self.summary[key] for key in FACTS if self.summary.get(key)}
        self.summary, self.config, self.command = {"best": best, **kept}, None, []

    def set_aside(self) -> None:
        """Rename the folder of a job that failed, so that the job can run again from its beginning."""
        number = next(k for k in itertools.count(1) if not self.folder_aside(k).exists())
        self.folder.rename(self.folder_aside(number))
        self.state, self.reason, self.summary, self.seconds, self.best = "waiting", "", {}, 0.0, None

    def folder_aside(self, number: int) -> Path:
        return self.folder.with_name(f"{self.folder.name}-failed-{number}")

    def fail(self, reason: str) -> None:
        """Record that the job failed, and why."""
        self.record("failed", reason, error=self.summary.get("error") or reason)

    def record(self, state: str, reason: str, **facts: str) -> None:
        """Write into the summary how the job ended."""
        self.state, self.reason = state, reason
        self.summary |= {"status": state, "stop_reason": reason, **facts, "overrides": self.overrides}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_summary(self.folder, self.summary)

    def label(self) -> str:
        return label(self.chosen)


def label(chosen: Chosen) -> str:
    """Return the values of the axes as they are shown."""
    return " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in chosen.items()
    )


def with_interval(mean: float, half_width: float) -> str:
    """Return a mean and the half width of its interval, both in scientific notation where the mean is.

    >>> with_interval(27150.0, 1510.6669), with_interval(0.5, 0.01)
    ('2.715e+04 ± 1.511e+03', '0.5000 ± 0.0100')
    """
    shown = number(mean)
    return f"{shown} ± {f'{half_width:.3e}' if 'e' in shown and half_width == half_width else number(half_width)}"


def number(value: float | None) -> str:
    """Return a value as it is shown."""
    if value is None or value != value:
        return "–"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.3e}"


def has_checkpoint(folder: Path) -> bool:
    """Return whether a job's folder holds a complete checkpoint."""
    return any((folder / "checkpoints").glob("step-*/manifest.json"))


def write(file: Path, text: str) -> None:
    """Write a file atomically."""
    replace(file, utf8(text))


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write the summary of a job that has ended, and its hash.

    The hash comes first: a driver that is killed between them finds the former summary, and writes both again.
    """
    text = json.dumps(summary, indent=2, default=str) + "\n"
    manifest.renew(folder, "summary.json", hashlib.sha256(utf8(text)).hexdigest())
    write(folder / "summary.json", text)


def values_of(jobs: list[Job], objectives: list[str]) -> list[float] | None:
    """Return the mean over the repetitions of each objective; None when a job failed."""
    rows = [
        [job.objective] if not objectives else [job.number_at_best(name) for name in objectives]
        for job in jobs
    ]
    if any(job.failed or None in row for job, row in zip(jobs, rows, strict=True)):
        return None
    return [sum(v for v in column if v is not None) / len(rows) for column in zip(*rows, strict=True)]
