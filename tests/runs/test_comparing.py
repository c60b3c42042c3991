"""show, diff, compare: what is said of runs, against scipy and against what the runs are."""

from __future__ import annotations

import csv
import json
import math
import random
import re
import shlex

import numpy as np
import pytest
from made import make_run, make_sweep, stamp
from pages import data_in
from scipy import stats

import dltrain as package
from dltrain.commands.asked import run_folder
from dltrain.commands.compare import document_of, members_of, page
from dltrain.config import keys
from dltrain.errors import CheckpointProblem, UserError
from dltrain.screen.table import cells_of
from dltrain.sweep.outcome import comparison, figure, statistics
from dltrain.sweep.outcome.groups import COMMANDS
from dltrain.sweep.outcome.members import Member

OUTPUT = "outputs"


def made(workdir, values, **other):
    """Make a sweep over lr and seed, from the values of each lr."""
    jobs = [
        {"objective": value, "config": {"lr": lr, "optimizer.lr": lr, "seed": seed}, **other}
        for lr, column in values.items()
        for seed, value in enumerate(column)
    ]
    return make_sweep(workdir / OUTPUT / "s" / stamp(0), jobs)


def compared(*folders, metric=None):
    return comparison.compare(members_of(list(folders)), metric)


def test_a_rate_that_a_recipe_lets_find_is_auto_in_each_repetition(workdir, dltrain, capsys):
    """The text `lr=auto` of the command line decided: of a recipe, a lucky subset of the seeds was ranked first."""
    (workdir / "conf" / "experiment").mkdir(parents=True)
    (workdir / "conf/experiment/au.yaml").write_text("# @package _global_\nlr: auto\nepochs: 1\n")
    words = ("dataset=wine", "dataset.normalize=none", "optimizer=sgd", "seed=2,3")
    assert dltrain("-m", "experiment=au", *words, "name=ra") == 0
    assert "lr=auto chose" in capsys.readouterr().out
    (folder,) = workdir.glob("outputs/ra/*")
    rates = {member.config["lr"] for member in members_of([folder])}
    assert len(rates) == 2
    (group,) = compared(folder).groups
    assert len(group.members) == 2
    assert all(member.summary["searched"] == ["lr"] for member in group.members)


def test_runs_of_edited_code_are_a_configuration_apart(workdir):
    """They were repetitions, and the run of the new code was thrown out as a copy."""
    codes = {"my_models.py": "a" * 64, "other.py": "c" * 64}, {"my_models.py": "b" * 64, "other.py": "c" * 64}
    jobs = [
        {"objective": i + seed / 10, "config": {"seed": seed}, "code": code}
        for i, code in enumerate(codes)
        for seed in range(3)
    ]
    found = compared(make_sweep(workdir / OUTPUT / "s" / stamp(0), jobs))
    assert [group.choices for group in found.groups] == [
        {"code of my_models.py": letter * 8} for letter in "ab"
    ]
    assert [group.mean for group in found.groups] == [pytest.approx(0.1), pytest.approx(1.1)]
    assert not any("left out" in note for note in found.notes)
    # runs of other files, as of two models, are told apart by their words
    one = compared(
        make_sweep(workdir / OUTPUT / "t" / stamp(1), [job | {"code": codes[0]} for job in jobs[:3]])
    )
    assert [group.choices for group in one.groups] == [{}]


# compare ----------------------------------------------------------------------------------------------------------


def test_groups_means_intervals_and_paired_tests_are_those_of_scipy(workdir):
    draws = np.random.default_rng(0)
    shared = draws.normal(size=6)
    values = {
        lr: list(shared + shift + 0.3 * draws.normal(size=6))
        for lr, shift in ((0.1, 0), (0.01, 0.5), (0.001, 2))
    }
    found = compared(made(workdir, values))
    assert [group.choices for group in found.groups] == [{"lr": 0.1}, {"lr": 0.01}, {"lr": 0.001}]
    ps = [stats.ttest_rel(values[0.1], values[lr]).pvalue for lr in (0.01, 0.001)]
    # Holm's correction of two
    low, high = sorted(ps)
    holm = {low: min(1, 2 * low), high: max(min(1, 2 * low), high)}
    for group, p in zip(found.groups[1:], ps, strict=True):
        assert (group.test, group.p) == ("paired", pytest.approx(holm[p]))
    for group in found.groups:
        column = values[group.choices["lr"]]
        low, high = stats.t.interval(0.95, 5, np.mean(column), stats.sem(column))
        assert group.mean == pytest.approx(np.mean(column))
        assert group.half_width == pytest.approx((high - low) / 2)


def test_seeds_are_paired_by_their_number_not_by_their_order(workdir):
    base = [0.1, 0.5, 0.3, 0.9, 0.7]
    sweep = made(workdir, {0.1: base, 0.01: [v + 0.01 + 0.001 * i for i, v in enumerate(base)]})
    members = members_of([sweep])
    random.Random(5).shuffle(members)
    group = comparison.compare(members).groups[1]
    assert group.p == pytest.approx(
        stats.ttest_rel(base, [v + 0.01 + 0.001 * i for i, v in enumerate(base)]).pvalue
    )
    assert group.p < 1e-3


def test_other_seeds_are_tested_by_welch(workdir):
    left, right = [0.1, 0.2, 0.15, 0.12, 0.18], [0.5, 0.45, 0.62, 0.51, 0.58, 0.47]
    for number, (lr, value, seed) in enumerate(
        [(0.1, v, s) for s, v in enumerate(left)] + [(0.01, v, s + 100) for s, v in enumerate(right)]
    ):
        make_run(workdir / OUTPUT / "n" / stamp(number), value, {"lr": lr, "optimizer.lr": lr, "seed": seed})
    group = compared(*sorted((workdir / OUTPUT / "n").iterdir())).groups[1]
    assert (group.test, group.p) == (
        "welch",
        pytest.approx(stats.ttest_ind(left, right, equal_var=False).pvalue),
    )


@pytest.mark.parametrize("seed", range(20))
def test_welch_is_that_of_scipy(seed):
    draws = np.random.default_rng(seed)
    left, right = (draws.normal(draws.normal(), 10 ** draws.normal(), draws.integers(2, 9)) for _ in range(2))
    assert statistics.welch_p(list(left), list(right)) == pytest.approx(
        stats.ttest_ind(left, right, equal_var=False).pvalue
    )


def test_constant_values_have_a_p():
    assert statistics.welch_p([1.0, 1.0], [1.0, 1.0]) == 1
    assert statistics.welch_p([1.0, 1.0], [2.0, 2.0]) == 0


