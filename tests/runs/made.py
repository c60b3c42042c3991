"""Run folders that are written in a moment, with the files that the verbs look at."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "lr": 0.001,
    "seed": 0,
    "fold": None,
    "name": None,
    "output": "outputs",
    "model.hidden": [256, 128],
    "model._target_": "dltrain.models.mlp.MLP",
    "optimizer._target_": "dltrain.optimizers.torch_optimizers.adam",
    "optimizer.lr": 0.001,
    "optimizer.eps": 1e-8,
    "dataset": "digits",
    "model": "mlp",
    "optimizer": "adam",
    "metrics": [],
}
SUMMARY: dict[str, Any] = {
    "status": "completed",
    "stop_reason": "all 42 steps done",
    "best_epoch": 2.0,
    "best": {
        "epoch": 2.0,
        "step": 42.0,
        "lr": 0.001,
        "train/loss": 0.4,
        "val/loss": 0.5,
        "val/accuracy": 0.9,
    },
    "test": {"loss": 0.6, "accuracy": 0.88},
    "objective": 0.5,
    "epochs": 2.0,
    "steps": 42,
    "seconds": 12.5,
    "seed": 0,
    "metric": "val/loss",
    "mode": "min",
    "overrides": ["epochs=2"],
    "command": "dltrain epochs=2",
    "name": None,
    "tags": [],
    "notes": None,
    "git": {"commit": "a" * 40, "dirty": False},
    "versions": {"dltrain": "0.1.0", "python": "3.11.7", "torch": "2.14.1"},
    "device": "cpu",
    "threads": 1,
    "written": "2026-01-01T00:00:00+00:00",
}
DATA = {
    "format": 1,
    "task": "classification",
    "input_shape": [1, 8, 8],
    "outputs": 10,
    "sizes": {"train": 1294, "val": 144, "test": 359},
    "fingerprint": "9f828d8a95d1fadd",
}
CURVE = "epoch,step,train/loss,val/loss,seconds\n1,21,0.9,{first},0.5\n2,42,0.4,{last},0.5\n"


def followed(config: dict[str, Any]) -> dict[str, Any]:
    """Let `optimizer.lr` follow `lr`, as a configuration does."""
    return ({"optimizer.lr": config["lr"]} if "lr" in config else {}) | config


def make_run(folder: Path, objective: float = 0.5, config: Any = None, **summary: Any) -> Path:
    """Write a run folder; `config` and `summary` replace values, `...` leaves the key out."""
    content = copy.deepcopy(SUMMARY) | {
        "objective": objective,
        "config": CONFIG | followed(config if isinstance(config, dict) else {}),
    }
    content["seed"] = content["config"]["seed"]
    content["best"]["val/loss"] = objective
    content["overrides"] = (
        [f"{key}={value}" for key, value in (config or {}).items()] if config is not ... else []
    )
    if config is ...:
        del content["config"]
    content |= summary
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))
    (folder / "data.json").write_text(json.dumps(DATA))
    (folder / "config.yaml").write_text("lr: 0.001\nwords:\n  optimizer: adam\n")
    (folder / "metrics.csv").write_text(CURVE.format(first=(objective or 0) + 1, last=objective or 0))
    return folder


def make_sweep(
    folder: Path, jobs: list[dict[str, Any]], axes: tuple[str, ...] = ("lr", "seed"), **record: Any
) -> Path:
    """Write a sweep with jobs, each given as `make_run` takes it."""
    folder.mkdir(parents=True)
    content = {
        "identity": {"sweep": "grid", "axes": [{"name": name} for name in axes]},
        "command": "dltrain -m lr=0.1,0.01",
        "begun": "2026-01-01T00:00:00+00:00",
        "finished": True,
    }
    (folder / "sweep.json").write_text(json.dumps(content | record))
    for number, job in enumerate(jobs):
        make_run(folder / str(number), **job)
    return folder


def stamp(number: int) -> str:
    """Return the name of a run folder; its last four characters are unique."""
    return f"2026-01-{1 + number // 24 % 28:02}_{number % 24:02}-00-00-{number:04x}"
