"""TensorBoard's files: curves, train and val in one chart, hparams, pictures and words in the run folder.

The records are TensorBoard's own protocol buffers, written without a thread and without its writers: `EventFileWriter`
imports TensorFlow if it is installed, and `RecordWriter` fsspec and absl, 0.05 s of every run.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from dltrain.loggers.events import EVENT_FILES, Best, Result, RunInfo, events_folder
from dltrain.loggers.figures import Image8, confusion_matrix, image_grid, png
from dltrain.storage.summary import FINISHED
from dltrain.text import utf8

TITLES = {
    "lr": "Learning rate",
    "grad_norm": "Gradient norm",
    "seconds": "Seconds per evaluation",
    "images_per_second": "Samples per second",
}


class EventFile:
    """One event file in `folder`; every call of `write` appends one record, `flush` hands all to the system.

    With `purge_step`, what earlier files of the folder hold from that step on is forgotten by TensorBoard.
    Raises OSError when the disk refuses.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self.event = Event
        now = time.time()
        # TensorBoard reads the files of a folder in the order of their names: the time comes first.
        name = f"{EVENT_FILES}.{now:017.6f}.{socket.gethostname()}.{os.getpid()}"
        self.stream = (folder / name).open("ab")
        self.append(Event(wall_time=now, file_version="brain.Event:2"))
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self.append(Event(wall_time=now, step=purge_step, session_log=start))
        self.flush()

    def append(self, event: Any) -> None:
        self.stream.write(framed(event.SerializeToString()))

    def write(self, step: int, values: Iterable[Any]) -> None:
        """Append `Summary.Value`s of one step."""
        event = self.event(wall_time=time.time(), step=step)
        event.summary.value.extend(values)
        self.append(event)

    def flush(self) -> None:
        self.stream.flush()

    def close(self) -> None:
        self.stream.close()


def framed(record: bytes) -> bytes:
    """Return a record in the format of event files: its length and content, each with its checksum."""
    length = struct.pack("<Q", len(record))
    return length + checksum(length) + record + checksum(record)


def checksum(data: bytes) -> bytes:
    """Return the masked CRC-32C of TensorFlow's record format, 4 bytes."""
    crc, table = 0xFFFFFFFF, crc_table()
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


@cache
def crc_table() -> list[int]:
    """Return the remainders of all bytes by the reversed polynomial of CRC-32C (Castagnoli et al. 1993)."""
    table = list(range(256))
    for _ in range(8):
        table = [(crc >> 1) ^ (0x82F63B78 if crc & 1 else 0) for crc in table]
    return table


class TensorBoard:
    """Curves, choices, sample images and the confusion matrix for TensorBoard.

    Written into the run folder, by which TensorBoard names the run; scalars have the tags and steps of `metrics.csv`. Values of log points come
    under `steps/`, what the best weights reach so far under `best/val/` and at the end under `best/test/`: the HParams tab
    shows their last values first, also of a run that was killed.

    Use: looking at runs and comparing them while they train: tensorboard --logdir outputs
    """

    def __init__(self) -> None:
        self.file: EventFile | None = None
        self.laid_out = False
        self.shown: dict[str, float] = {}  # the newest values under best/

    def run_started(self, run: RunInfo) -> None:
        info = self.info = run
        self.best = Best(info.metric, info.mode)
        self.best.improves(info.best_row)
        self.shown = best_tags(info.best_row)
        # the first step that a resumed run writes again
        purge_step = info.resumed_step + 1 if info.resumed else None
        self.file = EventFile(events_folder(info.folder), purge_step)
        values = [text("run", markdown(info)), hparams_start(info)]
        if info.sample_images is not None and not info.resumed_step:
            values.append(image("samples", image_grid(info.sample_images, info.sample_labels)))
        self.file.write(info.resumed_step, values)
        self.file.flush()

    def step_logged(self, row: Mapping[str, float]) -> None:
        if self.file is None:
            return
        values = (scalar(f"steps/{key}", value) for key, value in row.items() if key != "step")
        self.file.write(int(row["step"]), values)

    def evaluated(self, row: Mapping[str, float]) -> None:
        if self.file is None:
            return
        step = int(row["step"])
        if not self.laid_out:
            self.file.write(step, [layout(row)])
            self.laid_out = True
        values = {key: value for key, value in row.items() if key != "step"}  # the step is every chart's axis
        self.file.write(step, (scalar(key, value) for key, value in (values | self.best_so_far(row)).items()))
        self.file.flush()

    def best_so_far(self, row: Mapping[str, float]) -> dict[str, float]:
        """Return `best/val/loss` and so on of the best row up to this one."""
        if self.best.improves(row):
            self.shown = best_tags(row)
        return self.shown

    def run_ended(self, result: Result) -> None:
        if self.file is None:
            return
        if not result.error:
            self.write_result(self.file, result)
        self.file.close()

    def write_result(self, file: EventFile, result: Result) -> None:
        best = best_tags(result.best)
        # one value: a level from the first step to the last, since a chart of one point shows nothing
        final = {f"best/test/{key.removeprefix('test/')}": value for key, value in result.test.items()}
        if final:
            file.write(0, (scalar(key, value) for key, value in final.items()))
        if best != self.shown:  # ties within the tolerance of early stopping
            final |= best
        values = [scalar(key, value) for key, value in final.items()]
        if result.confusion is not None:
            split = "test" if result.test else "validation"
            title = f"Confusion matrix, {split} split"
            values.append(
                image("confusion_matrix", confusion_matrix(result.confusion, self.info.class_names, title))
            )
        if result.status in FINISHED:  # an interrupted run may be resumed, and the first ending would stay
            values.append(hparams_end())
        file.write(result.steps, values)


