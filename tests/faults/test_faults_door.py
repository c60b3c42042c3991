"""Rows 34, 36 and 41: whose code runs, and what a saved configuration is. The malicious corpus is test_faults_corpus.py."""

from __future__ import annotations

import logging
import logging.config
import logging.handlers
import os
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import corpus
import pytest
import yaml
from conftest import job_at
from faults import copy_of, cut_run, everything, only_run, swept
from omegaconf import OmegaConf

from dltrain.config import saved
from dltrain.config.compose import compose, open_catalogue, open_hydra
from dltrain.config.hydra_node import FIXED, SHIPPED, check_hydra_node
from dltrain.errors import UserError
from dltrain.run.git import git_state
from dltrain.sweep.reuse import finished_runs

HERE = Path(__file__)

# 36: what a name stands for, and whose code it is -----------------------------------------------------------------


@pytest.mark.parametrize(
    "imported, origin", [("os import system", "posix"), ("torch.hub import load", "torch")]
)
def test_36_alias_in_the_working_folder_is_refused_after_the_import(
    dltrain, workdir, imported, origin, monkeypatch
):
    # of another test
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (workdir / "mine.py").write_text(f"from {imported} as Model\n")
    (workdir / "conf" / "model").mkdir(parents=True)
    (workdir / "conf" / "model" / "evil.yaml").write_text("_target_: mine.Model\n")
    with pytest.raises(
        UserError, match=rf"mine\.Model, which stands for something in {origin}.*\n.*trust=\[{origin}\]"
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


VISITS = (
    "resume",
    "rerun",
    "evaluate",
    "reproduce",
    "verify",
    "predict",
    "export",
    "report",
    "compare",
    "diff",
    "show",
)


# verbs that would build the model
BUILDS = ("resume", "rerun", "evaluate", "predict", "reproduce", "export")


@pytest.mark.parametrize("verb", VISITS)
def test_36_a_name_that_is_refused_opens_the_working_folder_to_no_import(dltrain, workdir, monkeypatch, verb):
    """The files beside the run may be a stranger's, and `torch.py` among them: every import would look there first."""
    run = copy_of(everything()[1], workdir / "run")
    (workdir / "helper.py").write_text("open('hacked', 'w')\ndef f(*a): ...\n")
    content = yaml.safe_load((run.path / "config.yaml").read_text())
    content["model"]["_target_"] = "helper.f"
    (run.path / "config.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(workdir))])
    before = list(sys.path)
    (workdir / "x.csv").write_text("a\n1\n")
    with pytest.raises(UserError) if verb in BUILDS else suppress(UserError) as refused:
        dltrain(verb, "run", *{"compare": ["run"], "diff": ["run"], "predict": ["x.csv"]}.get(verb, []))
    assert verb not in BUILDS or "helper.f" in str(refused.value)
    assert sys.path == before and not (workdir / "hacked").exists()


def test_36_verify_runs_no_torch_of_the_working_folder(workdir):
    """Found in review: the refusal of a name looked for it there, so that `import torch` did, too, and verify passed."""
    run = copy_of(everything()[1], workdir / "run")
    (workdir / "helper.py").write_text("def f(*a): ...\n")
    (workdir / "torch.py").write_text("open('hacked', 'w')\nraise SystemExit\n")
    content = yaml.safe_load((run.path / "config.yaml").read_text())
    content["model"]["_target_"] = "helper.f"
    (run.path / "config.yaml").write_text(yaml.safe_dump(content))
    for command in (["-P", "-m", "dltrain"], ["-m", "dltrain"]):
        done = subprocess.run([sys.executable, *command, "verify", "run"], capture_output=True, text=True)
        assert not (workdir / "hacked").exists() and done.returncode == 10, (command, done)


@pytest.mark.parametrize("name", ["posix.system", "marshal.loads", "zipimport.zipimporter", "torch.hub.load"])
def test_36_a_module_of_python_is_none_of_a_file_of_its_name(dltrain, workdir, name):
    """Built-in and frozen modules have no file: a harmless posix.py in the working folder does not make them the user's."""
    module = workdir.joinpath(*name.split(".")[:-1]).with_suffix(".py")
    module.parent.mkdir(exist_ok=True)
    module.write_text("")
    with pytest.raises(UserError, match="neither in the catalogue nor in the working folder"):
        dltrain(f"model._target_={name}", "steps=1")


def test_36_a_pipe_is_no_module_to_propose(dltrain, workdir):
    os.mkfifo(workdir / "pipe.py")
    (workdir / "mine.py").write_text("class Model: ...\n")
    signal.alarm(60)
    try:
        with pytest.raises(UserError, match="Write `_target_: mine.Model`"):
            dltrain("model._target_=Model", "steps=1")
    finally:
        signal.alarm(0)


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


def test_36_trust_of_a_module_is_not_that_of_a_longer_name(dltrain, workdir):
    """`trust=[tim]` trusts `tim` and what lies in it, and neither `timm` nor `time`."""
    for name in ("timm.create_model", "time.sleep", "timx.f"):
        # of a module that is not there it says just that
        with pytest.raises(UserError, match="neither in the catalogue|there is no module tim[mx] in"):
            dltrain(f"model._target_={name}", "trust=[tim]", "steps=1")
    assert not (workdir / "outputs").exists()


def classes_of_logging() -> list[str]:
    """Every public class and function that `logging` and its modules hold."""
    modules = (logging, logging.handlers, logging.config)
    return sorted(
        {
            f"{m.__name__}.{name}"
            for m in modules
            for name in vars(m)
            if callable(getattr(m, name)) and name[0] != "_"
        }
    )


def test_36_logging_launcher_and_sweeper_are_shipped_files():
    """No class of logging, no launcher and no sweeper is built from a node that dltrain or Hydra does not ship."""
    assert len(classes_of_logging()) > 60
    for text in classes_of_logging():
        for section in ("handlers", "formatters", "filters"):
            for key in ("class", "()"):
                cfg = OmegaConf.create(
                    {"hydra": {"job_logging": {"version": 1, section: {"x": {key: text}}}}}
                )
                with pytest.raises(UserError, match="`hydra.job_logging` cannot be changed"):
                    check_hydra_node(cfg, ["logging"])
    for group in SHIPPED:
        cfg = OmegaConf.create({"hydra": {group: {"_target_": "os.system"}}})
        with pytest.raises(UserError, match=f"`hydra.{group}` cannot be changed"):
            check_hydra_node(cfg, ["os"], lambda name: {"_target_": "other"})


def test_36_what_the_shipped_and_hydra_s_own_files_set_passes():
    """Hydra's own choices of logging, which a user may name, keep to what is checked."""
    catalogue = open_catalogue()
    hydra = open_hydra(catalogue)
    for word in ("default", "stdout", "disabled", "none", "run_log"):
        compose([f"hydra/job_logging={word}"], catalogue, hydra)
    node = OmegaConf.to_container(compose([], catalogue, hydra).cfg.hydra, resolve=False)
    for (*parents, key), (values, _) in FIXED.items():
        parent = node[parents[0]] if parents else node
        assert parent[key] == values[0], "as conf/config.yaml and Hydra have it"


def test_36_no_name_of_ours_passes_as_a_callback(workdir):
    """`dltrain.` was a prefix: it let through whatever our modules import."""
    files = (HERE.parents[2] / "dltrain").rglob("*.py")
    modules = [".".join(file.relative_to(HERE.parents[2]).with_suffix("").parts) for file in files]
    assert len(modules) > 100
    for module in modules:
        for name in (f"{module}.os.system", f"{module}.subprocess.run", f"{module}.write", f"{module}.main"):
            cfg = OmegaConf.create({"hydra": {"callbacks": {"x": {"_target_": name}}}})
            with pytest.raises(UserError, match="which Hydra would import and run"):
                check_hydra_node(cfg, [])


CALLBACK = """
from hydra.experimental.callback import Callback
class Note(Callback):
    def on_run_start(self, config, **keys):
        open('noted', 'w')
"""


def test_36_a_callback_of_one_s_own_runs(dltrain, workdir):
    (workdir / "own_callbacks.py").write_text(CALLBACK)
    (workdir / "conf" / "experiment").mkdir(parents=True)
    recipe = "# @package _global_\nhydra:\n  callbacks:\n    note:\n      _target_: own_callbacks.Note\n"
    (workdir / "conf" / "experiment" / "noted.yaml").write_text(recipe)
    assert dltrain("experiment=noted", "steps=1", "quiet=true") == 0
    assert (workdir / "noted").exists()


# 49: git of a folder from elsewhere -------------------------------------------------------------------------------


@pytest.fixture
def checkout(workdir):
    """A repository with one committed file, whose copy has been touched since."""

    def git(*arguments):
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *arguments], check=True, capture_output=True)

    git("init", "-q")
    (workdir / "file.txt").write_text("a\n")
    git("add", ".")
    git("commit", "-qm", "first")
    os.utime(workdir / "file.txt", (1, 1))  # git must read it to know whether it has changed
    return workdir


