"""Images in one folder for each class, read when they are needed."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dltrain.data.cache import decoded
from dltrain.data.errors import DataError, some
from dltrain.data.raw import SPLIT_NAMES, RawData
from dltrain.data.streaming import read_in_threads
from dltrain.declare import declares
from dltrain.ranges import Count, FilePath

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# detected by content: Pillow would pass a PostScript file named .png to ghostscript, which runs it
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# bytes of a cache file; a larger one would be an unexpected use of the disk
_CACHED_AT_MOST = 2 * 2**30
_MODES = {"rgb": "RGB", "grey": "L"}
# channels of each `color`
COLORS = {"rgb": 3, "grey": 1}


@declares(gives={"images", "classes"})
def image_folder(
    root: FilePath,
    size: Count | tuple[Count, Count] | None = None,
    color: Literal["rgb", "grey"] = "rgb",
    cache: bool = True,
) -> RawData:
    """Your images: ROOT/CLASS/*.jpg, or ROOT/train/CLASS, ROOT/val/CLASS and ROOT/test/CLASS.

    Images are uint8, (3, H, W) or (1, H, W). Raises DataError for a folder without images and, without `size`, for
    images of different sizes.

    Use: images on disk: decoded once, or streamed through `workers` when they are many.
    Defaults: folders named train, val and test are splits; missing val and test splits are cut from train.

    Args:
        root: folder that holds a folder for each class, or train, val and test with these
        size: side of a square, or [height, width], to which images are cropped around the center and scaled; null
            requires all images to have the size of the first
        color: three channels or one
        cache: keep the decoded images in ROOT/.dltrain-cache-*.pt where they take at most 2 GiB
    """
    wanted = None if size is None else (size, size) if isinstance(size, int) else (size[0], size[1])
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"dataset.root is {root}, which is not a folder; set it to the folder that holds the images"
        )
    parts = [name for name in SPLIT_NAMES if (folder / name).is_dir()]
    if parts and "train" not in parts:
        raise DataError(
            f"{folder} holds {some(parts)} but no train; name the folder with the training images train"
        )
    found = list(_found(folder, parts))
    if not found:
        raise DataError(
            f"no image in {folder}; put them at {folder}/CLASS/NAME.jpg or {folder}/train/CLASS/NAME.jpg "
            f"(endings read: {' '.join(ENDINGS)})"
        )
    raw = _raw(folder, found, bool(parts), wanted, color)
    return _decoded_once(raw, folder) if cache else raw


def _decoded_once(raw: RawData, folder: Path) -> RawData:
    """Return the same data with all images in one tensor mapped from a file, unless that would be too large."""
    reader = raw.inputs
    assert isinstance(reader, ImageFiles)
    if len(reader) * math.prod(reader.shape) > _CACHED_AT_MOST:
        return raw
    sources = [Path(reader.path(index)) for index in range(len(reader))]
    path = folder / f".dltrain-cache-{'x'.join(map(str, reader.shape))}.pt"
    everything = torch.arange(len(reader))
    tensors = decoded(path, sources, lambda: {"images": read_in_threads(reader, everything, threads=0)})
    return replace(raw, inputs=tensors["images"])


def _raw(
    folder: Path, found: list[tuple[int, str, str]], split: bool, wanted: tuple[int, int] | None, color: str
) -> RawData:
    class_names = sorted({class_name for _, class_name, _ in found})
    number = {name: i for i, name in enumerate(class_names)}
    paths = np.array([os.fsencode(path) for _, _, path in found])
    height, width = wanted or _size_of_first(folder / found[0][2])
    reader = ImageFiles(str(folder), paths, height, width, color, resize=wanted is not None)
    return RawData(
        inputs=reader,
        targets=torch.tensor([number[name] for _, name, _ in found]),
        task="classification",
        class_names=tuple(class_names),
        split=torch.tensor([part for part, _, _ in found], dtype=torch.int8) if split else None,
        describe=reader.path,
        resized=reader.resize,
    )


def _found(folder: Path, parts: list[str]) -> Iterator[tuple[int, str, str]]:
    """Yield (split, class, path below the folder) of every image, in the order of their names."""
    for part in parts or [""]:
        for class_folder in sorted(path for path in (folder / part).iterdir() if path.is_dir()):
            if class_folder.name.startswith("."):
                continue
            for path in images_below(str(class_folder)):
                yield SPLIT_NAMES.index(part) if part else 0, class_folder.name, os.path.relpath(path, folder)


def images_below(folder: str) -> Iterator[str]:
    """Yield the image files below a folder, in the order of their names."""
    for here, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(here, name)
            # regular files only: reading a pipe would block
            if name.lower().endswith(ENDINGS) and not name.startswith(".") and os.path.isfile(path):
                yield path


def _size_of_first(path: Path) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(path, formats=_FORMATS) as image:
            return image.height, image.width
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path | str, error: Exception) -> DataError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(f"cannot read the image {path} ({reason}); replace it or take it out of the folder")


class ImageFiles:
    """A `Reader` of image files. It keeps their paths in one array, which worker processes share without copies."""

    def __init__(
        self,
        folder: str,
        paths: NDArray[np.bytes_],
        height: int,
        width: int,
        color: str,
        resize: bool,
        rule: str = "",
    ) -> None:
        """paths: (N,) below the folder, in the file system's encoding; rule: why images must have this size, and the cure."""
        self.folder, self.paths, self.resize = folder, paths, resize
        self.rule = rule or (
            f"but the first one is {width} and {height}; set dataset.size=[{height},{width}] to bring all to one size"
        )
        self.mode = _MODES[color]
        self.shape = (COLORS[color], height, width)

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> str:
        """Return the file of one sample."""
        return os.path.join(self.folder, os.fsdecode(bytes(self.paths[index])))

    def read(self, indices: Tensor) -> Tensor:
        """Return uint8 images (B, C, H, W). Raises DataError naming the file that cannot be read."""
        channels, height, width = self.shape
        images = np.empty((len(indices), height, width, channels), np.uint8)
        for image, index in zip(images, indices.tolist(), strict=True):
            image[:] = self._pixels(self.path(index))
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    def _pixels(self, path: str) -> NDArray[np.uint8]:
        from PIL import Image, ImageOps

        channels, height, width = self.shape
        try:
            with Image.open(path, formats=_FORMATS) as file:
                if self.resize:
                    # a JPEG can be decoded at a fraction of its size: up to 8 times faster for photographs
                    file.draft(self.mode, (2 * width, 2 * height))
                image = file.convert(self.mode)
            if self.resize and image.size != (width, height):
                image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(image)
        # PIL raises many kinds of exceptions: unidentified, truncated, too large, broken chunks
        except Exception as error:
            raise _unreadable(path, error) from error
        if pixels.shape[:2] != (height, width):
            raise DataError(
                f"the image {path} is {pixels.shape[1]} wide and {pixels.shape[0]} high, {self.rule}"
            )
        return pixels.reshape(height, width, channels)
