"""A sweep that is changed after it began: deleted folders, failed jobs, more trials and seeds, edited files."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil

import pytest
import yaml
from conftest import every, job_at
from sweeping import summaries, sweep_folder

from dltrain.commands.show import show
from dltrain.config import own_code
from dltrain.errors import UserError
from dltrain.storage.job_names import job_folders

BRIEF = ("model=linear", "steps=2", "quiet=true")
FRAGILE = """
from pathlib import Path
from torch import nn

class Fragile(nn.Linear):
    \"\"\"A model that cannot be built with width 3 until the file `fixed` exists.\"\"\"

    def __init__(self, input_shape, num_classes, width: int = 1):
        if width == 3 and not Path("fixed").exists():
            raise RuntimeError("not fixed yet")
        super().__init__(input_shape[-1] * input_shape[-2], num_classes)

    def forward(self, inputs):
        return super().forward(inputs.flatten(1))
"""


@pytest.fixture
def fragile(workdir):
    (workdir / "fragile.py").write_text(FRAGILE)
    (workdir / "conf" / "model").mkdir(parents=True)
    (workdir / "conf" / "model" / "fragile.yaml").write_text("_target_: fragile.Fragile\n")
    return ("-m", "model=fragile", "model.width=1,3,2", "steps=2", "sweep.backend=local", "sweep.jobs=1")


def written(folder):
    """When each job wrote its summary: a job that ran again has another time."""
    return {
        number: (path / "summary.json").stat().st_mtime_ns for number, path in job_folders(folder).items()
    }


def rows_of(folder):
    with open(folder / "results.csv") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("search", [(), ("sweep=random", "sweep.trials=3")], ids=["grid", "search"])
def test_a_job_whose_folder_was_deleted_runs_again(workdir, dltrain, search):
    axis = "lr=interval(0.001,0.1)" if search else "lr=0.1,0.01,0.001"
    assert dltrain("-m", axis, *search, *BRIEF) == 0
    folder = sweep_folder(workdir)
    before, first = written(folder), summaries(folder)[1]
    shutil.rmtree(job_at(folder, 1))
    assert dltrain("-m", f"sweep.resume={folder}") == 0
    after = written(folder)
    assert {name for name in after if after[name] != before[name]} == {1}
    assert summaries(folder)[1]["best"]["val/loss"] == first["best"]["val/loss"]
    assert len((folder / "results.csv").read_text().splitlines()) == 4
    assert json.loads((folder / "sweep.json").read_text())["finished"]


def test_failed_jobs_are_retried_on_request(workdir, dltrain, fragile, capfd):
    assert dltrain(*fragile) == 7
    folder = sweep_folder(workdir)
    cure = f"dltrain -m sweep.resume={folder.relative_to(workdir)} sweep.retry=failed"
    assert cure in capfd.readouterr().out
    before = written(folder)
    assert dltrain("-m", f"sweep.resume={folder}") == 7
    assert written(folder) == before, "without being asked to, nothing runs again"
    (workdir / "fixed").touch()
    assert dltrain(*cure.split()[1:]) == 0
    assert {name for name, time in written(folder).items() if before.get(name) != time} == {1}
    assert json.loads((folder / "1-width=3-failed-1" / "summary.json").read_text())["status"] == "failed"
    assert [summaries(folder)[n]["status"] for n in range(3)] == ["completed"] * 3
    assert json.loads((folder / "sweep.json").read_text())["command"].startswith(
        "dltrain -m model=fragile"
    ), "the record keeps the first command"


def test_jobs_that_diverged_are_counted_apart_and_not_retried(workdir, dltrain, capfd):
    dltrain(
        "-m", "lr=0.1,1e30", "optimizer=sgd", *BRIEF[:1], "steps=20", "sweep.backend=local", "sweep.jobs=1"
    )
    folder, said = sweep_folder(workdir), capfd.readouterr().out
    assert [summaries(folder)[n]["status"] for n in range(2)] == ["completed", "diverged"]
    assert "\njob 1 diverged: " in said
    assert f"\n1 of 2 jobs done, 1 diverged, in {folder.relative_to(workdir)}\n" in said
    assert "sweep.retry" not in said
    before = written(folder)
    dltrain("-m", f"sweep.resume={folder}", "sweep.retry=failed")
    assert written(folder) == before


def test_fail_fast_stops_at_the_first_failure(workdir, dltrain, fragile, capfd):
    assert dltrain(*fragile, "sweep.fail_fast=true") == 7
    folder = sweep_folder(workdir)
    assert sorted(summaries(folder)) == [0, 1]
    assert [row["status"] for row in rows_of(folder)] == ["completed", "failed"]
    said = capfd.readouterr().out
    assert (
        "stopped at job 1, which failed (sweep.fail_fast), with 1 job to go. The same command goes on" in said
    )
    assert not json.loads((folder / "sweep.json").read_text())["finished"]
    (workdir / "fixed").touch()
    assert dltrain("-m", f"sweep.resume={folder}", "sweep.retry=failed") == 0
    assert [summaries(folder)[n]["status"] for n in range(3)] == ["completed"] * 3


def test_a_search_goes_on_with_more_trials(workdir, dltrain):
    search = ("-m", "sweep=random", "lr=interval(0.001,0.1)", *BRIEF)
    assert dltrain(*search, "sweep.trials=2") == 0
    folder = sweep_folder(workdir)
    before = written(folder)
    assert dltrain("-m", f"sweep.resume={folder}", "sweep.trials=4") == 0
    assert written(folder).items() >= before.items()
    assert sorted(summaries(folder)) == [0, 1, 2, 3]
    assert len({str(job["overrides"]) for job in summaries(folder).values()}) == 4, "no trial is repeated"


def test_a_grid_goes_on_with_more_seeds(workdir, dltrain):
    """Numbers of jobs that are done stay; the results are those of a sweep over all seeds."""
    assert dltrain("-m", "seed=0,1", "lr=0.1,0.01", *BRIEF) == 0
    folder = sweep_folder(workdir)
    before, overrides = written(folder), {n: job["overrides"] for n, job in summaries(folder).items()}
    assert show(folder)["extended"] == ""
    assert dltrain("-m", f"sweep.resume={folder}", "seed=0,1,2") == 0
    assert "seed=0,1,2 " in show(folder)["extended"] + " "
    jobs = summaries(folder)
    assert written(folder).items() >= before.items()
    assert {n: jobs[n]["overrides"] for n in overrides} == overrides
    values = {tuple(sorted(jobs[n]["overrides"])): jobs[n]["objective"] for n in jobs}
    shutil.move(folder, workdir / "kept")
    assert dltrain("-m", "seed=0,1,2", "lr=0.1,0.01", *BRIEF) == 0
    straight = summaries(sweep_folder(workdir))
    assert {tuple(sorted(job["overrides"])): job["objective"] for job in straight.values()} == values
    best = [
        yaml.safe_load((where / "best.yaml").read_text())
        for where in (workdir / "kept", sweep_folder(workdir))
    ]
    assert best[0] == best[1]


@pytest.mark.ci
@pytest.mark.parametrize("more", [["sweep.seeds=2"], ["seed=0,1"]])
def test_a_grid_without_seeds_gets_some(workdir, dltrain, more):
    """Its runs are those of the default seed, and keep their numbers."""
    assert dltrain("-m", "lr=0.1,0.01", *BRIEF) == 0
    folder = sweep_folder(workdir)
    before = written(folder)
    assert dltrain("-m", f"sweep.resume={folder}", *more) == 0
    assert written(folder).items() >= before.items()
    jobs = summaries(folder)
    assert [[t for t in jobs[n]["overrides"] if t.startswith(("lr", "seed"))] for n in (2, 3)] == [
        ["lr=0.1", "seed=1"],
        ["lr=0.01", "seed=1"],
    ]
    # and the other way to say it
    other = ["seed=0,1,2"] if more[0].startswith("sweep") else ["sweep.seeds=3"]
    assert dltrain("-m", f"sweep.resume={folder}", *other) == 0
    assert sorted(summaries(folder)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "change, said",
    [
        (("seed=0",), r"axis seed was 0,1, is absent"),
        (("lr=0.1,0.5",), r"axis lr was 0.1,0.01, is 0.1,0.5"),
        (("steps=3",), r"only then: .*steps=2, only now: .*steps=3"),
    ],
)
def test_another_sweep_is_not_an_extension(workdir, dltrain, change, said):
    assert dltrain("-m", "seed=0,1", "lr=0.1,0.01", *BRIEF) == 0
    folder = sweep_folder(workdir)
    given = {
        "seed": "seed=0,1",
        "lr": "lr=0.1,0.01",
        "model": "model=linear",
        "steps": "steps=2",
        "quiet": "quiet=true",
    }
    given |= {text.partition("=")[0]: text for text in change}
    with pytest.raises(UserError, match=said):
        dltrain("-m", *given.values(), f"sweep.resume={folder}")


@pytest.fixture
def recipe(workdir):
    """A recipe, a word that it builds upon, and a model of the user's with a helper module."""
    (workdir / "conf" / "experiment").mkdir(parents=True)
    (workdir / "conf" / "optimizer").mkdir()
    (workdir / "conf" / "model").mkdir()
    (workdir / "helper.py").write_text("WIDTH = 4\n")
    (workdir / "own.py").write_text(
        "from torch import nn\nimport helper\n\n\ndef make(input_shape, num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, helper.WIDTH), nn.Linear(helper.WIDTH, num_classes))\n"
    )
    (workdir / "conf" / "model" / "own.yaml").write_text("_target_: own.make\n")
    (workdir / "conf" / "optimizer" / "base.yaml").write_text("defaults: [sgd]\nlr: 0.1\n")
    (workdir / "conf" / "optimizer" / "mine.yaml").write_text("defaults: [base]\n")
    (workdir / "conf" / "experiment" / "mine.yaml").write_text(
        "defaults:\n  - override /model: own\n  - override /optimizer: mine\nsteps: 2\n"
    )
    (workdir / "conf" / "optimizer" / "other.yaml").write_text("defaults: [sgd]\n")
    return ("-m", "experiment=mine", "batch_size=32,64")


