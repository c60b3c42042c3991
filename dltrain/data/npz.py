"""Arrays saved with `numpy.savez`."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dltrain.data.contract import Contract
from dltrain.data.errors import DataError, nearest, some
from dltrain.data.exact import check_precision, quantities, real_numbers
from dltrain.data.packed import most_unpacked
from dltrain.data.pixels import colors_are_last, colors_are_unclear
from dltrain.data.raw import RawData
from dltrain.data.spec import Task
from dltrain.declare import declares
from dltrain.errors import nearest_path
from dltrain.ranges import FilePath

Array = NDArray[Any]
# up to so many different whole numbers, saved as floats, may be classes
_FEW_NUMBERS = 20


@declares(gives={"samples", "classes if task=classification", "quantities if task=regression"})
def npz(
    path: FilePath,
    inputs: str = "inputs",
    targets: str = "targets",
    split: str | None = None,
    groups: str | None = None,
    channels: Literal["first", "last", "auto"] = "auto",
    task: Literal["classification", "regression", "auto"] = "auto",
    target_scale: Literal["unit", "none"] = "unit",
    contract: Annotated[Contract | None, "runtime"] = None,
) -> RawData:
    """Your arrays: one file written by numpy.savez.

    The first axis of every array counts the samples. Raises DataError for a missing or pickled array and for arrays of
    different lengths. Quantities are standardized by the training split, unless target_scale=none, and scores are in their units.

    Use: data already in numpy: images as uint8 or floats, tables as floats.
    Defaults: the arrays are named inputs and targets.

    Args:
        path: the .npz file
        inputs: name of the array of inputs: a table (N, F), images (N, H, W), (N, C, H, W) or (N, H, W, C), or with dataset.layout
            sequences (N, T, F) or channels (N, C, T)
        targets: name of the array of targets: classes (N,) or (N, 1), or quantities (N,) or (N, K)
        split: name of an array (N,) with 0 for train, 1 for val, 2 for test
        groups: name of an array (N,); samples with equal values stay in one split
        channels: position of the color axis of images; auto looks for an axis of length 1, 3 or 4, and refuses images where the first
            and the last one could be it, unless both have length 1
        task: auto takes one integer or text for each sample as its class, and says so; classification takes rows with a single 1, too
        target_scale: unit lets a regression learn targets of mean 0 and variance 1, and reports the real units; none leaves them as they
            are, for a loss of counts or of labels that are 0 and 1
    """
    arrays = _read(
        Path(os.path.expanduser(path)), [name for name in (inputs, targets, split, groups) if name]
    )
    names = {"inputs": inputs, "targets": targets, "split": split, "groups": groups}
    _check_lengths(path, {key: arrays[name] for key, name in names.items() if name})
    goal = _targets(arrays[targets], targets, task)
    axes = arrays[inputs].ndim
    return RawData(
        inputs=as_inputs(arrays[inputs], channels, contract.input_shape if contract is not None else None),
        targets=goal.values,
        task=goal.task,
        class_names=goal.class_names,
        notes=(goal.note,),
        target_scale=target_scale if goal.task == "regression" else "none",
        split=_split(arrays[split]) if split else None,
        unused={"channels": f"inputs of {axes} axes have no color axis"} if axes < 4 else {},
        groups=torch.from_numpy(np.unique(arrays[groups], return_inverse=True)[1].astype(np.int64))
        if groups
        else None,
    )


def read_array(path: Path, name: str) -> Array:
    """Return one array of a file of numpy.savez. Raises DataError where it cannot be read."""
    return _read(path, [name])[name]


def _read(path: Path, names: list[str]) -> dict[str, Array]:
    if not path.is_file():
        raise DataError(
            f"dataset.path is {path}, which is not a file; set it to a file of numpy.savez.{nearest_path(path)}".rstrip(
                "."
            )
        )
    if path.stat().st_size == 0:
        # files of the kernel say so, too, and reading them may never end
        raise DataError(f"{path} is empty; write it again with numpy.savez")
    try:
        _check_packing(path)
        # a pickled array could run code
        with np.load(path, allow_pickle=False) as archive:
            for name in names:
                if name not in archive:
                    raise DataError(
                        f"{path} holds no array {name!r}{nearest(name, archive.files)}; its arrays: "
                        f"{some(archive.files)} (dataset.inputs, dataset.targets, dataset.split and "
                        "dataset.groups name them)"
                    )
            found = {name: archive[name] for name in names}
            for name, array in found.items():
                # a few bytes could name any number of such samples
                if array.ndim and len(array) and array.nbytes == 0:
                    raise DataError(f"array {name!r} of {path} has the shape {array.shape} and no value")
            return found
    except DataError:
        raise
    except (
        ValueError, OSError, EOFError, AttributeError, TypeError, MemoryError, zipfile.BadZipFile, zlib.error,
        NotImplementedError, RuntimeError,
    ) as error:  # fmt: skip
        cure = ": of texts, such as array.astype(str)" if "pickle" in str(error) else ""
        raise DataError(
            f"cannot read {path} ({error}); save plain arrays again with numpy.savez{cure}"
        ) from error


def _check_packing(path: Path) -> None:
    """Refuse an archive with an extreme compression ratio: a few kilobytes could unpack to more than the memory."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    size = sum(member.file_size for member in members)
    if size > most_unpacked(path):
        raise ValueError(f"its {path.stat().st_size} bytes unpack to {size}")


