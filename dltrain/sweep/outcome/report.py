"""report.html: one file that opens anywhere, offline: pictures are SVG, styles are inside, and nothing is fetched."""

from __future__ import annotations

import csv
import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from dltrain.direction import BETTER
from dltrain.report.page import style
from dltrain.sweep.jobs import Job, number, write
from dltrain.sweep.outcome.axes import (
    ValueAxis,
    label_beside,
    labels_below,
    labels_left,
    scale,
    shortened,
    ticks,
    width_of,
)
from dltrain.sweep.outcome.ranking import Row, importance
from dltrain.sweep.plan.plan import Plan
from dltrain.sweep.plan.space import Axis

MAX_ROWS = 200  # of the ranking
MAX_FAILURES = 50
MAX_DRAWN = 1000  # configurations of one picture, the best of them first
MAX_CURVES = 200
MAX_POINTS = 120  # of one curve


Item = TypeVar("Item")


def write_report(
    plan: Plan, rows: list[Row], jobs: list[Job], notes: list[str], folder: Path, file: Path | None = None
) -> None:
    """Write the report of the sweep in a folder: report.html in it, or another file."""
    best = rows[0] if rows and rows[0].complete else None
    parts = [
        _head(plan, rows, jobs, folder),
        *(f'<div class="warn">{_text(note)}</div>' for note in notes),
        _section("Ranking", _ranking(plan, rows)),
        _section("Failed jobs", _failures(plan, jobs)),
        _section("Which axes matter", _importance(plan, rows)),
        _section("Each axis alone", _slices(plan, rows)),
        _section("All axes together", _parallel(plan, rows)),
        _section(f"Curves of {plan.metric}", _curves(plan, jobs, best)),
    ]
    title = _text(f"{folder.parent.name}: sweep {folder.name}")
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{style()}</style></head><body>{''.join(parts)}</body></html>\n"
    )
    write(file or folder / "report.html", page)


def _text(value: object) -> str:
    return html.escape(str(value))


def _section(title: str, body: str) -> str:
    return f'<h2>{_text(title)}</h2><section class="card">{body}</section>' if body else ""


def _head(plan: Plan, rows: list[Row], jobs: list[Job], folder: Path) -> str:
    """Return the title, the best configuration in one line, and the counts."""
    done = sum(job.is_done and not job.failed and job.state != "pruned" for job in jobs)
    states = {
        "jobs": len(jobs),
        "done": done,
        "pruned": sum(job.state == "pruned" for job in jobs),
        "failed": sum(job.failed for job in jobs),
        "missing": plan.total - sum(job.is_done for job in jobs),
    }
    facts = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in states.items())
    axes = ", ".join(axis.name for axis in plan.axes) or "none"
    if rows and rows[0].complete:
        line = f"Best {_text(plan.metric)}: <b>{number(rows[0].mean)}</b> with <code>{_text(rows[0].label())}</code>"
    else:
        line = '<span class="bad">No configuration was completed.</span>'
    return (
        f'<h1>{_text(folder.parent.name)}</h1><p class="soft">sweep {_text(folder.name)} · {_text(plan.word)} over {_text(axes)} · '
        f"{_text(plan.metric)}, {BETTER[plan.mode]}</p><p>{line}</p><div class='facts'>{facts}</div>"
    )


def _ranking(plan: Plan, rows: list[Row]) -> str:
    if not rows:
        return ""
    repeated = len(plan.replicates) > 1
    heads = [
        "#",
        "job",
        "configuration",
        plan.metric,
        *(name for name in plan.objectives if name != plan.metric),
    ]
    heads += ["std", "95 % interval", "n", "against the best"] if repeated else ["best epoch", "status"]
    lines = []
    for place, row in enumerate(rows[:MAX_ROWS], start=1):
        first = row.jobs[0]
        cells = [place, first.number, row.label(), number(row.mean)]
        others = zip(plan.objectives, row.objectives, strict=False)
        cells += [f"{value:.6g}" for name, value in others if name != plan.metric]
        if repeated:
            interval = "–" if math.isnan(row.half_width) else f"± {number(row.half_width)}"
            cells += [number(row.deviation), interval, len(row.values)]
            cells.append("best" if place == 1 and row.complete else row.verdict or "incomplete")
        else:
            cells += [f"{first.summary.get('best_epoch', 0):g}", row.verdict or first.state.replace("_", " ")]
        best = row.verdict == "trade-off" if plan.objectives else place == 1
        mark = ' class="best"' if best and row.complete else ""
        lines.append(f"<tr{mark}>" + "".join(map(_cell, heads, cells)) + "</tr>")
    about = _left_out(len(rows) - MAX_ROWS, "are in results.csv")
    if repeated:
        about += (
            '<p class="soft">Mean over the repetitions with Student’s interval. Against the best: paired t-test by repetition, '
            "corrected for the number of comparisons by Holm; “too few” below five repetitions.</p>"
        )
    if plan.objectives:
        about += '<p class="soft">A trade-off: no other configuration is as good in every objective and better in one.</p>'
    return f"<table><tr>{''.join(f'<th>{_text(h)}</th>' for h in heads)}</tr>{''.join(lines)}</table>{about}"


