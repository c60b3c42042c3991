"""The group `logger` in runs, resumed runs, sweeps and stacks; loggers change no result, whatever they do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Run, assert_equal, run_folders
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dltrain.cli import dispatch
from dltrain.commands.show import show
from dltrain.errors import ResourceProblem, UserError
from dltrain.loggers.events import has_curves
from dltrain.report.record import read


def events_of(folder):
    return sorted(folder.glob("events.out.tfevents.*"))


CODE = """
import json, random
from pathlib import Path
import numpy, torch

class Lines:
    def __init__(self, token: str = "none"):
        self.token = token
    def run_started(self, run):
        self.file = Path(run.folder) / "lines.jsonl"
        self.write(event="started", resumed=run.resumed, at=run.resumed_step, id=run.id, sweep=run.sweep, config=run.config)
    def step_logged(self, row):
        self.write(event="step", **row)
    def evaluated(self, row):
        self.write(event="evaluated", **row)
    def run_ended(self, result):
        self.write(event="ended", **result.flat())
    def write(self, **values):
        with open(self.file, "a") as file:
            file.write(json.dumps(values) + chr(10))

class Meddler:
    def step_logged(self, row):
        row.clear()
    def evaluated(self, row):
        row["val/loss"] = -1.0
        torch.manual_seed(7); torch.rand(3); random.random(); numpy.random.rand()
        torch.set_grad_enabled(True)
    def run_ended(self, result):
        result.best.clear(); result.test.clear()

class Broken:
    def evaluated(self, row):
        raise RuntimeError("no network")

class Comet:
    requires = {"comet_ml"}
    def evaluated(self, row): ...
