"""The axis and the legend of a figure: outliers do not flatten the curves, and the plot keeps most of the height."""

from __future__ import annotations

import re

import pytest
from made import make_sweep, stamp

from dltrain.commands.compare import members_of
from dltrain.sweep.outcome import comparison, figure
from dltrain.sweep.outcome.extent import Extent, extent_of, legend_of

CM = 72 / 2.54


def rows_of(means, half=0.0, least=0.0):
    return [{"mean": v, "low": v - half, "high": v + half, "least": least} for v in means]


def test_a_loss_over_more_than_two_decades_is_logarithmic():
    assert extent_of(rows_of([300, 5, 0.02]), "min") == Extent(0.01, 1000, log=True)
    assert Extent(0.01, 1000, log=True).decades == [0.01, 0.1, 1, 10, 100, 1000]
    assert Extent(1e-9, 1e6, log=True).decades == [1e-9, 1e-6, 1e-3, 1, 1e3, 1e6]
    assert not extent_of(rows_of([3, 1, 0.1]), "min").log
    assert not extent_of(rows_of([300, 1, 0.0]), "min").log
    assert not extent_of(rows_of([0.001, 0.5, 0.9]), "max").log


def test_an_outlier_that_flattens_the_others_is_cut_and_it_is_said():
    found = extent_of(rows_of([40, *(1 + 0.01 * i for i in range(20))]), "min")
    assert (found.high, found.note) == (pytest.approx(1.19), "cut: 1 above 1.19 of 21 values")
    # a usual start of training is no outlier
    usual = extent_of(rows_of([2.3, 1.5, 1, 0.8, 0.6, 0.5]), "min")
    assert (usual.high, usual.note) == (2.3, "")


def test_intervals_go_neither_below_zero_nor_far_beyond_the_curves():
    assert extent_of(rows_of([0.1, 0.2, 0.4], half=0.3), "min").low == 0
    assert extent_of(rows_of([0.1, 0.4], half=9), "min").high == pytest.approx(0.55)
    assert extent_of(rows_of([0.9, 0.98], half=0.03), "max").high == 1
    assert extent_of(rows_of([-0.1, 0.2], half=0.1, least=-0.2), "min").low == pytest.approx(-0.2)


def test_intervals_that_reach_beyond_the_axis_are_counted():
    found = extent_of(rows_of([0.1, 0.4], half=9), "min")
    assert found.note == "cut: 2 above 0.55 and 2 below 0 of 2 intervals"
    assert extent_of(rows_of([0.2, 0.3], half=0.01), "min").note == ""
    found = extent_of(rows_of([300, 5, 0.02], half=1), "min")
    assert found == Extent(0.01, 1000, log=True, note="cut: 1 below 0.01 of 3 intervals")
    values = [40, *(1 + 0.01 * i for i in range(20))]
    found = extent_of(rows_of(values, half=0.102), "min")
    assert found.note == "cut: 1 above 1.19 of 21 values, 12 above 1.19 and 1 below 0.905 of 21 intervals"


@pytest.mark.ci
@pytest.mark.parametrize("means, half", [([0.3, 0.2, 0.1], 0.4), ([300, 5, 0.02], 0.01), ([300, 5, 0.02], 1)])
def test_the_band_is_the_interval_and_the_frame_clips_it(workdir, means, half):
    pytest.importorskip("altair")
    rows = [
        {**row, "configuration": "a", "epoch": k, "n": 2} for k, row in enumerate(rows_of(means, half=half))
    ]
    extent = extent_of(rows, "min")
    spec = figure.chart(rows, figure.Style(workdir / "c.svg"), "val/loss", ["a"], extent)
    drawn = spec["data"]["values"]
    for row, made in zip(rows, drawn, strict=True):
        assert made["high"] == row["high"]
        # a logarithm has none at or below zero
        assert made["low"] == row["low"] or (extent.log and row["low"] <= 0 and 0 < made["low"] < extent.low)
    band, line = spec["layer"]
    assert band["mark"]["clip"] and line["mark"]["clip"]
    assert band["encoding"]["y"]["scale"]["domain"] == [extent.low, extent.high]
    assert ("cut: " in str(spec.get("title"))) == bool(extent.note)


@pytest.mark.parametrize("length, beside", [(12, True), (44, False)])
@pytest.mark.parametrize("width, height", [(12, 7.5), (8.5, 6), (17, 6)])
def test_a_legend_leaves_sixty_per_cent_of_the_height(length, beside, width, height):
    found = legend_of(["x" * length] * 8, width * CM, height * CM, 9, False)
    assert found.beside == beside
    if not found.beside and found.most > 2:
        lines = found.most / found.columns
        assert lines * 16 <= 0.4 * height * CM - 3.5 * 9
    assert found.most >= 2


@pytest.mark.ci
@pytest.mark.parametrize("words", ["", "a_long_word_of_a_run_that_says_much"])
def test_the_plot_has_sixty_per_cent_of_the_figure(workdir, dltrain, capsys, words):
    pytest.importorskip("vl_convert")
    jobs = [
        {
            "objective": 0.1 * lr,
            "config": {"lr": lr, "optimizer.lr": lr, "model": f"{words}{lr}", "seed": seed},
        }
        for lr in range(1, 21)
        for seed in range(2)
    ]
    make_sweep(workdir / "outputs" / "s" / stamp(0), jobs)
    assert dltrain("compare", "0000", "--figure", "c.svg", "--size", "12x7.5") == 0
    heights = re.findall(r'class="background"[^>]* d="M0,0h[\d.]+v([\d.]+)', (workdir / "c.svg").read_text())
    assert max(map(float, heights)) >= 0.6 * 7.5 * CM
    assert re.search(
        r"the figure c.svg shows the best \d of 20 configurations", " ".join(capsys.readouterr().out.split())
    )


def test_a_figure_of_several_data_shows_the_best_of_each(workdir):
    jobs = [{"objective": lr, "config": {"lr": lr, "optimizer.lr": lr}} for lr in range(1, 11)]
    one, other = (make_sweep(workdir / "outputs" / "s" / stamp(n), jobs) for n in range(2))
    for file in other.glob("*/data.json"):
        file.write_text('{"task": "classification", "fingerprint": "x"}')
    found = comparison.compare(members_of([one, other]))
    assert [(group.data, group.place) for group in figure.best_of(found, 4)] == [
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 2),
    ]
