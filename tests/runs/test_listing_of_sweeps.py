"""`dltrain runs` and `show` of sweeps with repetitions, tags, and runs on different data; what they say is asked for."""

from __future__ import annotations

import json
import os

import pytest
from made import make_run, make_sweep, stamp

from dltrain.commands import columns
from dltrain.commands import runs as verb
from dltrain.commands.compare import members_of
from dltrain.config import keys
from dltrain.errors import UserError
from dltrain.sweep.outcome import comparison

OUTPUT = "outputs"
# by mean the second configuration is the best, by its luckiest seed the first
LUCKY = {0.1: (0.01, 0.99, 0.8), 0.01: (0.2, 0.3, 0.4), 0.001: (0.5, 0.6, None)}


@pytest.fixture
def refused():
    """Check that a call is refused with a text."""

    def check(text, call):
        with pytest.raises(UserError) as problem:
            call()
        assert text in str(problem.value)

    return check


@pytest.fixture
def lucky(workdir):
    """A sweep of three configurations with three seeds each; one seed of the third failed."""
    return make_sweep(
        workdir / OUTPUT / "swept" / stamp(60),
        [
            {
                "objective": value,
                "config": {"lr": lr, "optimizer.lr": lr, "seed": seed},
                "status": "completed" if value is not None else "failed",
                "test": {"accuracy": 1 - (value or 0)},
            }
            for lr, values in LUCKY.items()
            for seed, value in enumerate(values)
        ],
    )


def test_a_sweep_is_judged_by_the_mean_of_its_best_configuration(lucky, dltrain, capsys):
    (row,) = verb.listed(OUTPUT, columns=["lr", "seed", "objective", "test/accuracy"]).document()["runs"]
    assert row["objective"] == pytest.approx(0.3)
    assert row["values"] == {
        "lr": 0.01,
        "seed": None,
        "objective": pytest.approx(0.3),
        "test/accuracy": pytest.approx(0.7),
    }
    assert dltrain("runs") == 0
    assert "0.3000" in capsys.readouterr().out
    make_run(lucky.parent.parent / "one" / stamp(61), 0.25)
    assert [r["run"] for r in verb.listed(OUTPUT, sort="objective").document()["runs"]] == ["003d", "003c"]


def test_show_lists_the_configurations_of_a_sweep_by_their_means(lucky, dltrain, capsys):
    assert dltrain("show", "003c", "--json") == 0
    found = json.loads(capsys.readouterr().out)["configurations"]
    assert [(c["choices"]["lr"], c["objective"]) for c in found] == [
        (0.01, pytest.approx(0.3)),
        (0.1, pytest.approx(0.6)),
        (0.001, pytest.approx(0.55)),
    ]
    assert found[0]["runs"] == ["003c/3", "003c/4", "003c/5"]
    assert dltrain("show", "003c") == 0
    said = capsys.readouterr().out
    assert "003c/3 … 003c/5" in said
    assert "2 completed, 1 failed" in said
    assert "3 configurations by the mean of their runs" in said


