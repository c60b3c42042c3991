"""The axis of the objective in the report of a sweep: its range, and what its labels say in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pages import drawn, in_browser

from dltrain.report.page import fill
from dltrain.sweep.outcome.axes import ValueAxis
from dltrain.sweep.outcome.charts import on_axis


def test_a_loss_over_decades_is_logarithmic_with_all_values_inside():
    axis = ValueAxis.of([4e-4, 0.01, 0.3, 1.05], "min")
    assert axis == ValueAxis(4e-4, 1.05, log=True)


@pytest.mark.parametrize("mode, outlier, cut", [("min", 90.0, "≥"), ("max", 0.011, "≤")])
def test_values_beyond_are_cut(mode, outlier, cut):
    axis = ValueAxis.of([1 + 0.01 * i for i in range(30)] + [outlier], mode)
    assert axis.cut == cut and axis.low >= 1 and axis.high <= 1.29


def test_a_diverged_curve_is_cut_from_a_logarithmic_axis():
    good = [0.05 + 0.01 * k for k in range(200)]
    axis = ValueAxis.of([*good, 1e5, 1e12, 1e18], "min")
    assert (axis.low, axis.cut) == (0.05, "≥") and 1.8 < axis.high <= 2.04
    # decades that most of the values fill stay
    assert ValueAxis.of([10.0**-k for k in range(12)], "min") == ValueAxis(1e-11, 1, log=True)
    axis = ValueAxis.of([*(10.0 ** (-k / 10) for k in range(60)), 1e18], "min")
    assert axis.log and axis.cut == "≥" and axis.high <= 1


def test_values_that_flatten_nothing_are_not_cut():
    axis = ValueAxis.of([0.22, 0.5, 0.8, 1.4, 1.9, 2.0, 2.1, 2.15, 2.18, 2.24], "min")
    assert axis == ValueAxis(0.22, 2.24)


@pytest.mark.ci
@in_browser
@pytest.mark.parametrize("mode, outlier, label", [("min", 90.0, "≥ 1.28"), ("max", 0.011, "≤ 1.01")])
def test_values_beyond_run_along_the_edge_whose_label_says_so(tmp_path, mode, outlier, label):
    values = [1 + 0.01 * i for i in range(30)] + [outlier]
    axis = ValueAxis.of(values, mode)
    dots = [
        {"label": f"a={k}", "place": k + 1, "score": value, "half": None, "best": k == 0, "at": [k % 2]}
        for k, value in enumerate(values)
    ]
    data = {"axes": [{"name": "a", "labels": ["x", "y"]}], "configurations": dots, "charts": [],
            "objective": {"name": "val/loss", "mode": mode, **on_axis(axis)}}  # fmt: skip
    (chart,) = charts_of(data, "slices", tmp_path)
    xs, others, best = chart["data"]
    edge = axis.edge
    assert sorted(v for v in [*others, *best] if v is not None) == pytest.approx(
        sorted(min(axis.high, max(axis.low, v)) for v in values)
    )
    assert sum(v == pytest.approx(edge) for v in others if v is not None) >= 2
    assert xs == sorted(xs) and all(abs(x - round(x)) < 0.2 for x in xs)
    assert label in chart["axes"][1] and len(chart["axes"][1]) >= 3
    assert chart["axes"][0] == ["x", "y"] and chart["painted"] > 500


def charts_of(data: dict[str, Any], places: str, folder: Path) -> list[dict[str, Any]]:
    """Draw a page that has these places and nothing else."""
    parts = "".join(f'<section><div data-charts="{place}"></div></section>' for place in places.split())
    (folder / "test.html").write_text(f'{{% extends "page.html" %}}{{% block body %}}{parts}{{% endblock %}}')
    return drawn(fill(folder / "test.html", data, title=""), folder)


WORDS, RANGE = {"name": "a", "labels": ["x", "y"]}, {"name": "b", "low": 1, "high": 9, "log": True}


@pytest.mark.ci
@in_browser
@pytest.mark.parametrize("axes, at, scores", [
    ([WORDS, RANGE], [[0, None], [1, 3]], [1, 2]),
    ([WORDS, RANGE], [[0, None], [0, None]], [1, 2]),
    ([WORDS, WORDS], [[0, 0], [1, 1]], [1, 1]),
], ids=["inactive once", "never active", "equal scores"])  # fmt: skip
def test_axes_that_are_not_active_and_equal_scores_are_drawn(tmp_path, axes, at, scores):
    dots = [
        {"label": "c", "place": k, "score": score, "half": None, "best": k == 1, "at": place}
        for k, (score, place) in enumerate(zip(scores, at, strict=True), start=1)
    ]
    curve = {"name": "c", "best": True, "at": at[0], "x": [3], "values": [1]}
    chart = {
        "place": "curves",
        "title": "val/loss",
        "wide": True,
        "axes": [1, 0],
        "series": [curve],
        **on_axis(ValueAxis.of([1], "min")),
    }
    objective = {"name": "val/loss", "mode": "min", **on_axis(ValueAxis.of(scores, "min"))}
    data = {"axes": axes, "configurations": dots, "objective": objective, "charts": [chart]}
    charts = charts_of(data, "slices parallel curves", tmp_path)
    lines, *slices, parallel = charts
    assert lines["data"] == [[3], [1]] and all(chart["painted"] > 500 for chart in charts)
    for k, found in enumerate(slices):
        assert len(found["data"][0]) == sum(place[k] is not None for place in at)
    assert len(parallel["data"]) == 3 and all(len(line) == 3 for line in parallel["data"])


@pytest.mark.ci
@in_browser
@pytest.mark.parametrize("log, under", [(False, -1.0), (True, 0.5**2 / 2)])
def test_the_ends_of_a_band_stay_where_they_are_beyond_a_cut_axis(tmp_path, log, under):
    curve = {
        "name": "c",
        "best": True,
        "at": [0],
        "x": [1, 2],
        "values": [3, 1],
        "low": [2, -1],
        "high": [4, 3],
    }
    chart = {
        "place": "curves",
        "title": "val/loss",
        "axes": [0],
        "series": [curve],
        "range": [0.5, 2],
        "log": log,
        "cut": "≥",
    }
    (found,) = charts_of({"axes": [WORDS], "charts": [chart]}, "curves", tmp_path)
    # the curve runs along the edge
    assert found["data"] == [[1, 2], [2, 1], [2, under], [4, 3]]
