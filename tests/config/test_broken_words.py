"""A file of the user's that cannot be used blocks what chooses it, and nothing else."""

from __future__ import annotations

import json
import sys

import pytest
from test_mistakes import composed

from dltrain.commands.complete import candidates, split
from dltrain.config.compose import open_catalogue
from dltrain.errors import UserError

CODE = """import enum
from dataclasses import dataclass, field
from typing import Annotated, Literal
from torch import nn

class E(enum.Enum):
    A = 1

class Bound:
    def __init__(self, input_shape, num_classes, width: Annotated[int, "at least 1"] = 3): ...

class Unknown:
    needs = {"nothing that is known"}
    def __init__(self, input_shape, num_classes): ...

class Member:
    def __init__(self, input_shape, num_classes, width: Literal[E.A] = E.A, depth: Literal[len("ab")] = 2): ...

class Contradiction:
    def __init__(self, input_shape, num_classes, rate: Annotated[float, "> 0"] = 0.0): ...

BASE = 3

class Defaults(nn.Module):
    def __init__(self, input_shape, num_classes, tag: str = "", width: int = None, depth: int = 2 * BASE, size=len("four")):
        super().__init__()
        self.linear = nn.Linear(64, num_classes)
        assert (tag, width, depth, size) in (("", None, 6, 4), ("x", 2, 5, 7)), (tag, width, depth, size)
    def forward(self, x):
        return self.linear(x.flatten(1))

@dataclass
class Fields:
    input_shape: tuple
    num_classes: int
    width: int = field(default=len("abc"))
"""
BROKEN = {  # word, text of its file, what the refusal says
    "syntax": ("optimizer=mine", "a: [1\nb: 2\n", "mine.yaml, line 2: this is not YAML"),
    "a tab": ("schedule=mine", "_target_: x.Y\n\tk: 1\n", "mine.yaml, line 2: a tab indents it"),
    "a list": ("experiment=mine", "- epochs\n", "mine.yaml holds a list"),
    "defaults": ("experiment=mine", "defaults: 3\n", "`defaults` must be a list"),
    "a circle": ("experiment=mine", "defaults: [mine]\n", "mine.yaml builds upon itself"),
    "a package": ("loss=mine", "# @package other\n_target_: x.Y\n", "`# @package other` would have no effect"),
    "an annotation": ("model=mine", "_target_: mine.Bound\n", "the annotation of `width`, Annotated[int, 'at least 1'], is no rule"),
    "a declaration": ("model=mine", "_target_: mine.Unknown\n", "declares 'nothing that is known', which no rule knows"),
    "a default": ("model=mine", "_target_: mine.Contradiction\n", "mine.py: the default of `rate` is 0.0, which its annotation refuses: float > 0"),
    "too large": ("penalty_schedule=mine", "a: " + "x" * 1_000_001, "a configuration has at most 1000000"),
    "one meaning": ("optimizer=sgd", "_target_: mine.E\n", "`optimizer=sgd` exists twice"),
}  # fmt: skip


def write(workdir, typed, text):
    group, _, name = typed.partition("=")
    file = workdir / "conf" / group / f"{name}.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    (workdir / "mine.py").write_text(CODE)


@pytest.mark.parametrize("typed, text, says", BROKEN.values(), ids=BROKEN)
def test_it_is_refused_where_it_is_chosen_only(dltrain, workdir, capsys, typed, text, says):
    write(workdir, typed, text)
    group = typed.partition("=")[0]
    assert composed("lr=0.125").lr == 0.125
    assert dltrain("--help") == 0
    shown = capsys.readouterr()
    assert [line for line in shown.err.splitlines() if says in line], "help names it in one line"
    assert len(shown.err.splitlines()) == 1
    assert dltrain(group, "--help") == 0
    assert "mine" not in capsys.readouterr().out.split()
    assert typed not in candidates(*split(f"dltrain {group}="))
    assert dltrain("schema") == 0
    assert json.loads(capsys.readouterr().out)
    recipe = workdir / "conf" / "experiment" / "chooses.yaml"
    recipe.parent.mkdir(exist_ok=True)
    word = typed.partition("=")[2]
    entry = word if group == "experiment" else f"override /{group}: {word}"
    recipe.write_text(f"defaults:\n  - {entry}\n")
    commands = (
        [typed],
        ["experiment=chooses"],
        ["-m", f"{group}={word},none"],
        [f"{group}={word}", "--help"],
    )
    for command in commands:
        with pytest.raises(UserError) as error:
            dltrain(*command)
        assert says in str(error.value), command
        assert len(str(error.value).splitlines()) <= 3
    assert {item.name for item in workdir.iterdir()} == {"conf", "mine.py"}


@pytest.mark.parametrize("target", ["Member", "Fields"])
def test_a_signature_beyond_literals_blocks_nothing(workdir, target):
    write(workdir, "model=mine", f"_target_: mine.{target}\n")
    assert composed().words["model"] == "mlp"
    assert composed("model=mine", "model.width=4").plain["model"]["width"] == 4


def test_a_default_is_never_refused_by_its_own_rule(dltrain, workdir, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    write(workdir, "model=mine", "_target_: mine.Defaults\n")
    assert dltrain("model=mine", "steps=1", "quiet=true") == 0
    given = ("model.tag=x", "model.width=2", "model.depth=5", "model.size=7")
    assert dltrain("model=mine", "steps=1", "quiet=true", *given) == 0
    assert dltrain("model=mine", "steps=1", "quiet=true", "model.tag=''", "model.width=null") == 0
    with pytest.raises(UserError, match="`model.width` is a; it must be: int or null"):
        dltrain("model=mine", "model.width=a")
    sys.modules.pop("mine", None)


def test_no_shipped_default_is_refused_by_its_own_rule():
    words = [word for group in open_catalogue().words.values() for word in group.values()]
    params = [p for word in words for p in word.params.values() if p.rule and p.value != "???"]
    assert len(params) > 500
    assert not [p for p in params if "${" not in str(p.value) and not p.rule.accepts(p.value)]
