"""MLflow."""

from __future__ import annotations

import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

from dltrain.loggers.events import Result, RunInfo

LARGEST_BATCH = 1000
LONGEST_VALUE = 5000
# before the names of log points
STEPS = "steps/"
# by which a run is found again
ID, GROUP = "dltrain.run", "dltrain.sweep"


class MLflow:
    """Log into MLflow: a file in the working folder, or a server.

    Rows of `metrics.csv` and log points (under `steps/`) are its metrics, by step; configuration is its parameters; tags, notes,
    status and the scores of the result follow. The jobs of a sweep have a common parent run. `mlflow ui` in the same
    folder shows them.

    Use: a team with a tracking server, or one that keeps runs in a database.

    Args:
        tracking_uri: where runs are kept, as in http://localhost:5000; unset, MLFLOW_TRACKING_URI or sqlite:///mlflow.db here
        experiment: experiment of the run
    """

    requires = {"mlflow"}

    @staticmethod
    def destination(keys: Mapping[str, Any]) -> tuple[str, Any]:
        """Return the key that says where the run is sent; a record of somebody else does not choose that."""
        uri = keys.get("tracking_uri")
        return ("tracking_uri", uri) if uri else ("experiment", keys.get("experiment") or "dltrain")

    def __init__(self, tracking_uri: str | None = None, experiment: str = "dltrain") -> None:
        self.uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
        self.experiment = experiment
        self.waiting: list[Any] = []
        # of a run that is resumed: the last step that is there, by the prefix of its names
        self.known: dict[str, int] = {}

    def run_started(self, run: RunInfo) -> None:
        # otherwise the package reports its use over the network
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        # of two jobs that begin together, one makes tables, experiment and parent run
        with one_at_a_time(self.uri), silent("mlflow"), silent("alembic"):
            self.client = MlflowClient(tracking_uri=self.uri)
            found = self.client.get_experiment_by_name(self.experiment)
            self.place = found.experiment_id if found else self.client.create_experiment(self.experiment)
            parent = {"mlflow.parentRunId": self.parent(run.sweep)} if run.sweep else {}
            self.id = self.find(ID, run.id)
            if self.id is None:
                self.id = self.create(run.title, {**parent, **tags(run)})
                self.log_parameters(run)
            else:
                self.client.update_run(self.id, status="RUNNING")
                self.known = {"": self.last_step("step"), STEPS: self.last_step(f"{STEPS}lr")}

    def step_logged(self, row: Mapping[str, float]) -> None:
        self.keep({key: value for key, value in row.items() if key != "step"}, int(row["step"]), STEPS)

    def evaluated(self, row: Mapping[str, float]) -> None:
        self.keep(row, int(row["step"]))
        self.flush()

    def run_ended(self, result: Result) -> None:
        self.flush()
        numbers = {key: value for key, value in result.flat().items() if isinstance(value, int | float)}
        self.keep(numbers, result.steps, "result/")
        self.flush()
        for key in ("status", "stop_reason", "error"):
            self.client.set_tag(self.id, f"dltrain.{key}", getattr(result, key))
        status = "FINISHED" if not result.error else "KILLED" if result.status == "interrupted" else "FAILED"
        self.client.set_terminated(self.id, status)

    def keep(self, values: Mapping[str, float], step: int, prefix: str = "") -> None:
        """Keep values for the next writing: a transaction for each step would be slow."""
        from mlflow.entities import Metric

        # of a run that was killed after its last checkpoint, the same steps come twice
        if step > self.known.get(prefix, -1):
            now = int(time.time() * 1000)
            self.waiting += [
                Metric(name_of(prefix + key), float(value), now, step) for key, value in values.items()
            ]

    def flush(self) -> None:
        for i in range(0, len(self.waiting), LARGEST_BATCH):
            self.client.log_batch(self.id, metrics=self.waiting[i : i + LARGEST_BATCH])
        self.waiting = []

    def log_parameters(self, run: RunInfo) -> None:
        from mlflow.entities import Param

        items = [Param(name_of(key), str(value)[:LONGEST_VALUE]) for key, value in leaves(run.config)]
        for i in range(0, len(items), 100):
            self.client.log_batch(self.id, params=items[i : i + 100])

    def parent(self, sweep: str) -> str:
        """Return the id of the parent run of a sweep, which the first of its jobs creates."""
        found = self.find(GROUP, sweep, "parent")
        if found is None:
            found = self.create(sweep, {GROUP: sweep, "dltrain.role": "parent"})
            self.client.set_terminated(found)
        return found

    def create(self, name: str, labels: Mapping[str, str]) -> str:
        created: str = self.client.create_run(self.place, tags=dict(labels), run_name=name).info.run_id
        return created

    def find(self, key: str, value: str, role: str = "") -> str | None:
        """Return the id of the run with a tag."""
        which = f"tags.`{key}` = '{value}'" + (f" and tags.`dltrain.role` = '{role}'" if role else "")
        runs = self.client.search_runs([self.place], which, max_results=1)
        return runs[0].info.run_id if runs else None

    def last_step(self, name: str) -> int:
        """Return the last step at which a metric is there."""
        return max((metric.step for metric in self.client.get_metric_history(self.id, name)), default=-1)


def tags(run: RunInfo) -> dict[str, str]:
    """Return the tags of a run; each of the user's tags becomes one tag."""
    given = run.config.get("tags") or []
    words = given if isinstance(given, list) else [given]
    found = {name_of(str(word)): "true" for word in words}
    found |= {ID: run.id, "dltrain.folder": str(run.folder), "mlflow.source.name": run.command}
    found |= {GROUP: run.sweep} if run.sweep else {}
    return found | ({"mlflow.note.content": str(run.config["notes"])} if run.config.get("notes") else {})


def name_of(key: str) -> str:
    """Return a name that MLflow takes."""
    return re.sub(r"[^\w\-. /:]", "_", key)


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of nested mappings by its dotted path."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@contextmanager
def one_at_a_time(uri: str) -> Iterator[None]:
    """Keep other runs of this machine out, for as long as a store is looked at and added to."""
    from filelock import FileLock

    with FileLock(
        Path(tempfile.gettempdir()) / f"dltrain-mlflow-{crc32(os.fsencode(os.path.abspath(uri))):08x}.lock"
    ):
        yield


@contextmanager
def silent(name: str) -> Iterator[None]:
    """Let a package log warnings only."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
