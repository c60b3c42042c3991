"""Names of run folders: unique, inside the output folder. Imports no torch."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePath

from dltrain.errors import CheckpointProblem, ResourceProblem, UserError

# in the folder of a sweep, beside the folders of its jobs
SWEEP_RECORD = "sweep.json"
# the default of the knob `output`
OUTPUT = Path("outputs")
# folders below the one that is listed in which runs are looked for: OUTPUT/NAME/RUN, where NAME may have several parts
MAX_DEPTH = 4
MAX_HOLE = 10_000_000_000
# folders in a folder of a run or sweep, one in the other
MAX_NESTED = 32
CONTRACT, METRICS = "data.json", "metrics.csv"
# names that only files of runs and sweeps have
FILES = frozenset((
    CONTRACT, METRICS, SWEEP_RECORD, "summary.json", "config.yaml", "manifest.json", "events.jsonl", "tags.json", "run.log",
    "per_class.csv", "per_target.csv", "confusion_matrix.csv", "results.csv", "results.parquet", "best.yaml", "study.log",
    "best.safetensors", "normalization.safetensors", "weights.safetensors", "averaged.safetensors", "state.pt",
))  # fmt: skip
SWEEP_STUDY = "study.log"
_NO_PATH = frozenset({errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP})


def new_folder(output: str, name: str) -> Path:
    """Make `output/name/date_time-suffix`, which no other run has. Raises ResourceProblem when it cannot be written."""
    while True:
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        folder = Path(output) / name / f"{stamp}-{secrets.token_hex(2)}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not folder.is_dir():
                raise UserError(
                    f"`output` is {output}, and {name} in it is a file. Choose another: output=FOLDER"
                ) from None
        except OSError as error:
            raise _unwritable(output, error) from None


def check_place(output: str, name: str) -> None:
    """Refuse a place where no run can be made, or none would be found; creates nothing.

    Raises ResourceProblem when no folder can be made in `output`, UserError for a path that is none and for a name whose runs no
    listing shows.
    """
    parts = PurePath(name).parts
    if len(parts) >= MAX_DEPTH or any(part.startswith(".") for part in parts):
        raise UserError(
            f"`name` is {name}, and no listing would show its runs: it may have {MAX_DEPTH - 1} parts, none of which begins with a "
            "dot.\nFor folders above it: output=FOLDER"
        )
    folder = Path(output).absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise _unwritable(
            output, None if folder.is_dir() else NotADirectoryError(errno.ENOTDIR, "Not a directory")
        )


def _unwritable(output: str, error: OSError | None) -> UserError:
    reason = error.strerror if error is not None and error.strerror else "Permission denied"
    # a path that cannot be one is a mistake; all else is what the system keeps from the user
    kind = UserError if error is not None and error.errno in _NO_PATH else ResourceProblem
    return kind(
        f"`output` is {output}, where no folder can be made ({reason}). Choose one that you may write to: output=FOLDER"
    )


def _hole(status: os.stat_result) -> int:
    """Return the bytes of a sparse file that are not on the disk; 0 if the system does not report blocks."""
    blocks: int | None = getattr(status, "st_blocks", None)
    return 0 if blocks is None else status.st_size - 512 * blocks


def is_run(folder: Path) -> bool:
    """Return whether a folder has the record or the configuration of a run."""
    return (folder / "summary.json").is_file() or (folder / "config.yaml").is_file()


def check_files(folder: Path) -> None:
    """Raise CheckpointProblem where a run folder contains anything but regular files and folders.

    Through a link in the folder of a stranger, a run that is resumed would write, and prune, wherever he likes; a pipe
    would block it.
    """
    for path in below(folder):
        check_file(path)


def below(folder: Path) -> Iterator[Path]:
    """Yield all files and folders below a folder; links are not followed.

    Raises CheckpointProblem for folders that are nested deeper than `MAX_NESTED`, on which functions of Python and of the
    system give up.
    """
    waiting = [(folder, 1)]
    while waiting:
        here, depth = waiting.pop()
        if depth > MAX_NESTED:
            raise CheckpointProblem(
                f"{folder} has folders that are nested more than {MAX_NESTED} deep, which no run makes, such as "
                f"{Path(*here.relative_to(folder).parts[:2])}.\nRemove them."
            )
        # a job that has not begun has no folder, and another process may delete one
        with suppress(FileNotFoundError, PermissionError), os.scandir(here) as entries:
            for entry in entries:
                yield Path(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((Path(entry.path), depth + 1))


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder; links are not followed."""
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size
    states = (inner.lstat() for inner in below(path))
    return sum(state.st_size for state in states if not stat.S_ISDIR(state.st_mode))


def runs_in(folder: Path) -> list[Path]:
    """Return the run folders in a folder, by name; hidden ones, such as `.hydra`, are none."""
    found = (file.parent for file in folder.glob("*/config.yaml"))
    return sorted(path for path in found if not path.name.startswith("."))


def check_file(path: Path) -> None:
    """Raise CheckpointProblem for what is neither a regular file nor a folder, and for a file that is a hole."""
    status = path.lstat()
    mode = status.st_mode
    if stat.S_ISREG(mode) and _hole(status) > MAX_HOLE:
        raise CheckpointProblem(
            f"{path} has {status.st_size} bytes, and almost none of them are on the disk: no run wrote it.\n"
            "Put the file of the run in its place."
        )
    if stat.S_ISDIR(mode) and path.name in FILES:
        raise CheckpointProblem(
            f"{path} is a folder, and a run has a file of that name.\nPut the file of the run in its place."
        )
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = f"a link to {path.readlink()}" if stat.S_ISLNK(mode) else "neither file nor folder"
        raise CheckpointProblem(
            f"{path} is {kind}: a resumed run writes into its own folder only.\n"
            "Put the file or folder itself in its place."
        )
