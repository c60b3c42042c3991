"""report.html of a sweep: one file that opens anywhere, offline. What is told is here, what is drawn in charts.py."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dltrain.direction import BETTER
from dltrain.report.page import fill
from dltrain.sweep.jobs import Job, number, write
from dltrain.sweep.outcome.charts import data_of, is_best
from dltrain.sweep.outcome.ranking import Row, uncertainty
from dltrain.sweep.plan.plan import Plan

MAX_ROWS = 200  # of the ranking
MAX_FAILURES = 50


def write_report(
    plan: Plan, rows: list[Row], jobs: list[Job], notes: list[str], folder: Path, file: Path | None = None
) -> None:
    """Write the report of the sweep in a folder: report.html in it, or another file."""
    data = data_of(plan, rows, jobs)
    failed = [job for job in jobs if job.failed]
    page = fill(
        Path(__file__).with_name("sweep.html"),
        data,
        title=f"{folder.parent.name}: sweep {folder.name}",
        name=folder.parent.name,
        sweep=folder.name,
        plan=plan,
        axes=", ".join(axis.name for axis in plan.axes) or "none",
        better=BETTER[plan.mode],
        best=(number(rows[0].mean), rows[0].label()) if rows and rows[0].complete else None,
        facts=facts(plan, jobs),
        notes=notes,
        ranking=ranking(plan, rows[:MAX_ROWS]),
        ranking_heads=ranking_heads(plan),
        rows_left_out=len(rows) - MAX_ROWS,
        repeated=is_repeated(plan),
        failures=[failure(plan, job) for job in failed[:MAX_FAILURES]],
        failures_left_out=len(failed) - MAX_FAILURES,
        importance=bars(plan, rows),
        drawn=len(data["configurations"]),
        undrawn=sum(row.complete for row in rows) - len(data["configurations"]),
        curves=data["charts"][0] if data["charts"] else None,
        objective=data.get("objective"),
    )
    write(file or folder / "report.html", page + "\n")


def facts(plan: Plan, jobs: list[Job]) -> dict[str, int]:
    """Return the counts of the jobs, those that diverged apart from those that failed."""
    lost = Counter(job.state for job in jobs if job.failed)
    return {
        "jobs": len(jobs),
        "done": sum(job.is_done and not job.failed and job.state != "pruned" for job in jobs),
        "pruned": sum(job.state == "pruned" for job in jobs),
        "failed": lost.pop("failed", 0),
        **lost,
        "missing": plan.total - sum(job.is_done for job in jobs),
    }


def is_repeated(plan: Plan) -> bool:
    return len(plan.replicates) > 1


def ranking_heads(plan: Plan) -> list[str]:
    others = [name for name in plan.objectives if name != plan.metric]
    last = (
        ["std", "95 % interval", "n", "against the best"] if is_repeated(plan) else ["best epoch", "status"]
    )
    return ["#", "job", "configuration", plan.metric, *others, *last]


def ranking(plan: Plan, rows: Sequence[Row]) -> list[tuple[bool, list[object]]]:
    """Return whether a configuration is marked as the best, and its cells."""
    lines = []
    for place, row in enumerate(rows, start=1):
        first = row.jobs[0]
        cells: list[object] = [place, first.number, row.label(), number(row.mean)]
        others = zip(plan.objectives, row.objectives, strict=False)
        cells += [f"{value:.6g}" for name, value in others if name != plan.metric]
        if is_repeated(plan):
            interval = "–" if math.isnan(row.half_width) else f"± {number(row.half_width)}"
            cells += [number(row.deviation), interval, len(row.units)]
            cells.append("best" if place == 1 and row.complete else row.verdict or "incomplete")
        else:
            cells += [f"{first.summary.get('best_epoch', 0):g}", row.verdict or first.state.replace("_", " ")]
        lines.append((is_best(plan, row, place), cells))
    return lines


def failure(plan: Plan, job: Job) -> dict[str, Any]:
    """Return what is known of a failed job: its reason, the command that runs it again, and its log."""
    return {
        "number": job.number,
        "state": job.state,
        "label": job.label(),
        "reason": job.short_reason or "no reason known",
        "command": plan.rerun_command(job),
        "log": f"{job.folder.name}/run.log",
    }


def bars(plan: Plan, rows: list[Row]) -> list[dict[str, Any]]:
    """Return the importance of the axes with its interval, in percent; `chance`: the interval begins at none."""
    return [
        {"name": name, "share": 100 * share, "low": 100 * low, "high": 100 * high, "chance": low < 1e-9}
        for name, (share, low, high) in uncertainty(plan, rows).items()
    ]
