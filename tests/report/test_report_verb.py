"""`dltrain report`: runs, sweeps, samples, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import job_at, run_folders

import dltrain as package
from dltrain import api
from dltrain.cli import dispatch
from dltrain.commands.show import asked_for
from dltrain.config import asked
from dltrain.config.compose import open_catalogue
from dltrain.data.spec import DataSpec
from dltrain.errors import CheckpointProblem, ResourceProblem, UserError
from dltrain.run.pictures import judged


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a linear model on digits, which makes mistakes."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert dispatch(["model=linear", "epochs=3", "optimizer=nesterov", "lr=0.02", "quiet=true"]) == 0
    (run,) = run_folders(folder)
    return run


@pytest.fixture
def run(made: Path, workdir: Path) -> Path:
    return Path(shutil.copytree(made, workdir / "outputs" / "digits" / "run")).relative_to(workdir)


def test_the_report_is_in_the_run_folder(run, dltrain, capsys):
    before = {file.name for file in run.iterdir()}
    assert dltrain("report", run) == 0
    assert capsys.readouterr().out == f"{run}/report.html\n"
    assert {file.name for file in run.iterdir()} - before == {"report.html"}
    text = (run / "report.html").read_text()
    summary = json.loads((run / "summary.json").read_text())
    assert f"{summary['test']['accuracy']:.4f}" in text
    cell = r'<td class="wrap">([^<]*)</td>'
    rows = re.findall(f"<tr>{4 * cell}</tr>", text)
    assert ("model", "linear", "mlp", "command line") in rows
    assert ("optimizer", "nesterov", "adam", "command line") in rows
    assert ("lr", "0.02", "0.03", "command line") in rows
    assert not [row for row in rows if row[0] in ("optimizer.lr", "dataset", "dataset.test_fraction")]


def test_as_json_elsewhere(run, dltrain, capsys):
    assert dltrain("report", run, "--json", "--output", "digits.html") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["run"] == str(run) and found["report"] == "digits.html"
    assert Path("digits.html").is_file() and not (run / "report.html").exists()
    assert {"kind", "text", "command"} == set(found["findings"][0])
    assert any("constant guess" in item["text"] for item in found["findings"])


def test_samples_are_those_of_the_run(run, dltrain, capsys):
    assert dltrain("report", run, "--samples") == 0
    text = (run / "report.html").read_text()
    captions = re.findall(r'alt="([^"]*)">', text)
    said = [re.fullmatch(r"true (\S+), predicted (\S+) \((\d\.\d\d)\)", c).groups() for c in captions]
    mistakes, inputs = said[:-12], said[-12:]
    assert all(true != predicted for true, predicted, _ in mistakes)
    assert any(true == predicted for true, predicted, _ in inputs)
    shares = [float(share) for *_, share in mistakes]
    wrong = sum(int(n) for n in re.findall(r"<td class=\"\" style=\"--s:\d+\">(\d+)</td>", text))
    assert len(captions) - 12 == min(24, wrong) > 2
    assert shares == sorted(shares, reverse=True)


def test_from_python(run, dltrain):
    assert dltrain("report", run, "--samples", "--output", "verb.html") == 0
    assert api.load(run).report("python.html", samples=True) == Path("python.html")
    by_python = Path("python.html").read_text().replace(str(run.absolute()), str(run))
    assert by_python == Path("verb.html").read_text()
    assert api.load(run).report() == run.absolute() / "report.html"
    with pytest.raises(UserError, match="`--output` is x.pdf"):
        api.load(run).report("x.pdf")


def test_judged_by_hand():
    zero = torch.zeros(1)
    spec = DataSpec((1, 2, 2), 3, "classification", zero, zero + 1, ("a", "b", "c"))
    odds = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.05, 0.9, 0.05]])
    captions, wrong = judged(spec, odds.log(), torch.tensor([0, 1, 0, 0]))
    assert captions == [
        "true a, predicted a (0.50)",
        "true b, predicted a (0.60)",
        "true a, predicted c (0.70)",
        "true a, predicted b (0.90)",
    ]
    assert wrong.tolist() == [3, 2, 1]
    numbers = DataSpec((1, 2, 2), 1, "regression", zero, zero + 1)
    captions, wrong = judged(numbers, torch.tensor([[1.0], [2.0]]), torch.tensor([[1.5], [4.0]]))
    assert captions[1] == "true 4.0000, predicted 2.0000" and wrong.tolist() == [1, 0]


@pytest.mark.parametrize("status", ["no config", "no summary", "foreign word"])
def test_a_run_that_is_not_whole_has_a_report(status, run, dltrain):
    if status == "no config":
        (run / "config.yaml").unlink()
    elif status == "no summary":
        (run / "summary.json").unlink()
    else:
        file = run / "config.yaml"
        file.write_text(file.read_text().replace("model: linear", "model: of_another_day"))
    assert dltrain("report", run) == 0
    text = (run / "report.html").read_text()
    assert ("cannot be compared" in text) is (status == "no config")
    assert ("of_another_day" in text) is (status == "foreign word")


REFUSED: dict[str, tuple[list[str], type[UserError], str]] = {
    "nothing": ([], UserError, "Name one run folder or sweep: dltrain report outputs/NAME"),
    "two": (["{run}", "{run}"], UserError, "Name one run folder"),
    "not there": (["nowhere"], CheckpointProblem, "nowhere is no folder"),
    "of runs": (["outputs/digits"], CheckpointProblem, "neither a run nor a sweep. The newest in it: dltrain report outputs/digits/run$"),
    "empty": (["empty"], CheckpointProblem, "empty is neither a run nor a sweep. Name one: outputs/NAME/DATE_TIME-xxxx"),
    "option": (["{run}", "--sampels"], UserError, "`--sampels` is no option of report. Did you mean `--samples`"),
    "ending": (["{run}", "--output", "x.pdf"], UserError, "`--output` is x.pdf; it must be a file whose name ends in .html"),
    "no value": (["{run}", "--output"], UserError, "`--output` is empty"),
    "no folder": (["{run}", "--output", "a b/x.html"], UserError, "there is no folder a b. Make it first: mkdir -p 'a b'"),
    "no samples": (["{run}", "device=cpu"], UserError, "`device=cpu` says where the data are, which only --samples needs"),
    "wrong key": (["{run}", "--samples", "devcie=cpu"], UserError, "`devcie` is no key"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case, run, dltrain, workdir):
    arguments, kind, told = REFUSED[case]
    (workdir / "empty").mkdir()
    before = sorted(file for file in workdir.rglob("*") if file.name != ".runs.sqlite")
    with pytest.raises(kind, match=told):
        dltrain("report", *(text.format(run=run) for text in arguments))
    assert sorted(file for file in workdir.rglob("*") if file.name != ".runs.sqlite") == before


def test_samples_of_a_table_are_refused(train, dltrain):
    run = train("dataset=iris", "model=linear", "epochs=1").path
    with pytest.raises(
        UserError, match="shows images, and the inputs of this run are not images. Leave it out"
    ):
        dltrain("report", run, "--samples")
    assert not (run / "report.html").exists()


def test_a_folder_that_cannot_be_written(run, dltrain, monkeypatch):
    def refuse(file: Path, content: bytes) -> None:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("dltrain.commands.report.replace", refuse)
    with pytest.raises(
        ResourceProblem, match=r"\(Permission denied\). Write it elsewhere: --output FILE.html"
    ):
        dltrain("report", run)


# What was asked -----------------------------------------------------------------------------------------------------


def test_a_recipe_is_told_from_the_command_line():
    content = {
        "lr": 0.5, "epochs": 7, "optimizer": {"momentum": 0.8, "lr": 0.5},
        "words": {"optimizer": "nesterov", "schedule": "cosine", "experiment": "mine", "debug": "none"},
    }  # fmt: skip
    found = asked.choices_of(content, ["schedule=cosine", "+optimizer.momentum=0.8"], open_catalogue())
    assert {(item.key, item.value, item.source) for item in found} == {
        ("optimizer", "nesterov", "recipe or file"),
        ("schedule", "cosine", "command line"),
        ("experiment", "mine", "recipe or file"),
        ("lr", "0.5", "recipe or file"),
        ("epochs", "7", "recipe or file"),
        ("optimizer.momentum", "0.8", "command line"),
    }


def test_what_a_repeated_run_took_over_was_asked_for():
    """Only the changes were named: the page read as one of the default model on the default data."""
    content = {"lr": 0.5, "seed": 1, "words": {"optimizer": "nesterov", "experiment": "mine"}}
    command = "dltrain rerun outputs/o/2026-01-31_12-00-00-abcd seed=1"
    found = asked.choices_of(content, ["seed=1"], open_catalogue(), command)
    repeated = "the run that was repeated"
    assert {(item.key, item.value, item.source) for item in found} == {
        ("optimizer", "nesterov", repeated),
        ("experiment", "mine", repeated),
        ("lr", "0.5", repeated),
        ("seed", "1", "command line"),
    }


def test_what_a_sweep_set_is_told_from_its_command():
    content = {
        "lr": 0.5, "seed": 3, "evaluation": {"test": False}, "logger": [], "model": {"hidden": [8]},
        "words": {"logger": [], "model": "mlp"},
    }  # fmt: skip
    overrides = ["lr=0.5", "model.hidden=[8]", "seed=3", "logger=none", "evaluation.test=false"]
    command = "dltrain -m lr=0.5,0.1 'model.hidden=[8]' logger=none sweep.seeds=5"
    found = asked.choices_of(content, overrides, open_catalogue(), command)
    sources = {item.key: (item.value, item.source) for item in found}
    assert sources == {
        "logger": ("none", "command line"),
        "lr": ("0.5", "command line"),
        "model.hidden": ("[8]", "command line"),
        "seed": ("3", "sweep"),
        "evaluation.test": ("false", "sweep"),
    }
    alone = asked.choices_of(content, overrides, open_catalogue(), "dltrain " + " ".join(overrides))
    assert {item.source for item in alone} == {"command line"}


def test_only_what_overrides_and_recipes_set_was_asked_for(workdir):
    """The default of model.hidden was another one at the time of the training."""
    recipes = workdir / "conf" / "experiment"
    recipes.mkdir(parents=True)
    (recipes / "base.yaml").write_text(
        "defaults:\n  - override /schedule: cosine\nearly_stopping:\n  patience: 3\n"
    )
    (recipes / "mine.yaml").write_text("defaults:\n  - base\nepochs: 7\nlr: 0.5\n")
    words = {
        "schedule": "cosine",
        "experiment": "mine",
        "model": "mlp",
        "optimizer": "sgd",
        "early_stopping": "patience",
    }
    content = {
        "lr": 0.5, "epochs": 7, "optimizer": {"momentum": 0.3}, "model": {"hidden": [7], "dropout": 0.25},
        "early_stopping": {"patience": 3}, "log": {"every_steps": 5}, "batch_size": 3, "words": words,
    }  # fmt: skip
    overrides = ["experiment=mine", "++model.dropout=0.25"]
    found = asked.choices_of(content, overrides, open_catalogue())
    assert {(item.key, item.value, item.source) for item in found} == {
        ("experiment", "mine", "command line"),
        ("schedule", "cosine", "recipe"),
        ("lr", "0.5", "recipe"),
        ("epochs", "7", "recipe"),
        ("early_stopping.patience", "3", "recipe"),
        ("model.dropout", "0.25", "command line"),
        ("log.every_steps", "5", "command line"),
        ("batch_size", "3", "automatic"),
    }
    flat = {
        "lr": 0.5, "epochs": 7, "model.hidden": [7], "model.dropout": 0.25, "early_stopping.patience": 3, "batch_size": 3, **words,
    }  # fmt: skip
    assert asked_for(flat, overrides) == {
        "experiment": "mine", "schedule": "cosine", "lr": 0.5, "epochs": 7, "early_stopping.patience": 3, "model.dropout": 0.25,
    }  # fmt: skip
    assert asked_for(flat, None)["model.hidden"] == [7]


@pytest.mark.parametrize("option", ["--config-name small", "--config-name=small.yaml", "-cn small"])
def test_what_a_primary_file_sets_was_asked_for(workdir, option):
    (workdir / "conf").mkdir()
    (workdir / "conf" / "small.yaml").write_text(
        "defaults: [config, {override /optimizer: sgd}, _self_]\nmodel: {hidden: [8]}\nepochs: 3\n"
    )
    words = {"model": "mlp", "optimizer": "sgd", "schedule": "cosine"}
    content = {"epochs": 3, "model": {"hidden": [8]}, "lr": 0.5, "words": words}
    command = f"dltrain {option} lr=0.5"
    found = asked.choices_of(content, ["lr=0.5"], open_catalogue(), command)
    assert {(item.key, item.value, item.source) for item in found} == {
        ("optimizer", "sgd", "small.yaml"),
        ("model.hidden", "[8]", "small.yaml"),
        ("epochs", "3", "small.yaml"),
        ("lr", "0.5", "command line"),
    }
    flat = {"epochs": 3, "model.hidden": [8], "lr": 0.5, **words}
    assert set(asked_for(flat, ["lr=0.5"], command)) == {"optimizer", "model.hidden", "epochs", "lr"}
    (workdir / "conf" / "small.yaml").rename(workdir / "mine.yaml")
    gone = asked.choices_of(content, ["lr=0.5"], open_catalogue(), command)
    assert {item.source for item in gone} == {"recipe or file", "command line"}


def test_a_run_of_a_primary_file_shows_its_keys(workdir, train, dltrain):
    (workdir / "conf").mkdir()
    (workdir / "conf" / "small.yaml").write_text("defaults: [config, _self_]\nmodel: {hidden: [8]}\n")
    run = train("--config-name", "small", "dataset.limit=100", "steps=1")
    assert package.show(run.path)["asked"]["model.hidden"] == [8]
    assert dltrain("report", run.path) == 0
    row = '<td class="wrap">model.hidden</td><td class="wrap">[8]</td>'
    assert row in (run.path / "report.html").read_text()


# Sweeps -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sweep(workdir: Path, dltrain: Callable[..., int]) -> Path:
    arguments = ["-m", "model=linear", "steps=2", "lr=0.1,0.01", "workers=0", "quiet=true", "sweep.jobs=1"]
    assert dltrain(*arguments) == 0
    (record,) = workdir.glob("outputs/*/*/sweep.json")
    return record.parent.relative_to(workdir)


def test_a_sweep_is_written_again(sweep, dltrain, capsys):
    first = (sweep / "report.html").read_text()
    (sweep / "report.html").unlink()
    others = {
        file: file.read_bytes() for file in sweep.iterdir() if file.is_file() and file.suffix != ".lock"
    }
    assert dltrain("report", sweep) == 0
    assert capsys.readouterr().out == f"{sweep}/report.html\n"
    assert (sweep / "report.html").read_text() == first
    assert all(file.read_bytes() == content for file, content in others.items())
    assert dltrain("report", sweep, "--json", "--output", "s.html") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["sweep"] == str(sweep) and Path("s.html").read_text() == first
    # a job that is gone
    shutil.rmtree(job_at(sweep, 1))
    assert dltrain("report", sweep) == 0
    assert "running, or stopped, with 1 job to go" in (sweep / "report.html").read_text()
    refused_sweeps(sweep, dltrain)


def refused_sweeps(sweep: Path, dltrain: Callable[..., int]) -> None:
    from dltrain.sweep.begun import locked

    with pytest.raises(
        UserError, match=rf"is a sweep. Name one of its jobs: dltrain report {sweep}/0 --samples"
    ):
        dltrain("report", sweep, "--samples")
    with locked(sweep):
        assert dltrain("report", sweep) == 0


def test_a_search_without_its_study_is_refused(workdir, dltrain):
    search = ["sweep=random", "sweep.trials=1", "lr=interval(0.01,0.1)"]
    assert dltrain("-m", *search, "model=linear", "steps=2", "workers=0", "quiet=true", "sweep.jobs=1") == 0
    (record,) = workdir.glob("outputs/*/*/sweep.json")
    sweep = record.parent.relative_to(workdir)
    (sweep / "study.log").unlink()
    with pytest.raises(
        CheckpointProblem, match=rf"has no study.log, which lists its jobs.*dltrain report {sweep}/0"
    ):
        dltrain("report", sweep)
