"""The catalogue: all groups, the words of each, and the keys of each word.

A word is a YAML file that names a target. The target's signature is the schema of its keys (`config.signature`); the file
holds only what differs from it. All of this is stored in conf/catalogue.json for the shipped words (`config.build`), so
that help, completion and refusals read one file and import neither torch nor Hydra. The user's files are read when they
are needed. Comments of a file are for its reader and never a rule.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from dltrain.config.declarations import Declared, declared
from dltrain.config.groups import BY_NAME, FAMILIES, GROUPS, LIST_GROUPS, OVERLAYS, Group, folder_of, group_of
from dltrain.config.rules import Rule, parse_rule
from dltrain.config.signature import Parameter, Signature, declared_direction, read_signature
from dltrain.declare import GIVES, NEEDS
from dltrain.errors import UserError, nearest

__all__ = ["GROUPS", "LIST_GROUPS", "OVERLAYS", "Catalogue", "Param", "Word"]

# of conf/catalogue.json
FORMAT = 1
STORED = "catalogue.json"
# of a metric: whether lower (min) or higher (max) is better
DIRECTION = "_direction_"
_LINK = re.compile(r"\$\{([\w.]+)\}")


@dataclass(frozen=True)
class Param:
    """One key: its dotted path, its rule (None where its type is not known), its default and its meaning."""

    path: str
    rule: Rule | None
    value: Any
    meaning: str

    @property
    def default(self) -> str:
        """The default as the command line writes it."""
        return written(self.value)


def written(value: Any) -> str:
    """Return a value as it is written on the command line and in YAML."""
    if isinstance(value, float) and math.isfinite(value) and value != 0 and not 1e-3 <= abs(value) < 1e5:
        mantissa, _, exponent = f"{value:e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    if isinstance(value, str):
        return value if re.fullmatch(r"[\w./${}:-]+", value) else json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Word:
    """One choice such as `optimizer=adam`, from one file.

    Args:
        content: the file's data without its defaults list
        package: the package that its header names for Hydra
        header: the first comment of a word without a target, which is its summary
        problem: why the word cannot be used: its file cannot be read, or its target has no valid schema
    """

    group: str
    name: str
    file: Path
    content: Mapping[str, Any] = field(default_factory=dict)
    defaults: tuple[Any, ...] = ()
    package: str | None = None
    header: str = ""
    signature: Signature = Signature()
    declared: Declared = Declared(complete=False)
    problem: str = ""

    @property
    def kind(self) -> Group:
        return BY_NAME.get(self.group, Group(self.group, ""))

    @cached_property
    def is_global(self) -> bool:
        """Whether the file's keys are those of a whole configuration."""
        return self.kind.overlay or self.package == "_global_"

    @cached_property
    def node(self) -> Mapping[str, Any]:
        """What the file states about its own word."""
        node: Any = self.content.get(self.group, {}) if self.is_global else self.content
        if self.kind.several and isinstance(node, Mapping) and "_target_" not in node:
            node = node.get(self.name, {})
        return node if isinstance(node, Mapping) else {}

    @property
    def target(self) -> str | None:
        found = self.node.get("_target_")
        return found if isinstance(found, str) else None

    @property
    def prefix(self) -> str:
        """The path of the word's keys in a configuration."""
        return f"{self.group}.{self.name}" if self.kind.several else self.group

    @cached_property
    def notes(self) -> dict[str, str]:
        """`summary` and, for a word with a target, `rule`, `symbols`, `paper`, `lecture`, `use` and `default`."""
        own = {"summary": self.header} if self.header else {}
        return {"summary": "", **self.signature.notes, **own}

    @cached_property
    def keys(self) -> dict[str, Any]:
        """The word's own keys with their defaults: those of the signature, overridden by the file."""
        own = {key: value for key, value in self.node.items() if not str(key).startswith("_")}
        keys = self.signature.defaults() | own
        if not self.kind.overlay and (self.target or self.defaults):
            keys |= {knob: f"${{{knob}}}" for knob in self.kind.knobs if knob in keys}
        return keys

    @cached_property
    def knobs(self) -> dict[str, Any]:
        """The top-level knobs whose defaults depend on this word, such as the learning rate of an optimizer."""
        given = {} if not self.is_global else {k: v for k, v in self.content.items() if k != self.group}
        keys = self.signature.defaults() | dict(self.node)
        for knob in self.kind.knobs:
            if knob in keys and not _LINK.fullmatch(str(keys[knob])):
                given.setdefault(knob, keys[knob])
        return given

    @cached_property
    def everything(self) -> dict[str, Param]:
        """All keys that this word sets, by dotted path, in its own group and elsewhere."""
        table = {}
        for path, value in leaves(self.configuration()):
            meaning = self._parameter(path.rpartition(".")[2]) if path in self.knobs else None
            meaning = meaning or self._parameter(path[len(self.prefix) + 1 :])
            if path in self.knobs or path.startswith(self.prefix + ".") or self.is_global:
                table[path] = _param(path, meaning, value)
        return {path: param for path, param in table.items() if not _is_private(path)}

    def _parameter(self, name: str) -> Parameter | None:
        return next((p for p in self.signature.parameters if p.name == name), None)

    @cached_property
    def given(self) -> set[str]:
        """The dotted paths that the file sets itself."""
        prefix = "" if self.is_global else self.prefix + "."
        node: Mapping[str, Any] = self.content if self.is_global else self.node
        return {path for path, _ in leaves(node, prefix)}

    @property
    def params(self) -> dict[str, Param]:
        """The keys of this word in its own group; what the file sets beyond a known signature is not a key."""
        unknown = set() if self.signature.open_ended else set(self.keys) - set(self.signature.defaults())
        return {
            path: p
            for path, p in self.everything.items()
            if path.startswith(self.group + ".") and path[len(self.prefix) + 1 :] not in unknown
        }

    @property
    def links(self) -> dict[str, str]:
        """The keys that follow another key, such as optimizer.lr: ${lr}, with that key."""
        found = {path: _LINK.fullmatch(str(p.value)) for path, p in self.everything.items()}
        return {path: match[1] for path, match in found.items() if match}

    @property
    def parents(self) -> tuple[str, ...]:
        """Words of the same group on which this file builds through its defaults list."""
        return tuple(str(item) for item in self.defaults if isinstance(item, str) and item != "_self_")

    def configuration(self) -> dict[str, Any]:
        """Return what the word adds to a configuration, from the top: its keys, and what else its file sets."""
        outside = {k: v for k, v in self.content.items() if k != self.group} if self.is_global else {}
        if self.kind.overlay:
            return dict(self.content)
        own: dict[str, Any] = {"_target_": self.target} if "_target_" in self.node else {}
        own |= {k: v for k, v in self.node.items() if str(k).startswith("_")} | self.keys
        if self.kind.several:
            own = {self.name: own} if own else {}
        return {**outside, **self.knobs, self.group: own}


