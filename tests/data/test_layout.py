"""Samples of two axes (A, B), against the moments that numpy computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from dltrain.data.errors import DataError
from dltrain.data.npz import npz
from dltrain.data.prepare import prepare
from dltrain.data.raw import RawData
from dltrain.data.torch_dataset import as_raw
from dltrain.errors import UserError

GENERATOR = np.random.default_rng(0)
# three features, of which the last is nearly constant beside the second
SERIES = (GENERATOR.normal(size=(60, 5, 3)) * [1, 100, 0.01] + [0, 7, 1]).astype(np.float32)
CLASSES = np.arange(60) % 2
# the axes over which there is one mean, and the shape that samples have
AXES = {
    "auto": ((0, 1, 2), (1, 5, 3)),
    "image": ((0, 1, 2), (1, 5, 3)),
    "sequence": ((0, 1), (5, 3)),
    "channels": ((0, 2), (5, 3)),
}


def saved(folder: Path, inputs: np.ndarray) -> RawData:
    np.savez(folder / "data.npz", inputs=inputs, targets=CLASSES)
    return npz(str(folder / "data.npz"))


def doors(folder: Path, inputs: np.ndarray) -> list[RawData]:
    """Return equal samples from each place that gives arrays."""
    tensors, classes = torch.from_numpy(inputs), torch.from_numpy(CLASSES)
    return [
        saved(folder, inputs),
        as_raw((inputs, CLASSES)),
        as_raw((tensors, classes)),
        as_raw(TensorDataset(tensors, classes)),
        as_raw(torch.utils.data.Subset(TensorDataset(tensors, classes), range(60))),
        RawData(tensors, classes, "classification"),
    ]


def inputs_of(splits: Any) -> Tensor:
    found = [part.batches(torch.arange(len(part)), 99) for part in (splits.train, splits.val, splits.test)]
    return torch.cat([batch.inputs for batches in found for batch in batches])


@pytest.mark.parametrize("layout", AXES)
def test_every_door_normalizes_by_the_same_axes(tmp_path: Path, layout: Any) -> None:
    """Own datasets had a mean for each row, npz one for all."""
    over, shape = AXES[layout]
    for raw in doors(tmp_path, SERIES):
        splits = prepare(raw, layout=layout)
        assert splits.source is not None and splits.spec.input_shape == shape
        train = SERIES[splits.source.positions["train"].numpy()].astype(np.float64)
        wanted = (train - train.mean(over, keepdims=True)) / train.std(over, keepdims=True)
        batch = next(iter(splits.train.batches(torch.arange(len(train)), len(train))))
        np.testing.assert_allclose(batch.inputs.numpy().reshape(train.shape), wanted, rtol=1e-4, atol=1e-4)
        again = prepare(raw, layout=layout, statistics=splits.statistics(), resident_share=0.0)
        torch.testing.assert_close(inputs_of(again), inputs_of(splits))


def test_the_header_says_what_samples_of_two_axes_are(tmp_path: Path) -> None:
    told = {
        "auto": "inputs   5×3 values as gray images, one mean and deviation for all, though those of the last axis have deviations from "
        "0.01 to 100; for one per feature: of sequences of 3 features dataset.layout=sequence, of 5 channels dataset.layout=channels",
        "image": "inputs   5×3 values as gray images, one mean and deviation for all",
        "sequence": "inputs   sequences of 5 steps with 3 features, one mean and deviation for each feature",
        "channels": "inputs   5 channels of 3 steps, one mean and deviation for each channel",
    }
    # exact deviations, for the numbers of the text
    exact = (SERIES - SERIES.mean((0, 1))) / SERIES.std((0, 1)) * np.float32([1, 100, 0.01])
    for raw in doors(tmp_path, exact):
        for layout, note in told.items():
            assert prepare(raw, layout=layout).spec.notes[len(raw.notes)] == note  # type: ignore[arg-type]
    plain = prepare(as_raw((exact[:, :, :2] / [1, 100], CLASSES))).spec.notes
    assert any("one mean and deviation for all; for one per feature" in note for note in plain)


def test_bytes_of_two_axes_are_pixels_unless_said_otherwise(tmp_path: Path) -> None:
    pixels = GENERATOR.integers(0, 256, (60, 5, 4)).astype(np.uint8)
    for raw in doors(tmp_path, pixels):
        image, sequence = prepare(raw), prepare(raw, layout="sequence")
        assert image.contract is not None and image.contract.in_bytes and image.spec.input_shape == (1, 5, 4)
        assert sequence.contract is not None and not sequence.contract.in_bytes
        assert sequence.source is not None
        train = pixels[sequence.source.positions["train"].numpy()]
        np.testing.assert_allclose(image.spec.mean.flatten(), train.mean() / 255, rtol=1e-6)
        np.testing.assert_allclose(sequence.spec.mean, train.mean((0, 1)), rtol=1e-6)


def test_a_dataset_may_declare_its_layout() -> None:
    raw = RawData(torch.from_numpy(SERIES), torch.from_numpy(CLASSES), "classification", layout="sequence")
    assert prepare(raw).spec.mean.shape == (3,)
    # a key says more than the dataset
    assert prepare(raw, layout="channels").spec.mean.shape == (5, 1)


def test_layout_is_for_samples_of_two_axes() -> None:
    classes = torch.from_numpy(CLASSES)
    for shape, told in {(60, 4): "1 axis", (60, 3, 5, 4): "3 axes"}.items():
        raw = RawData(torch.rand(shape), classes, "classification", layout="sequence")
        splits = prepare(raw)
        assert splits.unused["layout"] == f"samples of {told} have one layout; it is for samples (A, B)"
        assert splits.spec.mean.shape == (shape[1], *(1 for _ in shape[2:]))
    assert "layout" not in prepare(as_raw((SERIES, CLASSES))).unused


def test_a_run_from_before_there_were_layouts_keeps_its_samples() -> None:
    """Its samples (A, B) have the mean of each row."""
    raw = as_raw((SERIES, CLASSES))
    former = prepare(raw, layout="channels")
    assert former.contract is not None
    for contract in (former.contract, None):
        again = prepare(raw, statistics=former.statistics(), contract=contract)
        assert again.spec.input_shape == (5, 3) and torch.equal(inputs_of(again), inputs_of(former))
    images = prepare(raw)
    assert images.contract is not None
    scored = prepare(raw, statistics=images.statistics(), contract=images.contract)
    assert scored.spec.input_shape == (1, 5, 3)


def test_statistics_of_another_shape_are_refused() -> None:
    raw = as_raw((SERIES, CLASSES))
    known = prepare(raw, layout="sequence").statistics()
    with pytest.raises(DataError, match="put the data of the run back"):
        prepare(raw, layout="image", statistics=known)
    with pytest.raises(DataError, match="put the data of the run back"):
        prepare(raw, layout="sequence", statistics=known | {"std": known["std"][:, None]})


def test_a_model_that_takes_no_images_is_told_the_layout(workdir: Path, dltrain: Any) -> None:
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/recurrent.yaml").write_text("_target_: my_model.Recurrent\n")
    Path("my_model.py").write_text(
        "from torch import nn\n\n\nclass Recurrent(nn.Module):\n"
        "    def __init__(self, input_shape, num_classes):\n"
        "        super().__init__()\n"
        "        self.lstm, self.head = nn.LSTM(input_shape[-1], 4, batch_first=True), nn.Linear(4, num_classes)\n\n"
        "    def forward(self, inputs):\n"
        "        return self.head(self.lstm(inputs)[0][:, -1])\n"
    )
    np.savez("series.npz", inputs=SERIES, targets=CLASSES)
    command = ["dataset=npz", "dataset.path=series.npz", "model=recurrent", "steps=2", "logger=none"]
    with pytest.raises(UserError, match="got 4D.*(?s:.)*\ninputs .*dataset.layout=sequence"):
        dltrain(*command)
    # the cure, as it is printed
    assert dltrain(*command, "dataset.layout=sequence") == 0
    run = next(Path("outputs").glob("*/*/config.yaml")).parent
    for verb in (
        ["predict", str(run), "series.npz"],
        ["evaluate", str(run)],
        ["export", str(run), "--format=torch"],
    ):
        assert dltrain(*verb) == 0
