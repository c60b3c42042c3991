"""CIFAR-10 and CIFAR-100 from their binary archives: the Python archives are pickles, which can run code."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dltrain.data import cache, download
from dltrain.data.download import RemoteFile
from dltrain.data.errors import DataError
from dltrain.data.raw import TEST, TRAIN, RawData, given_splits
from dltrain.declare import declares
from dltrain.ranges import FilePath

_PIXELS = 3 * 32 * 32
_MIRRORS = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")


@dataclass(frozen=True)
class _Archive:
    """One of the two archives: its inner folder, and its members with their numbers of images."""

    remote: RemoteFile
    folder: str
    train: tuple[tuple[str, int], ...]
    test: tuple[tuple[str, int], ...]
    # files with class names, and the number of names in each
    names: tuple[tuple[str, int], ...]
    label_bytes: int


_CIFAR10 = _Archive(
    RemoteFile(
        "cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        170052171,
        _MIRRORS,
    ),
    "cifar-10-batches-bin",
    tuple((f"data_batch_{i}.bin", 10_000) for i in range(1, 6)),
    (("test_batch.bin", 10_000),),
    (("batches.meta.txt", 10),),
    label_bytes=1,
)
_CIFAR100 = _Archive(
    RemoteFile(
        "cifar-100-binary.tar.gz",
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        168513733,
        _MIRRORS,
    ),
    "cifar-100-binary",
    (("train.bin", 50_000),),
    (("test.bin", 10_000),),
    (("coarse_label_names.txt", 20), ("fine_label_names.txt", 100)),
    label_bytes=2,
)


@declares(gives={"images", "classes"})
def cifar10(root: FilePath = "data", download: bool = True) -> RawData:
    """60 000 color 32×32 images of ten classes; downloaded (170 MB).

    Files: root/cifar-10-binary.tar.gz, or the unpacked folder root/cifar-10-batches-bin.

    Use: the benchmark of small CNNs and ResNets.
    Defaults: the published test split of 10 000 images; val is cut from train.
    Paper: Krizhevsky 2009, Learning multiple layers of features from tiny images

    Args:
        root: folder of the downloaded files, in torchvision's layout
        download: fetch missing files, verified by SHA-256; false opens no connection
    """
    return _load(_CIFAR10, Path(root), download, column=0)


@declares(gives={"images", "classes"})
def cifar100(
    root: FilePath = "data", download: bool = True, labels: Literal["fine", "coarse"] = "fine"
) -> RawData:
    """60 000 color 32×32 images of 100 classes or 20 superclasses; downloaded (169 MB).

    Files: root/cifar-100-binary.tar.gz, or the unpacked folder root/cifar-100-binary.

    Use: as CIFAR-10, with ten times fewer images per class.
    Defaults: the published test split of 10 000 images; val is cut from train.
    Paper: Krizhevsky 2009, Learning multiple layers of features from tiny images

    Args:
        root: folder of the downloaded files, in torchvision's layout
        download: fetch missing files, verified by SHA-256; false opens no connection
        labels: the 100 classes, or the 20 superclasses
    """
    return _load(_CIFAR100, Path(root), download, column=("coarse", "fine").index(labels))


def _load(archive: _Archive, root: Path, may_download: bool, column: int) -> RawData:
    source = _locate(archive, root, may_download)
    stamp = [source] if source.is_file() else sorted(source.glob("*.bin"))
    tensors = cache.decoded(root / archive.folder, stamp, lambda: _decode(archive, source))
    train_size = int(tensors["train_size"])
    return RawData(
        inputs=tensors["images"],
        targets=tensors["labels"][:, column].long(),
        task="classification",
        class_names=_class_names(tensors["names"], archive, column),
        split=given_splits({TRAIN: train_size, TEST: len(tensors["labels"]) - train_size}),
    )


def _locate(archive: _Archive, root: Path, may_download: bool) -> Path:
    """Return the unpacked folder or the archive; download the archive where both are missing."""
    if (root / archive.folder / archive.test[0][0]).is_file():
        return root / archive.folder
    present = download.find(root, (archive.remote.name,))
    if present:
        return present
    hint = f"or set dataset.root to the folder that holds {archive.remote.name}"
    if not may_download:
        raise DataError(
            f"{archive.remote.name} is not in {root} (the Python version of the archive is a pickle and is not "
            f"read); set dataset.download=true, {hint}"
        )
    return download.fetch(archive.remote, root, hint)


def _decode(archive: _Archive, source: Path) -> dict[str, Tensor]:
    record = archive.label_bytes + _PIXELS
    with _members(archive, source) as read:
        content = b"".join(read(name, count * record) for name, count in archive.train + archive.test)
        names = b"\n".join(read(name, None) for name, _ in archive.names)
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    return {
        "images": torch.from_numpy(records[:, archive.label_bytes :].copy()).view(-1, 3, 32, 32),
        "labels": torch.from_numpy(records[:, : archive.label_bytes].copy()),
        "names": torch.from_numpy(np.frombuffer(names, np.uint8).copy()),
        "train_size": torch.tensor(sum(count for _, count in archive.train)),
    }


@contextmanager
def _members(archive: _Archive, source: Path) -> Iterator[Callable[[str, int | None], bytes]]:
    """Yield a function from (name, size) to content, of the folder or the archive; nothing is unpacked to disk."""
    if source.is_dir():
        yield lambda name, size: _whole(source / name, _read_file(source / name), size)
        return
    try:
        with _Bounded(source, archive) as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as tar:
            inside = archive.folder
            yield lambda name, size: _whole(source / name, _read_member(tar, f"{inside}/{name}", size), size)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"cannot read {source} ({error}); remove it and let it be downloaded again"
        ) from error


class _Bounded(gzip.GzipFile):
    """A gzip reader that unpacks no more than the archive's members, and no more at once than the largest of them.

    tarfile unpacks every member, and reads every extended header, before the member that it looks for.
    """

    def __init__(self, path: Path, archive: _Archive) -> None:
        super().__init__(path)
        sizes = [count * (archive.label_bytes + _PIXELS) for _, count in archive.train + archive.test]
        self.most, self.at_once = sum(sizes) + 2**20, max(sizes) + 2**10

    def seek(self, offset: int, whence: int = 0) -> int:
        if offset > self.most:
            raise OSError(f"it unpacks to more than {self.most} bytes")
        return super().seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self.at_once if size is None or size < 0 else min(size, self.at_once))


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); unpack the archive again") from error


def _read_member(tar: tarfile.TarFile, name: str, size: int | None) -> bytes:
    try:
        member = tar.extractfile(name)
    except KeyError:
        member = None
    # read no more than expected into memory, whatever the archive states
    return b"" if member is None else member.read(2**16 if size is None else size + 1)


def _whole(path: Path, content: bytes, size: int | None) -> bytes:
    if not content or (size is not None and len(content) != size):
        raise DataError(
            f"{path} holds {len(content)} bytes in place of {size or 'some'}; remove the archive or folder and "
            "let it be downloaded again"
        )
    return content


def _class_names(names: Tensor, archive: _Archive, column: int) -> tuple[str, ...]:
    words = bytes(names.tolist()).decode().split()
    first = sum(count for _, count in archive.names[:column])
    return tuple(words[first : first + archive.names[column][1]])