@pytest.mark.parametrize(
    "file, content",
    every(2, [
        ("conf/experiment/mine.yaml", "defaults:\n  - override /model: own\n  - override /optimizer: mine\nsteps: 2\nseed: 3\n"),
        ("conf/optimizer/base.yaml", "defaults: [sgd]\nlr: 0.2\n"),
        ("own.py", "import helper\nfrom torch.nn import *\n\ndef make(num_classes):\n    return Sequential(Flatten(), Linear(64, num_classes))\n"),
        ("helper.py", "WIDTH = 5\n"),
    ]),
)  # fmt: skip
def test_after_an_edit_the_same_command_begins_a_new_sweep(workdir, dltrain, recipe, capfd, file, content):
    assert dltrain(*recipe) == 0
    folder = sweep_folder(workdir)
    record = json.loads((folder / "sweep.json").read_text())
    assert set(record["identity"]["files"]) == {
        "conf/experiment/mine.yaml", "conf/model/own.yaml", "conf/optimizer/base.yaml", "conf/optimizer/mine.yaml",
        "helper.py", "own.py",
    }  # fmt: skip
    (folder / "sweep.json").write_text(json.dumps(record | {"finished": False}))
    before = written(folder)
    (workdir / "conf" / "optimizer" / "other.yaml").write_text("defaults: [sgd]\nlr: 0.3\n")
    assert dltrain(*recipe) == 0, "an edit of another file changes nothing"
    assert f"going on with the unfinished sweep {folder.relative_to(workdir)}" in capfd.readouterr().out
    (folder / "sweep.json").write_text(json.dumps(record | {"finished": False}))
    (workdir / file).write_text(content)
    with pytest.raises(UserError, match=re.escape(f"{file} changed")):
        dltrain(*recipe, f"sweep.resume={folder}")
    assert dltrain(*recipe) == 0
    assert (
        f"not going on with {folder.relative_to(workdir)}, which was begun with other files: {file} changed"
        in capfd.readouterr().out
    )
    assert written(folder) == before
    assert len(list(folder.parent.glob("*/sweep.json"))) == 2


