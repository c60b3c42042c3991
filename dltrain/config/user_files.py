"""Checks of the user's YAML files before they are composed: every entry of a defaults list and every key has an effect.

The file is long because each kind of mistake in a file has its own message, with file, line and cure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dltrain.config.catalogue import Catalogue, Word
from dltrain.config.groups import LIST_GROUPS, OVERLAYS, folder_of, group_of
from dltrain.config.hydra_node import check_plugins
from dltrain.config.yaml_files import place
from dltrain.errors import UserError, listing, nearest

# What a recipe may set of Hydra's node: all else would be ignored.
HYDRA_KEYS = ("callbacks",)
# the keys of a node that are read besides those of its target
READ = ("_target_", "_partial_", "_direction_")
# of Hydra's `instantiate`, which is not used
UNREAD = ("_args_", "_recursive_", "_convert_")
_ENTRY = re.compile(r"\s*(optional\s+)?(override\s+)?(/)?([\w./]+)(@\S*)?\s*$")
# a group, and what follows it in the same text: `optimizer: adam`, `override /optimizer=adam`, `optimizer adam`
_IN_ONE = re.compile(r"\s*(?:override\s+)?/?(?P<group>[\w./]+)(?P<rest>(?![^\s:=]).*)", re.DOTALL)


def check_file(word: Word, catalogue: Catalogue) -> None:
    """Check the file of a word of the user's, and those that its defaults list names. Raises UserError with file and line."""
    catalogue.check_usable(word.group, word.name)
    if catalogue.root in word.file.parents:
        return
    seen: dict[str, str] = {}
    for number, item in enumerate(word.defaults):
        group, names = read_entry(word, number, item, catalogue)
        if item == "_self_" and "_self_" in word.defaults[:number]:
            raise UserError(
                f"{place(word.file, 'defaults', number)}: `_self_` is there already. Leave one of them out"
            )
        if group != word.group and group in seen:
            raise UserError(
                f"{place(word.file, 'defaults', number)}: `{_shown(item)}`: {group} is chosen in line {seen[group]} already. "
                "Leave one of the two lines out"
            )
        seen[group] = place(word.file, "defaults", number).rpartition(" ")[2]
        for name in names:
            if catalogue.words[group][name] is not word:
                check_file(catalogue.words[group][name], catalogue)
    check_keys(word.content, word.file, catalogue, word)
    if not word.kind.overlay:
        _check_target(word)


def lineage(word: Word, catalogue: Catalogue) -> Iterator[Word]:
    """Yield a word, then the words of its group that it builds upon, the last one first."""
    yield word
    for name in reversed(word.parents):
        parent = catalogue.words[word.group].get(name.rpartition("/")[2])
        if parent is not None:
            yield from lineage(parent, catalogue)


def chosen_in(word: Word, catalogue: Catalogue) -> Iterator[tuple[str, list[str]]]:
    """Yield the words that a file chooses through its defaults list, by group, and those of the files it builds upon."""
    for one in lineage(word, catalogue):
        for number, item in enumerate(one.defaults):
            group, names = read_entry(one, number, item, catalogue)
            if group != one.group:
                yield group, names


# The defaults list -------------------------------------------------------------------------------------------------


