"""Every word of the catalogue: described by its signature, with defaults that keep their own rules; stored as it is."""

from __future__ import annotations

import inspect
import math
import re

import pytest

from dltrain.config import build
from dltrain.config.catalogue import GROUPS, OVERLAYS, Catalogue
from dltrain.config.door import Door
from dltrain.config.rules import SPEC, parse_rule
from dltrain.config.search_path import catalogue_dir
from dltrain.config.signature import REQUIRED
from dltrain.config.validation import check_values
from dltrain.errors import UserError

CATALOGUE = Catalogue(catalogue_dir())
WORDS = [word for group in CATALOGUE.words.values() for word in group.values()]
TARGETED = [word for word in WORDS if word.target and word.group not in OVERLAYS]
names = {"ids": lambda word: f"{word.group}={word.name}"}


def test_the_stored_catalogue_is_current():
    """`python -m dltrain.config.build` writes it."""
    assert (catalogue_dir() / "catalogue.json").read_text(encoding="utf-8") == build.text()


@pytest.mark.parametrize("word", WORDS, **names)
def test_notes_rules_and_meanings_are_complete(word):
    assert word.group in GROUPS
    assert 0 < len(word.notes["summary"]) <= 100, "the first line says what the word is"
    assert word.name not in ("on", "off", "yes", "no", "y", "n")
    if word.target and word.group not in OVERLAYS:
        wanted = {"use"} if word.group in ("dataset", "logger") else {"rule", "use"}
        assert wanted <= set(word.notes), word.notes
        assert re.fullmatch(r"–|(L[0-4] ?)+", word.notes.get("lecture", "–"))
    for param in word.signature.parameters:
        assert param.rule is not None, f"{param.name} has no type that is a rule"
        assert param.meaning, f"{param.name} has no meaning"


@pytest.mark.parametrize("word", WORDS, **names)
def test_defaults_keep_their_own_rules(word):
    for param in CATALOGUE.params({word.group: [word.name]}).values():
        linked = isinstance(param.value, str) and param.value.startswith("${")
        if linked or param.value == REQUIRED or param.rule is None:
            continue
        assert param.rule.accepts(param.value), f"{param.path}={param.value!r} against {param.rule.text}"


@pytest.mark.parametrize("word", TARGETED, **names)
def test_what_the_source_says_is_what_python_calls(word):
    """The signature read from the source against `inspect`'s of the imported object, which is what is called."""
    if word.name == "timm":
        pytest.importorskip("timm", reason="an optional extra")
    target = Door({word.target}, trust=[], local=False).locate(word.target, word.group)
    called = list(inspect.signature(target).parameters.values())
    # by the program itself
    passed = {*word.kind.runtime, *word.kind.called, "fused", "contract", "differences", "like", "tolerant"}
    wanted = {p.name: p.default for p in called if p.name not in passed and p.kind is not p.VAR_KEYWORD}
    read = dict(word.signature.defaults())
    own = {p: v for p, v in read.items() if p not in word.node}
    assert set(read) == set(wanted)
    for key, value in own.items():
        if wanted[key] is inspect.Parameter.empty:
            assert value == REQUIRED
        elif word.group not in ("momentum_schedule", "penalty_schedule"):  # these have other defaults
            assert value == (list(wanted[key]) if isinstance(wanted[key], tuple) else wanted[key]), key


@pytest.mark.parametrize("word", TARGETED, **names)
def test_files_set_keys_that_exist(word):
    shared = {path.partition(".")[2] for path in CATALOGUE.knobs if path.startswith(word.group + ".")}
    keys = {key for key in word.node if not key.startswith("_")}
    assert keys <= {p.name for p in word.signature.parameters} | shared


def test_knobs_have_rules_and_defaults_that_keep_them():
    for param in CATALOGUE.knobs.values():
        assert param.rule is not None, param.path
        assert param.meaning, param.path
        assert param.rule.accepts(param.value), param.path


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


def outside(rule: str) -> list[object]:
    """Values just outside of a rule: beyond each bound of each of its types, and a word that it does not list."""
    values: list[object] = ["no such word"] if not re.search(r"\b(str|path|dict)\b", rule) else []
    for part in (match for match in map(SPEC.fullmatch, rule.split(" or ")) if match):
        beyond: list[float] = [math.nan, math.inf] if part["type"] == "float" else [1.5]
        if part["sign"]:
            beyond.append(float(part["bound"]) + {">": 0.0, ">=": -1.0, "<": 0.0, "<=": 1.0}[part["sign"]])
        if part["low"]:
            beyond.append(float(part["low"]) - (part["open"] == "["))
            beyond.append(float(part["high"]) + (part["close"] == "]"))
        if part["type"] in ("int", "float"):
            length = {None: 0, "list": 1, "pair": 2}[part["many"]]
            values += [[value] * length if length else value for value in beyond]
    return values


@pytest.mark.parametrize("word", TARGETED, **names)
def test_values_outside_their_range_are_refused(word):
    """What the constructors rely on: they repeat no check that an annotation states."""
    table = CATALOGUE.params({word.group: [word.name]})
    for path, param in table.items():
        for value in outside(param.rule.text) if path in word.params and param.rule else ():
            plain = {}
            *parents, last = path.split(".")
            node = plain
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = value
            with pytest.raises(UserError, match=re.escape(f"`{path}` is ")):
                check_values(plain, {word.group: [word.name]}, CATALOGUE)
