"""Datasets in the form of torch: a map-style `Dataset` of (input, target), a tuple of splits, or a pair of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from dltrain.data.errors import DataError
from dltrain.data.exact import check_precision, plain_array, quantities, real_numbers, real_tensor, unboxed
from dltrain.data.pixels import colors_are_last, colors_are_unclear
from dltrain.data.raw import TEST, TRAIN, VAL, RawData, given_splits

# splits by their number
_SPLITS = {2: (TRAIN, TEST), 3: (TRAIN, VAL, TEST)}
# samples that are read twice, to notice one that is random
_READ_TWICE = 4
# more distinct whole numbers than this, in a fifth of the samples, are rather a quantity than classes
_MANY_CLASSES = 20


def as_raw(found: Any) -> RawData:
    """Return the data that a dataset word gave, whatever form they have.

    Args:
        found: RawData; a map-style `Dataset`; (train, test) or (train, val, test) of these; or (inputs, targets) as arrays

    Raises DataError for other forms, for samples that change when they are read again, and for targets that could be
    classes as well as a quantity.
    """
    if isinstance(found, RawData):
        return found
    if isinstance(found, Dataset):
        return _raw(*_samples(found), tuple(getattr(found, "classes", ())), _layout(_first_input(found)))
    if isinstance(found, tuple | list) and found and all(isinstance(part, Dataset) for part in found):
        return _split(list(found))
    if isinstance(found, tuple) and len(found) == 2 and all(hasattr(part, "__array__") for part in found):
        values = found[0] if isinstance(found[0], Tensor) else plain_array(found[0])
        layout = _layout(values[0]) if values.ndim and len(values) else ()
        return _raw(_array(_colors_first(values)), _targets(found[1]), (), layout)
    raise DataError(
        f"the dataset is {_described(found)}; it must be a dltrain.data.raw.RawData, a torch Dataset with a length, a tuple of "
        "them (train, test) or (train, val, test), or a pair of arrays (inputs, targets)"
    )


def _described(found: Any) -> str:
    if isinstance(found, tuple | list):
        return (
            f"a {type(found).__name__} of {', '.join(type(part).__name__ for part in found[:4]) or 'nothing'}"
        )
    return f"of type {type(found).__name__}"


def _split(parts: list[Dataset[Any]]) -> RawData:
    if len(parts) not in _SPLITS:
        raise DataError(
            f"the dataset is {len(parts)} splits; it must be two (train, test) or three (train, val, test)"
        )
    samples = [_samples(part) for part in parts]
    inputs = [inputs for inputs, _ in samples]
    if len({(part.shape[1:], part.dtype) for part in inputs}) > 1:
        shapes = ", ".join(f"{tuple(part.shape[1:])} {part.dtype}" for part in inputs)
        raise DataError(f"the splits of the dataset have samples of different shapes or types: {shapes}")
    whole = _raw(
        torch.cat(inputs),
        np.concatenate([targets for _, targets in samples]),
        tuple(getattr(parts[0], "classes", ())),
        _layout(_first_input(parts[0])),
    )
    marks = given_splits(dict(zip(_SPLITS[len(parts)], map(len, inputs), strict=True)))
    return replace(whole, split=marks)


def _samples(dataset: Dataset[Any]) -> tuple[Tensor, Any]:
    """Return all inputs (N, ...) and targets (N, ...) of a map-style dataset."""
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise DataError(
            f"{type(dataset).__name__} has no length; a run splits, shuffles and counts its samples. Return a map-style Dataset "
            "with __len__ and __getitem__"
        )
    if isinstance(dataset, TensorDataset):
        if len(dataset.tensors) != 2:
            raise DataError(
                f"the TensorDataset has {len(dataset.tensors)} tensors; it must have two, inputs and targets"
            )
        return _array(dataset.tensors[0]), _targets(dataset.tensors[1])
    size = len(dataset)
    if not size:
        raise DataError(f"{type(dataset).__name__} holds no sample")
    _refuse_random(dataset, size)
    pairs = [_pair(dataset, i) for i in range(size)]
    inputs = [_input(value) for value, _ in pairs]
    for i, value in enumerate(inputs):
        if value.shape != inputs[0].shape:
            raise DataError(
                f"sample {i} has shape {tuple(value.shape)} and sample 0 {tuple(inputs[0].shape)}; all must have one shape. "
                "Resize them in the dataset"
            )
    return _array(torch.stack(inputs)), _stacked([_targets(target) for _, target in pairs])


def _pair(dataset: Dataset[Any], i: int) -> tuple[Any, Any]:
    item = dataset[i]
    if not (isinstance(item, tuple | list) and len(item) == 2):
        raise DataError(
            f"sample {i} of {type(dataset).__name__} is {_described(item)}; it must be a pair (input, target)"
        )
    return item[0], item[1]


def _refuse_random(dataset: Dataset[Any], size: int) -> None:
    """Refuse a dataset that draws random numbers: it is read once, and each draw would stay as it is for all epochs."""
    for i in range(0, size, max(size // _READ_TWICE, 1)):
        first, again = (_input(_pair(dataset, i)[0]) for _ in range(2))
        if first.shape != again.shape or not torch.equal(first, again):
            raise DataError(
                f"sample {i} of {type(dataset).__name__} differs when it is read again: a random transform would be drawn once, "
                "for all epochs. Leave it out, and use augmentation=[crop,flip] for example"
            )


def _input(value: Any) -> Tensor:
    """Return one sample as a tensor: images as (C, H, W), uint8 or floats in [0, 1]."""
    if isinstance(value, Tensor):
        return _numbers(real_tensor(value))
    try:
        array = real_numbers(value)
    except DataError:
        raise
    except (TypeError, ValueError) as error:
        raise DataError(
            f"an input of the dataset is {_described(value)}; it must be a tensor, an array of numbers or a PIL image"
        ) from error
    picture = hasattr(value, "getbands")
    if picture and array.ndim == 2:
        array = array[:, :, None]
    if picture or (array.ndim == 3 and colors_are_last(array.shape)):
        array = np.moveaxis(array, 2, 0)
    tensor = torch.from_numpy(np.array(array))
    return _numbers(tensor)


def _numbers(tensor: Tensor) -> Tensor:
    """Return a sample as floats, vectors in float64 until their precision is checked; bytes of images stay."""
    if tensor.dtype == torch.uint8 and tensor.ndim in (2, 3):
        return tensor
    return tensor.double() if tensor.ndim == 1 else tensor.float()


def _colors_first(values: Any) -> Any:
    """Return inputs (N, ...) with the colors of images before their pixels; tensors, where that is usual, as they are."""
    if isinstance(values, Tensor):
        return values
    array = plain_array(values)
    return np.moveaxis(array, 3, 1) if array.ndim == 4 and colors_are_last(array.shape) else array


def _first_input(dataset: Dataset[Any]) -> Any:
    return _pair(dataset, 0)[0] if len(dataset) else None  # type: ignore[arg-type]


def _layout(value: Any) -> tuple[str, ...]:
    """Return a line on images (A, B, C) whose last axis may be that of the colors and is not moved.

    Of tensors, it is not moved where it looks like that of the colors; of arrays, where the first axis does, too.
    """
    if hasattr(value, "getbands") or np.ndim(value) != 3:
        return ()
    channels, height, width = shape = np.shape(value)
    tensor = isinstance(value, Tensor)
    if not (colors_are_last(shape) if tensor else colors_are_unclear(shape)):
        return ()
    cure = "tensor.movedim(-1, -3)" if tensor else "np.moveaxis(array, -1, -3)"
    return (
        f"layout   the inputs are taken as {channels} channel{'s' * (channels > 1)} of {height}×{width} pixels; if their colors are last: {cure}",
    )


def _array(values: Any) -> Tensor:
    """Return inputs (N, ...): bytes of images, also gray ones (N, H, W), stay, all other numbers become float32."""
    if isinstance(values, Tensor):
        tensor = real_tensor(values)
    else:
        tensor = torch.from_numpy(_writable(real_numbers(values)))
    if tensor.ndim == 1:
        raise DataError(
            f"the inputs have shape {tuple(tensor.shape)}; a single feature has shape (N, 1): x[:, None]"
        )
    if tensor.dtype in (torch.float64, torch.int64):
        check_precision(tensor.numpy())
    return tensor if tensor.dtype == torch.uint8 and tensor.ndim in (3, 4) else tensor.float()


def _targets(values: Any) -> Any:
    """Return targets as an array: whole numbers, floats or texts."""
    if isinstance(values, Tensor):
        tensor = real_tensor(values, "the targets")
        # numpy lacks it
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return unboxed(plain_array(values), "the targets")


def _stacked(targets: list[Any]) -> Any:
    """Return the targets of all samples as one array. Raises DataError where their shapes differ."""
    for i, target in enumerate(targets):
        if target.shape != targets[0].shape:
            raise DataError(
                f"the target of sample {i} has shape {target.shape} and that of sample 0 {targets[0].shape}; all must have one shape"
            )
    return np.array(targets)


def _writable(array: Any) -> Any:
    """Return an array that torch takes without a warning: pandas gives some that cannot be written."""
    return array if array.flags.writeable else array.copy()


def _raw(inputs: Tensor, targets: Any, names: Sequence[str], layout: tuple[str, ...]) -> RawData:
    if not len(targets):
        raise DataError("the dataset holds no sample")
    kind = targets.dtype.kind
    if kind == "f":
        return RawData(
            inputs,
            quantities(targets),
            "regression",
            target_scale="unit",
            notes=(
                "task: regression, since the targets are floats; for classes, give whole numbers (N,)",
                *layout,
            ),
        )
    if kind not in "iubU" or targets.ndim != 1:
        raise DataError(
            f"the targets have shape {targets.shape} and kind {targets.dtype}; they must be classes (N,), or floats (N,) or (N, K)"
        )
    values, codes = np.unique(targets, return_inverse=True)
    if kind != "U" and not names and len(values) > max(_MANY_CLASSES, len(targets) / 5):
        raise DataError(
            f"the {len(targets)} targets have {len(values)} distinct whole numbers, which may be classes or a quantity: return "
            "floats for a quantity, or RawData(inputs, targets, task='classification')"
        )
    if kind != "U" and values[0] >= 0 and (names or int(values[-1]) == len(values) - 1):
        codes, class_names = targets, tuple(str(name) for name in names)
    else:
        class_names = tuple(str(value) for value in values.tolist())
    why = "text" if kind == "U" else "whole numbers; for quantities, give floats"
    note = f"task: classification, since the targets are {why}"
    return RawData(
        inputs, torch.from_numpy(codes.astype(np.int64)), "classification", class_names, notes=(note, *layout)
    )
