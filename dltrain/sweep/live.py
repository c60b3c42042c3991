"""The sweep on the terminal: a live table where there is one, plain lines in pipes and files; and the result."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dltrain.loggers.events import has_curves
from dltrain.sweep.backends.protocol import CompleteBackend
from dltrain.sweep.jobs import Job, number, with_interval
from dltrain.sweep.outcome.ranking import Row
from dltrain.sweep.plan.coverage import ALL
from dltrain.sweep.plan.cut import left_out
from dltrain.sweep.plan.plan import Plan
from dltrain.text import counted, show

SHOWN = 15  # rows of the ranked table
LISTED = 1000  # jobs of a dry run
REFRESH = 0.25  # seconds


def clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Quiet:
    """Shows nothing; the base of the other displays."""

    def resumed(self, done: int) -> None:
        """Count jobs that an earlier driver finished."""

    def changed(self, job: Job) -> None:
        """Show that a job began or ended."""

    def tick(self, jobs: list[Job], running: list[Job], left: float | None) -> None:
        """Draw, if it is time to; `left` is the number of seconds that the sweep still needs."""

    def close(self) -> None:
        """Give the terminal back."""


class Lines(Quiet):
    """One line for each job that ends."""

    def __init__(self, total: int) -> None:
        self.total, self.ended = total, 0

    def resumed(self, done: int) -> None:
        self.ended = done

    def changed(self, job: Job) -> None:
        if job.state == "running":
            return
        self.ended += job.is_done
        show(f"[{self.ended}/{self.total}] {describe(job)}")


class Live(Lines):
    """Running jobs in a table that is redrawn; ended jobs as lines above it."""

    def __init__(self, total: int, mode: str) -> None:
        super().__init__(total)
        self.mode = mode
        from rich.console import Console
        from rich.live import Live as Region

        self.console = Console()
        self.region = Region(console=self.console, auto_refresh=False, transient=True)
        self.region.start()
        self.due = 0.0

    def changed(self, job: Job) -> None:
        if job.state == "running":
            return
        self.ended += job.is_done
        style = "red" if job.failed else "yellow" if job.state in ("pruned", "interrupted") else ""
        self.console.print(
            f"[{self.ended}/{self.total}] {describe(job)}", style=style, markup=False, highlight=False
        )

    def tick(self, jobs: list[Job], running: list[Job], left: float | None) -> None:
        now = time.monotonic()
        if now < self.due:
            return
        self.due = now + REFRESH
        eta = f" · {clock(left)} left" if left is not None else ""
        best = best_so_far(jobs, self.mode)
        title = f"{self.ended} of {self.total} jobs done{eta}{best}"
        shown = sorted(running, key=lambda job: job.number)
        table = table_of(title, shown, self.console.width, max(4, self.console.height - 6))
        self.region.update(table, refresh=True)

    def close(self) -> None:
        self.region.stop()


def table_of(title: str, running: list[Job], width: int, room: int) -> Any:
    """Return lines for at most `room` running jobs, `width` columns wide; a narrow terminal cuts the overrides, not the numbers."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    for head in ("job", "overrides", "state", "epoch", "now", "best"):
        words = head in ("overrides", "state")
        table.add_column(head, justify="left" if words else "right", no_wrap=True, overflow="ellipsis")
    for job in running[:room]:
        cells = (job.number, job.label(), job.state, f"{job.epoch:g}", number(job.value), number(job.best))
        table.add_row(*(Text(str(cell)) for cell in cells))  # as text: [l1,dropout] is no markup
    if len(running) > room:
        table.caption, table.caption_justify = Text(f"  … {len(running) - room} more"), "left"
    others = [column for column in table.columns if column.header != "overrides"]
    taken = sum(2 + max(len(str(cell)) for cell in (column.header, *column.cells)) for column in others)
    table.columns[1].max_width = max(3, width - taken)
    return table


def best_so_far(jobs: list[Job], mode: str) -> str:
    """Return the best value of all jobs until now, and its job."""
    known = [(job.best, job.number) for job in jobs if job.best is not None and not job.failed]
    if not known:
        return ""
    value, owner = (min if mode == "min" else max)(known)
    return f" · best {number(value)} (job {owner})"


def display(total: int, quiet: bool, mode: str = "min") -> Quiet:
    if quiet:
        return Quiet()
    live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    return Live(total, mode) if live else Lines(total)


def describe(job: Job) -> str:
    """Return the line of a job that ended."""
    head = f"job {job.number}  {job.label()}  {job.state.replace('_', ' ')}"
    if job.failed:
        return f"{head}: {job.short_reason}"
    if job.objective is None:
        return head
    return (
        f"{head}  {number(job.objective)} at epoch {job.summary.get('best_epoch', 0):g}  {job.seconds:.1f} s"
    )