def marker(workdir, name) -> str:
    """A program that leaves a file behind."""
    program = workdir / f"{name}.sh"
    program.write_text(f"#!/bin/sh\ntouch {workdir}/hacked\ncat\n")
    program.chmod(0o755)
    return str(program)


GIT_SETTINGS = {
    "fsmonitor": "[core]\n\tfsmonitor = {0}\n",
    "hooks": "[core]\n\thooksPath = {1}\n",
    "filter": '[filter "evil"]\n\tclean = {0}\n\trequired = true\n',
    "process": '[filter "a=b.c"]\n\tprocess = {0}\n',
    "included": "[include]\n\tpath = ../included\n",
    "pager": "[core]\n\tpager = {0}\n[pager]\n\tstatus = true\n",
    "alias": "[alias]\n\tstatus = !{0}\n",
    "external diff": "[diff]\n\texternal = {0}\n[status]\n\tverbose = true\n",
    "lazy fetch": '[core]\n\trepositoryformatversion = 1\n[extensions]\n\tpartialClone = origin\n[remote "origin"]\n'
    "\turl = ext::{0}\n\tpromisor = true\n\tuploadpack = {0}\n[protocol]\n\tallow = always\n",
}


@pytest.mark.parametrize("name", GIT_SETTINGS)
def test_36_git_runs_no_command_of_a_repository(checkout, name):
    program = marker(checkout, "evil")
    (checkout / "hooks").mkdir()
    for hook in ("post-index-change", "fsmonitor-watchman"):
        (checkout / "hooks" / hook).write_text(f"#!/bin/sh\ntouch {checkout}/hacked\n")
        (checkout / "hooks" / hook).chmod(0o755)
    driver = "a=b.c" if name == "process" else "evil"
    (checkout / "included").write_text(
        f'[filter "evil"]\n\tclean = {program}\n[core]\n\tfsmonitor = {program}\n'
    )
    (checkout / ".git" / "info" / "attributes").write_text(f"* filter={driver}\n")
    with open(checkout / ".git" / "config", "a") as config:
        config.write(GIT_SETTINGS[name].format(program, checkout / "hooks"))
    if name == "lazy fetch":  # an object that status needs is missing
        tree = subprocess.run(
            ["git", "rev-parse", "HEAD^{tree}"], capture_output=True, text=True
        ).stdout.strip()
        (checkout / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    state = git_state()
    assert not (checkout / "hacked").exists()
    if name != "lazy fetch":
        assert len(state["commit"]) == 40
        assert state["dirty"] is (None if name in ("filter", "process", "included") else False)


@pytest.mark.parametrize("name", ["fsmonitor", "filter", "hooks"])
def test_36_these_settings_do_run_commands_of_a_plain_git(checkout, name):
    """The test above can fail: without its options the same repository runs its command."""
    test_36_git_runs_no_command_of_a_repository(checkout, name)
    subprocess.run(["git", "status", "--porcelain=v2"], capture_output=True)
    assert (checkout / "hacked").exists()


def test_36_git_gets_a_clean_environment(checkout, monkeypatch):
    program = marker(checkout, "evil")
    for number, (key, value) in enumerate({"core.fsmonitor": program, "filter.x.clean": program}.items()):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "2")
    monkeypatch.setenv("PATH", f".{os.pathsep}{os.environ['PATH']}")
    (checkout / "git").write_text(f"#!/bin/sh\ntouch {checkout}/hacked\n")
    (checkout / "git").chmod(0o755)
    assert git_state()["dirty"] is False
    (checkout / "file.txt").write_text("b\n")
    assert git_state()["dirty"] is True
    assert not (checkout / "hacked").exists()


