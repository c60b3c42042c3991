"""Jobs and trials as the driver knows them. A job's summary.json is the truth about how it ended."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dltrain.storage.summary import read_json

FINAL = ("completed", "early_stopped", "converged", "pruned", "failed", "degraded")


@dataclass
class Job:
    """One run of one configuration."""

    number: int
    trial: int
    chosen: dict[str, Any]  # axis → value, repetitions included
    overrides: list[str]
    folder: Path
    state: str = "waiting"  # or running, interrupted, and the states of summary.json
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
        return self.state in FINAL

    @property
    def failed(self) -> bool:
        return self.state == "failed"

    @property
    def objective(self) -> float | None:
        value = self.summary.get("objective")
        return value if isinstance(value, int | float) and math.isfinite(value) and not self.failed else None

    def number_at_best(self, name: str) -> float | None:
        """A column of metrics.csv at the best epoch, or a number of the summary; None where it is not finite."""
        value = (self.summary.get("best") or {}).get(name, self.summary.get(name))
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    def read(self) -> None:
        """Take the state from the job's folder, if it has one."""
        try:
            summary = read_json(self.folder / "summary.json")
            if not isinstance(summary.get("best") or {}, dict):
                return
            seconds = float(summary.get("seconds") or 0.0)
        except (OSError, ValueError, TypeError):
            return
        self.summary, self.seconds = summary, seconds
        self.state = str(self.summary.get("status", "running"))
        self.reason = str(self.summary.get("stop_reason") or "")
        self.best = self.objective
        if self.state in FINAL and not self.failed and self.objective is None:
            self.state = "failed"
            self.reason = "no evaluation gave a finite value of the metric (nan)"

    def fail(self, reason: str) -> None:
        """Write down that, and why, the job failed."""
        self.state, self.reason = "failed", reason
        self.summary |= {
            "status": "failed",
            "stop_reason": reason,
            "error": self.summary.get("error") or reason,
            "overrides": self.overrides,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / "summary.json", json.dumps(self.summary, indent=2, default=str) + "\n")

    def label(self) -> str:
        return " ".join(f"{name}={_short(value)}" for name, value in self.chosen.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    beside = file.with_name(f".{file.name}.tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, file)
