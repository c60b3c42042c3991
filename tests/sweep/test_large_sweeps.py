"""Sweeps whose jobs are not listed: numbers by arithmetic, what is checked beforehand, and what that costs."""

from __future__ import annotations

import csv
import itertools
import json
import math
import random
import re
from collections import Counter

import pytest
from sweeping import summaries, sweep_folder

from dltrain.config.compose import open_catalogue, open_hydra
from dltrain.config.door import rights_of_user
from dltrain.config.keys import REPLICATES
from dltrain.errors import CheckpointProblem, UserError
from dltrain.sweep.plan import coverage, space
from dltrain.sweep.plan.checks import check_all
from dltrain.sweep.plan.composer import Composer
from dltrain.sweep.plan.coverage import rows, thinned
from dltrain.sweep.plan.cut import left_out
from dltrain.sweep.plan.grid import grid_of, grown, shuffled
from dltrain.sweep.plan.plan import Plan
from dltrain.sweep.plan.reading import read_plan
from dltrain.sweep.plan.space import Axis

BRIEF = ("model=linear", "steps=2", "quiet=true")


def axis(name: str, size: int, **when: list[str]) -> Axis:
    return Axis(name, tuple((f"{i}", (f"{name}={i}",)) for i in range(size)), when=when)


def enumerated(axes: list[Axis], limit: int | None, shuffle: bool):
    """The jobs of a grid as a list: number → (trial, configuration, repetition), as its definition says."""
    trials: list[dict[str, str]] = []
    jobs = []
    for values in space.grid(axes):
        chosen = {k: v for k, v in values.items() if k not in REPLICATES}
        if chosen not in trials:
            if limit is not None and len(trials) >= limit:
                continue
            trials.append(chosen)
        jobs.append((chosen, {k: v for k, v in values.items() if k in REPLICATES}))
    order = [trials[place] for place in shuffled(len(trials))] if shuffle else trials
    return [(order.index(chosen), chosen, replicate) for chosen, replicate in jobs]


@pytest.mark.parametrize("seed", range(60))
def test_numbers_by_arithmetic_are_those_of_the_list(seed):
    draw = random.Random(seed)
    names = draw.sample(["a", "b", "c", "seed", "fold"], draw.randint(1, 4))
    axes = [axis(name, draw.randint(1, 3)) for name in names]
    if seed % 3 == 0 and "a" in names and "b" in names[names.index("a") :]:
        axes[names.index("b")] = axis("b", 2, a=["0"])
    limit, shuffle = draw.choice([None, 1, 2, 4]), draw.random() < 0.3
    found, expected = grid_of(axes, limit, shuffle), enumerated(axes, limit, shuffle)
    replicates = list(space.grid([a for a in axes if a.name in REPLICATES]))
    assert len(found) * len(replicates) >= len(expected)
    for number, (trial, chosen, replicate) in enumerate(expected):
        repetition = replicates.index(replicate)
        assert found.number(trial, repetition) == number
        assert found.job(number) == (trial, repetition)
        assert found[trial] == chosen and found.find(chosen) == trial
    assert list(found) == [found[trial] for trial in range(len(found))]
    with pytest.raises(IndexError):
        found[len(found)]


def test_a_grid_of_a_billion_jobs_lists_nothing():
    found = grid_of([axis(name, 1000) for name in "ab"] + [axis("seed", 1000)], None, False)
    assert len(found) * found.repetitions == 10**9
    trial, repetition = found.job(987_654_321)
    assert (found[trial], repetition) == ({"a": "987", "b": "654"}, 321)
    assert found.number(trial, repetition) == 987_654_321


def test_an_extended_grid_keeps_its_numbers_and_its_order():
    former = grid_of([axis("a", 2), axis("seed", 2)], None, False)
    later = grid_of([axis("seed", 3), axis("a", 3)], None, False)
    both = grown(former, later, [0, 1])
    assert both is not None
    first = [(both[both.job(n)[0]]["a"], both.job(n)[1]) for n in range(9)]
    assert first[:4] == [("0", 0), ("0", 1), ("1", 0), ("1", 1)]
    assert first[4:] == [("2", 0), ("2", 1), ("0", 2), ("1", 2), ("2", 2)]
    assert grown(later, former, [0, 1, 1]) is None, "it lacks a configuration"


