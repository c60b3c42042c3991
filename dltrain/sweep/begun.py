"""The folder of a sweep that has begun: its own files, and the jobs of a grid that have a folder in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

from filelock import lock_descriptor

from dltrain.config.keys import LENGTH
from dltrain.config.saved import load_bounded
from dltrain.errors import CheckpointProblem, FolderInUse, typed
from dltrain.storage.files import clear_temporary, open_lock, unshare
from dltrain.storage.folder_names import check_file, check_files
from dltrain.storage.job_names import is_job_folder
from dltrain.storage.lock import Lock, owner_of
from dltrain.storage.sealing import complete, is_unsealed, length_before
from dltrain.sweep import books
from dltrain.sweep.jobs import Job
from dltrain.sweep.plan.coverage import ALL
from dltrain.sweep.plan.plan import Plan
from dltrain.text import say


class OtherJob(CheckpointProblem):
    """A folder has the number of a job, and is of another one."""


def check_folder(folder: Path) -> None:
    """Raise CheckpointProblem for links and pipes in a sweep's folder; of many jobs, those in theirs are found when one is read."""
    numbered = {name for _, name in books.begun(folder)} if folder.is_dir() else set()
    if len(numbered) <= ALL:
        check_files(folder)
        return
    for name in os.listdir(folder):
        check_file(folder / name)
        if name not in numbered and (folder / name).is_dir():
            check_files(folder / name)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system releases when the driver dies. Raises FolderInUse."""
    lock = folder / "sweep.lock"
    with ExitStack() as opened:
        file = _locked_file(lock, opened)
        if os.fstat(file.fileno()).st_nlink > 1:
            unshare(lock)
            file = _locked_file(lock, opened)
        file.truncate(0)
        file.write(f"process {os.getpid()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n")
        file.flush()
        clear_temporary(folder)
        clear_copies(folder)
        yield


def clear_copies(folder: Path) -> None:
    """Remove the half-copied jobs that a driver was taking over from other runs when it was killed."""
    for path in folder.glob(".*.tmp"):
        if is_job_folder(path.name[1 : -len(".tmp")]) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def _locked_file(lock: Path, opened: ExitStack) -> TextIO:
    file = opened.enter_context(open_lock(lock))
    if not lock_descriptor(file.fileno(), blocking=False):
        raise FolderInUse(
            f"{lock.parent} is being run by {owner_of(file)}. Wait for it to end, or stop it; for a second sweep over the same: "
            "sweep.fresh=true"
        )
    return file


def begun_jobs(plan: Plan, folder: Path) -> Iterator[tuple[Job, str | None]]:
    """Yield the jobs of a grid that have a folder, by number, in the state that it holds.

    Where the row of the books is of the summary that is there, the folder is not read. With any other job comes the digest that the
    books have of its configuration, or an empty one. Raises CheckpointProblem for a folder with links or pipes, which a job that
    continues would write to.
    """
    with closing(books.rows(folder / books.NAME)) as rows:
        for number, name, row in books.beside(sorted(books.begun(folder)), rows):
            job = plan.job_of(number, folder) if number < plan.total else None
            if job is None or job.folder.name != name:
                continue
            if row is not None and books.fill(job, row):
                yield job, None
                continue
            check_files(job.folder)
            job.read()
            check_number(job)
            if job.is_done:
                job.trim()
            yield job, books.digest_in(row)


def complete_job(path: Path) -> None:
    """Complete a job that was killed before its hashes; one that another process holds, or that is no run, stays as it is."""
    try:
        if is_unsealed(path):
            lock = Lock(path)
            try:
                _complete(path)
            finally:
                lock.release()
    except (CheckpointProblem, FolderInUse, OSError):
        return


def _complete(path: Path) -> None:
    """Complete a job, unless it was being lengthened: its configuration is that of more steps, and its summary is not."""
    content = load_bounded(path / "config.yaml")
    longer, _ = length_before(path, {key: content.get(key) for key in LENGTH})
    if longer:
        say(
            f"{path}: `resume` with {' '.join(longer)} was stopped before it trained. To go on with it: {typed('resume', path)}"
        )
    else:
        complete(path)


def check_number(job: Job) -> None:
    """Raise OtherJob for a folder of another job: earlier versions forgot the numbers of a sweep that was extended."""
    texts = job.summary.get("overrides")
    held = {str(text).partition("=")[0]: str(text) for text in (texts if isinstance(texts, list) else ())}
    for text in job.overrides:
        key = text.partition("=")[0]
        if key != "trust" and held.get(key, text) != text:
            raise OtherJob(
                f"{job.folder} was run with {held[key]}, and job {job.number} of this sweep has {text}: its folders have the numbers "
                "of a sweep that an earlier version extended.\nBegin a new one that takes its runs over: leave sweep.resume out, and "
                "add sweep.fresh=true sweep.reuse=true"
            )