def test_relative_imports_belong_to_the_sources_of_a_sweep(workdir):
    """Each dot more is a package further out, as in Python."""
    files = {
        "pack/__init__.py": "",
        "pack/helper.py": "WIDTH = 4",
        "pack/inner/__init__.py": "",
        "pack/inner/own.py": "from ..helper import WIDTH\nfrom . import beside\nfrom .. import other\n",
        "pack/inner/beside.py": "",
        "pack/other.py": "",
    }
    for name, text in files.items():
        (workdir / name).parent.mkdir(parents=True, exist_ok=True)
        (workdir / name).write_text(text)
    named = own_code.imported_by(workdir / "pack" / "inner" / "own.py")
    found = {file.relative_to(workdir).as_posix() for name in named for file in own_code.modules_in(name)}
    assert found == files.keys() - {"pack/inner/own.py"}


@pytest.mark.ci
@pytest.mark.parametrize("folder", ["my words", "config"])
def test_printed_commands_name_the_folder_and_the_file_of_words(workdir, dltrain, capfd, folder):
    words = workdir / folder
    (words / "model").mkdir(parents=True)
    (words / "model" / "half.yaml").write_text("defaults: [linear]\n")
    (words / "main.yaml").write_text(
        "defaults:\n  - config\n  - override /model: half\n  - _self_\nsteps: 2\n"
    )
    options = ("--config-dir", folder, "--config-name", "main")
    assert (
        dltrain(*options, "-m", "lr=0.1,0.01", "sweep.timeout=0.001", "sweep.jobs=1", "sweep.backend=local")
        == 0
    )
    said = capfd.readouterr().out
    assert "1 of 2 jobs done" in said
    (cure,) = re.findall(r"or: dltrain (.*)", said)
    assert dltrain(*shlex.split(cure)) == 0
    folder = sweep_folder(workdir)
    assert [job["status"] for job in summaries(folder).values()] == ["completed"] * 2
    target = words / "experiment"
    target.mkdir()
    shutil.copy(folder / "best.yaml", target / "best.yaml")
    (cure,) = re.findall(r"then: dltrain (.*)", (folder / "best.yaml").read_text())
    assert dltrain(*shlex.split(cure)) == 0


