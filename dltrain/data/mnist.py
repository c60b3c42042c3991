"""MNIST and related datasets in torchvision's folder layout (ROOT/MNIST/raw), read without torchvision."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dltrain.data import cache, download
from dltrain.data.download import RemoteFile
from dltrain.data.errors import DataError
from dltrain.data.raw import TEST, TRAIN, RawData, given_splits
from dltrain.declare import declares
from dltrain.ranges import FilePath

# magic numbers of IDX files: bytes in three axes, bytes in one axis
_IMAGES, _LABELS = 0x803, 0x801
# bytes of the magic number and three lengths
_HEAD = 16
# bytes of a file, three times MNIST's largest
_MOST = 2**27


@dataclass(frozen=True)
class _Family:
    """One dataset in IDX form: its folder below the root, and SHA-256 and size of its four files."""

    folder: str
    mirrors: tuple[str, ...]
    train_images: tuple[str, int]
    train_labels: tuple[str, int]
    test_images: tuple[str, int]
    test_labels: tuple[str, int]
    class_names: tuple[str, ...]

    def files(self) -> list[RemoteFile]:
        names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
        facts = (self.train_images, self.train_labels, self.test_images, self.test_labels)
        return [
            RemoteFile(f"{name}-ubyte.gz", sha256, size, self.mirrors)
            for name, (sha256, size) in zip(names, facts, strict=True)
        ]


_MNIST = _Family(
    "MNIST",
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    ),
    ("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9912422),
    ("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28881),
    ("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1648877),
    ("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4542),
    tuple("0123456789"),
)
_FASHION_MNIST = _Family(
    "FashionMNIST",
    (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
    ("3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26421880),
    ("a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29515),
    ("346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4422102),
    ("67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5148),
    ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
_KMNIST = _Family(
    "KMNIST",
    ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/", "https://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
    ("51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4", 18165135),
    ("e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17", 29497),
    ("edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5", 3041136),
    ("20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c", 5120),
    ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
)


@declares(gives={"images", "classes"})
def mnist(root: FilePath = "data", download: bool = True) -> RawData:
    """70 000 gray 28×28 images of handwritten digits, ten classes; downloaded (12 MB).

    Files: root/MNIST/raw/*-ubyte.gz, or the same unpacked.

    Use: the classic benchmark; a small CNN easily reaches 99 %.
    Defaults: the published test split of 10 000 images; val is cut from train.
    Paper: LeCun, Bottou, Bengio & Haffner 1998, Gradient-based learning applied to document recognition

    Args:
        root: folder of the downloaded files, in torchvision's layout
        download: fetch missing files, verified by SHA-256; false opens no connection
    """
    return _load(_MNIST, Path(root), download)


@declares(gives={"images", "classes"})
def fashion_mnist(root: FilePath = "data", download: bool = True) -> RawData:
    """70 000 gray 28×28 images of clothing, ten classes; downloaded (31 MB).

    Files: root/FashionMNIST/raw/*-ubyte.gz, or the same unpacked.

    Use: as large as MNIST and harder.
    Defaults: the published test split of 10 000 images; val is cut from train.
    Paper: Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747

    Args:
        root: folder of the downloaded files, in torchvision's layout
        download: fetch missing files, verified by SHA-256; false opens no connection
    """
    return _load(_FASHION_MNIST, Path(root), download)


@declares(gives={"images", "classes"})
def kmnist(root: FilePath = "data", download: bool = True) -> RawData:
    """70 000 gray 28×28 images of Kuzushiji characters, ten classes; downloaded (21 MB).

    Files: root/KMNIST/raw/*-ubyte.gz, or the same unpacked.

    Use: as large as MNIST and harder.
    Defaults: the published test split of 10 000 images; val is cut from train.
    Paper: Clanuwat et al. 2018, arXiv:1812.01718

    Args:
        root: folder of the downloaded files, in torchvision's layout
        download: fetch missing files, verified by SHA-256; false opens no connection
    """
    return _load(_KMNIST, Path(root), download)


def _load(family: _Family, root: Path, may_download: bool) -> RawData:
    folder = root / family.folder / "raw"
    paths = [_locate(file, folder, may_download) for file in family.files()]
    tensors = cache.decoded(root / family.folder, paths, lambda: _decode(paths))
    return RawData(
        inputs=tensors["images"],
        targets=tensors["labels"].long(),
        task="classification",
        class_names=family.class_names,
        split=given_splits(
            {TRAIN: int(tensors["train_size"]), TEST: len(tensors["labels"]) - int(tensors["train_size"])}
        ),
    )


def _locate(file: RemoteFile, folder: Path, may_download: bool) -> Path:
    """Return the file in the folder, packed or unpacked; download it where it is missing."""
    present = download.find(folder, (file.name.removesuffix(".gz"), file.name))
    if present:
        return present
    hint = f"or set dataset.root to the folder that holds {folder.parent.name}/raw"
    if not may_download:
        raise DataError(f"{file.name} is not in {folder}; set dataset.download=true, {hint}")
    return download.fetch(file, folder, hint)


def _decode(paths: list[Path]) -> dict[str, Tensor]:
    train_images, train_labels, test_images, test_labels = map(read_idx, paths)
    for images, labels, path in (
        (train_images, train_labels, paths[0]),
        (test_images, test_labels, paths[2]),
    ):
        if images.ndim != 3 or len(images) != len(labels):
            raise DataError(
                f"{path} holds {tuple(images.shape)} images for {len(labels)} labels; there must be one each: "
                "remove both files and let them be downloaded again"
            )
    return {
        "images": torch.cat((train_images, test_images))[:, None],
        "labels": torch.cat((train_labels, test_labels)),
        "train_size": torch.tensor(len(train_images)),
    }


def read_idx(path: Path) -> Tensor:
    """Return the uint8 tensor of a file in IDX form (LeCun): magic number, lengths of the axes, the bytes."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
            content = stream.read(_HEAD)
            axes, shape, size = _announced(content)
            # a few kilobytes of gzip can unpack to many gigabytes
            if size <= _MOST:
                content += stream.read(max(size + 1 - len(content), 0))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path} ({error}); remove it and let it be downloaded again") from error
    if axes == 0 or len(content) != size:
        raise DataError(
            f"{path} is not a whole file of images or labels (its {len(content)} bytes begin with "
            f"{content[:4].hex()}); remove it and let it be downloaded again"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 * (axes + 1)).copy()).view(shape)


def _announced(head: bytes) -> tuple[int, tuple[int, ...], int]:
    """Return the number of axes, their lengths and the file size that the header states; no axes for another format."""
    magic = int.from_bytes(head[:4], "big")
    axes = magic & 0xFF if magic in (_IMAGES, _LABELS) else 0
    shape = tuple(int.from_bytes(head[4 * i : 4 * i + 4], "big") for i in range(1, axes + 1))
    return axes, shape, 4 * (axes + 1) + math.prod(shape)
