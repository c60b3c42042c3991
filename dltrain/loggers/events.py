"""The events of a run, which loggers receive, and the records that come with them.

Loggers only observe. Each receives copies, so that nothing that it does with them changes the run or another logger.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from zlib import crc32

from dltrain.direction import BETTER, Mode, improves, value_in
from dltrain.storage.event_log import result_of
from dltrain.text import counted, utf8

if TYPE_CHECKING:
    from torch import Tensor

# where earlier versions wrote the event files of a run, inside its folder
EARLIER = "tensorboard"
EVENT_FILES = "events.out.tfevents"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunInfo:
    """The facts about a run before its first step."""

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
    config: Mapping[
        str, Any
    ]  # as config.yaml holds it: values from the environment are the texts that read them
    sample_images: Tensor | None  # (K, C, H, W) in [0, 1] after augmentation
    sample_labels: tuple[str, ...]
    loaded: str = ""  # which weights came from a file
    early_stopping: str = "patience"  # the word
    stopping: str = ""  # which weights are kept, where that is not plain
    # regularization and what is scheduled besides lr: `strengths × 0 → 1 (linear)`
    rules: tuple[str, ...] = ()
    plateaus: tuple[str, ...] = ()  # metrics that schedules lower their values by
    inferred: tuple[str, ...] = ()  # what was inferred from the data: `table    house.csv · 506 rows · …`
    resumed: bool = False  # also at step 0, for a run that ended before its first checkpoint
    sweep: str = ""  # name of the sweep's folder for one of its jobs

    @property
    def title(self) -> str:
        """Return the name of its folder."""
        return self.folder.name

    @property
    def id(self) -> str:
        """Return an identifier that no other run has and a resumed run keeps: letters, digits, `-` and `_`."""
        # a job's folder is named by its values, inside the folder of its sweep; a run's folder is inside that of its name
        whole = "/".join(Path(self.folder).absolute().parts[-2:])
        return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', self.title)[-60:].strip('-')}-{crc32(utf8(whole)):08x}"

    def summary(self) -> list[tuple[str, tuple[str, ...]]]:
        """Return a description of the run: (label, facts) pairs for the terminal's header and TensorBoard's text tab."""
        kind = {"classification": "class", "regression": "target"}.get(self.task, "value")
        shape = "×".join(map(str, self.input_shape)) + f" inputs → {counted(self.num_classes, kind)}"
        length = f"{counted(self.max_epochs, 'epoch')} of {counted(self.steps_per_epoch, 'step')}"
        if self.max_epochs * self.steps_per_epoch != self.total_steps:  # the run was given in steps
            length = f"{counted(self.total_steps, 'step')}, {self.steps_per_epoch:,} an epoch"
        training = (self.optimizer, f"lr {self.lr:g}", f"schedule {self.schedule}")
        machine = (self.device, self.precision, counted(self.threads, "thread"), f"seed {self.seed}")
        resumed = (f"resumed at step {self.resumed_step:,}",) if self.resumed_step else ()
        return [
            ("data", (self.dataset, *(f"{n:,} {split}" for split, n in self.sizes.items()), shape)),
            *map(labelled_facts, self.inferred),
            (
                "model",
                (self.model, counted(self.parameters, "parameter"), *([self.loaded] if self.loaded else [])),
            ),
            ("training", (*training, f"batch {self.batch_size:,}", f"at most {length}", *resumed)),
            *([("rules", self.rules)] if self.rules else []),
            (
                "goal",
                (
                    f"{self.metric}, {BETTER[self.mode]}",
                    f"early stopping {self.early_stopping}",
                    *([self.stopping] if self.stopping else []),
                ),
            ),
            ("machine", machine),
        ]


@dataclass
class Progress:
    """The progress of a fit: one object, which the trainer updates at every step."""

    epoch: int  # the pass that is running, from 1
    step: int  # updates done, those before a resume included
    total_steps: int
    lr: float
    batch_size: int
    values: dict[str, float] | None  # set at log points only (`log.every_steps`), e.g. loss and grad_norm
    phase: str  # "train" | "val"


@dataclass(frozen=True)
class Result:
    """The results of a run; seconds are wall time, the peak memory is that of the device in bytes."""

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
    remarks: tuple[str, ...] = ()  # what was planned and is not in the weights
    error: str = ""  # class of the error or signal that ended the run early

    def flat(self) -> dict[str, float | str | None]:
        """Return the result as one level of names: `status`, `best/val/loss`, `test/accuracy` and so on."""
        return result_of(vars(self), self.best, self.test)


def events_folder(run: Path) -> Path:
    """Return where the event files of a run are: TensorBoard names a run by the folder of its files, so in the run folder.

    A run that an earlier version began continues in `tensorboard/` of its folder.
    """
    return earlier if (earlier := run / EARLIER).is_dir() else run


def shown_name(file: str) -> str:
    """Return the name of a file of a run in a table: those of TensorBoard have one, since each has a time and a host."""
    return f"{EVENT_FILES}.*" if file.startswith(EVENT_FILES) else file


def has_curves(run: Path) -> bool:
    """Return whether TensorBoard finds a run folder."""
    return any(events_folder(run).glob(f"{EVENT_FILES}.*"))


def labelled_facts(line: str) -> tuple[str, tuple[str, ...]]:
    """Split `label   fact · fact` into its label and facts."""
    label, _, text = line.partition(" ")
    return label, tuple(text.strip().split(" · "))


def not_finite(info: RunInfo, row: Mapping[str, float]) -> dict[str, str]:
    """Return, by metric, what an evaluation does that has no finite value of it: the metrics by which the run decides."""
    found = {}
    for metric in dict.fromkeys((info.metric, *info.plateaus)):
        value = value_in(row, metric)
        if not math.isfinite(value):
            means = ["it is not the best"] if metric == info.metric else []
            means += ["the schedule leaves it out"] if metric in info.plateaus else []
            found[metric] = f"{metric} is {value:g} at step {row.get('step', 0):g}: {', and '.join(means)}"
    return found


class Best:
    """The best evaluation so far by `metric` ("gap" = |val/loss − train/loss|) and `mode` (min or max)."""

    def __init__(self, metric: str, mode: Mode) -> None:
        self.metric, self.mode = metric, mode
        self.score: float | None = None

    def improves(self, row: Mapping[str, float]) -> bool:
        """Return whether this row is the best so far; NaN never is, nor a row without the metric."""
        value = value_in(row, self.metric)
        better = improves(value, self.score, self.mode)
        if better:
            self.score = value
        return better

    def of(self, rows: Iterable[dict[str, float]]) -> dict[str, float]:
        """Return the best of rows, the first of equal ones; empty where none has the metric."""
        first: dict[str, float] = {}
        for row in rows:
            first = row if self.improves(row) else first
        return first


class RunStarted(Protocol):
    """A logger that wants to know what the run is."""

    def run_started(self, run: RunInfo) -> None:
        """Handle the start, before the first step; a resumed run has `run.resumed` and `run.resumed_step`."""


class StepLogged(Protocol):
    """A logger of single steps."""

    def step_logged(self, row: dict[str, float]) -> None:
        """Handle every `log.every_steps`-th step: `step`, its `grad_norm` and `lr`, and `loss` and metrics of training.

        Those are means over the steps since the last call, or since the last evaluation if that came later.
        """


class Evaluated(Protocol):
    """A logger of evaluations."""

    def evaluated(self, row: dict[str, float]) -> None:
        """Handle an evaluation, with the row of metrics.csv: `epoch`, `step`, `train/loss` and so on."""


class RunEnded(Protocol):
    """A logger that wants to know what came out."""

    def run_ended(self, result: Result) -> None:
        """Handle the end, after the test split was scored, or when an error or a signal ended the run (`result.error`)."""


class Stepped(Protocol):
    """An observer of every step, which a fast loop has no time for."""

    def stepped(self, progress: Progress) -> None:
        """Handle a step, in at most 2 µs when nothing is due. A stacked job has steps between the calls."""


class Logger(RunStarted, StepLogged, Evaluated, RunEnded, Stepped, Protocol):
    """All events. A logger has the methods of those that it needs."""


EVENTS = ("run_started", "step_logged", "evaluated", "run_ended", "stepped")


class Loggers:
    """The loggers of one run, by the events that they receive.

    One that fails is left out from then on, since no logger may end a run.

    Args:
        note: receives a line for each that failed
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self.note = note
        self.methods: dict[str, list[tuple[object, Callable[[Any], None]]]] = {event: [] for event in EVENTS}

    def add(self, logger: object) -> None:
        for event, methods in self.methods.items():
            method = getattr(logger, event, None)
            if method is not None:
                methods.append((logger, method))

    def remove(self, logger: object) -> None:
        for event, methods in self.methods.items():
            self.methods[event] = [(owner, method) for owner, method in methods if owner is not logger]

    def stepped(self, progress: Progress) -> None:
        """Tell of a step. All receive the same record, which each step changes."""
        for logger, method in self.methods["stepped"]:
            self.call(logger, method, progress)

    def tell(self, event: str, record: object) -> None:
        """Tell every logger of an event, each with a copy."""
        for logger, method in tuple(self.methods[event]):
            self.call(logger, method, deepcopy(record))

    def call(self, logger: object, method: Callable[[Any], None], record: object) -> None:
        name = type(logger).__name__
        try:
            method(record)
        except OSError as error:
            self.remove(logger)
            self.note(f"{name} could not be written ({error.strerror or error})")
        # the packages of others raise any kind of error, also where a network is down
        except Exception as error:
            self.remove(logger)
            _log.exception("%s failed, and is left out", name)
            reason = (str(error).splitlines() or [""])[0][:200]
            self.note(f"{name} failed, and was left out ({type(error).__name__}: {reason})")
