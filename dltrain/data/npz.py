"""Arrays saved with `numpy.savez`."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dltrain.data.errors import DataError, nearest, some
from dltrain.data.exact import check_precision, quantities
from dltrain.data.packed import most_unpacked
from dltrain.data.raw import RawData
from dltrain.data.spec import Task
from dltrain.declare import declares
from dltrain.errors import nearest_path
from dltrain.ranges import FilePath

Array = NDArray[Any]
# possible lengths of the color axis
_COLORS = (1, 3, 4)


@declares(gives={"samples", "classes if task=classification", "quantities if task=regression"})
def npz(
    path: FilePath,
    inputs: str = "inputs",
    targets: str = "targets",
    split: str | None = None,
    groups: str | None = None,
    channels: Literal["first", "last", "auto"] = "auto",
    task: Literal["classification", "regression", "auto"] = "auto",
) -> RawData:
    """Your arrays: one file written by numpy.savez.

    The first axis of every array counts the samples. Raises DataError for a missing or pickled array and for arrays of
    different lengths. Quantities are standardized by the training split, and scores are in their units.

    Use: data already in numpy: images as uint8 or floats, tables as floats.
    Defaults: the arrays are named inputs and targets.

    Args:
        path: the .npz file
        inputs: name of the array of inputs: a table (N, F), or images (N, H, W), (N, C, H, W) or (N, H, W, C)
        targets: name of the array of targets: classes (N,), or quantities (N,) or (N, K)
        split: name of an array (N,) with 0 for train, 1 for val, 2 for test
        groups: name of an array (N,); samples with equal values stay in one split
        channels: position of the color axis of images; auto looks for an axis of length 1, 3 or 4
        task: auto takes integers and text as classes
    """
    arrays = _read(
        Path(os.path.expanduser(path)), [name for name in (inputs, targets, split, groups) if name]
    )
    names = {"inputs": inputs, "targets": targets, "split": split, "groups": groups}
    _check_lengths(path, {key: arrays[name] for key, name in names.items() if name})
    kind, values, class_names = _targets(arrays[targets], task)
    axes = arrays[inputs].ndim
    return RawData(
        inputs=as_inputs(arrays[inputs], channels),
        targets=values,
        task=kind,
        class_names=class_names,
        target_scale="unit" if kind == "regression" else "none",
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
            return {name: archive[name] for name in names}
    except DataError:
        raise
    except (
        ValueError, OSError, EOFError, AttributeError, TypeError, MemoryError, zipfile.BadZipFile, zlib.error,
        NotImplementedError, RuntimeError,
    ) as error:  # fmt: skip
        raise DataError(f"cannot read {path} ({error}); save plain arrays again with numpy.savez") from error


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


def as_inputs(array: Array, channels: str) -> Tensor:
    """Return a table (N, F) as floats, or images (N, C, H, W) as bytes or floats. Raises DataError for other shapes."""
    if array.dtype.kind not in "fiub" or array.ndim not in (2, 3, 4):
        raise DataError(
            f"the inputs have shape {array.shape} and kind {array.dtype}; they must be numbers of shape (N, F), "
            "(N, H, W), (N, C, H, W) or (N, H, W, C)"
        )
    check_precision(array)
    tensor = torch.from_numpy(array if array.dtype == np.uint8 else array.astype(np.float32))
    if tensor.ndim == 3:
        return tensor[:, None]
    if tensor.ndim == 4 and (channels == "last" or (channels == "auto" and _colors_are_last(array.shape))):
        return tensor.permute(0, 3, 1, 2).contiguous()
    # bytes of a table are plain numbers and not divided by 255
    return tensor.float() if tensor.ndim == 2 else tensor


def _colors_are_last(shape: tuple[int, ...]) -> bool:
    return shape[3] in _COLORS and shape[1] not in _COLORS


def _targets(array: Array, task: str) -> tuple[Task, Tensor, tuple[str, ...]]:
    if task == "classification" or (task == "auto" and array.dtype.kind in "iubU" and array.ndim == 1):
        if array.ndim != 1:
            raise DataError(
                f"the targets have shape {array.shape}; those of a classification have shape (N,)"
            )
        values, codes = np.unique(array, return_inverse=True)
        return (
            "classification",
            torch.from_numpy(codes.astype(np.int64)),
            tuple(str(value) for value in values.tolist()),
        )
    if array.dtype.kind not in "fiub" or array.ndim not in (1, 2):
        raise DataError(
            f"the targets have shape {array.shape} and kind {array.dtype}; those of a regression are numbers of "
            "shape (N,) or (N, K)"
        )
    return "regression", quantities(array), ()


def _split(array: Array) -> Tensor:
    if array.ndim != 1 or not np.isin(array, (0, 1, 2)).all():
        raise DataError("the split array must have shape (N,) and hold 0 (train), 1 (val) and 2 (test) only")
    return torch.from_numpy(array.astype(np.int8))