def best_tags(row: Mapping[str, float]) -> dict[str, float]:
    return {f"best/{key}": value for key, value in row.items() if key.startswith("val/")}


def scalar(tag: str, value: float) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary.Value(tag=tag, simple_value=value)


def image(tag: str, picture: Image8) -> Any:
    """Return the event of a picture (H, W, 3) uint8."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    height, width = picture.shape[:2]
    encoded = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png(picture))
    return Summary.Value(tag=tag, image=encoded)


def text(tag: str, content: str) -> Any:
    """Return Markdown for the text tab."""
    from tensorboard.plugins.text.plugin_data_pb2 import TextPluginData

    return plugin_value(tag, "text", TextPluginData(version=0).SerializeToString(), utf8(content))


def layout(row: Mapping[str, float]) -> Any:
    """Return the layout of the custom scalars: train and val of each metric in one chart, then lr, gradient and speed."""
    from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent

    def chart(title: str, tags: Sequence[str]) -> Any:
        patterns = [f"^{tag}$" for tag in tags if tag in row]
        return Chart(title=title, multiline=MultilineChartContent(tag=patterns))

    names = dict.fromkeys(key.split("/", 1)[1] for key in row if key.startswith(("train/", "val/")))
    pairs = [chart(words(name), (f"train/{name}", f"val/{name}")) for name in names]
    others = [chart(words(key), (key,)) for key in TITLES if key in row]
    content = Layout(
        category=[Category(title="Train and val", chart=pairs), Category(title="Progress", chart=others)]
    )
    return plugin_value("custom_scalars__config__", "custom_scalars", b"", content.SerializeToString())


def words(name: str) -> str:
    """Return a chart's title: grad_norm → Gradient norm, top5_accuracy → Top5 accuracy."""
    return TITLES.get(name) or (name[:1].upper() + name[1:]).replace("_", " ")


def hparams_start(info: RunInfo) -> Any:
    """Return the run's choices, without a list of hparams and metrics (an "experiment").

    TensorBoard would use the first run's list for all; without one it shows the union, what differs first.
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
    """Return a value for one of TensorBoard's plugins: `content` as a string tensor, or nothing but the metadata."""
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
    """Return the command and the description of the run, for the text tab."""
    lines = [f"**{info.name}**", "", "```", info.command, "```", ""]
    lines += [f"- {label}: {' · '.join(facts)}" for label, facts in info.summary()]
    lines += [f"- folder: `{info.folder}`"]
    if info.overrides:
        lines.append("- overrides: " + " ".join(f"`{override}`" for override in info.overrides))
    return "\n".join(lines)
