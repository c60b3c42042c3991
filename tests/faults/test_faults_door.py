"""Rows 34, 36 and 41: whose code runs, and what a saved configuration is. The malicious corpus is test_faults_corpus.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from faults import copy_of, cut_run, everything, only_run

from dltrain.errors import UserError

HERE = Path(__file__)

# 36: what a name stands for, and whose code it is -----------------------------------------------------------------


def test_36_alias_in_the_working_folder_is_refused_after_the_import(dltrain, workdir):
    (workdir / "mine.py").write_text("from os import system as Model\n")
    (workdir / "conf" / "model").mkdir(parents=True)
    (workdir / "conf" / "model" / "evil.yaml").write_text("_target_: mine.Model\n")
    with pytest.raises(
        UserError, match=r"mine\.Model, which stands for something in posix.*\n.*trust=\[posix\]"
    ):
        dltrain("model=evil")
    del sys.modules["mine"]


@pytest.mark.parametrize("verb", ["resume", "rerun", "evaluate"])
def test_36_trust_of_a_stranger_s_file_holds_for_nothing(dltrain, workdir, verb):
    """Found in review: config.yaml could name os.system, and in the line above say that it is trusted."""
    run = copy_of(everything()[1], workdir / "run")
    (workdir / "helper.py").write_text("open('hacked', 'w')\ndef f(*a): ...\n")
    content = yaml.safe_load((run.path / "config.yaml").read_text())
    content["model"]["_target_"], content["trust"] = "helper.f", ["helper"]
    (run.path / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"neither in the catalogue.*\n.*trust=\[helper\]"):
        dltrain(verb, run.path)
    assert not (workdir / "hacked").exists()


def test_36_trust_is_no_word_of_a_file(dltrain, workdir):
    (workdir / "conf" / "experiment").mkdir(parents=True)
    (workdir / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\ntrust: [os]\n")
    for sweep in ((), ("-m", "seed=0,1")):
        with pytest.raises(UserError, match=r"it holds on the command line only.\n.*trust=\[os\]"):
            dltrain(*sweep, "experiment=mine")


def test_36_trusted_run_is_resumed_without_ceremony(dltrain, workdir, tmp_path_factory, monkeypatch):
    """The trust that was given on the command line is kept for what a word of the user's own names."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "far_models.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(elsewhere))
    (workdir / "conf" / "model").mkdir(parents=True)
    (workdir / "conf" / "model" / "two.yaml").write_text("_target_: far_models.Two\nwidth: 8\n")
    run = cut_run(workdir, 30, "model=two", "epochs=2", "quiet=true", "trust=[far_models]")
    assert dltrain("resume", run.path) == 0
    (workdir / "conf" / "model" / "two.yaml").write_text("_target_: far_models.Other\nwidth: 8\n")
    with pytest.raises(UserError, match="neither in the catalogue"):
        dltrain("rerun", run.path)
    assert dltrain("rerun", run.path, "trust=[far_models]", "steps=2") == 0


OWN = """
import torch
class Two(torch.nn.Module):
    def __init__(self, input_shape, num_classes, width=8):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.Linear(width, num_classes))
    def forward(self, x):
        return self.layers(x)
"""


def test_honest_user_is_not_in_the_way(dltrain, workdir):
    """One YAML file and no ceremony; such a run resumes and is repeated like any other."""
    (workdir / "own_models.py").write_text(OWN)
    (workdir / "conf" / "model").mkdir(parents=True)
    (workdir / "conf" / "model" / "two.yaml").write_text("_target_: own_models.Two\nwidth: 8\n")
    run = cut_run(workdir, 30, "model=two", "model.width=16", "epochs=2", "quiet=true")
    assert dltrain("resume", run.path) == 0
    assert dltrain("rerun", run.path, "output=again") == 0
    assert dltrain("evaluate", run.path) == 0


# 40: tests/test_refusals.py; 41: ----------------------------------------------------------------------------------


def test_41_saved_config_repeats_the_run_and_holds_no_secret(dltrain, workdir, monkeypatch):
    from conftest import assert_equal

    monkeypatch.setenv("TOKEN", "s3cr3t-value")
    arguments = ("notes=${oc.env:TOKEN}", "tags=[a]", "epochs=2", "quiet=true")
    assert dltrain(*arguments, "name=first") == 0
    first = only_run(workdir, "first")
    assert "${oc.env:TOKEN}" in (first.path / "config.yaml").read_text()
    for file in (f for f in first.path.rglob("*") if f.is_file()):
        assert b"s3cr3t" not in file.read_bytes(), file
    assert dltrain("rerun", first.path, "name=second") == 0
    second = only_run(workdir, "second")
    assert_equal(first.best_weights, second.best_weights)
    assert_equal(first.timeless_rows, second.timeless_rows)
    monkeypatch.delenv("TOKEN")
    with pytest.raises(UserError, match=r"`notes` is \$\{oc\.env:TOKEN\}"):
        dltrain("rerun", first.path)


ENVIRONMENTS = [
    {"PYTHONHASHSEED": "1"},
    {"PYTHONHASHSEED": "99"},
    {"LC_ALL": "tr_TR.UTF-8"},
    {"LC_ALL": "de_DE.UTF-8"},
    {"TZ": "Asia/Tokyo"},
]


@pytest.mark.slow
def test_34_hash_seed_locale_time_zone_and_folder_change_nothing(workdir):
    runs = []
    for i, environment in enumerate(ENVIRONMENTS):
        folder = workdir / f"ein Ordner {i} ü"
        folder.mkdir()
        command = [
            sys.executable,
            "-m",
            "dltrain",
            "epochs=3",
            "augmentation=[shift]",
            "regularization=[dropout]",
            "name=x",
            "quiet=true",
        ]
        subprocess.run(command, env={**os.environ, **environment}, cwd=folder, check=True)
        runs.append(only_run(folder, "x"))
    assert all(run.timeless_rows == runs[0].timeless_rows for run in runs)


def test_archives_are_read_and_not_extracted():
    """Row 39's archives and downloads are tests/data/test_data_downloaded.py; no code of ours extracts."""
    sources = (HERE.parents[2] / "dltrain").rglob("*.py")
    assert not [
        file for file in sources if "extractall" in file.read_text() or "unpack_archive" in file.read_text()
    ]


def test_fixture_is_small():
    files = (HERE.parents[1] / "fixtures").rglob("*")
    assert sum(file.stat().st_size for file in files if file.is_file()) < 50_000