def _param(path: str, parameter: Parameter | None, value: Any) -> Param:
    if parameter is None:
        return Param(path, None, value, "")
    rule = parse_rule(parameter.rule) if parameter.rule else None
    return Param(path, rule, value, parameter.meaning)


def _is_private(path: str) -> bool:
    """Return whether a path is one of Hydra's own keys, such as `_target_`."""
    return any(part.startswith("_") for part in path.split("."))


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every dotted path of a plain configuration with its value; dictionaries are entered, lists are values."""
    for key, value in node.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, path + ".")
        else:
            yield path, value


# Reading ----------------------------------------------------------------------------------------------------------


def read_word(group: str, file: Path, folders: tuple[Path, ...] = ()) -> Word:
    """Read a word from its YAML file, with the signature of its target; `folders` hold the user's code.

    Raises UserError, naming file and line, for a file that is not YAML, is too large or too deep, or holds no keys.
    """
    from dltrain.config.yaml_files import read_yaml

    text, content = read_yaml(file)
    defaults = content.pop("defaults", None) or []
    check_defaults_list(defaults, file)
    package, header = read_header(text)
    word = Word(group, file.stem, file, content, tuple(defaults), package, header)
    check_package(word)
    return with_signature(word, folders)


def check_defaults_list(defaults: Any, file: Path) -> None:
    """Raise UserError unless a defaults list holds words of the same group and `override /GROUP: WORD`."""
    if not isinstance(defaults, list):
        items = defaults.items() if isinstance(defaults, dict) else [(defaults, None)]
        first = next((f"{key}: {value}" if value is not None else str(key) for key, value in items), "_self_")
        raise UserError(f"{file}: `defaults` must be a list: begin each entry with a dash. Write `- {first}`")
    for item in defaults:
        named = isinstance(item, dict) and len(item) == 1 and str(next(iter(item))).strip()
        if not (named or (isinstance(item, str) and item.strip())):
            raise UserError(
                f"{file}: `defaults` holds {str(item)[:80]}; it must hold words, or one `override /GROUP: WORD` an item."
            )


def check_package(word: Word) -> None:
    """Raise UserError for a header that names another package than the word's own or the whole configuration."""
    allowed = (None, "_global_") if word.kind.overlay else (None, "_global_", "_group_", word.group)
    if word.package not in allowed:
        raise UserError(
            f"{word.file}: `# @package {word.package}` would have no effect. Leave that line out, or write `# @package _global_`"
        )
    if not isinstance(word.node.get("_partial_", False), bool):
        raise UserError(f"{word.file}: `_partial_` is {word.node['_partial_']}; it must be true or false.")


