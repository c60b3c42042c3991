"""TensorBoard's files: curves, one chart for train and val, hparams, pictures and words in folder/tensorboard.

The records are written through TensorBoard's own protocol buffers and record writer, without a thread and without
`EventFileWriter`, which imports the whole of TensorFlow where it happens to be installed.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dltrain.training.callbacks import Progress, Result, RunInfo
from dltrain.training.figures import Image8, confusion_matrix, image_grid, png

SUBFOLDER = "tensorboard"
FINISHED = ("completed", "early_stopped", "converged", "pruned")


class EventFile:
    """One event file in `folder`; every call of `write` appends one record, `flush` hands all to the system.

    With `purge_step`, what earlier files of the folder hold from that step on is forgotten by TensorBoard.
    Raises OSError when the disk refuses.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        self.event = Event
        # TensorBoard reads the files of a folder in the order of their names: the time comes first.
        now = time.time()
        name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}.{int(now % 1 * 1e6):06d}"
        self.records = RecordWriter((folder / name).open("ab"))
        self.append(Event(wall_time=now, file_version="brain.Event:2"))
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self.append(Event(wall_time=now, step=purge_step, session_log=start))
        self.flush()

    def append(self, event: Any) -> None:
        self.records.write(event.SerializeToString())

    def write(self, step: int, values: Iterable[Any]) -> None:
        """Append `Summary.Value`s of one step."""
        event = self.event(wall_time=time.time(), step=step)
        event.summary.value.extend(values)
        self.append(event)

    def flush(self) -> None:
        self.records.flush()

    def close(self) -> None:
        if not self.records.closed:
            self.records.close()


class TensorBoard:
    """Write the run into folder/tensorboard; the scalars have the tags and steps of metrics.csv.

    `purge_step`: the first step that is written anew after a resume (the last kept row's step + 1), else None.
    Values of log points come under `steps/`, the best and the test metrics under `best/` and `test/`.
    Raises OSError from any method when the disk refuses; the run itself needs nothing of what is written here.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        self.folder = folder / SUBFOLDER
        self.purge_step = purge_step
        self.file: EventFile | None = None
        self.laid_out = False

    def on_fit_start(self, info: RunInfo) -> None:
        self.info = info
        self.file = EventFile(self.folder, self.purge_step)
        values = [text("run", markdown(info)), hparams_start(info)]
        if info.sample_images is not None:
            values.append(image("samples", image_grid(info.sample_images, info.sample_labels)))
        self.file.write(info.resumed_step, values)
        self.file.flush()

    def on_step_end(self, progress: Progress) -> None:
        if progress.values is None or self.file is None:
            return
        self.file.write(progress.step, (scalar(f"steps/{key}", v) for key, v in progress.values.items()))

    def on_epoch_end(self, row: Mapping[str, float]) -> None:
        if self.file is None:
            return
        step = int(row["step"])
        if not self.laid_out:
            self.file.write(step, [layout(row)])
            self.laid_out = True
        # The step itself is the axis of every chart.
        self.file.write(step, (scalar(key, v) for key, v in row.items() if key != "step" and v is not None))
        self.file.flush()

    def on_fit_end(self, result: Result) -> None:
        if self.file is None:
            return
        values = [scalar(key, value) for key, value in final_metrics(result).items()]
        if result.confusion is not None:
            split = "test" if result.test else "validation"
            title = f"Confusion matrix, {split} split"
            values.append(
                image("confusion_matrix", confusion_matrix(result.confusion, self.info.class_names, title))
            )
        if result.status in FINISHED:  # an interrupted run may be resumed, and the first ending would stay
            values.append(hparams_end())
        self.file.write(result.steps, values)
        self.file.close()

    def on_exception(self, error: BaseException) -> None:
        if self.file is not None:
            self.file.close()


def final_metrics(result: Result) -> dict[str, float]:
    """The numbers that stand for the run in the HParams tab: best/val/loss, …, test/accuracy, …"""
    best = {f"best/{key}": value for key, value in result.best.items() if "/" in key}
    test = {f"test/{key.removeprefix('test/')}": value for key, value in result.test.items()}
    return best | test


def scalar(tag: str, value: float) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary.Value(tag=tag, simple_value=value)


def image(tag: str, picture: Image8) -> Any:
    """A picture (H, W, 3) uint8."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    height, width = picture.shape[:2]
    encoded = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png(picture))
    return Summary.Value(tag=tag, image=encoded)


