"""The parts of a sweep, each against a second truth; nothing is trained here."""

from __future__ import annotations

import io
import json
import math
import random
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from pages import data_in
from scipy import stats

from dltrain.config import saved
from dltrain.config.compose import compose, open_catalogue, open_hydra
from dltrain.config.validation import validate
from dltrain.errors import CheckpointProblem, UserError
from dltrain.sweep.backends.protocol import Sweep
from dltrain.sweep.backends.slots import Slot, placed
from dltrain.sweep.backends.stacked import auto
from dltrain.sweep.jobs import Job
from dltrain.sweep.live import best_so_far, print_table, table_of
from dltrain.sweep.outcome import statistics
from dltrain.sweep.outcome.axes import objective_range
from dltrain.sweep.outcome.charts import curves
from dltrain.sweep.outcome.files import write_csv
from dltrain.sweep.outcome.ranking import Row, edges, importance, rank, scoring_axes, uncertainty, winner
from dltrain.sweep.outcome.report import write_report
from dltrain.sweep.plan import space
from dltrain.sweep.plan.composer import Composer
from dltrain.sweep.plan.grid import Table, grid_of
from dltrain.sweep.plan.plan import Plan
from dltrain.sweep.plan.space import Axis

CONFIGURATIONS = [
    ["lr=0.1"],
    ["lr=1e-3", "optimizer=momentum", "optimizer.momentum=0.5"],
    ["regularization=[dropout,l2]", "regularization.dropout.p=0.3", "regularization.l2.strength=1"],
    ["experiment=tabular", "lr=0.2", "model.hidden=[3,4]"],
    ["optimizer.betas=[0.1,0.2]", "tags=[a,b]", "name='1e3'", "notes=null"],
    ["lr=0.1", "optimizer.lr=0.3"],
    ["optimizer.lr=0.3"],
    ["regularization=[dropout]", "model.dropout=0.5"],
    [
        "experiment=tabular",
        "early_stopping.metric=val/accuracy",
        "schedule=plateau",
        "schedule.metric=val/loss",
    ],
    ["folds=5", "fold=2", "schedule=cosine", "schedule.warmup_epochs=1"],
    ["model=cnn", "augmentation=[shift,mixup]", "augmentation.mixup.alpha=0.4"],
    ["+experiment=none", "device=cpu"],
]


@pytest.fixture(scope="module")
def composer():
    catalogue = open_catalogue()
    return Composer(catalogue, open_hydra(catalogue))


def outcome(make):
    """The configuration, or the words of the refusal."""
    try:
        return make()
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("overrides", CONFIGURATIONS, ids=" ".join)
def test_a_quick_composition_equals_hydras(composer, overrides):
    real = outcome(lambda: validate(compose(overrides, composer.catalogue, composer.hydra)))
    assert outcome(lambda: composer.config(overrides)) == real
    assert outcome(lambda: composer.config(overrides)) == real  # the second time from the cache


NUMBERS = ["0", "7", "-3", "10000", "0.5", "0.50", "-0.001", "1e-3", "3e5", "2.5e-07", "-1.5e10", "0e0", "0.0", "-0", "-0.0",
           "1_000", "007", "+1", "1e+3", "1E3", ".5", "1.", "inf", "1e400", "0x10", "1,2", "1 ", "'1'", "null", "true"]  # fmt: skip


@pytest.mark.parametrize("key", ["lr", "optimizer.weight_decay", "regularization.l2.strength", "+lr", "++lr"])
def test_a_number_is_parsed_as_hydras_grammar_parses_it(key):
    """Its key is parsed once, and its value is read by Python."""
    for value in (*NUMBERS, *(repr(random.Random(i).uniform(-1e3, 1e3)) for i in range(20))):
        text = f"{key}={value}"
        hydras = OverridesParser.create().parse_overrides([text])[0]
        for _ in range(2):
            assert repr(space.parse_one(text)) == repr(hydras)
            assert type(space.parse_one(text).value()) is type(hydras.value())


def axes(*pairs: tuple[str, list[str]]) -> list[Axis]:
    return [Axis(name, tuple((v, (f"{name}={v}",)) for v in values)) for name, values in pairs]


def test_grid_has_hydras_order():
    found = list(space.grid(axes(("lr", ["1", "2"]), ("optimizer", ["a", "b"]))))
    assert [tuple(c.values()) for c in found] == [("1", "a"), ("1", "b"), ("2", "a"), ("2", "b")]