def with_signature(word: Word, folders: tuple[Path, ...] = ()) -> Word:
    """Return the word with the schema of its target, where its source can be found."""
    target = word.target
    if target is None:
        return word
    stated = DIRECTION in word.node or not word.kind.directed
    if not stated and (direction := declared_direction(target, folders)):
        word = with_private(word, DIRECTION, direction)
    signature = read_signature(
        target, lambda names, function: word.kind.skipped(names, word.node, function), folders
    )
    if signature is None:
        return word
    own = declared(target, folders)
    for item in sorted(own.names() - NEEDS.keys() - GIVES.keys()):
        raise UserError(
            f"{word.file}: {target} declares {item!r}, which no rule knows.{nearest(item, [*NEEDS, *GIVES])}\n"
            "docs/extending.md lists what a part can need and give."
        )
    return replace(word, signature=signature, declared=own)


def with_private(word: Word, key: str, value: Any) -> Word:
    """Return the word as if its own node held one more of the keys that are not passed to the target."""
    content = dict(word.content)
    node = content
    # the same descent as in Word.node
    if word.is_global:
        node[word.group] = node = dict(node.get(word.group, {}))
    if word.kind.several and "_target_" not in node:
        node[word.name] = node = dict(node.get(word.name, {}))
    node[key] = value
    return replace(word, content=content)


def read_header(text: str) -> tuple[str | None, str]:
    """Return the package that the comments above a file's first key name for Hydra, and their first sentence."""
    package, header = None, ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            break
        said = stripped.lstrip("#").strip()
        if match := re.fullmatch(r"@package\s+(\S+)", said):
            package = match[1]
        elif said and not header:
            header = said
    return package, header


def derived(group: str, word: Word) -> Word:
    """Return a word of another group for a family, with the family's ranges and defaults."""
    family = FAMILIES[group]
    parameters = tuple(
        replace(
            parameter,
            default=family.default(word.name, parameter.name, parameter.default),
            rule=family.rule or parameter.rule,
            meaning=parameter.meaning.replace("multiple of lr", family.noun),
        )
        if parameter.name in ("start", "peak", "end")
        else parameter
        for parameter in word.signature.parameters
    )
    notes = {k: v.replace("it multiplies lr", family.effect) for k, v in word.signature.notes.items()}
    # lr decays, and what is scheduled here rises by default
    title = re.sub(r"^(\w+ )?decay", r"\1change", notes.get("summary", "")).replace("Decay", "Change")
    values = [
        p.default for p in parameters if p.name in ("start", "peak", "end") and isinstance(p.default, float)
    ]
    span = ": " * bool(values) + " → ".join(f"{value:g}" for value in values)
    notes["summary"] = f"{title.rstrip('.')} ({family.noun}{span})."
    # those of the other group are said of lr
    notes["use"] = family.use
    notes.pop("default", None)
    signature = replace(word.signature, parameters=parameters, notes=notes)
    return replace(word, group=group, signature=signature, declared=Declared())


