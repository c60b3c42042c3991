"""`dltrain runs` and `show` of sweeps with repetitions, tags, and runs on different data; what they say is asked for."""

from __future__ import annotations

import json

import pytest
from made import make_run, make_sweep, stamp

from dltrain.commands import runs as verb

OUTPUT = "outputs"
# by mean the second configuration is the best, by its luckiest seed the first
LUCKY = {0.1: (0.01, 0.99, 0.8), 0.01: (0.2, 0.3, 0.4), 0.001: (0.5, 0.6, None)}


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
        mode, replicates, objectives = "min", [{}, {}, {}], []

    jobs = [Job(n, n // 3, {}, [], lucky / str(n)) for n in range(9)]
    for job in jobs:
        job.read()
    ranked = [[str(job.number) for job in row.jobs] for row in rank(Plan, jobs)]
    listed = configurations_of(e for e in Index(lucky).entries if not e.is_sweep)
    assert [[job.folder_name for job in one.jobs] for one in listed] == ranked
    assert listed[0].entry().facts["objective"] == rank(Plan, jobs)[0].mean
