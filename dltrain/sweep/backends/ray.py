"""`sweep.backend=ray`: each job as a task of Ray, on this machine or a running cluster."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from dltrain import processors
from dltrain.errors import UserError
from dltrain.storage.summary import read_json
from dltrain.sweep.backends.protocol import CANCELED, Ended, Event, Started, Sweep
from dltrain.sweep.backends.ray_cluster import Canceled, Cluster, Lost, OutOfMemory
from dltrain.sweep.backends.ray_connection import connect
from dltrain.sweep.backends.ray_task import NOTE, text_of
from dltrain.sweep.backends.rows import Rows
from dltrain.sweep.backends.slots import Slot, placed
from dltrain.sweep.backends.worker import Task
from dltrain.sweep.jobs import Job
from dltrain.text import SayOnce, say

PAUSE = 0.2  # seconds to wait for the end of a job
LOOK = 1.0  # seconds between two looks at the folders of the running jobs
COUNT = 5.0  # seconds between two looks at the nodes of the cluster
# seconds until a job that lost its worker is queued again, for each loss: Ray notes a dead node late
AGAIN = 2.0
# jobs in Ray's queue for each that runs, so that a worker never waits for the driver
AHEAD = 2
OUT_OF_MEMORY = 6


@dataclass
class Submitted:
    """A job that Ray has."""

    job: Job
    rows: Rows
    ref: Any = None  # None while it waits to be queued again
    due: float = 0.0  # when
    attempt: int = 0
    runs: bool = False
    canceled: bool = False
    losses: int = 0  # since its last new checkpoint
    checkpoint: str = ""


class Ray:
    """Each job as a task of Ray, on this machine or a running cluster.

        job → Ray task with CPUs and GPUs → process on a node; a lost worker or node: again, from the last checkpoint

    Use: on a node of the cluster, with the sweep's folder on a disk that all nodes see. Ray is open to its network: use a
    cluster in one that you trust.

    Args:
        address: HOST:PORT of a running cluster, or auto for the one that Ray finds on this machine; null starts a Ray of this
            machine alone, and ends it with the sweep
        cpus: CPUs of a job, which may be a fraction; its threads, rounded down
        gpus: GPUs of a job; 0.5 lets two jobs share one
        retries: times in a row that a job may lose its worker or node without a new checkpoint
    """

    gives = frozenset({"evaluations"})
    requires = frozenset({"ray"})

    def __init__(
        self,
        sweep: Sweep,
        address: str | None = None,
        cpus: Annotated[float, "> 0"] = 1.0,
        gpus: Annotated[float, ">= 0"] = 0.0,
        retries: Annotated[int, ">= 0"] = 3,
    ) -> None:
        self.sweep, self.retries = sweep, retries
        self.request = {"CPU": cpus, "GPU": gpus}
        self.slot = Slot(None, max(1, int(cpus)))
        self.submitted: dict[int, Submitted] = {}
        self.news: list[Event] = []
        self.tell = SayOnce()
        self.places = self.capacity = sweep.jobs
        self.looked = self.counted = -math.inf  # when
        check(self.request, sweep.settings, [config.device for config in sweep.configs])
        if not sweep.settings.get("dry_run"):
            self.cluster = self.connect(address)
            self.count()

    def connect(self, address: str | None) -> Cluster:
        """Connect to Ray, and check that jobs can run there. Raises UserError."""
        cluster = Cluster(self.request, connect(address, processors.cores(), len(self.sweep.gpus)))
        try:
            check_fits(cluster, self.request)
            if address is not None:
                # a task needs both
                for folder in {
                    Path.cwd(),
                    *(Path(config.output).absolute() for config in self.sweep.configs[:1]),
                }:
                    cluster.probe(folder)
        except BaseException:
            cluster.close()
            raise
        return cluster

    def submit(self, job: Job) -> None:
        entry = Submitted(job, Rows(job))
        self.submitted[job.number] = entry
        job.folder.mkdir(parents=True, exist_ok=True)
        # of an earlier driver
        (job.folder / NOTE).unlink(missing_ok=True)
        self.start(entry)

    def cancel(self, job: Job) -> None:
        entry = self.submitted.get(job.number)
        if entry is None:
            self.news.append(Ended(job, CANCELED))
        elif entry.ref is None:
            del self.submitted[job.number]
            self.news.append(Ended(job, CANCELED))
        elif not entry.canceled:
            entry.canceled = True
            self.cluster.cancel(entry.ref)

    def events(self) -> Iterator[Event]:
        news, self.news = self.news, []
        yield from news
        for entry in self.submitted.values():
            if entry.ref is None and time.monotonic() > entry.due:
                self.start(entry)
        entries = {entry.ref: entry for entry in self.submitted.values() if entry.ref is not None}
        if not entries:
            return
        for ref in self.cluster.wait([*entries], PAUSE):
            yield from self.ended(entries[ref])
        if time.monotonic() > self.looked + LOOK:
            for entry in list(self.submitted.values()):
                yield from self.look(entry)
            self.looked = time.monotonic()
        if time.monotonic() > self.counted + COUNT:
            self.count()

    def close(self) -> None:
        if self.sweep.settings.get("dry_run"):
            return
        for entry in self.submitted.values():
            if entry.ref is not None:
                self.cluster.cancel(entry.ref, force=True)
        self.cluster.close()

    def preview(self, jobs: Sequence[Job]) -> list[str]:
        cpus, gpus = (f"{self.request[name]:g}" for name in ("CPU", "GPU"))
        return [f"each job is a task of Ray with {cpus} CPUs and {gpus} GPUs"]

    # Tasks --------------------------------------------------------------------------------------------------------

    def start(self, entry: Submitted) -> None:
        """Queue a job's task, or queue it again."""
        job, sweep = entry.job, self.sweep
        assert sweep.catalogue is not None and job.config is not None
        entry.attempt, entry.runs = entry.attempt + 1, False
        task = Task(
            job.number,
            job.folder.resolve(),
            placed(job.config, self.slot, job.folder, sweep.catalogue),
            sweep.rights,
            sweep.command,
            tuple(job.overrides),
            str(Path.cwd()),
            asks=False,
        )
        entry.ref = self.cluster.start(text_of(task, entry.attempt))

    def ended(self, entry: Submitted) -> Iterator[Event]:
        """Report the end of a job, or queue it again where its worker was lost."""
        try:
            result = self.cluster.result(entry.ref)
        except Canceled:
            yield from self.end(entry, CANCELED)
        except OutOfMemory:
            yield from self.end(entry, OUT_OF_MEMORY, "out of memory: Ray killed it to protect its node")
        except Lost as loss:
            yield from self.lost(entry, str(loss))
        else:
            if "blind" in result:
                yield from self.on_blind_node(entry, **result)
            else:
                yield from self.look(entry)
                yield from self.end(entry, result["code"], result["reason"])

    def end(self, entry: Submitted, code: int, reason: str = "") -> Iterator[Event]:
        del self.submitted[entry.job.number]
        yield Ended(entry.job, code, reason)

    def lost(self, entry: Submitted, how: str) -> Iterator[Event]:
        """Queue a job again, unless it made no progress too often."""
        newest = newest_checkpoint(entry.job.folder)
        entry.losses = entry.losses + 1 if newest == entry.checkpoint else 1
        entry.checkpoint = newest
        if entry.canceled:
            yield from self.end(entry, CANCELED)
        elif entry.losses > self.retries:
            yield from self.end(
                entry, 1, f"its worker was lost {entry.losses} times in a row without a new checkpoint: {how}"
            )
        else:
            say(f"job {entry.job.number} lost its worker ({how}) and runs again, from its last checkpoint")
            entry.ref, entry.due = None, time.monotonic() + AGAIN * entry.losses

    def on_blind_node(self, entry: Submitted, blind: str, node: str) -> Iterator[Event]:
        """Queue a job again, on other nodes, where one that joined the cluster does not see its folder."""
        self.cluster.exclude(node)
        self.tell(
            f"the node {blind} does not see {entry.job.folder.parent} or {Path.cwd()}, and gets no jobs"
        )
        if entry.canceled:
            yield from self.end(entry, CANCELED)
        else:
            self.start(entry)

    # What happened ------------------------------------------------------------------------------------------------

    def look(self, entry: Submitted) -> Iterator[Event]:
        """Report the start and the evaluations of a job, by its folder."""
        if not entry.runs:
            with suppress(OSError, ValueError):
                entry.runs = read_json(entry.job.folder / NOTE).get("attempt") == entry.attempt
            if entry.runs:
                yield Started(entry.job)
        if entry.runs:
            yield from entry.rows.new()

    def count(self) -> None:
        """Count the jobs that fit on the cluster, whose nodes come and go."""
        self.counted = time.monotonic()
        asked = self.sweep.settings.get("jobs", "auto")
        fit = sum(node.places(self.request) for node in self.cluster.nodes())
        if fit == 0:
            self.tell("no node of the Ray cluster can run a job now; the jobs wait until one joins")
        self.places = max(1, fit) if asked == "auto" else asked
        self.capacity = AHEAD * self.places if asked == "auto" else asked


