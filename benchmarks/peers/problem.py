"""The reference task that every contender works on: the data, the two models, and how an epoch is timed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

VALIDATION_BATCH = 1024  # of every contender that may choose; dltrain's own default
LR = 1e-3
TURN = "THROUGHPUT_TURN"  # two file descriptors: to tell that a turn is over, and to wait for the next


@dataclass(frozen=True)
class Task:
    """One contender's work: what it trains, on which data and for how long."""

    model: str  # mlp or cnn
    data: str  # the .npz file of `write_data`
    epochs: int
    batch_size: int
    threads: int
    device: str


class Epoch(NamedTuple):
    """Seconds of one epoch: of training up to the validation, and of all, up to the next epoch."""

    training: float
    whole: float


@dataclass
class Outcome:
    """What a contender reports: the epochs after the first, and the accuracy in the end."""

    epochs: list[Epoch]
    accuracy: float  # on the validation images
    version: str

    def as_dict(self) -> dict[str, object]:
        return asdict(self) | {"epochs": [list(epoch) for epoch in self.epochs]}


class Data(NamedTuple):
    """Normalised float images (N, 1, 28, 28) and class numbers (N,), on the device."""

    train_inputs: Tensor
    train_targets: Tensor
    val_inputs: Tensor
    val_targets: Tensor


@dataclass
class Laps:
    """Notes when each epoch and each validation begins; on a GPU it first waits for the work to be done.

    Between two epochs it waits for its turn: the other contenders train meanwhile, and that time is nobody's.
    """

    device: str
    epochs_begun: list[float] = field(default_factory=list)
    validations_begun: list[float] = field(default_factory=list)
    turns_ended: list[float] = field(default_factory=list)  # before the first epoch, and after each

    def epoch_begins(self) -> None:
        self._end_turn()
        self.epochs_begun.append(self._now())

    def validation_begins(self) -> None:
        self.validations_begun.append(self._now())

    def end(self) -> None:
        self._end_turn()

    def after_the_first(self) -> list[Epoch]:
        """Return the epochs without the first, in which caches fill and kernels are chosen."""
        laps = zip(self.epochs_begun, self.validations_begun, self.turns_ended[1:], strict=True)
        return [Epoch(validation - begin, end - begin) for begin, validation, end in laps][1:]

    def _end_turn(self) -> None:
        self.turns_ended.append(self._now())
        wait_for_turn()

    def _now(self) -> float:
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()


def wait_for_turn() -> None:
    """Tell throughput.py that the turn is over, and wait for the next; alone, it is always one's turn."""
    if TURN in os.environ:
        over, mine = map(int, os.environ[TURN].split())
        os.write(over, b".")
        os.read(mine, 1)


# Data ---------------------------------------------------------------------------------------------


def write_data(file: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    """Save images (N, 1, 28, 28) and labels (N,) for all contenders; the last sixth of them validates."""
    split = np.zeros(len(labels), np.int8)
    split[len(labels) - len(labels) // 6 :] = 1
    np.savez(file, inputs=images, targets=labels.astype(np.int64), split=split)


def read_mnist(folder: Path, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the first training images and labels of FOLDER/MNIST/raw, where they lie unpacked."""
    raw = folder / "MNIST" / "raw"
    images = np.fromfile(raw / "train-images-idx3-ubyte", np.uint8, offset=16).reshape(-1, 1, 28, 28)
    labels = np.fromfile(raw / "train-labels-idx1-ubyte", np.uint8, offset=8)
    return images[:count], labels[:count]


def synthetic(count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images in MNIST's form that can be learned: one pattern for each class, half hidden under noise."""
    random = np.random.default_rng(0)
    patterns = random.integers(0, 256, (10, 1, 28, 28), np.uint8)
    labels = random.integers(0, 10, count, np.uint8)
    noise = random.integers(0, 256, (count, 1, 28, 28), np.uint8)
    return patterns[labels] // 2 + noise // 2, labels


def load(task: Task) -> Data:
    """Return the task's data for all contenders but dltrain, which reads and normalizes the file itself."""
    arrays = np.load(task.data)
    inputs = torch.from_numpy(arrays["inputs"]).float()
    targets, val = torch.from_numpy(arrays["targets"]), torch.from_numpy(arrays["split"] == 1)
    inputs = (inputs - inputs[~val].mean()) / inputs[~val].std()
    return Data(*(part.to(task.device) for part in (inputs[~val], targets[~val], inputs[val], targets[val])))


class TensorBatches:
    """Batches gathered from whole tensors with one call each: the fastest loader for data in memory."""

    def __init__(self, inputs: Tensor, targets: Tensor, batch_size: int, shuffle: bool) -> None:
        self.inputs, self.targets, self.batch_size, self.shuffle = inputs, targets, batch_size, shuffle

    def __len__(self) -> int:
        return -(-len(self.targets) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not self.shuffle:
            parts = self.inputs.split(self.batch_size), self.targets.split(self.batch_size)
            yield from zip(*parts, strict=True)
            return
        for chosen in shuffled(len(self.targets), self.batch_size, self.targets.device):
            # half the time of self.inputs[chosen] on a CPU
            yield self.inputs.index_select(0, chosen), self.targets.index_select(0, chosen)


def shuffled(count: int, batch_size: int, device: torch.device) -> tuple[Tensor, ...]:
    """Return the positions of an epoch's samples, batch by batch."""
    return torch.randperm(count, device=device).split(batch_size)


def tensor_batches(task: Task, data: Data) -> tuple[TensorBatches, TensorBatches]:
    """Training and validation batches for the contenders that take a loader of their user's."""
    train = TensorBatches(data.train_inputs, data.train_targets, task.batch_size, shuffle=True)
    return train, TensorBatches(data.val_inputs, data.val_targets, VALIDATION_BATCH, shuffle=False)


# Models -------------------------------------------------------------------------------------------


def make_model(name: str) -> nn.Module:
    """Return the MLP 784-256-128-10 or the CNN with 16 and 32 channels: the layers of dltrain's `mlp` and `cnn`."""
    if name == "mlp":
        hidden = [nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU()]
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(128, 10))
    blocks = [*_block(1, 16), *_block(16, 32)]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(32 * 7 * 7, 10))


def _block(inner: int, outer: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inner, outer, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outer), nn.ReLU(), nn.MaxPool2d(2)]


def model_for(task: Task, channels_last: bool) -> nn.Module:
    """Return the task's model on its device; torch documents `channels_last` as faster for convolutions."""
    model = make_model(task.model).to(task.device)
    return model.to(memory_format=torch.channels_last) if channels_last and task.model == "cnn" else model


@torch.no_grad()
def accuracy(model: nn.Module, data: Data) -> float:
    """Return the fraction of validation images that a model gets right: the proof that a contender did train."""
    model.eval()
    batches = zip(
        data.val_inputs.split(VALIDATION_BATCH), data.val_targets.split(VALIDATION_BATCH), strict=True
    )
    hits = sum(int((model(inputs).argmax(1) == targets).sum()) for inputs, targets in batches)
    return hits / len(data.val_targets)
