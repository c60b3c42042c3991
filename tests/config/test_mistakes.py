"""Mistakes of somebody who does not know the program: each message names file, line, key and rule, and its cure works as typed."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from dltrain.commands.resume import split_arguments
from dltrain.config.compose import compose, open_catalogue, open_hydra
from dltrain.config.validation import validate
from dltrain.errors import UserError

MISTAKES = {  # what is typed → what the message says; what follows `Write` in it is typed afterwards
    "model.hidden=64,32": "add -m: dltrain -m model.hidden=64,32\nFor one list, write 'model.hidden=[64,32]'",
    "augmentation=shift,mixup": "For one list, write 'augmentation=[shift,mixup]'",
    "notes=a, b": "For a text, write 'notes=\"a, b\"'",
    "notes=it's": "For a text, write 'notes=\"it'\"'\"'s\"'",
    "model.hidden=[64,32": "`]` is missing at its end. Write 'model.hidden=[64,32]'",
    "model.hidden=[64,32)": "Close every bracket by its own kind",
    "lr=logg(0.1)": "cannot be read: there is no logg.",
    "seed=rang(0,3)": "cannot be read: there is no rang. Did you mean `range`?",
    "device=gpu": "Did you mean `cuda`?",
    "optimizer=AdamW": "Did you mean `adamw`?",
    "optimizer=schedule-free": "Did you mean `schedule_free`?",
    "lr:0.1": "`lr:0.1` is not `key=value`. Write lr=0.1.",
    "train": "`train` is not `key=value`. Training has no verb: dltrain.",
    "trian": "Training has no verb: dltrain.",
    "optimizer@foo=adam": "without `@`. Write optimizer=adam",
    "+optimizer@foo=adam": "without `+`. Write optimizer=adam",
    "++optimizer=sgd": "without `+`. Write optimizer=sgd",
    "+experiment=tabular": "without `+`. Write experiment=tabular",
    "+regularization=[l2]": "without `+`. Write regularization=[l2]",
    "hydra.sweeper.n_trials=3": "Write -m sweep=tpe sweep.trials=3",
    "+hydra.sweeper.n_trials=3": "Write -m sweep=tpe sweep.trials=3",
    "hydra.searchpath=[file:///tmp]": "Give one folder: --config-dir FOLDER",
    "~optimizer.betas": "a key cannot be deleted. Leave it out: optimizer.betas has its default then",
    "~lr": "a key cannot be deleted.",
    "learning_rate=0.1": "`learning_rate` is neither a knob nor a group. Write lr=0.1.",
    "max_epochs=3": "Write epochs=3.",
    "momentum=0.9": "Write optimizer=momentum optimizer.momentum=0.9.",
    "weight_decay=1e-4": "Write optimizer.weight_decay=1e-4, or regularization=[weight_decay].",
    "dropout=0.5": "Write model.dropout=0.5, or regularization=[dropout].",
    "betas=[0.8,0.9]": "Write optimizer.betas=[0.8,0.9].",
    "patience=3": "Write early_stopping.patience=3, or schedule=plateau schedule.patience=3.",
    "hidden=[8]": "Write model.hidden=[8], or dataset=teacher dataset.hidden=[8].",
    "l2=0.1": "Write regularization=[l2].",
    "scheduler=cosine": "Write schedule=cosine.",
    "epoch=3": "Did you mean `epochs`?",
    "predict": "`predict` is not `key=value`.",
    "optimizer=adma": "Did you mean `adam`?",
    "tags=x": "Write tags=[x]",
    "name=2024": "Write 'name=\"2024\"'",
    "notes=5": "Write 'notes=\"5\"'",
    "notes=true": "Write 'notes=\"true\"'",
    "lr='0.1'": "`lr` is 0.1 (the text '0.1'); it must be: float > 0 or auto or null.",
    f"name={'n' * 300}": "`name` has a part of more than 200 bytes",
    "regularization=l2": None,  # one word of several needs no brackets
    "~optimizer": "`~optimizer`: a group cannot be deleted. Write optimizer=WORD",
    "~schedule": "Write schedule=none",
    "~wrap": "Write wrap=none or wrap=[]",
}


def test_a_key_of_another_word_is_no_misspelling(workdir):
    with pytest.raises(UserError, match="`optimizer.betas` is no key of optimizer=sgd.\nKeys"):
        composed("optimizer=sgd", "optimizer.betas=[0.9,0.9]")


def composed(*overrides: str, name: str = "config"):
    catalogue = open_catalogue()
    return validate(compose(list(overrides), catalogue, open_hydra(catalogue), name))


@pytest.mark.parametrize("typed, says", MISTAKES.items(), ids=[k[:40] for k in MISTAKES])
def test_a_mistake_on_the_command_line(workdir, typed, says):
    if says is None:
        composed(typed)
        return
    with pytest.raises(UserError) as error:
        composed(typed)
    message = str(error.value)
    assert says in message
    assert len(message.splitlines()) <= 3
    for cure in re.findall(r"[Ww]rite (.*?)(?:, or |\.? `dltrain|\.$|\n|$)", message):
        if "=" in cure and "WORD" not in cure and " or " not in cure:
            # as bash would split it
            composed(*(word for word in shlex.split(cure.rstrip(".")) if word != "-m"))
    assert list(workdir.iterdir()) == []


FILES = {  # file and text; what is typed; what the message says
    "a word in a defaults list": ("experiment/r.yaml", "# Mine.\ndefaults:\n  - override /model: mlp\n  - override /optimizer: adamm\n",
                                  "experiment=r", r"r.yaml, line 4: `override /optimizer: adamm`: .* Did you mean `adam`\?"),
    "a word in a list of a defaults list": ("experiment/r.yaml", "defaults:\n  - override /regularization:\n      - l2\n      - dropuot\n",
                                            "experiment=r", r"r.yaml, line 4: .* Did you mean `dropout`\?"),
    "a group in a defaults list": ("experiment/r.yaml", "defaults:\n  - override /optimiser: adam\n", "experiment=r",
                                   r"r.yaml, line 2: `override /optimiser` names no group. Did you mean `optimizer`\?"),
    "a parent word": ("optimizer/o.yaml", "defaults:\n  - adma\nlr: 0.1\n", "optimizer=o", r"o.yaml, line 2: `adma`: .* Did you mean `adam`\?"),
    "a key of a recipe": ("experiment/r.yaml", "epochs: 3\nmodel:\n  hiden: [3]\n", "experiment=r",
                          r"r.yaml, line 3\) is no key of model=mlp. Did you mean `model.hidden`\?"),
    "a knob of a recipe": ("experiment/r.yaml", "epoch: 3\n", "experiment=r",
                           r"`epoch` \(.*r.yaml, line 1\) is neither a knob nor a group. Did you mean `epochs`\?"),
    "a value of a recipe": ("experiment/r.yaml", "epochs: none\n", "experiment=r", r"`epochs` is none; it must be: int >= 1 or null"),
    "a configuration of one's own": ("config.yaml", "lr: 0.1\n", "lr=0.2", r"config.yaml would not be read.*\nMove .*experiment=NAME"),
    "Hydra's node in a recipe": ("experiment/r.yaml", "hydra:\n  run:\n    dir: x\n", "experiment=r",
                               r"r.yaml, line 2: `hydra.run` cannot be set in a file: .*\nWrite output=FOLDER or name=NAME"),
    "another key of Hydra's in a recipe": ("experiment/r.yaml", "hydra:\n  verbose: true\n", "experiment=r",
                                           r"r.yaml, line 2: `hydra.verbose` cannot be set in a file"),
    "a model that would not be built": ("model/m.yaml", "_target_: dltrain.models.mlp.mlp\n_partial_: true\n", "model=m",
                                         r"`model._partial_` is True, .* Leave `_partial_` out"),
    "a penalty that would not be built": ("regularization/m.yaml", "_target_: dltrain.regularization.penalties.L2\n_partial_: true\n",
                                           "regularization=[l1,m]", r"`regularization.m._partial_` is True"),
    "a target": ("model/m.yaml", "_target_: mine.Nett\n", "model=m", None),
}  # fmt: skip


@pytest.mark.parametrize("file, text, typed, says", FILES.values(), ids=FILES)
def test_a_mistake_in_a_file(workdir, file, text, typed, says):
    path = workdir / "conf" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    if says is None:  # the configuration cannot tell: building does
        composed(typed)
        return
    with pytest.raises(UserError) as error:
        composed(typed)
    assert re.search(says, str(error.value)), str(error.value)
    assert len(str(error.value).splitlines()) <= 3


def test_a_value_from_the_environment_is_not_shown(workdir, monkeypatch):
    monkeypatch.setenv("SECRET", "s3cr3t")
    with pytest.raises(UserError) as error:
        composed("lr=${oc.env:SECRET}")
    assert str(error.value).startswith(
        '`lr` is the text of ${oc.env:SECRET}; it must be: float > 0 or auto or null. To let the shell put it in: lr="$SECRET"'
    )
    for typed in ("tags=[x,{a:'${oc.env:SECRET}'}]", "hydra.job.env_set={A:'${oc.env:SECRET}'}"):
        with pytest.raises(UserError) as error:
            composed(typed)
        assert "s3cr3t" not in str(error.value)


NET = """from typing import Annotated
from torch import nn