"""
SMALL = ("dataset.limit=150", "model.hidden=[8]", "epochs=3", "log.every_steps=1")


@pytest.fixture
def own(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Words of the user's for each class."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (workdir / "my_loggers.py").write_text(CODE)
    (workdir / "conf/logger").mkdir(parents=True)
    for word in ("Lines", "Meddler", "Broken", "Comet"):
        (workdir / f"conf/logger/{word.lower()}.yaml").write_text(f"_target_: my_loggers.{word}\n")
    sys.modules.pop("my_loggers", None)
    yield workdir
    sys.modules.pop("my_loggers", None)


def lines(run: Run, event: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run.path / "lines.jsonl").read_text().splitlines()]
    return [line for line in found if line.pop("event") == event]


def test_events_are_those_of_the_run(train, own):
    run = train("logger=[lines]", *SMALL)
    (started,), (ended,) = lines(run, "started"), lines(run, "ended")
    assert lines(run, "evaluated") == run.rows
    assert [row["step"] for row in lines(run, "step")] == list(range(1, 10))
    # the mean over the samples of an epoch is that of its steps
    count = json.loads((run.path / "data.json").read_text())["sizes"]["train"]
    sizes = [min(64, count - start) for start in range(0, count, 64)]
    losses = [row["loss"] for row in lines(run, "step")]
    for epoch, row in enumerate(run.rows):
        own_losses = losses[epoch * len(sizes) : (epoch + 1) * len(sizes)]
        mean = sum(size * loss for size, loss in zip(sizes, own_losses, strict=True)) / count
        assert row["train/loss"] == pytest.approx(mean, rel=1e-5)
    assert started["config"] == yaml.safe_load((run.path / "config.yaml").read_text())
    assert ended["test/loss"] == run.summary["test"]["loss"] and ended["status"] == "completed"
    assert not events_of(run.path)


@pytest.mark.parametrize("word", ["logger=[]", "logger=none"])
def test_without_loggers_the_record_is_complete(train, word):
    run = train(word, *SMALL)
    assert run.summary["status"] == "completed" and len(run.rows) == 3
    assert not events_of(run.path)


def test_loggers_change_no_result(train, own):
    choices = ("model.dropout=0.3", "augmentation=[shift]", *SMALL)
    alone = train("logger=[]", *choices)
    watched = train("logger=[meddler,tensorboard,lines]", *choices)
    assert watched.timeless_rows == alone.timeless_rows
    assert_equal(watched.last_state()["weights"], alone.last_state()["weights"])
    for key in ("best", "test", "objective", "status"):
        mine, other = watched.summary[key], alone.summary[key]
        drop = ("seconds", "images_per_second")
        assert mine == other or {k: mine[k] for k in mine if k not in drop} == {
            k: other[k] for k in other if k not in drop
        }
    # nor what another logger is told
    assert [row["val/loss"] for row in lines(watched, "evaluated")] == [row["val/loss"] for row in alone.rows]


def test_a_logger_that_fails_leaves_a_degraded_run(dltrain, own):
    with pytest.raises(
        ResourceProblem, match=r"Broken failed, and was left out \(RuntimeError: no network\)"
    ):
        dltrain("logger=[broken,lines]", "quiet=true", *SMALL)
    run = Run(run_folders(own).pop())
    assert run.summary["status"] == "degraded"
    assert lines(run, "evaluated") == run.rows and len(run.rows) == 3
    assert "no network" in (run.path / "run.log").read_text()


def test_an_error_ends_the_loggers(dltrain, own):
    with pytest.raises(UserError):
        dltrain("logger=[lines]", "optimizer=sgd", "lr=1e30", "quiet=true", *SMALL)
    (ended,) = lines(Run(run_folders(own).pop()), "ended")
    assert (ended["status"], ended["error"]) == ("failed", "NumericalFailure")


def test_a_resumed_run_goes_on_in_its_loggers(train, own, monkeypatch):
    """Cut short in the middle of an epoch: what the two parts log is what one run logs."""
    from dltrain.training.signals import Interrupted
    from dltrain.training.trainer import Trainer

    choices = ("logger=[lines,tensorboard]", *SMALL)
    whole = train(*choices)
    observe = Trainer.observe

    def cut(self):
        observe(self)
        if self.step == 5:
            self.interrupt()

    before = run_folders(own)
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(Trainer, "observe", cut)
        patched.setattr(
            "dltrain.training.signals.Signals.interruption", lambda self, step, path: Interrupted("cut", 143)
        )
        dispatch([*choices, "quiet=true"])
    run = Run((run_folders(own) - before).pop())
    assert lines(run, "ended")[0]["status"] == "interrupted"
    assert dispatch(["resume", str(run.path), "quiet=true", "logger.lines.token=other"]) == 0
    first, second = lines(run, "started")
    assert (second["resumed"], second["at"], second["id"]) == (True, 5, first["id"])
    assert run.timeless_rows == whole.timeless_rows
    for event in ("step", "evaluated"):
        for row in (found := [lines(whole, event), lines(run, event)])[0] + found[1]:
            row.pop("seconds", None), row.pop("images_per_second", None)
        assert found[0] == found[1]


def test_a_resumed_run_goes_on_in_the_folder_of_its_curves(train):
    run = train("dataset.limit=150", "model.hidden=[8]", "steps=2", "evaluation.every_steps=2")
    assert len(events_of(run.path)) == 1
    dispatch(["resume", str(run.path), "steps=4", "quiet=true"])
    assert len(events_of(run.path)) == 2 and not (run.path / "tensorboard").exists()
    size = sum(file.stat().st_size for file in events_of(run.path))
    assert show(run.path)["files"]["events.out.tfevents.*"] == size
    assert ("events.out.tfevents.*", size) in read(run.path).files


def test_a_run_of_an_earlier_version_goes_on_in_its_subfolder(train):
    run = train(
        "dataset.limit=150",
        "model.hidden=[8]",
        "steps=2",
        "evaluation.every_steps=1",
        "evaluation.every_epochs=null",
    )
    before = run.path / "tensorboard"
    before.mkdir()
    for file in events_of(run.path):
        file.rename(before / file.name)
    dispatch(["resume", str(run.path), "steps=4", "quiet=true"])
    assert not events_of(run.path) and len(events_of(before)) == 2
    assert has_curves(run.path)
    curve = EventAccumulator(str(before)).Reload().Scalars("val/loss")
    assert [point.step for point in curve] == [row["step"] for row in run.rows]


def test_a_run_from_before_the_group_keeps_its_curves(train):
    run = train("dataset.limit=150", "model.hidden=[8]", "steps=2", "evaluation.every_steps=2")
    file = run.path / "config.yaml"
    config = yaml.safe_load(file.read_text())
    del config["logger"], config["words"]["logger"]
    file.write_text(yaml.safe_dump(config))
    assert dispatch(["resume", str(run.path), "steps=4", "quiet=true"]) == 0
    assert len(events_of(run.path)) == 2


def test_a_value_from_the_environment_does_not_reach_a_logger(train, own, monkeypatch):
    monkeypatch.setenv("TOKEN", "hunter2")
    monkeypatch.setenv("NOTE", "hunter3")
    run = train("logger=[lines]", "logger.lines.token=${oc.env:TOKEN}", "notes=${oc.env:NOTE}", *SMALL)
    (started,) = lines(run, "started")
    assert started["config"]["logger"]["lines"]["token"] == "${oc.env:TOKEN}"
    assert "hunter" not in json.dumps(started)


def test_jobs_of_a_sweep_log_in_their_folders(dltrain, own):
    """Job by job, and as a stack."""
    for how in ("local", "stacked"):
        choices = (f"sweep.backend={how}", "sweep.jobs=1", f"name={how}", "quiet=true", *SMALL)
        assert dltrain("-m", "logger=[lines]", "lr=0.1,0.01", *choices) == 0
        (sweep,) = own.glob(f"outputs/{how}/*")
        jobs = [Run(file.parent) for file in sorted(sweep.glob("*/summary.json"))]
        assert len(jobs) == 2
        assert (sweep / "stacks.log").exists() == (how == "stacked")
        for job in jobs:
            assert lines(job, "evaluated") == job.rows and len(job.rows) == 3
            assert [row["step"] for row in lines(job, "step")] == list(range(1, 10))
            assert lines(job, "started")[0]["sweep"] == sweep.name
        assert len({lines(job, "started")[0]["id"] for job in jobs}) == 2


@pytest.mark.parametrize("arguments", [["logger=[wandb]"], ["-m", "logger=[tensorboard,mlflow]", "lr=0.1,0.2"],
                                       ["logger=[comet]"], ["-m", "sweep=cmaes", "lr=interval(0.1,0.2)", "sweep.trials=2"]])  # fmt: skip
def test_a_missing_package_is_refused_at_once(dltrain, own, monkeypatch, arguments):
    monkeypatch.setattr("dltrain.config.declarations.find_spec", lambda name: None)
    for name in ("wandb", "mlflow", "cmaes"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(
        UserError, match=r"`\w+=(\w+)` needs the package (\w+),.*\nInstall it: pip install \2$"
    ) as e:
        dltrain(*arguments, "quiet=true")
    assert e.value.exit_code == 2
    assert not (own / "outputs").exists()


@pytest.mark.ci
def test_a_missing_package_is_refused_without_torch(own):
    script = "import sys\nfrom dltrain.cli import main\ntry:\n    main()\nfinally:\n    print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script, "logger=[comet]"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "False\n"), done.stderr
    assert done.stderr.splitlines()[1] == "Install it: pip install comet_ml"


def test_the_record_is_no_word(dltrain, workdir):
    with pytest.raises(UserError, match=r"metrics.csv is always written; write logger=\[\] for nothing else"):
        dltrain("logger=[csv,tensorboard]")
    assert not (workdir / "outputs").exists()


def test_help_names_the_package_and_the_defaults(dltrain, capsys):
    assert dltrain("logger=[wandb,tensorboard]", "--help") == 0
    page = capsys.readouterr().out
    assert "the package wandb: pip install wandb" in page and "logger.wandb.mode=offline" in page
    assert "logger=tensorboard" in page
    assert dltrain("logger", "--help") == 0
    (default,) = [line for line in capsys.readouterr().out.splitlines() if line.endswith("(default)")]
    assert default.split()[0] == "tensorboard"
