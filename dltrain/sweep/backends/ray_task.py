"""What runs inside a worker of Ray: it starts the process of a job as `local` does, and waits for it."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any

import dltrain
from dltrain.config.door import Rights
from dltrain.config.saved import as_saved
from dltrain.config.schema import to_config
from dltrain.config.secrets import resolve
from dltrain.errors import UserError
from dltrain.storage.files import replace
from dltrain.sweep.backends import pool
from dltrain.sweep.backends.pool import Worker
from dltrain.sweep.backends.worker import Task, work

PAUSE = 0.1  # seconds between two looks for a request to stop
NOTE = "ray.json"  # in a job's folder: which node runs it


def text_of(task: Task, attempt: int) -> str:
    """Return a task as JSON; values from the environment stay expressions, which are resolved on the node."""
    rights = {
        "targets": sorted(task.rights.targets),
        "local": task.rights.local,
        "recalled": task.rights.recalled,
        "asked": sorted(task.rights.asked),
        "own": sorted(task.rights.own),
    }
    content = {
        "number": task.number,
        "folder": str(task.folder),
        "config": as_saved(task.config),
        "rights": rights,
        "command": task.command,
        "overrides": list(task.overrides),
        "cwd": task.cwd,
        "attempt": attempt,
    }
    return json.dumps(content)


def task_of(content: dict[str, Any]) -> Task:
    """Return the task of `text_of`. Raises UserError where a variable of the environment is not set on this node."""
    config, rights = content["config"], content["rights"]
    words = config.pop("words")
    secrets = resolve(config)
    return Task(
        content["number"],
        Path(content["folder"]),
        to_config(config, words, secrets),
        Rights(
            frozenset(rights["targets"]),
            rights["local"],
            rights["recalled"],
            frozenset(rights["asked"]),
            frozenset(rights["own"]),
        ),
        content["command"],
        tuple(content["overrides"]),
        content["cwd"],
        asks=False,
    )


def run(text: str) -> str:
    """Train the job of `text_of` in a process of this node; return how it ended, as JSON.

    The keys are `code` and `reason`, or `blind` and `node` where this node does not see the job's folder. A request of Ray to
    stop lets the job save.
    """
    import ray

    node, gpus = ray.get_runtime_context().get_node_id(), ray.get_gpu_ids()
    content = json.loads(text)
    folder = Path(content["folder"])
    if not (folder.is_dir() and Path(content["cwd"]).is_dir()):
        return json.dumps({"blind": platform.node(), "node": node})
    note = {"format": 1, "host": platform.node(), "node": node, "attempt": content["attempt"]}
    replace(folder / NOTE, f"{json.dumps(note)}\n".encode())
    if not gpus:
        # the device `auto` then means the CPU
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    requests: list[int] = []

    def on_request(number: int, frame: FrameType | None) -> None:
        requests.append(number)

    # Ray asks a task to stop by SIGINT
    former = signal.signal(signal.SIGINT, on_request)
    try:
        task = task_of(content)
        # multiprocessing would run the script of Ray's worker again in every job
        vars(sys.modules["__main__"]).pop("__file__", None)
        # once in a worker, which serves many tasks
        pool.warm_up()
        code, reason = attend(pool.start(work, task), requests)
    except UserError as error:
        code, reason = error.exit_code, str(error)
    finally:
        signal.signal(signal.SIGINT, former)
    return json.dumps({"code": code, "reason": reason})


def attend(worker: Worker, requests: list[int]) -> tuple[int, str]:
    """Wait for the end of a job's process, which is interrupted once `requests` is not empty; return code and reason."""
    ended: tuple[int, str] | None = None
    listens = told = False
    while True:
        if requests and listens and not told:
            told = True
            worker.signal(signal.SIGINT)
        try:
            if not worker.channel.poll(PAUSE):
                continue
            _, event, *news = worker.channel.recv()
        except (EOFError, OSError):
            break
        listens = listens or event == "listens"
        if event == "ended":
            ended = news[0], news[1]
    code = worker.end()
    return (code, "") if ended is None else ended


def probe(file: str) -> str:
    """Return what a node has and sees, as JSON: its name, the versions, and whether it can read a file."""
    return json.dumps({"host": platform.node(), "sees": os.path.exists(file), "versions": versions()})


def versions() -> dict[str, str]:
    """Return the versions that must be equal on all nodes."""
    try:
        torch = version("torch").partition("+")[0]
    except PackageNotFoundError:
        torch = "missing"
    return {"dltrain": dltrain.__version__, "torch": torch}
