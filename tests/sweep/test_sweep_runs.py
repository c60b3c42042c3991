"""Whole sweeps, in real processes: every job in one of its own, whatever becomes of it."""

from __future__ import annotations

import csv
import json
import os

import numpy as np
import pytest
from conftest import job_at
from sweeping import add_faulty_model, summaries, sweep_folder

from dltrain.errors import CheckpointProblem, UserError
from dltrain.storage.lock import Lock
from dltrain.sweep.begun import locked

SHORT = ("epochs=1", "quiet=true")


@pytest.fixture
def faulty(workdir):
    add_faulty_model(workdir)


def test_a_grid_runs_every_job_and_ranks_them(workdir, dltrain, capfd):
    assert dltrain("-m", "lr=1e-2,1e-6", "seed=0,1", "epochs=1", "sweep.jobs=2") == 0
    folder = sweep_folder(workdir)
    jobs = summaries(folder)
    assert [jobs[i]["overrides"] for i in range(4)] == [
        [f"lr={lr}", f"seed={seed}", "epochs=1", "evaluation.test=false"]
        for lr in ("0.01", "1e-06")
        for seed in (0, 1)
    ]
    assert all(job["test"] == {} for job in jobs.values())
    printed = capfd.readouterr().out
    assert "lr=0.01" in printed.split("rank")[1].splitlines()[1]
    assert "too few" in printed
    with open(folder / "results.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["objective"]) for row in rows] == [jobs[i]["objective"] for i in range(4)]
    assert (job_at(folder, 0) / "run.log").stat().st_size > 0


def test_splits_of_other_sizes_are_not_ranked_and_seeds_of_the_split_repeat(workdir, dltrain, capfd):
    """Both were choices, tested as if all were scored on the same samples, and the `best` seed was advised to go lower."""
    assert (
        dltrain("-m", "dataset=iris", "dataset.val_fraction=0.1,0.3", "dataset.split_seed=0,1", "epochs=1")
        == 0
    )
    printed = " ".join(capfd.readouterr().out.split())
    folder = sweep_folder(workdir)
    assert (
        "configurations that differ in dataset.val_fraction are scored on different samples or targets"
        in printed
    )
    assert "other samples" in printed and "split_seed is" not in printed
    assert "split_seed" not in (folder / "best.yaml").read_text()
    assert dltrain("compare", str(folder)) == 0
    told = " ".join(capfd.readouterr().out.split())
    assert "dataset.val_fraction=0.1: 2, iris dataset.val_fraction=0.3: 2" in told


def test_other_data_or_targets_are_not_tested(workdir, dltrain, capfd):
    """A list of keys decided, which had neither `noise` nor `target`: p values between two data sets, and two quantities."""
    draws = np.random.default_rng(0)
    rows = draws.normal(size=(60, 3)).round(4)
    lines = [f"{a},{b if i % 5 else ''},{c},{a + b:.4f},{100 * a:.4f}" for i, (a, b, c) in enumerate(rows)]
    (workdir / "d.csv").write_text("\n".join(["a,b,c,y,z", *lines]))
    table = ("dataset=csv", "dataset.path=d.csv", "model=linear")
    others = {
        "dataset.noise=0.1,0.4": ("dataset=two_moons", "model=linear"),
        "dataset.target=y,z": table,
        "dataset.missing=auto,drop": (*table, "dataset.target=y"),
        "model.condition_number=10,100": ("dataset=none", "model=quadratic", "optimizer=gd", "lr=0.01"),
        "experiment=iris,wine": ("model=linear",),
        "experiment=iris,larger": ("model=linear",),
        "model.dropout=0.1,0.3": ("experiment=linked", "dataset=two_moons"),
    }
    alike = {
        "dataset.drop=[b],[c]": (*table, "dataset.target=y"),
        "dataset.features=[a],[a,b]": (*table, "dataset.target=y"),
        "dataset.normalize=unit,none": (*table, "dataset.target=y"),
        "experiment=iris,longer": ("model=linear",),
    }
    recipes = workdir / "conf/experiment"
    recipes.mkdir(parents=True)
    for word in ("iris", "wine"):
        (recipes / f"{word}.yaml").write_text(f"defaults:\n  - override /dataset: {word}\n")
    (recipes / "larger.yaml").write_text("defaults: [iris]\ndataset: {val_fraction: 0.3}\n")
    (recipes / "longer.yaml").write_text("defaults: [iris]\nlr: 0.1\n")
    (recipes / "linked.yaml").write_text("dataset: {noise: '${model.dropout}'}\n")
    for axis, words in (others | alike).items():
        key = axis.partition("=")[0]
        capfd.readouterr()
        assert dltrain("-m", *words, axis, "epochs=1", "sweep.seeds=2") == 0
        printed = " ".join("".join(capfd.readouterr()).split())
        is_told = f"that differ in {key} are scored on different samples or targets" in printed
        assert (is_told, "other samples" in printed) == (axis in others, axis in others), axis
        newest = max(workdir.glob("outputs/*/*/sweep.json"), key=lambda file: file.stat().st_mtime_ns).parent
        assert dltrain("runs", newest, "--sort", "objective") == 0
        # a listing names the key that a recipe sets
        named = "they differ in " if key in ("experiment", "model.dropout") else f"they differ in {key}."
        assert (named in capfd.readouterr().err) == (axis in others), axis


def test_a_job_equals_a_run_of_its_own(workdir, dltrain, train):
    dltrain("-m", "lr=0.01", "epochs=2", "quiet=true", "threads=1")
    job = job_at(sweep_folder(workdir), 0)
    alone = train("lr=0.01", "epochs=2", "threads=1", "evaluation.test=false")
    assert (job / "checkpoints/best.safetensors").read_bytes() == (
        alone.path / "checkpoints/best.safetensors"
    ).read_bytes()
    assert (job / "config.yaml").read_text().replace("quiet: true", "") == (
        alone.path / "config.yaml"
    ).read_text().replace("quiet: true", "")


def test_a_fault_takes_only_its_own_job(workdir, dltrain, faulty):
    faults = ["none", "exit", "raise", "kill", "hard_exit", "segfault", "not_finite", "exit3", "interrupt"]
    code = dltrain("-m", "model=faulty", f"model.fault={','.join(faults)}", "lr=0.01", *SHORT, "sweep.jobs=2")
    assert code == 7
    folder = sweep_folder(workdir)
    jobs = summaries(folder)
    assert jobs[0]["status"] in ("completed", "early_stopped")
    reasons = {name: jobs[i]["stop_reason"] for i, name in enumerate(faults)}
    assert "sys.exit(0)" in reasons["exit"]
    assert "a bug in the model" in reasons["raise"]
    assert "SIGKILL" in reasons["kill"]
    assert "exit code 3" in reasons["hard_exit"]
    assert "SIGSEGV" in reasons["segfault"]
    assert "sys.exit(3)" in reasons["exit3"]
    assert "exit code 130" in reasons["interrupt"]
    with open(folder / "results.csv") as stream:
        rows = {int(row["job"]): row for row in csv.DictReader(stream)}
    assert [rows[i]["status"] for i in range(1, 9)] == ["failed"] * 8
    assert "finite" in rows[6]["reason"]
    assert "experiment" not in (folder / "best.yaml").read_text().split("\n")[0]
    assert all((job_at(folder, i) / "run.log").stat().st_size > 0 for i in range(9))


def test_when_every_job_fails_there_is_no_best(workdir, dltrain, faulty, capfd):
    assert dltrain("-m", "model=faulty", "model.fault=raise,exit", *SHORT) == 7
    said = "every job failed; the first, job 0: model: faulty_model.py, line 19: RuntimeError: a bug in the model."
    assert said in capfd.readouterr().out
    assert not (sweep_folder(workdir) / "best.yaml").exists()


def test_the_same_command_does_nothing_twice_and_fresh_begins_anew(workdir, dltrain, capfd):
    command = ("-m", "lr=0.01,0.001", "epochs=1")
    assert dltrain(*command) == 0
    assert "new sweep" in capfd.readouterr().out
    folder = sweep_folder(workdir)
    record = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps(record | {"finished": False}))
    before = {n: (job_at(folder, n) / "metrics.csv").stat().st_mtime_ns for n in (0, 1)}
    assert dltrain(*command) == 0
    assert "going on with the unfinished sweep" in capfd.readouterr().out
    assert before == {n: (job_at(folder, n) / "metrics.csv").stat().st_mtime_ns for n in (0, 1)}
    assert dltrain("-m", f"sweep.resume={folder}") == 0
    assert before == {n: (job_at(folder, n) / "metrics.csv").stat().st_mtime_ns for n in (0, 1)}
    with pytest.raises(UserError, match=r"axis lr was 0.01,0.001, is 0.01,0.1"):
        dltrain("-m", "lr=0.01,0.1", "epochs=1", f"sweep.resume={folder}")
    with pytest.raises(CheckpointProblem, match="not the folder of a sweep"):
        dltrain("-m", "sweep.resume=nowhere")


