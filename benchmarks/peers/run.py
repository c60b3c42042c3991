"""Run one contender in a separate process: python -m peers.run TASK.json CONTENDER RESULT.json."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import torch

from peers.problem import Task

MODULES = {
    "plain": "peers.plain_loop",
    "dltrain": "peers.dltrain_run",
    "lightning": "peers.lightning_fit",
    "skorch": "peers.skorch_fit",
    "fastai": "peers.fastai_fit",
    "keras": "peers.keras_fit",
}


def main(task_file: str, contender: str, result_file: str) -> None:
    """Fit, and leave the outcome in a file: what is printed belongs to the contender."""
    task = Task(**json.loads(Path(task_file).read_text()))
    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    name, _, variant = contender.partition("-")
    options = {"logged": True} if variant == "logged" else {}
    outcome = importlib.import_module(MODULES[name]).fit(task, tuned=variant != "", **options)
    Path(result_file).write_text(json.dumps(outcome.as_dict()))


if __name__ == "__main__":
    main(*sys.argv[1:])
