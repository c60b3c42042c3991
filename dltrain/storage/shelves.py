"""The archive and the trash: run folders that were moved out of sight, whole, and can be moved back.

A folder OUTPUT/NAME/RUN moves to .dltrain/SHELF/OUTPUT/NAME/RUN beside OUTPUT in one rename, so that it is in exactly one
place whenever the process dies. Nothing is copied, replaced or followed through a link.

The file is long because one rule says where a run lies, moves to and may be deleted.
"""

from __future__ import annotations

import errno
import itertools
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from dltrain.errors import CheckpointProblem, FolderInUse, ResourceProblem, typed
from dltrain.storage.folder_names import OUTPUT, SWEEP_RECORD
from dltrain.storage.index import CACHE, CONFIG, SUMMARY, is_named, scan
from dltrain.storage.lock import Lock, is_held
from dltrain.storage.summary import read_json

Shelf = Literal["archive", "trash"]
SHELVES: tuple[Shelf, ...] = ("archive", "trash")
HOME = ".dltrain"
# beside the trash, while it is emptied
_DELETING = ".deleting-"
MAX_NAME = 255  # bytes, on the usual file systems
_TRIES = 10
LOCKS = ("run.lock", "sweep.lock")


@dataclass(frozen=True)
class Place:
    """Where a run lies: its output folder, the path from there, and the shelf, if it is on one."""

    output: Path
    path: PurePath
    shelf: Shelf | None = None

    @property
    def folder(self) -> Path:
        return (self.output if self.shelf is None else shelf_of(self.output, self.shelf)) / self.path

    def on(self, shelf: Shelf | None) -> Place:
        return Place(self.output, self.path, shelf)


def shelf_of(output: Path, shelf: Shelf) -> Path:
    """Return the folder of a shelf for the runs of an output folder."""
    output = Path(os.path.realpath(output))
    return output.parent / HOME / shelf / output.name


def place_of(folder: Path) -> Place:
    """Return where the folder of a run or sweep lies. Raises CheckpointProblem for a link, a job, and a folder in no output."""
    if folder.is_symlink():
        raise CheckpointProblem(
            f"{folder} is a link: move what it leads to, {folder.readlink()}, by its own name."
        )
    named, folder = Path(os.path.abspath(folder)), Path(os.path.realpath(folder))
    if (folder.parent / SWEEP_RECORD).is_file():
        raise CheckpointProblem(
            f"{folder} is a job of a sweep, whose ranking needs it. The whole sweep: {folder.parent}"
        )
    if (shelved := _on_a_shelf(folder)) is not None:
        return shelved
    if len(folder.parts) < 4:
        raise CheckpointProblem(f"{folder} lies in no output folder: runs lie in OUTPUT/NAME/RUN.")
    output = _output_of(folder, named)
    return Place(output, folder.relative_to(output))


def _on_a_shelf(folder: Path) -> Place | None:
    """Return the place of a real path on a shelf; None for one that is on none."""
    parts = folder.parts
    for i in range(len(parts) - 1, 1, -1):
        if parts[i - 2] == HOME and parts[i - 1] in SHELVES and i + 1 < len(parts):
            return Place(Path(*parts[: i - 2], parts[i]), PurePath(*parts[i + 1 :]), _shelf(parts[i - 1]))
    return None


def check_not_shelved(folder: Path) -> None:
    """Raise CheckpointProblem, with the way back, for a run or sweep in the archive or the trash: nothing is trained there."""
    place = _on_a_shelf(Path(os.path.realpath(folder)))
    if place is not None:
        where = "archived" if place.shelf == "archive" else "in the trash"
        whole = folder.parent if (folder.parent / SWEEP_RECORD).is_file() else folder
        raise CheckpointProblem(
            f"{folder} is {where}, where nothing is trained. To bring it back: {typed('restore', whole)}"
        )


