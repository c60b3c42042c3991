"""Images in one folder for each class, or listed in a table of labels.

The file is long because each layout of folders has its own checks and error messages.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dltrain.data.errors import DataError, some
from dltrain.data.gray_levels import levels_note
from dltrain.data.image_files import (
    CURE,
    Found,
    ImageFiles,
    common_size,
    copies,
    decoded_records,
    has_trait,
    is_hidden,
    look_at_all,
    names_and_sizes,
    traits_note,
)
from dltrain.data.pixels import ENDINGS, MAX_PIXELS, RESIZES, WHITE, Form, Resize, Trait
from dltrain.data.raw import SPLIT_WORDS, RawData
from dltrain.data.skipped import without_unusable
from dltrain.data.split_names import SPLIT_NAMES
from dltrain.data.tables.cures import value
from dltrain.declare import declares
from dltrain.errors import nearest_path
from dltrain.ranges import Count, FilePath
from dltrain.text import counted

# `Training`, `train_set`, `val-images`
_SPLIT_NAME = re.compile(rf"({'|'.join(SPLIT_WORDS)})([ _-]?(set|data|images|split))?", re.IGNORECASE)


@declares(
    gives={
        "images",
        "classes unless labels",
        "classes if task=classification",
        "quantities if task=regression",
    }
)
def image_folder(
    root: FilePath,
    image_size: Count | tuple[Count, Count] | None = None,
    resize: Resize = "crop",
    color: Literal["rgb", "grey"] = "rgb",
    labels: FilePath | None = None,
    file_column: str | None = None,
    target: str | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    task: Literal["classification", "regression", "auto"] = "auto",
    merge_case: bool = True,
    target_scale: Literal["unit", "none"] = "unit",
    broken: Literal["refuse", "skip"] = "refuse",
    full_scale: Annotated[int, "in [1, 65535]"] = WHITE,
    cache: bool = True,
) -> RawData:
    """Your images: ROOT/CLASS/*.jpg, ROOT/train/CLASS and ROOT/test/CLASS, or a table of labels.

    Images are uint8, (3, H, W) or (1, H, W), upright as EXIF says, on white where they are transparent, of 8 bits. Raises
    DataError naming the images that cannot be read so. See docs/images.md.

    Use: images on disk: decoded once, or streamed through `workers` when they are many.
    Defaults: folders named train, val and test, or Training, valid, testing …, are splits; missing val and test splits are cut
    from train.

    Args:
        root: folder that holds a folder for each class, or train, val and test with these
        image_size: side of a square, or [height, width], to which all images are brought; null requires all to have the
            same size
        resize: crop what is beyond the form around the center, then scale; stretch; or scale until it fits, then pad with
            black; bilinear with antialiasing
        color: three channels or one
        labels: table of file names and labels, instead of class folders
        file_column: column of `labels` with the file names; null finds it by the names of the files
        target: column of `labels` to predict; null takes the only one that is left, or one named label or class
        split_column: column of `labels` that holds train, val or test; null finds it by these words
        group_column: column of `labels`; images with equal values here, such as of one patient, stay in one split
        task: of `labels`; auto takes text, two values and 0 or 1 to at most 10 as classes
        merge_case: of `labels`; texts that differ in upper and lower case only are one class
        target_scale: of `labels`; unit lets a regression learn targets of mean 0 and variance 1, and reports the real units; none leaves
            them as they are
        broken: refuse to train where an image cannot be used, or skip these images: they are listed, and kept in data.json
        full_scale: value that is white in images of 16 bits: 4095 of scans of 12 bits, or most of the 256 gray levels are lost
        cache: keep the decoded images in the cache folder (docs/images.md) where they take at most 2 GiB
    """
    folder = Path(os.path.expanduser(root))
    if not folder.is_dir():
        raise DataError(
            f"dataset.root is {root}, which is not a folder; set it to the folder that holds the images."
            + nearest_path(folder)
        )
    if resize not in RESIZES:
        raise DataError(f"dataset.resize is {resize!r}; it must be {' or '.join(RESIZES)}")
    wanted = (image_size, image_size) if isinstance(image_size, int) else image_size
    _check_size(wanted, resize)
    found = Found.below(folder)
    columns = {
        "file_column": file_column,
        "target": target,
        "split_column": split_column,
        "group_column": group_column,
    }
    if labels is None:
        _refuse_without_labels(
            {
                **columns,
                "task": None if task == "auto" else task,
                "merge_case": None if merge_case else "false",
            }
        )
        listed = _by_folders(folder, found)
    else:
        listed = _by_labels(folder, found, Path(os.path.expanduser(labels)), columns, task, merge_case)
        if listed.raw.task == "regression":
            listed = replace(listed, raw=replace(listed.raw, target_scale=target_scale))
    height, width = wanted or common_size(folder, [path for path, _ in listed.images])
    form = Form(height, width, color, resize if wanted is not None else "", full_scale)
    reader = _reader(folder, listed, form)
    if broken == "skip":
        images, kept = without_unusable(reader, listed.images, listed.raw, cache)
        listed = replace(listed, images=images, raw=kept)
        reader = _reader(folder, listed, form)
    raw = replace(
        listed.raw,
        inputs=reader,
        describe=reader.path,
        locate=reader.locate,
        resize=reader.form.resize,
        full_scale=full_scale,
        files=names_and_sizes(listed.images),
    )
    return _described(raw, reader, listed, found, cache)


def _check_size(size: tuple[int, int] | None, resize: str) -> None:
    """Raise DataError for a size that no image may have, and for a way of resizing without a size."""
    if size is None and resize != "crop":
        raise DataError(
            f"dataset.resize={resize} has no effect without a size; add one, such as dataset.image_size=224, or leave "
            "dataset.resize out"
        )
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise DataError(
            f"dataset.image_size is {size[0]} high and {size[1]} wide, more than {MAX_PIXELS:,} pixels; choose a smaller one, "
            "such as dataset.image_size=224"
        )


@dataclass(frozen=True)
class _Listed:
    """Images with their targets, in one order; raw: without its inputs. unused: parts of a line."""

    images: list[tuple[str, os.stat_result]]
    raw: RawData
    unused: list[str]


def _reader(folder: Path, listed: _Listed, form: Form) -> ImageFiles:
    cure = f"{CURE}; or leave them out: dataset.broken=skip"
    return ImageFiles(str(folder), [path for path, _ in listed.images], form, cure=cure)


def _described(raw: RawData, reader: ImageFiles, listed: _Listed, found: Found, cache: bool) -> RawData:
    """Return the data with what was inferred, and with decoded images where they may be cached."""
    form = reader.form
    colors = "RGB" if form.color == "rgb" else "gray"
    facts = [f"{len(reader):,}", f"{form.width}×{form.height} {colors}"]
    if form.resize:
        facts[1] = f"{RESIZES[form.resize]} to {facts[1]}"
    if not cache:
        look_at_all(reader)
    records = decoded_records(reader, listed.images) if cache else None
    warnings = levels_note(reader)
    if records is not None:
        raw = replace(raw, inputs=torch.from_numpy(records["image"]))
        facts += traits_note(records, form.white)
        if form.white != WHITE and not has_trait(records, Trait.DEEP):
            raw = replace(raw, unused={"full_scale": "no image has one channel of 16 bits"})
        warnings += _copies_note(raw, records)
    unused = [*listed.unused, *found.unused()]
    notes = (f"images   {' · '.join(facts)}", *warnings, *raw.notes)
    return replace(raw, notes=(*notes, f"unused   {', '.join(unused)}") if unused else notes)


def _copies_note(raw: RawData, records: NDArray[np.void]) -> list[str]:
    if raw.split is None:
        return []
    split = raw.split.numpy()
    pairs = []
    for (first, second), count in copies(records, split).items():
        again = np.isin(records["hash"], records["hash"][split == first]) & (split == second)
        names = some((raw.describe(place) for place in np.flatnonzero(again).tolist()), 3)
        pairs.append(f"{count:,} in {SPLIT_NAMES[first]} and {SPLIT_NAMES[second]} ({names})")
    listed = ", ".join(pairs)
    return [f"copies   equal images in two splits: {listed}"] if listed else []


# Folders ----------------------------------------------------------------------------------------------------------


def _by_folders(folder: Path, found: Found) -> _Listed:
    """Read split and class off the folders of each image."""
    splits = _split_folders(folder)
    placed: list[tuple[int, str, tuple[str, os.stat_result]]] = []
    loose = Counter[str]()
    for item in found.images:
        first, *rest = item[0].split("/")
        names = rest[:-1] if splits else [first] * bool(rest)
        if names and (not splits or first in splits):
            placed.append((splits.get(first, 0), names[0], item))
        else:
            loose[f"in {first}" if splits and rest else "in no class folder"] += 1
    _check_classes(folder, found, splits, [(split, name) for split, name, _ in placed])
    # splits in their order, whatever their folders are called
    placed.sort(key=lambda item: item[0])
    classes = sorted({name for _, name, _ in placed})
    number = {name: i for i, name in enumerate(classes)}
    empty = _class_folders(found, splits) - {(split, name) for split, name, _ in placed}
    unused = [f"{counted(count, 'image')} {where}" for where, count in loose.items()]
    unused += [f"folders without an image ({some(sorted({name for _, name in empty}))})"] * bool(empty)
    raw = RawData(
        inputs=torch.empty(0),
        targets=torch.tensor([number[name] for _, name, _ in placed]),
        task="classification",
        class_names=tuple(classes),
        split=torch.tensor([split for split, _, _ in placed], dtype=torch.int8) if splits else None,
        notes=(f"splits   {_named(splits)}",) if splits else (),
    )
    return _Listed([item for _, _, item in placed], raw, unused)


def _named(splits: dict[str, int]) -> str:
    return ", ".join(
        f"{SPLIT_NAMES[split]} from {name}" for name, split in sorted(splits.items(), key=lambda s: s[1])
    )


def _split_folders(folder: Path) -> dict[str, int]:
    """Return the folders that are splits by their names. Raises DataError where two are the same split, or none is train."""
    splits: dict[str, int] = {}
    for name in sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)):
        match = _SPLIT_NAME.fullmatch(name.strip())
        if match is None:
            continue
        split = SPLIT_WORDS[match[1].lower()]
        if split in splits.values():
            other = next(key for key, known in splits.items() if known == split)
            raise DataError(
                f"{folder} holds {other} and {name}, which both mean {SPLIT_NAMES[split]}; join them, or rename one"
            )
        splits[name] = split
    if splits and 0 not in splits.values():
        raise DataError(
            f"{folder} holds {some(splits)} but no train; name the folder with the training images train, or, where "
            f"{next(iter(splits))} is a class, move all class folders into {folder}/train"
        )
    return splits


def _class_folders(found: Found, splits: dict[str, int]) -> set[tuple[int, str]]:
    parts = [path.split("/") for path in found.folders]
    if not splits:
        return {(0, names[0]) for names in parts if len(names) == 1}
    return {(splits[names[0]], names[1]) for names in parts if len(names) == 2 and names[0] in splits}


def _check_classes(
    folder: Path, found: Found, splits: dict[str, int], placed: Sequence[tuple[int, str]]
) -> None:
    """Raise DataError where there are no images in class folders, a single class, or classes without training images."""
    if not placed:
        raise _no_images(folder, found, splits)
    classes = {name for _, name in placed}
    known = {name for split, name in placed if split == 0}
    if unknown := sorted(classes - known):
        raise DataError(
            f"{folder} has images of {some(map(repr, unknown))} in {_named({n: s for n, s in splits.items() if s})} but none in "
            "train; correct the names of the folders, or take them out"
        )
    if len(classes) == 1 and not splits:
        only = folder / next(iter(classes))
        inner = [path for path in only.iterdir() if path.is_dir() and not is_hidden(path.name)]
        cure = (
            f"the classes may be one folder deeper: {value('root', str(only))}"
            if inner
            else "add a second one"
        )
        cure += f"; or give a table of file names and labels: {_table(folder, found)}"
        raise DataError(
            f"{folder} holds one class folder, {only.name}, and a classification needs two; {cure}"
        )


def _table(folder: Path, found: Found) -> str:
    """Return the override that names a table among the images, or a placeholder."""
    tables = [name for name in found.others if name.lower().endswith((".csv", ".tsv"))]
    return value("labels", str(folder / tables[0]) if tables else "LABELS.csv")


def _no_images(folder: Path, found: Found, splits: dict[str, int]) -> DataError:
    below = (
        f"{folder}/train/CLASS/NAME.jpg"
        if splits
        else f"{folder}/CLASS/NAME.jpg or {folder}/train/CLASS/NAME.jpg"
    )
    if found.images:
        return DataError(
            f"{folder} holds {len(found.images):,} images, but in no class folder; put them at {below}, or give a table of file "
            f"names and labels: {_table(folder, found)}"
        )
    return DataError(f"no image in {folder}; put them at {below} (endings read: {' '.join(ENDINGS)})")


# A table of labels ------------------------------------------------------------------------------------------------


def _refuse_without_labels(given: dict[str, str | None]) -> None:
    for key, choice in given.items():
        if choice is not None:
            raise DataError(
                f"dataset.{key} is {choice}, which is a key of a table of labels; name the table with dataset.labels=FILE.csv, or leave "
                f"dataset.{key} out"
            )


def _by_labels(
    folder: Path, found: Found, table: Path, columns: dict[str, str | None], task: str, merge_case: bool
) -> _Listed:
    from dltrain.data.image_labels import read_labels

    if not found.images:
        raise DataError(f"no image in {folder} (endings read: {' '.join(ENDINGS)})")
    labels = read_labels(table, folder, [path for path, _ in found.images], columns, task, merge_case)
    targets = labels.targets
    split, note = (
        _folders_of([found.images[i][0] for i in labels.images])
        if labels.split is None
        else (labels.split, "")
    )
    raw = RawData(
        inputs=torch.empty(0),
        targets=targets.values[torch.from_numpy(labels.rows)],
        task=targets.task,
        class_names=targets.class_names,
        split=None if split is None else torch.from_numpy(split),
        groups=None if labels.groups is None else torch.from_numpy(labels.groups),
        target_rules=labels.rules,
        target_scale="unit" if targets.task == "regression" else "none",
        notes=(*labels.notes, note) if note else labels.notes,
    )
    # the table itself may lie among the images; a link to nowhere has a real path, too
    itself = os.path.realpath(table)
    found.others = [name for name in found.others if os.path.realpath(folder / name) != itself]
    return _Listed([found.images[i] for i in labels.images], raw, [])


def _folders_of(paths: Sequence[str]) -> tuple[NDArray[np.int8] | None, str]:
    """Return the split of each image where all lie in folders named after splits, one of them train, and what to say of it."""
    heads = [path.partition("/")[0] if "/" in path else "" for path in paths]
    named = {name: match for name in sorted(set(heads)) if (match := _SPLIT_NAME.fullmatch(name.strip()))}
    splits = {name: SPLIT_WORDS[match[1].lower()] for name, match in named.items()}
    if len(set(splits.values())) < 2 or 0 not in splits.values():
        return None, ""
    inside = sum(head in splits for head in heads)
    if inside < len(heads):
        return None, (
            f"splits   drawn at random: the folders {some(splits)} hold only {inside:,} of {len(heads):,} images; a column of train, "
            "val and test in the table of labels sets the splits"
        )
    return np.array([splits[head] for head in heads], dtype=np.int8), f"splits   {_named(splits)}"