# What is checked before the first job -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_every_two_values_occur_together_where_conditions_let_them(seed):
    draw = random.Random(seed)
    axes = [axis(name, draw.randint(2, 5)) for name in "abcd"]
    axes[2] = axis("c", 3, a=["0", "1"])
    axes[3] = axis("d", 2, c=["1"], b=["0"])
    found = list(rows(axes))
    whole = list(space.grid(axes))
    assert all(row in whole for row in found)
    wanted = {pair for row in whole for pair in itertools.combinations(row.items(), 2)}
    assert wanted == {pair for row in found for pair in itertools.combinations(row.items(), 2)}
    assert len(found) < len(whole)


@pytest.mark.parametrize("sizes", [(4, 2, 4), (3, 3, 3), (2, 1, 5), (1, 4, 2)])
def test_the_blocks_of_a_cut_grid_are_its_configurations(sizes):
    """So that no value and no pair of a job is left out of what is checked."""
    axes = [axis(name, size) for name, size in zip("abc", sizes, strict=True)] + [axis("seed", 2)]
    for limit in (None, *range(1, math.prod(sizes) + 1)):
        found = grid_of(axes, limit, False)
        searched = ([a for a in block if a.name != "seed"] for block in found.blocks())
        listed = [row for block in searched for row in space.grid(block)]
        assert sorted(listed, key=repr) == sorted(found, key=repr)


@pytest.fixture(scope="module")
def parts():
    catalogue = open_catalogue()
    return catalogue, open_hydra(catalogue)


def plan_of(parts, *texts: str) -> Plan:
    catalogue, hydra = parts
    return read_plan(list(texts), "config", catalogue, hydra, rights_of_user(catalogue))


def test_the_values_that_stand_for_an_axis(parts):
    composer = Composer(*parts)
    numbers = Axis("lr", tuple((t, (f"lr={t}",)) for t in ("0.5", "1", "0.1", "7", "null", "2", "auto")))
    assert thinned(numbers, composer).labels == ["1", "0.1", "7", "null", "auto"]
    lists = Axis("model.hidden", tuple((t, (f"model.hidden={t}",)) for t in ("[8]", "[16]", "[8,8]", "[]")))
    assert thinned(lists, composer).labels == ["[8]", "[8,8]", "[]"]
    words = Axis(
        "regularization", tuple((t, (f"regularization={t}",)) for t in ("[l1]", "[l2]", "[dropout]"))
    )
    assert thinned(words, composer).labels == words.labels


def compositions(parts, monkeypatch, *texts: str) -> tuple[int, int]:
    """The number of jobs, and of configurations that are composed before the first one starts."""
    counted: Counter[str] = Counter()
    compose = Composer.config

    def counting(self, overrides):
        counted["config"] += 1
        return compose(self, overrides)

    monkeypatch.setattr(Composer, "config", counting)
    plan = plan_of(parts, *texts)
    counted.clear()
    check_all(plan)
    return plan.total, counted["config"]


@pytest.mark.ci
def test_what_is_composed_beforehand_does_not_grow_with_the_product(parts, monkeypatch):
    axes = ("optimizer=sgd,adam", "batch_size=16,32,64,128", "lr=0.1,0.2,0.3,0.4,0.5")
    assert compositions(parts, monkeypatch, *axes[:2], "lr=0.1,0.2") == (16, 16), (
        "a small one is composed whole"
    )
    large = compositions(parts, monkeypatch, *axes, "seed=range(100)")
    huge = compositions(parts, monkeypatch, *axes, "seed=range(1000)", "model.dropout=0,0.1,0.2,0.3,0.4")
    assert (large[0], huge[0]) == (4000, 200_000)
    assert huge[1] <= large[1] + 5 <= 20


@pytest.mark.parametrize(
    "texts, said",
    [
        # a value in the middle of an axis, which stands in no row of pairs
        (("lr=range(1,40)", "batch_size=16,32,17.5,64", "seed=range(20)"), r"`batch_size` is 17.5[\s\S]*in the job batch_size=17.5;"),
        (("model.dropout=0.1,0.2,1.5,0.3,2", "seed=range(400)"), r"`model.dropout` is (2|1.5)[\s\S]*in the job"),
        # two words that exclude each other, the last of each axis
        (("optimizer=sgd,lbfgs", "wrap=[],[lookahead]", "seed=range(400)"), r"lookahead[\s\S]*in the job .*optimizer=lbfgs"),
        # two knobs of which the first is a number among many
        (("fold=range(9)", "folds=4,9,16", "lr=range(1,50)"), r"`fold` is 8; with folds=4 it must be below 4"),
    ],
)  # fmt: skip
def test_a_large_grid_is_refused_for_any_value_and_any_pair(parts, texts, said):
    plan = plan_of(parts, *texts)
    assert plan.total > coverage.ALL
    with pytest.raises(UserError, match=said):
        check_all(plan)