def _output_of(folder: Path, named: Path) -> Path:
    """Return the output folder of a run: `outputs` here, or what is left of its path without its name.

    The name is from the record of a run that may be a stranger's: of a run below the working folder, or below what a link in
    there leads to, it leads to a folder within that, or to one that is called `outputs`.
    """
    here = Path(os.path.realpath(OUTPUT))
    if folder != here and folder.is_relative_to(here):
        return here
    try:
        name = PurePath(str(read_json(folder / "summary.json")["name"])).parts
    except (OSError, ValueError, KeyError):
        name = ()
    if OUTPUT.name in name:
        # a stranger's summary.json may name the folders above his own
        name = ()
    above = folder.parent.parts
    is_named = bool(name) and above[-len(name) :] == name and len(name) + 2 < len(above)
    output = folder.parents[len(name) if is_named else 1]
    if output.name == OUTPUT.name:
        return output
    bounds = [bound for bound in _bounds(folder, named, here.parent) if folder.is_relative_to(bound)]
    return max([output, *bounds], key=lambda path: len(path.parts))


def _bounds(folder: Path, named: Path, beside: Path) -> Iterator[Path]:
    """Yield folders above which no output folder is looked for: the first ones in the working folder and beside `outputs`."""
    here = Path.cwd()
    for bottom in (beside, Path(os.path.realpath(here))):
        if folder.is_relative_to(bottom):
            yield bottom / PurePath(*folder.parent.relative_to(bottom).parts[:1])
    if named.is_relative_to(here):
        # a link to another disk
        yield Path(os.path.realpath(here / PurePath(*named.parent.relative_to(here).parts[:1])))


def _shelf(name: str) -> Shelf:
    return next(shelf for shelf in SHELVES if shelf == name)


def check_idle(folder: Path) -> None:
    """Raise FolderInUse where a process trains in a run, in a job of a sweep, or drives the sweep."""
    files = [folder / name for name in LOCKS]
    with suppress(OSError), os.scandir(folder) as entries:
        files += [Path(entry.path) / "run.lock" for entry in entries if entry.is_dir(follow_symlinks=False)]
    for file in files:
        if is_held(file):
            raise FolderInUse(
                f"{file.parent} is in use: it is training, or {file.name} cannot be read. Wait for it to end, or stop it."
            )


def check_move(place: Place, target: Place) -> None:
    """Raise CheckpointProblem or FolderInUse where a folder cannot be moved to a place."""
    check_idle(place.folder)
    if os.path.lexists(target.folder):
        raise CheckpointProblem(
            f"{place.folder} cannot move: {target.folder} is there already. Rename one of them."
        )
    ours = [*_made_by_us(target), *(_made_by_us(place) if place.shelf else ())]
    for parent in ours:
        if parent.is_symlink() or (parent.exists() and not parent.is_dir()):
            raise CheckpointProblem(
                f"{parent} is not a regular folder, and runs are not moved through links."
            )


def _made_by_us(place: Place) -> list[Path]:
    """Return the folders above a place, from the output folder or `.dltrain` down."""
    below = place.folder.relative_to(place.output.parent)
    return [place.output.parent / PurePath(*below.parts[:i]) for i in range(1, len(below.parts))]


def move(place: Place, target: Place) -> None:
    """Move a folder, in one rename. Raises CheckpointProblem, FolderInUse, and ResourceProblem with the system's reason."""
    check_move(place, target)
    source, wanted = place.folder, target.folder
    # a run or a sweep begins only where it gets this lock
    lock = Lock(source, name="sweep.lock" if (source / SWEEP_RECORD).is_file() else "run.lock")
    try:
        if os.name == "nt":
            # Windows does not rename a folder with an open file
            lock.release()
        wanted.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, wanted)
        lock.file = wanted / lock.file.name
    except OSError as error:
        reason = "it lies on another disk" if error.errno == errno.EXDEV else error.strerror
        raise ResourceProblem(
            f"{source} cannot be moved to {wanted}: {reason}. It is where it was."
        ) from None
    finally:
        lock.release()
    if place.shelf is not None:
        _remove_empty(place)


