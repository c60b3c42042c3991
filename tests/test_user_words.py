"""A user's own words and code: found without ceremony, checked like ours, and kept apart from code from elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from conftest import Run, run_folders

from dltrain.errors import UserError

MODELS = """
from math import prod
from torch import nn

class TwoLayers(nn.Sequential):
    def __init__(self, input_shape, num_classes, width=64):
        layers = nn.Linear(prod(input_shape), width), nn.ReLU(), nn.Linear(width, num_classes)
        super().__init__(nn.Flatten(), *layers)
"""
DATA = """
import torch
from dltrain.data.raw import RawData

def parity(count=200) -> RawData:
    numbers = torch.arange(count)
    bits = (numbers[:, None] >> torch.arange(8)) % 2
    return RawData(bits.float(), numbers % 2, "classification", class_names=("even", "odd"))
"""


@pytest.fixture(autouse=True)
def _forget_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has code of its own under the same names."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("my_models", "my_data", "elsewhere"):
        sys.modules.pop(name, None)


@pytest.fixture
def own(workdir):
    """Write files of the user's: path → text."""
    (workdir / "my_models.py").write_text(MODELS)
    (workdir / "my_data.py").write_text(DATA)

    def write(name: str, text: str) -> Path:
        file = workdir / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return write


def only_run(workdir):
    (folder,) = run_folders(workdir)
    return Run(folder)


def refused(dltrain, workdir, *arguments):
    """The message of a refusal, which leaves no folder behind."""
    with pytest.raises(UserError) as error:
        dltrain(*arguments, "steps=2", "quiet=true")
    assert error.value.exit_code == 2
    assert not (workdir / "outputs").exists()
    message = str(error.value)
    assert len(message.splitlines()) <= 3
    return message


def test_a_model_of_ones_own(dltrain, workdir, own, capsys):
    own("conf/model/two_layers.yaml", "_target_: my_models.TwoLayers\nwidth: 64\n")
    assert dltrain("model=two_layers", "model.width=8", "epochs=2", "quiet=true") == 0
    run = only_run(workdir)
    assert run.summary["parameters"] == 64 * 8 + 8 + 8 * 10 + 10
    assert dltrain("evaluate", run.path) == 0
    assert dltrain("rerun", run.path, "model.width=4", "quiet=true") == 0
    capsys.readouterr()
    assert dltrain("--help") == 0
    assert " two_layers" in capsys.readouterr().out
    assert dltrain("model=two_layers", "--help") == 0
    assert "model.width=64" in capsys.readouterr().out


def test_a_folder_of_words_by_config_dir(dltrain, workdir, own, capsys):
    own("my words/model/two_layers.yaml", "_target_: my_models.TwoLayers\nwidth: 64\n")
    for option in (["--config-dir", "my words"], ["-cd", "my words"], ["--config-dir=my words"]):
        assert dltrain(*option, "model=two_layers", "steps=2", "quiet=true") == 0
        assert dltrain(*option, "--help") == 0
        assert " two_layers" in capsys.readouterr().out
    assert "no such word" in refused_after(dltrain, "model=two_layers")


def refused_after(dltrain, *arguments):
    with pytest.raises(UserError) as error:
        dltrain(*arguments)
    return str(error.value)


def test_a_dataset_of_ones_own(dltrain, workdir, own):
    own("conf/dataset/parity.yaml", "_target_: my_data.parity\ncount: 200\n")
    assert (
        dltrain("dataset=parity", "dataset.count=100", "dataset.val_fraction=0.2", "lr=0.01", "quiet=true")
        == 0
    )
    run = only_run(workdir)
    assert run.summary["test"]["accuracy"] == 1
    config = yaml.safe_load((run.path / "config.yaml").read_text())["dataset"]
    assert (config["count"], config["val_fraction"]) == (100, 0.2)