@pytest.mark.ci
@pytest.mark.parametrize(
    ("pruner", "jobs", "idle"), [("median", 4, True), ("median", 5, False), ("asha", 2, False)]
)
def test_a_pruner_of_too_few_jobs_is_told_of(workdir, dltrain, capsys, pruner, jobs, idle):
    rates = ",".join(f"{0.1 * (i + 1):.1f}" for i in range(jobs))
    assert dltrain("-m", f"lr={rates}", f"sweep.pruner={pruner}", "sweep.dry_run=true") == 0
    told = f"median stops no job: it compares with 4 that are done, and the sweep has {jobs}"
    assert (told in capsys.readouterr().err) == idle


def test_search_with_a_pruner_and_conditions(workdir, dltrain):
    (workdir / "conf" / "sweep").mkdir(parents=True)
    (workdir / "conf" / "sweep" / "mine.yaml").write_text(
        "defaults:\n  - tpe\n  - _self_\n"
        "trials: 8\n"
        "space:\n"
        "  optimizer: [momentum, adam]\n"
        "  lr: {low: 1.0e-6, high: 1.0e-1, log: true}\n"
        "  optimizer.momentum: {low: 0.5, high: 0.99, when: {optimizer: momentum}}\n"
        "  optimizer.betas: {values: [[0.9, 0.999], [0.8, 0.99]], when: {optimizer: adam}}\n"
    )
    code = dltrain("-m", "sweep=mine", "sweep.pruner=median", "epochs=6", "quiet=true", "sweep.jobs=2")
    assert code == 0
    jobs = summaries(sweep_folder(workdir))
    assert len(jobs) == 8
    for job in jobs.values():
        text = " ".join(job["overrides"])
        assert ("optimizer.momentum=" in text) == ("optimizer=momentum" in text)
        assert ("optimizer.betas=" in text) == ("optimizer=adam" in text)
    assert {job["status"] for job in jobs.values()} <= {"completed", "early_stopped", "pruned"}


