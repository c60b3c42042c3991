"""Image files: finding them below a folder, reading them, and keeping them decoded."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dltrain.data import cache
from dltrain.data.errors import BrokenSamples, DataError, some
from dltrain.data.pixels import (
    ENDINGS,
    TRAITS,
    Form,
    OtherSize,
    Trait,
    Unusable,
    inspect_pixels,
    read_pixels,
    trait_text,
    upright_size,
)
from dltrain.data.raw import Places
from dltrain.data.streaming import in_threads
from dltrain.processors import cores
from dltrain.text import counted

CURE = "take broken images out of the folder, or replace them"
# files whose sizes are looked at before all are decoded
LOOKED_AT = 64
# folders inside each other, and ways to one folder by links: a small archive may hold links by which the ways double at each level
MAX_NESTED, MAX_WAYS = 100, 100
# names of folders and files that systems leave beside the user's
_LITTER = frozenset({"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "$recycle.bin"})


# Finding ----------------------------------------------------------------------------------------------------------


def names_and_sizes(images: Sequence[tuple[str, os.stat_result]]) -> str:
    """Return 16 hexadecimal digits of a hash of the paths and sizes of files, in their order; a copy of the files has the same."""
    digest = hashlib.sha256()
    for path, state in images:
        digest.update(os.fsencode(path) + f"\0{state.st_size}\n".encode())
    return digest.hexdigest()[:16]


@dataclass
class Found:
    """Image files below a folder by name, in the order of their names, and what else is there.

    images: path below the folder and state of each file. folders: paths of all folders. others: paths of files that are no
    images. hidden: how many files and folders are hidden, or litter of the system.
    """

    images: list[tuple[str, os.stat_result]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    hidden: int = 0
    _ways: Counter[tuple[int, int]] = field(default_factory=Counter)

    @classmethod
    def below(cls, folder: str | Path) -> Found:
        found = cls()
        try:
            # nor is a link followed to a folder above, which may hold all files of the machine
            found._enter(os.fspath(folder), "", set(map(identity, Path(os.path.realpath(folder)).parents)))
        except OSError as error:
            raise DataError(f"cannot list {error.filename} ({error.strerror}); make it readable") from error
        return found

    def _enter(self, folder: str, prefix: str, entered: set[tuple[int, int]]) -> None:
        # a link to a folder above would have no end
        if (own := identity(folder)) in entered:
            return
        self._check_ways(folder, prefix, own)
        entered = entered | {own}
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        folders = []
        for entry in listed:
            if is_hidden(entry.name):
                self.hidden += 1
            elif entry.is_dir():
                folders.append(entry)
            # regular files only: reading a pipe would block
            elif entry.name.lower().endswith(ENDINGS) and entry.is_file():
                self.images.append((prefix + entry.name, entry.stat()))
            else:
                self.others.append(prefix + entry.name)
        for entry in folders:
            self.folders.append(prefix + entry.name)
            self._enter(entry.path, f"{prefix}{entry.name}/", entered)

    def _check_ways(self, folder: str, prefix: str, own: tuple[int, int]) -> None:
        """Raise DataError for folders that are nested too deep, or reached by too many links."""
        top = folder[: len(folder) - len(prefix)] or folder
        if prefix.count("/") > MAX_NESTED:
            raise DataError(
                f"{top} has folders inside each other that are more than {MAX_NESTED} deep, below {prefix[:40]}; move the images up"
            )
        self._ways[own] += 1
        if self._ways[own] > MAX_WAYS:
            raise DataError(
                f"{folder} is reached in more than {MAX_WAYS} ways by links; remove links, which this lists: find {shlex.quote(top)} -type l"
            )

    def unused(self) -> list[str]:
        """Return what is not used, as parts of a line."""
        found = [
            f"{counted(len(self.others), 'file that is no image', 'files that are no images')} ({some(self.others, 3)})"
        ] * bool(self.others)
        return found + [counted(self.hidden, "hidden file or folder", "hidden files and folders")] * bool(
            self.hidden
        )


def identity(folder: str | Path) -> tuple[int, int]:
    """Return what two names of the same folder share."""
    state = os.stat(folder)
    return state.st_dev, state.st_ino


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or was left by the system."""
    return name.startswith(".") or name.lower() in _LITTER