def test_a_pruned_grid_is_tried_in_a_shuffled_order_and_keeps_its_job_numbers(composer, tmp_path):
    words = axes(("lr", ["0.1", "0.01", "0.001"]), ("batch_size", ["32", "64", "128"]))
    plans = {}
    for pruner in ("none", "asha"):
        plan = Plan(words, [{}], [], {"pruner": pruner}, "grid", composer, composer.config([]), False)
        plan.configurations = grid_of(words, None, pruner != "none")
        jobs = [plan.jobs(t, chosen, tmp_path)[0] for t, chosen in enumerate(plan.configurations)]
        plans[pruner] = [(job.number, job.chosen) for job in jobs]
    assert plans["asha"] != plans["none"]
    assert sorted(plans["asha"], key=lambda pair: pair[0]) == plans["none"]
    assert [number for number, _ in plans["none"]] == list(range(9))


def test_conditions_leave_inactive_axes_out_of_a_grid():
    found = list(
        space.grid(
            space.axes_of_yaml(
                {
                    "optimizer": ["sgd", "adam"],
                    "momentum": {"values": [0.5, 0.9], "when": {"optimizer": "sgd"}},
                }
            )
        )
    )
    assert found == [
        {"optimizer": "sgd", "momentum": "0.5"},
        {"optimizer": "sgd", "momentum": "0.9"},
        {"optimizer": "adam"},
    ]


@pytest.mark.parametrize(
    "node, message",
    [
        ({"lr": 3}, "must be a list of values"),
        ({"lr": {"low": 1}}, "it needs values, or low and high"),
        ({"lr": []}, "must be a list of values"),
        (
            {"lr": {"low": 1, "high": 2, "lgo": True}},
            "`sweep.space.lr.lgo` is no key of an axis. Did you mean `log`",
        ),
        ({"lr": {"low": "a", "high": 2}}, "both ends must be numbers"),
        ({"lr": {"values": [1], "when": {"optimiser": "a"}}}, "names optimiser, which is no axis before it"),
    ],
)
def test_refused_spaces(node, message):
    with pytest.raises(Exception, match=message):
        space.axes_of_yaml(node)


def test_axes_survive_json():
    before = space.axes_of_yaml({"a": [1, 2], "b": {"low": 1, "high": 5, "int": True, "when": {"a": 1}}})
    assert space.from_plain(json.loads(json.dumps(space.to_plain(before)))) == before


def test_statistics_equal_scipys():
    draw = random.Random(0)
    left, right = ([draw.gauss(mean, 1) for _ in range(7)] for mean in (0, 0.5))
    assert statistics.paired_p(left, right) == pytest.approx(stats.ttest_rel(left, right).pvalue)
    low, high = stats.t.interval(0.95, 6, loc=sum(left) / 7, scale=stats.sem(left))
    assert statistics.half_width(left) == pytest.approx((high - low) / 2)
    assert statistics.paired_p(left, left) == 1.0
    assert math.isnan(statistics.half_width([1.0]))


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.5, 0.9]) == [1.0, 1.0]


def test_verdicts():
    best = [1.0, 1.1, 0.9, 1.0, 1.05]
    far, equal = [v + 1 for v in (1.0, 1.2, 0.9, 1.1, 1.0)], list(best)
    assert statistics.verdicts(best, [far, equal, [2.0]])[1:] == [
        "not distinguishable, p = 1",
        "too few runs to tell",
    ]
    assert statistics.verdicts(best, [far, equal, [2.0]])[0].startswith("p = ")
    assert statistics.verdicts([1.0] * 4, [[2.0] * 4]) == ["too few runs to tell"]


# A planted study: lr matters, and its best value is the edge; batch_size does nothing; dropout's two values are equal.

WIGGLE = {"32": [0.004, -0.003, 0.001, 0.002, -0.004], "64": [-0.002, 0.003, -0.001, -0.003, 0.003],
          "128": [0.001, 0.002, -0.004, 0.003, -0.002]}  # fmt: skip