@pytest.mark.slow
def test_asha_prunes_and_says_so(workdir, dltrain):
    dltrain("-m", "lr=0.003,1e-7,1e-8,1e-9", "epochs=9", "sweep.pruner=asha", "sweep.jobs=1", "quiet=true")
    jobs = summaries(sweep_folder(workdir))
    assert jobs[0]["status"] == "completed"
    pruned = [job for job in jobs.values() if job["status"] == "pruned"]
    assert pruned
    assert "fell behind" in pruned[0]["stop_reason"]
    assert pruned[0]["steps"] < jobs[0]["steps"]


def test_the_winner_alone_is_scored_on_the_test_split(workdir, dltrain):
    dltrain("-m", "lr=0.01,1e-6", "epochs=1", "evaluation.test=true", "quiet=true")
    jobs = summaries(sweep_folder(workdir))
    assert jobs[0]["test"]["accuracy"] > 0.5
    assert jobs[1]["test"] == {}


def test_a_driver_that_is_killed_while_it_writes_the_test_scores_leaves_no_forgery(
    workdir, dltrain, monkeypatch
):
    """Found by a hostile tester: the summary was written before its hash, and nothing wrote that again."""

    class Killed(BaseException): ...

    words = ("-m", "model=linear", "lr=0.01,1e-6", "epochs=1", "evaluation.test=true", "quiet=true")
    for place in ("manifest.renew", "write"):
        with monkeypatch.context() as patch:

            def die(*_: object) -> None:
                raise Killed

            patch.setattr(f"dltrain.sweep.jobs.{place}", die)
            with pytest.raises(Killed):
                dltrain(*words, f"name={place.rpartition('.')[2]}")
        folder = next(workdir.glob(f"outputs/{place.rpartition('.')[2]}/*/sweep.json")).parent
        assert not summaries(folder)[0]["test"]
        assert dltrain("-m", f"sweep.resume={folder}") == 0
        assert summaries(folder)[0]["test"]
        assert dltrain("verify", folder) == 0


def test_a_half_copied_job_is_removed_by_the_next_driver(tmp_path):
    """Found by a hostile tester: of a driver that was killed while it took a run over, `.0-lr=0.1.tmp/` stayed for good."""
    for name in (".0-lr=0.1.tmp/checkpoints", "0-lr=0.1", ".mine.tmp", "elsewhere/kept"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".1-lr=1.tmp").symlink_to(tmp_path / "elsewhere")
    with locked(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
        ".1-lr=1.tmp", ".mine.tmp", "0-lr=0.1", "elsewhere",
    ]  # fmt: skip
    assert (tmp_path / "elsewhere/kept").is_dir()