def test_a_listing_ranks_configurations_as_the_report_does(lucky):
    from dltrain.commands.configurations import configurations_of
    from dltrain.storage.index import Index
    from dltrain.sweep.jobs import Job
    from dltrain.sweep.outcome.ranking import rank

    class Plan:
        mode, replicates, objectives, search_axes = "min", [{}, {}, {}], [], []

    jobs = [Job(n, n // 3, {"lr": n // 3, "seed": n % 3}, [], lucky / str(n)) for n in range(9)]
    for job in jobs:
        job.read()
    ranked = [[str(job.number) for job in row.jobs] for row in rank(Plan, jobs)]
    listed = configurations_of(e for e in Index(lucky).entries if not e.is_sweep)
    assert [[job.folder_name for job in one.jobs] for one in listed] == ranked
    assert listed[0].entry().facts["objective"] == rank(Plan, jobs)[0].mean


# number of the job → optimizer, seed, objective: two configurations were drawn twice, one of them with a draw that failed
DRAWN = [
    ("sgd", 0, 0.9), ("sgd", 1, 0.8), ("adam", 0, 0.4), ("adam", 1, 0.3), ("sgd", 0, 0.9), ("sgd", 1, 0.8),
    ("lion", 0, None), ("lion", 1, 0.2), ("lion", 0, 0.3), ("lion", 1, 0.2), ("adamw", 0, 0.1), ("adamw", 1, None),
]  # fmt: skip


@pytest.fixture
def drawn(workdir):
    jobs = [
        {
            "objective": value,
            "config": {"optimizer": word, "seed": seed},
            "status": "failed" if value is None else "completed",
        }
        for word, seed, value in DRAWN
    ]
    return make_sweep(workdir / OUTPUT / "drawn" / stamp(70), jobs, axes=("optimizer", "seed"))


def test_a_configuration_that_a_search_draws_again_counts_once(drawn, dltrain, capsys, refused):
    assert dltrain("show", "0046", "--json") == 0
    found = json.loads(capsys.readouterr().out)["configurations"]
    assert [(c["choices"]["optimizer"], c["runs"], c["objective"]) for c in found] == [
        ("lion", ["0046/7", "0046/8"], pytest.approx(0.25)),
        ("adam", ["0046/2", "0046/3"], pytest.approx(0.35)),
        ("sgd", ["0046/0", "0046/1"], pytest.approx(0.85)),
        ("adamw", ["0046/10", "0046/11"], pytest.approx(0.1)),
    ]
    means = {g.choices["optimizer"]: g.mean for g in comparison.compare(members_of([drawn])).groups}
    assert means == pytest.approx({c["choices"]["optimizer"]: c["objective"] for c in found})
    (row,) = verb.listed(OUTPUT).document()["runs"]
    assert row["objective"] == pytest.approx(0.25)
    best = f"Its best configuration: dltrain evaluate {drawn}/7 {drawn}/8\n"
    refused(best, lambda: dltrain("evaluate", str(drawn)))
    assert dltrain("show", "0046") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "4 jobs have the configuration, seed, fold and split of another one, which counts once" in said
    assert "12 jobs in all" in said


# What a listing says --------------------------------------------------------------------------------------------------


@pytest.fixture
def kinds(workdir):
    """Runs on two datasets, one of them by another metric too."""
    scores = {"metric": "val/accuracy", "mode": "max"}
    for number, (name, more) in enumerate([("iris", {}), ("digits", {}), ("digits", {}), ("digits", scores)]):
        make_run(workdir / OUTPUT / "n" / stamp(number), 0.1 * (number + 1), {"dataset": name}, **more)
    return workdir


def test_objectives_that_do_not_compare_are_told_with_the_filter_that_separates_them(kinds, dltrain, capsys):
    assert dltrain("runs", "--sort", "objective") == 0
    (told,) = capsys.readouterr().err.splitlines()
    assert "do not compare: they differ in dataset and metric." in told
    cure = told.partition("dltrain runs ")[2].split()
    assert dltrain("runs", *cure) == 0
    assert dltrain("runs", "--sort", "lr") == 0
    assert dltrain("runs", "dataset=digits", "metric=val/loss", "--sort", "-objective") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("key, values", [("loss.delta", (0.1, 2.0)), ("loss", ("mae", "mse"))])
def test_an_objective_that_is_computed_differently_does_not_compare(workdir, dltrain, capsys, key, values):
    for n, value in enumerate(values):
        make_run(workdir / OUTPUT / "n" / stamp(n), 0.1 + n, {key: value}, metric="val/objective")
    assert dltrain("runs", "--sort", "objective") == 0
    told = capsys.readouterr().err
    assert f"they differ in {key}. Those of one kind: dltrain runs {key}={values[0]} --sort" in told
    assert dltrain("runs", f"{key}={values[0]}", "--sort", "objective") == 0
    assert capsys.readouterr().err == ""


def test_a_score_that_is_computed_differently_does_not_compare(workdir, dltrain, capsys):
    for n, average in enumerate(("macro", "micro")):
        best = {"val/loss": 0.1, "val/f1": 0.5 + n / 10}
        make_run(workdir / OUTPUT / "n" / stamp(n), 0.1 + n, {"metrics.f1.average": average}, best=best)
    assert dltrain("runs", "--sort", "val/f1") == 0
    told = capsys.readouterr().err
    assert "the values of val/f1 of these runs do not compare: they differ in metrics.f1.average" in told
    assert "Those of one kind: dltrain runs metrics.f1.average=macro --sort val/f1" in told
    assert dltrain("runs", "--sort", "val/loss") == 0
    assert capsys.readouterr().err == ""


def test_a_sweep_without_an_axis_is_a_number_of_jobs(workdir, dltrain, capsys):
    make_sweep(workdir / OUTPUT / "s" / stamp(0), [{"objective": 0.1}], axes=())
    assert dltrain("runs") == 0
    page = capsys.readouterr().out
    assert "1 job " in page and "1 job:" not in page


def test_a_listing_by_gap_says_that_it_ranks_nothing(workdir, dltrain, capsys):
    for n in range(2):
        make_run(workdir / OUTPUT / "n" / stamp(n), 0.1 + n, metric="gap")
    assert dltrain("runs", "--sort", "objective") == 0
    assert (
        "one that has learned nothing has none. By the loss: dltrain runs --sort val/loss"
        in capsys.readouterr().err
    )
    assert dltrain("runs", "--sort", "val/loss") == 0


def test_the_filter_keeps_the_folder_and_the_conditions_of_the_command(kinds, dltrain, capsys):
    os.rename(kinds / OUTPUT, kinds / "results")
    assert dltrain("runs", "results", "metric=val/loss", "--sort", "objective") == 0
    told = capsys.readouterr().err.splitlines()[0]
    assert told.endswith("dltrain runs results metric=val/loss dataset=iris --sort objective")


def test_two_folders_of_images_are_two_kinds_of_data(workdir, dltrain, capsys):
    for number in range(2):
        config = {"dataset": "image_folder", "dataset.root": f"photos{number}"}
        make_run(workdir / OUTPUT / "n" / stamp(number), 0.1 * (number + 1), config)
    assert dltrain("runs", "--sort", "objective") == 0
    assert "they differ in dataset.root" in capsys.readouterr().err


def test_resume_and_reproduce_of_a_sweep_are_refused(lucky, dltrain):
    """They took the job whose name sorts last."""
    for name in ("resume", "reproduce"):
        with pytest.raises(UserError, match="is the folder of a sweep"):
            dltrain(name, lucky)


def test_the_hints_of_an_archive_work(kinds, dltrain, capsys, refused):
    assert dltrain("archive", "0003") == 0
    for verb_name in ("show", "evaluate", "compare"):
        refused(
            "`0003` is archived. To bring it back: dltrain restore 0003",
            lambda v=verb_name: dltrain(v, "0003"),
        )
    capsys.readouterr()
    assert dltrain("runs", "--archived") == 0
    said = " ".join(capsys.readouterr().out.splitlines())
    more, back = (said.partition(f"{head}: dltrain ")[2].split(" · ")[0].split() for head in ("one", "back"))
    assert dltrain(*more) == 0
    assert dltrain(*back) == 0
    assert dltrain("show", "0003") == 0
    assert dltrain("trash", "0003") == 0
    refused("`0003` is in the trash. To bring it back: dltrain restore 0003", lambda: dltrain("show", "0003"))


def test_a_sweep_without_a_result_yet_is_shown_and_listed(workdir, dltrain, capsys):
    bare = {"objective": None, "best": ..., "best_epoch": ..., "test": ..., "seconds": ..., "metric": ...}
    jobs = [{"config": {"lr": n, "optimizer.lr": n}, "status": "interrupted", **bare} for n in (1, 2)]
    sweep = make_sweep(workdir / OUTPUT / "swept" / stamp(1), jobs)
    for job in sweep.glob("*/summary.json"):
        summary = json.loads(job.read_text())
        del summary["objective"]
        job.write_text(json.dumps(summary))
    assert dltrain("show", "0001") == 0
    assert "interrupted" in capsys.readouterr().out
    assert dltrain("runs", str(sweep), "--sort", "objective", "objective<3") == 0


def test_the_column_of_the_sort_is_shown_and_run_once(kinds, dltrain, capsys):
    for sort, head in (
        ("-val/accuracy", "val/accuracy"),
        ("epochs", "epochs"),
        ("test/accuracy", "test accuracy"),
    ):
        assert dltrain("runs", "dataset=iris", "--sort", sort) == 0
        assert capsys.readouterr().out.splitlines()[0].count(head) == 1
    assert dltrain("runs", "metric=val/accuracy", "--sort", "val/accuracy") == 0
    assert capsys.readouterr().out.splitlines()[0].count("val/accuracy") == 1
    assert dltrain("runs", "--columns", "run,lr") == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["run", "lr"]


def test_a_score_of_the_test_split_that_a_sweep_lacks_comes_with_the_way_to_it(workdir, dltrain, refused):
    jobs = [
        {"objective": v, "config": {"lr": n // 2, "optimizer.lr": n // 2, "seed": n % 2}, "test": {}}
        for n, v in enumerate((0.1, 0.9, 0.2, 0.3))
    ]
    sweep = make_sweep(workdir / OUTPUT / "swept" / stamp(1), jobs)
    folder = sweep.relative_to(workdir)
    told = "none of these runs was scored on the test split (a sweep sets evaluation.test=false).\n"
    told += "Compare on the val split: --metric val/accuracy. "
    told += "A new sweep scores its best configuration: dltrain -m … evaluation.test=true\n"
    told += f"Printed, and not kept, for one: dltrain evaluate {folder}/2"
    refused(told, lambda: dltrain("compare", str(folder), "--metric", "test/accuracy"))
    assert dltrain("compare", str(folder), "--metric", "val/accuracy") == 0
    best = f"Its best configuration: dltrain evaluate {folder}/2 {folder}/3 device=cpu\n"
    refused(best, lambda: dltrain("evaluate", str(folder), "device=cpu"))


def test_a_tag_of_a_sweep_holds_for_its_jobs_and_that_of_a_job_is_shown(lucky, dltrain, capsys, monkeypatch):
    dltrain("tag", "003c", "+all")
    dltrain("tag", "003c/4", "+paper")
    capsys.readouterr()
    for _ in range(2):
        rows = verb.listed(OUTPUT, ["tag=all"], jobs=True).document()["runs"]
        assert [row["tags"] for row in rows] == [["paper", "all"] if n == 4 else ["all"] for n in range(9)]
    assert verb.listed(OUTPUT, ["tag=all", "seed=1"]).document()["runs"][0]["jobs"] == 3
    dltrain("tag", "003c", "-all")
    assert verb.listed(OUTPUT, ["tag=all"], jobs=True).rows == []
    capsys.readouterr()
    assert dltrain("runs", "tag=paper") == 0
    said = capsys.readouterr().out
    assert "job 4 of 9: lr × seed" in said
    monkeypatch.setenv("COLUMNS", "200")
    assert dltrain("runs", "tag=paper") == 0
    assert "paper (job 4)" in capsys.readouterr().out


def test_the_choices_of_mixed_runs_are_what_was_given_then_what_differs(workdir):
    common = {"schedule": "constant", "early_stopping": "patience"}
    runs = [
        ({"model.width": 64, "schedule": "cosine", "averaging": "ema"}, ["averaging=ema"]),
        ({"model.width": 32}, ["steps=60"]),
        ({"model.width": 32, "optimizer": "sgd", "optimizer.eps": None}, ["optimizer=sgd"]),
        ({"early_stopping": "none", "early_stopping.patience": 9}, ["lr=0.1", "early_stopping=none"]),
    ]
    for number, (config, overrides) in enumerate(runs):
        config = {"lr": 0.1, "optimizer.lr": 0.1, "steps": 60} | common | config
        make_run(workdir / OUTPUT / "n" / stamp(number), 0.1, config, overrides=overrides)
    rows = verb.listed(OUTPUT).rows
    assert [columns.choices_of(row) for row in rows] == [
        "ema model.width=64 cosine",
        "model.width=32",
        "sgd model.width=32",
        "",
    ]
    # what most runs have stays in documents
    assert rows[1].choices["schedule"] == "constant"
    found = comparison.compare(members_of([workdir / OUTPUT / "n" / stamp(number) for number in range(2)]))
    assert [group.name for group in found.groups] == ["ema model.width=64 cosine", "model.width=32 constant"]


def test_defaults_of_two_words_are_no_differences():
    lion = {"optimizer": "lion", "optimizer.betas": 1}
    configs = [lion, {"optimizer": "adam", "optimizer.betas": 2}]
    assert keys.differences(configs, []) == [{"optimizer": "lion"}, {"optimizer": "adam"}]
    wide = lion | {"optimizer.betas": 3}
    assert keys.differences([*configs, wide], [])[2] == {"optimizer": "lion", "optimizer.betas": 3}
