"""The form in which a dataset hands over its samples: the only thing that a dataset of your own must return.

A dataset is a function `(**keys) -> RawData` in a module that can be imported, and one file
`conf/dataset/WORD.yaml` with a line `_target_: module.function` and a line for each key. Splitting,
normalising, moving to the device and batching are done for it by `dltrain.data.prepare`:

>>> import torch
>>> from dltrain.data.raw import RawData
>>> def parity() -> RawData:
...     numbers = torch.arange(100)
...     bits = (numbers[:, None] >> torch.arange(7)) % 2
...     return RawData(bits.float(), numbers % 2, "classification", class_names=("even", "odd"))
>>> len(parity())
100
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from dltrain.data.spec import Task

TRAIN, VAL, TEST = 0, 1, 2
SPLIT_NAMES = ("train", "val", "test")


class Reader(Protocol):
    """Samples that are read when they are needed, such as image files; it is pickled to the worker processes.

    Keep lists of many Python strings out of it: counting references to them copies their memory into every
    worker.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample, (C, H, W)."""
        ...

    def __len__(self) -> int: ...

    def read(self, indices: Tensor) -> Tensor:
        """uint8 samples (B, C, H, W) at the positions `indices` (B,), in that order; raises DataError."""
        ...


@dataclass(frozen=True)
class Encoded:
    """Inputs (N, F) float32 with the names of the features, the rules that made them, and lines that say what was inferred."""

    inputs: Tensor
    feature_names: tuple[str, ...]
    rules: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()


@runtime_checkable
class Encoder(Protocol):
    """Inputs that become numbers after the split, by what the training rows alone tell (fill values, levels, centers)."""

    def __len__(self) -> int: ...

    def encode(self, train: Tensor) -> Encoded:
        """Encode all samples; `train` (M,) are the positions of those of the training split. Raises DataError."""
        ...


def sample_name(index: int) -> str:
    """`sample 7`: how error messages name a sample that has no better name."""
    return f"sample {index}"


@dataclass(frozen=True)
class RawData:
    """A dataset before splitting and normalising.

    inputs: images as uint8 (N, C, H, W), or floats (N, C, H, W) in [0, 1]; tables as floats (N, F); a `Reader`; or
    an `Encoder`. targets: (N,) int64 classes from 0, or (N,) or (N, K) floats. split: (N,) int8, 0 train, 1 val,
    2 test, where the data bring their own; groups: (N,) int64, samples of a group stay in one split.
    `describe(i)` names a sample. target_scale `unit`: a model learns the targets of a regression less their mean,
    divided by their standard deviation, both of the training split. notes: lines that say what was inferred.
    """

    inputs: Tensor | Reader | Encoder
    targets: Tensor
    task: Task
    class_names: tuple[str, ...] = ()
    split: Tensor | None = None
    groups: Tensor | None = None
    describe: Callable[[int], str] = sample_name
    feature_names: tuple[str, ...] = ()
    target_rules: tuple[Any, ...] = ()  # how the target columns of a table are read
    target_scale: Literal["unit", "none"] = "none"
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def samples(self) -> Tensor | Reader:
        """The inputs, which are encoded by now."""
        assert not isinstance(self.inputs, Encoder)
        return self.inputs


def class_numbers(raw: RawData) -> int:
    """Number of classes: of the names where there are names, else the largest target plus one."""
    return len(raw.class_names) or int(raw.targets.max()) + 1


def given_splits(sizes: dict[int, int]) -> Tensor:
    """(N,) int8 split marks for samples that come in blocks, from {TRAIN: n, TEST: m} in order."""
    marks = torch.tensor(list(sizes), dtype=torch.int8)
    return marks.repeat_interleave(torch.tensor(list(sizes.values())))
