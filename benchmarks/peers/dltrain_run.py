"""dltrain by its real command: header, live line, metrics, TensorBoard, checkpoints, everything on."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from peers.problem import LR, Epoch, Outcome, Task


def command(task: Task, folder: Path) -> list[str]:
    """The arguments of the run; what is not named is dltrain's default."""
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
    """Run the command in this process and read the times from what it leaves behind."""
    import dltrain
    from dltrain.cli import main

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
    written = times_of_rows(metrics.parent)
    whole = [end - begin for begin, end in zip(written, written[1:], strict=False)]
    epochs = [Epoch(row["seconds"], seconds) for row, seconds in zip(rows[1:], whole, strict=True)]
    return Outcome(epochs, rows[-1]["val/accuracy"], dltrain.__version__)


def check_images(row: dict[str, float], task: Task) -> None:
    """Raises RuntimeError if an epoch was not that of the other contenders."""
    trained = round(row["images_per_second"] * row["seconds"])
    expected = int((np.load(task.data)["split"] == 0).sum())
    if trained != expected:
        raise RuntimeError(f"dltrain trained on {trained} images an epoch, the others on {expected}")


def times_of_rows(folder: Path) -> list[float]:
    """When each epoch's row was written, by TensorBoard's file: row to row is all that an epoch takes."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [event.wall_time for event in events.Scalars("images_per_second")]
