import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_events import STEPS, cut_short, fit, result, rows, run_info

from dltrain.loggers.tensorboard import EventFile, TensorBoard, checksum, words


def read(folder: Path) -> EventAccumulator:
    """What TensorBoard's own reader finds in the run folder."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    return accumulator.Reload()


def points(accumulator: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> EventAccumulator:
    folder = tmp_path_factory.mktemp("run")
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    info = run_info(folder, sample_images=images, sample_labels=tuple("abcabc"))
    confusion = torch.tensor([[9, 1, 0], [0, 8, 2], [0, 0, 7]])
    fit(TensorBoard(), info, result(confusion=confusion))
    return read(folder)


def test_scalars_equal_the_rows_of_metrics_csv(finished: EventAccumulator) -> None:
    table = list(rows(30))
    for tag in table[0]:
        if tag != "step":  # the axis of every chart
            expected = [(int(row["step"]), float(np.float32(row[tag]))) for row in table]
            assert points(finished, tag) == expected


def test_log_points_and_results_have_their_own_tags(finished: EventAccumulator) -> None:
    assert [step for step, _ in points(finished, "steps/loss")] == list(range(5, 301, 5))
    best = [row["val/loss"] for row in rows(20)] + 10 * [0.1]
    assert [value for _, value in points(finished, "best/val/loss")] == pytest.approx(best)
    assert points(finished, "best/test/accuracy") == [(0, pytest.approx(0.89)), (300, pytest.approx(0.89))]
    known = {*next(rows(1))} - {"step"} | {"steps/loss", "best/val/loss", "best/val/accuracy"}
    assert {*finished.Tags()["scalars"]} == known | {"best/test/loss", "best/test/accuracy"}


def test_pictures(finished: EventAccumulator) -> None:
    assert finished.Tags()["images"] == ["samples", "confusion_matrix"]
    for tag, step in (("samples", 0), ("confusion_matrix", 300)):
        (event,) = finished.Images(tag)
        picture = Image.open(io.BytesIO(event.encoded_image_string))
        assert picture.size == (event.width, event.height) and event.step == step


def test_text_holds_command_and_configuration(finished: EventAccumulator) -> None:
    (event,) = finished.Tensors("run")
    words = event.tensor_proto.string_val[0].decode()
    assert "```\ndltrain lr=1e-3\n```" in words
    for fact in (
        "1,294 train",
        "52,650 parameters",
        "schedule cosine",
        "goal: val/loss, lower is better",
        "`lr=1e-3`",
    ):
        assert fact in words


def test_custom_scalars_put_train_and_val_in_one_chart(finished: EventAccumulator) -> None:
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    (event,) = finished.Tensors("custom_scalars__config__")
    layout = Layout.FromString(event.tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for c in layout.category for chart in c.chart}
    assert charts == {
        "Loss": ["^train/loss$", "^val/loss$"],
        "Accuracy": ["^train/accuracy$", "^val/accuracy$"],
        "Learning rate": ["^lr$"],
        "Gradient norm": ["^grad_norm$"],
        "Seconds per evaluation": ["^seconds$"],
        "Samples per second": ["^images_per_second$"],
    }


def hparams_of(root: Path) -> tuple[dict[str, Any], Any, Any]:
    """The HParams tab's own answer: hparams by name, metrics by tag, session groups."""
    from google.protobuf import json_format
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(root))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(root))
    context = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    request, found = RequestContext(), context.hparams_metadata(RequestContext(), "")
    experiment = context.experiment_from_metadata(request, "", True, found, [])
    ask = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=10,
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_RUNNING],
        col_params=[api_pb2.ColParams(metric=m.name) for m in experiment.metric_infos],
    )
    answer = list_session_groups.Handler(request, context, "", ask).run()
    groups = [
        json_format.MessageToDict(group, preserving_proto_field_name=True) for group in answer.session_groups
    ]
    return (
        {h.name: h.differs for h in experiment.hparam_infos},
        [m.name for m in experiment.metric_infos],
        groups,
    )


def test_hparams_tab_shows_every_run_with_its_final_metrics(tmp_path: Path) -> None:
    for name, hparams in (
        ("1", {"optimizer": "adam", "lr": 1e-3}),
        ("2", {"optimizer": "lion", "betas": "a"}),
    ):
        folder = tmp_path / "digits" / name
        fit(TensorBoard(), run_info(folder, hparams=hparams), result())
    hparams, metrics, groups = hparams_of(tmp_path)
    assert hparams["optimizer"] is True and {*hparams} == {
        "optimizer",
        "lr",
        "betas",
    }  # the union of the runs
    first = ["best/test/accuracy", "best/test/loss", "best/val/accuracy", "best/val/loss"]
    assert [metric.tag for metric in metrics[:4]] == first  # what the tab shows unasked
    assert {metric.group for metric in metrics} == {""}  # the metrics lie in the run itself
    assert sorted(group["name"] for group in groups) == ["digits/1", "digits/2"]
    for group in groups:
        values = {v["name"]["tag"]: v["value"] for v in group["metric_values"]}
        assert values["best/val/loss"] == pytest.approx(0.1) and values["best/test/loss"] == pytest.approx(
            0.11
        )
        assert group["sessions"][0]["status"] == "STATUS_SUCCESS"