def print_table(jobs: list[Job], notes: list[str]) -> None:
    """Print the jobs of a dry run, and how they would run."""
    width = max((len(job.label()) for job in jobs), default=0)
    show(f"{'job':>5}  {'axes':<{width}}  overrides")
    for job in jobs:
        show(f"{job.number:>5}  {job.label():<{width}}  {' '.join(job.overrides)}")
    show("".join(f"\n{note}" for note in notes))


def dry_run(
    plan: Plan, checked: int, backend: CompleteBackend, command_for: Callable[[Job], list[str]]
) -> int:
    """Print the jobs of a grid, or the axes of a search."""
    if plan.configurations is None:
        for axis in plan.axes:
            values = ", ".join(axis.labels) or f"{axis.low:g} … {axis.high:g}{' (log)' if axis.log else ''}"
            show(f"{axis.name}: {values}")
        runs = plan.total
        show(
            f"sweep={plan.word}: {runs} jobs at most; {checked} configurations with every value checked; nothing was run"
        )
        return 0
    shown = [plan.job_of(number, Path("SWEEP")) for number in range(min(plan.total, LISTED))]
    for job in shown:
        job.config = plan.composer.config(job.overrides)
        job.command = command_for(job)
    notes = backend.preview(shown)
    if plan.total > LISTED:
        notes = [f"… {plan.total - LISTED} more jobs", *(f"of the first {LISTED}: {note}" for note in notes)]
    print_table(shown, [*notes, *filter(None, [left_out(plan)])])
    told = "all composed and valid"
    if plan.total > ALL:
        told = f"every value, and every two values together, composed and valid in {checked} configurations"
    show(f"\n{counted(plan.total, 'job')}, {told}; nothing was run")
    return 0


def beside_objective(plan: Plan, rows: list[Row]) -> list[str]:
    """Return the columns that the ranking shows beside the metric of early stopping: the other objectives of a sweep with several.

    Else this is val/accuracy, or the first other metric of val.
    """
    if plan.objectives:
        return [name for name in plan.objectives if name != plan.metric]
    known = (
        [name for name in rows[0].jobs[0].summary.get("best") or {} if name.startswith("val/")]
        if rows
        else []
    )
    others = [name for name in known if name not in (plan.metric, "val/objective")]
    return ["val/accuracy"] if "val/accuracy" in others else others[:1]


def print_ranking(plan: Plan, rows: list[Row], jobs: list[Job], folder: Path, notes: list[str]) -> None:
    """Print the configurations, best first, then failures, warnings and where to look."""
    repeated = len(plan.replicates) > 1
    names = [row.label() for row in rows[:SHOWN]]
    width = max((len(name) for name in names), default=0)
    value = f"{plan.metric} (mean ± 95 %)" if repeated else plan.metric
    beside = beside_objective(plan, rows)
    if rows:
        show(
            f"\n{'rank':>4}  {'job':>5}  {'configuration':<{max(width, 13)}}  {value:>24}  "
            + "".join(f"{name:>{max(len(name), 8)}}  " for name in beside)
            + f"{'best epoch':>10}  status"
        )
    for place, (row, name) in enumerate(zip(rows[:SHOWN], names, strict=True), start=1):
        shown = with_interval(row.mean, row.half_width) if repeated else number(row.mean)
        first = row.jobs[0]
        status = row.verdict or ("best" if place == 1 and row.complete else first.state.replace("_", " "))
        show(
            f"{place:>4}  {first.number:>5}  {name:<{max(width, 13)}}  {shown:>24}  "
            + "".join(f"{number(row.mean_at_best(metric)):>{max(len(metric), 8)}}  " for metric in beside)
            + f"{number(row.mean_at_best('best_epoch') or 0.0):>10}  {status}"
        )
    if len(rows) > SHOWN:
        show(f"      … {len(rows) - SHOWN} more in results.csv")
    for job in [job for job in jobs if job.failed][:SHOWN]:
        show(
            f"\njob {job.number} {job.state}: {job.short_reason or 'no reason known'}\n"
            f"  rerun: {plan.rerun_command(job)}\n  log:   {job.folder / 'run.log'}"
        )
    for note in notes:
        show(f"\nnote: {note}")
    done = sum(job.is_done and not job.failed for job in jobs)
    total = plan.total
    states = Counter(job.state for job in jobs if job.failed)
    lost = "".join(f", {found} {state}" for state, found in states.items()) + "," * bool(states)
    show(f"\n{done} of {counted(total, 'job')} done{lost} in {folder}\nreport:      {folder / 'report.html'}")
    if any(has_curves(job.folder) for job in jobs if not job.failed):
        show(f"tensorboard --logdir {shlex.quote(str(folder))}")
