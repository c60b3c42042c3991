"""`dltrain complete LINE`: print the candidates at the end of a line, for the scripts of `completion`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from dltrain.commands.launch import BACKEND
from dltrain.config.catalogue import Catalogue
from dltrain.config.groups import LIST_GROUPS, OVERLAYS, group_of
from dltrain.config.keys import LENGTH, is_safe
from dltrain.config.search_path import catalogue_dir, user_dirs
from dltrain.errors import UserError
from dltrain.verbs import verbs

OPTIONS = ("--help", "--version", "--multirun", "--cfg", "--config-dir", "--config-name")
# of a run below the folder that is being typed: output/NAME/RUN, and a job of a sweep
MAX_DEPTH = 3


def run(arguments: list[str]) -> int:
    """Print the candidates for the last word of a command line; an unreadable line has none."""
    line = arguments[0] if arguments else ""
    try:
        found = candidates(*split(line))
    except (UserError, OSError, ValueError):
        # the command itself reports a mistake in a user's file
        return 0
    print("\n".join(found))
    return 0


def split(line: str) -> tuple[list[str], str]:
    """Return the finished words of a line after the program's name, and the word that is being typed."""
    try:
        words = shlex.split(line)
    # an open quote
    except ValueError:
        words = line.replace("'", "").replace('"', "").split()
    current = "" if not line or line[-1].isspace() else words.pop() if words else ""
    return words[1:], current


def candidates(before: list[str], current: str) -> list[str]:
    """Return all completions of the current word, sorted; those that end in `=`, `.`, `,` or `/` are incomplete."""
    catalogue = Catalogue(catalogue_dir(), user_dirs(_folder_of(before)))
    known = verbs()
    verb = known.get(before[0]) if before else None
    if verb is not None and verb.takes_runs and "=" not in current:
        # the run comes first, then what changes in it
        named = not verb.takes_several_runs and any("=" not in word for word in before[1:])
        found = (
            []
            if named
            else [*run_folders(current), *run_names(current), *(paths(current) if verb.takes_files else ())]
        )
        found = found or [head for head in _heads(catalogue, before) if may_change(verb.name, head[:-1])]
    elif verb is not None and verb.takes_folder and "=" not in current:
        found = [path for path in paths(current) if path.endswith("/")]
        found += _heads(catalogue, before) if verb.takes_keys else ()
    elif "=" in current:
        found = list(values(catalogue, before, current))
    else:
        found = [*_heads(catalogue, before), *(known if not before else ()), *OPTIONS]
    # a line for each: a name with a newline would offer what somebody else chose
    return sorted({text for text in found if text.startswith(current) and text.isprintable()})


def _folder_of(before: list[str]) -> str | None:
    """Return the value of `--config-dir` on the line, where it is a folder."""
    for option, value in zip(before, before[1:], strict=False):
        if option in ("--config-dir", "-cd") and Path(value).is_dir():
            return value
    return None


def chosen(catalogue: Catalogue, before: Iterable[str]) -> dict[str, list[str]]:
    """Return the words by group that a line chooses, and the defaults of the other groups."""
    choices = {
        group: [word] if isinstance(word, str) else list(word or [])
        for group, word in catalogue.defaults.items()
    }
    given: dict[str, list[str]] = {}
    for text in before:
        group, equals, value = text.partition("=")
        if equals and group in catalogue.words:
            given[group] = [word for word in value.strip("[]").split(",") if word]
    for group in OVERLAYS:
        for name in given.get(group, []):
            choices |= chosen_by(catalogue, group, name)
    choices |= given
    known = catalogue.words
    return {g: [w for w in words if w in known[g]] for g, words in choices.items() if g in known}


def chosen_by(catalogue: Catalogue, group: str, name: str) -> dict[str, list[str]]:
    """Return the words by group that the defaults list of a recipe, or of one on which it builds, chooses."""
    word = catalogue.words[group].get(name)
    found: dict[str, list[str]] = {}
    for item in word.defaults if word is not None else ():
        if isinstance(item, str) and item not in ("_self_", name):
            found |= chosen_by(catalogue, group, item)
        for key, value in item.items() if isinstance(item, dict) else ():
            names = value if isinstance(value, list) else [value]
            found[group_of(str(key).split()[-1].lstrip("/"))] = [str(word) for word in names]
    return found


def may_change(verb: str | None, key: str) -> bool:
    """Return whether a key may follow a run: a resumed run takes only what leaves its earlier steps as they are."""
    return verb != "resume" or key in LENGTH or is_safe(key)


def _heads(catalogue: Catalogue, before: list[str]) -> Iterator[str]:
    """Yield `group=`, `knob=` and `group.key=`."""
    yield from (f"{group}=" for group in catalogue.words)
    yield from (f"{path}=" for path in catalogue.params(chosen(catalogue, before)))
    yield "launch="


def values(catalogue: Catalogue, before: list[str], current: str) -> Iterator[str]:
    """Yield the values of `key=…`: words of a group or of a key's rule; also after a comma and inside a list."""
    key, _, typed = current.partition("=")
    if key == "launch":
        yield from (f"launch={word}" for word in catalogue.usable(BACKEND))
    head = typed[: max(typed.rfind(","), typed.rfind("[")) + 1]
    if key in catalogue.words:
        words = catalogue.usable(key)
        opened = "[" if key in LIST_GROUPS and not head and key not in OVERLAYS else ""
        taken = set(head.strip("[").split(","))
        yield from (f"{key}={head}{word}" for word in words if word not in taken)
        yield from (f"{key}={opened}{word}" for word in words if opened)
        return
    param = catalogue.params(chosen(catalogue, before)).get(key)
    if param is not None and param.rule is not None:
        names = [*param.rule.words, *(("true", "false") if "bool" in param.rule.text.split(" or ") else ())]
        yield from (f"{key}={head}{name}" for name in names)
        if "path" in param.rule.text.split(" or "):
            yield from (f"{key}={path}" for path in paths(typed))


def paths(typed: str) -> Iterator[str]:
    """Yield files and folders that begin with `typed`, folders with a slash."""
    folder, _, start = typed.rpartition("/")
    base = Path(folder or ("/" if typed.startswith("/") else "."))
    for item in sorted(os.scandir(base), key=lambda entry: entry.name) if base.is_dir() else ():
        if item.name.startswith(start) and (start or not item.name.startswith(".")):
            yield (f"{folder}/" if "/" in typed else "") + item.name + ("/" if item.is_dir() else "")


def run_folders(typed: str) -> Iterator[str]:
    """Yield runs and the folders that contain them, newest last."""
    for path in paths(typed or "outputs/"):
        folder = Path(path)
        if path.endswith("/") and (is_run(folder) or leads_to_run(folder, MAX_DEPTH)):
            yield path


def run_names(typed: str) -> Iterator[str]:
    """Yield the ends of names, such as 97d0, by which the verbs find runs; also of archived ones, for `restore`."""
    if not typed or "/" in typed:
        return
    from dltrain.storage.folder_names import OUTPUT
    from dltrain.storage.index import scan
    from dltrain.storage.shelves import SHELVES, shelf_of

    for root in (OUTPUT, *(shelf_of(OUTPUT, shelf) for shelf in SHELVES)):
        yield from (path.rpartition("-")[2] for path, sweep, _, _ in scan(root) if not sweep)


def is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() and (folder / "checkpoints").is_dir()


def leads_to_run(folder: Path, depth: int) -> bool:
    """Return whether a folder contains a run."""
    inside = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    return any(is_run(item) for item in inside) or (
        depth > 0 and any(leads_to_run(item, depth - 1) for item in inside if not is_run(item))
    )