def test_one_function_runs_other_programs():
    sources = (HERE.parents[2] / "dltrain").rglob("*.py")
    # the second is chosen by the user: sweep.backend=slurm
    assert sorted(f.name for f in sources if "import subprocess" in f.read_text()) == ["git.py", "slurm.py"]


# 47: a sweep of one's own ----------------------------------------------------------------------------------------


@pytest.mark.ci
def test_sweep_of_one_s_own_is_resumed_with_own_code(dltrain, workdir):
    """A word of conf/ needs no ceremony; code that was named on the command line alone is trusted on it again."""
    (workdir / "swept_models.py").write_text(
        OWN
        + "class AnyKeys(Two):\n    def __init__(self, shape, classes, **keys):\n        super().__init__(shape, classes)\n"
    )
    (workdir / "conf" / "model").mkdir(parents=True)
    (workdir / "conf" / "model" / "two.yaml").write_text("_target_: swept_models.Two\nwidth: 8\n")
    for name, texts in (
        ("word", ["model=two"]),
        ("typed", ["model._target_=swept_models.AnyKeys"]),
    ):
        assert dltrain("-m", *texts, "lr=0.01,0.001", "steps=2", "quiet=true", f"name={name}") == 0
        (record,) = workdir.glob(f"outputs/{name}/*/sweep.json")
        shutil.rmtree(job_at(record.parent, 1))
        resume = ("-m", f"sweep.resume={record.parent}")
        if name == "typed":
            with pytest.raises(UserError, match=r"neither in the catalogue.*\n.*trust=\[swept_models\]"):
                dltrain(*resume)
            resume = (*resume, "trust=[swept_models]")
        assert dltrain(*resume) == 0


