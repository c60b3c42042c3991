"""Searches from the command line to their results: samplers, pruners, several objectives, repetitions, time."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import time

import optuna
import pytest
from conftest import job_at
from optuna.storages.journal import JournalFileBackend
from sweeping import add_faulty_model, summaries, sweep_folder

from dltrain.config.compose import open_catalogue, open_hydra
from dltrain.config.door import Rights, shipped_targets
from dltrain.errors import UserError
from dltrain.storage import manifest
from dltrain.sweep.backends import memory, pool
from dltrain.sweep.backends.slots import Slot, gpus_for, num_slots, slots_of
from dltrain.sweep.plan.composer import Composer
from dltrain.sweep.sweep import parquet_problem

SHORT = ("steps=1", "quiet=true", "sweep.jobs=2")


def study_of(folder) -> optuna.Study:
    """The study as optuna-dashboard opens it."""
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "study.log")))
    return optuna.load_study(study_name=None, storage=storage)


@pytest.mark.slow
@pytest.mark.parametrize("word", ["gp", "cmaes", "qmc", "random"])
def test_every_search_runs_from_the_command_line(workdir, dltrain, word):
    axes = ("lr=tag(log,interval(1e-4,1e-1))", "optimizer.eps=interval(1e-9,1e-7)")
    startup = ["sweep.startup_trials=2"] if word in ("gp", "cmaes") else []
    assert dltrain("-m", f"sweep={word}", "sweep.trials=4", *axes, *startup, *SHORT) == 0
    folder = sweep_folder(workdir)
    jobs = summaries(folder)
    drawn = [tuple(text.partition("=")[2] for text in job["overrides"][:2]) for job in jobs.values()]
    assert len(set(drawn)) == 4
    assert all(1e-4 <= float(lr) <= 1e-1 and 1e-9 <= float(eps) <= 1e-7 for lr, eps in drawn)
    trials = study_of(folder).trials
    assert [trial.value for trial in trials] == [jobs[n]["objective"] for n in range(4)]


def test_nsga2_finds_a_front_of_two_objectives(workdir, dltrain, capsys):
    axes = ("lr=interval(1e-3,1e-2)", "model.hidden=[4],[32]")
    loud = [word for word in SHORT if word != "quiet=true"]
    assert dltrain("-m", "sweep=nsga2", "sweep.trials=6", "sweep.population=2", *axes, *loud) == 0
    (heads,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("rank "))
    assert heads.split()[3:] == ["val/loss", "parameters", "best", "epoch", "status"]
    folder = sweep_folder(workdir)
    jobs, study = summaries(folder), study_of(folder)
    assert len(study.directions) == 2
    for trial in study.trials:
        job = jobs[trial.number]
        assert trial.values == [job["best"]["val/loss"], job["parameters"]]
    smallest = min(trial.values[1] for trial in study.trials)
    assert smallest in {trial.values[1] for trial in study.best_trials}


@pytest.mark.slow
def test_hyperband_stops_what_falls_behind(workdir, dltrain):
    rates = "0.003,6e-7,5e-7,4e-7,3e-7,2e-7"
    command = ("-m", f"lr={rates}", "epochs=4", "sweep.pruner=hyperband", "sweep.jobs=1", "quiet=true")
    assert dltrain(*command, "sweep.backend=local", "model=linear") == 0
    folder = sweep_folder(workdir)
    jobs = summaries(folder)
    assert jobs[0]["status"] == "completed"
    pruned = {n: job for n, job in jobs.items() if job["status"] == "pruned"}
    assert pruned
    assert sum(trial.state.name == "PRUNED" for trial in study_of(folder).trials) == len(pruned)
    for job in pruned.values():
        assert job["stop_reason"].startswith("hyperband: val/loss ")
        assert job["epochs"] < 4


@pytest.mark.ci
def test_no_job_starts_after_the_timeout_and_the_same_command_goes_on(workdir, dltrain, capfd):
    add_faulty_model(workdir)
    (workdir / "slow").touch()
    command = ("-m", "model=faulty", "seed=range(4)", "epochs=4", "sweep.jobs=1")
    assert dltrain(*command, "sweep.timeout=0.2") == 0  # a job takes longer
    folder = sweep_folder(workdir)
    assert len(summaries(folder)) == 1
    assert "out of time with 3 jobs to go" in capfd.readouterr().out
    (workdir / "slow").unlink()
    assert dltrain(*command) == 0
    assert {n: job["status"] for n, job in summaries(folder).items()} == dict.fromkeys(range(4), "completed")


def test_zipped_axes_run_in_pairs(workdir, dltrain):
    axes = ("lr=0.1,0.01,0.01,0.01", "batch_size=64,64,128,128")  # the last pair is there twice
    assert dltrain("-m", *axes, "sweep.zip=[lr,batch_size]", *SHORT) == 0
    jobs = summaries(sweep_folder(workdir))
    assert [job["overrides"][:2] for _, job in sorted(jobs.items())] == [
        ["lr=0.1", "batch_size=64"],
        ["lr=0.01", "batch_size=64"],
        ["lr=0.01", "batch_size=128"],
    ]


def test_a_search_repeats_each_trial_and_takes_the_mean(workdir, dltrain, capfd):
    command = ("-m", "sweep=tpe", "sweep.trials=2", "sweep.seeds=3", "seed=5", "lr=interval(1e-3,1e-1)")
    assert dltrain(*command, "steps=1", "sweep.jobs=2") == 0
    folder = sweep_folder(workdir)
    jobs = summaries(folder)
    assert [jobs[n]["seed"] for n in range(6)] == [5, 6, 7, 5, 6, 7]
    for trial in study_of(folder).trials:
        objectives = [jobs[3 * trial.number + r]["objective"] for r in range(3)]
        assert len(set(objectives)) == 3
        assert trial.value == pytest.approx(math.fsum(objectives) / 3, rel=1e-12)
    assert "too few" in capfd.readouterr().out


def test_results_have_their_types_in_parquet(workdir, dltrain):
    parquet = pytest.importorskip("pyarrow.parquet")
    add_faulty_model(workdir)
    dltrain("-m", "model=faulty", "model.fault=none,raise", "lr=0.1,0.01", "epochs=1", "quiet=true")
    folder = sweep_folder(workdir)
    table = parquet.read_table(folder / "results.parquet").to_pylist()
    with open(folder / "results.csv") as file:
        rows = list(csv.DictReader(file))
    assert [list(row) for row in table] == [list(row) for row in rows]
    assert [row["lr"] for row in table] == [0.1, 0.01, 0.1, 0.01]
    for row, text in zip(table, rows, strict=True):
        assert (row["objective"] is None) == (text["status"] == "failed")
        assert row["objective"] is None or row["objective"] == float(text["objective"])
        assert row["job"] == int(text["job"])


def test_a_parquet_file_that_cannot_be_written_is_told_with_the_reason(tmp_path):
    pytest.importorskip("pyarrow")
    assert parquet_problem(tmp_path / "results.csv").startswith("FileNotFoundError: ")
    (tmp_path / "results.csv").write_text("job,lr\n0,0.1\n")
    (tmp_path / "results.parquet").mkdir()
    assert parquet_problem(tmp_path / "results.csv").startswith("IsADirectoryError: ")


# Finished runs ----------------------------------------------------------------------------------------------------


@pytest.mark.ci
def test_reuse_takes_over_what_another_sweep_finished(workdir, dltrain, capfd):
    add_faulty_model(workdir)
    common = ("model=faulty", "epochs=2", "sweep.jobs=1")
    assert dltrain("-m", "lr=0.1,0.01", *common) == 0
    first = sweep_folder(workdir)
    notes = (workdir / "notes.txt").read_text()
    assert dltrain("-m", "lr=0.01,0.1", "name=other", "sweep.reuse=true", *common) == 0
    assert (workdir / "notes.txt").read_text() == notes
    assert "2 jobs not run again" in capfd.readouterr().out
    (second,) = workdir.glob("outputs/other/*")
    theirs, ours = summaries(first), summaries(second)
    assert [ours[n]["objective"] for n in (0, 1)] == [theirs[n]["objective"] for n in (1, 0)]
    assert ours[0]["reused"] == str(job_at(first, 1).relative_to(workdir))
    assert (job_at(second, 0) / "checkpoints/best.safetensors").read_bytes() == (
        job_at(first, 1) / "checkpoints/best.safetensors"
    ).read_bytes()
    assert "completed" in (second / "results.csv").read_text()

    changes = ("lr=0.1,0.3", "epochs=3", "sweep.reuse=true", "model=faulty", "sweep.jobs=1", "name=third")
    assert dltrain("-m", *changes) == 0  # another number of epochs is another run
    (third,) = workdir.glob("outputs/third/*")
    assert not any("reused" in job for job in summaries(third).values())


@pytest.mark.ci
def test_reuse_takes_over_no_run_on_data_that_have_changed(workdir, dltrain, capfd):
    rows = [f"{i * 7 % 11},{i % 5},{'ab'[i * 7 % 11 > 5]}" for i in range(60)]
    (workdir / "t.csv").write_text("\n".join(["x,z,kind", *rows]) + "\n")
    common = ("dataset=csv", "dataset.path=t.csv", "dataset.target=kind", "model=linear", "steps=2")
    # a folder with the name of a column
    (workdir / "kind").mkdir()
    os.utime(workdir / "kind", (time.time() + 3600,) * 2)
    assert dltrain("-m", "lr=0.1,0.01", *common) == 0
    assert dltrain("-m", "lr=0.1,0.01", *common, "name=same", "sweep.reuse=true") == 0
    (same,) = workdir.glob("outputs/same/*")
    assert all("reused" in job for job in summaries(same).values())
    (workdir / "t.csv").write_text("\n".join(["x,z,kind", *rows[1:]]) + "\n")
    assert dltrain("-m", "lr=0.1,0.01", *common, "name=other", "sweep.reuse=true") == 0
    (other,) = workdir.glob("outputs/other/*")
    assert not any("reused" in job for job in summaries(other).values())
    assert "t.csv was changed after" in capfd.readouterr().err


def copied_sweep(theirs, mine) -> None:
    """Copy a sweep of somebody else as an archive without times does: it is newer than any file of the user."""
    shutil.copytree(theirs / "outputs", mine / "outputs")
    for file in (mine / "outputs").rglob("*"):
        os.utime(file, (time.time() + 60,) * 2)


@pytest.mark.ci
def test_reuse_takes_over_nothing_of_somebody_else_on_other_data_of_the_same_name(
    workdir, dltrain, monkeypatch, capfd
):
    """Labels were turned round: an equal configuration on a file of the same name has other scores."""
    rows = [(i * 7 % 11, i % 5, "ab"[i * 7 % 11 > 5]) for i in range(60)]
    for name, turned in (("theirs", False), ("mine", True), ("equal", False)):
        (workdir / name).mkdir()
        lines = [f"{x},{z},{('b' if kind == 'a' else 'a') if turned else kind}" for x, z, kind in rows]
        (workdir / name / "t.csv").write_text("\n".join(["x,z,kind", *lines]) + "\n")
    assert (workdir / "mine/t.csv").read_bytes() != (workdir / "theirs/t.csv").read_bytes()
    command = (
        "-m",
        "lr=0.1,0.01",
        "dataset=csv",
        "dataset.path=t.csv",
        "dataset.target=kind",
        "model=linear",
        "steps=2",
    )
    monkeypatch.chdir(workdir / "theirs")
    assert dltrain(*command) == 0
    for name, reused in (("mine", False), ("equal", True)):
        copied_sweep(workdir / "theirs", workdir / name)
        monkeypatch.chdir(workdir / name)
        assert dltrain(*command, "name=again", "sweep.reuse=true") == 0
        (again,) = (workdir / name).glob("outputs/again/*")
        assert [("reused" in job) for job in summaries(again).values()] == [reused] * 2
        told = "was trained on other data (other samples, or the same in another order), so that its job is not taken over"
        assert (told in capfd.readouterr().err) != reused


@pytest.mark.ci
def test_tables_with_the_features_of_two_source_runs_are_no_changed_data(workdir, dltrain, train, capfd):
    """Whose weights are loaded decides which features a table has; a damaged record of somebody else ends no sweep."""

    def write(name, colors):
        rows = [f"{i * 7 % 11},{colors[i % len(colors)]},{'ab'[i * 7 % 11 > 5]}" for i in range(90)]
        (workdir / name).write_text("\n".join(["x,color,kind", *rows]) + "\n")

    common = ("dataset=csv", "dataset.target=kind", "model=linear", "steps=2")
    sources = []
    for name, colors in (
        ("one.csv", ["red", "blue"]),
        ("two.csv", ["red", "blue", ""]),
        ("new.csv", ["red", "blue"]),
    ):
        write(name, colors)
        sources.append(train(*common, f"dataset.path={name}", "output=elsewhere").path)
    axis = f"initializer.path={sources[0]},{sources[1]}"
    command = ("-m", *common, "dataset.path=new.csv", "initializer=pretrained", axis, "sweep.jobs=1")
    assert dltrain(*command) == 0
    first = sweep_folder(workdir)
    sizes = [json.loads((job_at(first, n) / "data.json").read_text())["input_shape"] for n in (0, 1)]
    assert sizes[0] != sizes[1] and "were changed" not in capfd.readouterr().out
    assert dltrain(*command, "name=again", "sweep.reuse=true") == 0
    (again,) = workdir.glob("outputs/again/*")
    assert ["reused" in job for job in summaries(again).values()] == [True, True]

    theirs = job_at(first, 0)
    for run in (theirs, job_at(again, 0)):
        (run / "data.json").write_text("{")
        manifest.write(run, manifest.covered(run))
    capfd.readouterr()
    assert dltrain(*command, "name=third", "sweep.reuse=true") == 0
    (third,) = workdir.glob("outputs/third/*")
    assert ["reused" in job for job in summaries(third).values()] == [False, True]
    assert "data.json cannot be read" in capfd.readouterr().err


def test_reuse_takes_over_nothing_that_other_code_trained(workdir, dltrain, capfd):
    add_faulty_model(workdir)
    common = ("model=faulty", "steps=2", "sweep.jobs=1", "lr=0.1,0.01")
    assert dltrain("-m", *common) == 0
    (code,) = workdir.glob("*.py")
    code.write_text(code.read_text().replace("inputs.flatten(1)", "-inputs.flatten(1)"))
    assert dltrain("-m", *common, "name=other", "sweep.reuse=true") == 0
    (other,) = workdir.glob("outputs/other/*")
    assert not any("reused" in job for job in summaries(other).values())
    assert f"{code.name} changed since outputs/" in capfd.readouterr().err


@pytest.mark.ci
def test_a_sweep_that_goes_on_with_other_data_or_weights_says_which_jobs_do_not_compare(
    workdir, dltrain, train, capsys
):
    """Other code is refused."""
    rows = [f"{i * 7 % 11},{i % 5},{'ab'[i * 7 % 11 > 5]}" for i in range(60)]
    table = ("dataset=csv", "dataset.path=t.csv", "dataset.target=kind", "model=linear", "steps=2")

    def write(rows):
        (workdir / "t.csv").write_text("\n".join(["x,z,kind", *rows]) + "\n")

    def again():
        folder = sweep_folder(workdir)
        shutil.rmtree(job_at(folder, 1))
        capsys.readouterr()
        assert dltrain("-m", f"sweep.resume={folder}") == 0
        return " ".join(capsys.readouterr().out.split())

    write(rows)
    source = train(*table, "output=elsewhere")
    fine = ("initializer=pretrained", f"initializer.path={source.path}")
    assert dltrain("-m", "lr=0.1,0.01", *table, *fine, "sweep.jobs=1") == 0
    assert "do not compare" not in again()
    assert dltrain("resume", str(source.path), "steps=4") == 0
    assert (
        f"initializer.path={source.path} was changed during the sweep: job 1 had another content than the first"
        in again()
    )
    write(rows[1:])
    assert "the data were changed during the sweep: job 1 had another content than the first" in again()


def test_a_search_that_draws_a_configuration_again_does_not_run_it_again(workdir, dltrain):
    add_faulty_model(workdir)
    command = (
        "-m",
        "sweep=random",
        "sweep.trials=6",
        "model=faulty",
        "lr=choice(0.1,0.01)",
        *SHORT[:2],
        "sweep.jobs=1",
    )
    assert dltrain(*command) == 0
    jobs = summaries(sweep_folder(workdir))
    assert len(jobs) == 6
    assert (workdir / "notes.txt").read_text().count("built") == 2
    assert len({(job["overrides"][0], job["objective"]) for job in jobs.values()}) == 2


# Memory of a GPU --------------------------------------------------------------------------------------------------

GIB = 2**30


@pytest.mark.parametrize(
    "jobs, per_gpu, gpus, places",
    [
        ("auto", 2, 2, ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]),
        ("auto", 3, 1, ["cuda:0"] * 3),
        (3, 1, 2, ["cuda:0", "cuda:1", "cuda:0"]),
    ],
)
def test_places_on_gpus(jobs, per_gpu, gpus, places):
    count = num_slots({"jobs": jobs, "jobs_per_gpu": per_gpu}, gpus, 100)
    slots = slots_of(count, [f"cuda:{i}" for i in range(gpus)])
    assert [slot.device for slot in slots] == places


@pytest.mark.parametrize(
    "device, meant",
    [
        ("auto", {"cuda:0": 5, "cuda:1": 3}),
        ("cuda", {"cuda:0": 5, "cuda:1": 3}),
        ("cuda:1", {"cuda:1": 3}),
        ("cpu", {}),
        ("cuda:7", {}),
    ],
)
def test_the_gpus_that_a_device_means(monkeypatch, device, meant):
    monkeypatch.setattr(pool, "gpus", lambda: [5, 3])
    assert gpus_for(device) == meant


def test_more_jobs_than_the_memory_of_the_gpu_holds_are_refused(workdir, dltrain, monkeypatch):
    monkeypatch.setattr(pool, "gpus", lambda: [8 * GIB, 1 * GIB])
    with pytest.raises(UserError, match=r"3 jobs at a time on one GPU need at least 1\.\d GiB") as refused:
        dltrain("-m", "lr=0.1,0.2", "seed=range(5)", "sweep.jobs_per_gpu=3")
    assert "Use sweep.jobs_per_gpu=2" in str(refused.value)
    assert not (workdir / "outputs").exists()


def test_the_need_of_a_job_is_counted_from_its_largest_configuration(monkeypatch):
    asked = []

    def largest_need(configs, targets):
        asked.extend(configs)
        return 3 * GIB

    class Config:
        def __init__(self, lr, hidden):
            self.plain = {"lr": lr, "model": {"hidden": hidden}}

    monkeypatch.setattr(memory, "largest_need", largest_need)
    slots = [Slot("cuda:0", 1)] * 2 + [Slot("cuda:1", 1)]
    configs = [Config(lr, hidden) for lr in (0.1, 0.2) for hidden in (4, 8)]
    memory.check_memory(slots, 6 * GIB, configs, Rights(frozenset()))
    assert len(asked) == 2  # a learning rate needs no memory
    with pytest.raises(
        UserError, match="2 jobs at a time on one GPU need at least 6.0 GiB .* .3.0 GiB each., and 5.0 GiB"
    ):
        memory.check_memory(slots, 5 * GIB, configs, Rights(frozenset()))
    with pytest.raises(UserError, match="Not even one fits"):
        memory.check_memory(slots, 2 * GIB, configs, Rights(frozenset()))
    asked.clear()
    memory.check_memory([Slot("cuda:0", 1), Slot("cuda:1", 1)], 0, configs, Rights(frozenset()))
    assert not asked  # one job a GPU: nothing to look at


def test_the_memory_of_a_step_is_counted(workdir):
    catalogue = open_catalogue()
    composer, targets = Composer(catalogue, open_hydra(catalogue)), frozenset(shipped_targets(catalogue))

    def need(*overrides):
        return memory.measure(
            composer.config(["model=linear", "precision=fp32", *overrides]), Rights(targets)
        )

    weights = 4 * (64 * 10 + 10)
    plain = need("optimizer=sgd", "batch_size=32")
    assert need("optimizer=momentum", "batch_size=32") == plain + weights
    assert plain + 2 * weights <= need("optimizer=adam", "batch_size=32") <= plain + 2 * weights + 100
    step = need("optimizer=sgd", "batch_size=64") - plain
    assert (
        32 * 4 * 64 <= step <= 32 * 4 * (64 + 100)
    )  # what autograd keeps of a sample: its input and a few logits
    assert plain > 2 * weights + 4 * 64 * 1000  # and the data
