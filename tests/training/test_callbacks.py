"""The records shown to callbacks, and the helpers with which the tests of this folder make a run."""

import dataclasses
import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dltrain.training.callbacks import Best, Callback, Progress, Result, RunInfo
from dltrain.training.profiler import Profiler
from dltrain.training.tensorboard import TensorBoard
from dltrain.training.terminal import Terminal

METHODS = ("on_fit_start", "on_step_end", "on_epoch_end", "on_fit_end", "on_exception")
STEPS = 10  # steps of an epoch


def run_info(folder: Path = Path("outputs/digits-mlp/2026-01-31_12-00-00-ab12"), **changes: Any) -> RunInfo:
    epochs = changes.get("max_epochs", 30)
    info = RunInfo(
        name="digits-mlp", folder=folder, command="dltrain lr=1e-3", overrides=("lr=1e-3",),
        dataset="digits", model="mlp", optimizer="adam", schedule="cosine",
        sizes={"train": 1294, "val": 143, "test": 360}, input_shape=(1, 8, 8), num_classes=3,
        task="classification", class_names=("a", "b", "c"), parameters=52650, device="cpu", precision="fp32",
        threads=2, seed=0, max_epochs=epochs, total_steps=epochs * STEPS, steps_per_epoch=STEPS,
        batch_size=64, lr=1e-3, resumed_step=0, best_row={}, metric="val/loss", mode="min",
        hparams={"optimizer": "adam", "lr": 1e-3, "seed": 0, "nesterov": False},
        sample_images=None, sample_labels=(),
    )  # fmt: skip
    return dataclasses.replace(info, **changes)


def rows(epochs: int, first: int = 1) -> Iterator[dict[str, float]]:
    """Evaluations of a run that is best at epoch 20 and overfits from there on."""
    for epoch in range(first, epochs + 1):
        yield {
            "epoch": float(epoch), "step": float(epoch * STEPS), "lr": 1e-3 / epoch,
            "train/loss": 1 / epoch, "train/accuracy": 1 - 0.5 / epoch,
            "val/loss": 0.1 + abs(epoch - 20) / 30, "val/accuracy": 0.9 - abs(epoch - 20) / 50,
            "grad_norm": 2 / epoch, "seconds": 0.03, "images_per_second": 41234.5,
        }  # fmt: skip


def result(**changes: Any) -> Result:
    values: dict[str, Any] = {
        "status": "early_stopped", "stop_reason": "val/loss has not improved for 10 evaluations",
        "best_epoch": 20.0, "best": {"val/loss": 0.1, "val/accuracy": 0.9},
        "test": {"loss": 0.11, "accuracy": 0.89}, "objective": 0.1, "epochs": 30.0, "steps": 300,
        "seconds": 2.31, "images_per_second": 42123.0, "peak_memory_bytes": 318 * 2**20, "confusion": None,
    }  # fmt: skip
    return Result(**(values | changes))


def fit(callback: Callback, info: RunInfo, outcome: Result | BaseException | None = None) -> Progress:
    """What a trainer does to a callback; without an outcome the run is killed after its last evaluation."""
    callback.on_fit_start(info)
    progress = Progress(1, info.resumed_step, info.total_steps, info.lr, info.batch_size, None, "train")
    for row in rows(info.max_epochs, 1 + info.resumed_step // STEPS):
        progress.epoch = int(row["epoch"])
        for _ in range(STEPS):
            progress.step += 1
            progress.values = {"loss": row["train/loss"]} if progress.step % 5 == 0 else None
            callback.on_step_end(progress)
        callback.on_epoch_end(row)
    if isinstance(outcome, Result):
        callback.on_fit_end(outcome)
    elif outcome is not None:
        callback.on_exception(outcome)
    return progress


@pytest.mark.parametrize("owner", [Terminal, TensorBoard, Profiler])
@pytest.mark.parametrize("method", METHODS)
def test_callbacks_have_the_five_methods_of_the_protocol(owner: type, method: str) -> None:
    expected = list(inspect.signature(getattr(Callback, method)).parameters)
    assert list(inspect.signature(getattr(owner, method)).parameters) == expected


@pytest.mark.parametrize("owner", [Terminal, TensorBoard])
def test_callbacks_only_observe(owner: type, tmp_path: Path) -> None:
    class Frozen(dict[str, float]):
        def __setitem__(self, key: str, value: float) -> None:
            raise AssertionError("a callback changed a row")

    callback = Terminal(quiet=False) if owner is Terminal else TensorBoard(tmp_path, None)
    callback.on_fit_start(run_info(tmp_path))
    progress = Progress(1, 1, 300, 1e-3, 64, {"loss": 1.0}, "train")
    before = dataclasses.asdict(progress)
    callback.on_step_end(progress)
    callback.on_epoch_end(Frozen(next(rows(1))))
    callback.on_exception(KeyboardInterrupt())
    assert dataclasses.asdict(progress) == before


@pytest.mark.parametrize(
    "metric, mode, values, expected",
    [
        ("val/loss", "min", [3.0, 2.0, 2.0, 4.0, 1.0], [True, True, False, False, True]),
        ("val/loss", "max", [3.0, 2.0, 3.0, 4.0], [True, False, False, True]),
        ("val/loss", "min", [math.nan, 2.0, math.nan, -1.0], [False, True, False, True]),
        ("val/loss", "max", [-1.0, -0.95, math.inf], [True, True, False]),
        ("missing", "min", [1.0, 0.0], [False, False]),
        ("gap", "min", [3.0, 2.0, 4.0], [True, True, False]),
    ],
)
def test_best(metric: str, mode: str, values: list[float], expected: list[bool]) -> None:
    best = Best(metric, mode)
    assert [best.improves({"val/loss": value, "train/loss": 1.0}) for value in values] == expected


@pytest.mark.parametrize(
    "changes, label, fact",
    [
        ({}, "data", "1×8×8 inputs → 3 classes"),
        ({}, "data", "1,294 train"),
        ({"task": "regression", "num_classes": 1}, "data", "1×8×8 inputs → 1 target"),
        ({"task": "objective", "num_classes": 1, "input_shape": (1,)}, "data", "1 inputs → 1 value"),
        ({}, "training", "at most 30 epochs of 10 steps"),
        ({"max_epochs": 1, "total_steps": 10}, "training", "at most 1 epoch of 10 steps"),
        ({"total_steps": 1234}, "training", "at most 1,234 steps, 10 an epoch"),
        ({"resumed_step": 120}, "training", "resumed at step 120"),
        ({"threads": 1}, "machine", "1 thread"),
    ],
)
def test_summary(changes: dict[str, Any], label: str, fact: str) -> None:
    assert fact in dict(run_info(**changes).summary())[label]