SPOILED_JOBS = {
    "link": lambda job: (job / "checkpoints" / "more").symlink_to("/etc/passwd"),
    "pipe": lambda job: os.mkfifo(job / "more"),
    "a list": lambda job: (job / "summary.json").write_text("[]"),
    "deep": lambda job: (job / "summary.json").write_text("[" * 100_000),
    "versions": lambda job: (job / "summary.json").write_text('{"versions": {"dltrain": 1, "torch": 2}}'),
    "bomb": lambda job: (job / "config.yaml").write_text(corpus.BOMB),
    "no configuration": lambda job: (job / "config.yaml").write_text("[1]"),
}


@pytest.mark.parametrize("name", SPOILED_JOBS)
def test_37_spoiled_runs_of_other_sweeps_are_not_reused(workdir, name):
    """`sweep.reuse` looks at every sweep below `output`: the run that was spoiled is passed over, the other is found."""
    folder = copy_of(swept(), workdir / "outputs" / "name" / "sweep").path
    assert len(list(finished_runs(workdir / "outputs"))) == 2
    SPOILED_JOBS[name](job_at(folder, 0))
    assert [path for _, path in finished_runs(workdir / "outputs")] == [job_at(folder, 1)]


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


def test_41_a_change_that_is_no_yaml_is_refused(dltrain, workdir):
    """`dltrain rerun RUN notes='a: b: c'` ended in a traceback of PyYAML's scanner; the cure works as it is printed."""
    run = copy_of(everything()[1], workdir / "run")
    for text in ("notes=a: b: c", "notes=[x", "notes=" + "[" * 10_000, "notes=it's: *x"):
        with pytest.raises(UserError, match="its value is not YAML") as refusal:
            dltrain("rerun", run.path, text)
        cure = str(refusal.value).split("Quote it: ")[1]
    (typed,) = shlex.split(cure)
    assert saved.read(run.path, open_catalogue(), [typed]).notes == "it's: *x"


ASKING = (
    "notes=x-${oc.env:TOKEN}-y",
    "tags=[a,'${oc.env:TOKEN}','${notes}']",
    "+parameters.lr_scale={layers.0:'${oc.decode:${oc.env:FACTOR}}'}",
)


def holding(folder: Path, *texts: bytes) -> list[str]:
    files = [f for f in folder.rglob("*") if f.is_file()]
    return [str(f.relative_to(folder)) for f in files if any(text in f.read_bytes() for text in texts)]


def test_41_secrets_in_lists_links_and_parts_of_texts(dltrain, workdir, monkeypatch):
    """Whatever depends on the environment is saved as what asks for it, in every file, also of a second run."""
    monkeypatch.setenv("TOKEN", "s3cr3t-value")
    monkeypatch.setenv("FACTOR", "0.5077731")
    assert dltrain(*ASKING, "steps=2", "quiet=true", "name=first") == 0
    first = only_run(workdir, "first")
    content = yaml.safe_load((first.path / "config.yaml").read_text())
    assert content["notes"] == "x-${oc.env:TOKEN}-y"
    assert content["tags"] == ["a", "${oc.env:TOKEN}", "x-${oc.env:TOKEN}-y"]
    assert first.summary["tags"] == content["tags"]
    assert dltrain("rerun", first.path, "name=second") == 0
    assert dltrain("evaluate", first.path) == 0
    second = only_run(workdir, "second")
    assert yaml.safe_load((second.path / "config.yaml").read_text())["tags"] == content["tags"]
    assert dltrain("-m", *ASKING, "lr=0.01,0.001", "steps=2", "quiet=true", "name=swept") == 0
    assert len(list(workdir.rglob("summary.json"))) == 4
    assert holding(workdir, b"s3cr3t", b"0.5077731") == []


def test_41_secrets_of_an_axis_in_a_file(dltrain, workdir, monkeypatch):
    monkeypatch.setenv("TOKEN", "s3cr3t-value")
    (workdir / "conf" / "sweep").mkdir(parents=True)
    (workdir / "conf" / "sweep" / "mine.yaml").write_text(
        'defaults: [grid, _self_]\nspace:\n  notes: ["${oc.env:TOKEN}", b]\n  tags: [["${oc.env:TOKEN}"], [c]]\n  lr: [0.1, 0.01]\n'
        "zip: [notes, tags, lr]\n"
    )
    assert dltrain("-m", "sweep=mine", "steps=1", "quiet=true", "name=swept") == 0
    assert len(list(workdir.rglob("summary.json"))) == 2
    assert holding(workdir, b"s3cr3t") == []


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
