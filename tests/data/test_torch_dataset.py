"""Datasets in the form of torch, against the arrays that they hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from dltrain.data.errors import DataError
from dltrain.data.npz import as_inputs
from dltrain.data.prepare import prepare
from dltrain.data.raw import RawData
from dltrain.data.torch_dataset import as_raw
from dltrain.run.inputs import array_of

ROWS, CLASSES = torch.arange(24.0).view(12, 2), torch.arange(12) % 3
PIXELS = np.arange(12 * 5 * 4 * 3, dtype=np.uint8).reshape(12, 5, 4, 3)


class Items(Dataset):
    """Items that a function makes."""

    def __init__(self, make, count=12, classes=None):
        self.make, self.count = make, count
        if classes:
            self.classes = classes

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return self.make(i)


FORMS = {
    "tensors": lambda: TensorDataset(ROWS, CLASSES),
    "items": lambda: Items(lambda i: (ROWS[i], int(CLASSES[i]))),
    "tensor targets": lambda: Items(lambda i: (ROWS[i].double(), CLASSES[i])),
    "arrays in items": lambda: Items(lambda i: (ROWS[i].numpy(), CLASSES[i].numpy())),
    "arrays": lambda: (ROWS.numpy(), CLASSES.numpy()),
    "a pair of tensors": lambda: (ROWS.double(), CLASSES),
    "a subset": lambda: Subset(TensorDataset(ROWS, CLASSES), range(12)),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_holds_the_same_rows(form):
    raw = as_raw(form())
    assert raw.task == "classification" and raw.class_names == ()
    assert raw.inputs.dtype == torch.float32
    torch.testing.assert_close(raw.inputs, ROWS)
    assert raw.targets.equal(CLASSES)
    assert raw.notes == (
        "task: classification, since the targets are whole numbers; for quantities, give floats",
    )


LAST = {
    "array": (lambda: PIXELS, True),
    "tensor": (lambda: torch.from_numpy(PIXELS), False),
    "floats": (lambda: PIXELS / 255, True),
}


@pytest.mark.parametrize("values, moved", LAST.values(), ids=LAST)
def test_colors_at_the_end_of_a_pair_are_moved_or_named(values, moved):
    """As arrays in items are, and those of an npz: 12×12×3 trained on images with 12 channels, without a word."""
    pair = as_raw((values(), CLASSES.numpy()))
    wanted = torch.as_tensor(values()).float()
    assert pair.inputs.float().equal(wanted.movedim(-1, 1) if moved else wanted)
    told = "layout   the inputs are taken as 5 channels of 4×3 pixels; if their colors are last: tensor.movedim(-1, -3)"
    assert (told in pair.notes) is not moved
    if not moved:
        for dataset in (TensorDataset(values(), CLASSES), Items(lambda i: (values()[i], int(CLASSES[i])))):
            raw = as_raw(dataset)
            assert told in raw.notes and raw.inputs.float().equal(wanted)
        assert not any("layout" in note for note in as_raw((values().movedim(-1, 1), CLASSES)).notes)


def test_an_unclear_layout_of_arrays_is_named():
    """Either axis of (4, 6, 3) may be that of the colors."""
    values = np.arange(12 * 4 * 6 * 3, dtype=np.float32).reshape(12, 4, 6, 3)
    told = "layout   the inputs are taken as 4 channels of 6×3 pixels; if their colors are last: np.moveaxis(array, -1, -3)"
    for found in ((values, CLASSES.numpy()), Items(lambda i: (values[i], int(CLASSES[i])))):
        raw = as_raw(found)
        assert told in raw.notes and raw.inputs.equal(torch.from_numpy(values))
    # what was moved is clear, and so are tensors and pictures
    moved = as_raw((values.transpose(0, 2, 1, 3), CLASSES.numpy()))
    assert moved.inputs.shape == (12, 3, 6, 4)
    picture = as_raw(Items(lambda i: (Image.fromarray(np.zeros((6, 4, 3), np.uint8)), i % 2)))
    for raw in (moved, picture, as_raw((torch.from_numpy(values), CLASSES))):
        assert not any("layout" in note for note in raw.notes)


def test_a_frame_of_pandas_is_an_array():
    pandas = pytest.importorskip("pandas", reason="an extra")
    frame = pandas.DataFrame(ROWS.numpy(), columns=["a", "b"])
    assert as_raw((frame, CLASSES.numpy())).inputs.equal(ROWS)


@pytest.mark.parametrize(
    "picture",
    [Image.fromarray, lambda pixels: pixels, lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1)],
    ids=["PIL", "array", "tensor"],
)
def test_pictures_are_bytes_with_the_color_first(picture):
    raw = as_raw(Items(lambda i: (picture(PIXELS[i]), i % 2), classes=["cat", "dog"]))
    assert raw.inputs.dtype == torch.uint8
    assert raw.inputs.equal(torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    assert raw.class_names == ("cat", "dog")


def test_gray_pictures_have_one_channel():
    raw = as_raw(Items(lambda i: (Image.fromarray(PIXELS[i, :, :, 0]), i % 2)))
    assert raw.inputs.shape == (12, 1, 5, 4)


def test_floats_are_a_quantity_in_real_units():
    raw = as_raw(TensorDataset(ROWS, ROWS[:, 0].double()))
    assert (raw.task, raw.target_scale, raw.targets.dtype) == ("regression", "unit", torch.float32)
    assert "regression" in raw.notes[0]


def test_labels_that_do_not_count_from_zero_are_numbered_and_named():
    raw = as_raw((ROWS, torch.where(CLASSES == 0, -1, 1)))
    assert raw.class_names == ("-1", "1")
    assert raw.targets.equal((CLASSES > 0).long())
    assert as_raw((ROWS, np.array(["b", "a"] * 6))).class_names == ("a", "b")


@pytest.mark.parametrize("sizes", [(8, 4), (6, 2, 4)])
def test_a_tuple_is_the_splits(sizes):
    bounds = np.cumsum((0, *sizes))
    parts = [TensorDataset(ROWS[a:b], CLASSES[a:b]) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    raw = as_raw(tuple(parts))
    marks = (0, 2) if len(sizes) == 2 else (0, 1, 2)
    assert raw.split.tolist() == [mark for mark, n in zip(marks, sizes, strict=True) for _ in range(n)]
    assert raw.inputs.equal(ROWS)


def test_raw_data_passes_unchanged():
    raw = RawData(ROWS, CLASSES, "classification")
    assert as_raw(raw) is raw


class Endless(IterableDataset):
    def __iter__(self):
        yield from ()


def random_item(i: int) -> tuple[Tensor, int]:
    return torch.rand(2), i % 2


REFUSED = {
    "without length": (Endless, "Endless has no length.*Return a map-style Dataset"),
    "random": (lambda: Items(random_item), "sample 0 of Items differs when it is read again.*augmentation="),
    "no pair": (lambda: Items(lambda i: ROWS[i]), r"sample 0 of Items is of type Tensor; it must be a pair"),
    "a dictionary": (lambda: Items(lambda i: {"x": 1}), "of type dict; it must be a pair"),
    "one tensor": (lambda: TensorDataset(ROWS), "the TensorDataset has 1 tensors"),
    "shapes": (lambda: Items(lambda i: (torch.zeros(2 + i // 6), 0)), r"sample 6 has shape \(3,\)"),
    "text": (
        lambda: Items(lambda i: ("words", 0)),
        r"the inputs have shape \(\) and kind <U5; they must be real numbers",
    ),
    "four splits": (lambda: (TensorDataset(ROWS, CLASSES),) * 4, "is 4 splits"),
    "splits of shapes": (
        lambda: (TensorDataset(ROWS, CLASSES), TensorDataset(ROWS[:, :1], CLASSES)),
        "samples of different shapes",
    ),
    "ambiguous": (
        lambda: (torch.zeros(100, 2), torch.arange(100)),
        "100 distinct whole numbers, which may be classes or a quantity",
    ),
    "a ragged input": (
        lambda: Items(lambda i: ([[1], [1, 2]], 0)),
        "an input of the dataset is a list of list, list",
    ),
    "targets of shapes": (
        lambda: Items(lambda i: (ROWS[i], torch.zeros(1 + i // 6))),
        r"the target of sample 6 has shape \(2,\) and that of sample 0 \(1,\)",
    ),
    "no sample": (lambda: Items(lambda i: (ROWS[i], 0), count=0), "Items holds no sample"),
    "no row": (lambda: TensorDataset(ROWS[:0], CLASSES[:0]), "the dataset holds no sample"),
    "no axis of features": (
        lambda: (ROWS.numpy()[:, 0], CLASSES.numpy()),
        r"shape \(12,\); a single feature has shape \(N, 1\): x\[:, None\]",
    ),
    "nothing": (lambda: None, "the dataset is of type NoneType; it must be"),
    "a list of arrays": (lambda: [ROWS.numpy(), CLASSES.numpy()], "a list of ndarray, ndarray"),
}


@pytest.mark.parametrize("make, message", REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(DataError, match=message):
        as_raw(make())


def complex_rows() -> np.ndarray:
    return ROWS.numpy().astype(np.complex64)


KINDS = {
    "complex": (complex_rows, r"kind complex64; .*np.concatenate\(\[x.real, x.imag\], 1\)"),
    "a complex tensor": (lambda: torch.from_numpy(complex_rows()), r"kind torch.complex64; .*np.concatenate"),
    "dates": (
        lambda: np.arange(24).reshape(12, 2).astype("M8[D]"),
        r"kind datetime64\[D\]; .*np.timedelta64\(1, 'D'\)",
    ),
    "text": (lambda: ROWS.numpy().astype(str), r"kind <U32; .*x.astype\(float\)"),
    "a text among numbers": (
        lambda: np.array([[1, 2], [3, 4], [5, "red"]] * 4, object),
        "sample 2 has 'red' of type str; they must be numbers. .*dataset=csv",
    ),
    "a missing value": (lambda: np.array([[1.5, None]] * 12, object), "sample 0 has 'None' of type NoneType"),
}


@pytest.mark.parametrize("make, message", KINDS.values(), ids=KINDS)
def test_inputs_that_are_no_real_numbers_are_refused_by_every_door(make, message):
    """Complex ones lost their imaginary part, and objects ended in a traceback of torch."""
    values = make()
    doors = [lambda: as_raw((values, CLASSES.numpy())), lambda: array_of(values, (2,))]
    if isinstance(values, Tensor):
        doors.append(lambda: as_raw(TensorDataset(values, CLASSES)))
    else:
        doors += [
            lambda: as_inputs(values, "auto"),
            lambda: as_raw(Items(lambda i: (values[i : i + 1], i % 2))),
        ]
    for door in doors:
        with pytest.raises(DataError, match=message.replace("sample 2", "sample .")):
            door()


def test_objects_that_are_numbers_or_texts_are_taken_as_such():
    numbers, classes = ROWS.numpy().astype(object), np.arange(12) % 2
    for targets in (
        classes,
        classes.astype(object),
        classes.astype(bool),
        classes.astype(bool).astype(object),
    ):
        raw = as_raw((numbers, targets))
        assert raw.inputs.equal(ROWS) and raw.targets.tolist() == classes.tolist()
    assert as_raw(Items(lambda i: (numbers[i], classes[i]))).inputs.equal(ROWS)
    texts = np.where(classes == 0, "b", "a").astype(object)
    assert as_raw((numbers, texts)).class_names == ("a", "b")
    assert as_raw((numbers, numbers[:, 0])).task == "regression"
    assert array_of(numbers, (2,)).equal(ROWS)
    with pytest.raises(DataError, match="the targets have shape .* complex64"):
        as_raw((ROWS, complex_rows()[:, 0]))


def test_nullable_kinds_of_pandas():
    pandas = pytest.importorskip("pandas", reason="an extra")
    frame, classes = pandas.DataFrame(ROWS.numpy()).astype("Float64"), np.arange(12) % 2
    kinds = {kind: pandas.Series(classes).astype(kind) for kind in ("Int64", "boolean", "category")}
    for targets in kinds.values():
        raw = as_raw((frame, targets))
        assert raw.inputs.equal(ROWS) and raw.targets.tolist() == classes.tolist()
    texts = pandas.Series(["a", "b"] * 6)
    for kind in ("string", "category", object):
        assert as_raw((frame, texts.astype(kind))).class_names == ("a", "b")
    # of some versions an object, of others not a number
    told = "sample 2 has '<NA>' of type NAType|sample 2 has the target value nan"
    with pytest.raises(DataError, match=told):
        prepare(as_raw((frame, pandas.Series([0, 1, None] * 4, dtype="Int64"))))
    with pytest.raises(
        DataError, match="the targets are Python objects, and sample 2 has 'None' of type NoneType"
    ):
        as_raw((frame, np.array([0, 1, None] * 4, object)))


@pytest.mark.parametrize("kind", [np.uint16, np.uint32, np.uint64, np.float16, np.longdouble, bool])
def test_numbers_of_every_kind(kind):
    values = np.arange(24).reshape(12, 2).astype(kind)
    assert as_raw((values, CLASSES.numpy())).inputs.equal(torch.from_numpy(values.astype(np.float32)))
    assert as_raw(TensorDataset(ROWS.bfloat16().requires_grad_(), ROWS[:, 0].bfloat16())).targets.equal(
        ROWS[:, 0]
    )
