"""What a run was asked to do: where its configuration differs from the defaults, and who chose so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dltrain.config.catalogue import OVERLAYS, Catalogue, leaves, written
from dltrain.config.keys import keys_of


@dataclass(frozen=True)
class Choice:
    """A word or a key that differs from its default, both as the command line writes them."""

    key: str
    value: str
    default: str
    source: str


def choices_of(content: Mapping[str, Any], overrides: Sequence[str], catalogue: Catalogue) -> list[Choice]:
    """Return how a saved configuration differs from the defaults: words first, then keys.

    content: config.yaml as plain data. Words that the catalogue does not have now have no defaults to compare with.
    """
    words = content.get("words")
    chosen = (
        {str(g): w if isinstance(w, list) else [w] for g, w in words.items()}
        if isinstance(words, dict)
        else {}
    )
    given = keys_of(overrides)
    return [*_words(chosen, given, catalogue), *_keys(content, chosen, given, catalogue)]


def _words(chosen: Mapping[str, list[Any]], given: set[str], catalogue: Catalogue) -> Iterator[Choice]:
    for group, names in chosen.items():
        default = catalogue.default_words(group)
        if names != default and not (group in OVERLAYS and names in ([], ["none"])):
            yield Choice(group, _listed(names), _listed(default) or "none", _source(group, given, default))


def _keys(
    content: Mapping[str, Any], chosen: Mapping[str, list[Any]], given: set[str], catalogue: Catalogue
) -> Iterator[Choice]:
    known = {
        group: [name for name in map(str, names) if name in catalogue.words.get(group, {})]
        for group, names in chosen.items()
    }
    words = [
        catalogue.words[group][name]
        for group, names in known.items()
        if group not in OVERLAYS
        for name in names
    ]
    links = {path: key for word in words for path, key in word.links.items()}
    defaults = {path: param.value for path, param in catalogue.params(known).items()}
    for word in words:
        defaults |= {path: value for path, value in leaves(word.configuration()) if path in defaults}
    values = dict(leaves(content))
    for path, value in values.items():
        follows = path in links and value == values.get(links[path])
        if path in defaults and value != defaults[path] and not follows:
            default = defaults[path]
            stated = "none: required" if default == "???" else written(default)
            yield Choice(path, written(value), stated, _source(path, given, default))


def _source(key: str, given: set[str], default: object) -> str:
    if key in given:
        return "command line"
    return "automatic" if default is None else "recipe or file"


def _listed(names: Sequence[object]) -> str:
    return ", ".join(map(str, names))