@pytest.mark.parametrize(
    "axis",
    ["name=a,b", "notes=x,y", "tags=[a],[b]", "quiet=true,false", "output=o1,o2", "log.every_steps=1,2"],
)
def test_an_axis_that_changes_no_result_is_refused(dltrain, axis):
    with pytest.raises(UserError, match="cannot be an axis: it changes no result"):
        dltrain("-m", axis)


def test_an_axis_that_names_the_jobs_of_another_is_allowed(dltrain, capsys):
    assert dltrain("-m", "lr=0.1,0.01", "name=a,b", "sweep.zip=[lr,name]", "sweep.dry_run=true") == 0
    assert "2 jobs" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["tpe", "random", "gp", "qmc"])
def test_a_search_needs_an_axis(dltrain, workdir, word):
    with pytest.raises(
        UserError, match=f"`sweep={word}` searches, and there is no axis to search"
    ) as refused:
        dltrain("-m", f"sweep={word}", "sweep.seeds=3")
    assert not (workdir / "outputs").exists()
    cure = str(refused.value).splitlines()[1]
    assert cure == f"dltrain -m sweep={word} 'lr=tag(log,interval(1e-4,1e-1))'"


@pytest.mark.parametrize(
    "axis, labels",
    [
        ("lr=1,1.0,0.1,1e-1", ["lr=1", "lr=0.1"]),
        ("model.hidden=[64],[64.0],[32]", ["model.hidden=[64]", "model.hidden=[32]"]),
        ("deterministic=true,True,false", ["deterministic=True", "deterministic=False"]),
    ],
)
def test_equal_values_run_once(dltrain, capsys, axis, labels):
    assert dltrain("-m", axis, "sweep.dry_run=true") == 0
    rows = [line.split()[1] for line in capsys.readouterr().out.splitlines() if re.match(r" +\d+ ", line)]
    assert rows == labels