def unless_broken(word: Word, read: Callable[[], Word]) -> Word:
    """Return what `read` returns; where it raises UserError, the word with that problem, which blocks nothing else."""
    try:
        return word if word.problem else read()
    except UserError as error:
        return replace(word, problem=str(error))


@dataclass
class Catalogue:
    """All words of all groups, from the shipped catalogue and from the user's folders."""

    root: Path
    user_dirs: tuple[Path, ...] = ()
    words: dict[str, dict[str, Word]] = field(default_factory=dict)
    # of config.yaml: its defaults list and Hydra's node
    settings: dict[str, Any] = field(default_factory=dict)
    # the top-level knobs and the keys common to a group
    knobs: dict[str, Param] = field(default_factory=dict)
    # of `params`, by choices: a sweep asks for each job
    tables: dict[Any, dict[str, Param]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.words:
            self.load(json.loads((self.root / STORED).read_text(encoding="utf-8")))
        for folder in self.user_dirs:
            for inside in sorted(p for p in folder.iterdir() if p.is_dir() and p.name != "hydra"):
                self.add_group(inside.name, inside)
            for group in (name for name in GROUPS if "." in name):
                self.add_group(group, folder / folder_of(group))

    def load(self, stored: Mapping[str, Any]) -> None:
        """Add the shipped words and knobs from the data of conf/catalogue.json."""
        self.settings = dict(stored["settings"])
        self.knobs = {
            path: Param(path, parse_rule(rule) if rule else None, value, meaning)
            for path, rule, value, meaning in stored["knobs"]
        }
        for group, words in stored["words"].items():
            self.words[group] = {name: self._stored_word(group, name, item) for name, item in words.items()}
        self.add_families()

    def _stored_word(self, group: str, name: str, item: Mapping[str, Any]) -> Word:
        parameters = tuple(Parameter(*entry) for entry in item.get("keys", ()))
        signature = Signature(
            parameters, item.get("notes", {}), item.get("details", ""), not item.get("closed", False)
        )
        return Word(
            group,
            name,
            self.root / folder_of(group) / f"{name}.yaml",
            item.get("content", {}),
            tuple(item.get("defaults", ())),
            item.get("package"),
            item.get("header", ""),
            signature,
            Declared(
                frozenset(item["needs"]) if "needs" in item else None,
                frozenset(item.get("gives", ())),
                item.get("instead", {}),
                requires=frozenset(item.get("requires", ())),
            ),
        )

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The default word, or list of words, of each group."""
        items = (item for item in self.settings["defaults"] if isinstance(item, dict))
        return {group_of(str(group)): word for item in items for group, word in item.items()}

    def add_families(self) -> None:
        """Add the words of groups that share the words of another group."""
        for group, family in FAMILIES.items():
            known = self.words.setdefault(group, {})
            for name, word in self.words[family.source].items():
                if name not in known:
                    known[name] = derived(group, word)

    def add_group(self, group: str, folder: Path) -> None:
        """Read the words of one of the user's group folders."""
        known = self.words.setdefault(group, {})
        names = []
        for file in sorted(folder.glob("*.yaml")):
            if (other := known.get(file.stem)) is not None:
                problem = f"`{group}={file.stem}` exists twice: {other.file} and {file}.\n"
                known[file.stem] = replace(
                    other, problem=f"{problem}A word has one meaning: rename the second file."
                )
                continue
            names.append(file.stem)
            empty = Word(group, file.stem, file)
            known[file.stem] = unless_broken(empty, partial(read_word, group, file, (Path.cwd(),)))
        for step in (self.check_ancestors, self.with_keys_of_parents):
            for name in names:
                known[name] = unless_broken(known[name], partial(step, known[name]))
        for family in (name for name, family in FAMILIES.items() if family.source == group):
            for name in names:
                self.words[family].setdefault(name, derived(family, known[name]))

    def broken(self) -> list[Word]:
        """Return the words of the user that cannot be used; they are refused where they are chosen."""
        words = (word for group in self.words.values() for word in group.values() if word.problem)
        return list({word.problem: word for word in words}.values())

    def usable(self, group: str) -> list[str]:
        """Return the words of a group that can be chosen."""
        return [name for name, word in self.words[group].items() if not word.problem]

    def check_usable(self, group: str, name: str) -> None:
        """Raise UserError for a word that cannot be used."""
        word = self.words.get(group, {}).get(name)
        if word is not None and word.problem:
            raise UserError(word.problem)

    def with_keys_of_parents(self, word: Word) -> Word:
        """Return a word of a group that takes several with the keys of the words on which it builds in its own file.

        Hydra would put these keys under the names of those words, and so choose them.
        """
        known = self.words[word.group]
        parents = [self.with_keys_of_parents(known[name]) for name in word.parents if name in known]
        for parent in parents:
            self.check_usable(word.group, parent.name)
        if not parents or not word.kind.several or word.is_global:
            return word
        content: dict[str, Any] = {}
        for parent in parents:
            content |= parent.node
        rest = tuple(item for item in word.defaults if item not in known and item != "_self_")
        own = word.content.get(word.name)
        content |= own if isinstance(own, Mapping) else word.content
        whole = replace(word, content=content, defaults=rest)
        return with_signature(whole, (Path.cwd(),))

    def check_ancestors(self, word: Word, path: tuple[str, ...] = ()) -> Word:
        """Return the word. Raises UserError if it builds upon itself."""
        path = (*path, word.name)
        if word.name in path[:-1]:
            raise UserError(f"{word.file} builds upon itself: {' → '.join(path)}. Change its `defaults`.")
        for name in word.parents:
            if name in self.words[word.group]:
                self.check_ancestors(self.words[word.group][name], path)
        return word

    def params(self, choices: Mapping[str, Iterable[str]]) -> dict[str, Param]:
        """Return every key that a configuration with these words may contain, by dotted path."""
        key = tuple((group, tuple(names)) for group, names in choices.items() if group not in OVERLAYS)
        if key not in self.tables:
            table = dict(self.knobs)
            for group, names in key:
                for name in names:
                    table |= self.with_parents(self.words[group][name])
            self.tables[key] = {path: self.following(param) for path, param in table.items()}
        return dict(self.tables[key])

    def following(self, param: Param) -> Param:
        """Give a key that follows a knob by default the knob's rule: lr=auto is valid for optimizer.lr, too."""
        link = _LINK.fullmatch(str(param.value))
        knob = self.knobs.get(link[1]) if link else None
        return param if knob is None else replace(param, rule=knob.rule)

    def default_words(self, group: str) -> list[str]:
        """Return the default words of a group, from the defaults list of config.yaml."""
        words = self.defaults.get(group, [])
        return [words] if isinstance(words, str) else list(words)

    def default_word(self, group: str) -> str:
        """Return the first default word of a group."""
        return next(iter(self.default_words(group)), "none")

    def with_parents(self, word: Word) -> dict[str, Param]:
        """Return the keys of a word and of its parents, with their rules; a word with parents adds no keys itself."""
        table: dict[str, Param] = {}
        parents = [self.words[word.group][name] for name in word.parents if name in self.words[word.group]]
        for parent in parents:
            table |= self.with_parents(parent)
        own = word.params
        if parents and word.target is None:
            own = {path: param for path, param in own.items() if path in table or path in self.knobs}
        kept = {path: table.get(path, self.knobs.get(path, param)) for path, param in own.items()}
        return table | {
            path: param if param.rule else replace(kept[path], value=param.value)
            for path, param in own.items()
        }
