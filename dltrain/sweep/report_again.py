"""A sweep as its folder holds it, which is only read: the sweep may be running; and its report, written again."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from dltrain.config.door import rights_of_record
from dltrain.errors import CheckpointProblem, assigned, typed
from dltrain.storage.folder_names import SWEEP_STUDY
from dltrain.storage.job_names import job_folders
from dltrain.sweep.begun import begun_jobs
from dltrain.sweep.driver import jobs_of
from dltrain.sweep.jobs import Job
from dltrain.sweep.outcome.notes import notes_of
from dltrain.sweep.outcome.ranking import edges, rank
from dltrain.sweep.outcome.report import write_report
from dltrain.sweep.plan.plan import Plan
from dltrain.sweep.plan.reading import read_plan
from dltrain.sweep.record import number_jobs, resumed_texts
from dltrain.sweep.sweep import Source, check_remembered, open_study
from dltrain.sweep.winner import test_line


class NoStudy(CheckpointProblem):
    """A sweep that is no grid has no list of its jobs."""


def report_again(folder: Path, source: Source, file: Path) -> list[str]:
    """Write the report of a sweep to a file, and return its notes.

    Raises CheckpointProblem where its record or its study is missing or damaged, OSError where the file cannot be written.
    """
    plan, jobs = read_sweep(folder, source)
    rows = rank(plan, jobs)
    notes = edges(plan, rows)
    winners = rows[0].jobs if rows and plan.test else []
    if winners and all(job.test_scores for job in winners):
        notes.append(f"test split of the winner: {test_line(plan, winners)}")
    missing = plan.total - sum(job.is_done for job in jobs)
    notes += notes_of(plan, jobs, folder, missing, "running, or stopped,")
    write_report(plan, rows, jobs, notes, folder, file)
    return notes


def read_sweep(folder: Path, source: Source) -> tuple[Plan, list[Job]]:
    """Return the plan of a sweep and the jobs of it that have begun, with the rights of a record.

    Raises UserError where its record or its study is missing or damaged, or names what may not be built.
    """
    _, texts, recorded = resumed_texts([assigned("sweep.resume", folder)])
    rights = rights_of_record(source.catalogue, recorded or [])
    plan = read_plan(texts, source.config_name, source.catalogue, source.hydra, rights)
    plan.options = source.options
    number_jobs(plan, folder)
    return plan, read_jobs(plan, folder)


def read_jobs(plan: Plan, folder: Path) -> list[Job]:
    """Return the jobs of a sweep that have begun, with what their folders hold; opening a study writes, so a copy is read."""
    if plan.configurations is not None and plan.settings["pruner"] == "none":
        return [job for job, _ in begun_jobs(plan, folder)]
    if not (folder / SWEEP_STUDY).is_file():
        first = next(iter(job_folders(folder).values()), folder / "JOB")
        raise NoStudy(
            f"{folder} has no {SWEEP_STUDY}, which lists its jobs. Each job has its own report: {typed('report', first)}"
        )
    with TemporaryDirectory() as copy:
        shutil.copy(folder / SWEEP_STUDY, copy)
        study = open_study(plan, Path(copy))
        trials = study.trials() if study is not None else []
    check_remembered(plan, folder, len(trials))
    jobs = [job for trial in trials for job in jobs_of(plan, trial, folder)]
    for job in jobs:
        job.read()
    return sorted(jobs, key=lambda job: job.number)
