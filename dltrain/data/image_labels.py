"""Labels of image files from a table of file names: which column holds what is inferred from its values, shown, or refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dltrain.data.errors import DataError, some
from dltrain.data.raw import SPLIT_WORDS
from dltrain.data.table import split_marks
from dltrain.data.tables.columns import Columns
from dltrain.data.tables.cures import value
from dltrain.data.tables.notes import repeated_notes
from dltrain.data.tables.read import Table, read
from dltrain.data.tables.reading import Reading
from dltrain.data.tables.rules import Rule
from dltrain.data.tables.targets import Targets, read_targets
from dltrain.text import counted

# names of a column of labels where several columns are left
_LABELS = ("label", "labels", "class", "class_name", "target", "category")
# ways in which a table names a file, by how a path becomes such a name
_NAMES: dict[str, Callable[[str], str]] = {
    "path": lambda path: path,
    "name": os.path.basename,
    "name without ending": lambda path: os.path.splitext(os.path.basename(path))[0],
    "path without ending": lambda path: os.path.splitext(path)[0],
}
# rows by which the column of the files is found
_LOOKED_AT = 2000


@dataclass(frozen=True)
class Labels:
    """Which images have a target, and which.

    images: (N,) positions of the files, ascending; targets: those of them; split, groups: (N,) or None; notes: what was inferred.
    """

    images: NDArray[np.int64]
    targets: Targets
    rows: NDArray[np.int64]  # of the targets, for each image
    split: NDArray[np.int8] | None
    groups: NDArray[np.int64] | None
    notes: tuple[str, ...]

    @property
    def rules(self) -> tuple[Rule, ...]:
        targets = self.targets
        pairs = zip(targets.names, targets.formats, strict=True)
        return tuple(Rule(name, form, targets.class_names) for name, form in pairs)


def read_labels(
    path: Path,
    root: Path,
    files: Sequence[str],
    columns: Mapping[str, str | None],
    task: str,
    merge_case: bool = True,
) -> Labels:
    """Match the rows of a table with files below `root`.

    columns: `file_column`, `target`, `split_column` and `group_column`, None for those to infer, or for no
    groups. Raises DataError for what may mean two things, for files that are not there, and for one that has two labels.
    """
    if not path.is_file() and (root / path.name).is_file():
        raise DataError(
            f"dataset.labels is {path}, which is not a file; write {value('labels', str(root / path.name))}"
        )
    table = read(path, "auto", "labels")
    for key, name in columns.items():
        if name is not None:
            table.column(name, key)
    taken = [name for name in columns.values() if name is not None]
    file_column, how = _file_column(table, files, columns["file_column"], taken)
    rest = [
        name
        for name in table.columns
        if name not in {*taken, file_column} and not _names_files(table, name, files)
    ]
    split_column = columns["split_column"] or _split_column(
        table, rest if columns["target"] else rest[1:] and rest
    )
    target = columns["target"] or _target(table, [name for name in rest if name != split_column])
    positions, otherwise = _positions(table, file_column, how, files, root)
    targets = read_targets(
        Columns(table, Reading(has_keys=False), [target], [target]), [target], task, merge_case
    )
    image_of, row_of = _pairs(table, positions, targets)
    rows = np.flatnonzero(targets.kept)[row_of]
    split = None if split_column is None else split_marks(table, split_column)[rows]
    group_column = columns["group_column"]
    groups = None if group_column is None else _groups(table, group_column, rows)
    listed = f"file: {file_column} ({how}) · target: {target}" + f" · split: {split_column}" * bool(
        split_column
    )
    listed += f" · group: {group_column}" * bool(group_column)
    used = {file_column, target, split_column, group_column}
    ignored = [name for name in table.columns if name not in used]
    listed += f" · not used: {some(ignored, 6)}" * bool(ignored)
    listed += f" · {otherwise}" * bool(otherwise)
    unlisted = len(files) - len(image_of)
    without = f" · {unlisted:,} of {len(files):,} images have no label, and are not used" if unlisted else ""
    return Labels(
        image_of,
        targets,
        row_of,
        split,
        groups,
        (f"labels   {path.name} · {listed}{without}", *repeated_notes([table]), targets.note),
    )


def _groups(table: Table, name: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups of rows. Raises DataError for a row without one."""
    words = np.array(_words(table, name))[rows]
    empty = np.flatnonzero(words == "")
    if len(empty):
        raise DataError(
            f"column {name!r} has no value in {table.row(int(rows[empty[0]]))}; every image needs its group"
        )
    return np.asarray(np.unique(words, return_inverse=True)[1], np.int64)


def _words(table: Table, name: str) -> list[str]:
    """Return the values of a column as texts, paths with forward slashes."""
    words = ("" if v is None else str(v).strip() for v in table.columns[name].to_pylist())
    return [word.replace("\\", "/").removeprefix("./") for word in words]


