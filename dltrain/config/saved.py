"""The configuration in a run folder: written completely, read as plain data.

The file is long because what is written, read and changed is one format.
"""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from dltrain.config.catalogue import GROUPS, LIST_GROUPS, OVERLAYS, Catalogue, leaves
from dltrain.config.compose import check_lr
from dltrain.config.grammar import check_encoding
from dltrain.config.groups import OF_SWEEPS
from dltrain.config.keys import LENGTH, is_safe
from dltrain.config.schema import Config, to_config
from dltrain.config.secrets import put, resolve
from dltrain.config.validation import (
    check_together,
    check_values,
    checked,
    replace_length,
    words_of,
)
from dltrain.config.values import check_value
from dltrain.config.yaml_files import SafeLoader, check_bounds
from dltrain.direction import problems, resolved_modes
from dltrain.errors import CheckpointProblem, UserError, assigned, nearest, typed
from dltrain.storage.files import replace
from dltrain.storage.folder_names import SWEEP_RECORD
from dltrain.storage.job_names import job_label
from dltrain.storage.summary import read_json, read_text
from dltrain.text import utf8

# fifty times the size of what a run writes
MAX_SAVED_BYTES = 200_000
# former names of the keys of a target
FORMER = {"dltrain.data.image_folder.image_folder": {"size": "image_size"}}
# the place and the length of a run do not affect earlier steps
_ELSEWHERE = ("name", "output", *LENGTH)


def write(config: Config, file: Path) -> None:
    """Write config.yaml atomically: every key with its value, and the chosen words.

    Values from the environment are written as their expressions, `${oc.env:…}`, since they may be secrets.
    """
    replace(file, utf8(dump(as_saved(config))))


def as_saved(config: Config) -> dict[str, Any]:
    """Return what config.yaml holds."""
    found = {**copy.deepcopy(config.plain), "words": config.words}
    put(found, config.secrets)
    return found


def flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved configuration by dotted key, with the chosen words by group."""
    words = content.get("words")
    values = {key: value for key, value in leaves(content) if not key.startswith("words.")}
    return values | (dict(words) if isinstance(words, Mapping) else {})


def dump(content: Any) -> str:
    """Return plain data as YAML, by libyaml where PyYAML has it: 1 ms instead of 5."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    try:
        text: str = yaml.dump(content, Dumper=dumper, sort_keys=False, allow_unicode=True)
    except UnicodeEncodeError:
        # a working folder whose name is in another encoding: PyYAML escapes its letters, and libyaml does not
        text = yaml.dump(content, Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True)
    return text


def placement(run: Path, catalogue: Catalogue) -> dict[str, Any]:
    """Return `device` and `threads` of a run folder's config.yaml; empty where there is none.

    Raises CheckpointProblem for a file that cannot be read, UserError for a value that breaks its rule.
    """
    if not (run / "config.yaml").is_file():
        return {}
    content = load_bounded(run / "config.yaml")
    found = {key: content[key] for key in ("device", "threads") if content.get(key) is not None}
    for key, value in found.items():
        check_value(catalogue.knobs[key], value)
    return found


def binding(config: Config) -> dict[str, Any]:
    """Return the values that a resumed run may not change, by dotted path, as JSON returns them.

    Directions are resolved: before `mode: auto` existed, every configuration had `min` or `max`.
    """
    free = {*_ELSEWHERE, *config.secrets}
    below = tuple(f"{path}." for path in config.secrets)
    values = dict(leaves(config.plain)) | resolved_modes(config.plain)
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return {
        path: value
        for path, value in plain.items()
        if path not in free and not path.startswith(below) and not is_safe(path)
    }


def check_same(run: Path, then: Any, now: dict[str, Any]) -> None:
    """Raise CheckpointProblem, with the differences, where config.yaml is not the one that the checkpoints were made with."""
    if not isinstance(then, dict):
        # the first manifests did not record it
        return
    for path in [path for path in then if path.endswith("._target_")]:
        for former, name in FORMER.get(str(then[path]), {}).items():
            group = path.removesuffix("_target_")
            then = {group + name if key == group + former else key: value for key, value in then.items()}
    changed = [
        f"{key}: {then[key]} → {now[key]}"
        for key in sorted(then.keys() & now.keys())
        if then[key] != now[key]
    ]
    changed += [f"{key}: {then[key]} → (gone)" for key in sorted(then.keys() - now.keys())]
    if changed:
        raise CheckpointProblem(
            f"{run} has a config.yaml that its checkpoints were not made with: {'; '.join(changed[:6])}\n"
            f"Put that back; for a new run with the change: {typed('rerun', run)}"
        )


