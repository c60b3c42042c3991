"""Tests of this project: `pip install pytest && pytest`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from my_data import spirals
from my_metrics import WorstClass
from my_models import Sines

import dltrain


def test_every_spiral_has_as_many_points():
    inputs, classes = spirals(points=300).tensors
    assert inputs.shape == (300, 2)
    assert classes.bincount().tolist() == [100, 100, 100]


def test_the_model_fits_the_shape_of_the_data():
    assert Sines(input_shape=(2,), num_classes=3, width=8)(torch.zeros(5, 2)).shape == (5, 3)


def test_the_worst_class_by_hand():
    metric = WorstClass(num_classes=3)
    # class 0: one of two is right; class 1: the only one is right; class 2 has no samples
    metric.update(torch.eye(3)[[0, 1, 1]], torch.tensor([0, 0, 1]))
    assert metric.compute() == pytest.approx(0.5)


def test_the_recipe_learns(tmp_path: Path):
    run = dltrain.train("experiment=spirals", epochs=5, output=str(tmp_path), quiet=True)
    assert run.summary["status"] == "completed"
    # a guess: 1 / 3
    assert run.summary["test"]["accuracy"] > 0.5
