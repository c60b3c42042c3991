"""A run whose training loss has grown: it is called diverged, and no table ranks it first, whatever its val/loss."""

from __future__ import annotations

import csv
import json
import math
import re
from types import SimpleNamespace

import pytest
import torch
from conftest import run_folders
from runs.made import make_run

from dltrain.cli import dispatch
from dltrain.commands.compare import members_of
from dltrain.commands.configurations import configurations_of, objective_of
from dltrain.commands.runs import listed
from dltrain.errors import CheckpointProblem, NumericalFailure
from dltrain.storage.index import Index
from dltrain.sweep.outcome.comparison import compare
from dltrain.training.state import State
from dltrain.training.trainer import Trainer

# 12 samples of validation: an exploded model gets them right in some epoch, with val/loss 0
LUCKY = ("dataset=iris", "optimizer=adam", "lr=1e6", "quiet=true")


def test_a_run_with_val_loss_0_and_an_exploded_training_loss_diverged(dltrain, workdir):
    with pytest.raises(NumericalFailure) as raised:
        dltrain(*LUCKY, "steps=60")
    first, second = str(raised.value).splitlines()
    grown = r"train/loss is \d\S*e\+\d\d at the best evaluation, and was 1\.\d* in the first batch"
    assert re.fullmatch(rf"The run diverged: {grown}\.", first)
    assert second == (
        "Most often lr is too large. Try a tenth of it, or regularization=[gradient_clipping]; `dltrain find-lr` compares several."
    )
    (folder,) = run_folders(workdir)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["objective"]) == ("diverged", 0.0)
    assert re.fullmatch(grown, summary["stop_reason"])
    assert (folder / "checkpoints" / "best.safetensors").is_file()


def test_a_hundredfold_loss_diverged_only_if_the_validation_loss_contradicts_it():
    trainer = Trainer.__new__(Trainer)
    trainer.parts, trainer.state = SimpleNamespace(objective="loss"), State(first_loss=torch.tensor(2.0))
    for train_loss, val_loss, grown in (
        (201.0, 0.1, True),
        (199.0, 0.1, False),
        (1999.0, 5.0, False),
        (2001.0, 5.0, True),
        (math.nan, 0.1, False),
    ):
        row = {"train/loss": train_loss, "val/loss": val_loss}
        assert bool(trainer.grown_loss(row)) is grown
        assert not trainer.grown_loss({"train/mae": train_loss})
    trainer.state.first_loss = torch.tensor(1e-9)
    assert not trainer.grown_loss({"train/loss": 0.5, "val/loss": 0.5})
    trainer.state.first_loss = None
    assert not trainer.grown_loss({"train/loss": 1e30, "val/loss": 0.0})


def test_a_resumed_run_knows_the_loss_of_its_first_batch(dltrain, workdir, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "end", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            dltrain(*LUCKY, "steps=60", "checkpoint.every_steps=1")
    (folder,) = run_folders(workdir)
    with pytest.raises(NumericalFailure, match="The run diverged"):
        dispatch(["resume", str(folder)])


def test_a_loss_that_begins_high_and_falls_has_not_diverged(train):
    run = train("initializer=normal", "initializer.std=2", "epochs=1", "metrics=[]", "quiet=true")
    assert run.rows[0]["train/loss"] > 1000
    assert run.summary["status"] == "completed"


def test_find_lr_does_not_take_a_rate_that_diverged(capsys):
    options = ["--from", "1e-3", "--to", "1e6", "--points", "2", "--steps", "4", "--json"]
    dispatch(["find-lr", "dataset=iris", "optimizer=adam", *options])
    said = json.loads(capsys.readouterr().out)
    assert (said["trials"][1]["loss"], said["best"]) == (None, 1e-3)


@pytest.fixture
def runs(tmp_path):
    """Return a folder with a run that is whole, and one that diverged with a lower val/loss."""
    make_run(tmp_path / "n" / "2026-01-01_12-00-00-0001", 0.5, {"lr": 0.001})
    make_run(tmp_path / "n" / "2026-01-01_12-00-00-0002", 0.0, {"lr": 9.0}, status="diverged")
    return tmp_path


def test_runs_puts_it_last(runs):
    for sort in ("objective", "val/loss", "-val/accuracy"):
        assert [row.label for row in listed(runs, sort=sort).rows] == ["0001", "0002"]


def test_compare_leaves_it_out(runs):
    whole, lost = members_of(sorted((runs / "n").iterdir()))
    found = compare([lost, whole])
    assert [group.members for group in found.groups] == [[whole]]
    assert found.notes == ["0002 is left out: it diverged"]
    with pytest.raises(CheckpointProblem, match="This run does not have a score"):
        compare([lost])


def test_the_configurations_of_a_sweep_put_it_last(runs):
    entries = Index(runs, cached=False).entries
    assert [objective_of(one.jobs[0]) for one in configurations_of(entries)] == [0.5, None]


@pytest.mark.parametrize("backend", ["local", "stacked"])
def test_a_sweep_counts_it_as_failed(dltrain, workdir, capsys, backend):
    code = dltrain("-m", *LUCKY[:2], "lr=1e6,1e-2", "steps=24", "early_stopping=none", "logger=[]", f"sweep.backend={backend}")  # fmt: skip
    assert code == 7
    (results,) = workdir.glob("outputs/*/*/results.csv")
    with results.open(newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["diverged", "completed"]
    assert "lr: 0.01" in results.with_name("best.yaml").read_text()