def _some_words(table: Table, name: str) -> list[str]:
    """Return values of a column, evenly spread over its rows."""
    words = _words(table, name)
    return words[:: -(-len(words) // _LOOKED_AT) or 1]


def _file_column(
    table: Table, files: Sequence[str], given: str | None, taken: Sequence[str]
) -> tuple[str, str]:
    """Return the column that names files, and how it names them."""
    places = {how: places_of(name, files) for how, name in _NAMES.items()}
    found: dict[str, tuple[str, list[int]]] = {}
    for name in [given] if given else [name for name in table.columns if name not in taken]:
        words = _some_words(table, name)
        matched = {
            how: list(dict.fromkeys(place[word] for word in words if word in place))
            for how, place in places.items()
        }
        # different files: a label may be called like one of them
        how = max(matched, key=lambda way: len(matched[way]))
        if matched[how]:
            found[name] = how, matched[how]
    if not found:
        for name in () if given else taken:
            if _names_files(table, name, files):
                raise DataError(
                    f"column {name!r} of {table.path} names the images, so that it is no label and no split; set dataset.target or "
                    "dataset.split_column to another one"
                )
        first = _words(table, given or next(iter(table.columns)))[0]
        subject, cure = (
            (f"column {given!r}", ", or leave dataset.file_column out") if given else ("no column", "")
        )
        raise DataError(
            f"{subject} of {table.path} names {'no ' * bool(given)}images below dataset.root: {first!r} is none, and {files[0]!r} "
            f"is one; set dataset.root to the folder that the names start from{cure}"
        )
    most = max(len(matched) for _, matched in found.values())
    best = {name: (how, matched) for name, (how, matched) in found.items() if len(matched) == most}
    if len({tuple(matched) for _, matched in best.values()}) > 1:
        ways = " or ".join(value("file_column", name) for name in list(best)[:3])
        raise DataError(f"columns {some(map(repr, best))} of {table.path} all name images; set {ways}")
    # columns that name the same files: a path leaves the least to guess
    name = min(best, key=lambda name: list(_NAMES).index(best[name][0]))
    return name, best[name][0]


def places_of(name: Callable[[str], str], files: Sequence[str]) -> dict[str, int]:
    """Return the position of each file by its name, -1 for a name that several have."""
    places: dict[str, int] = {}
    for i, file in enumerate(files):
        if places.setdefault(name(file), i) != i:
            places[name(file)] = -1
    return places


def _names_files(table: Table, column: str, files: Sequence[str]) -> bool:
    """Return whether a column names files, too, in another way."""
    listed = _some_words(table, column)
    words = set(listed)
    return 2 * len(words) > len(listed) and any(words <= set(map(name, files)) for name in _NAMES.values())


def _split_column(table: Table, candidates: Sequence[str]) -> str | None:
    """Return the only column that holds words such as train and test."""
    found = [name for name in candidates if set(map(str.lower, _words(table, name))) <= SPLIT_WORDS.keys()]
    return found[0] if len(found) == 1 else None


def _target(table: Table, rest: Sequence[str]) -> str:
    named = [name for name in rest if name.strip().lower() in _LABELS]
    if len(rest) == 1 or len(named) == 1:
        return rest[0] if len(rest) == 1 else named[0]
    if not rest:
        raise DataError(f"{table.path} has no column beside the file names; add one that holds the labels")
    ways = " or ".join(value("target", name) for name in (named or rest)[:3])
    raise DataError(f"the label may be any of {some(map(repr, rest))} of {table.path}; set {ways}")


def _positions(
    table: Table, column: str, how: str, files: Sequence[str], root: Path
) -> tuple[NDArray[np.int64], str]:
    """Return the file of each row, and what to say of rows that name it in another way, such as without its ending.

    Raises DataError for files that are missing or ambiguous.
    """
    place = places_of(_NAMES[how], files)
    words = _words(table, column)
    positions = np.array([place.get(word, -2) for word in words])
    strange = np.flatnonzero(positions == -2)
    others = [places_of(name, files) for way, name in _NAMES.items() if way != how] if len(strange) else []
    for row in strange:
        found = {known[words[row]] for known in others if words[row] in known}
        # a single file, or several of one name
        positions[row] = found.pop() if len(found) == 1 else -1 if found else -2
    unclear = [words[i] for i in strange if positions[i] == -1]
    if unclear:
        raise DataError(
            f"{len(unclear):,} of {len(words):,} names of files in column {column!r} of {table.path} lack their ending or folder, and several "
            f"files below {root} fit: {some(unclear, 10)}; write them as the others, such as {files[0]!r}"
        )
    matched = int((positions[strange] >= 0).sum())
    note = f"{counted(matched, 'name')} written otherwise, with one file that fits" if matched else ""
    missing = [words[i] for i in np.flatnonzero(positions == -2)]
    if missing:
        raise DataError(
            f"{len(missing):,} of {len(words):,} files that {table.path} names are not below {root}: {some(missing, 10)}; take "
            f"their rows out, or put the files there; another table: {value('labels', 'FILE.csv')}"
        )
    twice = [words[i] for i in np.flatnonzero(positions == -1)]
    if twice:
        raise DataError(
            f"{table.path} names files that are in several folders of {root}: {some(twice, 10)}; name them with their folder"
        )
    return positions, note


def _pairs(
    table: Table, positions: NDArray[np.int64], targets: Targets
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the images that have a target, ascending, and the row of `targets` of each. Raises DataError for two targets."""
    kept = np.flatnonzero(targets.kept)
    images, rows = np.unique(positions[kept], return_index=True)
    first = rows[np.searchsorted(images, positions[kept])]
    values = targets.values.numpy()
    differ = np.flatnonzero((values[first] != values).reshape(len(values), -1).any(1))
    if len(differ):
        again = int(differ[0])
        raise DataError(
            f"{table.row(int(kept[again]))} gives another label to the file of {table.row(int(kept[first[again]]))} "
            f"({len(differ):,} such rows); an image has one label"
        )
    return images, rows
