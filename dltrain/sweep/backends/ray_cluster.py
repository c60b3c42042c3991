"""Ray as the backend `ray` uses it: a Ray of this machine alone or a running cluster, its nodes, and tasks of strings."""

from __future__ import annotations

import atexit
import ipaddress
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dltrain.errors import UserError
from dltrain.sweep.backends import ray_task
from dltrain.text import first_line, say

REACH = 5.0  # seconds that the port of a cluster may take to answer
PROBE = 60.0  # seconds that a node may take to answer
OBJECTS = 80 * 2**20  # bytes of shared memory for Ray's objects, its least; tasks pass strings of some kB
# before Ray is imported: no report to its makers; jobs are no background work, which Ray gives a niceness of 15
SETTINGS = {
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_gcs_server_request_timeout_seconds": "10",
}
ALONE: dict[str, str] = {}  # those of a Ray of this machine alone, which this process has started
# The first HTTP/2 bytes of a client with empty settings. A gRPC server, as Ray is one, answers with its own.
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


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
            f"the node {host} of the Ray cluster does not see {folder}, where the sweep is to be.\n"
            "Type the command in a folder on a disk that all nodes share, or set output=FOLDER to one"
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


# Connecting -------------------------------------------------------------------------------------------------------


def connect(address: str | None, request: Mapping[str, float], cores: int, gpus: int) -> Cluster:
    """Start a Ray of this machine alone, or connect to the cluster at an address. Raises UserError."""
    prepare(address is None)
    if address is not None and address != "auto":
        check_address(address)
    import ray

    if ray.is_initialized():
        raise UserError(
            "`sweep.backend=ray`: this process is connected to Ray already. Call ray.shutdown() first; for the cluster that "
            "it was connected to: sweep.backend.address=HOST:PORT"
        )
    close = start_alone(cores, gpus) if address is None else join(address)
    atexit.register(close)
    if address is None and not is_loopback(ray.get_runtime_context().gcs_address):
        close()
        raise UserError(
            "`sweep.backend=ray`: Ray was imported by other code of this process, and would listen on all networks.\n"
            "Set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 before the first `import ray`, or start Ray yourself and give its "
            "address: sweep.backend.address=HOST:PORT"
        )
    return Cluster(request, close)


def prepare(alone: bool) -> None:
    """Set the environment that Ray reads when it is imported. Raises UserError where it was imported for another use."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if alone and "ray" not in sys.modules:
        # listen on 127.0.0.1 only; other users of this machine, who reach that, too, do not have the token
        ALONE.update(
            RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN=secrets.token_hex(32),
        )
    if alone:
        os.environ |= ALONE
    elif ALONE:
        raise UserError(
            "`sweep.backend.address`: this process has run a Ray of its own, and Ray can then not join a cluster.\n"
            "Start Python again, or leave the address out"
        )


def start_alone(cores: int, gpus: int) -> Callable[[], None]:
    """Start a Ray that listens on 127.0.0.1 only, for this process and its workers; return what ends it."""
    import ray

    folder = tempfile.mkdtemp(prefix="dltrain-ray-")

    def close() -> None:
        with own_signals():
            ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)

    try:
        init(
            address="local",
            include_dashboard=False,
            num_cpus=cores,
            num_gpus=gpus,
            object_store_memory=OBJECTS,
            _temp_dir=folder,
        )
    except InitFailed as error:
        close()
        raise UserError(
            f"`sweep.backend=ray`: Ray does not start here: {first_line(error)}\nUse sweep.backend=local"
        ) from None
    return close


def join(address: str) -> Callable[[], None]:
    """Connect to a running cluster; return what disconnects. Raises UserError."""
    import ray

    try:
        init(address=address)
    except InitFailed as error:
        raise explained(address, str(error)) from None
    found = ray.get_runtime_context().gcs_address
    if (
        not is_loopback(found if address == "auto" else address)
        and os.environ.get("RAY_AUTH_MODE") != "token"
    ):
        say(
            f"the Ray cluster at {found} runs any code of whoever reaches its ports: use it in a network that you trust"
        )

    def close() -> None:
        with own_signals():
            ray.shutdown()

    return close


class InitFailed(Exception):
    """Ray could not be started or joined; the message is Ray's, with the lines that it printed."""


def init(**keys: Any) -> None:
    """Call `ray.init` silently; the handlers of signals stay those of dltrain. Raises InitFailed."""
    import ray

    # `log_to_driver` does not hold for its notes on lost workers, of which the backend tells by itself
    vars(ray._private.worker)["_worker_logs_enabled"] = False
    with own_signals(), printed() as said:
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **keys)
        except Exception as error:
            raise InitFailed(f"{error}\n{said()}") from None


@contextmanager
def printed() -> Iterator[Callable[[], str]]:
    """Catch what is written to standard error, also by the C++ part of Ray; yield a function that returns it."""
    sys.stderr.flush()
    former = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)

        def said() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            yield said
        finally:
            os.dup2(former, 2)
            os.close(former)


@contextmanager
def own_signals() -> Iterator[None]:
    """Put back the signal handlers that Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def check_address(address: str) -> None:
    """Raise UserError for what is no address, or one where nothing like Ray answers: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if address.startswith("ray://") or not host or not port.isdecimal():
        raise UserError(
            f"`sweep.backend.address` is {address}; it must be HOST:PORT of a Ray cluster, on one of whose nodes the command is "
            "typed.\nFor example sweep.backend.address=10.0.0.5:6379, or sweep.backend.address=auto"
        )
    # under TLS the first bytes are others
    if os.environ.get("RAY_USE_TLS") == "1":
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=REACH) as line:
            line.sendall(HELLO)
            header = line.recv(9)
    except (OSError, OverflowError) as error:
        raise unreachable(address, str(error)) from None
    if len(header) < 4 or header[3] != 4:
        raise unreachable(address, "what listens there is no Ray")


def explained(address: str, text: str) -> UserError:
    """Return the error for what Ray said as it could not join a cluster."""
    if "Version mismatch" in text:
        lines = [line.strip() for line in text.splitlines()]
        there, here = ([line for line in lines if line.startswith(name)] for name in ("Ray:", "Python:"))
        theirs, ours = (f"{there[k]}, {here[k]}" for k in (0, 1))
        return UserError(
            f"the Ray cluster at {address} has other versions ({theirs}) than this machine ({ours}).\n"
            "Type the command in the environment of the cluster, or install its versions here"
        )
    if "Unauthenticated" in text or "AuthenticationError" in text:
        return UserError(
            f"the Ray cluster at {address} wants another token than this command has. Type first: export RAY_AUTH_MODE=token\n"
            "Where ~/.ray/auth_token is not that of the cluster, too: export RAY_AUTH_TOKEN=TOKEN"
        )
    return unreachable(address, text)


def unreachable(address: str, reason: str) -> UserError:
    return UserError(
        f"`sweep.backend.address` is {address}, and no Ray cluster answers there: {first_line(reason)}\n"
        "Start one (ray start --head), see its address with `ray status`, or leave the address out for a Ray of this machine"
    )


def is_loopback(address: str) -> bool:
    """Return whether HOST:PORT is reached from this machine only."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