def test_a_pair_that_trials_leave_out_is_not_refused(parts):
    axes = ("optimizer=sgd,lbfgs", "batch_size=16,32", "wrap=[],[lookahead]", "lr=range(1,1000)")
    with pytest.raises(UserError, match="lookahead"):
        check_all(plan_of(parts, *axes))
    cut = plan_of(parts, *axes, "sweep.trials=1500")
    found = list(coverage.to_check(cut))
    assert {(row["optimizer"], row["batch_size"]) for row in found} == {("sgd", "16")}
    assert {row["wrap"] for row in found} == {"[]", "[lookahead]"}
    check_all(cut)


CONDITIONAL = (
    "{lr: {values: [0.1, 0.2, 0.3, 0.4]}, optimizer: {values: [sgd, lbfgs, momentum]}, wrap: {values: [[], [lookahead]]}, "
    "optimizer.momentum: {values: [0.5, 0.9], when: {optimizer: momentum}}}"
)


@pytest.mark.parametrize("trials", [5, 9, 11, 14, 20])
def test_every_pair_of_a_cut_grid_with_conditions_is_checked(parts, trials):
    """Also one whose only row of pairs is none of the jobs that `sweep.trials` keeps, as it has the last lr."""
    plan = plan_of(parts, f"sweep.space={CONDITIONAL}", f"sweep.trials={trials}", "seed=range(300)")
    assert plan.total > coverage.ALL and plan.configurations is not None
    jobs = list(plan.configurations)
    found = [{k: v for k, v in row.items() if k != "seed"} for row in coverage.to_check(plan)]
    assert all(row in jobs for row in found)
    assert pairs_of(found) == pairs_of(jobs)


def pairs_of(rows: list[dict[str, str]]) -> set[tuple[tuple[str, str], ...]]:
    """The pairs of values; those of lr between its ends count as one."""
    rows = [row | {"lr": row["lr"].replace("0.3", "0.2")} for row in rows]
    return {pair for row in rows for pair in itertools.combinations(sorted(row.items()), 2)}


@pytest.mark.parametrize("space", [(), (f"sweep.space={CONDITIONAL}",)], ids=["product", "conditions"])
@pytest.mark.parametrize("trials", [1, 3, 5, 8, 11, 30, 31, 32, 40])
@pytest.mark.parametrize("pruner", ["none", "median"])
def test_what_trials_leave_out_of_a_grid_is_named(parts, space, trials, pruner):
    axes = space or ("lr=0.1,0.2,0.3,0.4", "optimizer=sgd,momentum", "batch_size=16,32,64,128")
    repeated = ("seed=0,1",) if pruner == "none" else ()
    plan = plan_of(parts, *axes, f"sweep.trials={trials}", f"sweep.pruner={pruner}", *repeated)
    # lr, wrap and the optimizers, of which momentum has two values more
    whole = 32
    told = left_out(plan)
    if trials >= whole:
        assert told == ""
        return
    assert told.startswith(f"sweep.trials={trials} tries {trials} of {whole} combinations")
    jobs = list(plan.configurations or ())
    assert len(jobs) == trials
    for axis in plan.search_axes:
        lacking = [label for label in axis.labels if not any(job.get(axis.name) == label for job in jobs)]
        named = re.search(rf"(?:never|;) {re.escape(axis.name)}=(.*?)(?:;|\. All)", told)
        assert (named[1].split(", ") if named else []) == lacking