def read_entry(word: Word, number: int, item: Any, catalogue: Catalogue) -> tuple[str, list[str]]:
    """Return the group and the words of one entry of a defaults list.

    An entry is `_self_`, a word of the same group, or `override /GROUP: WORD`. Raises UserError for anything else, with
    the entry as it is written.
    """
    if item == "_self_":
        return word.group, []
    if isinstance(item, str):
        return word.group, [_parent(word, number, item, catalogue)]
    [(key, value)] = item.items()
    key, where = str(key), place(word.file, "defaults", number)
    match = _ENTRY.match(key)
    group = group_of(match[4]) if match else key
    if group.split(".")[0] == "hydra":
        check_plugins([group], where)
        return "hydra", []
    if match and match[1]:
        raise UserError(_optional(where, _shown(item)))
    if group not in catalogue.words:
        raise UserError(f"{where}: `{key}` names no group.{nearest(group, catalogue.words)}")
    if group == word.group:
        raise UserError(
            f"{where}: `{_shown(item)}` would be ignored: a file of {group} builds on another by its name alone. "
            f"Write `- {value or 'WORD'}`, and `- _self_` below it"
        )
    names = [_name(value) for value in (value if isinstance(value, list) else [value])]
    cure = f"`- {entry(group, names)}`"
    if value is None:
        none = " for none of them" if "none" in catalogue.words[group] else ""
        cure = f"`- {entry(group, ['none' if none else catalogue.default_word(group)])}`{none}"
        raise UserError(
            f"{where}: `{key}:` names no word. Write {cure}\n{listing(f'Words of {group}', catalogue.words[group])}"
        )
    for position, name in enumerate(names):
        if name not in catalogue.words[group]:
            line = place(word.file, "defaults", number, key, *([position] if isinstance(value, list) else []))
            raise UserError(_no_such(line, f"{key}: {name}", group, name, catalogue))
    if isinstance(value, list) and group not in LIST_GROUPS:
        raise UserError(
            f"{where}: `{_shown(item)}`: {group} takes one word. Write `- {entry(group, names[:1] or ['WORD'])}`"
        )
    if match is None or not match[2] or not match[3] or match[5]:
        raise UserError(
            f"{where}: `{_shown(item)}`: an entry that chooses a word begins with `override /`. Write {cure}"
        )
    return group, names


def _optional(where: str, shown: str) -> str:
    required = re.sub(r"^\s*optional\s+", "", shown)
    return f"{where}: `{shown}`: `optional` would hide a misspelling. Write `- {required}`"


def entry(group: str, names: list[str]) -> str:
    """Return the entry of a defaults list that chooses words of a group."""
    several = group in LIST_GROUPS and names != ["none"]
    return f"override /{folder_of(group)}: {'[' + ', '.join(names) + ']' if several else names[0]}"


def _parent(word: Word, number: int, item: str, catalogue: Catalogue) -> str:
    """Return the word of the same group that an entry names."""
    where, known = place(word.file, "defaults", number), catalogue.words[word.group]
    if re.match(r"\s*optional\s", item):
        raise UserError(_optional(where, item))
    name = item.removesuffix(".yaml")
    for folder in (f"/{folder_of(word.group)}/", f"{folder_of(word.group)}/"):
        name = name.removeprefix(folder)
    if name in known and name == item.removeprefix(f"/{folder_of(word.group)}/"):
        return name
    if name in known:
        raise UserError(f"{where}: `{item}` names no word. Write `- {name}`")
    match = _IN_ONE.match(item)
    group = group_of(match["group"]) if match else ""
    rest = match["rest"].strip() if match else ""
    rest = rest[1:] if rest[:1] in (":", "=") else rest
    if group not in catalogue.words and group.rpartition(".")[0] in catalogue.words:
        group, _, rest = group.rpartition(".")
    if "\n" in rest or group not in catalogue.words:
        raise UserError(_no_such(where, item, word.group, item, catalogue))
    names = [n.strip() for n in rest.strip().strip("[]").split(",") if n.strip()]
    if not names:
        raise UserError(
            f"{where}: `{item}` names no word. Write `- {entry(group, [catalogue.default_word(group)])}`\n"
            f"{listing(f'Words of {group}', catalogue.words[group])}"
        )
    raise UserError(f"{where}: `{item}` is not read as a choice of {group}. Write `- {entry(group, names)}`")


def _name(value: Any) -> str:
    # YAML reads `off` as false
    return "none" if value is False else str(value)


def _shown(item: Any) -> str:
    return item if isinstance(item, str) else in_yaml(item)[1:-1]


def _no_such(where: str, shown: str, group: str, name: str, catalogue: Catalogue) -> str:
    known = catalogue.words[group]
    return (
        f"{where}: `{shown}`: there is no such word of {group}.{nearest(name, known)}\n"
        f"{listing(f'Words of {group}', known)}"
    )


# The keys ----------------------------------------------------------------------------------------------------------


