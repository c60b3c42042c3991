"""Connecting to Ray: one that this process starts for itself alone, or a running cluster."""

from __future__ import annotations

import atexit
import ipaddress
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dltrain.errors import UserError
from dltrain.text import first_line, say

REACH = 5.0  # seconds that the port of a cluster may take to answer
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


def connect(address: str | None, cores: int, gpus: int) -> Callable[[], None]:
    """Start a Ray of this machine alone, or connect to the cluster at an address; return what disconnects. Raises UserError."""
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
    if address is None and not is_loopback(ray.get_runtime_context().gcs_address):
        close()
        raise UserError(
            "`sweep.backend=ray`: Ray was imported by other code of this process, and would listen on all networks.\n"
            "Set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 before the first `import ray`, or start Ray yourself and give its "
            "address: sweep.backend.address=HOST:PORT"
        )
    return close


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
            "`sweep.backend.address`: this process has already started a local Ray, so that it cannot join a cluster.\n"
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

    # also where a signal ends this process while Ray starts
    atexit.register(close)
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

    atexit.register(close)
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
        rays, pythons = ([line for line in lines if line.startswith(name)] for name in ("Ray:", "Python:"))
        theirs, ours = (f"{rays[k]}, {pythons[k]}" for k in (0, 1))
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