def test_a_job_that_was_lengthened_is_told(workdir, dltrain, capfd):
    """It was ranked among the shorter ones without a word; `compare` takes it for another configuration."""
    dltrain("-m", "model=linear", "lr=0.01,0.001", "epochs=1")
    folder = sweep_folder(workdir)
    assert dltrain("resume", job_at(folder, 1), "epochs=2") == 0
    capfd.readouterr()
    for _ in range(2):
        # the second time from the books
        assert dltrain("-m", f"sweep.resume={folder}") == 0
        told = capfd.readouterr().out
        assert "note: job was trained longer than the sweep plans, by `resume` with more: 1." in told
    assert dltrain("compare", folder) == 0
    assert "epochs=2" in capfd.readouterr().out


def test_hashes_of_a_job_that_was_held_are_written_by_the_next_resume(workdir, dltrain):
    """Found by a hostile tester: the books knew the job, so that nothing wrote its hashes, and `verify` called it forged for good."""
    dltrain("-m", "model=linear", "lr=0.01,1e-6", "epochs=1", "quiet=true")
    folder = sweep_folder(workdir)
    job = job_at(folder, 1)
    for file in (job / "manifest.json", folder / "books.sqlite"):
        file.unlink()
    lock = Lock(job)
    assert dltrain("-m", f"sweep.resume={folder}") == 0
    lock.release()
    assert not (job / "manifest.json").exists()
    assert dltrain("-m", f"sweep.resume={folder}") == 0
    assert dltrain("verify", folder) == 0


@pytest.mark.parametrize(
    "axis", ["dataset.limit=20,50", "dataset.bootstrap=false,true", "model.dropout=0,0.5"]
)
def test_axes_that_change_what_the_training_measures_are_no_ranking_by_it(workdir, dltrain, axis):
    words = ("-m", "dataset=iris", "model=mlp", axis, "epochs=1", "sweep.dry_run=true")
    with pytest.raises(UserError, match="the axes change how it is computed"):
        dltrain(*words, "early_stopping.metric=train/loss")
    assert dltrain(*words) == 0


@pytest.mark.ci
def test_best_yaml_works_as_an_experiment(workdir, dltrain, train):
    dltrain("-m", "optimizer=momentum,adam", "regularization=[l2],[l1,dropout]", "lr=0.01", *SHORT)
    folder = sweep_folder(workdir)
    jobs = summaries(folder)
    best = min(jobs, key=lambda n: jobs[n]["objective"])
    target = workdir / "conf" / "experiment"
    target.mkdir(parents=True)
    (target / "best.yaml").write_text((folder / "best.yaml").read_text())
    assert train("experiment=best", "threads=1").summary["objective"] == pytest.approx(
        jobs[best]["objective"]
    )


def test_dry_run_prints_the_jobs_and_leaves_nothing(workdir, dltrain, capfd):
    assert dltrain("-m", "lr=0.1,0.2", "optimizer=adam,momentum", "sweep.dry_run=true") == 0
    printed = capfd.readouterr().out
    assert "4 jobs, all composed and valid" in printed
    assert not (workdir / "outputs").exists()


PLUGINS = [
    ["hydra/sweeper=basic"],
    ["hydra/sweeper=optuna"],
    ["+hydra/launcher=joblib"],
    ["hydra/launcher=basic,joblib"],
    ["hydra.sweeper.max_batch_size=2"],
    ["~hydra/launcher"],
    ["+hydra.launcher.n_jobs=2"],
]


@pytest.mark.parametrize("before", [[], ["-m"], ["--cfg", "all"]], ids=" ".join)
@pytest.mark.parametrize("override", PLUGINS, ids=" ".join)
def test_hydras_sweeper_and_launcher_are_refused(workdir, dltrain, before, override):
    with pytest.raises(
        UserError, match=r"Hydra's (sweeper|launcher) cannot be set[\s\S]* sweep\.backend=local"
    ) as error:
        dltrain(*before, *override, "lr=0.01")
    assert len(str(error.value).splitlines()) == 2
    assert os.listdir(workdir) == []


