"""Notes below the ranking of a sweep: jobs that failed, were reused or are missing."""

from __future__ import annotations

from pathlib import Path

from dltrain.sweep.jobs import Job
from dltrain.sweep.plan.plan import Plan
from dltrain.text import counted


def notes_of(plan: Plan, jobs: list[Job], folder: Path, missing: int, unfinished: str) -> list[str]:
    """Return notes on jobs that failed, were reused or are missing, with the commands to continue.

    `unfinished` is the reason for which the sweep ended early.
    """
    notes = []
    failed = [job for job in jobs if job.failed]
    if failed and len(failed) == len(jobs):
        notes.append(f"every job failed; the first, job {failed[0].number}: {failed[0].reason}")
    reused = sum("reused" in job.summary for job in jobs)
    if reused:
        notes.append(
            f"{counted(reused, 'job')} not run again: taken over from finished runs (`reused` in summary.json)."
        )
    if missing:
        notes.append(
            f"{unfinished} with {counted(missing, 'job')} to go. The same command goes on, or: "
            f"{plan.resume_command(folder)}"
        )
    elif failed:
        notes.append(f"to run what failed again: {plan.resume_command(folder)} sweep.retry=failed")
    return notes