@pytest.mark.parametrize("defaults", ["defaults: [csv]", "defaults:\n  - csv\n  - _self_"])
def test_a_word_that_inherits_takes_all_keys_of_its_parent(dltrain, workdir, own, defaults):
    rows = "\n".join(f"{i},{i % 7},{'even' if i % 2 == 0 else 'odd'}" for i in range(200))
    own("table.csv", "a,b,parity\n" + rows + "\n")
    own("conf/dataset/table.yaml", f"# Mine.\n{defaults}\npath: table.csv\ntarget: parity\n")
    assert dltrain("dataset=table", "dataset.features=[b]", "steps=2", "quiet=true") == 0
    config = yaml.safe_load((only_run(workdir).path / "config.yaml").read_text())["dataset"]
    assert (config["features"], config["target"], config["delimiter"]) == (["b"], "parity", "auto")


def test_an_experiment_of_ones_own(dltrain, workdir, own):
    own("conf/model/two_layers.yaml", "_target_: my_models.TwoLayers\nwidth: 64\n")
    own("conf/experiment/mine.yaml",
        "# @package _global_\n# Mine.\ndefaults:\n  - override /model: two_layers\nmodel:\n  width: 3\nepochs: 2\n")  # fmt: skip
    assert dltrain("experiment=mine", "quiet=true") == 0
    assert only_run(workdir).summary["parameters"] == 64 * 3 + 3 + 3 * 10 + 10


def test_a_word_of_ones_own_in_a_sweep(dltrain, workdir, own):
    own("conf/model/two_layers.yaml", "_target_: my_models.TwoLayers\nwidth: 64\n")
    assert dltrain("-m", "model=mlp,two_layers", "steps=2", "quiet=true") == 0
    assert len(run_folders(workdir)) == 2


def test_a_word_that_exists_twice_is_refused_with_both_paths(dltrain, workdir, own):
    from dltrain.config.search_path import catalogue_dir

    file = own("conf/optimizer/adam.yaml", "_target_: torch.optim.Adam\n")
    message = refused(dltrain, workdir)
    assert "`optimizer=adam` exists twice" in message
    assert str(file) in message
    assert str(catalogue_dir() / "optimizer" / "adam.yaml") in message
    file.rename(file.with_name("my_adam.yaml"))  # the cure
    assert dltrain("optimizer=adam", "steps=2", "quiet=true") == 0


MISSPELT = {
    "a user's own target": (
        "conf/model/mine.yaml", "_target_: my_models.TwoLayers\nwitdh: 64\n", ["model=mine"],
        "conf/model/mine.yaml, line 2) is no key of model=mine. Did you mean `model.width`?"),
    "a target of ours": (
        "conf/optimizer/mine.yaml", "_target_: torch.optim.Adam\nbetsa: [0.9, 0.99]\n", ["optimizer=mine"],
        "conf/optimizer/mine.yaml, line 2) is no key of optimizer=mine. Did you mean `optimizer.betas`?"),
    "an experiment's key": (
        "conf/experiment/mine.yaml", "# @package _global_\nmodel:\n  hiden: [3]\n", ["experiment=mine"],
        "conf/experiment/mine.yaml, line 3) is no key of model=mlp. Did you mean `model.hidden`?"),
    "an experiment's knob": (
        "conf/experiment/mine.yaml", "# @package _global_\nepoch: 3\n", ["experiment=mine"],
        "conf/experiment/mine.yaml, line 2) is neither a knob nor a group. Did you mean `epochs`?"),
    "an experiment's word": (
        "conf/experiment/mine.yaml", "# @package _global_\ndefaults:\n  - override /optimizer: adamm\n", ["experiment=mine"],
        "conf/experiment/mine.yaml, line 3: `override /optimizer: adamm`: there is no such word of optimizer. Did you mean `adam`?"),
    "an experiment's value": (
        "conf/experiment/mine.yaml", "# @package _global_\nlr: -3\n", ["experiment=mine"],
        "`lr` is -3; it must be: float > 0"),
    "a dataset's common key": (
        "conf/dataset/mine.yaml", "_target_: my_data.parity\nval_fracton: 0.2\n", ["dataset=mine"],
        "conf/dataset/mine.yaml, line 2) is no key of dataset=mine. Did you mean `dataset.val_fraction`?"),
    "a key of an inheriting word": (
        "conf/dataset/mine.yaml", "defaults: [digits]\nspilt_seed: 3\n", ["dataset=mine"],
        "conf/dataset/mine.yaml, line 2) is no key of dataset=mine. Did you mean `dataset.split_seed`?"),
    "a value of an inheriting word": (
        "conf/optimizer/mine.yaml", "defaults:\n  - adam  # and slower\n  - _self_\neps: -1\n", ["optimizer=mine"],
        "`optimizer.eps` is -1; it must be: float > 0"),
    "a module": (
        "conf/model/mine.yaml", "_target_: my_model.TwoLayers\n", ["model=mine"],
        "`model._target_` is my_model.TwoLayers, and there is no module my_model in "),
    "a class": (
        "conf/model/mine.yaml", "_target_: my_models.TwoLayer\n", ["model=mine"],
        "`model._target_` is my_models.TwoLayer, which cannot be imported"),
    "no target": ("conf/model/mine.yaml", "width: 3\n", ["model=mine"],
                  "mine.yaml names nothing to build: it has no `_target_`. Write `_target_: module.ClassOrFunction`"),
    "no YAML": ("conf/model/mine.yaml", "width: [3\n", ["model=mine"], "conf/model/mine.yaml, line 2: this is not YAML: "),
}  # fmt: skip


