"""dltrain by its real command: header, live line, metrics, TensorBoard, checkpoints, everything on."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from peers.problem import LR, Laps, Outcome, Task


def command(task: Task, folder: Path) -> list[str]:
    """Return the arguments of the run; all others are the defaults of dltrain."""
    return [
        "dataset=npz",
        f"dataset.path={task.data}",
        "dataset.split=split",
        "dataset.test_fraction=0",  # or it would be cut out of the training images
        f"model={task.model}",
        "optimizer=adam",
        f"lr={LR}",
        f"batch_size={task.batch_size}",
        f"epochs={task.epochs}",
        f"threads={task.threads}",
        f"device={task.device}",
        "precision=fp32",
        "early_stopping=none",
        "log.every_steps=50",
        f"output={folder}",
    ]


def fit(task: Task, tuned: bool) -> Outcome:
    """Run the command in this process; the laps are taken around the trainer's own methods."""
    import dltrain
    from dltrain.cli import main

    laps = Laps(task.device)
    time_trainer(laps)
    folder = Path("dltrain-outputs").resolve()
    try:
        main(command(task, folder))
    except SystemExit as end:
        if end.code:
            raise
    [metrics] = folder.rglob("metrics.csv")
    with open(metrics, encoding="utf-8") as stream:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]
    check_images(rows[-1], task)
    return Outcome(laps.after_the_first(), rows[-1]["val/accuracy"], dltrain.__version__)


def time_trainer(laps: Laps) -> None:
    """Let `laps` know what begins, as the callbacks of the others do."""
    from dltrain.training.trainer import Trainer

    train_epoch, validate, end = Trainer.train_epoch, Trainer.validate, Trainer.end

    def timed_epoch(trainer: Trainer, epoch: int) -> None:
        trainer.folder.wait()  # or its checkpoint is written in the time of the next contender
        laps.epoch_begins()
        train_epoch(trainer, epoch)

    def timed_validation(trainer: Trainer) -> dict[str, float]:
        laps.validation_begins()
        return validate(trainer)

    def timed_end(trainer: Trainer) -> None:
        trainer.folder.wait()
        laps.end()
        end(trainer)

    Trainer.train_epoch = timed_epoch  # type: ignore[method-assign]
    Trainer.validate = timed_validation  # type: ignore[method-assign]
    Trainer.end = timed_end  # type: ignore[method-assign]


def check_images(row: dict[str, float], task: Task) -> None:
    """Raise RuntimeError if an epoch was not that of the other contenders."""
    trained = round(row["images_per_second"] * row["seconds"])
    expected = int((np.load(task.data)["split"] == 0).sum())
    if trained != expected:
        raise RuntimeError(f"dltrain trained on {trained} images an epoch, the others on {expected}")
