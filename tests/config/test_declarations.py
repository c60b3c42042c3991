"""What parts declare, and what follows from it, for the user's parts as for the shipped ones."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

from dltrain.config.catalogue import Catalogue
from dltrain.config.conflicts import (
    IMPLIED,
    KNOBS,
    LACKING,
    RULES,
    first_conflict,
    part_of,
    parts_alone,
    refused_pairs,
)
from dltrain.config.declarations import declared
from dltrain.config.groups import ALL
from dltrain.config.search_path import catalogue_dir
from dltrain.declare import GIVES, NEEDS
from dltrain.errors import UserError

OWN = '''
from __future__ import annotations

from math import prod

import torch
from torch import nn
from dltrain.data.raw import RawData
from dltrain.declare import declares


def _table(kind, count=120):
    x = torch.arange(count * 6).reshape(count, 6) % 7.0
    return RawData(x, x.sum(1) if kind == "regression" else torch.arange(count) % 2, kind)


@declares(gives={"rows", "classes if task=classification", "quantities if task=regression"})
def table(task: str = "classification") -> RawData:
    return _table(task)


def silent() -> RawData:
    return _table("classification")


class Net(nn.Sequential):
    needs = {"images"}

    def __init__(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(prod(input_shape), num_classes))


class Deeper(Net):
    """It declares what Net does."""


class Silent(nn.Sequential):
    def __init__(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(prod(input_shape), num_classes))


class Absolute(nn.Module):
    def __init__(self, spec) -> None:
        super().__init__()

    def forward(self, outputs, targets):
        return (outputs.softmax(1) - nn.functional.one_hot(targets, outputs.shape[1])).abs().sum(1)


class Blur:
    needs = {"images"}

    def __init__(self, spec) -> None:
        pass

    def __call__(self, inputs, targets, generator):
        return inputs, targets


class Quiet(Blur):
    needs = frozenset()


class Newton(torch.optim.SGD):
    needs = frozenset({"second derivatives", "one loss"})

    def __init__(self, params, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)


class Plain(torch.optim.SGD):
    def __init__(self, params, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)


def newton(params, lr: float = 0.1) -> Newton:
    return Newton(params, lr)
'''
WORDS = {
    "dataset": {"table": "table", "silent": "silent"},
    "model": {"net": "Net", "deeper": "Deeper", "bare": "Silent"},
    "loss": {"absolute": "Absolute"},
    "augmentation": {"blur": "Blur", "quiet": "Quiet"},
    "optimizer": {"newton": "Newton", "by_factory": "newton", "plain": "Plain"},
}
NO_SPACE = "its rows are columns of numbers without neighbors, and this one works on adjacent pixels"
ONE_LOSS = "its step follows from curvature or a line search, so that gradient and loss must belong together"
REFUSED = [
    ("dataset=table model=cnn", f"`dataset=table` cannot go with `model=cnn`: {NO_SPACE}.\nUse model=mlp."),
    ("dataset=iris model=net", f"`dataset=iris` cannot go with `model=net`: {NO_SPACE}.\nUse model=mlp."),
    ("dataset=iris model=deeper", f"`dataset=iris` cannot go with `model=deeper`: {NO_SPACE}.\nUse model=mlp."),
    ("dataset=table augmentation=[flip]", f"`dataset=table` cannot go with `augmentation=flip`: {NO_SPACE}."),
    ("dataset=table augmentation=[blur]", f"`dataset=table` cannot go with `augmentation=blur`: {NO_SPACE}."),
    ("dataset=table loss=mse", "`dataset=table` with task=classification cannot go with `loss=mse`: "),
    ("dataset=table dataset.task=regression loss=bce", "`dataset=table` with task=regression cannot go with `loss=bce`: "),
    ("dataset=none model=net", "`dataset=none` cannot go with `model=net`: "),
    ("model=net regularization=[dropout]",
     "`regularization=dropout` cannot go with `model=net`: this model has no key `dropout`.\nLeave dropout out."),
    ("model=net regularization=[stochastic_depth]", "`regularization=stochastic_depth` cannot go with `model=net`: "),
    ("loss=absolute regularization=[label_smoothing]",
     "`regularization=label_smoothing` cannot go with `loss=absolute`: this loss has no key `label_smoothing`."),
    ("optimizer=newton regularization=[gradient_noise]",
     f"`regularization=gradient_noise` cannot go with `optimizer=newton`: {ONE_LOSS}"),
    ("optimizer=by_factory wrap=[sam]", "`wrap=sam` cannot go with `optimizer=by_factory`: "),
    ("optimizer=newton model=vit_tiny model.attention=fused",
     "`optimizer=newton` cannot go with `model=vit_tiny` with attention=fused: "),
    ("optimizer=plain momentum_schedule=linear",
     "`momentum_schedule=linear` cannot go with `optimizer=plain`: there is no momentum to schedule."),
]  # fmt: skip
ALLOWED = [
    "dataset=silent model=bare augmentation=[quiet] optimizer=plain",
    "dataset=silent model=net augmentation=[blur] loss=absolute sampler=balanced",
    "dataset=iris model=bare augmentation=[quiet]",
    "dataset=table dataset.task=regression model=mlp loss=mse",
    "model=bare optimizer=plain wrap=[lookahead] regularization=[gradient_noise,weight_decay]",
]


@pytest.fixture
def own(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("my_parts", None)
    (workdir / "my_parts.py").write_text(OWN)
    for group, words in WORDS.items():
        for word, name in words.items():
            file = workdir / "conf" / group / f"{word}.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"_target_: my_parts.{name}\n")
    return workdir


@pytest.mark.parametrize("words, message", REFUSED, ids=[row[0] for row in REFUSED])
def test_a_part_of_ones_own_is_refused_with_the_message_of_shipped_ones(words, message, own, dltrain):
    for entry in ((), ("-m", "seed=0,1")):
        with pytest.raises(UserError) as refused:
            dltrain(*entry, *words.split(), "steps=2", "quiet=true")
        assert message in str(refused.value)
        assert len(str(refused.value).splitlines()) == 2
        assert refused.value.exit_code == 2
    assert not (own / "outputs").exists()


@pytest.mark.parametrize("words", ALLOWED)
def test_a_part_that_declares_nothing_is_not_refused(words, own, dltrain):
    assert dltrain(*words.split(), "steps=2", "quiet=true") == 0


def test_the_refusal_comes_before_torch(own):
    code = (
        "import sys; from dltrain.cli import dispatch\n"
        "try: dispatch(['dataset=table', 'augmentation=[blur]'])\n"
        "except Exception as error: print(type(error).__name__, 'torch' in sys.modules, 'my_parts' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=own)
    assert said.stdout.split() == ["UserError", "False", "False"], said.stderr


def test_an_item_that_no_rule_knows_is_refused(own, dltrain):
    (own / "my_parts.py").write_text(OWN.replace('needs = {"images"}', 'needs = {"image"}'))
    with pytest.raises(UserError, match=r"my_parts.Blur declares 'image', .* Did you mean `images`\?"):
        dltrain("augmentation=[blur]", "steps=2")


@pytest.mark.parametrize("needs", ["{1, 2}", "['image']", "compute()", "None", "'image'"])
def test_an_attribute_that_means_something_else_declares_nothing(needs, own):
    (own / "my_parts.py").write_text(OWN.replace('    needs = {"images"}', f"    needs = {needs}"))
    assert declared("my_parts.Blur", (own,)).needs is None


def test_every_item_of_a_rule_is_described_and_declared():
    catalogue = Catalogue(catalogue_dir())
    parts = [part_of(word) for words in catalogue.words.values() for word in words.values() if word.target]
    knobs = [item for knob in KNOBS for item in (*knob.needs, *knob.gives)]
    found = {item for word in parts for item in (*word.needs, *word.gives)} | set(knobs) | {"no strength"}
    for rule in RULES:
        for side in (rule.one, rule.other):
            verb, _, item = side.partition(" ")
            assert item in (NEEDS if verb == "needs" else GIVES), side
            assert item in found or item == "no second derivatives", side
    used = {side for rule in RULES for side in (rule.one, rule.other)}
    assert {item for item in NEEDS if f"needs {item}" not in used} == {"own evaluations"}
    assert {item for item in GIVES if f"gives {item}" not in used} == {"evaluations", "images", "strength"}
    assert set(IMPLIED.values()) | {item for lacking in LACKING.values() for item in lacking} <= set(GIVES)
    assert {item for group in ALL for item in group.needs} <= set(NEEDS)


def test_the_page_lists_every_item():
    page = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
    for item, meaning in (*NEEDS.items(), *GIVES.items()):
        assert f"| {item} | {meaning} |" in page


def test_every_rule_is_broken_by_some_shipped_words_or_a_knob():
    broken = {rule for rule, _, _ in refused_pairs(Catalogue(catalogue_dir()))}
    words = Catalogue(catalogue_dir()).words
    # two of one group can be chosen together, too
    for group in ("augmentation", "regularization"):
        parts = [part for word in words[group].values() for part in parts_alone(word)]
        broken |= {found[0] for pair in combinations(parts, 2) if (found := first_conflict(pair)) is not None}
    knobs = {item for knob in KNOBS for item in (*knob.needs, *knob.gives)}
    for rule in RULES:
        items = {side.partition(" ")[2] for side in (rule.one, rule.other)}
        assert rule in broken or items & (knobs | {"no second derivatives", "no label smoothing"}), rule


@pytest.mark.parametrize(
    "word", ["optimizer=lbfgs", "wrap=sam", "sampler=balanced", "model=mlp", "dataset=csv"]
)
def test_declarations_of_the_source_are_those_of_the_object(word):
    from importlib import import_module

    group, _, name = word.partition("=")
    target = Catalogue(catalogue_dir()).words[group][name].target
    assert target is not None
    module, _, attribute = target.rpartition(".")
    found, source = getattr(import_module(module), attribute), declared(target)
    assert set(getattr(found, "needs", None) or ()) == (source.needs or set()) or word == "wrap=sam"
    assert set(getattr(found, "gives", ())) == source.gives
    assert dict(getattr(found, "instead", {})) == source.instead