def check_keys(
    content: Mapping[str, Any], file: Path, catalogue: Catalogue, word: Word | None = None
) -> None:
    """Check the keys of a file: a recipe, a primary configuration (no `word`), or a word of another group."""
    whole = word is None or word.kind.overlay
    prefix = () if word is None or word.is_global else tuple(word.prefix.split("."))
    for path, value in _items(content):
        where = place(file, *path)
        if "." in path[-1] and _is_container((*prefix, *path[:-1]), catalogue):
            raise UserError(_nested(content, path, value, file))
        if isinstance(value, str) and "${" in value:
            _check_link(".".join(path), value, where)
        if (*prefix, *path) == ("sweep", "space") and not isinstance(value, Mapping):
            raise UserError(
                f"{where}: `sweep.space` is {in_yaml(value)}; it must be axes with their values: `space: {{lr: [0.1, 0.01]}}`"
            )
        if whole and not isinstance(value, Mapping) and _is_section(path, catalogue):
            raise UserError(
                f"{where}: `{'.'.join(path)}` is {in_yaml(value)}; it must be keys with their values: "
                f"`{path[-1]}: {{KEY: VALUE}}`"
            )
        if whole and value == "???":
            raise UserError(
                f"{where}: `{'.'.join(path)}` is ???, which would set nothing. Write a value, or leave the line out"
            )
    if whole:
        _check_groups(content, file, catalogue)
        _check_lr(content, file)
    node = content.get("hydra")
    for key in node if isinstance(node, dict) else ():
        if str(key) not in HYDRA_KEYS:
            raise UserError(
                f"{place(file, 'hydra', str(key))}: `hydra.{key}` cannot be set in a file: a run has no use for it.\n"
                "Write output=FOLDER or name=NAME for the run's folder, and leave the rest out"
            )


def _check_lr(content: Mapping[str, Any], file: Path) -> None:
    """Refuse two learning rates in one file, of which optimizer.lr alone would count."""
    node = content.get("optimizer")
    own = node.get("lr") if isinstance(node, Mapping) else None
    if own is not None and content.get("lr") not in (None, own) and "${" not in str(own):
        raise UserError(
            f"{place(file, 'lr')}: `lr` is {in_yaml(content['lr'])}, and `optimizer.lr` in {place(file, 'optimizer', 'lr').rpartition(', ')[2]} "
            f"is {in_yaml(own)}, so that `lr` would do nothing. Leave one of them out"
        )