class Net(nn.Module):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x):
        return self.linear(x.flatten(1))
"""
INIT = NET[NET.index("    def __init__") : NET.index("    def forward")]
CODE = {  # what is changed in NET, or its target; what the message says
    "a syntax error": (("def forward(self, x):", "def forward(self, x:"), "mine.py, line 9: SyntaxError: '(' was never closed."),
    "a missing import": (("from torch import nn", "import nothing_here"), "mine.py, line 2: ModuleNotFoundError: No module named 'nothing_here'."),
    "no super().__init__()": (("super().__init__()", "pass"), "mine.py, line 7: AttributeError: cannot assign module before "
                              "Module.__init__() call. Begin __init__ with super().__init__()"),
    "an error in __init__": (("super().__init__()", "{}['a']"), "model: mine.py, line 6: KeyError: 'a'."),
    "an error in forward": (("return self", "{}['a']; return self"), "mine.py, line 10: KeyError: 'a'."),
    "too few outputs": (("64, num_classes", "64, 5"), "model=mine gives 5 outputs for 2 samples, and dataset=digits has 10 classes."),
    "outputs of another shape": (("x.flatten(1))", "x.flatten(1))[:, 0]"), "model=mine gives outputs of shape (2,) for 2 samples"),
    "an annotation": (("num_classes):", 'num_classes, width: Annotated[int, "at least 1"] = 3):'),
                      "mine.py, line 5: the annotation of `width`, Annotated[int, 'at least 1'], is no rule.\nWrite a bound, such as \">= 1\""),
    "no arguments": ((INIT, ""), "It gets the arguments input_shape, num_classes: take them in this order."),
    "a target without a module": ("Net", "`model._target_` is Net, which names no module. Write `_target_: mine.Net`"),
    "a misspelled module": ("mien.Net", "and there is no module mien in {here}, nor installed. Did you mean `mine`?"),
    "a misspelled class": ("mine.Nett", "module 'mine' has no attribute 'Nett'. Did you mean `Net`?"),
}  # fmt: skip


@pytest.mark.parametrize("change, says", CODE.values(), ids=CODE)
def test_a_mistake_in_own_code(dltrain, workdir, monkeypatch, change, says):
    target, text = (change, NET) if isinstance(change, str) else ("mine.Net", NET.replace(*change))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (workdir / "conf" / "model").mkdir(parents=True)
    (workdir / "conf" / "model" / "mine.yaml").write_text(f"_target_: {target}\n")
    (workdir / "mine.py").write_text(text)
    for trust in ([], ["trust=[mien,Net]"]):  # to trust what does not exist changes nothing
        with pytest.raises(UserError) as error:
            dltrain("model=mine", "steps=1", *trust)
        assert says.format(here=workdir) in str(error.value)
        assert len(str(error.value).splitlines()) <= 3
        assert error.value.exit_code == 2
        assert not (workdir / "outputs").exists()


def test_the_right_code_trains(dltrain, workdir, monkeypatch):
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (workdir / "conf" / "model").mkdir(parents=True)
    (workdir / "conf" / "model" / "mine.yaml").write_text("_target_: mine.Net\n")
    (workdir / "mine.py").write_text(
        NET.replace("num_classes):", 'num_classes, width: Annotated[int, ">= 1"] = 3):')
    )
    assert dltrain("model=mine", "steps=1", "quiet=true") == 0


PLACES = {  # where the file of model=mine lies, and the folder of the run; what the message says
    "another name of conf": ("config/model/mine.yaml", ".", "Move config/model/mine.yaml to conf/model/mine.yaml"),
    "another name of the group": ("conf/models/mine.yaml", ".", "Move conf/models/mine.yaml to conf/model/mine.yaml"),
    "another ending": ("conf/model/mine.yml", ".", "Move conf/model/mine.yml to conf/model/mine.yaml"),
    "no folder": ("mine.yaml", ".", "Move mine.yaml to conf/model/mine.yaml"),
    "a run from a folder below": ("conf/model/mine.yaml", "below", "Run from {here}, which has conf/model/mine.yaml"),
    "no such file": ("conf/model/other.yaml", ".", "Did you mean `linear`? No model/mine.yaml is in {here}/conf."),
    "no folder at all": ("other.txt", ".", "Did you mean `linear`? No model/mine.yaml is in {here}/conf."),
}  # fmt: skip


@pytest.mark.parametrize("file, folder, says", PLACES.values(), ids=PLACES)
def test_the_file_of_a_word_in_the_wrong_place(workdir, monkeypatch, file, folder, says):
    path = workdir / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("_target_: dltrain.models.linear.Linear\n")
    (workdir / folder).mkdir(exist_ok=True)
    monkeypatch.chdir(workdir / folder)
    with pytest.raises(UserError) as error:
        composed("model=mine")
    assert says.format(here=workdir) in str(error.value)
    assert len(str(error.value).splitlines()) <= 3
    if move := re.search(r"Move (\S+) to (\S+)", str(error.value)):
        Path(move[2]).parent.mkdir(parents=True, exist_ok=True)
        Path(move[1]).rename(move[2])
    monkeypatch.chdir(workdir)
    if "No " not in says:
        composed("model=mine")


FLAGS = {
    "optimiser --help": "`optimiser` is no group, knob or verb. Did you mean `optimizer`?",
    "--help evalute": "`evalute` is no group, knob or verb. Did you mean `evaluate`?",
    "--lr 0.1": "There is no option --lr. Write lr=0.1.",
    "--lr=0.1 --learning-rate=1 --batch-size 8": "Write lr=0.1 lr=1 batch_size=8.",
    "train lr=0.1 epochs=1": "Training has no verb: dltrain lr=0.1 epochs=1.",
    "lr = 0.1": "`lr` is not `key=value`. Write lr=0.1, without spaces.",
    "-m lr=loginterval(0.01,0.1)": "Hydra has no loginterval. Write 'lr=tag(log,interval(0.01,0.1))'",
    "--config-path conf": "For a folder of words beside them: --config-dir conf",
    "--experimental-rerun x": "dltrain rerun RUN",
    "--resolve": "Write: dltrain --cfg job --resolve",
    "--cfg job -m lr=0.1,0.2": "Leave -m out, or list the jobs: sweep.dry_run=true",
    "--info -m lr=0.1,0.2": "Leave -m out",
    "--config-name foo": "`--config-name` is foo, and there is no",
    "--confi-name foo": "Did you mean `--config-name`?",
}


@pytest.mark.parametrize(
    "typed", ["sweep.trials=3", "sweep=tpe", "sweep.space={lr:{low:0.1,high:0.01}}", "+sweep.jobs=1"]
)
def test_a_setting_of_a_sweep_for_one_run(dltrain, workdir, typed):
    said = f"`{typed}` is a setting of a sweep, and this is one run. Leave it out"
    with pytest.raises(UserError) as error:
        dltrain(typed, "epochs=1")
    assert str(error.value).startswith(f"{said}, or add -m:\n")
    assert shlex.split(str(error.value).splitlines()[1]) == ["dltrain", "-m", typed, "epochs=1"]
    with pytest.raises(UserError) as error:
        dltrain("check", typed, "epochs=1")
    assert str(error.value) == f"{said}."
    assert list(workdir.iterdir()) == []


def test_a_search_space_in_a_recipe_is_for_sweeps(dltrain, workdir, capsys):
    (workdir / "conf" / "experiment").mkdir(parents=True)
    (workdir / "conf" / "experiment" / "r.yaml").write_text("sweep:\n  space:\n    lr: [0.1, 0.01]\n")
    assert dltrain("experiment=r", "steps=1", "quiet=true") == 0
    assert "`sweep.space` (lr) is searched with -m only" in capsys.readouterr().err


def test_the_last_of_two_values_is_said(dltrain, workdir, capsys):
    arguments = ("lr=0.5", "epochs=1", "--cfg", "job", "+lr=0.25", "lr=0.125")
    with pytest.raises(UserError):  # `+` is refused, after it is said
        dltrain(*arguments)
    said = capsys.readouterr().err
    assert "dltrain: lr=0.5 has no effect: lr=0.125 follows" in said
    assert "dltrain: +lr=0.25 has no effect: lr=0.125 follows" in said
    assert dltrain("lr=0.5", "epochs=1", "--cfg", "job", "lr=0.125") == 0
    assert "lr: 0.125\n" in capsys.readouterr().out
    assert dltrain("lr=0.5", "--cfg", "job", "epochs=1") == 0
    assert capsys.readouterr().err == ""


def test_the_last_of_two_changes_of_a_run_is_said(workdir, capsys):
    (workdir / "run").mkdir()
    assert split_arguments(["run", "lr=0.5", "lr=0.25"]) == ([Path("run")], ["lr=0.5", "lr=0.25"])
    assert capsys.readouterr().err == "dltrain: lr=0.5 has no effect: lr=0.25 follows\n"


def test_options_may_stand_between_overrides(dltrain, workdir, capsys):
    assert dltrain("lr=0.1,0.01", "-m", "epochs=1", "sweep.dry_run=true") == 0
    assert "2 jobs, all composed and valid" in capsys.readouterr().out


@pytest.mark.parametrize("flags, says", FLAGS.items(), ids=FLAGS)
def test_a_flag_that_would_be_ignored(dltrain, workdir: Path, flags, says):
    with pytest.raises(UserError) as error:
        dltrain(*flags.split())
    assert says in str(error.value)
    assert error.value.exit_code == 2
    assert list(workdir.iterdir()) == []


def test_a_configuration_with_a_name_is_taken(workdir):
    (workdir / "conf").mkdir()
    (workdir / "conf" / "mine.yaml").write_text("defaults:\n  - config\n  - _self_\nlr: 0.125\n")
    assert composed(name="mine").lr == 0.125
    assert composed("lr=0.5", name="mine").lr == 0.5


def test_a_search_needs_a_number_of_trials(dltrain, workdir):
    arguments = ("-m", "sweep=tpe", "lr=interval(0.01,0.1)", "sweep.dry_run=true")
    with pytest.raises(UserError, match=r"`sweep.trials` is null, .*Write sweep.trials=30"):
        dltrain(*arguments, "sweep.trials=null")
    assert dltrain(*arguments, "sweep.trials=30") == 0