@pytest.mark.parametrize("status, ended", [("completed", True), ("pruned", True), ("interrupted", False)])
def test_only_a_finished_run_is_ended_for_the_hparams_tab(status: str, ended: bool, tmp_path: Path) -> None:
    fit(TensorBoard(), run_info(tmp_path), result(status=status))
    assert ("_hparams_/session_end_info" in read(tmp_path).Tags()["tensors"]) is ended


def test_nothing_but_event_files_of_one_run(tmp_path: Path) -> None:
    fit(TensorBoard(), run_info(tmp_path), result())
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 1 and str(files[0]).startswith("events.out.tfevents.")


def test_a_killed_run_keeps_what_was_flushed(tmp_path: Path) -> None:
    board = TensorBoard()
    fit(board, run_info(tmp_path, max_epochs=7))
    assert len(points(read(tmp_path), "val/loss")) == 7  # nothing was closed
    board.run_ended(cut_short("KeyboardInterrupt"))
    board.run_ended(cut_short("KeyboardInterrupt"))


def test_a_resumed_run_has_no_row_twice(tmp_path: Path) -> None:
    fit(TensorBoard(), run_info(tmp_path, max_epochs=12), ValueError())
    time.sleep(0.001)
    kept = 10 * STEPS  # the newest checkpoint is older than the last rows
    info = run_info(tmp_path, resumed=True, resumed_step=kept, best_row=list(rows(10))[-1])
    fit(TensorBoard(), info, result())
    found = read(tmp_path)
    expected = [(int(row["step"]), float(np.float32(row["val/loss"]))) for row in rows(30)]
    assert points(found, "val/loss") == expected
    steps = [step for step, _ in points(found, "steps/loss")]
    assert steps == list(range(5, 301, 5))
    best = np.minimum.accumulate([value for _, value in expected])
    shown = [(step, value) for (step, _), value in zip(expected, best.tolist(), strict=True)]
    assert points(found, "best/val/loss") == shown


def test_files_are_read_in_the_order_of_writing(tmp_path: Path) -> None:
    for _ in range(3):
        EventFile(tmp_path).close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        path.name for path in sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    ]


def test_non_finite_and_huge_values_are_written(tmp_path: Path) -> None:
    board = TensorBoard()
    board.run_started(run_info(tmp_path))
    board.evaluated({"epoch": 1, "step": 10, "val/loss": float("nan"), "train/loss": 1e300, "lr": 0.0})
    found = read(tmp_path)
    assert np.isnan(points(found, "val/loss")[0][1])
    assert points(found, "train/loss") == [(10, np.inf)]
    assert "best/val/loss" not in found.Tags()["scalars"]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    board = TensorBoard()
    board.run_started(run_info(tmp_path))
    board.file.stream = open("/dev/full", "wb")  # type: ignore[union-attr]
    with pytest.raises(OSError, match="No space left"):
        board.evaluated(next(rows(1)))
    with pytest.raises(OSError, match="No space left"):
        board.run_ended(cut_short("KeyboardInterrupt"))


def test_methods_before_the_start_do_nothing(tmp_path: Path) -> None:
    board = TensorBoard()
    board.step_logged({"step": 1.0, "loss": 1.0})
    board.evaluated(next(rows(1)))
    board.run_ended(result())
    board.run_ended(cut_short("ValueError"))
    assert not list(tmp_path.iterdir())


@pytest.mark.ci
def test_a_run_with_pictures_imports_none_of_the_heavy_packages() -> None:
    """They are what costs: `torch.utils.tensorboard` 4 s, `torchvision` as much (docs/speed.md)."""
    script = """
import sys, tempfile, torch
from pathlib import Path
from test_events import fit, result, run_info
folder = Path(tempfile.mkdtemp())
images = torch.rand(24, 1, 8, 8)
from dltrain.loggers.tensorboard import TensorBoard
info = run_info(folder, sample_images=images, sample_labels=("a",) * 24)
fit(TensorBoard(), info, result(confusion=torch.eye(3).long()))
heavy = {"torch._dynamo", "torch.utils.tensorboard", "matplotlib", "tensorflow", "torchvision", "sklearn", "rich"}
print(sorted(heavy & {*sys.modules}))
"""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    "name, title", [("loss", "Loss"), ("top5_accuracy", "Top5 accuracy"), ("lr", "Learning rate")]
)
def test_words(name: str, title: str) -> None:
    assert words(name) == title


@pytest.mark.parametrize("data", [b"", b"123456789", bytes(range(256)) * 5])
def test_checksums_are_those_of_tensorboard(data):
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    assert int.from_bytes(checksum(data), "little") == masked_crc32c(data)
