"""Mistakes of somebody who does not know the program: each message names file, line, key and rule, and its cure works as typed."""

from __future__ import annotations

import re
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dltrain.commands.resume import split_arguments
from dltrain.config.compose import (
    check_one_value,
    compose,
    open_catalogue,
    open_hydra,
    parameters_of,
    parse,
    values_of,
)
from dltrain.config.validation import validate
from dltrain.errors import UserError
from dltrain.sweep.plan.space import axis_of, grid

MISTAKES = {  # what is typed → what the message says; what follows `Write` in it is typed afterwards
    "model.hidden=64,32": "add -m: dltrain -m 'model.hidden=[64],[32]'\nFor one list, write 'model.hidden=[64,32]'",
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
    with pytest.raises(
        UserError, match="`optimizer.betas` is no key of optimizer=sgd. It is one of .*\nKeys"
    ) as error:
        composed("optimizer=sgd", "optimizer.betas=[0.9,0.9]")
    (words,) = re.findall(r"one of optimizer=(.*)\.\n", str(error.value))
    for word in words.split(" or "):
        composed(f"optimizer={word}", "optimizer.betas=[0.9,0.9]")


def test_a_key_of_another_dataset_names_that_dataset(workdir):
    """Found by a newcomer: a file without the word that reads it."""
    with pytest.raises(UserError, match="is no key of dataset=digits. It is one of dataset=csv or npz."):
        composed("dataset.path=table.csv", "dataset.target=y")


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


CATALOGUE = open_catalogue()
LISTS = sorted(
    path
    for path in {
        *CATALOGUE.knobs,
        *(p for g in CATALOGUE.words.values() for w in g.values() for p in w.params),
    }
    for param in [next(parameters_of(path, CATALOGUE))]
    if param.rule is not None and any(s.get("type") == "array" for s in param.rule.alternatives)
)
SWEPT = {  # what follows -m; what is typed instead
    "model.hidden=64,32": "'model.hidden=[64],[32]'",
    "model.hidden=[64],32": "'model.hidden=[64],[32]'",
    "parameters.freeze=head,layers.0": "'parameters.freeze=[head],[layers.0]'",
}


@pytest.mark.parametrize("typed, cure", SWEPT.items(), ids=SWEPT)
def test_the_values_of_an_axis_in_the_form_that_works(dltrain, workdir, capsys, typed, cure):
    """The cure is the same with and without -m, and it makes a job for each value."""
    for arguments in ((typed,), ("-m", typed)):
        with pytest.raises(UserError) as error:
            dltrain(*arguments, "sweep.dry_run=true") if "-m" in arguments else dltrain(*arguments)
        (command,) = re.findall(r"dltrain (-m .*?)(?:\. For one|$|\n)", str(error.value))
        assert command == f"-m {cure}"
    assert dltrain(*shlex.split(command), "sweep.dry_run=true") == 0
    assert "2 jobs" in capsys.readouterr().out


@pytest.mark.parametrize("key", dict.fromkeys(LISTS))
def test_several_values_of_every_key_that_is_a_list(workdir, key):
    """Each cure for a list-typed key is accepted by its rule: the list of both, and a list for each job."""
    catalogue = open_catalogue()
    param = next(parameters_of(key, catalogue))
    item = "a" if "str" in param.rule.text else "0.5" if "float" in param.rule.text else "2"
    with pytest.raises(UserError) as error:
        check_one_value(parse([f"{key}={item},{item}"], open_hydra(catalogue).config_loader), catalogue)
    cures = re.findall(r"(?:dltrain -m|write) ('\S+')", str(error.value))
    assert cures
    for cure in cures:
        (override,) = parse(shlex.split(cure), open_hydra(catalogue).config_loader)
        assert all(param.rule.accepts(value) for value in values_of(override)), cure


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


R = "experiment/r.yaml"
NESTEROV = "defaults:\n  - override /optimizer: nesterov\n"
L2 = "defaults:\n  - override /regularization: [l2]\n"
CURED = {  # what is in conf/experiment/r.yaml (or model/m.yaml), what the message says, and the file with its cure; None: there is no one cure
    "a dotted key": ("epochs: 1\nmodel.hidden: [32]\n", r"r.yaml, line 2: `model.hidden` is read as one name, .* Write `model: \{hidden: \[32\]\}`",
                     "epochs: 1\nmodel: {hidden: [32]}\n"),
    "a dotted key beside its group": ("model:\n  dropout: 0.1\nmodel.hidden: [32]\n", r"line 3: .* Write `hidden: \[32\]`, below `model:` of line 1",
                                      "model:\n  dropout: 0.1\n  hidden: [32]\n"),
    "a dotted key of three parts": (L2 + "regularization.l2.strength: 0.1\n", r"line 3: .* Write `regularization: \{l2: \{strength: 0.1\}\}`",
                                    L2 + "regularization: {l2: {strength: 0.1}}\n"),
    "a dotted key below a group": (L2 + "regularization:\n  l2.strength: 0.1\n", r"line 4: .* Write `l2: \{strength: 0.1\}`",
                                   L2 + "regularization:\n  l2: {strength: 0.1}\n"),
    "a dotted key of a sweep": ("sweep.trials: 3\n", r"line 1: .* Write `sweep: \{trials: 3\}`", "sweep: {trials: 3}\n"),
    "keys of a word that is not chosen": ("regularization: {l2: {strength: 0.1}}\n",
                                          r"line 1: .* no `l2` chosen.\nWrite below `defaults:` `- override /regularization: \[l2\]`",
                                          L2 + "regularization: {l2: {strength: 0.1}}\n"),
    "keys of one more word": ("defaults:\n  - override /augmentation: [noise]\naugmentation:\n  shift:\n    pixels: 2\n",
                              r"line 4: `augmentation.shift` is set, .*\n.*`- override /augmentation: \[noise, shift\]`",
                              "defaults:\n  - override /augmentation: [noise, shift]\naugmentation:\n  shift:\n    pixels: 2\n"),
    "a recipe that overrides the recipe": ("defaults:\n  - override /experiment: tabular\n",
        r"line 2: .* would be ignored: .* Write `- tabular`, and `- _self_` below it",
                                           "defaults:\n  - tabular\n  - _self_\n"),
    "a recipe as a key": ("experiment: tabular\n",
        r"line 1: `experiment` would be ignored.* Write `defaults: \[tabular, _self_\]`", "defaults: [tabular, _self_]\n"),
    "a group twice": ("defaults:\n  - override /optimizer: sgd\n  - override /optimizer: nesterov\n",
                      r"line 3: `override /optimizer: nesterov`: optimizer is chosen in line 2 already", NESTEROV),
    "a missing value": ("lr: ???\n", r"line 1: `lr` is \?\?\?, which would set nothing", ""),
    "an entry without a word": ("defaults:\n  - override /optimizer:\n",
        r"line 2: `override /optimizer:` names no word. Write `- override /optimizer: adam`",
                                "defaults:\n  - override /optimizer: adam\n"),
    "an entry without a word of a list": ("defaults:\n  - override /augmentation:\n", r"Write `- override /augmentation: none` for none",
                                          "defaults:\n  - override /augmentation: none\n"),
    "a group as a key": ("optimizer: nesterov\n", r"line 1: `optimizer` is nesterov; .* Write there: `- override /optimizer: nesterov`", NESTEROV),
    "a group of several as a key": ("regularization: l2\n",
        r"line 1: `regularization` is l2; .* Write there: `- override /regularization: \[l2\]`", L2),
    "a list as a key": ("regularization: [l2]\n", r"line 1: `regularization` is \[l2\]; .* Write there: `- override /regularization: \[l2\]`", L2),
    "an unknown word as a key": ("optimizer: nestrov\n", r"line 1: .* Did you mean `nesterov`\?", None),
    "a number for a word's keys": (L2 + "regularization:\n  l2: 0.1\n",
        r"line 4: `regularization.l2` is 0.1; it must be keys with their values", None),
    "a group without keys": ("model:\n", r"line 1: `model:` has no keys below it", ""),
    "no override": ("defaults:\n  - /optimizer: nesterov\n", r"line 2: `/optimizer: nesterov`: .* Write `- override /optimizer: nesterov`", NESTEROV),
    "no override and no slash": ("defaults:\n  - optimizer: nesterov\n", r"line 2: .* Write `- override /optimizer: nesterov`", NESTEROV),
    "no slash": ("defaults:\n  - override optimizer: nesterov\n", r"line 2: .* Write `- override /optimizer: nesterov`", NESTEROV),
    "no value": ("defaults:\n  - override /optimizer\n", r"line 2: `override /optimizer` names no word. Write `- override /optimizer: adam`",
                 "defaults:\n  - override /optimizer: adam\n"),
    "an equals sign": ("defaults:\n  - override /optimizer=nesterov\n", r"line 2: .* Write `- override /optimizer: nesterov`", NESTEROV),
    "no space": ("defaults:\n  - override /optimizer:nesterov\n", r"line 2: .* Write `- override /optimizer: nesterov`", NESTEROV),
    "a path": ("defaults:\n  - /optimizer/nesterov\n", r"line 2: .* Write `- override /optimizer: nesterov`", NESTEROV),
    "a package": ("defaults:\n  - override /optimizer@x: nesterov\n", r"line 2: .* Write `- override /optimizer: nesterov`", NESTEROV),
    "a list for one word": ("defaults:\n  - override /optimizer: [nesterov]\n",
        r"line 2: .*optimizer takes one word. Write `- override /optimizer: nesterov`", NESTEROV),
    "a nested group": ("defaults:\n  - sweep/backend: local\n",
        r"line 2: .* Write `- override /sweep/backend: local`", "defaults:\n  - override /sweep/backend: local\n"),
    "a file's name": ("defaults:\n  - tabular.yaml\n", r"line 2: .* Write `- tabular`", "defaults:\n  - tabular\n"),
    "no dashes": ("defaults:\n  override /optimizer: nesterov\n", r"must be a list: .* Write `- override /optimizer: nesterov`", NESTEROV),
    "an open interpolation": ("lr: ${lr\n", r"line 1: `lr` is \$\{lr, which cannot be read as an interpolation", None),
    "another open interpolation": ("seed: 3\nworkers: ${seed\n", r"line 2: .* Write `workers: \$\{seed\}`", "seed: 3\nworkers: ${seed}\n"),
    "a word for a number": ("epochs: one\n", r"r.yaml, line 1: `epochs` is one; it must be: int >= 1 or null", None),
    "a value out of its range": ("dataset:\n  limit: 64\nmodel:\n  dropout: 1.5\n", r"line 4: `model.dropout` is 1.5", None),
    "a number in quotes": ("lr: '0.1'\n", r"line 1: `lr` is 0.1 \(the text '0.1'\).* Write `lr: 0.1`", "lr: 0.1\n"),
    "a number for a list": ("model:\n  hidden: 64\n", r"line 2: `model.hidden` is 64; .* Write `hidden: \[64\]`", "model:\n  hidden: [64]\n"),
    "a number for a text": ("notes: 5\n", r"line 1: `notes` is 5; .* Write `notes: \"5\"`", 'notes: "5"\n'),
    "dashes without a space": ("model:\n  hidden:\n    -64\n    -32\n", r"line 2: .* A dash is followed by a space. Write `hidden: \[64, 32\]`",
                               "model:\n  hidden: [64, 32]\n"),
    "an interpolation of no key": ("seed: ${sed}\n", r"line 1: `seed` is \$\{sed\}, and there is no key `sed`", None),
    "another interpolation of no key": ("workers: ${learning_rate}\n", r"line 1: `workers` is .*\n.* Did you mean `lr`\?", None),
    "a variable that is not set": ("lr: ${oc.env:NOPE_X}\n", r"line 1: .* no NOPE_X.\n.* give a default: \$\{oc.env:NOPE_X,VALUE\}", None),
    "no such resolver": ("lr: ${eval:1+1}\n", r"line 1: .* nothing is named `eval:`", None),
    "a circle": ("lr: ${optimizer.lr}\n", r"line 1: `lr` is \$\{optimizer.lr\}, which leads back to itself", None),
    "a tab": ("model:\n\thidden: [3]\n", r"line 2: a tab indents it, .* Write `  hidden: \[3\]`", "model:\n  hidden: [3]\n"),
    "no space after a colon": ("epochs: 3\nlr:0.1\n", r"line 2: a colon is followed by a space. Write `lr: 0.1`", "epochs: 3\nlr: 0.1\n"),
    "no space after the one colon": ("lr:0.1\n", r"line 1: a colon is followed by a space. Write `lr: 0.1`", "lr: 0.1\n"),
    "an open quote": ("epochs: 3\nnotes: 'abc\n", r"line 2: the quote is not closed. Write `notes: 'abc'`", "epochs: 3\nnotes: 'abc'\n"),
    "arguments by position": ("# in model/m.yaml\n_target_: dltrain.models.mlp.mlp\n_args_: [3]\n", r"m.yaml, line 3: `model._args_` has no effect",
                              "# in model/m.yaml\n_target_: dltrain.models.mlp.mlp\n"),
    "no target": ("# in model/m.yaml\nwidth: 3\n",
        r"m.yaml names nothing to build: it has no `_target_`. Write `_target_: module.ClassOrFunction`", None),
    "a misspelled target": ("# in model/m.yaml\n_target: mine.Net\n", r"m.yaml, line 2: `_target` is not read. Write `_target_: mine.Net`",
                            "# in model/m.yaml\n_target_: mine.Net\n"),
    "an empty file": ("# in model/m.yaml\n", r"m.yaml is empty. Write `_target_: module.ClassOrFunction`", None),
}  # fmt: skip


def written(workdir: Path, text: str) -> str:
    """Write one of the texts above to its file, and return what chooses it."""
    file, typed = ("model/m.yaml", "model=m") if "model/m.yaml" in text else (R, "experiment=r")
    path = workdir / "conf" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return typed


@pytest.mark.parametrize("text, says, cured", CURED.values(), ids=CURED)
def test_the_cure_of_a_file_works_as_typed(workdir, text, says, cured):
    typed = written(workdir, text)
    with pytest.raises(UserError) as error:
        composed(typed)
    message = str(error.value)
    assert re.search(says, message), message
    assert len(message.splitlines()) <= 3
    assert str(workdir / "conf") in message
    if cured is not None:
        composed(written(workdir, cured))


def test_what_a_recipe_sets_arrives_or_is_refused(workdir):
    """Keys for words that the user has replaced are no mistake; those that nobody has chosen are."""
    typed = written(workdir, L2 + "regularization: {l2: {strength: 0.5}}\n")
    assert composed(typed).plain["regularization"]["l2"]["strength"] == 0.5
    assert set(composed(typed, "regularization=[dropout]").plain["regularization"]) == {"dropout"}
    assert composed(typed, "debug=overfit").plain["regularization"] == {}
    # a recipe for several words, of which the user chooses one
    typed = written(workdir, "regularization: {l2: {strength: 0.5}, l1: {strength: 0.25}}\n")
    assert composed(typed, "regularization=[l1]").plain["regularization"]["l1"]["strength"] == 0.25
    # a recipe on another: the keys of both
    (workdir / "conf" / "experiment" / "base.yaml").write_text(L2 + "epochs: 7\nlr: 0.125\n")
    typed = written(workdir, "defaults: [base, _self_]\nlr: 0.25\nregularization: {l2: {strength: 0.5}}\n")
    found = composed(typed)
    assert (found.epochs, found.lr, found.plain["regularization"]["l2"]["strength"]) == (7, 0.25, 0.5)


def test_what_a_key_has_without_a_wrong_value(workdir):
    """The advice to leave a value out names the value that holds then; a file's own wrong value is none."""
    (workdir / "mine.py").write_text(
        "from typing import Annotated\nfrom torch import nn\n\n\nclass Net(nn.Module):\n"
        '    def __init__(self, input_shape, num_classes, width: Annotated[int, ">= 1"] = 32):\n        super().__init__()\n'
    )
    typed = written(workdir, "# in model/m.yaml\n_target_: mine.Net\nwidth: 0\n")
    with pytest.raises(UserError) as error:
        composed(typed)
    assert (
        str(error.value) == f"{workdir}/conf/model/m.yaml, line 3: `model.width` is 0; it must be: int >= 1."
    )
    written(workdir, "# in model/m.yaml\n_target_: mine.Net\n")
    recipe = written(workdir, "defaults: [override /model: m]\nmodel: {width: 16}\n")
    with pytest.raises(
        UserError, match="^`model.width` is 0; it must be: int >= 1.\n *Leave it out for 16.$"
    ):
        composed(recipe, "model.width=0")


def test_the_recipes_of_the_documentation(workdir, dltrain):
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    folder = workdir / "conf" / "experiment"
    folder.mkdir(parents=True)
    for name, text in re.findall(r"```yaml\n# conf/experiment/(\w+).yaml\n(.*?)```", page, re.DOTALL):
        (folder / f"{name}.yaml").write_text(text)
    small, smaller = composed("experiment=small"), composed("experiment=smaller")
    assert (small.lr, small.epochs, small.plain["model"]["hidden"], small.optimizer["momentum"]) == (
        0.05,
        5,
        [32],
        0.8,
    )
    assert (
        small.words["regularization"] == ["l2", "dropout"]
        and small.plain["regularization"]["l2"]["strength"] == 0.001
    )
    assert (smaller.lr, smaller.epochs, smaller.plain["model"]["hidden"]) == (0.05, 2, [16])
    assert smaller.words["schedule"] == "cosine" and smaller.words["regularization"] == ["l2", "dropout"]
    assert set(composed("experiment=small", "regularization=[dropout]").plain["regularization"]) == {
        "dropout"
    }
    assert dltrain("-m", "experiment=search", "sweep.dry_run=true") == 0


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


def test_files_that_no_one_writes_by_hand_are_not_searched_for_a_class(dltrain, workdir):
    """Found by a hostile tester: a hole of 4 GB beside a run took 8 GB of memory."""
    (workdir / "conf" / "model").mkdir(parents=True)
    (workdir / "conf" / "model" / "mine.yaml").write_text("_target_: Net\n")
    with open(workdir / "hole.py", "wb") as file:
        file.write(b"class Net: ...\n")
        file.truncate(2**40)
    with pytest.raises(UserError, match=r"which names no module\. Write `_target_: MODULE\.Net`"):
        dltrain("model=mine")
    (workdir / "small.py").write_text("class Net: ...\n")
    with pytest.raises(UserError, match="Write `_target_: small.Net`"):
        dltrain("model=mine")


def test_an_entry_of_a_million_blanks_is_refused_at_once(dltrain, workdir):
    """Found by a hostile tester: it took hours."""
    (workdir / "conf" / "experiment").mkdir(parents=True)
    (workdir / "conf" / "experiment" / "s.yaml").write_text(f'defaults:\n  - "a{" " * 900_000}x\\ny"\n')
    start = time.process_time()
    with pytest.raises(UserError, match="there is no such word of experiment"):
        dltrain("experiment=s")
    assert time.process_time() - start < 3


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
    "train --help": "`train` is no group, knob or verb. Training has no verb: dltrain.",
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


@pytest.mark.parametrize(
    "recipe, named",
    [
        ("sweep:\n  space:\n    lr: [0.1, 0.01]\n", "`sweep.space` (lr) is"),
        ("sweep:\n  trials: 3\n", "`sweep.trials` is"),
        ("defaults:\n  - override /sweep: tpe\nsweep: {trials: 3}\n", "`sweep=tpe`, `sweep.trials` are"),
        ("defaults:\n  - override /sweep/backend: local\n", "`sweep.backend=local` is"),
    ],
)
def test_what_a_recipe_sets_of_a_sweep_is_said_to_be_for_sweeps(dltrain, workdir, capsys, recipe, named):
    typed = written(workdir, recipe)
    assert dltrain(typed, "steps=1", "quiet=true") == 0
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "-m only" in text]
    said, _, command = line.partition("For the sweep: dltrain ")
    assert said == f"dltrain: {named} for -m only; this is one run. "
    assert shlex.split(command) == ["-m", typed, "steps=1", "quiet=true"]


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


