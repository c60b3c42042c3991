"""The form in which a dataset returns its samples.

A dataset is a function `(**keys) -> RawData`, in a module that can be imported, and a file `conf/dataset/WORD.yaml`
with the line `_target_: module.function`. Its keys come from the function's signature. `dltrain.data.prepare` does the
splitting, normalization, transfer to the device and batching:

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

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from numpy.typing import NDArray
from torch import Tensor

from dltrain.data.pixels import WHITE
from dltrain.data.spec import Task

TRAIN, VAL, TEST = 0, 1, 2
# how people name the splits
SPLIT_WORDS = {
    "train": TRAIN, "training": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "dev": VAL, "test": TEST, "testing": TEST,
}  # fmt: skip


# what samples (A, B) are: a gray image (H, W), a sequence (steps, features), or channels (channels, steps)
Layout = Literal["auto", "image", "sequence", "channels"]


class Reader(Protocol):
    """Samples that are read when they are needed, such as image files. It is pickled to the worker processes.

    Do not keep long lists of Python strings in it: reference counting copies their memory into every worker.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample, (C, H, W)."""
        ...

    def __len__(self) -> int: ...

    def read(self, indices: Tensor) -> Tensor:
        """Return uint8 samples (B, C, H, W) at the positions `indices` (B,), in that order. Raises DataError."""
        ...


@dataclass(frozen=True)
class Encoded:
    """Inputs (N, F) float32 with the names of the features, the rules that made them, and lines that say what was inferred.

    far_notes: returns lines on values far from those of the training, given a function that names a sample.
    """

    inputs: Tensor
    feature_names: tuple[str, ...]
    rules: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()
    far_notes: Callable[[Callable[[int], str]], tuple[str, ...]] = lambda name: ()


@runtime_checkable
class Encoder(Protocol):
    """Inputs that become numbers after the split, by what the training rows alone tell (fill values, levels, centers)."""

    def __len__(self) -> int: ...

    def encode(self, train: Tensor) -> Encoded:
        """Encode all samples; `train` (M,) are the positions of those of the training split. Raises DataError."""
        ...


def sample_name(index: int) -> str:
    """Return `sample 7`: the default name of a sample in error messages."""
    return f"sample {index}"


@dataclass(frozen=True)
class Places:
    """Where samples come from.

    rows: (N,) numbers counted from 1, in `file` where they come from one; or (N,) names of files, as objects
    """

    rows: NDArray[Any]
    file: str = ""


def sample_numbers(positions: Tensor) -> Places:
    """Return the places of samples that have only their number."""
    return Places(positions.numpy() + 1)


@dataclass(frozen=True)
class RawData:
    """A dataset before splitting and normalization.

    Args:
        inputs: images as uint8 (N, C, H, W), or as floats (N, C, H, W) in [0, 1]; tables as floats (N, F); samples of two axes
            (N, A, B), see `layout`; a `Reader`; or an `Encoder`
        targets: int64 classes (N,) from 0, or floats (N,) or (N, K)
        split: int8 (N,) with 0 for train, 1 for val, 2 for test, where the dataset defines splits
        groups: int64 (N,); samples of one group stay in one split
        describe: function from the index of a sample to its name in error messages
        locate: function from the positions (M,) of the samples of a split to their places
        target_rules: how the target columns of a table are read
        target_scale: `unit` standardizes the targets of a regression by mean and deviation of the training split
        notes: lines that tell what was inferred
        left_out: columns of a table that are not learned from, and why
        skipped: samples that cannot be used and were left out, by name, and why
        files: digest of the names and sizes of the files that the samples are read from, where these are many
        unused: keys of the dataset that change nothing for these data, with the reason as the end of a sentence
        full_scale: value that is white in images of 16 bits
        layout: what samples (N, A, B) are, where `dataset.layout` is auto: `image` (H, W), `sequence` (steps, features) or
            `channels` (channels, steps); auto takes them as gray images, and says so
        resize: how images of another size are brought to the shape (`dltrain.data.pixels.Resize`); empty: they are refused
    """

    inputs: Tensor | Reader | Encoder
    targets: Tensor
    task: Task
    class_names: tuple[str, ...] = ()
    split: Tensor | None = None
    groups: Tensor | None = None
    describe: Callable[[int], str] = sample_name
    locate: Callable[[Tensor], Places] = sample_numbers
    feature_names: tuple[str, ...] = ()
    target_rules: tuple[Any, ...] = ()  # how the target columns of a table are read
    target_scale: Literal["unit", "none"] = "none"
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    unused: Mapping[str, str] = field(default_factory=dict)
    layout: Layout = "auto"
    resize: str = ""
    full_scale: int = WHITE
    files: str = ""

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def samples(self) -> Tensor | Reader:
        """The inputs, which are encoded by now."""
        assert not isinstance(self.inputs, Encoder)
        return self.inputs


def class_numbers(raw: RawData) -> int:
    """Return the number of classes: that of the class names, or else the largest target plus one."""
    return len(raw.class_names) or int(raw.targets.max()) + 1


def given_splits(sizes: dict[int, int]) -> Tensor:
    """Return (N,) int8 split marks for samples stored in blocks, from {TRAIN: n, TEST: m} in order."""
    marks = torch.tensor(list(sizes), dtype=torch.int8)
    return marks.repeat_interleave(torch.tensor(list(sizes.values())))
