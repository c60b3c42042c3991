"""Image files that cannot be used and are left out, where `dataset.broken=skip` asks for that."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from dltrain.data import cache
from dltrain.data.errors import BrokenSamples, some
from dltrain.data.image_files import CURE, ImageFiles
from dltrain.data.pixels import OtherSize, Unusable, read_pixels
from dltrain.data.raw import RawData
from dltrain.data.streaming import in_threads
from dltrain.strict_json import loads

# files that a line names
_NAMED = 10


def without_unusable(
    reader: ImageFiles, images: Sequence[tuple[str, os.stat_result]], raw: RawData, cached: bool
) -> tuple[list[tuple[str, os.stat_result]], RawData]:
    """Return the images that can be used, and their targets and splits. Raises BrokenSamples where none is left.

    images: path below the folder and state of each image of the reader; raw: its inputs are not used
    """
    reasons = unusable(reader, images, cached)
    if len(reasons) == len(images):
        broken = [(reader.path(i), reason) for i, reason in reasons.items()]
        raise BrokenSamples(broken, CURE, len(images))
    if not reasons:
        return list(images), raw
    kept = [i for i in range(len(images)) if i not in reasons]
    skipped = {images[i][0]: reason for i, reason in reasons.items()}
    raw = replace(
        raw,
        targets=raw.targets[kept],
        split=None if raw.split is None else raw.split[kept],
        groups=None if raw.groups is None else raw.groups[kept],
        skipped=skipped,
        notes=(*raw.notes, skipped_note(skipped, len(images))),
    )
    return [images[i] for i in kept], raw


def unusable(
    reader: ImageFiles, states: Sequence[tuple[str, os.stat_result]], cached: bool
) -> dict[int, str]:
    """Return the positions of the images that cannot be used, and why; images of another size are not among them.

    Every file is decoded, with a cache once for the same files. states: by which the cache was made.
    """
    key, path = cache.key_of(states), cache.place(Path(reader.folder), f"{reader.form} unusable")
    known = _read(path, key) if cached else None
    if known is None:
        known = list(chain.from_iterable(in_threads(_Unusable(reader), torch.arange(len(reader)))))
        content = json.dumps([key, known]).encode()
        if cached:
            cache.write(path, lambda stream: stream.write(content))
    return dict(known)


class _Unusable:
    """Decodes images, and returns the positions and reasons of those that cannot be used."""

    def __init__(self, reader: ImageFiles) -> None:
        self.reader = reader

    def __call__(self, indices: Tensor) -> list[tuple[int, str]]:
        found = []
        for index in indices.tolist():
            try:
                read_pixels(self.reader.path(index), self.reader.form)
            except OtherSize:
                continue
            except Unusable as error:
                found.append((index, str(error)))
        return found


def _read(path: Path, key: str) -> list[tuple[int, str]] | None:
    """Return the content of a cache file, None where it is missing, damaged, or made from other files."""
    descriptor = cache.open_regular(path)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        try:
            made_from, found = loads(stream.read())
            return [(int(index), str(reason)) for index, reason in found] if made_from == key else None
        except (ValueError, TypeError):
            return None


def skipped_note(skipped: Mapping[str, str], total: int) -> str:
    """Return the line on the images that are left out: how many, and the first of them."""
    named = some((f"{name} ({reason})" for name, reason in skipped.items()), _NAMED)
    return f"skipped  {len(skipped):,} of {total:,} images cannot be used: {named}"