def _cell(head: str, value: object) -> str:
    """Return a cell of the ranking; a configuration may have several lines."""
    start = '<td class="wrap">' if head == "configuration" else "<td>"
    return f"{start}{_text(value)}</td>"


def _failures(plan: Plan, jobs: list[Job]) -> str:
    """List failed jobs, each with its reason, the command that runs it again, and its log."""
    failed = [job for job in jobs if job.failed]
    listed = "".join(
        f'<div class="fail"><b>job {job.number}</b> {_text(job.label())}<p class="bad">{_text(job.short_reason or "no reason known")}</p>'
        f"<code>{_text(plan.rerun_command(job))}</code>"
        f'<p class="soft">log: <a href="{job.folder.name}/run.log">{job.folder.name}/run.log</a></p></div>'
        for job in failed[:MAX_FAILURES]
    )
    return listed + _left_out(len(failed) - MAX_FAILURES, "are in results.csv, with their reasons")


def _left_out(count: int, where: str) -> str:
    """Say how many are not shown, and where they are."""
    return f'<p class="soft">{count:,} more {where}.</p>' if count > 0 else ""


def sampled(rows: list[Row]) -> list[Row]:
    """Return the complete rows to draw: all, or of many the best tenth of `MAX_DRAWN` and the others evenly by their rank."""
    rows = [row for row in rows if row.complete]
    if len(rows) <= MAX_DRAWN:
        return rows
    best = MAX_DRAWN // 10
    return rows[:best] + spread(rows[best:], MAX_DRAWN - best)


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Return `count` items, evenly spaced; all where there are no more."""
    step = max(1.0, len(items) / max(1, count))
    return [items[int(i * step)] for i in range(min(count, len(items)))]


def _importance(plan: Plan, rows: list[Row]) -> str:
    shares = importance(plan, rows)
    if not shares:
        return ""
    lines = []
    for i, (name, share) in enumerate(shares.items()):
        y = 8 + 24 * i
        lines.append(
            f'<text x="190" y="{y + 12}" text-anchor="end">{_text(name)}</text><rect x="200" y="{y}" width="{max(1.0, 400 * share):.1f}" '
            f'height="16" rx="3"/><text x="{208 + 400 * share:.1f}" y="{y + 12}">{100 * share:.0f} %</text>'
        )
    about = '<p class="soft">Share of the variance of the objective that an axis explains alone (η², over the completed configurations).</p>'
    return f'<svg viewBox="0 0 700 {16 + 24 * len(shares)}">{"".join(lines)}</svg>{about}'


def _positions(axis: Axis, rows: list[Row]) -> tuple[dict[int, float], list[tuple[float, str]]]:
    """Return the position of each row on an axis, from 0 to 1, and the ticks."""
    if axis.options:
        step = 1 / max(1, len(axis.labels) - 1)
        place = {label: i * step for i, label in enumerate(in_order(axis.labels))}
        ticks = [(p, label) for label, p in place.items()] if len(place) <= 12 else []
        return {
            i: place[row.chosen[axis.name]] for i, row in enumerate(rows) if axis.name in row.chosen
        }, ticks
    scaled = math.log if axis.log else float
    to = scale(scaled(axis.low), scaled(axis.high), 0, 1)
    found = {i: to(scaled(row.chosen[axis.name])) for i, row in enumerate(rows) if axis.name in row.chosen}
    return found, [(0, f"{axis.low:g}"), (1, f"{axis.high:g}")]


def in_order(labels: list[str]) -> list[str]:
    """Sort numbers by size; leave words in the given order."""
    try:
        return sorted(labels, key=float)
    except ValueError:
        return labels


def _slices(plan: Plan, rows: list[Row]) -> str:
    """Draw the objective over each axis, one dot a configuration."""
    shown = sampled(rows)
    more, rows = sum(row.complete for row in rows) - len(shown), shown
    if len(rows) < 2:
        return ""
    y = ValueAxis.of([row.mean for row in rows], plan.mode, 150, 15)
    left = 14 + width_of([label for _, label in y.marks])
    pictures = []
    for axis in plan.search_axes:
        places, marks = _positions(axis, rows)
        dots = "".join(
            f'<circle cx="{left + 12 + 240 * x:.1f}" cy="{y.at(rows[i].mean):.1f}" r="{5 if i == 0 else 3.5}" '
            f"{'class=b' if i == 0 else ''}><title>{_text(rows[i].label())}: {number(rows[i].mean)}</title></circle>"
            for i, x in reversed(places.items())
        )
        labels, depth = labels_below([(left + 12 + 240 * p, label) for p, label in marks], 175)
        pictures.append(
            f'<div><b>{_text(axis.name)}</b><svg viewBox="0 0 {left + 285:.0f} {depth:.0f}">'
            f'<path class="axis" d="M{left:.1f} 10V160H{left + 262:.1f}" fill="none"/>'
            f"{labels_left(y, left - 6)}{labels}{dots}</svg></div>"
        )
    return f'<div class="grid">{"".join(pictures)}</div>{_left_out(more, "are not drawn: those here are the best and an even sample")}'


def _parallel(plan: Plan, rows: list[Row]) -> str:
    """Draw parallel coordinates: one line a configuration over all axes to its objective."""
    rows = sampled(rows)
    axes = plan.search_axes
    if len(rows) < 2 or len(axes) < 2:
        return ""
    y = ValueAxis.of([row.mean for row in rows], plan.mode, 180, 30)
    columns = [_positions(axis, rows) for axis in axes]
    left = 16 + max(width_of([shortened(label) for _, label in columns[0][1]]), width_of([axes[0].name]) / 2)
    gap = (820 - left) / len(axes)
    lines = []
    for i in reversed(range(len(rows))):
        points = [
            f"{left + gap * c:.1f},{180 - 150 * places[i]:.1f}"
            for c, (places, _) in enumerate(columns)
            if i in places
        ]
        points.append(f"{left + gap * len(axes):.1f},{y.at(rows[i].mean):.1f}")
        lines.append(
            f'<polyline class="{"b" if i == 0 else "c"}" points="{" ".join(points)}"><title>{_text(rows[i].label())}</title></polyline>'
        )
    heads = [axis.name for axis in axes] + [plan.metric]
    frame = "".join(
        f'<path class="axis" d="M{left + gap * c:.1f} 30V180"/><text x="{left + gap * c:.1f}" y="205" text-anchor="middle">{_text(head)}</text>'
        for c, head in enumerate(heads)
    )
    # labels are where no line is: left of the first axis, right of the last one, and on a ground of their own between
    places = [[(184 - 150 * p, label) for p, label in marks] for _, marks in columns]
    places.append([(place + 4, label) for place, label in y.marks])
    labels = "".join(
        label_beside(left + gap * c, height, shortened(label), first=c == 0, last=c == len(axes))
        for c, marks in enumerate(places)
        for height, label in marks
    )
    return f'<svg viewBox="0 0 900 215">{frame}{"".join(lines)}{labels}</svg>'


def _curves(plan: Plan, jobs: list[Job], best: Row | None) -> str:
    """Draw the metric of every job over the epochs, the jobs of the best configuration marked."""
    winners = {job.number for job in best.jobs} if best else set()
    best_jobs = [job for job in jobs if job.number in winners][:MAX_CURVES]
    others = spread([job for job in jobs if job.number not in winners], MAX_CURVES - len(best_jobs))
    shown = [*others, *best_jobs]
    curves = [
        (job, points)
        for job in shown
        if len(points := read_curve(job.folder / "metrics.csv", plan.metric)) > 0
    ]
    if not curves:
        return ""
    y = ValueAxis.of([v for _, points in curves for _, v in points], plan.mode, 280, 15)
    left = 16 + width_of([label for _, label in y.marks])
    right = max(points[-1][0] for _, points in curves)
    x = scale(0, right, left, 880)
    lines = []
    for job, points in curves:
        path = " ".join(f"{x(e):.1f},{y.at(v):.1f}" for e, v in points)
        kind = "b" if job.number in winners else "c"
        lines.append(
            f'<polyline class="{kind}" points="{path}"><title>job {job.number}: {_text(job.label())}</title></polyline>'
        )
    left_out = _left_out(len(jobs) - len(shown), "are in their folders: those here are an even sample")
    about = (
        " Logarithmic scale."
        if y.log
        else f" The worst values run along the edge ({y.marks[-1][1]})."
        if y.cut
        else ""
    )
    epochs, depth = labels_below([(x(e), f"{e:g}") for e in ticks(0, right, 8)], 305)
    return (
        f'<svg viewBox="0 0 900 {depth + 14:.0f}">{labels_left(y, left - 6, 885 - left)}{epochs}'
        f'<path class="axis" d="M{left:.1f} 10V290H885" fill="none"/>'
        f'<text x="880" y="{depth + 10:.0f}" text-anchor="end">epoch</text>{"".join(lines)}</svg>'
        f'<p class="soft">In color: the best configuration.{about}</p>{left_out}'
    )


def read_curve(file: Path, metric: str) -> list[tuple[float, float]]:
    """Return (epoch, metric) of a metrics.csv, finite values only, thinned out."""
    if not file.is_file():
        return []
    points = []
    with open(file, encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            try:
                value = (
                    float(row["val/loss"]) - float(row["train/loss"])
                    if metric == "gap"
                    else float(row[metric])
                )
                epoch = float(row["epoch"])
            except (KeyError, TypeError, ValueError):  # a line that a kill cut short
                continue
            if math.isfinite(value):
                points.append((epoch, value))
    return points[:: max(1, len(points) // MAX_POINTS)]