# Reading ----------------------------------------------------------------------------------------------------------


class ImageFiles:
    """A `Reader` of image files. It keeps their paths in one array, which worker processes share without copies."""

    def __init__(
        self,
        folder: str,
        paths: Sequence[str] | NDArray[np.bytes_],
        form: Form,
        rule: str = "",
        cure: str = CURE,
    ) -> None:
        """paths: (N,) below the folder; rule: why images must have the size of the form, and the cure; cure: of broken images."""
        self.folder, self.form, self.cure = folder, form, cure
        self.paths = np.array([os.fsencode(path) for path in paths])
        self.rule = rule or (
            f"the first one is {form.width} wide and {form.height} high; bring all to one size: "
            f"dataset.image_size=[{form.height},{form.width}]"
        )
        self.shape = form.shape

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> str:
        """Return the file of one sample."""
        return os.path.join(self.folder, os.fsdecode(bytes(self.paths[index])))

    def locate(self, positions: Tensor) -> Places:
        """Return the files (M,) of samples."""
        return Places(np.array([self.path(i) for i in positions.tolist()], object))

    def read(self, indices: Tensor) -> Tensor:
        """Return uint8 images (B, C, H, W). Raises BrokenSamples naming the files that cannot be read."""
        return torch.from_numpy(self.records(indices)["image"]).contiguous()

    def records(self, indices: Tensor) -> NDArray[Any]:
        """Return images (B,) with their traits and hashes, of the type `record_type`. Raises as `read`."""
        found = np.empty(len(indices), record_type(self.shape))
        broken: list[tuple[str, Unusable]] = []
        for record, index in zip(found, indices.tolist(), strict=True):
            path = self.path(index)
            try:
                pixels, record["traits"] = read_pixels(path, self.form)
            except Unusable as error:
                broken.append((path, error))
                continue
            record["image"] = pixels.transpose(2, 0, 1)
            record["hash"] = int.from_bytes(hashlib.blake2b(pixels.data, digest_size=8).digest(), "little")
        if broken:
            raise self._unusable(broken)
        return found

    def inspect(self, indices: Tensor) -> None:
        """Look at images without decoding those that seem sound. Raises as `read`."""
        broken: list[tuple[str, Unusable]] = []
        for index in indices.tolist():
            try:
                inspect_pixels(self.path(index), self.form)
            except Unusable as error:
                broken.append((self.path(index), error))
        if broken:
            raise self._unusable(broken)

    def _unusable(self, broken: Sequence[tuple[str, Unusable]]) -> BrokenSamples:
        cures = dict.fromkeys(self.rule if isinstance(error, OtherSize) else self.cure for _, error in broken)
        return BrokenSamples([(path, str(error)) for path, error in broken], "; ".join(cures))


def record_type(shape: tuple[int, ...]) -> np.dtype[Any]:
    return np.dtype([("image", "u1", shape), ("hash", "<u8"), ("traits", "<u2")])


def common_size(folder: Path, paths: Sequence[str]) -> tuple[int, int]:
    """Return height and width of the images, as found in a sample of them.

    Raises DataError where these have several sizes, BrokenSamples where all of them are broken.
    """
    looked_at = [
        str(folder / paths[i]) for i in dict.fromkeys(np.linspace(0, len(paths) - 1, LOOKED_AT, dtype=int))
    ]
    with ThreadPoolExecutor(cores()) as pool:
        answers = list(pool.map(_size_or_reason, looked_at))
    sizes = Counter(size for size in answers if not isinstance(size, Unusable))
    if not sizes:
        reasons = [(path, str(answer)) for path, answer in zip(looked_at, answers, strict=True)]
        raise BrokenSamples(reasons, CURE, len(paths))
    (width, height), _ = sizes.most_common(1)[0]
    if len(sizes) == 1:
        return height, width
    listed = some((f"{w}×{h} ({count})" for (w, h), count in sizes.most_common()), 4)
    raise DataError(
        f"{folder} holds images of several sizes (width × height; of {len(answers)} looked at): {listed}; "
        f"bring all to one: dataset.image_size={min(224, height, width)} for a square, or "
        f"dataset.image_size=[{height},{width}] for height and width"
    )


