"""The recording holds every word and tells every difference; `-m slow` replays it whole."""

from __future__ import annotations

import copy
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from configurations import configurations
from recording import FILE, differences, digest, dump, read

ROOT = Path(__file__).parents[2]
GROUPS = (
    "augmentation averaging dataset diagnostics early_stopping initializer loss metrics model optimizer regularization sampler "
    "schedule sweep wrap"
).split()
DEFAULTS = {"none", "dataset=digits", "model=mlp", "initializer=default", "loss=auto", "sweep=grid", "early_stopping=patience"}  # fmt: skip
NOT_RECORDED = {
    "a download": "cifar10 cifar100 fashion_mnist kmnist mnist svhn",
    "an extra package": "timm cmaes",
    "its time alone; resnet20 is the same class": "resnet32 resnet56",
    "Optuna's own draws, which change with its version": "gp nsga2",
}


def words_of(text: str) -> set[str]:
    """`group=word` of each word of a command line, those of lists and of swept axes too."""
    pairs = [part.partition("=")[::2] for part in text.split()]
    return {f"{group}={word}" for group, words in pairs for word in re.split(r"[\[\],]+", words) if word}


def test_every_word_has_a_configuration():
    recorded = set().union(*(words_of(c.words) for c in configurations())) | DEFAULTS
    left_out = set(" ".join(NOT_RECORDED.values()).split())
    words = {(group, file.stem) for group in GROUPS for file in (ROOT / "conf" / group).glob("*.yaml")}
    assert len(words) > 120
    missing = {f"{group}={word}" for group, word in words if word not in left_out | {"none"}} - recorded
    assert not missing, "add a configuration, and record it: python -m tests.golden record --only NAME"


def test_the_recording_holds_the_configurations_as_they_are():
    recorded = {name: found["command"] for name, found in read(FILE)["configurations"].items()}
    assert recorded == {c.name: f"dltrain {c.words}" for c in configurations()}


@pytest.fixture
def jobs():
    return copy.deepcopy(read(FILE)["configurations"]["ema"]["jobs"])


def changed(jobs, **parts):
    found = copy.deepcopy(jobs)
    for part, values in parts.items():
        found[""][part] |= values
    return found


def test_the_next_float_is_another_result(jobs):
    column = jobs[""]["metrics"]["val/loss"]
    after = changed(jobs, metrics={"val/loss": [column[0], math.nextafter(column[1], 1)]})
    (text,) = differences(jobs, after, 0.0)
    assert text.startswith("column val/loss: first in row 2: was ")
    assert differences(jobs, after, 1e-4) == []
    assert differences(jobs, copy.deepcopy(jobs), 0.0) == []


@pytest.mark.parametrize(
    "parts, text",
    [
        ({"metrics": {"val/loss": [1.0]}}, "column val/loss: 2 rows were recorded, there are 1"),
        ({"metrics": {"mine": [1.0, 2.0]}}, "column mine is new"),
        ({"metrics": {"step": [4.0, 9.0]}}, "column step: first in row 2: was 8.0, is 9.0"),
        ({"summary": {"status": "early_stopped"}}, "summary status: was completed, is early_stopped"),
        ({"summary": {"test": {}}}, "summary test: was {"),
        ({"weights": {"best": {"sha256": "0", "norm": 1.0}}}, "best weights: another digest (norm was "),
    ],
)
def test_what_differs_is_named(jobs, parts, text):
    (said,) = differences(jobs, changed(jobs, **parts), 0.0)
    assert said.startswith(text)


def test_what_is_gone_is_named(jobs):
    after = copy.deepcopy(jobs)
    del after[""]["metrics"]["grad_norm"], after[""]["weights"]["best"]
    assert differences(jobs, after, 0.0) == ["column grad_norm is gone", "best weights are gone"]
    assert differences(jobs, {"0": after[""]}, 0.0) == ["jobs were  and are 0"]


def test_a_column_of_nan_is_equal_to_itself_only(jobs):
    nan = changed(jobs, metrics={"val/loss": [math.nan, 1.0]})
    assert differences(nan, copy.deepcopy(nan), 0.0) == []
    assert len(differences(nan, changed(nan, metrics={"val/loss": [1.0, 1.0]}), 1e-3)) == 1


def test_a_digest_sees_names_types_shapes_and_bits():
    weights = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3).double(), "b": torch.ones(1)},
        {"c": torch.zeros(2, 3), "b": torch.ones(1)},
        {"a": -torch.zeros(2, 3), "b": torch.ones(1)},
    ]
    digests = {digest(w)["sha256"] for w in (weights, *others)}
    assert len(digests) == 5
    assert digest({"b": torch.ones(1), "a": torch.zeros(3, 2).T.reshape(2, 3)}) == digest(weights)
    assert digest(weights)["norm"] == 1.0


def test_floats_are_written_as_they_are(tmp_path):
    numbers = [0.1 + 0.2, 5e-324, 1 / 3, float("inf")]
    (tmp_path / "f.json").write_text(dump({"x": {"y": numbers}}))
    assert read(tmp_path / "f.json")["x"]["y"] == numbers


@pytest.mark.slow
def test_results_are_those_of_the_recording():
    answer = subprocess.run(
        [sys.executable, "-m", "tests.golden", "replay"], cwd=ROOT, capture_output=True, text=True
    )
    if answer.returncode == 3:
        pytest.skip(answer.stdout.splitlines()[0])
    assert answer.returncode == 0, answer.stdout + answer.stderr
