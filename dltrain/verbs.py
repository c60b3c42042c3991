"""The verbs of the command line, read from the folder `dltrain/commands` without importing them.

A module is a verb if its first line says how it is typed and what it does:

    `dltrain NAME ARGUMENTS`: meaning

A NAME with a hyphen has an underscore in the name of its file. The function `run(arguments)` of the module returns the exit
code, and its text `HELP`, if it has one, follows on the page of `dltrain NAME --help`. Arguments named RUN and FILE are
completed with run folders and files, FOLDER with folders; `RUN…` takes several.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dltrain.errors import nearest

_FIRST_LINE = re.compile(r'"""`dltrain (?P<usage>(?P<name>[\w-]+)[^`]*)`: (?P<about>.+?)\.?(?:""")?\n')


@dataclass(frozen=True)
class Verb:
    """A verb: how it is typed after `dltrain`, and what it does."""

    name: str
    usage: str
    about: str

    @property
    def module(self) -> str:
        return f"dltrain.commands.{self.name.replace('-', '_')}"

    @property
    def takes_runs(self) -> bool:
        return "RUN" in self.usage

    @property
    def takes_several_runs(self) -> bool:
        return self.usage.count("RUN") > 1 or "RUN…" in self.usage

    @property
    def takes_folder(self) -> bool:
        return "FOLDER" in self.usage

    @property
    def takes_keys(self) -> bool:
        return "=" in self.usage

    @property
    def takes_files(self) -> bool:
        return "FILE" in self.usage


def verbs() -> dict[str, Verb]:
    """Return the verbs by name, sorted."""
    spec = find_spec("dltrain.commands")
    folders = spec.submodule_search_locations if spec is not None else None
    files = sorted(
        (file for folder in folders or () for file in Path(folder).glob("*.py")), key=lambda f: f.name
    )
    return {verb.name: verb for file in files if (verb := _verb_of(file)) is not None}


def means_training(text: str, known: Iterable[str]) -> bool:
    """Return whether a word stands for `train`, which is no verb, rather than for one of the known ones."""
    return text == "train" or "`train`" in nearest(text, (*known, "train"))


def _verb_of(file: Path) -> Verb | None:
    with open(file, encoding="utf-8") as stream:
        found = _FIRST_LINE.match(stream.readline())
    return Verb(**found.groupdict()) if found and found["name"].replace("-", "_") == file.stem else None
