"""The axis of the objective in the report of a sweep: its range, and what its labels say in a browser."""

from __future__ import annotations

import pytest
from pages import drawn, in_browser

from dltrain.report.page import fill
from dltrain.sweep.outcome import report
from dltrain.sweep.outcome.axes import ValueAxis
from dltrain.sweep.outcome.charts import on_axis


def test_a_loss_over_decades_is_logarithmic_with_all_values_inside():
    axis = ValueAxis.of([4e-4, 0.01, 0.3, 1.05], "min")
    assert axis == ValueAxis(4e-4, 1.05, log=True)


@pytest.mark.parametrize("mode, outlier, cut", [("min", 90.0, "≥"), ("max", 0.011, "≤")])
def test_values_beyond_are_cut(mode, outlier, cut):
    axis = ValueAxis.of([1 + 0.01 * i for i in range(30)] + [outlier], mode)
    assert axis.cut == cut and axis.low >= 1 and axis.high <= 1.29


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
    (tmp_path / "test.html").write_text(
        '{% extends "page.html" %}{% block body %}<section><div data-charts="slices"></div></section>{% endblock %}'
    )
    (chart,) = drawn(fill(tmp_path / "test.html", data, title=""), tmp_path)
    xs, others, best = chart["data"]
    edge = axis.edge
    assert sorted(v for v in [*others, *best] if v is not None) == pytest.approx(
        sorted(min(axis.high, max(axis.low, v)) for v in values)
    )
    assert sum(v == pytest.approx(edge) for v in others if v is not None) >= 2
    assert xs == sorted(xs) and all(abs(x - round(x)) < 0.2 for x in xs)
    assert label in chart["axes"][1] and len(chart["axes"][1]) >= 3
    assert chart["axes"][0] == ["x", "y"] and chart["painted"] > 500
    assert report.__doc__
