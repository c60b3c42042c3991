"""Write the events of a run into its events.jsonl."""

from __future__ import annotations

from collections.abc import Mapping

from dltrain.loggers.events import Result, RunInfo
from dltrain.storage.event_log import ENDED, EVALUATED, EventLog, split_row

# of the description of a run; the whole configuration is in config.yaml
_FACTS = (
    "id",
    "sweep",
    "dataset",
    "model",
    "optimizer",
    "metric",
    "mode",
    "total_steps",
    "steps_per_epoch",
    "parameters",
)


class EventLines:
    """Add the start, log points and evaluations to an event log. The end is added by `end_events`, before the hashes."""

    def __init__(self, log: EventLog) -> None:
        self.log = log

    def run_started(self, run: RunInfo) -> None:
        event = "run_resumed" if run.resumed else "run_started"
        self.log.add(event, run.resumed_step, {name: getattr(run, name) for name in _FACTS})
        self.log.write()

    def step_logged(self, row: Mapping[str, float]) -> None:
        self.log.add("step_logged", *split_row(row))

    def evaluated(self, row: Mapping[str, float]) -> None:
        self.log.add(EVALUATED, *split_row(row))
        self.log.write()


def end_events(log: EventLog, result: Result, status: str) -> None:
    """Add the end of a run, with what came out."""
    log.add(ENDED, result.steps, result.flat() | {"status": status})
    log.write()