def text(tag: str, content: str) -> Any:
    """Markdown for the text tab."""
    from tensorboard.plugins.text.plugin_data_pb2 import TextPluginData

    return plugin_value(tag, "text", TextPluginData(version=0).SerializeToString(), content.encode())


def layout(row: Mapping[str, float]) -> Any:
    """The custom scalars of these columns: train and val of a metric in one chart, then lr, gradient and speed."""
    from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent

    def chart(title: str, tags: Sequence[str]) -> Any:
        patterns = [f"^{tag}$" for tag in tags if tag in row]
        return Chart(title=title, multiline=MultilineChartContent(tag=patterns))

    names = dict.fromkeys(key.split("/", 1)[1] for key in row if key.startswith(("train/", "val/")))
    pairs = [chart(words(name), (f"train/{name}", f"val/{name}")) for name in names]
    single = ("lr", "grad_norm", "seconds", "images_per_second")
    others = [chart(words(key), (key,)) for key in single if key in row]
    content = Layout(
        category=[Category(title="Train and val", chart=pairs), Category(title="Progress", chart=others)]
    )
    return plugin_value("custom_scalars__config__", "custom_scalars", b"", content.SerializeToString())


def words(name: str) -> str:
    """grad_norm → Grad norm."""
    return (name[:1].upper() + name[1:]).replace("_", " ")


def hparams_start(info: RunInfo) -> Any:
    """The run's choices. No list of hparams and metrics (an "experiment") is written beside them: TensorBoard
    would use the first run's list for all, where without one it shows the union, what differs first.
    """
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    start = SessionStartInfo(start_time_secs=time.time(), group_name="")
    for key, value in info.hparams.items():
        if isinstance(value, bool):
            start.hparams[key].bool_value = value
        elif isinstance(value, int | float):
            start.hparams[key].number_value = value
        else:
            start.hparams[key].string_value = str(value)
    data = HParamsPluginData(version=0, session_start_info=start)
    return plugin_value("_hparams_/session_start_info", "hparams", data.SerializeToString(), None)


def hparams_end() -> Any:
    from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

    end = SessionEndInfo(status=STATUS_SUCCESS, end_time_secs=time.time())
    data = HParamsPluginData(version=0, session_end_info=end)
    return plugin_value("_hparams_/session_end_info", "hparams", data.SerializeToString(), None)


def plugin_value(tag: str, plugin: str, metadata: bytes, content: bytes | None) -> Any:
    """A value for one of TensorBoard's plugins: `content` as a string tensor, or nothing but the metadata."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

    about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin, content=metadata))
    size = TensorShapeProto(dim=[TensorShapeProto.Dim(size=0 if content is None else 1)])
    if content is None:
        tensor = TensorProto(dtype="DT_FLOAT", tensor_shape=size)
    else:
        tensor = TensorProto(dtype="DT_STRING", tensor_shape=size, string_val=[content])
    return Summary.Value(tag=tag, metadata=about, tensor=tensor)


def markdown(info: RunInfo) -> str:
    """The command and the run in words, for the text tab."""
    lines = [f"**{info.name}**", "", "```", info.command, "```", ""]
    lines += [f"- {label}: {' · '.join(facts)}" for label, facts in info.summary()]
    lines += [f"- objective: {info.metric} ({info.mode})", f"- folder: `{info.folder}`"]
    if info.overrides:
        lines.append("- overrides: " + " ".join(f"`{override}`" for override in info.overrides))
    return "\n".join(lines)
