"""Schedules against their closed forms over the whole range, at every boundary and past the end."""

from __future__ import annotations

import importlib
import math

import pytest
import torch

from dltrain import schedules
from dltrain.config.catalogue import Catalogue
from dltrain.config.search_path import catalogue_dir
from dltrain.schedules import Plateau

CATALOGUE = Catalogue(catalogue_dir())
TOTAL, EPOCH = 120, 10  # steps of the run and of an epoch

CLOSED = [
    ("constant", {}, lambda t, n: 1.0),
    ("constant", {"start": 0.9}, lambda t, n: 0.9),
    ("step", {"factor": 0.5, "every_epochs": 3}, lambda t, n: 0.5 ** (t // 30)),
    ("step", {"factor": 0.1, "every_steps": 7}, lambda t, n: 0.1 ** (t // 7)),
    ("multistep", {}, lambda t, n: 0.1 ** ((t >= n / 2) + (t >= n * 0.75))),
    ("multistep", {"milestones": [2, 5.5], "unit": "epochs"}, lambda t, n: 0.1 ** ((t >= 20) + (t >= 55))),
    (
        "multistep",
        {"milestones": [1, 99], "unit": "steps", "factor": 0.5},
        lambda t, n: 0.5 ** ((t >= 1) + (t >= 99)),
    ),
    ("exponential", {"rate": 0.3}, lambda t, n: math.exp(-0.3 * (t // 10))),
    ("exponential", {"rate": 0.01, "unit": "steps"}, lambda t, n: math.exp(-0.01 * t)),
    ("inverse", {"rate": 0.3}, lambda t, n: 1 / (1 + 0.3 * (t // 10))),
    ("inverse", {"rate": 0.3, "unit": "steps"}, lambda t, n: 1 / (1 + 0.3 * t)),
    ("inverse_sqrt", {}, lambda t, n: 1 / math.sqrt(t // 10 + 1)),
    ("inverse_sqrt", {"unit": "steps"}, lambda t, n: 1 / math.sqrt(t + 1)),
    ("inverse_k", {}, lambda t, n: 1 / (t // 10 + 1)),
    ("inverse_k", {"unit": "steps"}, lambda t, n: 1 / (t + 1)),
    ("linear", {}, lambda t, n: 1 - min(t, n) / n),
    ("linear", {"start": 0.5, "end": 0.9}, lambda t, n: 0.5 + 0.4 * min(t, n) / n),
    ("polynomial", {"power": 3.0, "end": 0.1}, lambda t, n: 0.1 + 0.9 * (1 - min(t, n) / n) ** 3),
    ("cosine", {}, lambda t, n: 0.5 * (1 + math.cos(math.pi * min(t, n) / n))),
    ("cosine", {"start": 0.0, "end": 1.0}, lambda t, n: 0.5 * (1 - math.cos(math.pi * min(t, n) / n))),
]
WARMUPS = [({}, 0), ({"warmup_steps": 20}, 20), ({"warmup_epochs": 1.5}, 15)]


@pytest.mark.parametrize(("warmup", "length"), WARMUPS)
@pytest.mark.parametrize(("word", "settings", "closed"), CLOSED)
def test_closed_form_over_the_whole_range_and_past_the_end(word, settings, closed, warmup, length):
    schedule = getattr(schedules, word)(TOTAL, EPOCH, **settings, **warmup)
    for step in range(3 * TOTAL):
        left = TOTAL - length
        expected = (
            closed(0, left) * (step + 1) / (length + 1) if step < length else closed(step - length, left)
        )
        assert schedule(step) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_values_past_the_end_stay():
    for word in ("linear", "cosine", "polynomial"):
        schedule = getattr(schedules, word)(TOTAL, EPOCH, end=0.3)
        assert schedule(TOTAL - 1) > 0.3
        assert schedule(TOTAL) == schedule(10**9) == pytest.approx(0.3)


def test_warm_up_rises_from_its_first_part_to_the_schedule():
    schedule = schedules.cosine(TOTAL, EPOCH, warmup_steps=4)
    assert [schedule(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_cosine_restarts_fill_the_run_with_growing_cycles():
    schedule = schedules.cosine_restarts(70, EPOCH, cycles=3, growth=2.0, end=0.1)
    for first, length in ((0, 10), (10, 20), (30, 40)):
        for t in range(length):
            expected = 0.1 + 0.9 * (1 + math.cos(math.pi * t / length)) / 2
            assert schedule(first + t) == pytest.approx(expected)
    assert schedule(70) == schedule(1000) == pytest.approx(0.1)


def test_cosine_restarts_equal_torchs():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    optimizer.step()
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=10, T_mult=2)
    ours = schedules.cosine_restarts(70, EPOCH)
    for step in range(70):
        assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"])
        theirs.step()


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
def test_one_cycle_turns_at_its_peak(anneal):
    schedule = schedules.one_cycle(100, EPOCH, rise=0.25, anneal=anneal)
    for step in range(200):
        share, low, high = (step / 25, 0.04, 1.0) if step < 25 else (min(step - 25, 75) / 75, 1.0, 4e-6)
        way = (1 - math.cos(math.pi * share)) / 2 if anneal == "cosine" else share
        assert schedule(step) == pytest.approx(low + (high - low) * way)
    assert (schedule(0), schedule(25), schedule(100)) == pytest.approx((0.04, 1.0, 4e-6))


def test_triangular_goes_up_and_down_and_shrinks():
    schedule = schedules.triangular(90, EPOCH, start=0.1, peak=1.0, cycles=3, shrink=0.5)
    for step in range(90):
        cycle, t = divmod(step, 30)
        up = t / 15 if t <= 15 else 2 - t / 15
        assert schedule(step) == pytest.approx(0.1 + 0.9 * 0.5**cycle * up)
    assert schedule(90) == schedule(500) == pytest.approx(0.1)


# Plateau: the metric, and the changes made after each evaluation (patience 2)
PLATEAUS = [
    ([5, 4, 3, 2], {}, [0, 0, 0, 0]),
    ([5, 5, 5, 5, 5], {}, [0, 0, 1, 1, 2]),
    ([5, 6, 4, 4, 4], {}, [0, 0, 0, 0, 1]),
    ([-1.0, -0.95, -0.9], {}, [0, 0, 1]),  # a worse negative score is no improvement
    ([5, math.nan, math.inf, 4], {}, [0, 0, 0, 0]),
    ([math.nan, math.nan, 4, 3], {}, [0, 0, 0, 0]),
    ([5, 6, math.nan, 6], {}, [0, 0, 0, 1]),  # the evaluation between two others is as if it had not been
    ([5, 4.95, 4.9, 4.7], {"min_delta": 0.2}, [0, 0, 1, 1]),
    ([0.5, 0.6, 0.6, 0.5], {"mode": "max"}, [0, 0, 0, 1]),
    ([-1.0, -1.05, -1.1], {"mode": "max", "min_delta": 0.1}, [0, 0, 1]),
]


@pytest.mark.parametrize(("metrics", "settings", "changes"), PLATEAUS)
def test_plateau_follows_its_rule_on_a_recorded_metric(metrics, settings, changes):
    plateau, values = Plateau(TOTAL, EPOCH, factor=0.5, patience=2, end=0.2, **settings), []
    for metric in metrics:
        plateau.observe(metric, 50)
        values.append(plateau(50))
    assert values == pytest.approx([0.2 + 0.8 * 0.5**count for count in changes])


def test_plateau_equals_torchs_on_a_random_curve():
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, threshold=0.0)
    ours = Plateau(TOTAL, EPOCH, factor=0.5, patience=3)  # torch changes one evaluation after its patience
    for metric in torch.rand(60, generator=generator).tolist():
        theirs.step(metric)
        ours.observe(metric, 1)
        assert ours(0) == optimizer.param_groups[0]["lr"]


def test_plateau_resumes_from_every_evaluation():
    metrics = [5, 6, 4, 4, 4, 3, 3, 3, 3]
    for cut in range(len(metrics)):
        straight, resumed = Plateau(TOTAL, EPOCH, patience=2), Plateau(TOTAL, EPOCH, patience=2)
        for index, metric in enumerate(metrics):
            if index == cut:
                resumed.load_state_dict(straight.state_dict())
            straight.observe(metric, index + 1)
            if index >= cut:
                resumed.observe(metric, index + 1)
        assert resumed.state_dict() == straight.state_dict()


def test_plateau_warms_up():
    plateau = Plateau(TOTAL, EPOCH, warmup_steps=3, patience=1)
    assert [plateau(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    # the rate fell inside the warm-up: 0.235, 0.471, 0.353
    rates = []
    for step in range(6):
        rates.append(plateau(step))
        plateau.observe(1.0, step + 1)
    assert rates == [0.25, 0.5, 0.75, 1.0, 0.5, 0.25]


GROUPS = ("schedule", "momentum_schedule", "penalty_schedule")
WORDS = [(group, name) for group in GROUPS for name in CATALOGUE.words[group] if name != "none"]


def built(group, name, *runtime):
    """The schedule of a word with its defaults."""
    node = CATALOGUE.words[group][name].configuration()[group]
    module, _, attribute = node.pop("_target_").rpartition(".")
    return getattr(importlib.import_module(module), attribute)(*runtime, **node)


def test_the_three_groups_have_the_same_words():
    assert all(CATALOGUE.words[group].keys() == CATALOGUE.words["schedule"].keys() for group in GROUPS)


@pytest.mark.parametrize(("group", "name"), WORDS)
def test_every_word_builds_and_stays_in_its_range(group, name):
    schedule = built(group, name, 600, 20)
    values = [schedule(step) for step in range(700)]
    low, high = {"schedule": (0, 1), "momentum_schedule": (0.5, 0.95), "penalty_schedule": (0, 1)}[group]
    assert all(low <= value <= high for value in values)
    if name not in ("constant", "plateau"):
        assert len(set(values)) > 1


def test_momentum_rises_and_penalties_grow_by_default():
    for group, start, end in (("momentum_schedule", 0.5, 0.9), ("penalty_schedule", 0.0, 1.0)):
        schedule = built(group, "linear", 100, 10)
        assert [schedule(0), schedule(50), schedule(100)] == pytest.approx([start, (start + end) / 2, end])


def test_momentum_has_a_range_and_defaults_of_its_own():
    words = CATALOGUE.words["momentum_schedule"]
    keys = words["one_cycle"].params
    ends = [keys[f"momentum_schedule.{key}"].value for key in ("start", "peak", "end")]
    assert ends == [0.95, 0.85, 0.95]
    assert keys["momentum_schedule.peak"].rule.text == "float in [0, 1)"
    assert keys["momentum_schedule.rise"].value == CATALOGUE.words["schedule"]["one_cycle"].keys["rise"]
    assert words["constant"].keys["start"] == 0.9


REFUSED = [
    (
        "cosine",
        {"warmup_steps": 120},
        r"warmup_steps is 120, which takes 120 steps; the run has 120 .* lower it or",
    ),
    ("cosine", {"warmup_epochs": 13}, r"warmup_epochs is 13, which takes 130 steps; the run has 120"),
    (
        "linear",
        {"warmup_steps": 1, "warmup_epochs": 1},
        r"warmup_steps is 1 and warmup_epochs is 1; .*set the other",
    ),
    (
        "step",
        {"every_epochs": 12},
        r"every_epochs is 12, a period of 120 steps; the schedule has 120 .*lower it",
    ),
    *(
        (
            word,
            {"warmup_steps": TOTAL - EPOCH},
            rf"unit is epochs, and the schedule has {EPOCH} steps, .* never change",
        )
        for word in ("exponential", "inverse", "inverse_sqrt", "inverse_k")
    ),
    ("step", {"every_steps": 110, "warmup_steps": 10}, r"every_steps is 110, .* the schedule has 110"),
    (
        "multistep",
        {"milestones": [10, 20]},
        r"milestones holds 10 \(unit=share\).*above 0 and below 1: .*unit=share\|epoch",
    ),
    (
        "multistep",
        {"milestones": [12], "unit": "epochs"},
        r"milestones holds 12 \(unit=epochs\), step 120 of 120;.*below 12",
    ),
    (
        "multistep",
        {"milestones": [0], "unit": "steps"},
        r"milestones holds 0 \(unit=steps\), step 0 .*below 120",
    ),
    (
        "cosine_restarts",
        {"cycles": 9},
        r"cycles is 9; the schedule has 120 steps and each cycle must have one",
    ),
    ("triangular", {"cycles": 130}, r"cycles is 130; the schedule has 120 steps .*lower cycles"),
    (
        "triangular",
        {"cycles": 120},
        r"cycles is 120, .* one for each cycle, so that its value would never change",
    ),
    (
        "cosine_restarts",
        {"cycles": 20, "growth": 1.0, "warmup_steps": 100},
        r"cycles is 20, and the schedule has 20 steps, one for each cycle",
    ),
    ("Plateau", {"warmup_steps": 500}, r"warmup_steps is 500"),
]


@pytest.mark.parametrize(("word", "keys"), [("triangular", {}), ("cosine_restarts", {"growth": 1.0})])
def test_cycles_are_refused_exactly_where_no_step_differs(word, keys):
    for steps in range(2, 9):
        with pytest.raises(schedules.Unfit) as error:
            getattr(schedules, word)(steps, EPOCH, cycles=steps, **keys)
        fewer = {int(error.value.cure.removeprefix("cycles=")), *range(1, steps)}
        for cycles in fewer:
            value = getattr(schedules, word)(steps, EPOCH, cycles=cycles, **keys)
            assert len({value(step) for step in range(steps)}) > 1


@pytest.mark.parametrize(("word", "settings", "message"), REFUSED)
def test_refuses_what_does_not_fit_the_run(word, settings, message):
    with pytest.raises(ValueError, match=message):
        getattr(schedules, word)(TOTAL, EPOCH, **settings)


# What a user reads of it ----------------------------------------------------------------------------------------------


def test_the_titles_of_a_family_say_from_where_to_where_by_default():
    words = CATALOGUE.words
    titles = {group: {name: word.notes["summary"] for name, word in words[group].items()} for group in GROUPS}
    assert titles["schedule"]["linear"] == "Linear decay over the run."
    assert titles["momentum_schedule"]["linear"] == "Linear change over the run (momentum: 0.5 → 0.9)."
    assert titles["penalty_schedule"]["inverse"] == "Inverse change (multiple of the strengths: 0 → 1)."
    assert titles["penalty_schedule"]["one_cycle"].endswith("(multiple of the strengths: 0 → 1 → 0).")
    assert "fine-tuning" in words["schedule"]["linear"].notes["use"]
    assert "regularize" in words["penalty_schedule"]["linear"].notes["use"]


@pytest.mark.parametrize(
    "typed, says",
    [
        (
            "regularization=[l2,l1] penalty_schedule=linear",
            "regularization l2, l1 · strengths × 0 → 0.667 (linear)",
        ),
        (
            "regularization=[l2] penalty_schedule=plateau",
            "regularization l2 · strengths × 0 until a plateau of val/loss",
        ),
        ("optimizer=momentum momentum_schedule=constant", "momentum 0.9 → 0.9 (constant)"),
        ("", ""),
    ],
)
def test_the_header_names_rules_and_what_is_scheduled(dltrain, capsys, typed, says):
    dltrain(*typed.split(), "dataset=iris", "steps=3", "early_stopping=none", "logger=none")
    lines = [
        line.split(maxsplit=1)[1]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("  rules")
    ]
    assert lines == ([says] if says else [])