def _items(node: Mapping[Any, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every key below a mapping with its path and value."""
    for key, value in node.items():
        yield (*path, str(key)), value
        if isinstance(value, Mapping):
            yield from _items(value, (*path, str(key)))


def _is_container(path: tuple[str, ...], catalogue: Catalogue) -> bool:
    """Return whether the keys below a path are those of the program, and not of a dictionary such as sweep.space."""
    text = ".".join(path)
    if not text or text in catalogue.words or text == "hydra":
        return True
    group, _, name = text.rpartition(".")
    listed = group in LIST_GROUPS and name in catalogue.words[group]
    return listed or any(knob.startswith(f"{text}.") for knob in catalogue.knobs)


def _is_section(path: tuple[str, ...], catalogue: Catalogue) -> bool:
    """Return whether a path is that of keys which belong to no word, such as `evaluation`, or of Hydra's node."""
    text = ".".join(path)
    known = any(knob.startswith(f"{text}.") for knob in catalogue.knobs)
    return text in ("hydra", *(f"hydra.{key}" for key in HYDRA_KEYS)) or (
        known and text not in catalogue.words
    )


def _nested(content: Mapping[str, Any], path: tuple[str, ...], value: Any, file: Path) -> str:
    """Return the message for a dotted key: nested keys say the same, below a part that the file has already."""
    *parents, last = path[-1].split(".")
    outer: Any = content
    for key in path[:-1]:
        outer = outer[key]
    below = [*path[:-1]]
    while parents and isinstance(outer, Mapping) and isinstance(outer.get(parents[0]), Mapping):
        outer = outer[parents[0]]
        below.append(parents.pop(0))
    line = f"{last}: {in_yaml(value)}"
    for parent in reversed(parents):
        line = f"{parent}: {{{line}}}"
    under = ""
    if len(below) > len(path) - 1:
        under = f", below `{below[-1]}:` of line {place(file, *below).rpartition(' ')[2]}"
    return f"{place(file, *path)}: `{path[-1]}` is read as one name, and no key has it. Write `{line}`{under}"


def _check_link(key: str, value: str, where: str) -> None:
    """Raise UserError for an interpolation that cannot be parsed."""
    try:
        OmegaConf.create([value])
    except OmegaConfBaseException:
        closed = value + "}" * (value.count("{") - value.count("}"))
        cure = f" Write `{key.rpartition('.')[2]}: {closed}`" if closed != value else ""
        if closed == f"${{{key}}}":
            cure = " Write the value itself"
        raise UserError(
            f"{where}: `{key}` is {value}, which cannot be read as an interpolation, `${{KEY}}`.{cure}"
        ) from None


def _check_groups(content: Mapping[str, Any], file: Path, catalogue: Catalogue) -> None:
    """Refuse a group that is set to words, as on the command line: a file chooses words in its defaults list."""
    for group in catalogue.words:
        *above, last = group.split(".")
        node: Any = content
        for key in above:
            node = node.get(key) if isinstance(node, Mapping) else None
        if not isinstance(node, Mapping) or last not in node:
            continue
        value, where = node[last], place(file, *above, last)
        if group in OVERLAYS:
            raise UserError(
                f"{where}: `{group}` would be ignored: a file builds on another in its defaults list. "
                f"Write `defaults: [{_name(value) if isinstance(value, str) else 'NAME'}, _self_]`"
            )
        if value is None:
            raise UserError(f"{where}: `{last}:` has no keys below it. Write some, or leave the line out")
        if not isinstance(value, Mapping):
            names = [_name(name) for name in (value if isinstance(value, list) else [value])] or ["none"]
            known = all(name in catalogue.words[group] for name in names)
            cure = (
                f" Write there: `- {entry(group, names)}`"
                if known
                else nearest(names[0], catalogue.words[group])
            )
            raise UserError(
                f"{where}: `{group}` is {in_yaml(value)}; a file chooses words in its defaults list.{cure}"
            )
        for name, keys in value.items() if group in LIST_GROUPS else ():
            if not isinstance(keys, Mapping) and "." not in str(name):
                raise UserError(
                    f"{place(file, *above, last, str(name))}: `{group}.{name}` is {in_yaml(keys)}; "
                    f"it must be keys with their values: `{name}: {{KEY: VALUE}}`"
                )
        _check_private(group, value, file, (*above, last))


def _check_target(word: Word) -> None:
    """Refuse a word that names nothing to build, and keys of Hydra's that have no effect here."""
    _check_private(word.prefix, word.node, word.file, *_paths_of_node(word))
    if word.target or "_target_" in word.node or word.parents or word.name == "none" or word.group == "sweep":
        return
    near = next((key for key in word.node if re.sub(r"\W|_", "", str(key)).lower() == "target"), None)
    if near is not None:
        where = place(word.file, *[(*path, near) for path in _paths_of_node(word)][0])
        raise UserError(f"{where}: `{near}` is not read. Write `_target_: {word.node[near]}`")
    what = "is empty" if not word.content else "names nothing to build: it has no `_target_`"
    raise UserError(f"{word.file} {what}. Write `_target_: module.ClassOrFunction` into it")


def _paths_of_node(word: Word) -> list[tuple[str, ...]]:
    return [(word.group,)] if word.is_global and word.group in word.content else [()]


def _check_private(key: str, node: Mapping[str, Any], file: Path, path: tuple[str, ...]) -> None:
    for name in node:
        if re.fullmatch(r"_\w+_", str(name)) and name not in READ:
            hint = nearest(str(name), READ) if name not in UNREAD else ""
            raise UserError(
                f"{place(file, *path, str(name))}: `{key}.{name}` has no effect: a target gets its arguments by name."
                f"{hint} Leave the line out"
            )


def in_yaml(value: Any) -> str:
    """Return a value as one line of YAML."""
    if isinstance(value, str) and re.fullmatch(r"\$\{.*\}", value):
        return value
    text = yaml.safe_dump(
        value, default_flow_style=True, width=1_000_000, sort_keys=False, allow_unicode=True
    )
    return text.removesuffix("...\n").strip() if not isinstance(value, float) else json.dumps(value)
