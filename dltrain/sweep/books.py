"""books.sqlite: what the driver knows of the jobs, so that the next driver need not read the folder of each.

The folders hold the truth: a row counts only while the job's summary.json is the file that it was read from, and books that are
damaged or gone are made again from the folders. Only the driver writes them; any program may read them:
sqlite3 books.sqlite 'SELECT number, state, objective FROM jobs ORDER BY objective LIMIT 10'.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from dltrain.errors import CheckpointProblem
from dltrain.storage.files import unshare
from dltrain.storage.index import finite, number_of
from dltrain.storage.sealing import is_unsealed
from dltrain.storage.summary import ENDED
from dltrain.sweep.jobs import FACTS, Job
from dltrain.text import say

NAME = "books.sqlite"
FORMAT = 1
MEMORY = ":memory:"
# files beside a database, by which SQLite restores it
JOURNALS = ("-journal", "-wal", "-shm")
PATIENCE = 5.0  # seconds to wait for a program that reads them
EVERY = 1.0  # seconds between two transactions, which wait for the disk
# number: of the job. axes: JSON, its values by axis. seconds: of training. best: JSON, the row of metrics.csv at the best epoch.
# digest: of its composed configuration. changed, size: of the summary.json that the row was read from.
TABLE = (
    "CREATE TABLE jobs (number INTEGER PRIMARY KEY, folder TEXT, axes TEXT, state TEXT, reason TEXT, objective REAL, "
    "best_epoch REAL, seconds REAL, best TEXT, facts TEXT, digest TEXT, changed INTEGER, size INTEGER)"
)
COLUMNS = [column.split()[0] for column in TABLE.partition("(")[2].split(", ")]


class Books:
    """The books of one sweep, which its driver holds open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.connection = opened(folder / NAME)
        self.waiting: dict[int, tuple[Any, ...]] = {}
        self.due = 0.0

    def note(self, job: Job, digest: str = "") -> None:
        """Note the state of a job; it is on the disk after the next `flush`."""
        self.waiting[job.number] = row_of(job, digest)

    def flush(self, now: bool = False) -> None:
        """Write what was noted, at most once a second unless `now`. A disk that refuses is tried again: nothing is lost."""
        if not self.waiting or (time.monotonic() < self.due and not now):
            return
        self.due = time.monotonic() + EVERY
        names, places = ", ".join(COLUMNS), ", ".join("?" * len(COLUMNS))
        try:
            with self.connection:
                self.connection.executemany(
                    f"INSERT OR REPLACE INTO jobs ({names}) VALUES ({places})", self.waiting.values()
                )
        except sqlite3.DatabaseError:
            return
        self.waiting.clear()

    def close(self) -> None:
        self.flush(now=True)
        self.connection.close()


def opened(file: Path) -> sqlite3.Connection:
    """Open the books; damaged ones are created again. Raises CheckpointProblem for those of a newer dltrain.

    Where the disk has no room or no locks, they are kept in memory, and the next driver reads the folders.
    """
    try:
        return connected(file)
    except sqlite3.OperationalError as error:
        return in_memory(file, error)
    except sqlite3.DatabaseError as error:
        say(f"{file} cannot be used ({error}): it is made again from the folders of the jobs")
    for ending in ("", *JOURNALS):
        with suppress(OSError):
            os.unlink(f"{file}{ending}")
    try:
        return connected(file)
    except sqlite3.DatabaseError as error:
        return in_memory(file, error)


def in_memory(file: Path, error: Exception) -> sqlite3.Connection:
    """Open books that end with the driver."""
    say(f"{file} cannot be written ({error}): the next driver will read the folders of the jobs")
    return connected(Path(MEMORY))


def connected(file: Path) -> sqlite3.Connection:
    """Open a file of books, or begin one. Raises sqlite3.DatabaseError for a file that holds something else."""
    if str(file) != MEMORY:
        check_alone(file)
        # a stranger's folder may hold the books of another sweep of the user as a hard link
        unshare(file)
    connection = sqlite3.connect(file, timeout=PATIENCE)
    try:
        # a rollback journal, which works on network disks, too
        connection.execute("PRAGMA synchronous = NORMAL")
        if not check_content(connection, file):
            connection.execute(TABLE)
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.commit()
    except BaseException:
        connection.close()
        raise
    return connection


