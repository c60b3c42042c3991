"""The JSON Schema accepts what the rules accept, and the recipes that are shipped."""

from __future__ import annotations

import json

import pytest
import yaml

from dltrain.config.catalogue import Catalogue
from dltrain.config.json_schema import rule_schema, schema
from dltrain.config.rules import parse_rule
from dltrain.config.search_path import catalogue_dir

jsonschema = pytest.importorskip("jsonschema", reason="part of the extra `dev`")

CATALOGUE = Catalogue(catalogue_dir())
RULES = sorted({p.rule.text for p in CATALOGUE.knobs.values() if p.rule}
               | {p.rule.text for g in CATALOGUE.words.values() for w in g.values() for p in w.params.values() if p.rule})  # fmt: skip
VALUES = [None, True, False, 0, 1, 2, 3, 8, 10, -1, 0.0, 0.5, 1.0, 1.5, -0.1, 1e9, "", "auto", "min", "relu", "a", "null",
          [], [1], [0.5, 0.9], [1, 2, 3], ["a"], [None], [0.5], [-1, 2], {}, {"a": 1}]  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_schema_and_rule_accept_the_same_values(rule):
    parsed = parse_rule(rule)
    validator = jsonschema.Draft202012Validator(rule_schema(parsed))
    for value in VALUES:
        if isinstance(value, float) and value.is_integer():
            continue  # 1.0 is an integer to JSON Schema, and a float to YAML
        assert validator.is_valid(value) == parsed.accepts(value), value


def test_the_shipped_recipes_are_valid():
    validator = jsonschema.Draft202012Validator(schema(CATALOGUE))
    jsonschema.Draft202012Validator.check_schema(schema(CATALOGUE))
    for group in ("experiment", "debug"):
        for file in (catalogue_dir() / group).glob("*.yaml"):
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            assert [error.message for error in validator.iter_errors(content)] == [], file.name


@pytest.mark.parametrize(
    "text",
    [
        "epoch: 3",
        "epochs: 0",
        "lr: -1",
        "early_stopping: {mode: mim}",
        "defaults: [{override /optimizer: adamm}]",
        "regularization: {l2: {strength: -1}}",
        "regularization: {l22: {strength: 1}}",
        "early_stopping: {patienc: 3}",
        "evaluation: {every_epoch: 3}",
        "model: {hiden: [3]}",
        "model.hidden: [3]",
        "defaults: [{/optimizer: nesterov}]",
        "defaults: [{override optimizer: nesterov}]",
        "defaults: [{override /optimizer: null}]",
        "defaults: [override /optimizer=nesterov]",
        "defaults: {override /optimizer: nesterov}",
    ],
)
def test_a_mistake_is_found(text):
    validator = jsonschema.Draft202012Validator(schema(CATALOGUE))
    assert not validator.is_valid(yaml.safe_load(text))


def test_the_command_prints_it(dltrain, capsys):
    assert dltrain("schema") == 0
    assert json.loads(capsys.readouterr().out)["properties"]["lr"]["description"]