@pytest.mark.parametrize("before", [[], ["-m"]], ids=" ".join)
@pytest.mark.parametrize("file, arguments", [
    ("experiment/mine.yaml", ["experiment=mine"]),
    ("model/mine.yaml", ["model=mine"]),
    ("mine.yaml", ["--config-name", "mine"]),
])  # fmt: skip
def test_hydras_launcher_in_a_file_is_refused_with_its_place(workdir, dltrain, before, file, arguments):
    (workdir / "conf" / file).parent.mkdir(parents=True)
    parent = "config" if file == "mine.yaml" else "mlp" if "model" in file else "tabular"
    (workdir / "conf" / file).write_text(
        f"defaults:\n  - {parent}\n  - override /hydra/launcher: joblib\n  - _self_\n"
    )
    with pytest.raises(UserError, match=r"mine\.yaml.*Hydra's launcher cannot be set"):
        dltrain(*before, *arguments, "lr=0.01")
    assert os.listdir(workdir) == ["conf"]


REFUSED = [
    (["lr=interval(0.1,1)"], "is an interval; a grid needs values"),
    (["optimiser=adam,sgd"], "neither a knob nor a group.*`optimizer`"),
    (["lr=0.1,nan"], "`lr` is nan"),
    (["lr=0.1,-1"], r"must be: float > 0[\s\S]*nothing was run"),
    (["lr=0.1,0.2", "optimizer.momentm=0.1,0.2"], "is no key of optimizer=adam"),
    (["lr=0.1,0.2", "sweep.zip=[lr,batch_size]"], "names batch_size, which is no axis"),
    (["lr=0.1,0.2", "batch_size=1,2,3", "sweep.zip=[lr,batch_size]"], "lr has 2, batch_size has 3"),
    (["seed=0,1", "sweep.seeds=2"], "both say which seeds"),
    (["lr=interval(1,0.1)", "sweep=tpe"], "empty range"),
    (["lr=tag(log,interval(0,1))", "sweep=tpe"], "low end must be above 0"),
    (["lr=0.1,0.2", "epochs=5", "evaluation.every_epochs=5", "sweep.pruner=asha"], "only at its end"),
    (
        ["lr=0.1,0.2", "epochs=6", "sweep.pruner=median", "sweep.min_evaluations=6"],
        "a job has 6 evaluations: none would be pruned. Use sweep.min_evaluations=auto",
    ),
    (["lr=0.1,0.2", "seed=0,1", "sweep.pruner=asha"], "Prune first, then repeat"),
    (["lr=0.1,0.2", "sweep=nsga2", "sweep.pruner=median"], "several objectives"),
    (
        ["lr=interval(0.1,0.2)", "sweep=nsga2", "sweep.trials=2", "sweep.objectives=[val/los,parameters]"],
        "names val/los, of which it is not known",
    ),
    (
        ["lr=interval(0.1,0.2)", "sweep=nsga2", "sweep.trials=2", "sweep.objectives=[loss,parameters]"],
        "names loss, which is no score and no cost of a run. Did you mean `val/loss`",
    ),
    (
        [
            "lr=interval(0.1,0.2)",
            "sweep=nsga2",
            "sweep.trials=2",
            "sweep.objectives=[val/loss,images_per_second]",
        ],
        r"no cost of a run\.\s+Costs: parameters, peak_memory_bytes, seconds",
    ),
    (["lr=choice()", "seed=0,1"], r"`lr=choice\(\)` lacks a value"),
    (["lr=0.1,,0.2"], "`lr=0.1,,0.2` lacks a value"),
    (["lr=range(5,1)", "seed=0,1"], r"`lr=range\(5,1\)` gives no value"),
    (["optimizer=glob(zzz)"], "fits no word of optimizer"),
    (["epochs=5,1", "sweep.pruner=asha"], r"only at its end[\s\S]*in the job epochs=1; nothing was run"),
    (["lr=0.1,0.2", "sweep=tpe", "sweep.trials=0"], "`sweep.trials` is 0"),
    (["lr=0.1,0.2", "sweep.trails=3"], "`sweep.trails` is no key of sweep=grid. Did you mean `sweep.trials`"),
    (["sweep.jobs=1,2"], "cannot be an axis"),
    (["lr=0.1,0.2", "lr=0.3,0.4"], "given twice"),
    (["lr=0.1,0.2", "lr=0.3"], "given twice"),
]


@pytest.mark.parametrize("arguments, message", REFUSED, ids=lambda value: str(value)[:40])
def test_refusals_leave_nothing(workdir, dltrain, arguments, message):
    with pytest.raises(UserError, match=message):
        dltrain("-m", *arguments)
    assert not (workdir / "outputs").exists()
