"""What a run was asked to do: where its configuration differs from the defaults, and who chose so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dltrain.config.catalogue import OVERLAYS, Catalogue, Word, leaves, written
from dltrain.config.groups import group_of
from dltrain.config.keys import ELSEWHERE, LENGTH, is_safe, keys_of
from dltrain.errors import UserError, split_command
from dltrain.storage.proposed import is_rerun, options_of

# the source of a value whose default is null, and that nobody chose
AUTOMATIC = "automatic"


@dataclass(frozen=True)
class Choice:
    """A word or a key that differs from its default, both as the command line writes them."""

    key: str
    value: str
    default: str
    source: str


@dataclass(frozen=True)
class Sources:
    """Who chose the keys of a run: its overrides, and its recipes and its primary file (`--config-name`) as they are now.

    Args:
        given: keys and groups of the overrides
        recipes: keys and groups that the recipes set; None where one of them, or the primary file, is not there any more
        primary: keys and groups that the primary file sets, and its name
        swept: those of `given` that the command of a sweep does not name: the sweep chose them for its job
        others: who chose the keys where `recipes` is None
    """

    given: frozenset[str]
    recipes: frozenset[str] | None
    primary: frozenset[str] = frozenset()
    file: str = ""
    swept: frozenset[str] = frozenset()
    others: str = "recipe or file"

    @classmethod
    def of(
        cls,
        overrides: Sequence[str],
        chosen: Mapping[str, Sequence[str]],
        catalogue: Catalogue,
        command: str = "",
    ) -> Sources:
        """Return the sources of a run with these overrides and words, by group, that a command began."""
        given = frozenset(keys_of(overrides))
        if is_rerun(command):
            return cls(given, None, others="the run that was repeated")
        swept = given - keys_of_sweep(command, given)
        words = [(group, name) for group in OVERLAYS for name in chosen.get(group, ()) if name != "none"]
        if any(name not in catalogue.words.get(group, {}) for group, name in words):
            return cls(given, None, swept=swept)
        found: set[str] = set()
        for group, name in words:
            found |= set_by(catalogue.words[group][name], catalogue)
        name, folder = options_of(command)
        if not name:
            return cls(given, frozenset(found), swept=swept)
        primary = primary_word(name, folder, catalogue)
        if primary is None:
            return cls(given, None, swept=swept)
        keys = frozenset(set_by(primary, catalogue))
        return cls(given, frozenset(found), keys, primary.file.name, swept)

    def of_key(self, key: str) -> str:
        """Return who chose a key; "" where nobody did, and it is the default at the time of the training."""
        if _is_among(key, self.given - self.swept):
            return "command line"
        if _is_among(key, self.swept):
            return "sweep"
        if self.recipes is None:
            return self.others
        if _is_among(key, self.recipes):
            return "recipe"
        if _is_among(key, self.primary):
            return self.file
        # overrides of `resume` are not kept
        return "command line" if key in LENGTH or is_safe(key) else ""


def keys_of_sweep(command: str, given: frozenset[str]) -> frozenset[str]:
    """Return the keys that the command of a sweep names; `given` for one that is none, or damaged."""
    try:
        arguments = split_command(command)
    except ValueError:
        return given
    if not {"-m", "--multirun"} & set(arguments):
        return given
    return frozenset(keys_of(arguments))


def primary_word(name: str, folder: str, catalogue: Catalogue) -> Word | None:
    """Return the primary file of a run as a recipe; None where it is not there any more."""
    from dltrain.config.yaml_files import read_yaml

    folders = [*([Path(folder)] if folder else []), *catalogue.user_dirs]
    names = (place / f"{name.removesuffix('.yaml')}.yaml" for place in folders)
    try:
        # a stranger's record may hold what is no path
        file = next((path for path in names if path.is_file()), None)
        content = None if file is None else read_yaml(file)[1]
    except (UserError, OSError, ValueError):
        return None
    if file is None or content is None:
        return None
    defaults = content.pop("defaults", None)
    return Word("experiment", file.stem, file, content, tuple(defaults) if isinstance(defaults, list) else ())


def set_by(word: Word, catalogue: Catalogue) -> set[str]:
    """Return the keys and the groups that a recipe sets, those of the recipes on which it builds included."""
    found = set(word.given)
    for item in word.defaults:
        pairs = (
            item.items() if isinstance(item, Mapping) else [] if item == "_self_" else [(word.group, item)]
        )
        for target, names in pairs:
            group = group_of(str(target).removeprefix("override ").strip().lstrip("/"))
            found.add(group)
            for name in names if isinstance(names, list) else [names]:
                parent = catalogue.words.get(group, {}).get(str(name)) if group in OVERLAYS else None
                # a recipe that builds upon itself is refused before a run
                found |= set_by(parent, catalogue) if parent is not None and parent is not word else set()
    return found


def _is_among(key: str, keys: frozenset[str]) -> bool:
    parts = key.split(".")
    return any(".".join(parts[:i]) in keys for i in range(2, len(parts) + 1)) or key in keys


def choices_of(
    content: Mapping[str, Any], overrides: Sequence[str], catalogue: Catalogue, command: str = ""
) -> list[Choice]:
    """Return how a saved configuration differs from the defaults: words first, then keys.

    content: config.yaml as plain data; command: that which began the run. Words that the catalogue does not have now have no
    defaults to compare with.
    """
    return [choice for choice in _all_choices(content, overrides, catalogue, command) if choice.source]


def left_out(
    content: Mapping[str, Any], overrides: Sequence[str], catalogue: Catalogue, command: str = ""
) -> list[str]:
    """Return the words and keys of a saved configuration that differ from the present defaults, and that nobody chose.

    Those that the words of the run choose, such as the model of a dataset, are left out, and those of the machine.
    """
    found = [
        choice
        for choice in _all_choices(content, overrides, catalogue, command)
        if choice.source in ("", AUTOMATIC)
    ]
    words = content.get("words")
    chosen = words.items() if isinstance(words, dict) else ()
    free = set(ELSEWHERE) - {"lr"}
    for group, names in chosen:
        for name in names if isinstance(names, list) else [names]:
            if word := catalogue.words.get(group, {}).get(str(name)):
                free |= {key for key in set_by(word, catalogue) if not key.startswith(f"{group}.")}
    return [choice.key for choice in found if not _is_among(choice.key, frozenset(free))]


def _all_choices(
    content: Mapping[str, Any], overrides: Sequence[str], catalogue: Catalogue, command: str
) -> list[Choice]:
    """Return the choices, with an empty source where nobody made them: the default of the time was another one."""
    words = content.get("words")
    chosen = (
        {str(g): w if isinstance(w, list) else [w] for g, w in words.items()}
        if isinstance(words, dict)
        else {}
    )
    sources = Sources.of(
        overrides, {group: list(map(str, names)) for group, names in chosen.items()}, catalogue, command
    )
    return [*_words(chosen, sources, catalogue), *_keys(content, chosen, sources, catalogue)]


def _words(chosen: Mapping[str, list[Any]], sources: Sources, catalogue: Catalogue) -> Iterator[Choice]:
    for group, names in chosen.items():
        default = catalogue.default_words(group)
        if names != default and not (group in OVERLAYS and names in ([], ["none"])):
            yield Choice(group, _listed(names) or "none", _listed(default) or "none", sources.of_key(group))


def _keys(
    content: Mapping[str, Any], chosen: Mapping[str, list[Any]], sources: Sources, catalogue: Catalogue
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
            source = sources.of_key(path) or (AUTOMATIC if default is None else "")
            yield Choice(path, written(value), stated, source)


def _listed(names: Sequence[object]) -> str:
    return ", ".join(map(str, names))