def _check_lengths(path: str, arrays: dict[str, Array]) -> None:
    lengths = {key: len(array) if array.ndim else 0 for key, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        facts = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise DataError(
            f"the arrays of {path} have different lengths ({facts}); all must have one entry a sample"
        )


def as_inputs(array: Array, channels: str, known: Sequence[int] | None = None) -> Tensor:
    """Return a table (N, F) as floats, samples (N, A, B) as they are, or images (N, C, H, W) as bytes or floats. Raises DataError for other shapes.

    known: the shape of a sample in the training of a run
    """
    array = real_numbers(array)
    if array.ndim not in (2, 3, 4):
        raise DataError(
            f"the inputs have shape {array.shape}; they must be numbers of shape (N, F), (N, H, W), (N, C, H, W) or (N, H, W, C)"
        )
    check_precision(array)
    tensor = torch.from_numpy(array if array.dtype == np.uint8 else array.astype(np.float32))
    if tensor.ndim == 4 and _are_last(array.shape[1:], channels, known):
        return tensor.permute(0, 3, 1, 2).contiguous()
    # bytes of a table are plain numbers and not divided by 255
    return tensor.float() if tensor.ndim == 2 else tensor


def _are_last(shape: tuple[int, ...], channels: str, known: Sequence[int] | None) -> bool:
    """Return whether the colors of images of a shape (A, B, C) are last. Raises DataError where neither the shape nor the run tells it."""
    if channels != "auto":
        return channels == "last"
    if not colors_are_unclear(shape):
        return colors_are_last(shape)
    first, rows, last = shape
    if known is not None:
        # before such images were refused, their colors were taken to be first
        return tuple(known) != shape and tuple(known) == (last, first, rows)
    raise DataError(
        f"the inputs have shape (N, {first}, {rows}, {last}), whose colors may be first or last;\nset dataset.channels=first for "
        f"{first} channel{'s' * (first > 1)} of {rows}×{last} pixels, or dataset.channels=last for {last} channel{'s' * (last > 1)} of {first}×{rows}"
    )


@dataclass(frozen=True)
class _Targets:
    """Targets as a task takes them.

    note: what was inferred, and how to get the other task
    """

    task: Task
    values: Tensor
    class_names: tuple[str, ...] = ()
    note: str = ""


def _targets(array: Array, name: str, task: str) -> _Targets:
    """Read targets as `task`; auto takes whole numbers and text, one for each sample, as classes."""
    column = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    by_kind = column.dtype.kind in "iubU" and column.ndim == 1
    if task == "classification" or (task == "auto" and by_kind):
        codes, class_names = _classes(column, array.shape)
        inferred = "inferred; for quantities: dataset.task=regression"
        note = f"target   {name}: classification, {len(class_names)} classes" + f" · {inferred}" * (
            task == "auto" and column.dtype.kind != "U"
        )
        return _Targets("classification", codes, class_names, note)
    if array.dtype.kind not in "fiub" or array.ndim not in (1, 2):
        raise DataError(
            f"the targets have shape {array.shape} and kind {array.dtype}; those of a regression are numbers of "
            "shape (N,) or (N, K)"
        )
    note = f"target   {name}: regression{_like_classes(column) if task == 'auto' else ''}"
    return _Targets("regression", quantities(array), note=note)


def _classes(array: Array, shape: tuple[int, ...]) -> tuple[Tensor, tuple[str, ...]]:
    """Return the class (N,) of each sample and the names of the classes; rows (N, K) with a single 1 name them by position."""
    if _is_one_hot(array):
        return torch.from_numpy(array.argmax(1)), tuple(map(str, range(array.shape[1])))
    if array.ndim != 1:
        raise DataError(
            f"the targets have shape {shape}; those of a classification have shape (N,) or (N, 1), or (N, K) with a single 1 in "
            "each row"
        )
    values, codes = np.unique(array, return_inverse=True)
    return torch.from_numpy(codes.astype(np.int64)), tuple(str(value) for value in values.tolist())


def _is_one_hot(array: Array) -> bool:
    return (
        array.ndim == 2
        and array.dtype.kind in "fiub"
        and array.shape[1] > 1
        and bool(np.isin(array, (0, 1)).all())
        and bool((array.sum(1) == 1).all())
    )


def _like_classes(array: Array) -> str:
    """Return what quantities have of classes, for the note: a single 1 in each row, or a few whole numbers."""
    cure = "inferred; for classes: dataset.task=classification"
    if array.ndim == 2:
        return f" · each row has a single 1 · {cure}" * _is_one_hot(array)
    values = np.unique(array)
    few = len(values) <= _FEW_NUMBERS and bool((values == np.floor(values)).all())
    return f" · {len(values)} different whole numbers" * few + f" · {cure}"


def _split(array: Array) -> Tensor:
    if array.ndim != 1 or not np.isin(array, (0, 1, 2)).all():
        raise DataError("the split array must have shape (N,) and hold 0 (train), 1 (val) and 2 (test) only")
    return torch.from_numpy(array.astype(np.int8))
