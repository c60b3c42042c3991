"""Rows of one file that are in the other one, too: counted against Python's sets, and told."""

from __future__ import annotations

import random

import pytest
import torch

from dltrain.data.equal_samples import copies
from dltrain.data.prepare import prepare
from dltrain.data.table import csv


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_those_of_python_s_sets(seed):
    draws = random.Random(seed)
    rows = [[draws.choice([0.0, -0.0, 1.5]) for _ in range(7)] for _ in range(300)]
    targets = [draws.choice([0, 1]) for _ in rows]
    known, asked = range(200), range(200, 300)
    seen = {(*rows[i], targets[i]) for i in known}
    expected = sum((*rows[i], targets[i]) in seen for i in asked)
    found = copies(torch.tensor(rows), torch.tensor(targets), torch.tensor(known), torch.tensor(asked))
    assert 0 < expected < 100 and found == expected


def test_a_test_file_with_rows_of_training_is_told(tmp_path):
    draws = random.Random(0)
    rows = [f"{draws.random()},{draws.random()},{draws.choice('ab')}" for _ in range(200)]
    for name, part in (
        ("all", rows),
        ("some", [*rows[:40], *(f"0.{i},1,a" for i in range(60))]),
        ("new", [f"1.{i},2,b" for i in range(50)]),
    ):
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,z,y", *part]) + "\n")

    def notes(test, **split):
        raw = csv(str(tmp_path / "all.csv"), target="y", test_path=str(tmp_path / f"{test}.csv"))
        options = {
            "val_fraction": 0.1,
            "test_fraction": 0.1,
            "split_seed": 0,
            "folds": None,
            "fold": None,
        } | split
        return [
            note
            for note in prepare(raw, **options, device=torch.device("cpu")).spec.notes
            if note.startswith("copies")
        ]

    (note,) = notes("some", val_fraction=0.0)
    assert note.startswith(
        "copies   40 of the 100 test samples are equal to training samples in all inputs and the target"
    )
    assert notes("new") == []


def test_rows_of_training_that_are_cut_off_for_a_test_split_are_told(tmp_path):
    draws = random.Random(1)
    rows = [f"{draws.random()},{'val' if i < 40 else 'train'},{draws.choice('ab')}" for i in range(200)]
    (tmp_path / "t.csv").write_text("\n".join(["x,part,y", *rows]) + "\n")

    def notes(test_fraction):
        raw = csv(str(tmp_path / "t.csv"), target="y", split_column="part")
        splits = prepare(
            raw,
            val_fraction=0.1,
            test_fraction=test_fraction,
            split_seed=0,
            folds=None,
            fold=None,
            device=torch.device("cpu"),
        )
        assert len(splits.val) == 40
        return [note for note in splits.spec.notes if note.startswith("splits")], len(splits.train)

    (note,), left = notes(0.1)
    assert left == 144
    assert note == (
        "splits   the data define no test split, so that 16 samples of their train split are taken for one; to train on them: dataset.test_fraction=0"
    )
    assert notes(0.0) == ([], 160)
