"""A logger of a user's own: every event as one line of JSON, in a file of the run folder."""

from __future__ import annotations

import json
from pathlib import Path

from dltrain.loggers.events import Result, RunInfo


class JsonLines:
    """Write steps, evaluations and the result as lines of JSON.

    Args:
        file: name of the file in the run folder
    """

    def __init__(self, file: str = "log.jsonl") -> None:
        self.name = file

    def run_started(self, run: RunInfo) -> None:
        """Begin the file; a resumed run appends to it."""
        self.path = Path(run.folder) / self.name
        self.write(
            "started", {"id": run.id, "step": run.resumed_step, "lr": run.lr, "parameters": run.parameters}
        )

    def step_logged(self, row: dict[str, float]) -> None:
        """Write a line every log.every_steps steps."""
        self.write("step", row)

    def evaluated(self, row: dict[str, float]) -> None:
        """Write a line with each row of metrics.csv."""
        self.write("evaluated", row)

    def run_ended(self, result: Result) -> None:
        """Write the last line at the end, also after an error or a signal."""
        self.write("ended", result.flat())

    def write(self, event: str, values: dict) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **values}) + "\n")
