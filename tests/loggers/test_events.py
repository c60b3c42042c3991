"""The events and their records, and the helpers with which the tests of this folder make a run."""

import dataclasses
import inspect
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dltrain.loggers.events import EVENTS, Best, Logger, Loggers, Progress, Result, RunInfo
from dltrain.loggers.profiler import Profiler
from dltrain.loggers.run_log import RunLog
from dltrain.loggers.tensorboard import TensorBoard
from dltrain.loggers.terminal import Terminal

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
        sample_images=None, sample_labels=(), config={"seed": 0},
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


def cut_short(error: str) -> Result:
    """What loggers are told of a run that an error ended."""
    return result(status="failed", stop_reason="", error=error, test={})


def fit(logger: object, info: RunInfo, outcome: Result | BaseException | None = None) -> Progress:
    """What a trainer tells a logger; without an outcome the run is killed after its last evaluation."""
    loggers = Loggers(pytest.fail)
    loggers.add(logger)
    loggers.tell("run_started", info)
    progress = Progress(1, info.resumed_step, info.total_steps, info.lr, info.batch_size, None, "train")
    for row in rows(info.max_epochs, 1 + info.resumed_step // STEPS):
        progress.epoch = int(row["epoch"])
        for _ in range(STEPS):
            progress.step += 1
            progress.values = {"loss": row["train/loss"]} if progress.step % 5 == 0 else None
            loggers.stepped(progress)
            if progress.values is not None:
                loggers.tell("step_logged", {"step": float(progress.step), **progress.values})
        loggers.tell("evaluated", row)
    if isinstance(outcome, BaseException):
        outcome = cut_short(type(outcome).__name__)
    if outcome is not None:
        loggers.tell("run_ended", outcome)
    return progress


@pytest.mark.parametrize("kind", [Terminal, TensorBoard, Profiler, RunLog])
def test_methods_take_what_the_events_give(kind: type) -> None:
    found = set(EVENTS) & set(vars(kind))
    assert {"run_started", "run_ended"} <= found
    for event in found:
        assert inspect.signature(getattr(kind, event)).parameters.keys() == (
            inspect.signature(getattr(Logger, event)).parameters.keys()
        )


class Meddler:
    """A logger that changes everything that it is given."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def run_started(self, run: RunInfo) -> None:
        run.hparams.clear()
        run.config.clear()  # type: ignore[attr-defined]
        self.told.append("run_started")

    def step_logged(self, row: dict[str, float]) -> None:
        row.clear()
        self.told.append("step_logged")

    def evaluated(self, row: dict[str, float]) -> None:
        row["val/loss"] = -1.0
        self.told.append("evaluated")

    def run_ended(self, result: Result) -> None:
        result.best.clear()
        self.told.append("run_ended")


def test_a_logger_changes_nothing_that_another_sees(tmp_path: Path) -> None:
    one, other, notes = Meddler(), Meddler(), []
    loggers = Loggers(notes.append)
    for logger in (one, other):
        loggers.add(logger)
    info, row, ended = run_info(tmp_path), next(rows(1)), result()
    before = (dataclasses.asdict(info), dict(row), dataclasses.asdict(ended))
    for event, record in (
        ("run_started", info),
        ("step_logged", row),
        ("evaluated", row),
        ("run_ended", ended),
    ):
        loggers.tell(event, record)
    assert (dataclasses.asdict(info), row, dataclasses.asdict(ended)) == before
    assert one.told == other.told == list(EVENTS[:4])
    assert notes == []


@pytest.mark.parametrize(
    "error, note",
    [
        (OSError(28, "No space left on device"), "Broken could not be written (No space left on device)"),
        (RuntimeError("no network\nat all"), "Broken failed, and was left out (RuntimeError: no network)"),
    ],
)
def test_a_logger_that_fails_is_left_out(error: Exception, note: str) -> None:
    class Broken:
        calls = 0

        def evaluated(self, row: dict[str, float]) -> None:
            self.calls += 1
            raise error

        def run_ended(self, result: Result) -> None:
            raise AssertionError("it was left out")

    broken, sound, notes = Broken(), Meddler(), []
    loggers = Loggers(notes.append)
    for logger in (broken, sound):
        loggers.add(logger)
    for _ in range(3):
        loggers.tell("evaluated", {"step": 1.0})
    loggers.tell("run_ended", result())
    assert broken.calls == 1
    assert notes == [note]
    assert sound.told == 3 * ["evaluated"] + ["run_ended"]


def test_ids_differ_and_do_not_depend_on_where_the_output_lies() -> None:
    def id_of(folder: str) -> str:
        return run_info(Path(folder)).id

    assert id_of("outputs/a/1-lr=0.1") != id_of("outputs/a/1-lr_0.1")
    assert id_of("outputs/a/1") != id_of("outputs/b/1")
    assert id_of("/elsewhere/outputs/a/1") == id_of("outputs/a/1")
    assert re.fullmatch(r"[\w-]{1,70}", id_of("outputs/a/" + "lr=0.1,seed=3," * 20))


@pytest.mark.parametrize(
    "metric, mode, values, expected",
    [
        ("val/loss", "min", [3.0, 2.0, 2.0, 4.0, 1.0], [True, True, False, False, True]),
        ("val/loss", "max", [3.0, 2.0, 3.0, 4.0], [True, False, False, True]),
        ("val/loss", "min", [math.nan, 2.0, math.nan, -1.0], [False, True, False, True]),
        ("val/loss", "max", [-1.0, -0.95, math.inf], [True, True, False]),
        ("missing", "min", [1.0, 0.0], [False, False]),
        ("gap", "min", [3.0, 2.0, 4.0], [True, True, False]),
        ("gap", "min", [-3.0, 2.0, 0.5], [True, True, True]),
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