def best_job(sweep: Path) -> str:
    """Return the number of the best job of a sweep, or of its first one before it is finished."""
    try:
        return job_label(str(read_json(sweep / SWEEP_RECORD).get("best") or "0"))
    except (OSError, ValueError):
        return "0"


def read(
    run: Path,
    catalogue: Catalogue,
    overrides: list[str],
    again: bool = False,
    instead: Mapping[str, dict[str, Any]] | None = None,
) -> Config:
    """Return the configuration of a run folder, with `key=value` changes applied, checked like a new one.

    `instead`: nodes by word for groups that take several, which replace those of the run; a word that the run has keeps its keys.
    A repeated run (`again`) must satisfy every present rule; a resumed or scored run may combine words that an earlier version allowed. Raises
    CheckpointProblem when the folder holds no configuration, UserError for an invalid change.
    """
    file = run / "config.yaml"
    if not file.is_file() and (run / SWEEP_RECORD).is_file():
        raise CheckpointProblem(
            f"{run} is the folder of a sweep. Name runs of it, such as {run / best_job(run)}; all of them: {typed('runs', run)}"
        )
    if not file.is_file():
        raise CheckpointProblem(
            f"{run} is not a run folder: it has no config.yaml. Name one that dltrain made, such as outputs/NAME/DATE_TIME-xxxx."
        )
    content = load_bounded(file)
    choices = read_words(content.pop("words", None), file, catalogue)
    rename_former_keys(content)
    fill_newer_keys(content, catalogue)
    check_nodes(content, choices, file, catalogue)
    for group, nodes in (instead or {}).items():
        content[group], choices[group] = (
            _replaced(content.get(group), choices.get(group, []), nodes),
            list(nodes),
        )
    table = catalogue.params(choices)
    secrets = resolve(content)
    former = problems(content)
    links = {
        path: key
        for g, names in choices.items()
        for n in names
        if g not in OVERLAYS
        for path, key in catalogue.words[g][n].links.items()
    }
    check_lr(overrides)
    for text in followed(overrides, links):
        set_value(content, text, table)
        secrets.pop(text.partition("=")[0], None)
    # `mode: min` was once the default for every metric: such a run keeps its direction
    kept = [
        group
        for group, problem in problems(content).items()
        if former.get(group) == problem and content[group].get("mode", "auto") != "auto"
    ]
    if again:
        return checked(content, choices, overrides, catalogue, secrets, kept=kept)
    replace_length(content, overrides)
    check_values(content, choices, catalogue, secrets=secrets)
    check_together(content, choices, kept, catalogue.words["metrics"])
    return to_config(content, words_of(choices), secrets)


