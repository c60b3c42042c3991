"""The axes of the pictures in the report of a sweep: ticks, ranges, and labels that are whole and apart."""

from __future__ import annotations

import re

import pytest

from dltrain.sweep.outcome.axes import ValueAxis, label_beside, labels_below, ticks, width_of


def test_ticks_are_even_numbers():
    assert ticks(0, 15, 8) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert ticks(0.1234, 0.1256, 4) == [0.124, 0.125]
    assert ticks(2, 2, 5) == [2]


def test_a_loss_over_decades_has_powers_of_ten_and_all_values_inside():
    axis = ValueAxis.of([4e-4, 0.01, 0.3, 1.05], "min", 150, 15)
    assert [label for _, label in axis.marks] == ["0.001", "0.01", "0.1", "1"]
    assert (axis.at(4e-4), axis.at(1.05)) == (pytest.approx(150), pytest.approx(15))


@pytest.mark.parametrize("mode, outlier, label", [("min", 90.0, "≥ 1.28"), ("max", 0.011, "≤ 1.01")])
def test_values_beyond_are_at_the_edge_whose_label_says_so(mode, outlier, label):
    axis = ValueAxis.of([1 + 0.01 * i for i in range(30)] + [outlier], mode, 150, 15)
    edge = 15 if mode == "min" else 150
    assert axis.at(outlier) == edge
    assert (edge, label) in axis.marks
    places = sorted(place for place, _ in axis.marks)
    assert len(places) >= 3
    assert min(b - a for a, b in zip(places, places[1:], strict=False)) > 14


def test_values_that_flatten_nothing_are_not_cut():
    axis = ValueAxis.of([0.22, 0.5, 0.8, 1.4, 1.9, 2.0, 2.1, 2.15, 2.18, 2.24], "min", 280, 15)
    assert (axis.low, axis.high, axis.cut) == (0.22, 2.24, "")


def test_labels_that_would_touch_are_slanted():
    words = ["adam", "momentum", "sgd", "adamw", "rmsprop", "lion"]
    assert "rotate" in labels_below([(60 + 48.0 * i, word) for i, word in enumerate(words)], 175)[0]
    assert (
        "rotate"
        not in labels_below([(60 + 80.0 * i, word) for i, word in enumerate(["0.1", "0.01"])], 175)[0]
    )


def test_labels_between_axes_stand_on_a_ground_and_those_outside_beside_the_lines():
    assert label_beside(100, 50, "a<b", first=False, last=False).startswith('<rect class="ground"')
    assert "a&lt;b" in label_beside(100, 50, "a<b", first=False, last=False)
    assert re.match(
        r'<text x="94.0" [^>]*text-anchor="end">', label_beside(100, 50, "lion", first=True, last=False)
    )
    assert "ground" not in label_beside(100, 50, "0.1", first=False, last=True)
    assert width_of(["m", "momentum"]) >= 56