AXES = {  # what follows -m → what the message says; what follows `write` in it makes jobs
    "lr=logspace(-4,-1,0)": "the count is 0; it must be: int from 2 to 10000",
    "lr=logspace(-4,-1,1)": "the count is 1; it must be",
    "lr=logspace(-4,-1)": "logspace does not take that\nFor example: 'lr=logspace(-4,-1,4)'",
    "lr=logspace(-4,inf,3)": "two different numbers from -37 to 37",
    "lr=logspace(-4,nan,3)": "two different numbers from -37 to 37",
    "lr=logspace(-4,-4,3)": "two different numbers from -37 to 37",
    "lr=logspace(1e-4,0.1,4)": "For values from 0.0001 to 0.1, write 'lr=logspace(-4,-1,4)'. For 10^0.0001 to 10^0.1, write lr=1.",
    "batch_size=logspace(32,256,4)": "For values from 32 to 256, write batch_size=32,64,128,256",
    "lr=0.1,logspace(-4,-1,4)": "cannot stand among other values",
    "lr=[range(1,3)]": "cannot stand among other values",
    # a traceback before, and two that never ended
    "lr=0.1,range(1,5)": "cannot stand among other values",
    "lr=range(1,inf)": "must be finite",
    "lr=range(1,5,0)": "the step other than 0",
    "lr=interval(0,inf)": "both ends of an interval must be finite",
    "lr=range(a,b)": "range does not take that\nFor example: 'lr=range(1,5)'",
}