def check(request: dict[str, float], settings: dict[str, object], devices: Iterable[str]) -> None:
    """Raise UserError for what Ray or this backend does not take."""
    gpus = request["GPU"]
    asked = [device for device in devices if device.startswith("cuda")]
    if asked and (gpus == 0 or ":" in asked[0]):
        raise UserError(
            f"`device` is {asked[0]}, and Ray shows a job its {gpus:g} GPUs only. Use device=auto sweep.backend.gpus={gpus or 1:g}"
        )
    if gpus > 1 and gpus != int(gpus):
        raise UserError(
            f"`sweep.backend.gpus` is {gpus:g}; Ray gives a job a part of one GPU, or whole ones.\n"
            f"Use sweep.backend.gpus={int(gpus)} or sweep.backend.gpus=0.5"
        )
    if settings.get("jobs_per_gpu", 1) != 1:
        raise UserError(
            "`sweep.jobs_per_gpu` has no effect with sweep.backend=ray. To let several jobs share a GPU: "
            "sweep.backend.gpus=0.5"
        )


def check_fits(cluster: Cluster, request: dict[str, float]) -> None:
    """Raise UserError where a job would wait forever, as no node is large enough."""
    nodes = cluster.nodes()
    if any(node.places(request) for node in nodes):
        return
    amounts = sorted({(node.resources.get("CPU", 0.0), node.resources.get("GPU", 0.0)) for node in nodes})
    has = "; ".join(f"{cpus:g} CPUs, {gpus:g} GPUs" for cpus, gpus in amounts[::-1][:3])
    raise UserError(
        f"no node of the Ray cluster can run a job with {request['CPU']:g} CPUs and {request['GPU']:g} GPUs: the largest has "
        f"{has}.\nLower sweep.backend.cpus or sweep.backend.gpus"
    )


def newest_checkpoint(folder: Path) -> str:
    """Return the name of a job's newest complete checkpoint; empty where it has none."""
    found = (file.parent.name for file in (folder / "checkpoints").glob("step-*/manifest.json"))
    # the number has at least eight digits
    return max(found, key=lambda name: (len(name), name), default="")