def test_best_yaml_of_folds_is_a_recipe_that_trains(workdir, dltrain):
    """It kept the number of folds without a fold, which is refused."""
    words = ("dataset=iris", "model=linear", "lr=0.1,0.01", "epochs=1", "folds=3", "fold=0,1,2")
    assert dltrain("-m", *words) == 0
    folder = sweep_folder(workdir)
    (workdir / "conf" / "experiment").mkdir(parents=True)
    shutil.copy(folder / "best.yaml", workdir / "conf/experiment/best.yaml")
    assert dltrain("experiment=best") == 0
    assert dltrain("verify", folder) == 0
    # of a recipe, too
    (workdir / "conf/experiment/cv.yaml").write_text(
        "# @package _global_\ndefaults: [override /dataset: iris, override /model: linear]\nfolds: 3\nepochs: 1\n"
    )
    shutil.rmtree(workdir / "outputs")
    assert dltrain("-m", "experiment=cv", "lr=0.1,0.01", "fold=0,1,2") == 0
    folder = sweep_folder(workdir)
    shutil.copy(folder / "best.yaml", workdir / "conf/experiment/best.yaml")
    assert dltrain("experiment=best") == 0
    assert dltrain("verify", folder) == 0


def test_best_yaml_names_no_seed_and_states_the_mean(workdir, dltrain):
    assert dltrain("-m", "lr=0.1,0.01", "seed=0,1,2", *BRIEF) == 0
    folder = sweep_folder(workdir)
    text = (folder / "best.yaml").read_text()
    best = yaml.safe_load(text)
    assert "seed" not in best and "lr" in best
    objectives = [
        job["objective"] for job in summaries(folder).values() if f"lr={best['lr']}" in job["overrides"]
    ]
    mean = sum(objectives) / 3
    deviation = (sum((value - mean) ** 2 for value in objectives) / 2) ** 0.5
    # Student's quantile for two degrees of freedom
    assert f"val/loss {mean:.6g} ± {4.302653 * deviation / 3**0.5:.2g}, the mean of 3 runs" in text


def test_the_ranking_shows_accuracy_and_the_mean_test_score(workdir, dltrain, capfd):
    assert dltrain("-m", "lr=0.1,0.01", "seed=0,1", "model=linear", "steps=20", "evaluation.test=true") == 0
    jobs, said = summaries(sweep_folder(workdir)), capfd.readouterr().out
    head, first, *_ = said.split("\nrank")[1].splitlines()
    assert "val/accuracy" in head
    chosen = next(text for text in first.split() if text.startswith("lr="))
    members = [job for job in jobs.values() if chosen in job["overrides"]]
    accuracy = sum(job["best"]["val/accuracy"] for job in members) / 2
    assert f"{accuracy:.4f}" in first
    scores = sum(job["test"]["accuracy"] for job in members) / 2
    assert f"accuracy {scores:.4f} (means of 2 runs)" in said