@pytest.mark.parametrize("typed, says", AXES.items(), ids=AXES)
def test_an_axis_that_cannot_be_read(dltrain, workdir, typed, says):
    with pytest.raises(UserError) as error:
        dltrain("-m", typed, "sweep.dry_run=true")
    assert says in str(error.value)
    assert len(str(error.value).splitlines()) <= 3
    for cure in re.findall(r"(?:write|example:|such as) (\S+?)(?:\. For|\n|$)", str(error.value)):
        assert dltrain("-m", *shlex.split(cure), "sweep=tpe", "sweep.trials=2", "sweep.dry_run=true") == 0
    assert list(workdir.iterdir()) == []


@pytest.mark.parametrize("low, high, count", [(-4, -1, 4), (-1, -4, 7), (-2.5, 0, 6), (1, 3, 3)])
def test_log_spaced_values_are_those_of_numpy(low, high, count):
    override = parse([f"lr=logspace({low},{high},{count})"], None)[0]
    assert [float(chosen["lr"]) for chosen in grid([axis_of(override)])] == pytest.approx(
        np.logspace(low, high, count), rel=1e-5
    )


def test_log_spaced_values_make_jobs(dltrain, workdir, capsys):
    assert dltrain("-m", "lr=logspace(-4,-1,4)", "batch_size=logspace(1,2,2)", "sweep.dry_run=true") == 0
    shown = capsys.readouterr().out
    assert "8 jobs, all composed and valid" in shown and "lr=0.0001 batch_size=10 " in shown


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


@pytest.mark.parametrize(
    "typed",
    ['{"*.bias": 0.1}', "{'*.bias':0.1}", '{"layers.0": 0.1, "layers.1" : 0.2}', '{ "head-a/b?": 1}'],
)
def test_a_quoted_key_within_braces_gets_a_form_that_works(dltrain, workdir, capsys, typed):
    with pytest.raises(UserError, match="keys within braces take no quotes") as error:
        dltrain(f"parameters.lr_scale={typed}", "--cfg", "job")
    (cure,) = shlex.split(str(error.value).partition("Write ")[2])
    assert dltrain(cure, "--cfg", "job") == 0
    assert "  lr_scale:\n    " in capsys.readouterr().out
