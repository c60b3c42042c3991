"""Arrays of the user's own."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dltrain.data.errors import DataError
from dltrain.data.npz import npz
from dltrain.data.prepare import prepare

GENERATOR = np.random.default_rng(0)


def save(folder: Path, **arrays: np.ndarray) -> str:
    np.savez(folder / "data.npz", **arrays)
    return str(folder / "data.npz")


@pytest.mark.parametrize(
    ("shape", "kind", "channels", "expected", "dtype"),
    [
        ((20, 7), np.float64, "auto", (20, 7), torch.float32),
        ((20, 7), np.uint8, "auto", (20, 7), torch.float32),
        ((20, 8, 9), np.uint8, "auto", (20, 8, 9), torch.uint8),
        ((20, 3, 8, 9), np.uint8, "auto", (20, 3, 8, 9), torch.uint8),
        ((20, 8, 9, 3), np.uint8, "auto", (20, 3, 8, 9), torch.uint8),
        ((20, 1, 28, 1), np.uint8, "auto", (20, 1, 28, 1), torch.uint8),
        ((20, 3, 9, 3), np.uint8, "first", (20, 3, 9, 3), torch.uint8),
        ((20, 3, 9, 3), np.uint8, "last", (20, 3, 3, 9), torch.uint8),
        ((20, 5, 9, 3), np.float32, "first", (20, 5, 9, 3), torch.float32),
    ],
)
def test_inputs_of_every_form(
    tmp_path: Path,
    shape: tuple[int, ...],
    kind: type,
    channels: str,
    expected: tuple[int, ...],
    dtype: torch.dtype,
) -> None:
    array = GENERATOR.integers(0, 200, shape).astype(kind)
    raw = npz(save(tmp_path, inputs=array, targets=np.arange(20) % 2), channels=channels)
    assert isinstance(raw.inputs, Tensor)
    assert raw.inputs.shape == expected and raw.inputs.dtype == dtype
    moved = array.transpose(0, 3, 1, 2) if len(shape) == 4 and expected[1:] != shape[1:] else array
    assert np.array_equal(raw.inputs.numpy(), moved.reshape(expected))
    prepare(raw)


@pytest.mark.parametrize(
    ("shape", "first", "last"),
    [
        ((4, 4, 3), "4 channels of 4×3 pixels", "3 channels of 4×4"),
        ((1, 8, 3), "1 channel of 8×3 pixels", "3 channels of 1×8"),
        ((4, 6, 1), "4 channels of 6×1 pixels", "1 channel of 4×6"),
        ((3, 3, 3), "3 channels of 3×3 pixels", "3 channels of 3×3"),
    ],
)
def test_colors_that_may_be_first_or_last_are_refused_with_both_ways_out(
    tmp_path: Path, shape: tuple[int, ...], first: str, last: str
) -> None:
    """An RGB image of 4×4 pixels was four channels of 4×3 pixels without a word."""
    array = GENERATOR.integers(0, 200, (20, *shape)).astype(np.uint8)
    path = save(tmp_path, inputs=array, targets=np.arange(20) % 2)
    sizes = ", ".join(map(str, shape))
    with pytest.raises(DataError) as error:
        npz(path)
    assert str(error.value) == (
        f"the inputs have shape (N, {sizes}), whose colors may be first or last;\nset dataset.channels=first for {first}, or "
        f"dataset.channels=last for {last}"
    )
    ways = {"first": array, "last": array.transpose(0, 3, 1, 2)}
    for way, images in ways.items():
        raw = npz(path, channels=way)  # type: ignore[arg-type]
        assert np.array_equal(raw.inputs.numpy(), images)  # type: ignore[union-attr]
        contract = prepare(raw).contract
        assert contract is not None
        again = npz(path, contract=contract).inputs
        if way == "first" or len(set(shape)) > 1:
            # the run tells it; where both ways have one shape, they were first
            assert np.array_equal(again.numpy(), images)  # type: ignore[union-attr]


def test_targets_of_every_form(tmp_path: Path) -> None:
    inputs = np.zeros((4, 2))
    words = npz(save(tmp_path, inputs=inputs, targets=np.array(["b", "a", "b", "c"])))
    assert (words.class_names, words.targets.tolist()) == (("a", "b", "c"), [1, 0, 1, 2])
    numbers = npz(save(tmp_path, inputs=inputs, targets=np.array([3, 9, 3, 5])))
    assert (numbers.class_names, numbers.targets.tolist()) == (("3", "5", "9"), [0, 2, 0, 1])
    real = npz(save(tmp_path, inputs=inputs, targets=np.array([[0.5, 1], [1, 2], [3, 4], [5, 6]])))
    assert real.task == "regression" and real.targets.shape == (4, 2)
    assert npz(save(tmp_path, inputs=inputs, targets=np.arange(4)), task="regression").task == "regression"


def test_one_whole_number_for_each_sample_is_its_class_whatever_the_shape(tmp_path: Path) -> None:
    """Targets (N, 1), as Keras and pandas write them, were a regression without a word."""
    inputs, column = np.zeros((4, 2)), np.array([[3], [9], [3], [5]])
    for targets in (column, column[:, 0]):
        raw = npz(save(tmp_path, inputs=inputs, targets=targets))
        assert (raw.task, raw.class_names, raw.targets.tolist()) == (
            "classification",
            ("3", "5", "9"),
            [0, 2, 0, 1],
        )
        assert raw.notes == (
            "target   targets: classification, 3 classes · inferred; for quantities: dataset.task=regression",
        )
    named = npz(save(tmp_path, inputs=inputs, targets=column.astype(str)))
    assert named.notes == ("target   targets: classification, 3 classes",)
    assert npz(save(tmp_path, inputs=inputs, targets=column), task="regression").targets.tolist() == [
        [3],
        [9],
        [3],
        [5],
    ]


@pytest.mark.parametrize(
    ("targets", "shown"),
    [
        ([0.0, 1, 1, 0], "2 different whole numbers"),
        ([[0.0], [1], [1], [0]], "2 different whole numbers"),
        ([[1.0, 0], [0, 1], [0, 1], [1, 0]], "each row has a single 1"),
        ([[1, 0], [0, 1], [0, 1], [1, 0]], "each row has a single 1"),
    ],
)
def test_quantities_that_may_be_classes_are_named_and_can_be_had_as_such(
    tmp_path: Path, targets: list[object], shown: str
) -> None:
    path = save(tmp_path, inputs=np.zeros((4, 2)), targets=np.array(targets))
    raw = npz(path)
    assert raw.task == "regression"
    assert raw.notes == (
        f"target   targets: regression · {shown} · inferred; for classes: dataset.task=classification",
    )
    classes = npz(path, task="classification")
    expected = np.array(targets).argmax(1) if "single" in shown else np.array(targets).ravel()
    assert classes.task == "classification" and classes.targets.tolist() == expected.astype(int).tolist()
    assert len(classes.class_names) == 2


def test_other_quantities_are_no_classes(tmp_path: Path) -> None:
    inputs = np.zeros((4, 2))
    real = npz(save(tmp_path, inputs=inputs, targets=np.array([0.5, 1, 2, 3])))
    assert real.notes == (
        "target   targets: regression · inferred; for classes: dataset.task=classification",
    )
    several = np.array([[1.0, 1], [0, 1], [0, 1], [1, 0]])
    assert npz(save(tmp_path, inputs=inputs, targets=several)).notes == ("target   targets: regression",)
    with pytest.raises(DataError, match=r"shape \(4, 2\).*with a single 1 in each row"):
        npz(save(tmp_path, inputs=inputs, targets=several), task="classification")


def test_check_and_the_header_say_which_task_was_inferred(
    workdir: Path, dltrain: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(
        workdir, inputs=np.random.default_rng(0).normal(size=(40, 2)), targets=np.arange(40)[:, None] % 2
    )
    words = ["dataset=npz", f"dataset.path={path}", "model=linear"]
    dltrain("check", *words)
    line = "targets: classification, 2 classes · inferred; for quantities: dataset.task=regression"
    assert line in capsys.readouterr().out
    dltrain(*words, "steps=1")
    assert line in capsys.readouterr().out


def test_names_splits_and_groups(tmp_path: Path) -> None:
    path = save(
        tmp_path, X=np.zeros((4, 2)), y=np.arange(4), part=np.array([0, 0, 1, 2]), who=np.array(list("aabc"))
    )
    raw = npz(path, inputs="X", targets="y", split="part", groups="who")
    assert raw.split is not None and raw.split.tolist() == [0, 0, 1, 2]
    assert raw.groups is not None and raw.groups.tolist() == [0, 0, 1, 2]


GOOD = {
    "inputs": np.zeros((4, 2)),
    "targets": np.arange(4),
    "bad": np.array([0, 1, 2, 3]),
    "pad": np.zeros(3),
}
REFUSED = [
    ({"inputs": "input"}, r"holds no array 'input' .did you mean 'inputs'\?.; its arrays: inputs, targets"),
    ({"split": "parts"}, "holds no array 'parts'.*dataset.split"),
    ({"targets": "pad"}, "different lengths .inputs 4, targets 3.; all must have one entry a sample"),
    (
        {"split": "bad"},
        r"the split array must have shape \(N,\) and hold 0 .train., 1 .val. and 2 .test. only",
    ),
    ({"inputs": "targets"}, r"the inputs have shape \(4,\)"),
    (
        {"targets": "inputs", "task": "classification"},
        r"shape \(4, 2\); those of a classification have shape \(N,\)",
    ),
]


@pytest.mark.parametrize(("keys", "message"), REFUSED)
def test_refusals(tmp_path: Path, keys: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        npz(save(tmp_path, **GOOD), **keys)


def test_text_inputs_and_pickles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the inputs have shape .* and kind .*; they must be real numbers"):
        npz(save(tmp_path, inputs=np.array([["a", "b"]]), targets=np.arange(1)))
    with pytest.raises(DataError, match="the targets have shape .* those of a regression are numbers"):
        npz(save(tmp_path, inputs=np.zeros((1, 2)), targets=np.array(["a"])), task="regression")
    with pytest.raises(DataError, match="cannot read .*Object arrays cannot be loaded"):
        npz(save(tmp_path, inputs=np.zeros((1, 2)), targets=np.array([{}])))


def test_files_that_are_not_there_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dataset.path is .*, which is not a file"):
        npz(str(tmp_path / "data.npz"))
    path = Path(save(tmp_path, **GOOD))
    for content in (b"", b"nonsense", path.read_bytes()[:200]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot read .*data.npz" if content else "data.npz is empty"):
            npz(str(path))
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(DataError, match="cannot read .*single.npy"):
        npz(str(tmp_path / "single.npy"))


@pytest.mark.parametrize("arrays", [
    {"inputs": np.zeros((10**9, 0), np.float32), "targets": np.zeros((10**9, 0), np.float32)},
    {"inputs": np.zeros((4, 2)), "targets": np.zeros(4, "<U0")},
])  # fmt: skip
def test_samples_without_a_value_are_refused(tmp_path, arrays):
    """Found by a hostile tester: 472 bytes named any number of samples, and filled the memory."""
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        for name, array in arrays.items():
            kind = "<U0" if array.dtype.kind == "U" else array.dtype.str
            header = {"descr": kind, "fortran_order": False, "shape": array.shape}
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array_header_1_0(member, header)
                member.write(array.tobytes() if kind != "<U0" else b"")
    with pytest.raises(DataError, match="and no value"):
        npz(str(tmp_path / "d.npz"))
