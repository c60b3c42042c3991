"""Every word of the catalogue: its file is well formed, its keys are those of its target, and it builds and steps."""

from __future__ import annotations

import inspect
import re

import pytest
import yaml

from dltrain.config.catalogue import GROUPS, LIST_GROUPS, OVERLAYS, Catalogue, read_params
from dltrain.config.door import Door
from dltrain.config.rules import parse_rule
from dltrain.config.search_path import catalogue_dir

CATALOGUE = Catalogue(catalogue_dir())
WORDS = [word for group in CATALOGUE.words.values() for word in group.values()]
TARGETED = [word for word in WORDS if word.target and word.group not in OVERLAYS]
names = {"ids": lambda word: f"{word.group}={word.name}"}


def node_of(word):
    """The node of a word's own group, as plain data."""
    content = yaml.safe_load(word.text) or {}
    if "@package _global_" in word.text:
        content = content[word.group]
    return content[word.name] if word.group in LIST_GROUPS else content


@pytest.mark.parametrize("word", WORDS, **names)
def test_header_and_rules_are_complete(word):
    assert word.group in GROUPS
    assert 0 < len(word.notes["summary"]) <= 100, "the first comment line says what the word is"
    assert word.name not in ("on", "off", "yes", "no", "y", "n")
    if word.name != "none" and word.group not in OVERLAYS:
        wanted = {"use"} if word.group == "dataset" else {"rule", "paper", "lecture", "use", "default"}
        assert wanted <= set(word.notes), word.notes
        assert re.fullmatch(r"–|(L[0-4] ?)+", word.notes.get("lecture", "–"))
    for param in word.params.values():
        if param.default.startswith("${"):
            continue
        assert param.rule is not None, f"{param.path} has no rule"
        assert param.meaning, f"{param.path} has no meaning"


@pytest.mark.parametrize("word", WORDS, **names)
def test_defaults_keep_their_own_rules(word):
    for param in word.params.values():
        value = yaml.safe_load(param.default)
        if isinstance(value, str) and value.startswith("${"):
            continue
        if isinstance(value, str) and re.fullmatch(r"[-\d.]+e[-+]?\d+", value):
            value = float(value)
        assert param.rule.accepts(value), f"{param.path}={value!r} against {param.rule.text}"


@pytest.mark.parametrize("word", TARGETED, **names)
def test_keys_are_the_arguments_of_the_target(word):
    if word.name == "timm":
        pytest.importorskip("timm", reason="an optional extra")
    target = Door({word.target}, trust=[], local=False).locate(word.target, word.group)
    parameters = inspect.signature(target).parameters
    keys = {key for key in node_of(word) if not key.startswith("_")}
    if word.group == "dataset":  # what belongs to every dataset stands in config.yaml
        keys -= {path.split(".")[1] for path in CATALOGUE.knobs if path.startswith("dataset.")}
    if word.group == "sweep":  # how many trials there are is the driver's business
        keys -= {"trials"}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    assert keys <= set(parameters) or open_ended, keys - set(parameters)


def test_knobs_have_rules_and_defaults_that_keep_them():
    for param in CATALOGUE.knobs.values():
        if not param.path.startswith("hydra") and param.default != "{}":
            assert param.rule is not None, param.path
            assert param.rule.accepts(yaml.safe_load(param.default)), param.path


@pytest.mark.parametrize(
    "rule, good, bad",
    [
        ("float > 0", [1e-3, 1], [0, -1, float("nan"), float("inf"), "1e-3", True, None]),
        ("int >= 1", [1, 10], [0, 1.5, True, "1"]),
        ("float in [0, 1)", [0, 0.5], [1, -0.1, 1.0]),
        ("float in (0, 1]", [1, 0.5], [0]),
        ("pair of float in [0, 1)", [[0.9, 0.999]], [[0.9], [0.9, 1.0], 0.9]),
        ("list of int >= 1", [[], [256, 128]], [[0], ["a"], 3]),
        ("float > 0 or auto or null", [0.1, "auto", None], ["auto!", 0]),
        ("bool", [True, False], [0, 1, "true"]),
        ("min or max", ["min", "max"], ["mim", None]),
    ],
)  # fmt: skip
def test_rules_accept_what_they_say(rule, good, bad):
    parsed = parse_rule(rule)
    assert [value for value in good if not parsed.accepts(value)] == []
    assert [value for value in bad if parsed.accepts(value)] == []


def test_params_are_read_with_their_paths():
    text = "a: 1  # int >= 1: one\nb:\n  c: [1, 2]  # list of int >= 1: two\n  _target_: x.y\nd: e\n"
    assert {p.path: (p.default, p.meaning) for p in read_params(text, "g")} == {
        "g.a": ("1", "one"),
        "g.b.c": ("[1, 2]", "two"),
        "g.d": ("e", ""),
    }