def planted(composer, tmp_path: Path, mode: str = "min") -> tuple[Plan, list[Job]]:
    search = axes(
        ("lr", ["0.001", "0.01", "0.1"]), ("batch_size", list(WIGGLE)), ("model.dropout", ["0", "0.2"])
    )
    overrides = [*search, *axes(("seed", list("01234")))]
    replicates = [{"seed": s} for s in "01234"]
    metric = {"min": "val/loss", "max": "val/accuracy"}[mode]
    first = composer.config([f"early_stopping.metric={metric}"])
    plan = Plan(overrides, replicates, [], {"trials": None}, "grid", composer, first, False)
    jobs = []
    for trial, chosen in enumerate(space.grid(search)):
        for job in plan.jobs(trial, chosen, tmp_path):
            seed = int(job.chosen["seed"])
            value = {"0.1": 0.1, "0.01": 0.5, "0.001": 0.9}[chosen["lr"]] + 0.02 * seed
            value += WIGGLE[chosen["batch_size"]][seed]
            value = value if mode == "min" else 1 - value
            job.state = "completed"
            job.summary = {"objective": value, "best": {"val/loss": value}, "best_epoch": 3.0}
            jobs.append(job)
    plan.configurations = Table([jobs[5 * i].chosen for i in range(len(jobs) // 5)], repetitions=5)
    return plan, jobs


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_report_says_exactly_what_was_planted(composer, tmp_path, mode):
    plan, jobs = planted(composer, tmp_path, mode)
    rows = rank(plan, jobs)
    assert [row.chosen["lr"] for row in rows] == ["0.1"] * 6 + ["0.01"] * 6 + ["0.001"] * 6
    shares = importance(plan, rows)
    assert shares["lr"] > 0.99 and shares["batch_size"] < 0.01 and shares["model.dropout"] < 1e-9
    notes = edges(plan, rows)
    assert notes == ["the best lr is 0.1, the high end of its range: look further up."]
    # the best against each other one: equal, or different by noise alone, or by lr
    best, twin, *others = rows
    assert (best.chosen["batch_size"], best.values) == (twin.chosen["batch_size"], twin.values)
    assert twin.verdict == "not distinguishable, p = 1"
    for row in others:
        by_noise = row.chosen["lr"] == "0.1"
        assert row.verdict.startswith("not distinguishable" if by_noise else "p = "), row
    write_report(plan, rows, jobs, notes, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count("look further up") == 1 and page.count('class="warn"') == 1
    assert page.count("<td>not distinguishable, p = ") == 5 and page.count("<td>p = ") == 12
    # on a narrow screen the longest column has several lines, and a card says that it scrolls
    assert page.count('<td class="wrap">') == len(rows) and "td.wrap{white-space:normal" in page
    assert "section.scrolls::before,.scroll.scrolls::before{content:" in page
    assert "Failed jobs" not in page
    assert "://" not in page and page.count("<script") == 2
    check_charts(data_in(page), rows, mode)
    # an axis without an effect may be chance, and says so
    for name, sure in (("lr", True), ("batch_size", False), ("model.dropout", False)):
        bar = page.partition(f"<span>{name}</span>")[2].partition("</small>")[0]
        assert bar and ("may be chance" not in bar) is sure
    found = winner(plan, rows)
    assert found is not None and found.chosen["lr"] == "0.1"


def check_charts(data: dict[str, Any], rows: list[Row], mode: str) -> None:
    """The charts show the ranking: labels, means, half widths, and the label of each axis by its number."""
    assert [axis["name"] for axis in data["axes"]] == ["lr", "batch_size", "model.dropout"]
    assert data["axes"][1]["labels"] == ["32", "64", "128"]
    for place, (row, dot) in enumerate(zip(rows, data["configurations"], strict=True), start=1):
        assert (dot["label"], dot["place"], dot["best"]) == (row.label(), place, place == 1)
        assert (dot["score"], dot["half"]) == (
            pytest.approx(row.mean, rel=1e-5),
            pytest.approx(row.half_width, rel=1e-5),
        )
        chosen = [axis["labels"][k] for axis, k in zip(data["axes"], dot["at"], strict=True)]
        assert chosen == [row.chosen[axis["name"]] for axis in data["axes"]]
    means = [row.mean for row in rows]
    assert data["objective"]["mode"] == mode and not data["objective"]["cut"]
    assert data["objective"]["range"] == pytest.approx([min(means), max(means)], rel=1e-5)


def test_curves_of_a_configuration_are_the_mean_over_its_repetitions_with_its_interval(composer, tmp_path):
    """The second truth: each metrics.csv as it was written, and scipy's interval."""
    plan, jobs = planted(composer, tmp_path)
    written: dict[int, list[list[float]]] = {}
    for job in jobs:
        job.folder.mkdir(parents=True)
        values = [job.objective + 0.1 * (3 - epoch) + 0.01 * job.number for epoch in (1, 2, 3)]
        # one repetition ended earlier
        values = values[: 2 if job.number == 4 else 3]
        lines = [f"{epoch},{epoch},{value!r}" for epoch, value in enumerate(values, start=1)]
        (job.folder / "metrics.csv").write_text("\n".join(["epoch,step,val/loss", *lines]) + "\n")
        written.setdefault(job.trial, []).append(values)
    jobs[5].fail("killed")
    rows = rank(plan, jobs)
    (chart,) = curves(plan, rows, jobs)
    assert len(chart["series"]) == len(written) and [s["best"] for s in chart["series"]] == [False] * 17 + [
        True
    ]
    assert chart["series"][-1]["name"] == rows[0].label()
    by_name = {series["name"]: series for series in chart["series"]}
    for trial, runs in written.items():
        kept = runs[1:] if trial == 1 else runs
        name = next(row.label() for row in rows if row.jobs[0].trial == trial)
        series = by_name[name]
        assert series["x"] == [1, 2, 3][: min(map(len, kept))]
        for k, mean in enumerate(series["values"]):
            column = [run[k] for run in kept]
            low, high = stats.t.interval(
                0.95, len(column) - 1, loc=sum(column) / len(column), scale=stats.sem(column)
            )
            assert (series["low"][k], mean, series["high"][k]) == pytest.approx(
                (low, sum(column) / len(column), high), rel=1e-4
            )


def test_the_interval_of_an_importance_equals_that_of_a_mixture_of_beta_distributions():
    """A noncentral F is a Poisson mixture of central ones (Johnson, Kotz and Balakrishnan 1995, chapter 30)."""

    def rarer(share: float, parts: int, count: int, true: float) -> float:
        half, total = count * true / (1 - true) / 2, 0.0
        for j in range(400):
            weight = stats.poisson.pmf(j, half)
            total += weight * stats.beta.cdf(share, (parts - 1) / 2 + j, (count - parts) / 2)
        return total

    for share, parts, count in ((0.8, 3, 20), (0.5, 4, 40), (0.3, 2, 12)):
        low, high = statistics.share_interval(share, parts, count)
        assert 0 <= low < high < 1
        assert rarer(share, parts, count, high) == pytest.approx(0.025, abs=1e-6)
        assert low < 1e-9 or rarer(share, parts, count, low) == pytest.approx(0.975, abs=1e-6)
    assert statistics.share_interval(0.05, 4, 24)[0] < 1e-9
    assert statistics.share_interval(1.0, 4, 24) == (1.0, 1.0)


def test_equal_values_of_a_range_are_one_part_of_its_importance():
    """They were divided among the quarters in the order of the trials, so that a search made time look like the axis."""
    draws = random.Random(0)
    rows = [Row({"depth": draws.randint(1, 2)}, [], [], 1 - i / 40, 0.0, 0.0) for i in range(40)]
    plan: Any = SimpleNamespace(search_axes=[Axis("depth", low=1, high=2)])
    parts = [[row.mean for row in rows if row.chosen["depth"] == value] for value in (1, 2)]
    mean = sum(row.mean for row in rows) / 40
    between = sum(len(part) * (sum(part) / len(part) - mean) ** 2 for part in parts)
    shares = importance(plan, rows)
    assert shares["depth"] == pytest.approx(between / sum((row.mean - mean) ** 2 for row in rows))
    assert shares["depth"] < 0.1


def test_an_axis_under_a_condition_explains_what_it_does_where_it_is_active():
    """The rows without it were one more value of it: an axis that does nothing got the whole effect of its condition."""
    eps, momentum = (Axis(name, options=tuple((v, ()) for v in "abc")) for name in ("eps", "momentum"))
    optimizer = Axis("optimizer", options=(("adam", ()), ("sgd", ())))
    rows = [
        Row({"optimizer": word, axis: value}, [], [], mean, 0.0, 0.0)
        for word, axis, means in (("adam", "eps", (1.0, 1.0, 1.0)), ("sgd", "momentum", (5.0, 6.0, 7.0)))
        for value, center in zip("abc", means, strict=True)
        for mean in (center - 0.1, center + 0.1)
    ]
    plan: Any = SimpleNamespace(search_axes=[optimizer, eps, momentum])
    shares = importance(plan, rows)
    # 2 + 2 + 2 values at 5, 6, 7 ± 0.1: between 4, within 6 · 0.01
    assert shares["momentum"] == pytest.approx(4 / 4.06)
    assert shares["eps"] == pytest.approx(0)
    assert shares["optimizer"] == pytest.approx(75 / (75 + 4.06 + 0.06))
    assert set(uncertainty(plan, rows)) == {"optimizer", "eps", "momentum"}
    assert uncertainty(plan, rows)["eps"][0] == pytest.approx(0)


def test_importance_is_silent_where_it_means_nothing(composer, tmp_path):
    """Each value of lr was tried once: it explains all of the variance, whatever it does."""
    words = axes(("lr", list("abcd")))
    plan = Plan(words, [{}], [], {"trials": 4}, "grid", composer, composer.config([]), False)
    jobs = [plan.jobs(trial, chosen, tmp_path)[0] for trial, chosen in enumerate(space.grid(words))]
    for job in jobs:
        job.state, job.summary = "completed", {"objective": 0.1 * job.number, "best": {}}
    rows = rank(plan, jobs)
    assert importance(plan, rows)["lr"] == pytest.approx(1) and uncertainty(plan, rows) == {}
    write_report(plan, rows, jobs, [], tmp_path)
    assert "Which axes matter" not in (tmp_path / "report.html").read_text()


def test_the_report_counts_diverged_jobs_apart_as_the_terminal_does(composer, tmp_path):
    words = axes(("lr", list("abcd")))
    plan = Plan(words, [{}], [], {"trials": 4}, "grid", composer, composer.config([]), False)
    plan.configurations = Table([{"lr": name} for name in "abcd"], repetitions=1)
    jobs = [plan.jobs(trial, chosen, tmp_path)[0] for trial, chosen in enumerate(space.grid(words))]
    for job, state in zip(jobs, ("completed", "failed", "diverged", "diverged"), strict=True):
        job.state, job.summary = state, {"objective": 0.1, "best": {}, "best_epoch": 1.0}
    write_report(plan, rank(plan, jobs), jobs, [], tmp_path)
    page = (tmp_path / "report.html").read_text()
    facts = {name: int(count) for count, name in re.findall(r"<b>(\d+)</b><span>(\w+)</span>", page)}
    assert facts == {"jobs": 4, "done": 1, "pruned": 0, "failed": 1, "diverged": 2, "missing": 0}
    assert re.findall(r"<b>job (\d)</b> (\w+)", page) == [
        ("1", "failed"),
        ("2", "diverged"),
        ("3", "diverged"),
    ]


def test_of_several_objectives_the_trade_offs_come_first(composer, tmp_path):
    words = axes(("lr", list("abcd")))
    settings = {"trials": 4, "objectives": ["val/loss", "parameters"]}
    plan = Plan(words, [{}], [], settings, "nsga2", composer, composer.config([]), False)
    points = {"a": (0.5, 10), "b": (0.2, 40), "c": (0.3, 50), "d": (0.5, 11)}
    jobs = [plan.jobs(t, chosen, tmp_path)[0] for t, chosen in enumerate(space.grid(words))]
    for job in jobs:
        loss, parameters = points[job.chosen["lr"]]
        job.state = "completed"
        job.summary = {"objective": loss, "best": {"val/loss": loss}, "parameters": parameters}
    rows = rank(plan, jobs)
    assert [(row.chosen["lr"], row.verdict) for row in rows] == [
        ("b", "trade-off"), ("a", "trade-off"), ("c", "dominated"), ("d", "dominated")
    ]  # fmt: skip
    write_report(plan, rows, jobs, [], tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert (
        page.count("<td>trade-off</td>") == 2
        and '<th scope="col">parameters</th>' in page
        and "<td>40</td>" in page
    )
    best = {dot["label"] for dot in data_in(page)["configurations"] if dot["best"]}
    assert best == {"lr=a", "lr=b"} and page.count('<tr class="best">') == 2


@pytest.mark.parametrize("seeds", [1, 5])
def test_a_configuration_that_is_drawn_again_counts_once(composer, tmp_path, seeds):
    """Copies were configurations: the best was tested against its own, and p values were corrected for them."""
    repeated = [("seed", list("01234"))] if seeds > 1 else []
    words = axes(("lr", list("ab")), *repeated)
    replicates = [{"seed": str(seed)} for seed in range(seeds)] if seeds > 1 else [{}]
    plan = Plan(words, replicates, [], {"trials": 6}, "random", composer, composer.config([]), False)
    values = {"a": [1.0, 1.2, 0.9, 1.1, 1.0], "b": [2.0, 2.1, 2.2, 1.9, 2.0]}
    jobs = []
    for trial, letter in enumerate("abaabb"):
        for seed, job in enumerate(plan.jobs(trial, {"lr": letter}, tmp_path)):
            job.state, job.summary = "completed", {"objective": values[letter][seed], "best": {}}
            jobs.append(job)
    rows = rank(plan, jobs)
    assert [(row.chosen["lr"], len(row.jobs), row.values) for row in rows] == [
        (letter, seeds, values[letter][:seeds]) for letter in "ab"
    ]
    if seeds > 1:
        assert rows[1].verdict == f"p = {stats.ttest_rel(values['a'], values['b']).pvalue:.2g}"
    assert importance(plan, rows) == {}


def test_of_copies_the_whole_one_counts(composer, tmp_path):
    """A pruned first draw displaced the completed one, which was the best."""
    words = axes(("lr", list("ab")))
    plan = Plan(words, [{}], [], {"trials": 3}, "random", composer, composer.config([]), False)
    ends = [("a", "pruned", 0.9), ("a", "completed", 0.1), ("b", "completed", 0.5)]
    jobs = []
    for trial, (letter, state, value) in enumerate(ends):
        (job,) = plan.jobs(trial, {"lr": letter}, tmp_path)
        job.state, job.summary = state, {"objective": value, "best": {}}
        jobs.append(job)
    for order in (jobs, jobs[::-1]):
        assert [(row.chosen["lr"], row.values, row.complete) for row in rank(plan, order)] == [
            ("a", [0.1], True), ("b", [0.5], True)
        ]  # fmt: skip
        assert winner(plan, rank(plan, order)) is jobs[1]


def test_an_axis_changes_the_data_if_equal_jobs_beside_it_have_others(composer, tmp_path):
    """The last job of each value was looked at, whatever else changed its data."""
    keys = ("dataset.missing", "dataset.image_size")
    search = axes((keys[0], ["auto", "drop"]), (keys[1], ["32", "64"]))
    plan = Plan(search, [{}], [], {"trials": 4}, "random", composer, composer.config([]), False)

    def jobs(prints):
        found = []
        for trial, (missing, size) in enumerate(
            [("auto", "64"), ("drop", "32"), ("auto", "32"), ("drop", "64")]
        ):
            (job,) = plan.jobs(trial, dict(zip(keys, (missing, size), strict=True)), tmp_path)
            job.state, job.summary = "completed", {"objective": 1.0, "best": {}}
            job.folder.mkdir(parents=True, exist_ok=True)
            (job.folder / "data.json").write_text(json.dumps({"fingerprint": prints(missing, size)}))
            found.append(job)
        return found

    assert scoring_axes(plan, jobs(lambda missing, size: size)) == []
    assert scoring_axes(plan, jobs(lambda missing, size: missing + size)) == ["dataset.missing"]


def test_the_seconds_of_a_job_are_those_of_its_training(composer, tmp_path):
    """Those of its best evaluation were ranked: a run of 60 epochs was as fast as one of 3."""
    words = axes(("epochs", ["3", "60"]))
    settings = {"trials": 2, "objectives": ["val/loss", "seconds"]}
    plan = Plan(words, [{}], [], settings, "nsga2", composer, composer.config([]), False)
    jobs = [plan.jobs(t, chosen, tmp_path)[0] for t, chosen in enumerate(space.grid(words))]
    for job, whole, lap in zip(jobs, (0.1, 2.0), (0.05, 0.03), strict=True):
        job.state = "completed"
        job.summary = {"objective": 0.5, "best": {"val/loss": 0.5, "seconds": lap}, "seconds": whole}
    assert {row.chosen["epochs"]: (row.objectives[1], row.verdict) for row in rank(plan, jobs)} == {
        "3": (0.1, "trade-off"),
        "60": (2.0, "dominated"),
    }


def test_of_an_accuracy_among_several_objectives_higher_is_better(composer, tmp_path):
    words = axes(("lr", list("abc")))
    settings = {"trials": 3, "objectives": ["val/accuracy", "parameters"]}
    plan = Plan(words, [{}], [], settings, "nsga2", composer, composer.config([]), False)
    points = {"a": (0.5, 10), "b": (0.9, 40), "c": (0.3, 50)}
    jobs = [plan.jobs(t, chosen, tmp_path)[0] for t, chosen in enumerate(space.grid(words))]
    for job in jobs:
        accuracy, parameters = points[job.chosen["lr"]]
        job.state = "completed"
        job.summary = {"objective": 1.0, "best": {"val/accuracy": accuracy}, "parameters": parameters}
    assert plan.modes == ["max", "min"]
    assert {row.chosen["lr"]: row.verdict for row in rank(plan, jobs)} == {
        "a": "trade-off", "b": "trade-off", "c": "dominated"
    }  # fmt: skip


def test_fewer_than_five_repetitions_are_too_few_to_tell(composer, tmp_path):
    plan, jobs = planted(composer, tmp_path)
    kept = [job for job in jobs if job.chosen["seed"] != "4"]
    assert {row.verdict for row in rank(plan, kept)[1:]} == {"too few runs to tell"}


def test_seeds_of_one_fold_are_one_value(composer, tmp_path):
    """The interval of 3 folds with 2 seeds each is that of the 3 means, and nothing is tested, though there are six runs."""
    plan, jobs = planted(composer, tmp_path)
    values: dict[int, list[float]] = {}
    for job in jobs:
        repetition = int(job.chosen.pop("seed"))
        job.chosen |= {"fold": str(repetition // 2), "seed": str(repetition % 2)}
        values.setdefault(job.trial, []).append(job.objective)
    for row in rank(plan, jobs):
        a, b, c, d, e = values[row.jobs[0].trial]
        means = [(a + b) / 2, (c + d) / 2, e]
        half = stats.t.ppf(0.975, 2) * stats.sem(means)
        assert (row.mean, row.half_width) == pytest.approx((sum(means) / 3, half))
    assert {row.verdict for row in rank(plan, jobs)[1:]} == {"too few runs to tell"}


@pytest.mark.parametrize("seeds", [1, 2])
def test_means_of_folds_are_tested_and_those_with_a_failed_run_are_not(composer, tmp_path, seeds):
    """With five folds all means are there when one of ten runs failed, and it counted among the tests of the others."""
    repetitions = [{"fold": str(fold), "seed": str(seed)} for fold in range(5) for seed in range(seeds)]
    search = axes(("lr", list("abcd")))
    overrides = [*search, *axes(("fold", list("01234")), ("seed", list("01")[:seeds]))]
    plan = Plan(overrides, repetitions, [], {"trials": None}, "grid", composer, composer.config([]), False)
    draws, values = random.Random(0), {}
    jobs = []
    for trial, chosen in enumerate(space.grid(search)):
        for job in plan.jobs(trial, chosen, tmp_path):
            job.state = "completed"
            job.summary = {"objective": trial + draws.random(), "best": {}, "best_epoch": 1.0}
            values.setdefault(trial, {}).setdefault(job.chosen["fold"], []).append(job.objective)
            jobs.append(job)
    if seeds > 1:
        jobs[-1].fail("killed")
    rows = rank(plan, jobs)
    means = [[sum(column) / len(column) for column in values[trial].values()] for trial in range(4)]
    tested = 3 if seeds == 1 else 2
    ps = sorted(stats.ttest_rel(means[0], means[trial]).pvalue for trial in range(1, tested + 1))
    smallest = min(float(row.verdict.removeprefix("p = ")) for row in rows if row.verdict.startswith("p = "))
    assert smallest == pytest.approx(ps[0] * tested, rel=0.05)
    if seeds > 1:
        assert rows[-1].verdict == "a repetition failed"


def test_the_range_that_is_drawn_holds_the_best():
    values = [float(v) for v in range(20)]
    assert objective_range(values, "min") == (0.0, 18.0)
    assert objective_range(values, "max") == (1.0, 19.0)


def test_equal_configurations_are_not_distinguishable(composer, tmp_path):
    plan, jobs = planted(composer, tmp_path)
    for job in jobs:
        job.summary["objective"] = float(job.chosen["seed"])
    assert {row.verdict for row in rank(plan, jobs)[1:]} == {"not distinguishable, p = 1"}


def test_failed_and_pruned_jobs_are_told_and_not_ranked_first(composer, tmp_path):
    plan, jobs = planted(composer, tmp_path)
    jobs[-1].fail("killed by signal 9 (SIGKILL) <b>")
    jobs[0].state = "pruned"
    rows = rank(plan, jobs)
    assert rows[0].complete
    assert not any(row.complete for row in rows[-2:])
    write_report(plan, rows, jobs, [], tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "killed by signal 9 (SIGKILL) &lt;b&gt;" in page
    write_csv(plan, jobs, tmp_path / "results.csv")
    assert "SIGKILL" in (tmp_path / "results.csv").read_text()


@pytest.mark.parametrize("word", ["random", "tpe", "gp", "cmaes", "qmc", "nsga2"])
def test_every_sampler_asks_and_takes_results_across_drivers(word, tmp_path):
    from dltrain.sweep import samplers
    from dltrain.sweep.study import Study, quiet

    axes = space.axes_of_yaml(
        {"x": {"low": 0, "high": 1}, "n": {"low": 1, "high": 9, "int": True}, "w": ["a", "b"]}
    )
    for driver in range(2):  # the second takes up the study of the first
        with quiet():
            sampler = getattr(samplers, word)(13 * driver, seed=0)
        study = Study(tmp_path, axes, sampler, ["minimize"])
        assert len(study.trials()) == 13 * driver
        if driver:
            trial, chosen = study.resume(study.trials()[-1])
            assert chosen == study.trials()[-1].params
            study.finish(trial, [0.0])
        for _ in range(13):
            trial, chosen = study.ask()
            assert 0 <= chosen["x"] <= 1 and isinstance(chosen["n"], int) and chosen["w"] in "ab"
            if trial.number != 12:
                study.finish(trial, [chosen["x"]])


def test_a_pruned_trial_is_closed(tmp_path):
    from dltrain.sweep.study import Listed, Study, TrialState

    study = Study(tmp_path, axes(("lr", ["1"])), Listed([{"lr": "1"}]), ["minimize"])
    trial, _ = study.ask()
    study.report(trial, 1, 0.5)
    study.report(trial, 1, 0.7)
    study.report(trial, 2, math.nan)
    study.finish(trial, None, pruned=True)
    (closed,) = study.trials()
    assert closed.state is TrialState.PRUNED
    assert closed.intermediate_values == {1: 0.5}


def running_job(number: int, label: str, tmp_path: Path, best: float) -> Job:
    job = Job(number, number, {"regularization": label, "lr": 0.1}, [], tmp_path, state="running")
    job.epoch, job.value, job.best = 12, 0.0371, best
    return job


@pytest.mark.parametrize("width", [40, 60, 120])
def test_the_live_table_keeps_its_numbers_at_any_width(width, tmp_path):
    from rich.console import Console

    jobs = [running_job(i, "[l1,dropout]", tmp_path, 0.02 + i) for i in range(9)]
    out = io.StringIO()
    Console(file=out, width=width).print(table_of("0 of 9 jobs done", jobs, width, 4))
    title, heads, *rows = out.getvalue().splitlines()
    assert title.split() == ["0", "of", "9", "jobs", "done"]
    assert heads.split()[2:] == ["state", "epoch", "now", "best"]
    assert [row.split()[-4:] for row in rows[:4]] == [
        ["running", "12", "0.0371", f"{0.02 + i:.4f}"] for i in range(4)
    ]
    assert "5 more" in rows[4] and len(rows) == 5
    assert width < 100 or "regularization=[l1,dropout] lr=0.1" in rows[0]


def test_the_best_so_far_is_named_with_its_job(tmp_path):
    jobs = [running_job(i, "[]", tmp_path, value) for i, value in enumerate((0.3, 0.2, 0.9))]
    assert best_so_far(jobs, "min") == " · best 0.2000 (job 1)"
    assert best_so_far(jobs, "max") == " · best 0.9000 (job 2)"
    jobs[1].state = "failed"
    assert best_so_far(jobs, "min") == " · best 0.3000 (job 0)"
    assert best_so_far([], "min") == ""


def test_a_dry_run_says_who_trains_together(composer, tmp_path, capsys):
    words = axes(("optimizer", ["adam", "lbfgs", "sgd"]), ("lr", ["0.1", "0.01"]))
    plan = Plan(words, [{}], [], {}, "grid", composer, composer.config([]), False)
    jobs = [job for i, chosen in enumerate(space.grid(words)) for job in plan.jobs(i, chosen, tmp_path)]
    for job in jobs:
        job.config = composer.config(job.overrides)
    print_table(jobs, auto(Sweep(2)).preview(jobs))
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "4 jobs can train together as one model: 0–1, 4–5",
        "2 jobs in processes of their own, for optimizer=lbfgs: 2–3",
    ]


def test_a_job_that_goes_on_keeps_its_threads(composer, tmp_path):
    config = composer.config([])
    begun = placed(config, Slot(None, 2), tmp_path, composer.catalogue)
    assert begun.threads == begun.plain["threads"] == 2
    saved.write(begun, tmp_path / "config.yaml")
    assert placed(config, Slot(None, 1), tmp_path, composer.catalogue).threads == 1, (
        "nothing is saved yet: it starts from the beginning"
    )
    (tmp_path / "checkpoints" / "step-00000007").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-00000007" / "manifest.json").touch()
    assert saved.binding(placed(config, Slot(None, 1), tmp_path, composer.catalogue)) == saved.binding(begun)
    asked = composer.config(["threads=1"])
    assert placed(asked, Slot(None, 4), tmp_path, composer.catalogue).threads == 1
    (tmp_path / "config.yaml").write_text("a: &a [x, x]\nb: *a\n")
    with pytest.raises(CheckpointProblem, match="cannot be read as a saved configuration"):
        placed(config, Slot(None, 1), tmp_path, composer.catalogue)
    (tmp_path / "config.yaml").write_text("threads: [1]\n")
    with pytest.raises(UserError, match=r"`threads` is \[1\]"):
        placed(config, Slot(None, 1), tmp_path, composer.catalogue)