def _size_or_reason(path: str) -> tuple[int, int] | Unusable:
    try:
        return upright_size(path)
    except Unusable as error:
        return error


# Decoded once -----------------------------------------------------------------------------------------------------


def decoded_records(reader: ImageFiles, states: Sequence[tuple[str, os.stat_result]]) -> NDArray[Any] | None:
    """Return the records (N,) of all images, mapped from a cache file.

    None where they take too much, or the cache cannot be written; then all files are looked at without decoding them, in the
    first case once for the same files. states: by which the cache was made. Raises BrokenSamples for all files that cannot be
    read.
    """
    key, path = cache.key_of(states), cache.place(Path(reader.folder), str(reader.form))
    if len(reader) * record_type(reader.shape).itemsize > cache.MOST_BYTES:
        if _looked_at(path) != key:
            look_at_all(reader)
            cache.write(path, lambda stream: stream.write(key.encode()))
        return None
    found = _mapped(path, reader, key)
    if found is not None:
        return found
    if cache.write(path, lambda stream: _write(stream, reader, key)):
        return _mapped(path, reader, key)
    look_at_all(reader)
    return None


def look_at_all(reader: ImageFiles) -> None:
    """Raise BrokenSamples for all files that cannot be read, as found without decoding them."""
    for _ in in_threads(reader.inspect, torch.arange(len(reader))):
        pass


def _looked_at(path: Path) -> str:
    descriptor = cache.open_regular(path)
    if descriptor is None:
        return ""
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read(65).decode("ascii", "replace")


def _write(stream: Any, reader: ImageFiles, key: str) -> None:
    """Write an array file (NumPy's .npy), and behind it the key and a digest of all before."""
    record = record_type(reader.shape)
    header = {"descr": np.lib.format.dtype_to_descr(record), "fortran_order": False, "shape": (len(reader),)}
    np.lib.format.write_array_header_2_0(stream, header)
    digest = hashlib.sha256(key.encode())
    for part in in_threads(reader.records, torch.arange(len(reader))):
        digest.update(part.view(np.uint8).data)
        stream.write(part.view(np.uint8).data)
    stream.write((key + digest.hexdigest()).encode())


def _mapped(path: Path, reader: ImageFiles, key: str) -> NDArray[Any] | None:
    """Return the records of a cache file, None where it is missing, damaged, or made from other files."""
    descriptor = cache.open_regular(path)
    if descriptor is None:
        return None
    try:
        with os.fdopen(descriptor, "rb") as stream:
            if np.lib.format.read_magic(stream) != (2, 0):
                return None
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
            if shape != (len(reader),) or dtype != record_type(reader.shape):
                return None
            begin = stream.tell()
            # copy on write: nobody writes, but torch wants to be able to
            records = np.memmap(stream, dtype, "c", begin, shape)
            stream.seek(begin + records.nbytes)
            end = stream.read(129).decode("ascii", "replace")
    # numpy raises many kinds of exceptions for a damaged header, those of Python's tokenizer among them
    except Exception:
        return None
    if end[:64] != key:
        return None
    digest = hashlib.sha256(key.encode())
    digest.update(records.view(np.uint8).data)
    if end[64:] != digest.hexdigest():
        return None
    with suppress(OSError):
        # the time of use, by which old caches are removed
        os.utime(path)
    return records


def traits_note(records: NDArray[Any], white: int) -> list[str]:
    """Return how many images have each trait, as parts of a line."""
    counts = {trait: int(((records["traits"] & trait) != 0).sum()) for trait in TRAITS}
    return [f"{count:,} {trait_text(trait, white)}" for trait, count in counts.items() if count]


def has_trait(records: NDArray[Any], trait: Trait) -> bool:
    return bool((records["traits"] & trait).any())


def copies(records: NDArray[Any], split: NDArray[np.int8]) -> dict[tuple[int, int], int]:
    """Return how many images of a later split are also in an earlier one, by both."""
    hashes: list[set[int]] = [set(records["hash"][split == part].tolist()) for part in range(3)]
    pairs = ((0, 1), (0, 2), (1, 2))
    found = {(a, b): len(hashes[a] & hashes[b]) for a, b in pairs}
    return {pair: count for pair, count in found.items() if count}