def test_the_conclusion_says_what_is_distinguishable(workdir):
    draws = np.random.default_rng(1)
    noise = draws.normal(size=8)
    values = {0.1: list(noise), 0.01: list(noise + 0.001 * draws.normal(size=8)), 0.001: list(noise + 3)}
    found = compared(made(workdir, values))
    best = found.groups[0].choices["lr"]
    other = ({0.1, 0.01} - {best}).pop()
    assert found.conclusion == [
        f"lr={best} is better than 1 of the 2 others by more than chance (5 % level, corrected for 2 tests by Holm).",
        f"lr={best} is not distinguishable from lr={other} (p = {found.groups[1].p:.2g}, corrected for 2 tests by Holm).",
    ]
    assert [group.verdict for group in found.groups[:2]] == [
        "best",
        f"not distinguishable, p = {found.groups[1].p:.2g}",
    ]


def on_data(folder, fingerprint):
    """Give the runs of a folder other data."""
    for file in folder.glob("*/data.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"fingerprint": fingerprint}))


def test_runs_on_different_data_are_neither_ranked_nor_tested_across_them(workdir):
    noise = [0.01 * v for v in range(5)]
    jobs = [
        {"objective": base + v, "config": {"dataset": word, "lr": lr, "optimizer.lr": lr, "seed": seed}}
        for word, lr, base in (("digits", 0.1, 5), ("digits", 0.01, 4), ("iris", 0.1, 1), ("iris", 0.01, 2))
        for seed, v in enumerate(noise)
    ]
    one = make_sweep(workdir / OUTPUT / "s" / stamp(0), jobs[:10])
    other = make_sweep(workdir / OUTPUT / "s" / stamp(1), jobs[10:])
    on_data(other, "another")
    found = compared(one, other)
    assert [(g.data, g.place, g.choices["lr"], g.verdict[:4]) for g in found.groups] == [
        (1, 1, 0.01, "best"), (1, 2, 0.1, "p = "), (2, 1, 0.1, "best"), (2, 2, 0.01, "p = "),
    ]  # fmt: skip
    assert found.groups[3].p == compared(other).groups[1].p
    assert "The data differ (runs on digits: 10, iris: 10)" in next(iter(page(found)))
    assert [sentence.partition(" is ")[0] for sentence in found.conclusion] == [
        "On digits: digits lr=0.01", "On iris: iris lr=0.1",
    ]  # fmt: skip
    assert document_of(found)["notes"][0] == found.warning


def test_one_configuration_on_two_versions_of_a_file_is_two_groups(workdir):
    for number in range(2):
        jobs = [{"objective": number + 0.1 * seed, "config": {"seed": seed}} for seed in range(5)]
        on_data(make_sweep(workdir / OUTPUT / "s" / stamp(number), jobs), f"{number}abcdefghij")
    found = compared(*sorted((workdir / OUTPUT / "s").iterdir()))
    assert [(g.choices, len(g.values), g.p) for g in found.groups] == [
        ({"data": "0abcdefg"}, 5, None), ({"data": "1abcdefg"}, 5, None),
    ]  # fmt: skip
    assert "(runs on digits 0abcdefg: 5, digits 1abcdefg: 5)" in found.warning


def test_folds_of_a_table_are_the_same_data_though_their_fingerprints_differ(workdir):
    jobs = [
        {"objective": lr + 0.01 * fold, "config": {"lr": lr, "optimizer.lr": lr, "fold": fold}}
        for lr in (0.1, 0.5)
        for fold in range(5)
    ]
    sweep = make_sweep(workdir / OUTPUT / "s" / stamp(0), jobs)
    for number, job in enumerate(jobs):
        file = sweep / str(number) / "data.json"
        file.write_text(
            json.dumps({"task": "classification", "fingerprint": f"of fold {job['config']['fold']}"})
        )
    found = compared(sweep)
    assert [(g.data, len(g.values), g.verdict[:4]) for g in found.groups] == [(1, 5, "best"), (1, 5, "p = ")]
    assert found.warning == ""


def test_seeds_of_the_split_are_repetitions(workdir):
    """Configurations on other validation samples were ranked, and tested as if these were the same."""
    draws = np.random.default_rng(0)
    values = {lr: draws.normal(size=6) + lr for lr in (0.1, 3.0)}
    jobs = [
        {
            "objective": float(values[lr][seed]),
            "config": {"lr": lr, "optimizer.lr": lr, "dataset.split_seed": seed},
        }
        for lr in values
        for seed in range(6)
    ]
    found = compared(make_sweep(workdir / OUTPUT / "s" / stamp(0), jobs))
    assert [(g.choices, len(g.values), g.test) for g in found.groups] == [
        ({"lr": 0.1}, 6, ""),
        ({"lr": 3.0}, 6, "paired"),
    ]
    assert found.groups[1].p == pytest.approx(stats.ttest_rel(values[0.1], values[3.0]).pvalue)
    few = make_sweep(
        workdir / OUTPUT / "t" / stamp(0), [job for job in jobs if job["config"]["dataset.split_seed"] < 2]
    )
    assert all(
        line.endswith(" dataset.split_seed=0,1,2,3,4") and " seed=" not in line
        for line in compared(few).conclusion[1:]
    )


@pytest.mark.parametrize("key", ["dataset.val_fraction", "folds", "dataset.group_column"])
def test_other_splits_are_other_samples(workdir, key):
    jobs = [
        {"objective": place + 0.1 * seed, "config": {"seed": seed, key: value}}
        for place, value in enumerate((5, 10))
        for seed in range(5)
    ]
    sweep = make_sweep(workdir / OUTPUT / "s" / stamp(0), jobs)
    found = compared(sweep)
    assert [(g.data, g.place, g.p) for g in found.groups] == [(1, 1, None), (2, 1, None)]
    assert f"(runs on digits {key}=5: 5, digits {key}=10: 5)" in found.warning


def test_functions_of_study_problems_are_other_data(workdir):
    """The easier quadratic was called the best one, and the commands of a comparison over several data were broken into lines."""
    jobs = [
        {
            "objective": condition / 100 + rate,
            "config": {
                "dataset": "none",
                "model": "quadratic",
                "model.condition_number": condition,
                "lr": rate,
            },
        }
        for condition in (10, 100.0)
        for rate in (0.1, 0.2)
    ]
    found = compared(make_sweep(workdir / OUTPUT / "s" / stamp(0), jobs))
    assert [(g.data, g.place, g.choices["lr"]) for g in found.groups] == [
        (1, 1, 0.1), (1, 2, 0.2), (2, 1, 0.1), (2, 2, 0.2),
    ]  # fmt: skip
    assert (
        "(runs on quadratic model.condition_number=10: 2, quadratic model.condition_number=100: 2)"
        in found.warning
    )
    commands = [line for line in found.conclusion if line.startswith(COMMANDS)]
    assert len(commands) == 4 and all(f"  {command}" in page(found) for command in commands)


def test_equal_numbers_are_one_configuration_however_they_were_typed(workdir):
    """`model.condition_number=100` and the 100.0 of its file were two configurations, and `folds=5` beside 5.0 other data."""
    jobs = [
        {
            "objective": 1.0 + seed,
            "config": {"model.width": width, "dataset.val_fraction": part, "seed": seed},
        }
        for seed, (width, part) in enumerate([(100, 0), (100.0, 0.0), (50, 0)])
    ]
    found = compared(make_sweep(workdir / OUTPUT / "s" / stamp(0), jobs))
    assert [len(group.values) for group in found.groups] == [2, 1] and not found.warning


def test_entries_of_a_dictionary_are_choices(workdir):
    """Of runs with other entries of `parameters.lr_scale` one was thrown out as a copy, and none was named."""
    entries = [{"layers.0": 5}, {"*.bias": 5}, {"layers.0": 5, "layers.1": 2}, {}]
    scale = "parameters.lr_scale"
    jobs = [
        {
            "objective": place + 0.1 * seed,
            "config": {"seed": seed} | ({f"{scale}.{key}": v for key, v in found.items()} or {scale: {}}),
        }
        for place, found in enumerate(entries)
        for seed in range(2)
    ]
    found = compared(make_sweep(workdir / OUTPUT / "s" / stamp(0), jobs))
    assert [(group.name, len(group.values)) for group in found.groups] == [
        (f"{scale}.layers.0=5", 2), (f"{scale}.*.bias=5", 2), (f"{scale}.layers.0=5 {scale}.layers.1=2", 2), (f"{scale}={{}}", 2),
    ]  # fmt: skip


def test_each_of_thousands_of_entries_is_looked_at_a_fixed_number_of_times(monkeypatch):
    """Found by a hostile tester: a summary of 128 kB held every listing for minutes."""
    original, asked = keys._above, []
    monkeypatch.setattr(keys, "_above", lambda key: asked.append(key) or original(key))
    left, right = ({f"parameters.k.{side}{i}": i for i in range(20_000)} for side in "lr")
    deep = {".".join(["a"] * 20_000): 1}
    found = keys.differences([left | deep, right], [])
    assert len(asked) <= 4 * 40_001
    assert len(found[0]) == 40_000
    # the deep one is of no dictionary that the other has
    assert not deep.keys() & found[0].keys()


def test_words_whose_file_names_another_function_are_other_configurations(workdir):
    """Runs before and after the edit were averaged; a name that the program itself has changed is no choice."""
    first, other = "my_models.tiny", "my_models.big"
    runs = [
        make_run(workdir / OUTPUT / "n" / stamp(n), n, {"model": "net", "model._target_": name, "loss._target_": loss, "seed": n % 2})
        for n, (name, loss) in enumerate([(first, "dltrain.a"), (first, "dltrain.b"), (other, "dltrain.b"), (other, "dltrain.b")])
    ]  # fmt: skip
    found = compared(*runs)
    assert sorted(len(group.values) for group in found.groups) == [2, 2]
    assert {group.name for group in found.groups} == {f"model._target_={name}" for name in (first, other)}
    commands = [line for line in found.conclusion if line.startswith(COMMANDS)]
    assert len(set(commands)) == 2 and all(" rerun " in command for command in commands)


def test_configurations_that_train_the_same_are_one(workdir):
    """Null for a default, a recipe for the keys that it sets, and metrics that are only measured were other configurations."""
    same = [
        {"batch_size": None, "epochs": None, "experiment": None, "metrics": []},
        {"batch_size": 64, "epochs": 30, "experiment": "r", "metrics": ["f1"], "metrics.f1.average": "macro"},
    ]
    other = same[1] | {"optimizer.betas": [0.9, 0.5]}
    jobs = [
        {"objective": place + 0.1 * seed, "config": {"steps": None, "seed": seed, **config}}
        for place, seed, config in ((0, 0, same[0]), (0, 1, same[1]), (5, 2, other))
    ]
    found = compared(make_sweep(workdir / OUTPUT / "s" / stamp(0), jobs))
    assert [len(group.values) for group in found.groups] == [2, 1]
    assert "r" not in found.groups[0].name.split()
    assert not {"experiment", "metrics"} & found.groups[0].choices.keys()


def test_the_time_of_a_stack_is_that_of_no_run(workdir):
    """Which configuration was better "by more than chance" depended on the order of the jobs."""
    jobs = [
        {
            "objective": 1.0,
            "config": {"lr": lr, "seed": seed},
            "seconds": 2.0 - 0.1 * (5 * place + seed),
            "stacked": True,
        }
        for place, lr in enumerate((0.1, 0.2))
        for seed in range(5)
    ]
    sweep = make_sweep(workdir / OUTPUT / "s" / stamp(0), jobs)
    with pytest.raises(UserError, match=r"0/0, .* were trained as one stack of jobs.*sweep\.backend=local$"):
        compared(sweep, metric="seconds")
    assert compared(sweep).metric == "val/loss"


def test_values_of_an_edited_metric_do_not_compare(workdir):
    """The minimum over the classes was ranked against the maximum, after an edit of the metric's file."""
    metric, other = "val/worst", {"my_metrics.py": "b" * 64}
    runs = [
        make_run(
            workdir / OUTPUT / "n" / stamp(n), float(n),
            {"early_stopping.metric": metric, "metrics.worst._target_": "my_metrics.Worst", "seed": n},
            metric=metric, best={metric: float(n), "val/loss": 1.0 + n}, code={"my_metrics.py": "a" * 64, "my_models.py": "c" * 64} | code,
        )
        for n, code in enumerate(({}, other, {"my_models.py": "d" * 64}))
    ]  # fmt: skip
    found = compared(*runs[:2])
    assert found.metric == "val/loss"
    assert (
        f"the values of {metric} do not compare (my_metrics.py was edited): compared by val/loss"
        in found.notes
    )
    assert compared(runs[0], runs[2]).metric == metric


def test_few_repetitions_are_not_tested(workdir):
    found = compared(made(workdir, {0.1: [0.1, 0.2], 0.01: [5.0, 6.0]}))
    assert [group.verdict for group in found.groups] == ["best", "too few runs to tell"]
    assert "At most 2 runs of each configuration" in found.conclusion[0].capitalize()
    assert found.conclusion[1:] == [
        f"dltrain -m lr={lr} optimizer.lr={lr} seed=0,1,2,3,4" for lr in (0.1, 0.01)
    ]


def test_the_command_that_repeats_runs_of_several_folds_has_all_of_them(workdir):
    """It proposed five seeds of the first fold."""
    runs = [
        make_run(
            workdir / OUTPUT / "n" / stamp(n), n, {"optimizer.lr": n // 3 + 1.0, "folds": 3, "fold": n % 3},
            overrides=[f"lr={n // 3 + 1}", "folds=3", f"fold={n % 3}"],
        )
        for n in range(6)
    ]  # fmt: skip
    lines = compared(*runs).conclusion
    assert lines[0].startswith("at most 3 folds and splits") and "with 5 or more folds and splits" in lines[0]
    assert lines[1:] == [f"dltrain -m lr={lr} folds=3 fold=0,1,2 dataset.split_seed=0,1" for lr in (1, 2)]


def nested(workdir, folds, seeds):
    """Make a sweep over lr, fold and seed; return it with its values by lr, fold and seed."""
    draws = np.random.default_rng(0)
    values = draws.normal(size=(2, folds, 1)) + draws.normal(scale=0.01, size=(2, folds, seeds))
    jobs = [
        {
            "objective": float(values[i, fold, seed]),
            "config": {"lr": lr, "optimizer.lr": lr, "fold": fold, "seed": seed},
        }
        for i, lr in enumerate((0.1, 0.2))
        for fold in range(folds)
        for seed in range(seeds)
    ]
    return make_sweep(workdir / OUTPUT / "s" / stamp(0), jobs), values


def test_seeds_of_one_fold_are_not_independent_of_each_other(workdir):
    """Six seeds that change nothing made the interval of three folds six times narrower, and a p of 7e-12."""
    found = compared(nested(workdir, folds=3, seeds=6)[0])
    assert [(len(g.values), len(g.units), g.p) for g in found.groups] == [(18, 3, None), (18, 3, None)]
    assert any("share its samples" in note for note in found.notes)
    assert "dataset.split_seed=0,1" in found.conclusion[1]


def test_means_of_folds_are_tested_as_scipy_tests_them(workdir):
    sweep, values = nested(workdir, folds=6, seeds=3)
    found = compared(sweep)
    means = values.mean(axis=2)
    best, other = sorted(means, key=np.mean)
    for group, column in zip(found.groups, (best, other), strict=True):
        half = stats.t.ppf(0.975, 5) * column.std(ddof=1) / math.sqrt(6)
        assert (group.mean, group.half_width) == pytest.approx((column.mean(), half))
    assert found.groups[1].test == "paired"
    assert found.groups[1].p == pytest.approx(stats.ttest_rel(best, other).pvalue)


def asked_runs(workdir, overrides, options=""):
    """Two runs that differ in their rate, with these overrides and options of their command."""
    return [
        make_run(
            workdir / OUTPUT / "n" / stamp(n), n, {"optimizer.lr": n + 1.0},
            command=f"dltrain {options} {shlex.join(overrides)}", overrides=overrides,
        )
        for n in range(2)
    ]  # fmt: skip


def test_the_command_that_repeats_a_run_has_its_words_and_its_main_file(workdir):
    runs = asked_runs(workdir, ["model=own", "name=a b", "seed=3"], "--config-name main")[:1]
    runs.append(make_run(workdir / OUTPUT / "n" / stamp(2), 2, {"optimizer.lr": 2.0}, overrides=["lr=2"]))
    told = "dltrain -m model=own 'name=a b' seed=0,1,2,3,4 --config-name main"
    assert f"  {told}" in list(page(compared(*runs)))


BEYOND = (
    "trust=[payload]", "+trust=[payload]", "model._target_=payload.M", "++model={_target_: payload.M}", "hydra.searchpath=[pkg://payload]",
    "+hydra/callbacks=x", "sweep.space={a: 1}", "logger=[mlflow]", "logger.wandb.mode=online", "model@x=y", "~model", "notes=${oc.env:TOKEN}",
    "experiment=../theirs", "model=x/../../theirs",
)  # fmt: skip


@pytest.mark.parametrize("text", BEYOND)
def test_a_record_does_not_propose_what_only_the_user_may_say(workdir, text):
    """Pasted, `trust` or a `_target_` of somebody's record would have the rights of the command line: `rerun` gives them none."""
    runs = asked_runs(workdir, ["lr=0.1", text])
    found = compared(*runs)
    assert {line for line in found.conclusion if line.startswith(COMMANDS)} == {
        f"for seed in 0 1 2 3 4; do dltrain rerun {run} seed=$seed; done" for run in runs
    }
    assert f"Not taken from the records, which may be somebody else's: {text}." in found.conclusion[-1]
    assert not any(text in line for line in found.conclusion[:-1])


@pytest.mark.parametrize("options", ["--config-dir theirs", "-cd=theirs", "--config-name ../theirs/main"])
def test_a_record_does_not_propose_its_files_of_configuration(workdir, options):
    found = compared(*asked_runs(workdir, ["lr=0.1"], options))
    assert all(" rerun " in line for line in found.conclusion[1:3])
    assert "theirs" in found.conclusion[-1] and not any("theirs" in line for line in found.conclusion[:-1])


def test_copies_of_a_run_are_no_repetitions(workdir):
    folder = workdir / OUTPUT / "n"
    copies = [make_run(folder / stamp(n), 0.5, {"seed": 2}) for n in range(5)]
    whole = make_run(folder / stamp(5), 0.4, {"seed": 3})
    cut = make_run(folder / stamp(6), 0.3, {"seed": 3}, status="interrupted")
    found = compared(*copies, cut, whole)
    (group,) = found.groups
    assert (group.values, [member.path for member in group.members]) == ([0.5, 0.4], [copies[0], whole])
    told = "5 runs are left out: they have the configuration, seed, fold and split of another run, which counts once"
    assert told in found.notes
    assert [len(group.values) for group in compared(*copies[:2]).groups] == [1]


def test_higher_is_better_where_the_metric_says_so(workdir):
    sweep = made(workdir, {0.1: [0.5], 0.01: [0.9]}, metric="val/accuracy", mode="max")
    found = compared(sweep)
    assert (found.mode, found.groups[0].choices) == ("max", {"lr": 0.01})
    by_loss = compared(sweep, metric="test/loss")
    assert (by_loss.mode, by_loss.groups[0].mean) == ("min", 0.6)


def of_own_metric(folder, objective, direction="max", **summary):
    """Make a run of a metric that the program does not have; its lr is the objective."""
    config = {"metrics": ["sharp"], "lr": objective, "optimizer.lr": objective} | (
        {"metrics.sharp._direction_": direction} if direction else {}
    )
    best = {"epoch": 2.0, "step": 42.0, "val/sharp": objective, "val/loss": objective}
    return make_run(folder, objective, config, best=best, test={"sharp": objective}, **summary)


@pytest.mark.parametrize("metric", ["val/sharp", "test/sharp"])
def test_the_words_of_the_runs_say_the_direction_of_their_own_metrics(workdir, metric):
    runs = [of_own_metric(workdir / OUTPUT / "n" / stamp(n), 0.5 + n / 10, "max") for n in range(2)]
    found = compared(*runs, metric=metric)
    assert (found.mode, [group.mean for group in found.groups]) == ("max", [0.6, 0.5])
    assert (found.direction("val/sharp"), found.direction("val/loss"), found.direction("lr")) == (
        "max",
        "min",
        None,
    )
    others = [of_own_metric(workdir / OUTPUT / "m" / stamp(n), 0.5 + n / 10, None) for n in range(2)]
    with pytest.raises(
        UserError, match=r"(?s)not known .* `_direction_: max`.*Scores with a direction: .*val/loss"
    ):
        compared(*others, metric=metric)
    lower = of_own_metric(workdir / OUTPUT / "l" / stamp(0), 0.5, "min")
    with pytest.raises(UserError, match="of which higher is better in .* and lower in .* one direction"):
        compared(*runs, lower, metric=metric)


def test_runs_of_different_objectives_are_compared_by_a_common_own_metric(workdir):
    one = of_own_metric(workdir / OUTPUT / "n" / stamp(0), 0.5, metric="val/loss")
    other = of_own_metric(workdir / OUTPUT / "n" / stamp(1), 0.9, metric="val/sharp", mode="max")
    found = compared(one, other)
    assert (found.metric, found.mode) == ("val/sharp", "max")


def test_runs_with_different_metrics_are_compared_by_a_common_one_and_it_is_said(workdir):
    one = make_run(workdir / OUTPUT / "n" / stamp(0), 0.5)
    other = make_run(workdir / OUTPUT / "n" / stamp(1), 0.9, {"seed": 1}, metric="val/accuracy", mode="max")
    found = compared(one, other)
    assert found.metric == "val/accuracy"
    assert found.notes == [
        "the runs have different metrics (val/accuracy, val/loss): compared by val/accuracy, which all have"
    ]


DEFINITIONS = [
    ("val/objective", {"loss": "huber", "loss.delta": 0.1}, {"loss": "huber", "loss.delta": 2.0}, "loss.delta is 0.1 or 2"),
    ("val/objective", {"loss": "mae", "loss._target_": "a"}, {"loss": "mse", "loss._target_": "b"}, "loss is mae or mse"),
    ("val/f1", {"metrics.f1.average": "macro"}, {"metrics.f1.average": "micro"}, "metrics.f1.average is macro or micro"),
    ("train/loss", {"augmentation": ["mixup"], "augmentation.mixup.alpha": 0.2}, {"augmentation": []},
     "augmentation is [mixup] or none"),
    ("train/loss", {"sampler": "hard"}, {"sampler": "none"}, "sampler is hard or none"),
]  # fmt: skip


@pytest.mark.parametrize("metric, first, second, told", DEFINITIONS)
def test_a_metric_that_is_computed_differently_ranks_nothing(workdir, metric, first, second, told):
    scores = [(0.2, 0.9), (0.3, 0.4)]
    folders = [
        make_run(
            workdir / OUTPUT / "n" / stamp(n),
            own,
            {"early_stopping.metric": metric, **config},
            metric=metric,
            best={metric: own, "val/loss": loss},
        )
        for n, (config, (own, loss)) in enumerate(zip((first, second), scores, strict=True))
    ]
    found = compared(*folders)
    assert (found.metric, [group.mean for group in found.groups]) == ("val/loss", [0.4, 0.9])
    assert f"the values of {metric} do not compare ({told}): compared by val/loss" in found.notes
    with pytest.raises(UserError, match=rf"{re.escape(told)}\)\.\nCompare by --metric val/loss$"):
        compared(*folders, metric=metric)
    # a run alone, and runs on different data, keep their metric
    assert compared(folders[0]).metric == metric
    other = make_run(
        workdir / OUTPUT / "n" / stamp(3),
        0.1,
        {**second, "dataset": "iris"},
        metric=metric,
        best={metric: 0.1},
    )
    assert compared(folders[0], other).metric == metric


def test_gap_ranks_nothing_and_its_repetitions_have_a_mean(workdir):
    rates = [
        make_run(workdir / OUTPUT / "n" / stamp(n), 0.1, {"optimizer.lr": n + 1.0}, metric="gap")
        for n in range(2)
    ]
    found = compared(*rates)
    assert found.metric == "val/loss" and any(note.startswith("gap does not say") for note in found.notes)
    with pytest.raises(UserError, match=r"learned nothing has none\.\nCompare by --metric val/loss$"):
        compared(*rates, metric="gap")
    seeds = [make_run(workdir / OUTPUT / "m" / stamp(n), 0.1, {"seed": n}, metric="gap") for n in range(2)]
    assert compared(*seeds).metric == "gap"


def test_runs_of_different_tasks_are_refused(workdir):
    one, other = (make_run(workdir / OUTPUT / "n" / stamp(n)) for n in range(2))
    (other / "data.json").write_text('{"task": "regression"}')
    with pytest.raises(CheckpointProblem, match="is a classification and .* a regression"):
        compared(one, other)


def test_runs_without_a_common_score_are_refused(workdir):
    one = make_run(workdir / OUTPUT / "n" / stamp(0), best={}, metric="val/mine")
    other = make_run(workdir / OUTPUT / "n" / stamp(1), best={}, metric="val/yours", test={})
    with pytest.raises(CheckpointProblem, match=r"val/mine, val/yours\) and no common score"):
        compared(one, other)


def test_other_data_and_unfinished_runs_are_said(workdir):
    one, other = (
        make_run(workdir / OUTPUT / "n" / stamp(n), 0.1 * n, {"optimizer.lr": n + 1.0}) for n in range(2)
    )
    (other / "data.json").write_text('{"task": "classification", "fingerprint": "other"}')
    lost = make_run(workdir / OUTPUT / "n" / stamp(2), None, best=..., test=..., seconds=..., status="failed")
    found = compared(one, other, lost)
    assert found.notes == ["0002 is left out: it has no score (failed)"]
    assert "The data differ (runs on digits 9f828d8a: 1, digits other: 1)" in found.warning
    assert len(found.groups) == 2


def test_the_table_fits_a_narrow_terminal(workdir, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    values = {0.001: [0.1, 0.2, 0.3, 0.2, 0.1], 0.002: [0.2, 0.1, 0.2, 0.3, 0.2]}
    table = list(page(compared(made(workdir, values))))
    assert any("not distinguishable, p = " in line for line in table)
    assert max(map(len, table)) <= 60


def test_grouping_asks_each_repetition_a_fixed_number_of_times(workdir, monkeypatch):
    """It was quadratic in the repetitions of one configuration."""
    original, asked = Member.fingerprint.fget, []
    monkeypatch.setattr(Member, "fingerprint", property(lambda self: asked.append(self) or original(self)))
    monkeypatch.setattr(Member, "__eq__", lambda self, other: asked.append(self) or self is other)
    found = compared(made(workdir, {0.1: [0.01 * seed for seed in range(60)]}))
    assert len(found.groups[0].members) == 60
    assert len(asked) <= 4 * 60


def test_a_misspelt_metric_gives_the_nearest(workdir):
    run = make_run(workdir / OUTPUT / "n" / stamp(0))
    with pytest.raises(UserError, match="Did you mean `val/accuracy`"):
        compared(run, metric="val/acuracy")


def test_the_api_and_the_verb_know_the_same_runs(workdir, dltrain, capsys):
    sweep = made(workdir, {0.1: [0.1, 0.2], 0.01: [5.0, 6.0]})
    dltrain("compare", str(sweep), "--json")
    document = json.loads(capsys.readouterr().out)
    table = package.compare(sweep)
    assert sorted(table["objective"]) == sorted(
        v for group in document["configurations"] for v in group["values"]
    )
    assert list(table["lr"]) == [0.1, 0.1, 0.01, 0.01]
    assert document == json.loads(
        json.dumps(document_of(compared(sweep)), default=str).replace("NaN", "null")
    )


def test_jobs_are_found_whatever_their_folders_are_called(workdir):
    sweep = made(workdir, {0.1: [0.1], 0.01: [0.2]})
    (sweep / "0").rename(sweep / "0-lr=0.1")
    (sweep / "1").rename(sweep / "10-lr=0.01")
    assert [member.label for member in members_of([sweep])] == ["0000/0", "0000/10"]


def test_the_printed_name_of_a_job_names_it(workdir, dltrain):
    sweep = made(workdir, {0.1: [0.1], 0.01: [0.2]})
    folders = [sweep / "0-lr=0.1,seed=0", sweep / "10-lr=1e-05,seed=0"]
    for old, new in zip(("0", "1"), folders, strict=True):
        (sweep / old).rename(new)
    labels = [member.label for member in members_of(folders)]
    assert labels == ["0000/0", "0000/10"]
    assert [run_folder(label).resolve() for label in labels] == folders


def test_no_name_is_proposed_that_was_given_or_that_names_nothing(workdir):
    sweep = made(workdir, {0.1: [0.1]})
    (sweep / "0").rename(sweep / "0-lr=0.1,seed=0")
    with pytest.raises(CheckpointProblem, match="Did you mean `0-lr=0.1,seed=0`") as refused:
        run_folder("lr=0.1,seed=0")
    assert "mean `lr=0.1" not in str(refused.value)
    assert run_folder("0-lr=0.1,seed=0").name == "0-lr=0.1,seed=0"


@pytest.mark.parametrize("width", [60, 100, 160])
def test_no_page_is_wider_than_the_terminal(workdir, dltrain, capsys, monkeypatch, width):
    sweep = made(
        workdir, {0.1: [0.1, 0.2], 0.01: [5.0, 6.0]}, notes="a long note " * 20, stop_reason="x" * 200
    )
    monkeypatch.setenv("COLUMNS", str(width))
    for call in (["show", "0000"], ["show", "0000/1"], ["diff", "0000/1", "0000/2"], ["compare", "0000"]):
        assert dltrain(*call) == 0
        printed = capsys.readouterr().out
        wide = [line for line in printed.splitlines() if cells_of(line) > width and str(sweep) not in line]
        assert [line for line in wide if not line.startswith(("a  ", "b  "))] == []


# The figure -------------------------------------------------------------------------------------------------------


def style_of(**options):
    return figure.Style(**options)


def test_a_curve_is_the_mean_with_its_interval(workdir):
    values = {0.1: [0.1, 0.2, 0.4], 0.01: [5.0, 6.0, 8.0]}
    found = compared(made(workdir, values))
    rows = figure.curve(found.groups[0], "epoch", "val/loss")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert [row["mean"] for row in rows] == pytest.approx([1 + np.mean(values[0.1]), np.mean(values[0.1])])
    low, high = stats.t.interval(0.95, 2, np.mean(values[0.1]), stats.sem(values[0.1]))
    assert (rows[1]["low"], rows[1]["high"]) == (pytest.approx(low), pytest.approx(high))
    seconds = figure.curve(found.groups[0], "seconds", "val/loss")
    assert [row["seconds"] for row in seconds] == [0.5, 1.0]


def test_a_curve_ends_with_the_shortest_repetition(workdir):
    sweep = made(workdir, {0.1: [0.1, 0.2]})
    (sweep / "1" / "metrics.csv").write_text("epoch,step,val/loss\n1,21,0.5\n")
    rows = figure.curve(compared(sweep).groups[0], "step", "val/loss")
    assert [(row["step"], row["n"]) for row in rows] == [(21, 2)]


@pytest.mark.parametrize("options, says", [
    (["--figure", "x.doc"], "must end in .pdf, .svg or .png"), (["--figure", "none/x.pdf"], "there is no folder none"),
    (["--figure", "x.pdf", "--size", "3"], "width and height in cm"), (["--figure", "x.pdf", "--size", "0x3"], "from 1 to 100"),
    (["--figure", "x.pdf", "--x", "time"], "must be epoch, step or seconds"), (["--size", "3x3"], "add --figure FILE.pdf"),
    (["--figure", "x.pdf", "--font-size", "big"], "from 2 to 72"),
    (["--figure", "x.pdf", "--y", "vall/loss"], "Did you mean `val/loss`"),
    (["--figure", "x.pdf", "--metric", "test/loss"], "Another column: --y val/loss"),
])  # fmt: skip
def test_a_wrong_figure_is_refused_and_nothing_is_written(workdir, dltrain, options, says):
    pytest.importorskip("vl_convert")
    made(workdir, {0.1: [0.1, 0.2]})
    with pytest.raises(UserError, match=re.escape(says)):
        dltrain("compare", "0000", *options)
    assert [path.name for path in workdir.iterdir()] == [OUTPUT]


def test_missing_packages_are_named(workdir, dltrain, monkeypatch):
    made(workdir, {0.1: [0.1]})
    monkeypatch.setattr(figure, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="run: pip install altair vl-convert-python"):
        dltrain("compare", "0000", "--figure", "x.pdf")


def test_a_figure_replaces_the_numbers_of_an_earlier_one_and_no_other_file(workdir, dltrain, monkeypatch):
    made(workdir, {0.1: [0.1, 0.2]})
    monkeypatch.setattr(figure, "find_spec", lambda name: True)
    monkeypatch.setattr(figure, "check_font", lambda spec, style: None)
    monkeypatch.setattr(figure, "chart", lambda *arguments: {})
    monkeypatch.setattr(figure, "picture", lambda spec, style: style.file.suffix.encode())
    own = workdir / "own.csv"
    own.write_text("mine\n")
    for name in ("own.pdf", "own.svg", "own.pdf"):
        assert dltrain("compare", "0000", "--figure", name) == 0
    assert own.read_text() == "mine\n"
    assert (workdir / "own.pdf.csv").read_text() == (workdir / "own.svg.csv").read_text()
    for content in (b"epoch,loss\n1,2\n", b"\xff\xfe", b""):
        (workdir / "own.pdf.csv").write_bytes(content)
        with pytest.raises(
            UserError, match="own.pdf.csv, which holds something else and would be overwritten"
        ):
            dltrain("compare", "0000", "--figure", "own.pdf")
        assert (workdir / "own.pdf.csv").read_bytes() == content


@pytest.mark.ci
def test_the_figure_has_its_size_its_words_and_its_data(workdir, dltrain):
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    from PIL import Image

    made(workdir, {0.1: [0.1, 0.2, 0.4], 0.01: [5.0, 6.0, 8.0]})
    for suffix in ("svg", "pdf", "png"):
        arguments = ["--figure", f"c.{suffix}", "--title", "Two <rates>", "--size", "8x6"]
        assert dltrain("compare", "0000", *arguments) == 0
    picture = (workdir / "c.svg").read_text()
    for text in ("lr=0.1", "lr=0.01", "Two &lt;rates&gt;", "epoch", "val/loss"):
        assert f">{text}</text>" in picture
    box = re.search(rb"MediaBox \[0 0 ([\d.]+) ([\d.]+)", (workdir / "c.pdf").read_bytes())
    assert [float(side) for side in box.groups()] == pytest.approx([8 / 2.54 * 72, 6 / 2.54 * 72], abs=1)
    with Image.open(workdir / "c.png") as image:
        assert image.size == pytest.approx((8 / 2.54 * 300, 6 / 2.54 * 300), abs=3)
    with open(workdir / "c.svg.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["configuration"], float(row["epoch"]), row["n"]) for row in rows] == [
        ("lr=0.1", 1, "3"), ("lr=0.1", 2, "3"), ("lr=0.01", 1, "3"), ("lr=0.01", 2, "3"),
    ]  # fmt: skip
    with pytest.raises(UserError, match="is nosuchfont, which is not installed here"):
        dltrain("compare", "0000", "--figure", "d.pdf", "--font", "nosuchfont")
    assert not (workdir / "d.pdf").exists()


# show and diff ----------------------------------------------------------------------------------------------------


def test_show_of_a_real_run_says_what_was_asked_and_what_came_out(train, dltrain, capsys):
    run = train(
        "optimizer=nesterov", "lr=0.05", "epochs=2", "model.hidden=[8]", "regularization=[l2]", "tags=[a]"
    )
    document = package.show(run.path)
    assert document["asked"] == {
        "optimizer": "nesterov", "regularization": ["l2"], "lr": 0.05, "epochs": 2, "tags": ["a"], "model.hidden": [8],
    }  # fmt: skip
    assert document["objective"] == run.summary["objective"]
    # ten classes that occur about equally often
    assert document["guess"] == pytest.approx({"loss": math.log(10), "accuracy": 0.1}, abs=0.02)
    assert document["files"]["summary.json"] == (run.path / "summary.json").stat().st_size
    assert package.runs(run.path.parents[1], "optimizer=nesterov", "model.hidden=[8]").num_rows == 1
    default = train("epochs=1")
    assert package.show(default.path)["asked"] == {"epochs": 1}
    capsys.readouterr()
    assert dltrain("show", str(run.path)) == 0
    page = capsys.readouterr().out
    assert "asked      optimizer=nesterov  regularization=[l2]  lr=0.05" in page
    assert " KiB" in page and " kB" not in page


def test_the_summary_holds_what_config_yaml_holds(train, monkeypatch):
    from dltrain.config.saved import flat, load_bounded

    monkeypatch.setenv("SECRET", "hidden value")
    run = train("steps=2", "notes=${oc.env:SECRET}", "wrap=[sam]", "metrics=[f1]")
    assert run.summary["config"] == flat(load_bounded(run.path / "config.yaml"))
    assert run.summary["config"]["wrap"] == ["sam"]
    assert "hidden value" not in (run.path / "summary.json").read_text()


def test_diff_of_real_runs_is_what_was_changed(train, dltrain, capsys):
    one, other = train("epochs=1"), train("epochs=1", "lr=0.01", "model.hidden=[8]")
    found = package.diff(one.path, other.path)
    assert found["configuration"] == [
        {"key": "lr", "a": 0.001, "b": 0.01},
        {"key": "model.hidden", "a": [256, 128], "b": [8]},
    ]
    assert found["code"] == found["versions"] == found["data"] == []
    assert not found["same"]
    results = {pair["key"]: (pair["a"], pair["b"]) for pair in found["results"]}
    assert results["val/loss"] == (one.summary["objective"], other.summary["objective"])
    assert package.diff(one.path, one.path)["same"]


def test_diff_finds_each_kind_of_difference(workdir):
    one = make_run(workdir / OUTPUT / "n" / stamp(0))
    other = make_run(
        workdir / OUTPUT / "n" / stamp(1),
        0.4,
        {"optimizer": "sgd", "optimizer._target_": "x", "optimizer.eps": None},
        git={"commit": "b" * 40, "dirty": True},
        versions={"dltrain": "0.1.0", "python": "3.11.7", "torch": "2.15"},
        threads=4,
    )
    (other / "data.json").write_text('{"task": "classification", "sizes": {"train": 5}, "fingerprint": "x"}')
    found = package.diff(one, other)
    assert [pair["key"] for pair in found["configuration"]] == ["optimizer", "optimizer.eps"]
    assert [pair["key"] for pair in found["code"]] == ["commit", "dirty"]
    assert [pair["key"] for pair in found["versions"]] == ["torch"]
    assert {"fingerprint", "train samples", "val samples"} <= {pair["key"] for pair in found["data"]}
    assert found["machine"] == [{"key": "threads", "a": 1, "b": 4}]


def test_counts_are_whole_and_states_are_sentences(workdir, dltrain, capsys):
    one, other = (
        make_run(workdir / OUTPUT / "n" / stamp(n), epochs=8.0 + n, best_epoch=8.0 + n, status=status)
        for n, status in enumerate(("completed", "diverged"))
    )
    assert dltrain("diff", "0000", "0001") == 0
    rows = [line.split()[:-1] for line in capsys.readouterr().out.splitlines()]
    assert ["epochs", "8", "9"] in rows and ["best", "epoch", "8", "9"] in rows
    assert "it diverged" in package.show(other)["warnings"]
    with pytest.raises(CheckpointProblem, match="^This run does not have a score"):
        compared(other)


def test_show_warns_of_what_is_not_finished(workdir):
    run = make_run(
        workdir / OUTPUT / "n" / stamp(0),
        status="running",
        git={"commit": "a", "dirty": True},
        problems=["a full disk"],
    )
    assert package.show(run)["status"] == "killed"
    assert package.show(run)["warnings"] == [
        f"it is not finished: dltrain resume {run}",
        "a full disk",
        "the working folder had changes that were not committed",
    ]


def test_a_run_is_found_by_the_end_of_its_name(workdir, dltrain):
    one, other = (make_run(workdir / OUTPUT / name / stamp(n)) for n, name in enumerate("ab"))
    assert run_folder("0001") == other.relative_to(workdir)
    assert run_folder(f"a/{one.name}") == one.relative_to(workdir)
    make_run(workdir / OUTPUT / "c" / "2027-01-01_00-00-00-0001")
    for text, says in (
        ("0001", "the end of several names"),
        ("0002", "is no run"),
        ("", "no run"),
        ("outputs/a", "Its newest run"),
    ):
        with pytest.raises(CheckpointProblem, match=says):
            run_folder(text)
    for verb in ("evaluate", "report", "resume", "verify"):
        with pytest.raises(CheckpointProblem, match="`0001` is the end of several names"):
            dltrain(verb, "0001")


@pytest.mark.ci
def test_the_page_needs_no_network_and_strangers_end_no_script(workdir, dltrain):
    evil = "</script><script>alert(1)</script>"
    jobs = [{"objective": v, "config": {"notes_of": evil if v > 0.3 else "x", "seed": 0}} for v in (0.1, 0.5)]
    make_sweep(workdir / OUTPUT / "s" / stamp(0), jobs, finished=True)
    assert dltrain("compare", "0000", "--html", "c.html", "--y", "train/loss") == 0
    page = (workdir / "c.html").read_text()
    assert len(page) < 300_000
    assert evil not in page
    assert "&lt;/script&gt;" in page
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", markup) == []
    assert "Content-Security-Policy" in page and "://" not in page
    (chart,) = data_in(page)["charts"]
    assert [series["name"] for series in chart["series"]] == ["notes_of=x", f"notes_of={evil}"]


def test_the_curves_of_the_page_are_those_of_the_figure(workdir, dltrain):
    """The second truth is the CSV beside a figure, which draws the same mean and interval."""
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    made(workdir, {0.1: [0.1, 0.2, 0.3], 0.2: [0.3, 0.5, 0.4]})
    assert dltrain("compare", "0000", "--html", "c.html", "--figure", "c.svg", "--y", "train/loss") == 0
    with open(workdir / "c.svg.csv") as stream:
        rows = list(csv.DictReader(stream))
    (chart,) = data_in((workdir / "c.html").read_text())["charts"]
    assert len(chart["series"]) == 2 and data_in((workdir / "c.html").read_text())["unit"] == "epoch"
    for series in chart["series"]:
        own = [row for row in rows if row["configuration"] == series["name"]]
        for key, column in (("x", "epoch"), ("values", "train/loss"), ("low", "low"), ("high", "high")):
            assert series[key] == pytest.approx([float(row[column]) for row in own], rel=1e-5)


@pytest.mark.ci
def test_a_page_beside_a_figure_says_which_of_them_shows_how_many(workdir, dltrain, capsys):
    pytest.importorskip("vl_convert")
    made(workdir, {0.01 * k: [0.1 * k, 0.2 * k] for k in range(1, 11)})
    assert dltrain("compare", "0000", "--html", "c.html", "--figure", "c.svg", "--size", "12x4") == 0
    told = " ".join(capsys.readouterr().out.split())
    page = (workdir / "c.html").read_text()
    (count,) = re.findall(r"the figure c.svg shows the best (\d) of 10 configurations", told)
    assert count != "8" and "The best 8 of 10 configurations are in this chart." in page
    assert "c.svg" not in page
    # and why the best value of a curve may not be that of the table
    about = "The table takes the best epoch of each run, the curves the mean over the runs at each epoch."
    assert about in told and about in page


def test_a_curve_of_another_column_is_not_compared_with_the_table(workdir, dltrain, capsys):
    made(workdir, {0.1: [0.1, 0.2]})
    assert dltrain("compare", "0000", "--html", "c.html", "--y", "train/loss") == 0
    assert "The table takes" not in (workdir / "c.html").read_text() + capsys.readouterr().out


def test_the_page_says_that_a_band_is_cut_and_keeps_its_ends(workdir, dltrain):
    made(workdir, {0.1: [0.1, 0.9], 0.2: [0.3, 0.31]})
    assert dltrain("compare", "0000", "--html", "c.html") == 0
    page = (workdir / "c.html").read_text()
    assert "The axis is cut: " in page and " of 4 intervals." in page
    (chart,) = data_in(page)["charts"]
    assert chart["exact"] and max(map(max, (s["high"] for s in chart["series"]))) > chart["range"][1]


@pytest.mark.parametrize("options, says", [
    (["--html", "x.pdf"], "must end in .html"), (["--html", "x.html", "--size", "3x3"], "`--size` is about --figure"),
    (["--y", "val/loss"], "`--y` is about --figure and --html"), (["--html", "x.html", "--x", "t"], "must be epoch"),
])  # fmt: skip
def test_a_wrong_page_is_refused(workdir, dltrain, options, says):
    pytest.importorskip("vl_convert")
    made(workdir, {0.1: [0.1, 0.2]})
    with pytest.raises(UserError, match=says):
        dltrain("compare", "0000", *options)
    assert [path.name for path in workdir.iterdir()] == [OUTPUT]


# What was asked for, and what a run chose ---------------------------------------------------------------------------


def test_rates_that_auto_chose_are_one_configuration_as_in_the_sweep_and_are_told(workdir):
    rates = [0.00316, 0.01, 0.01]
    jobs = [
        {
            "objective": 1.0 + seed,
            "config": {"lr": rate, "optimizer.lr": rate, "seed": seed},
            "overrides": ["lr=auto", f"seed={seed}"],
        }
        for seed, rate in enumerate(rates)
    ]
    found = compared(make_sweep(workdir / OUTPUT / "s" / stamp(0), jobs))
    (group,) = found.groups
    assert [len(group.members), group.mean] == [3, 2.0]
    assert "these runs: lr=auto chose 0.00316, 0.01, 0.01" in found.notes
    chosen = {
        "objective": 1.0,
        "config": {"lr": 0.01, "optimizer.lr": 0.01, "seed": 3},
        "overrides": ["lr=0.01"],
    }
    both = compared(make_sweep(workdir / OUTPUT / "t" / stamp(1), [*jobs, chosen]))
    assert sorted(str(group.choices["lr"]) for group in both.groups) == ["0.01", "auto"]


@pytest.mark.ci
def test_a_run_that_was_lengthened_is_repeated_as_long_as_it_is(workdir, train, dltrain, capsys):
    short = train("epochs=1", "lr=0.01", "name=c")
    train("epochs=1", "lr=0.001", "name=c")
    assert dltrain("resume", str(short.path), "epochs=2") == 0
    assert json.loads((short.path / "summary.json").read_text())["longer"] == ["epochs=2"]
    assert dltrain("resume", str(short.path), "epochs=3", "tags=[long]") == 0
    capsys.readouterr()
    assert dltrain("compare", *map(str, workdir.glob("outputs/c/*"))) == 0
    said = capsys.readouterr().out
    assert " epochs=3 " in next(
        line for line in said.splitlines() if "seed=0,1" in line and "lr=0.01" in line
    )
    assert " epochs=1 " in next(
        line for line in said.splitlines() if "seed=0,1" in line and "lr=0.001" in line
    )
    assert dltrain("verify", str(short.path)) == 0