@pytest.mark.parametrize("file, text, arguments, says", MISSPELT.values(), ids=MISSPELT)
def test_a_mistake_in_a_users_file(dltrain, workdir, own, file, text, arguments, says):
    own(file, text)
    assert says in refused(dltrain, workdir, *arguments)


def test_code_from_elsewhere_needs_trust(dltrain, workdir, own, tmp_path_factory, monkeypatch):
    there = tmp_path_factory.mktemp("there")
    (there / "elsewhere.py").write_text(MODELS + "\nopen('touched', 'w').close()\n")
    monkeypatch.syspath_prepend(there)
    own("conf/model/foreign.yaml", "_target_: elsewhere.TwoLayers\nwidth: 8\n")
    message = refused(dltrain, workdir, "model=foreign")
    assert "which is neither in the catalogue nor in the working folder" in message
    assert "trust=[elsewhere]" in message
    assert not (workdir / "touched").exists(), "it was imported before it was trusted"
    assert dltrain("model=foreign", "trust=[elsewhere]", "steps=2", "quiet=true") == 0


@pytest.mark.parametrize(
    "target", ["os.system", "builtins.eval", "torch._inductor.codecache.PyCodeCache.load", "subprocess.Popen"]
)
def test_a_target_that_runs_commands_is_refused(dltrain, workdir, own, target):
    own("conf/model/evil.yaml", f"_target_: {target}\n")
    assert f"`model._target_` is {target}" in refused(dltrain, workdir, "model=evil")


def test_a_run_with_words_of_another_folder_is_scored_repeated_and_resumed(dltrain, workdir, own, train):
    own("words/model/two_layers.yaml", "_target_: my_models.TwoLayers\nwidth: 8\n")
    own("words/experiment/small.yaml", "defaults:\n  - override /model: two_layers\nsteps: 2\n")
    run = train("--config-dir=words", "experiment=small")
    with pytest.raises(
        UserError, match=r"model=two_layers, and there is no such word now.*\n.*--config-dir FOLDER"
    ):
        dltrain("evaluate", run.path)
    for verb in ("evaluate", "rerun"):
        assert dltrain(verb, run.path, "--config-dir", "words") == 0
        assert dltrain(verb, "--config-dir=words", run.path) == 0
    (workdir / "words" / "experiment" / "small.yaml").unlink()  # what a recipe set is written out
    assert dltrain("evaluate", run.path, "-cd", "words") == 0
    assert dltrain("rerun", run.path, "-cd", "words", "quiet=true") == 0
