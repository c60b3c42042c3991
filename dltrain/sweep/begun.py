"""The folder of a sweep that has begun: its own files, and the jobs of a grid that have a folder in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from dltrain.errors import CheckpointProblem
from dltrain.storage.folder_names import check_file, check_files
from dltrain.sweep import books
from dltrain.sweep.jobs import Job
from dltrain.sweep.plan.coverage import ALL
from dltrain.sweep.plan.plan import Plan


def check_folder(folder: Path) -> None:
    """Raise CheckpointProblem for links and pipes in a sweep's folder; of many jobs, those in theirs are found when one is read."""
    numbered = {name for _, name in books.begun(folder)} if folder.is_dir() else set()
    if len(numbered) <= ALL:
        check_files(folder)
        return
    for name in os.listdir(folder):
        check_file(folder / name)
        if name not in numbered:
            check_files(folder / name)


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


def check_number(job: Job) -> None:
    """Raise CheckpointProblem for a folder of another job: earlier versions forgot the numbers of a sweep that was extended."""
    texts = job.summary.get("overrides")
    held = {str(text).partition("=")[0]: str(text) for text in (texts if isinstance(texts, list) else ())}
    for text in job.overrides:
        key = text.partition("=")[0]
        if key != "trust" and held.get(key, text) != text:
            raise CheckpointProblem(
                f"{job.folder} was run with {held[key]}, and job {job.number} of this sweep has {text}: its folders have the numbers "
                "of a sweep that an earlier version extended.\nBegin a new one that takes its runs over: leave sweep.resume out, and "
                "add sweep.fresh=true sweep.reuse=true"
            )