def _remove_empty(place: Place) -> None:
    """Remove the folders of a shelf that a move left empty."""
    shelf = shelf_of(place.output, place.shelf or "trash")
    for parent in place.folder.parents:
        if parent == shelf.parent.parent.parent:
            return
        with suppress(OSError):
            if parent == shelf and [entry.name for entry in os.scandir(shelf)] == [CACHE]:
                (shelf / CACHE).unlink()
            parent.rmdir()


def shelved(output: Path, text: str) -> list[Place]:
    """Return the places on the shelves of an output folder that a text names: by its former path, or the end of its name."""
    found = []
    for shelf in SHELVES:
        root = shelf_of(output, shelf)
        for path, sweep, _, _ in scan(root, whole=True) if root.is_dir() else ():
            former = os.path.join(os.path.realpath(output), path)
            if not sweep and (is_named(path, text) or former == os.path.realpath(text)):
                found.append(Place(Path(os.path.realpath(output)), PurePath(path), shelf))
    return found


def _delete(folder: Path) -> None:
    """Delete all that can be deleted of a folder, or a file or link. Raises ResourceProblem for the rest, such as files of another user."""
    try:
        if not folder.is_dir() or folder.is_symlink():
            return folder.unlink(missing_ok=True)
        try:
            shutil.rmtree(folder)
        except (RecursionError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in (errno.EMFILE, errno.ENAMETOOLONG):
                raise
            flatten(folder)
            shutil.rmtree(folder)
    except OSError as error:
        # of two processes that delete the same, one misses what the other deletes
        for _ in range(_TRIES):
            if folder.exists():
                shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        raise ResourceProblem(
            f"{error.filename or folder} cannot be deleted ({error.strerror}).\n"
            f"The rest is deleted. What is left lies in {folder}; its owner can delete it."
        ) from None


def flatten(folder: Path) -> None:
    """Move the folders in the folders of a folder into it, until none is nested in another; links are not followed.

    A folder of a stranger may be nested deeper than functions of Python and of the system go.
    """
    numbers = itertools.count()
    waiting = [entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    while waiting:
        here = waiting.pop()
        for entry in list(os.scandir(here)):
            if entry.is_dir(follow_symlinks=False):
                free = (folder / f".nested-{number}" for number in numbers)
                target = next(path for path in free if not os.path.lexists(path))
                os.rename(entry.path, target)
                waiting.append(str(target))


def trashes(base: Path) -> Iterator[Path]:
    """Yield the trash of each output folder that lies in a folder."""
    shelf = base / HOME / "trash"
    if shelf.is_dir() and not shelf.is_symlink() and not shelf.parent.is_symlink():
        yield from sorted(
            Path(entry.path) for entry in os.scandir(shelf) if entry.is_dir(follow_symlinks=False)
        )


def discarded(trash: Path) -> Iterator[tuple[str, bool]]:
    """Yield all that lies in the trash of an output folder, by path from it, and whether it is a run or sweep.

    What is neither is one item for each file, and for each folder without a run below. Links are not followed.
    """
    runs = {path for path, sweep, _, _ in scan(trash, whole=True) if not sweep}
    if "" in runs:
        yield "", True
        return
    above = {"/".join(path.split("/")[:i]) for path in runs for i in range(1, path.count("/") + 1)}
    waiting = [""]
    while waiting:
        here = waiting.pop()
        try:
            entries = sorted(os.scandir(trash / here), key=lambda entry: entry.name)
        # another process empties the trash
        except FileNotFoundError:
            continue
        for entry in entries:
            path = f"{here}/{entry.name}" if here else entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            if path in above and is_folder:
                waiting.append(path)
            elif entry.name != CACHE or is_folder:
                yield path, path in runs and is_folder


def empty(base: Path, listed: Iterable[Path] | None = None) -> list[Path]:
    """Delete what lies in the trash of all output folders in a folder, for good, and the rest of an interrupted deletion.

    Each item is first renamed, so that nothing half-deleted can be restored. Links are deleted, not followed. Returns what was
    deleted. Raises FolderInUse, and deletes nothing, where a process trains in one.

    Args:
        listed: what to delete; None for all. What comes to the trash later stays
    """
    home, found = base / HOME, list(trashes(base))
    everything = (trash / path for trash in found for path, _ in discarded(trash))
    items = [*everything] if listed is None else [*listed]
    _check_unused(found)
    if not home.is_dir() or home.is_symlink():
        return []
    renamed, kept = _rename_items(items, home)
    rest = [Path(entry.path) for entry in os.scandir(home) if entry.name.startswith(_DELETING)]
    try:
        # one may have been resumed meanwhile
        _check_unused([path for path in rest if not path.is_symlink()])
    except FolderInUse:
        for item, target in renamed.items():
            _put_back(target, item)
        raise
    refused = None
    for path in rest:
        try:
            _delete(path)
        except ResourceProblem as problem:
            refused = refused or problem
    if refused is not None:
        raise refused
    for trash in found:
        _remove_emptied(trash, [*renamed])
    for folder in (home / "trash", home):
        with suppress(OSError):
            folder.rmdir()
    if kept:
        raise ResourceProblem(
            f"{kept[0].filename} cannot be deleted ({kept[0].strerror}).\nThe rest is deleted. Its owner can delete it."
        )
    return list(renamed)


def _rename_items(items: Sequence[Path], home: Path) -> tuple[dict[Path, Path], list[OSError]]:
    """Rename items of the trash, which needs no room on the disk; return where they are now, and why others cannot be renamed.

    What is gone meanwhile, since it was restored, is left out, as is a folder that runs have come into.
    """
    mark = secrets.token_hex(4)
    renamed: dict[Path, Path] = {}
    kept: list[OSError] = []
    for number, item in enumerate(items):
        # before it is moved, too: a process that is killed in between leaves nothing to be deleted that was not listed
        if _has_runs(item):
            continue
        # with its own name, which a message may show
        name = f"{_DELETING}{mark}-{number}-{item.name}"
        target = home / (name if len(os.fsencode(name)) <= MAX_NAME else f"{_DELETING}{mark}-{number}")
        try:
            os.rename(item, target)
        except FileNotFoundError:
            continue
        except OSError as error:
            kept.append(error)
            continue
        if _has_runs(target):
            _put_back(target, item)
        else:
            renamed[item] = target
    return renamed, kept


def _has_runs(item: Path) -> bool:
    """Return whether an item of the trash is a folder that is no run, with runs inside."""
    is_folder = item.is_dir() and not item.is_symlink()
    is_plain = is_folder and not any(os.path.lexists(item / name) for name in (CONFIG, SUMMARY, SWEEP_RECORD))
    return is_plain and any(path and is_run for path, is_run in discarded(item))


def _put_back(source: Path, item: Path) -> None:
    """Move an item back to its place in the trash."""
    item.parent.mkdir(parents=True, exist_ok=True)
    os.rename(source, item)


def _remove_emptied(trash: Path, items: Sequence[Path]) -> None:
    """Remove the trash of an output folder, and the folders above its deleted items, where nothing is left in them."""
    above = {parent for item in items for parent in item.parents if parent.is_relative_to(trash)}
    for folder in sorted({trash, *above}, key=lambda path: len(path.parts), reverse=True):
        with suppress(OSError):
            if [entry.name for entry in os.scandir(folder)] == [CACHE]:
                (folder / CACHE).unlink()
            folder.rmdir()


def _check_unused(folders: Sequence[Path]) -> None:
    """Raise FolderInUse where a process trains anywhere below the folders."""
    waiting = list(map(str, folders))
    while waiting:
        here = waiting.pop()
        # what is nested too deep for the system is deleted all the same, see `flatten`
        with suppress(OSError), os.scandir(here) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.name in LOCKS and is_held(Path(entry.path)):
                    raise FolderInUse(
                        f"{here} is in use: it is training, or {entry.name} cannot be read. Nothing was deleted.\n"
                        "Wait for it to end, or stop it."
                    )
