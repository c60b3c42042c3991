"""Notes below the ranking of a sweep: jobs that failed, were reused or are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dltrain.config.keys import REPLICATES
from dltrain.data.errors import some
from dltrain.errors import typed
from dltrain.storage.summary import texts
from dltrain.sweep.jobs import Job
from dltrain.sweep.outcome.groups import DIVIDED
from dltrain.sweep.outcome.members import AUTO, Member, rates_note
from dltrain.sweep.outcome.ranking import Row, scoring_axes
from dltrain.sweep.plan.cut import left_out
from dltrain.sweep.plan.plan import Plan
from dltrain.text import counted

# remarks of different runs that are shown
MOST_REMARKS = 5


def notes_of(plan: Plan, jobs: list[Job], folder: Path, missing: int, unfinished: str) -> list[str]:
    """Return notes on what was not tried or does not compare, and on jobs that failed, were reused or are missing, with commands.

    `unfinished` is the reason for which the sweep ended early.
    """
    notes = [note for note in (left_out(plan),) if note]
    scoring = scoring_axes(plan, jobs)
    if scoring:
        notes.append(
            f"configurations that differ in {' or '.join(scoring)} are scored on different samples or targets, so that their objectives do not "
            f"compare. One ranking for each: {typed('compare', folder)}"
        )
    parts = {tuple(replicate.get(key) for key in REPLICATES[1:]) for replicate in plan.replicates}
    notes += [DIVIDED] if 1 < len(parts) < len(plan.replicates) else []
    lost = [job for job in jobs if job.failed]
    if lost and len(lost) == len(jobs):
        first = lost[0]
        states = " or ".join(dict.fromkeys(job.state for job in lost))
        notes.append(f"every job {states}; the first, job {first.number}: {first.reason}")
    notes += remark_notes((f"job {job.number}", job.summary) for job in jobs if not job.failed)
    longer = [str(job.number) for job in jobs if job.summary.get("longer")]
    if longer:
        plural = "s were" if len(longer) > 1 else " was"
        notes.append(
            f"job{plural} trained longer than the sweep plans, by `resume` with more: {some(longer, 5)}. Ranked apart: {typed('compare', folder)}"
        )
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


def different_rates(rows: Iterable[Row]) -> list[str]:
    """Say where the repetitions of a configuration trained with different rates, since lr=auto chose one for each."""
    notes = []
    for row in rows:
        # only such jobs: each is read from its folder
        members = [Member(job.folder) for job in row.jobs if _searched_rate(job) and not job.failed]
        if len(members) > 1 and (note := rates_note(members)):
            notes.append(f"{row.label()}: {note}")
    return notes


def _searched_rate(job: Job) -> bool:
    return AUTO in job.overrides or "lr" in texts(job.summary.get("searched"))


def remark_notes(runs: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Return what runs, by their names, say of things that were planned and are not in their weights."""
    found: dict[str, list[str]] = {}
    for name, summary in runs:
        for remark in texts(summary.get("remarks")):
            found.setdefault(remark, []).append(name)
    notes = [f"{some(names, 3)}: {remark}" for remark, names in found.items()]
    more = len(notes) - MOST_REMARKS
    return notes[:MOST_REMARKS] + [
        f"{counted(more, 'more remark')} of this kind (`remarks` in summary.json)"
    ] * (more > 0)
