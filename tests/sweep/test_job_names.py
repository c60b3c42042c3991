"""Folders of jobs show the axes, and are found by their number: also those of earlier versions, and of extended sweeps."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from conftest import job_at
from sweeping import sweep_folder

import dltrain as package
from dltrain.storage.index import is_named
from dltrain.storage.job_names import LONGEST, job_folders, job_name, job_number

BRIEF = ("model=linear", "dataset.limit=100", "steps=2", "quiet=true", "threads=1", "sweep.jobs=1")


@pytest.mark.parametrize(
    "values, name",
    [
        ({"optimizer": "adam", "lr": "0.01"}, "7-optimizer=adam,lr=0.01"),
        ({"lr": 0.012345678, "seed": "3"}, "7-lr=0.01235,seed=3"),
        (
            {"model.hidden": "[256,128]", "regularization": "[l2,dropout]"},
            "7-hidden=256+128,regularization=l2+dropout",
        ),
        (
            {"augmentation.flip.p": "1", "augmentation.noise.p": "2"},
            "7-augmentation.flip.p=1,augmentation.noise.p=2",
        ),
        ({"lr,epochs": "0.1,5"}, "7-lr+epochs=0.1+5"),
        ({"dataset.path": "../my data/a:b*.csv"}, "7-path=.._my_data_a_b_.csv"),
        ({"notes": "'ä\n\\ %'"}, "7-notes=_"),
        ({"name": "x-failed-1"}, "7-name=x_failed_1"),
        ({"lr": "-1e-05"}, "7-lr=-1e-05"),
        ({}, "7"),
    ],
)
def test_a_name(values, name):
    assert job_name(7, values) == name
    assert job_number(name) == 7


def test_names_are_short_and_safe_whatever_the_axes():
    values = {f"group{k}.key": "/" * k + "x" * 300 + "\0." for k in range(30)}
    name = job_name(123456789, values)
    assert len(name) <= LONGEST
    assert re.fullmatch(r"[A-Za-z0-9_.,=+-]+", name) and name[-1] not in ".,=+"
    assert job_number(name) == 123456789


@pytest.mark.parametrize(
    "name",
    [
        "3-failed-1",
        "3-lr=0.1-failed-12",
        "x",
        "3x",
        "3-",
        ".3.tmp",
        "3-a=/..",
        "2026-01-31_12-00-00-abcd",
        "²",
    ],
)
def test_other_folders_are_no_jobs(name):
    assert job_number(name) is None


@pytest.mark.ci
def test_a_sweep_of_an_earlier_version_goes_on_in_its_folders(workdir, dltrain):
    assert dltrain("-m", "lr=0.1,0.01,0.001", *BRIEF) == 0
    folder = sweep_folder(workdir)
    shutil.rmtree(job_at(folder, 2))
    for number in (0, 1):
        job_at(folder, number).rename(folder / str(number))
    record = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps(record | {"best": "0"}))
    assert dltrain("verify", folder / "0") == 0
    before = [(folder / name / "summary.json").stat().st_mtime_ns for name in "01"]
    (folder / "1" / "summary.json").unlink()
    assert dltrain("-m", f"sweep.resume={folder}") == 0
    assert [path.name for path in job_folders(folder).values()] == ["0", "1", "2-lr=0.001"]
    assert (folder / "0" / "summary.json").stat().st_mtime_ns == before[0]
    assert len(package.Sweep(folder)) == 3 and package.Sweep(folder).best is not None
    assert dltrain("verify", folder) == 0


@pytest.mark.ci
def test_an_extended_sweep_keeps_the_folders_of_its_jobs(workdir, dltrain):
    assert dltrain("-m", "lr=0.1,0.01", *BRIEF) == 0
    folder = sweep_folder(workdir)
    before = {path: (path / "summary.json").stat().st_mtime_ns for path in job_folders(folder).values()}
    assert dltrain("-m", f"sweep.resume={folder}", "seed=0,1") == 0
    assert [path.name for path in job_folders(folder).values()] == [
        "0-lr=0.1",
        "1-lr=0.01",
        "2-lr=0.1,seed=1",
        "3-lr=0.01,seed=1",
    ]
    assert {path: (path / "summary.json").stat().st_mtime_ns for path in before} == before


def test_the_verbs_find_a_job_by_its_number(workdir, dltrain, capsys):
    assert dltrain("-m", "lr=0.1,0.01", *BRIEF) == 0
    folder = sweep_folder(workdir).relative_to(workdir)
    end = folder.name.rpartition("-")[2]
    capsys.readouterr()
    for text in (f"{end}/1", f"{folder}/1", f"{folder}/1-lr=0.01"):
        assert dltrain("show", text, "--json") == 0
        assert json.loads(capsys.readouterr().out)["path"] == f"{folder}/1-lr=0.01"
        assert dltrain("evaluate", text) == 0
        assert "val" in capsys.readouterr().out
    assert package.load(f"{folder}/1").config.lr == 0.01
    assert dltrain("runs", "--jobs", "run=1", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["runs"]
    assert row["run"] == f"{end}/1"
    # a part of a value names no job
    assert not is_named("n/x-abcd/1-lr=1e-05", "05")
    assert is_named("n/x-abcd/1-lr=1e-05", "abcd/1")
