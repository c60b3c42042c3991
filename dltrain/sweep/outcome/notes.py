"""Notes below the ranking of a sweep: jobs that failed, were reused or are missing."""

from __future__ import annotations

from pathlib import Path

from dltrain.config.keys import splits_data
from dltrain.errors import typed
from dltrain.sweep.jobs import Job
from dltrain.sweep.plan.plan import Plan
from dltrain.text import counted


def notes_of(plan: Plan, jobs: list[Job], folder: Path, missing: int, unfinished: str) -> list[str]:
    """Return notes on what does not compare, and on jobs that failed, were reused or are missing, with the commands to continue.

    `unfinished` is the reason for which the sweep ended early.
    """
    notes = []
    splitting = [axis.name for axis in plan.search_axes if splits_data(axis.name)]
    if splitting:
        notes.append(
            f"configurations that differ in {' or '.join(splitting)} are scored on different samples, so that their objectives do not "
            f"compare. One ranking for each: {typed('compare', folder)}"
        )
    lost = [job for job in jobs if job.failed]
    if lost and len(lost) == len(jobs):
        first = lost[0]
        states = " or ".join(dict.fromkeys(job.state for job in lost))
        notes.append(f"every job {states}; the first, job {first.number}: {first.reason}")
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
    elif any(job.state == "failed" for job in jobs):
        notes.append(f"to run what failed again: {plan.resume_command(folder)} sweep.retry=failed")
    return notes
