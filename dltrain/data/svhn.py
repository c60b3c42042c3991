"""Street View House Numbers, from its MATLAB files."""

from __future__ import annotations

import hashlib
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

_MIRRORS = ("http://ufldl.stanford.edu/housenumbers/", "https://ufldl.stanford.edu/housenumbers/")
_TRAIN = RemoteFile(
    "train_32x32.mat", "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8", 182040794, _MIRRORS
)
_TEST = RemoteFile(
    "test_32x32.mat", "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b", 64275384, _MIRRORS
)


@declares(gives={"images", "classes"})
def svhn(root: FilePath = "data", download: bool = True) -> RawData:
    """99 289 color 32×32 images of house number digits; downloaded (246 MB); needs scipy.

    Files: root/train_32x32.mat and root/test_32x32.mat.

    Use: digits in natural images.
    Defaults: the published test split of 26 032 images; val is cut from train.
    Paper: Netzer et al. 2011, Reading digits in natural images with unsupervised feature learning

    Args:
        root: folder of the downloaded files, in torchvision's layout
        download: fetch missing files, verified by SHA-256; false opens no connection
    """
    folder = Path(root)
    paths = [_locate(file, folder, download) for file in (_TRAIN, _TEST)]
    tensors = cache.decoded(folder / "svhn", paths, lambda: _decode(paths))
    train_size = int(tensors["train_size"])
    return RawData(
        inputs=tensors["images"],
        targets=tensors["labels"].long(),
        task="classification",
        class_names=tuple("0123456789"),
        split=given_splits({TRAIN: train_size, TEST: len(tensors["labels"]) - train_size}),
    )


def _locate(file: RemoteFile, folder: Path, may_download: bool) -> Path:
    present = download.find(folder, (file.name,))
    if present:
        return present
    hint = f"or set dataset.root to the folder that holds {file.name}"
    if not may_download:
        raise DataError(f"{file.name} is not in {folder}; set dataset.download=true, {hint}")
    return download.fetch(file, folder, hint)


def _decode(paths: list[Path]) -> dict[str, Tensor]:
    train, test = map(_read, paths, (_TRAIN, _TEST))
    return {
        "images": torch.cat((train[0], test[0])),
        "labels": torch.cat((train[1], test[1])),
        "train_size": torch.tensor(len(train[1])),
    }


def _read(path: Path, file: RemoteFile) -> tuple[Tensor, Tensor]:
    """Return images (N, 3, 32, 32) and labels (N,) as uint8; the files store the digit 0 as 10. Raises DataError for other files."""
    from scipy.io import loadmat

    # scipy's reader is not made for files of others: a damaged one can end the process
    with open(path, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != file.sha256:
        raise DataError(
            f"{path} is not the published file (its SHA-256 is {found[:16]}… in place of {file.sha256[:16]}…); remove it and let it "
            "be downloaded again"
        )
    content = loadmat(path)
    images, labels = content["X"], content["y"].reshape(-1)
    return (
        torch.from_numpy(np.ascontiguousarray(images.transpose(3, 2, 0, 1))),
        torch.from_numpy((labels % 10).astype(np.uint8)),
    )
