"""A user's words and recipes in every way of writing YAML: each is read as YAML says, and no comment is a rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from dltrain.config.catalogue import leaves
from dltrain.config.compose import compose, open_catalogue, open_hydra
from dltrain.config.validation import validate
from dltrain.errors import UserError

CODE = '''
from typing import Annotated, Literal
from torch import nn

class Net(nn.Module):
    """A net of my own.

    Args:
        width: hidden units
    """

    def __init__(self, input_shape, num_classes, width: int = 64, depths: list[int] = (1, 2), act: Literal["relu", "tanh"] = "relu",
                 rate: Annotated[float, "in [0, 1)"] = 0.5, note: str | None = None):
        super().__init__()

class Sgd:
    def __init__(self, params, lr: float = 0.25, momentum: float = 0.0): ...

def shrink(model, strength: float = 0.1): ...
'''  # noqa: E501


def plain(workdir: Path, *overrides: str) -> dict[str, object]:
    """The composed and checked configuration, by dotted path."""
    catalogue = open_catalogue()
    config = validate(compose(list(overrides), catalogue, open_hydra(catalogue)))
    return dict(leaves(config.plain))


T = "_target_: mine.Net\n"
NET = {"model.width": 64, "model.depths": [1, 2], "model.act": "relu", "model.rate": 0.5, "model.note": None}
WORDS = {  # the text of conf/model/net.yaml → what differs from the signature's defaults
    "a target alone": (T, {}),
    "no newline at the end": ("_target_: mine.Net", {}),
    "a comment with a colon": (T + "width: 3  # hidden units: as in the paper\n", {"width": 3}),
    "a comment like a rule": (T + "width: 3  # int >= 100: no rule at all\n", {"width": 3}),
    "a comment that is a task": (T + "width: 3  # TODO: try 128\n", {"width": 3}),
    "a comment without space": (T + "width: 3 #TODO\n", {"width": 3}),
    "a comment above": ("# rule: width ∈ ℕ\n" + T + "# width: 7\nwidth: 3\n", {"width": 3}),
    "a header like a directive": ("# package: none\n# @ me\n" + T + "width: 3\n", {"width": 3}),
    "a block list": (T + "depths:\n  - 3\n  - 4  # the second: deeper\n", {"depths": [3, 4]}),
    "a block list without indent": (T + "depths:\n- 3\n- 4\n", {"depths": [3, 4]}),
    "a flow list over lines": (T + "depths: [3,  # one\n  4]\n", {"depths": [3, 4]}),
    "quoted keys": ('"_target_": "mine.Net"\n\'width\': 3\n', {"width": 3}),
    "a flow mapping": ("{_target_: mine.Net, width: 3}\n", {"width": 3}),
    "an anchor": (T + "width: &w 3\nnote: x\n", {"width": 3, "note": "x"}),
    "an anchor and an alias": (T + "depths: [&w 3, *w]\n", {"depths": [3, 3]}),
    "a document marker": ("---\n" + T + "width: 3\n...\n", {"width": 3}),
    "a directive of YAML": ("%YAML 1.1\n---\n" + T + "width: 3\n", {"width": 3}),
    "carriage returns": (T.replace("\n", "\r\n") + "width: 3\r\n", {"width": 3}),
    "a byte order mark": ("\ufeff" + T + "width: 3\n", {"width": 3}),
    "a quoted word": (T + "act: 'tanh'  # relu or tanh: either\n", {"act": "tanh"}),
    "a number in scientific notation": (T + "rate: 1e-3\n", {"rate": 0.001}),
    "a folded text": (T + "note: >-\n  two\n  lines # no comment\n", {"note": "two lines # no comment"}),
    "a literal text": (T + "note: |\n  a: 1  # int: x\n", {"note": "a: 1  # int: x\n"}),
    "a text with a hash": (T + "note: 'a # b'\n", {"note": "a # b"}),
    "null in three spellings": (T + "note: ~\n", {"note": None}),
    "an empty value": (T + "note:\n", {"note": None}),
    "letters beyond ASCII": ("# Größe: groß\n" + T + "note: größe\n", {"note": "größe"}),
    "keys of the target in another order": ("width: 3\nrate: 0.25\n" + T, {"width": 3, "rate": 0.25}),
    "a package header": ("# @package _global_\nmodel:\n  _target_: mine.Net\n  width: 3\n", {"width": 3}),
    "a defaults list": ("defaults: [base]\nwidth: 3\n", {"width": 3}),
    "a block defaults list": ("defaults:\n  - base  # mine: the base\n  - _self_\nwidth: 3\n", {"width": 3}),
}  # fmt: skip


@pytest.fixture
def mine(workdir):
    (workdir / "mine.py").write_text(CODE)
    for group in ("model", "optimizer", "regularization", "experiment"):
        (workdir / "conf" / group).mkdir(parents=True)
    (workdir / "conf" / "model" / "base.yaml").write_text(T)
    return workdir


@pytest.mark.parametrize("text, differs", WORDS.values(), ids=WORDS)
def test_a_word_is_read_as_yaml(mine, text, differs):
    (mine / "conf" / "model" / "net.yaml").write_bytes(text.encode())
    wanted = NET | {f"model.{key}": value for key, value in differs.items()}
    found = plain(mine, "model=net")
    assert {path: found[path] for path in wanted} == wanted
    assert found["model._target_"] == "mine.Net"
    assert plain(mine, "model=net", "model.width=9")["model.width"] == 9


RECIPE = {"epochs": 3, "lr": 0.5, "model.hidden": [8], "regularization.l2.strength": 0.25}
RECIPES = {
    "without a directive": "defaults:\n  - override /model: mlp\n  - override /regularization: [l2]\nepochs: 3\nlr: 0.5\n"
    "model:\n  hidden: [8]\nregularization:\n  l2:\n    strength: 0.25\n",
    "with the directive": "# @package _global_\ndefaults:\n  - override /regularization: [l2]\nepochs: 3\nlr: 0.5\n"
    "model:\n  hidden: [8]\nregularization:\n  l2:\n    strength: 0.25\n",
    "with comments": "# Mine.\n# result: none\ndefaults:  # list: of words\n  - override /regularization:  # int: x\n      - l2\n"
    "epochs: 3  # int >= 10: not a rule\nlr: 0.5\nmodel: {hidden: [8]}\nregularization: {l2: {strength: 0.25}}\n",
    "with quotes and blocks": "'defaults':\n- 'override /regularization':\n  - \"l2\"\n'epochs': 3\n\"lr\": 5e-1\n"
    "model:\n  'hidden':\n  - 8\nregularization:\n  l2:\n    \"strength\": 0.25\n",
}


@pytest.mark.parametrize("text", RECIPES.values(), ids=RECIPES)
def test_a_recipe_is_read_as_yaml(mine, text):
    (mine / "conf" / "experiment" / "r.yaml").write_text(text)
    found = plain(mine, "experiment=r")
    assert {path: found[path] for path in RECIPE} == RECIPE
    assert plain(mine, "experiment=r", "lr=0.125")["lr"] == 0.125


@pytest.mark.parametrize(
    "text, lr",
    [
        ("_target_: mine.Sgd\n", 0.25),
        ("_target_: mine.Sgd\nlr: 0.1\n", 0.1),
        ("defaults: [momentum]\nlr: 0.1\n", 0.1),
    ],
)
def test_the_learning_rate_of_an_optimizer_is_the_top_level_knob(mine, text, lr):
    (mine / "conf" / "optimizer" / "own.yaml").write_text(text)
    found = plain(mine, "optimizer=own")
    assert (found["lr"], found["optimizer.lr"]) == (lr, lr)
    assert plain(mine, "optimizer=own", "lr=0.05")["optimizer.lr"] == 0.05


@pytest.mark.parametrize("text", ["_target_: mine.shrink\n", "shrink:\n  _target_: mine.shrink\n"])
def test_a_word_of_several_needs_no_nesting(mine, text):
    (mine / "conf" / "regularization" / "shrink.yaml").write_text(text)
    assert plain(mine, "regularization=[l2,shrink]")["regularization.shrink.strength"] == 0.1
    assert (
        plain(mine, "regularization=[shrink]", "regularization.shrink.strength=0.5")[
            "regularization.shrink.strength"
        ]
        == 0.5
    )


REFUSED = {
    "a type": ("_target_: mine.Net\nwidth: wide\n", [], "`model.width` is wide; it must be: int."),
    "a range": (T, ["model.rate=1"], "`model.rate` is 1; it must be: float in [0, 1)."),
    "a word": (T, ["model.act=rleu"], "`model.act` is rleu; it must be: relu or tanh. Did you mean `relu`?"),
    "the meaning": (T, ["model.width=a"], "model.width: hidden units. Leave it out for 64."),
    "a key in the file": (
        T + "witdh: 3\n",
        [],
        "net.yaml, line 2) is no key of model=net. Did you mean `model.width`?",
    ),
    "a key on the command line": (
        T,
        ["model.witdh=3"],
        "is no key of model=net. Did you mean `model.width`?",
    ),
    "no YAML": (T + "width: [3\n", [], "net.yaml, line 3: this is not YAML: "),
    "a key twice": (T + "width: 3\nwidth: 4\n", [], "`width` stands twice"),
    "a list": ("- 1\n", [], "net.yaml holds a list; it must hold keys with their values."),
    "a word that builds upon itself": (
        "defaults: [net]\n",
        [],
        "net.yaml builds upon itself: net → net. Change its `defaults`.",
    ),
    "a number in a defaults list": (
        "defaults: [3]\n" + T,
        [],
        "net.yaml: `defaults` holds 3; it must hold words, or one ",
    ),
    "nothing in a defaults list": ("defaults:\n  -\n" + T, [], "`defaults` holds None; it must hold words"),
    "two overrides in one item": (
        "defaults:\n  - {override /loss: auto, override /wrap: []}\n" + T,
        [],
        "one `override /GROUP: WORD` an item",
    ),
    "a text for a defaults list": (
        "defaults: base\n" + T,
        [],
        "net.yaml: `defaults` must be a list: begin each entry with a dash. Write `- base`",
    ),
    "another package": ("# @package foo\n" + T, [], "net.yaml: `# @package foo` would have no effect."),
    "a partial that is none": (
        T + "_partial_: maybe\n",
        [],
        "`_partial_` is maybe; it must be true or false.",
    ),
    "too deep": (T + "note: " + "[" * 99 + "]" * 99 + "\n", [], "levels deep"),
}


@pytest.mark.parametrize("text, overrides, says", REFUSED.values(), ids=REFUSED)
def test_a_mistake_names_file_key_and_rule(mine, text, overrides, says):
    (mine / "conf" / "model" / "net.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        plain(mine, "model=net", *overrides)
    assert says in str(error.value)
    assert len(str(error.value).splitlines()) <= 3


OF_IRIS = "# @package _global_\ndefaults:\n  - override /dataset: iris\nepochs: 1\n"


def test_a_rate_that_a_recipe_gives_the_optimizer_is_not_silently_kept(workdir, dltrain, train):
    """Found by a tester: `lr=0.3` beside such a recipe did nothing, and a sweep over it ranked equal runs."""
    (workdir / "conf/experiment").mkdir(parents=True)
    (workdir / "conf/experiment/own.yaml").write_text(f"{OF_IRIS}optimizer:\n  lr: 0.5\n")
    for command in (("experiment=own", "lr=0.3"), ("-m", "experiment=own", "lr=0.3,0.1")):
        with pytest.raises(
            UserError,
            match=r"sets `optimizer.lr` to 0.5, so that `lr` would do nothing.\nWrite optimizer.lr=0.3",
        ):
            dltrain(*command)
    assert train("experiment=own", "optimizer.lr=0.3").summary["config"]["optimizer.lr"] == 0.3
    assert train("experiment=own", "lr=0.5").summary["config"]["optimizer.lr"] == 0.5
    (workdir / "conf/experiment/both.yaml").write_text(f"{OF_IRIS}lr: 0.01\noptimizer:\n  lr: 0.5\n")
    with pytest.raises(
        UserError,
        match=r"both.yaml, line 5: `lr` is 0.01, and `optimizer.lr` in line 7 is 0.5, so that `lr` would do nothing",
    ):
        dltrain("experiment=both")


def test_a_value_of_a_recipe_that_a_chosen_word_sets_too_is_refused(workdir, dltrain):
    (workdir / "conf/experiment").mkdir(parents=True)
    (workdir / "conf/experiment/own.yaml").write_text(f"{OF_IRIS}model:\n  dropout: 0.3\n")
    with pytest.raises(UserError, match=r"`model.dropout` is 0.3 and `regularization.dropout.p` is 0.2"):
        dltrain("experiment=own", "regularization=[dropout]")
    assert dltrain("experiment=own", "regularization=[dropout]", "regularization.dropout.p=0.3") == 0
