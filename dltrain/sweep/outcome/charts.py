"""Arrange the configurations of a sweep as the data that report/charts.js draws: their axes, scores and curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from dltrain.config.keys import REPLICATES
from dltrain.direction import mean_of, value_in
from dltrain.errors import CheckpointProblem
from dltrain.report.charts import rounded
from dltrain.storage.summary import read_rows
from dltrain.sweep.jobs import Chosen, Job, label
from dltrain.sweep.outcome import statistics
from dltrain.sweep.outcome.axes import ValueAxis
from dltrain.sweep.outcome.ranking import Row, importance, part_of
from dltrain.sweep.plan.plan import Plan
from dltrain.sweep.plan.space import Axis

MAX_DRAWN = 1000  # configurations of one chart, the best of them first
MAX_CURVES = 200  # jobs whose curves are read
MAX_POINTS = 120  # of one curve
MAX_BANDS = 20  # configurations with the interval of their mean
LONGEST_LABEL = 300

Item = TypeVar("Item")
Points = dict[float, float]


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


def data_of(plan: Plan, rows: list[Row], jobs: list[Job]) -> dict[str, Any]:
    """Return the data of all charts.

    axes: with their labels in order, or the ends of their range; configurations: with their values `at` the axes, a label by its number;
    objective: its range on all charts; charts: the curves.
    """
    shown, at = sampled(rows), places_on(plan)
    places = {id(row): place for place, row in enumerate(rows, start=1)}
    found: dict[str, Any] = {
        "axes": [axis_data(axis) for axis in plan.search_axes],
        "configurations": [
            {
                "label": row.label()[:LONGEST_LABEL],
                "place": places[id(row)],
                "score": rounded(row.mean),
                "half": rounded(row.half_width),
                "best": is_best(plan, row, places[id(row)]),
                "at": at(row.chosen),
            }
            for row in shown
        ],
        "charts": curves(plan, rows, jobs),
    }
    if shown:
        axis = ValueAxis.of([row.mean for row in shown], plan.mode)
        found["objective"] = {"name": plan.metric, "mode": plan.mode, **on_axis(axis)}
    return found


def is_best(plan: Plan, row: Row, place: int) -> bool:
    """Return whether the ranking marks a configuration: the first one, or of several objectives each trade-off."""
    return row.complete and (row.verdict == "trade-off" if plan.objectives else place == 1)


def on_axis(axis: ValueAxis) -> dict[str, Any]:
    return {"range": [rounded(axis.low), rounded(axis.high)], "log": axis.log, "cut": axis.cut}


def axis_data(axis: Axis) -> dict[str, Any]:
    if axis.options:
        return {"name": axis.name, "labels": [label[:LONGEST_LABEL] for label in in_order(axis.labels)]}
    return {"name": axis.name, "low": axis.low, "high": axis.high, "log": axis.log}


def in_order(labels: list[str]) -> list[str]:
    """Sort numbers by size; leave words in the given order."""
    try:
        return sorted(labels, key=float)
    except ValueError:
        return labels


def places_on(plan: Plan) -> Callable[[Chosen], list[float | None]]:
    """Return a function of a configuration: its value on each axis, of a label its number; None where the axis is not active."""
    numbers = {
        axis.name: {text: k for k, text in enumerate(in_order(axis.labels))} for axis in plan.search_axes
    }

    def place(name: str, chosen: Chosen) -> float | None:
        if name not in chosen:
            return None
        return numbers[name][chosen[name]] if numbers[name] else rounded(chosen[name])

    return lambda chosen: [place(name, chosen) for name in numbers]


# Curves -----------------------------------------------------------------------------------------------------------


def curves(plan: Plan, rows: list[Row], jobs: list[Job]) -> list[dict[str, Any]]:
    """Return the chart of the metric over the epochs, a curve for each configuration: the mean over its repetitions.

    Ranked configurations come first, the best drawn last. The best ones have the 95 % interval of the mean.
    """
    ranked = {row.jobs[0].trial: place for place, row in enumerate(rows, start=1)}
    by_trial: dict[int, list[Job]] = {}
    for job in jobs:
        by_trial.setdefault(job.trial, []).append(job)
    ordered = sorted(by_trial, key=lambda trial: (ranked.get(trial, math.inf), trial))
    most = max(1, MAX_CURVES // len(plan.replicates))
    shown = [*ordered[:1], *spread(ordered[1:], most - 1)]
    best = {row.jobs[0].trial for place, row in enumerate(rows, start=1) if is_best(plan, row, place)}
    at, series = places_on(plan), []
    for number, trial in enumerate(shown):
        curve = mean_curve(by_trial[trial], plan.metric, banded=number < MAX_BANDS)
        chosen = {k: v for k, v in by_trial[trial][0].chosen.items() if k not in REPLICATES}
        name = (label(chosen) or "(the defaults)")[:LONGEST_LABEL]
        if curve:
            series.append({"name": name, "best": trial in best, "at": at(chosen), **curve})
    if not series:
        return []
    values = [value for found in series for value in found["values"]]
    shares = importance(plan, rows)
    names = [axis.name for axis in plan.search_axes]
    axes = sorted(range(len(names)), key=lambda k: -shares.get(names[k], 0.0))
    chart = {"place": "curves", "title": plan.metric, "wide": True, "axes": axes, "series": series[::-1]}
    return [{**chart, "left_out": len(ordered) - len(shown), **on_axis(ValueAxis.of(values, plan.mode))}]


def mean_curve(jobs: list[Job], metric: str, banded: bool) -> dict[str, Any] | None:
    """Return the mean over the jobs that did not fail, at the epochs that all of them have; None without such epochs."""
    whole = [job for job in jobs if not job.failed] or jobs
    found_curves = [(part_of(job), read_curve(job.folder / "metrics.csv", metric)) for job in whole]
    parts = [part for part, points in found_curves if points]
    runs = [points for _, points in found_curves if points]
    epochs = [epoch for epoch in runs[0] if all(epoch in run for run in runs)] if runs else []
    if not epochs:
        return None
    values = [[run[epoch] for run in runs] for epoch in epochs]
    units = [statistics.independent(column, parts) for column in values]
    means = [mean_of(column) for column in units]
    found: dict[str, Any] = {"x": epochs, "values": [rounded(mean) for mean in means]}
    if banded and len(runs) > 1:
        halves = [statistics.half_width(column) for column in units]
        found["low"] = [rounded(mean - half) for mean, half in zip(means, halves, strict=True)]
        found["high"] = [rounded(mean + half) for mean, half in zip(means, halves, strict=True)]
    return found


def read_curve(file: Path, metric: str) -> Points:
    """Return the metric of a metrics.csv by epoch, finite values only, thinned out; none of a damaged file."""
    with suppress(CheckpointProblem):
        rows = read_rows(file)
        found = {row.get("epoch", math.nan): value_in(row, metric) for row in rows}
        points = {epoch: value for epoch, value in found.items() if math.isfinite(epoch + value)}
        return dict(list(points.items())[:: max(1, len(points) // MAX_POINTS)])
    return {}