def _replaced(own: Any, chosen: Sequence[str], nodes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nodes of other words of a group, with the keys of the run for words that it chose.

    The record may be somebody else's: a node of another target, or of a word that it does not name, is not that of the word.
    """
    known = own if isinstance(own, dict) else {}
    same = {
        name: known[name]
        for name, node in nodes.items()
        if name in chosen and name in known and known[name].get("_target_") == node.get("_target_")
    }
    return {name: copy.deepcopy(same.get(name, node)) for name, node in nodes.items()}


def repeating(run: Path, catalogue: Catalogue) -> Callable[[str], Config]:
    """Return a function that reads a run with one change for a new run; it raises UserError for one that is refused there."""
    return lambda text: read(run, catalogue, [text], again=True)


def read_words(words: Any, file: Path, catalogue: Catalogue) -> dict[str, list[str]]:
    """Return the chosen words by group; a group that is newer than the saved configuration has none.

    Raises CheckpointProblem where they are missing, UserError for an unknown word.
    """
    if not isinstance(words, dict):
        raise CheckpointProblem(f"{file} does not say which words were chosen (`words`).")
    choices = {g: list(w) if g in LIST_GROUPS and isinstance(w, list) else [w] for g, w in words.items()}
    for group in (g for g in GROUPS if g in catalogue.words and g not in (*OVERLAYS, *OF_SWEEPS)):
        # what such a group has by default is what the program did before
        choices.setdefault(group, catalogue.default_words(group) if group in LIST_GROUPS else ["none"])
    for group, names in choices.items():
        known = catalogue.words.get(group, {})
        for name in names if group not in OVERLAYS else []:  # what a recipe set is written out
            if str(name) not in known:
                raise UserError(
                    f"{file} chose {group}={name}, and there is no such word now.{nearest(str(name), known)}\n"
                    "If its file is in a folder of yours, add: --config-dir FOLDER"
                )
            catalogue.check_usable(group, str(name))
    return {str(group): [str(name) for name in names] for group, names in choices.items()}


def check_nodes(
    content: dict[str, Any], choices: dict[str, list[str]], file: Path, catalogue: Catalogue
) -> None:
    """Raise CheckpointProblem where the node of a chosen word is missing or names no target."""
    for group, names in choices.items():
        nodes = content.get(group) or {}
        inner = nodes.values() if isinstance(nodes, dict) else [nodes]
        if group in LIST_GROUPS and not all(isinstance(node, dict) for node in inner):
            raise CheckpointProblem(f"{file}: each word of `{group}` must be keys with their values.")
        for name in names if group not in OVERLAYS else []:
            node = nodes.get(name) if group in LIST_GROUPS else nodes
            if catalogue.words[group][name].target and not (isinstance(node, dict) and "_target_" in node):
                raise CheckpointProblem(f"{file} chose {group}={name}, and holds no keys of it.")


def rename_former_keys(content: dict[str, Any]) -> None:
    """Give keys that a target had under another name their present one."""
    for node in (node for node in content.values() if isinstance(node, dict)):
        for former, name in FORMER.get(str(node.get("_target_")), {}).items():
            if former in node:
                node.setdefault(name, node.pop(former))


def fill_newer_keys(content: dict[str, Any], catalogue: Catalogue) -> None:
    """Give knobs that are newer than the saved configuration their defaults."""
    known = {field.name for field in fields(Config)}
    for group in LIST_GROUPS:
        words = [catalogue.words[group][name] for name in catalogue.default_words(group)]
        nodes = {name: node for word in words for name, node in word.configuration()[group].items()}
        content.setdefault(group, nodes)
    for path, knob in catalogue.knobs.items():
        head, _, key = path.rpartition(".")
        # keys of a sweep
        if (head or key) not in known:
            continue
        node = content.setdefault(head, {}) if head else content
        if isinstance(node, dict):
            node.setdefault(key, copy.deepcopy(knob.value))


def followed(overrides: list[str], links: dict[str, str]) -> list[str]:
    """Return the changes, and those of the keys that follow a changed one: a saved config holds numbers instead of links."""
    given = {text.partition("=")[0]: text.partition("=")[2] for text in overrides if "=" in text}
    followers = [f"{path}={given[key]}" for path, key in links.items() if key in given and path not in given]
    return overrides + followers


def load_bounded(file: Path) -> dict[str, Any]:
    """Read YAML from a folder that may be a stranger's: bounded in size, without aliases, plain data only."""
    try:
        check_bounds(file, aliases=False, max_bytes=MAX_SAVED_BYTES)
        content = yaml.load(read_text(file, MAX_SAVED_BYTES), Loader=SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        reason = str(error).replace("\n", " ")[:200]
        raise CheckpointProblem(f"{file} cannot be read as a saved configuration: {reason}") from None
    if not isinstance(content, dict):
        raise CheckpointProblem(f"{file} is no configuration.")
    return content


def _place_of_data(key: str, value: str, table: dict[str, Any]) -> str:
    """Return the change that names other data of a run, where another kind of run calls it `key`; or ""."""
    others = {"dataset.path": "dataset.root", "dataset.root": "dataset.path"}
    other = others.get(key, "")
    return f" Its data are named by {other}: {shlex.quote(assigned(other, value))}" if other in table else ""


def set_value(content: dict[str, Any], text: str, table: dict[str, Any]) -> None:
    """Apply one `key=value` to plain data. Raises UserError for an unknown key, or a word of a group."""
    check_encoding(text)
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"`{text}` is not `key=value`. Write the key, `=` and the value.")
    if key not in table or key in GROUPS:
        raise UserError(
            f"`{key}` is no key of this run (its words stay as they are).{_place_of_data(key, value, table) or nearest(key, table)}"
        )
    if key.startswith("sweep."):
        raise UserError(f"`{key}` is a setting of a sweep, and this is one run. Leave {text} out.")
    *parents, last = key.split(".")
    node = content
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise UserError(
                f"`{parent}` is {str(node)[:80]} in config.yaml; it must be keys with their values."
            )
    try:
        node[last] = read_value(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UserError(
            f"`{text[:80]}` cannot be read: its value is not YAML.\nQuote it: {shlex.quote(f'{key}={_quoted(value)}')}"
        ) from None
    check_value(table[key], node[last])


def _quoted(value: str) -> str:
    """Return the value as a quoted YAML text."""
    return "'" + value.replace("'", "''") + "'"


def read_value(text: str) -> Any:
    """Parse a value as the command line does; YAML alone would read 1e-3 as a string, and refuse %d/%m/%Y."""
    value = text if text.startswith("%") else yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
