"""A cluster as the backend `ray` uses it: its nodes, and tasks that are texts."""

from __future__ import annotations

import atexit
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dltrain.errors import UserError
from dltrain.sweep.backends import ray_task
from dltrain.text import first_line

PROBE = 60.0  # seconds that a node may take to answer


class Canceled(Exception):
    """A task was canceled before it began, or while its result was under way."""


class Lost(Exception):
    """A task ended with its worker or node; the message says how, in one line."""


class OutOfMemory(Exception):
    """Ray killed a task since its node ran out of memory."""


@dataclass(frozen=True)
class Node:
    """A node of the cluster that is alive, with the resources that it has in all."""

    id: str
    host: str
    resources: Mapping[str, float]

    def places(self, request: Mapping[str, float]) -> int:
        """Return how many tasks of a request fit on the node at a time."""
        return min(
            int(self.resources.get(name, 0.0) / amount + 1e-9) for name, amount in request.items() if amount
        )


class Cluster:
    """A connection to Ray. `request` are the resources of a task: CPU, GPU."""

    def __init__(self, request: Mapping[str, float], close: Callable[[], None]) -> None:
        import ray

        self.request, self.disconnect = request, close
        # a worker serves many tasks, also those with GPUs: it keeps nothing of a job, which has its own process
        self.remote = ray.remote(max_calls=0, max_retries=0, num_returns=1)(ray_task.run)
        self.blind: list[str] = []  # nodes that do not see the folder of the sweep

    def nodes(self) -> list[Node]:
        """Return the nodes that are alive and see the folder of the sweep."""
        import ray

        return [
            Node(node["NodeID"], node["NodeManagerHostname"], node["Resources"])
            for node in ray.nodes()
            if node["Alive"] and node["NodeID"] not in self.blind
        ]

    def exclude(self, node: str) -> None:
        """Start no further task on a node."""
        if node not in self.blind:
            self.blind.append(node)

    def start(self, text: str) -> Any:
        """Queue a job; return the reference of its result."""
        options: dict[str, Any] = {"num_cpus": self.request["CPU"], "num_gpus": self.request["GPU"]}
        if self.blind:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(self.blind)})"}
        return self.remote.options(**options).remote(text)

    def wait(self, refs: Sequence[Any], seconds: float) -> list[Any]:
        """Return the references whose tasks have ended; wait for the first of them."""
        import ray

        if not ray.wait(list(refs), num_returns=1, timeout=seconds)[0]:
            return []
        done: list[Any] = ray.wait(list(refs), num_returns=len(refs), timeout=0)[0]
        return done

    def result(self, ref: Any) -> dict[str, Any]:
        """Return the result of a task that has ended. Raises Canceled, Lost or OutOfMemory."""
        import ray
        from ray import exceptions

        try:
            found: dict[str, Any] = json.loads(ray.get(ref))
        except exceptions.TaskCancelledError:
            raise Canceled from None
        except exceptions.OutOfMemoryError:
            raise OutOfMemory from None
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, exceptions.TaskCancelledError):
                raise Canceled from None
            raise Lost(f"{type(error.cause).__name__}: {first_line(error.cause)}") from None
        except exceptions.RayError as error:
            raise Lost(type(error).__name__) from None
        return found

    def cancel(self, ref: Any, force: bool = False) -> None:
        """Ask a task to stop, or kill its worker."""
        import ray

        # it may have ended meanwhile
        with suppress(ValueError, ray.exceptions.RayError):
            ray.cancel(ref, force=force)

    def close(self) -> None:
        """Disconnect; Ray kills what still runs."""
        self.disconnect()
        atexit.unregister(self.disconnect)

    def probe(self, folder: Path) -> None:
        """Raise UserError where a node does not see a folder, or has other versions than this process."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        task = ray.remote(num_cpus=0, max_retries=0)(ray_task.probe)
        nodes = [node for node in self.nodes() if node.places(self.request)]
        with visible_file(folder) as file:
            refs = {
                task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(
                    str(file)
                ): node
                for node in nodes
            }
            done = ray.wait([*refs], num_returns=len(refs), timeout=PROBE)[0]
            answers = {node.host: self.answer(ref, ref in done) for ref, node in refs.items()}
        for host, answer in answers.items():
            check_answer(host, answer, folder, ray_task.versions())

    def answer(self, ref: Any, done: bool) -> dict[str, Any]:
        """Return what a node answered, or `error`."""
        if not done:
            return {"error": f"it does not answer within {PROBE:.0f} s"}
        try:
            return self.result(ref)
        except (Lost, Canceled, OutOfMemory) as error:
            return {"error": str(error) or type(error).__name__}


def check_answer(host: str, answer: dict[str, Any], folder: Path, versions: dict[str, str]) -> None:
    """Raise UserError for what a node lacks."""
    if "error" in answer:
        raise UserError(
            f"the node {host} of the Ray cluster cannot run jobs: {answer['error']}\n"
            "It needs the Python environment of this machine, with dltrain installed"
        )
    if not answer["sees"]:
        raise UserError(
            f"the node {host} of the Ray cluster does not see {folder}, which its jobs need.\n"
            "Type the command in a folder on a disk that all nodes share, and leave output=… out or set it to a folder there"
        )
    for package, here in versions.items():
        there = answer["versions"].get(package)
        if there != here:
            raise UserError(
                f"the node {host} of the Ray cluster has {package} {there}, this machine {here}: results would depend on the "
                f"node.\nInstall the same version there: pip install {package}=={here}"
            )


@contextmanager
def visible_file(folder: Path) -> Iterator[Path]:
    """Make a file in a folder, or in its nearest parent that exists, while the nodes look for it."""
    folder = next(parent for parent in [folder, *folder.parents] if parent.is_dir())
    file = folder / f".dltrain-{secrets.token_hex(8)}"
    try:
        file.touch(exist_ok=False)
        yield file
    finally:
        file.unlink(missing_ok=True)
