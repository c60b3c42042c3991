"""The catalogue: which groups there are, which words each has, and which keys each word takes.

The YAML files are the table: the first comment line of a word says what it is, and the comment beside a key gives
its rule and meaning. They are read as text, so that help, completion and refusals import neither torch nor Hydra.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from dltrain.config.rules import Rule, parse_rule
from dltrain.errors import UserError

GROUPS = (
    "dataset model initializer optimizer wrap averaging schedule momentum_schedule penalty_schedule regularization "
    "augmentation loss sampler early_stopping diagnostics sweep experiment debug"
).split()
LIST_GROUPS = ("wrap", "regularization", "augmentation", "diagnostics")  # these take several words at once
OVERLAYS = ("experiment", "debug")  # diffs over the other groups: they add no key of their own

_LINE = re.compile(r"(?P<indent> *)(?P<key>[\w]+):(?: (?P<value>.*?))?(?:\s+# (?P<comment>.*))?\s*$")


@dataclass(frozen=True)
class Param:
    """One key: its dotted path, its rule (None in a file without comments), its default as text, its meaning."""

    path: str
    rule: Rule | None
    default: str
    meaning: str


@dataclass(frozen=True)
class Word:
    """One choice: `optimizer=adam`, from one file."""

    group: str
    name: str
    file: Path

    @cached_property
    def text(self) -> str:
        return self.file.read_text(encoding="utf-8")

    @cached_property
    def notes(self) -> dict[str, str]:
        """The header's lines by name: `summary` (the first), `rule`, `symbols`, `paper`, `lecture`, `use`, `default`."""
        lines = [line[1:].strip() for line in self.text.splitlines() if line.startswith("#")]
        lines = [line for line in lines if line and not line.startswith("@package")]
        notes = {"summary": lines[0] if lines else ""}
        for line in lines[1:]:
            name, _, rest = line.partition(": ")
            if re.fullmatch(r"[a-z]+", name):
                notes[name] = rest
            elif len(notes) > 1:
                notes[list(notes)[-1]] += " " + line
        return notes

    @property
    def target(self) -> str | None:
        match = re.search(r"^\s*_target_: *(?!null)([\w.]+)", self.text, re.MULTILINE)
        return match[1] if match else None

    @cached_property
    def everything(self) -> dict[str, Param]:
        """All that this file sets, by dotted path, in its own group and elsewhere."""
        package = re.search(r"# @package (\S+)", self.text)
        prefix = self.group if package is None or package[1] == "_group_" else package[1]
        return {p.path: p for p in read_params(self.text, "" if prefix == "_global_" else prefix)}

    @property
    def params(self) -> dict[str, Param]:
        """The keys of its own group that this file brings (what it sets elsewhere must exist there)."""
        return {path: p for path, p in self.everything.items() if path.startswith(self.group + ".")}

    @property
    def links(self) -> dict[str, str]:
        """The keys that follow another one, such as optimizer.lr: ${lr}, with that one."""
        found = {
            path: re.fullmatch(r"[\"']?\$\{([\w.]+)\}[\"']?", p.default)
            for path, p in self.everything.items()
        }
        links = {path: match[1] for path, match in found.items() if match}
        return links | ({"optimizer.lr": "lr"} if self.own_lr is not None else {})

    @cached_property
    def own_lr(self) -> float | None:
        """The learning rate that the file of an optimizer sets as a number, in place of following the knob `lr`."""
        param = self.everything.get("optimizer.lr") if self.group == "optimizer" else None
        try:
            return float(param.default) if param is not None else None
        except ValueError:
            return None

    @cached_property
    def parents(self) -> tuple[str, ...]:
        """Words of the same group that this file builds upon through a defaults list, in either of YAML's forms."""
        block = re.search(r"^defaults:\s*\n((?:\s*-.*\n?)+)", self.text, re.MULTILINE)
        names = re.findall(r"-\s*(\w+)\s*(?:#.*)?$", block[1], re.MULTILINE) if block else []
        if row := re.search(r"^defaults:\s*\[([\w\s,]*)\]", self.text, re.MULTILINE):
            names = re.findall(r"\w+", row[1])
        return tuple(name for name in names if name != "_self_")


def read_params(text: str, prefix: str) -> Iterator[Param]:
    """Every `key: value  # rule: meaning` of a YAML text, with its dotted path."""
    stack: list[tuple[int, str]] = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None or match["key"] == "defaults":
            continue
        indent = len(match["indent"])
        stack = [(depth, key) for depth, key in stack if depth < indent] + [(indent, match["key"])]
        value = (match["value"] or "").strip()
        if match["key"].startswith("_") or (value == "" and not match["comment"]):
            continue
        path = ".".join([prefix] * bool(prefix) + [key for _, key in stack])
        rule, _, meaning = (match["comment"] or "").partition(": ")
        yield Param(path, parse_rule(rule) if meaning else None, value, meaning)


@dataclass
class Catalogue:
    """All words of all groups, from the shipped catalogue and from the user's own folders."""

    root: Path
    user_dirs: tuple[Path, ...] = ()
    words: dict[str, dict[str, Word]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for folder in (self.root, *self.user_dirs):
            for group in sorted(p for p in folder.iterdir() if p.is_dir() and p.name != "hydra"):
                self._add_group(group)

    def _add_group(self, folder: Path) -> None:
        known = self.words.setdefault(folder.name, {})
        for file in sorted(folder.glob("*.yaml")):
            if file.stem in known:
                raise UserError(
                    f"`{folder.name}={file.stem}` exists twice: {known[file.stem].file} and {file}.\n"
                    "A word has one meaning: rename the second file."
                )
            if self.root not in file.parents:
                from dltrain.config.bounds import check_words_file  # PyYAML: only where there are such files

                check_words_file(file)
            known[file.stem] = Word(folder.name, file.stem, file)

    @cached_property
    def knobs(self) -> dict[str, Param]:
        """The keys of config.yaml: the top-level knobs and the keys common to a whole group."""
        return {p.path: p for p in read_params((self.root / "config.yaml").read_text(encoding="utf-8"), "")}

    def params(self, choices: dict[str, list[str]]) -> dict[str, Param]:
        """Every key that may stand in a configuration with these words chosen, by dotted path."""
        table = dict(self.knobs)
        for group, names in choices.items():
            if group not in OVERLAYS:
                for name in names:
                    table |= self._with_parents(self.words[group][name])
        return table

    def _with_parents(self, word: Word) -> dict[str, Param]:
        """The keys of a word: those of its parents, with their rules; beside a parent it adds none of its own."""
        table: dict[str, Param] = {}
        parents = [self.words[word.group][name] for name in word.parents if name in self.words[word.group]]
        for parent in parents:
            table |= self._with_parents(parent)
        own = word.params
        if parents and word.target is None:
            own = {path: param for path, param in own.items() if path in table or path in self.knobs}
        kept = {path: table.get(path, self.knobs.get(path, param)) for path, param in own.items()}
        return table | {
            path: param if param.rule else replace(kept[path], default=param.default)
            for path, param in own.items()
        }
