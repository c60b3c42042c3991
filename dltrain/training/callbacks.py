"""What may watch a run: the `Callback` protocol and the three records that it is shown.

Callbacks only observe. Whatever they do, and in whatever order, the weights of the run stay the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dltrain.direction import BETTER, Mode, improves

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RunInfo:
    """What is known before the first step."""

    name: str
    folder: Path
    command: str
    overrides: tuple[str, ...]
    dataset: str
    model: str
    optimizer: str
    schedule: str
    sizes: dict[str, int]  # samples of each split, e.g. {"train": 1294, "val": 143, "test": 360}
    input_shape: tuple[int, ...]
    num_classes: int
    task: str  # "classification" | "regression" | "objective"
    class_names: tuple[str, ...]
    parameters: int
    device: str
    precision: str
    threads: int
    seed: int
    max_epochs: int
    total_steps: int
    steps_per_epoch: int
    batch_size: int
    lr: float
    resumed_step: int  # 0 for a fresh run
    best_row: Mapping[str, float]  # the best row before that step; empty for a fresh run
    metric: str  # the objective, e.g. "val/loss"
    mode: Mode  # its direction
    hparams: dict[str, int | float | str | bool]  # flat, for TensorBoard
    sample_images: Tensor | None  # (K, C, H, W) in [0, 1] after augmentation
    sample_labels: tuple[str, ...]
    loaded: str = ""  # which weights came from a file
    early_stopping: str = "patience"  # the word
    inferred: tuple[str, ...] = ()  # what was inferred from the data: `table    house.csv · 506 rows · …`

    def summary(self) -> list[tuple[str, tuple[str, ...]]]:
        """The run in words: (label, facts) pairs for the terminal's header and TensorBoard's text tab."""
        kind = {"classification": "class", "regression": "target"}.get(self.task, "value")
        shape = "×".join(map(str, self.input_shape)) + f" inputs → {count(self.num_classes, kind)}"
        length = f"{count(self.max_epochs, 'epoch')} of {count(self.steps_per_epoch, 'step')}"
        if self.max_epochs * self.steps_per_epoch != self.total_steps:  # the run was given in steps
            length = f"{count(self.total_steps, 'step')}, {self.steps_per_epoch:,} an epoch"
        training = (self.optimizer, f"lr {self.lr:g}", f"schedule {self.schedule}")
        machine = (self.device, self.precision, count(self.threads, "thread"), f"seed {self.seed}")
        resumed = (f"resumed at step {self.resumed_step:,}",) if self.resumed_step else ()
        return [
            ("data", (self.dataset, *(f"{n:,} {split}" for split, n in self.sizes.items()), shape)),
            *map(labelled_facts, self.inferred),
            (
                "model",
                (self.model, count(self.parameters, "parameter"), *([self.loaded] if self.loaded else [])),
            ),
            ("training", (*training, f"batch {self.batch_size:,}", f"at most {length}", *resumed)),
            ("goal", (f"{self.metric}, {BETTER[self.mode]}", f"early stopping {self.early_stopping}")),
            ("machine", machine),
        ]


@dataclass
class Progress:
    """Where the fit is now: one object for the whole fit, updated by the trainer at every step."""

    epoch: int  # the pass that is running, from 1
    step: int  # updates done, those before a resume included
    total_steps: int
    lr: float
    batch_size: int
    values: dict[str, float] | None  # set at log points only (`log.every_steps`), e.g. loss and grad_norm
    phase: str  # "train" | "val"


@dataclass(frozen=True)
class Result:
    """What came out of the run; seconds are wall time, the peak memory is that of the device in bytes."""

    status: str  # as in summary.json: "completed", "early_stopped", "interrupted", …
    stop_reason: str
    best_epoch: float
    best: dict[str, float]  # the row of the best evaluation, e.g. {"val/loss": …}
    test: dict[str, float]  # empty where there is no test split
    objective: float | None
    epochs: float
    steps: int
    seconds: float
    images_per_second: float
    peak_memory_bytes: int
    confusion: Tensor | None  # (C, C) int64 counts, rows = truth; None unless classification
    constant: Mapping[str, float] = field(
        default_factory=dict
    )  # scores of the best constant guess on a table


def labelled_facts(line: str) -> tuple[str, tuple[str, ...]]:
    """Split `label   fact · fact` into its label and facts."""
    label, _, text = line.partition(" ")
    return label, tuple(text.strip().split(" · "))


def count(number: float, noun: str) -> str:
    """1 epoch, 2,000 epochs, 0.5 epochs, 10 classes."""
    size = f"{number:,}" if number == int(number) else f"{number:.4g}"
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{size.removesuffix('.0')} {noun if number == 1 else plural}"


class Best:
    """The best evaluation so far by `metric` ("gap" = val/loss − train/loss) and `mode` (min or max)."""

    def __init__(self, metric: str, mode: Mode) -> None:
        self.metric, self.mode = metric, mode
        self.score: float | None = None

    def improves(self, row: Mapping[str, float]) -> bool:
        """Whether this row is the best so far; NaN never is, nor a row without the metric."""
        if self.metric == "gap" and "gap" not in row:
            value = row.get("val/loss", math.nan) - row.get("train/loss", math.nan)
        else:
            value = row.get(self.metric, math.nan)
        better = improves(value, self.score, self.mode)
        if better:
            self.score = value
        return better


class Callback(Protocol):
    """An observer of the fit. It reads what it is given and changes nothing of it."""

    def on_fit_start(self, info: RunInfo) -> None:
        """Called once, before the first step."""

    def on_step_end(self, progress: Progress) -> None:
        """Called after every step: at most 2 µs when nothing is due."""

    def on_epoch_end(self, row: Mapping[str, float]) -> None:
        """Called after every evaluation with the row of metrics.csv: `epoch`, `step`, `train/loss`, …"""

    def on_fit_end(self, result: Result) -> None:
        """Called once, after the test split was scored."""

    def on_exception(self, error: BaseException) -> None:
        """Called instead of `on_fit_end` when the fit raises; the error is raised again afterwards."""