def test_a_grid_that_trials_cut_says_so_in_terminal_dry_run_and_report(dltrain, workdir, capsys):
    """`lr=0.1,0.01,0.001 optimizer=adam,sgd sweep.trials=3` never tried lr=0.001, and nothing said that there were more."""
    grid = ("-m", "lr=0.1,0.01,0.001", "optimizer=adam,sgd", "model=linear", "steps=1")
    line = "sweep.trials=3 tries 3 of 6 combinations, the first ones, in which the last axis changes fastest, and never lr=0.001"
    assert dltrain(*grid, "sweep.trials=3", "sweep.dry_run=true") == 0
    assert line in capsys.readouterr().out
    assert dltrain(*grid, "sweep.trials=3") == 0
    said = capsys.readouterr().out
    assert said.count(line) == 2
    (record,) = workdir.glob("outputs/*/*/sweep.json")
    assert line in (record.parent / "report.html").read_text()
    # the cure, typed
    assert dltrain("-m", f"sweep.resume={record.parent}", "sweep.trials=null") == 0
    assert "tries 3 of" not in capsys.readouterr().out
    assert len([*record.parent.glob("*/summary.json")]) == 6


@pytest.mark.ci
def test_a_dry_run_lists_a_thousand_jobs(dltrain, capsys):
    assert dltrain("-m", "seed=range(50000)", "lr=0.1,0.01", "model=linear", "sweep.dry_run=true") == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) < 1010
    assert "  999  seed=499 lr=0.01  " in said and "\n… 99000 more jobs\n" in said
    assert "of the first 1000: " in said and "can train together as one model: 0–999" in said
    assert "100,000 jobs, every value, and every two values together, composed and valid in 6 conf" in said


# Extension --------------------------------------------------------------------------------------------------------


def results(folder):
    """The axes and the objective of each job, as its folder says."""
    return {n: (sorted(t for t in job["overrides"] if t.startswith(("lr", "seed"))), job["objective"])
            for n, job in summaries(folder).items()}  # fmt: skip


def listed(folder):
    """The same, as results.csv says."""
    with open(folder / "results.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return {int(r["job"]): ([f"lr={r['lr']}", f"seed={r['seed']}"], float(r["objective"])) for r in rows}


@pytest.mark.ci
def test_an_extended_sweep_keeps_its_numbers_whenever_it_goes_on(workdir, dltrain):
    """A second resume, after which the numbers were once those of a new grid: results stood beside other words."""
    assert dltrain("-m", "lr=0.1,0.01", "seed=0,1", *BRIEF) == 0
    folder = sweep_folder(workdir)
    begun = results(folder)
    assert dltrain("-m", f"sweep.resume={folder}", "seed=0,1,2") == 0
    assert dltrain("-m", f"sweep.resume={folder}") == 0
    assert listed(folder) == results(folder)
    # more values of an axis, by its name alone
    assert dltrain("-m", f"sweep.resume={folder}", "lr=0.001,0.1,0.01") == 0
    assert dltrain("-m", f"sweep.resume={folder}") == 0
    assert results(folder).items() >= begun.items() and len(results(folder)) == 9
    assert listed(folder) == results(folder)
    assert len(json.loads((folder / "sweep.json").read_text())["stages"]) == 2
    with pytest.raises(UserError, match=r"axis lr was 0.001,0.1,0.01, is 0.1,0.5"):
        dltrain("-m", f"sweep.resume={folder}", "lr=0.1,0.5")
    # an earlier version kept no stages: what stands in the folders decides
    record = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps(record | {"stages": [], "first": None}))
    (folder / "books.sqlite").unlink()
    with pytest.raises(
        CheckpointProblem,
        match=r"was run with (lr|seed)=\S+, and job \d of this sweep has [\s\S]*sweep.reuse=true",
    ):
        dltrain("-m", f"sweep.resume={folder}")


def test_every_value_of_a_search_is_checked_however_many_there_are(parts):
    sizes = ",".join([*map(str, range(1, 1100)), "17.5"])
    plan = plan_of(parts, "sweep=random", "sweep.trials=20", f"batch_size={sizes}")
    with pytest.raises(UserError, match="`batch_size` is 17.5"):
        check_all(plan)


@pytest.mark.parametrize(
    "given",
    [
        "{seed: {values: [0, 1]}, lr: {values: [0.1, 0.2], when: {seed: 0}}}",
        "{optimizer: {values: [sgd, adam]}, seed: {values: [0, 1], when: {optimizer: sgd}}}",
    ],
)
def test_conditions_on_repetitions_are_refused(parts, given):
    with pytest.raises(UserError, match="so they have no conditions. Leave `when` out"):
        plan_of(parts, f"sweep.space={given}")