def check_alone(file: Path) -> None:
    """Raise sqlite3.DatabaseError for a database that SQLite would restore from a file beside it.

    A journal may name any file of the user, which SQLite then deletes. One that a killed driver left is not worth the risk.
    """
    for ending in JOURNALS:
        if os.path.lexists(f"{file}{ending}"):
            raise sqlite3.DatabaseError("a driver was killed while it wrote")
    if file.is_file():
        with open(file, "rb") as stream:
            versions = stream.read(20)[18:]
        # 2: a log beside the file, which these books never have
        if versions not in (b"", b"\1\1"):
            raise sqlite3.DatabaseError("it holds no books")


def check_content(connection: sqlite3.Connection, file: Path) -> bool:
    """Return whether a database has the table of the books; False for an empty one.

    Raises CheckpointProblem for a newer format, and sqlite3.DatabaseError for anything else in it, such as the view of a stranger.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > FORMAT:
        raise CheckpointProblem(
            f"{file} has format {version}, of a newer dltrain; this one knows up to {FORMAT}.\n"
            "Update dltrain, or delete the file: it is made again from the folders of the jobs"
        )
    found = [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master")]
    if found not in ([], [TABLE]):
        raise sqlite3.DatabaseError("it holds other tables")
    return bool(found)


def rows(file: Path) -> Generator[tuple[Any, ...]]:
    """Yield the rows of the books by number, read only; none where there are no books, or none that can be read."""
    if not file.is_file():
        return
    with (
        suppress(sqlite3.DatabaseError, CheckpointProblem, OSError),
        closing(read_only(file)) as connection,
    ):
        if check_content(connection, file):
            yield from connection.execute(f"SELECT {', '.join(COLUMNS)} FROM jobs ORDER BY number")


def read_only(file: Path) -> sqlite3.Connection:
    """Open books that only another process may write. Raises sqlite3.DatabaseError, OSError."""
    check_alone(file)
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)


def beside(
    folders: Iterable[tuple[int, str]], found: Iterator[tuple[Any, ...]]
) -> Iterator[tuple[int, str, tuple[Any, ...] | None]]:
    """Yield folders of jobs, sorted by number, with the row of each; the rows are read as they are needed."""
    row = next(found, None)
    for number, name in folders:
        while row is not None and row[0] < number:
            row = next(found, None)
        yield number, name, row if row is not None and row[0] == number else None


def row_of(job: Job, digest: str) -> tuple[Any, ...]:
    """Return the row of a job; one that has no hashes yet, since another process held its folder, is read again by the next driver."""
    summary, changed, size = job.summary, None, None
    if job.is_done and not is_unsealed(job.folder):
        with suppress(OSError):
            status = os.stat(f"{job.folder}/summary.json")
            changed, size = status.st_mtime_ns, status.st_size
    facts = {key: summary[key] for key in FACTS if summary.get(key)}
    return (
        job.number, job.folder.name, json.dumps(job.chosen), job.state, job.reason, job.objective, finite(summary.get("best_epoch")),
        job.seconds, json.dumps(summary.get("best") or {}), json.dumps(facts), digest, changed, size,
    )  # fmt: skip


def digest_in(row: tuple[Any, ...] | None) -> str:
    """Return the digest of a job's configuration in its row; empty where there is none."""
    return "" if row is None else str(row[COLUMNS.index("digest")])


def fill(job: Job, row: tuple[Any, ...]) -> bool:
    """Fill in a job that ended from its row; False where the row is not of the summary that its folder holds."""
    *_, state, reason, objective, best_epoch, seconds, best, facts, _, changed, size = row
    try:
        status = os.stat(f"{job.folder}/summary.json")
        if state not in ENDED or (status.st_mtime_ns, status.st_size) != (changed, size):
            return False
        found = dict(json.loads(best))
        if not all(number_of(value) is not None for value in found.values()):
            return False
        summary = {"best": found, "objective": objective, **dict(json.loads(facts))}
        if best_epoch is not None:
            summary["best_epoch"] = float(best_epoch)
        job.seconds = float(seconds)
    except (OSError, ArithmeticError, ValueError, TypeError, RecursionError):
        return False
    job.summary, job.state, job.reason = summary, str(state), str(reason)
    job.trim()
    job.best = job.objective
    return True


def begun(folder: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and the name of each folder of a job."""
    for entry in os.scandir(folder):
        head = entry.name.partition("-")[0]
        if head.isdecimal() and len(head) < 10:
            yield int(head), entry.name
