"""The catalogue as a JSON Schema, with which an editor completes and checks recipes and words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dltrain.config.catalogue import Catalogue, Param
from dltrain.config.groups import BY_NAME, OVERLAYS, folder_of
from dltrain.config.rules import Rule

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(catalogue: Catalogue) -> dict[str, Any]:
    """Return the schema of a recipe (conf/experiment/NAME.yaml): knobs, the keys of every word, and a defaults list."""
    properties: dict[str, Any] = {}
    for param in catalogue.knobs.values():
        _place(properties, param.path.split("."), key_schema(param))
    for group, words in catalogue.words.items():
        if group not in OVERLAYS:
            for word in words.values():
                for path, param in word.params.items():
                    _place(properties, path.split("."), key_schema(param))
    # a target with **kwargs, or one whose source cannot be read, takes keys of any name
    targeted = [w for known in catalogue.words.values() for w in known.values() if w.target]
    _close(properties, {w.prefix for w in targeted if w.signature.open_ended})
    properties["defaults"] = defaults_schema(catalogue)
    return {
        "$schema": DIALECT,
        "title": "dltrain recipe",
        # an empty file is a recipe, too
        "type": ["object", "null"],
        "properties": properties,
        "additionalProperties": False,
    }


def _place(properties: dict[str, Any], path: list[str], leaf: dict[str, Any]) -> None:
    """Insert the schema of a key; a key of several words accepts the values of each."""
    *parents, last = path
    for parent in parents:
        node = properties.setdefault(parent, {"type": "object", "properties": {}})
        node = properties[parent] = node if "properties" in node else {"type": "object", "properties": {}}
        properties = node["properties"]
    before = properties.get(last)
    if before is None or "properties" in before or before == leaf:
        properties.setdefault(last, leaf)
        return
    choices = before["anyOf"] if set(before) == {"anyOf"} else [before]
    properties[last] = {"anyOf": choices if leaf in choices else [*choices, leaf]}


def _close(properties: dict[str, Any], open_ended: set[str], path: str = "") -> None:
    """Let every node have its known keys alone, and keys such as `_target_`, except those at the paths in `open_ended`."""
    for name, node in properties.items():
        if "properties" not in node:
            continue
        if path + name not in open_ended:
            node |= {"additionalProperties": False, "patternProperties": {"^_[a-z]+_$": {}}}
        _close(node["properties"], open_ended, f"{path}{name}.")


def key_schema(param: Param) -> dict[str, Any]:
    """Return the schema of a key from its rule and meaning; an interpolation such as ${lr} is always allowed."""
    found = rule_schema(param.rule) if param.rule is not None else {}
    if found:
        found = {"anyOf": [found, {"type": "string", "pattern": r"^\$\{.*\}$"}]}
    if param.meaning:
        found["description"] = param.meaning
    return found


def rule_schema(rule: Rule) -> dict[str, Any]:
    """Return the schema of the values that a rule accepts.

    >>> from dltrain.config.rules import parse_rule
    >>> rule_schema(parse_rule("float in [0, 1) or auto"))
    {'anyOf': [{'type': 'number', 'minimum': 0.0, 'exclusiveMaximum': 1.0}, {'const': 'auto'}]}
    """
    parts = list(rule.alternatives)
    return parts[0] if len(parts) == 1 else {"anyOf": parts}


def defaults_schema(catalogue: Catalogue) -> dict[str, Any]:
    """Return the schema of a defaults list: words of this folder, `_self_`, and `override /GROUP: WORD`."""
    overrides = {
        f"override /{folder_of(group)}": _words(group, catalogue.usable(group))
        for group in catalogue.words
        if group not in OVERLAYS
    }
    mapping = {
        "type": "object",
        "properties": overrides,
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    recipes = {"enum": ["_self_", *sorted({name for group in OVERLAYS for name in catalogue.usable(group)})]}
    return {"type": "array", "items": {"anyOf": [recipes, mapping]}}


def _words(group: str, words: Iterable[str]) -> dict[str, Any]:
    one = {"enum": sorted(words)}
    if group in BY_NAME and BY_NAME[group].several:
        return {"anyOf": [one, {"type": "array", "items": one}]}
    return one
