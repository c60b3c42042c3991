"""The configuration of a run as it lies in its folder: written whole, read as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dltrain.config.catalogue import LIST_GROUPS, Catalogue
from dltrain.config.schema import Config, to_config
from dltrain.config.validation import check_together, check_value, check_values, replace_length
from dltrain.errors import CheckpointProblem, UserError, nearest

MAX_BYTES = 1_000_000


def write(config: Config, file: Path) -> None:
    """Write config.yaml: every key with its value, and the words that were chosen."""
    content = {**config.plain, "words": config.words}
    file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def read(run: Path, catalogue: Catalogue, overrides: list[str]) -> Config:
    """The configuration of a run folder, with `key=value` changes applied, checked like a new one.

    Raises CheckpointProblem when the folder holds none, UserError for a change that does not fit.
    """
    file = run / "config.yaml"
    if not file.is_file():
        raise CheckpointProblem(
            f"{run} is not a run folder: it has no config.yaml. Name one that dltrain made, such as outputs/NAME/DATE_TIME-xxxx."
        )
    content = load_bounded(file)
    words: dict[str, Any] = content.pop("words", {})
    choices = {g: list(w) if g in LIST_GROUPS else [str(w)] for g, w in words.items()}
    for group, names in choices.items():
        for name in names:
            if name not in catalogue.words.get(group, {}):
                raise UserError(
                    f"{file} chose {group}={name}, and there is no such word now.{nearest(name, catalogue.words.get(group, {}))}"
                )
    table = catalogue.params(choices)
    links = {
        path: key
        for g, names in choices.items()
        for n in names
        for path, key in catalogue.words[g][n].links.items()
    }
    for text in followed(overrides, links):
        set_value(content, text, table)
    replace_length(content, overrides)
    check_values(content, choices, catalogue)
    check_together(content, choices)
    return to_config(content, words)


def followed(overrides: list[str], links: dict[str, str]) -> list[str]:
    """The changes, with those of the keys that follow a changed one: a saved config holds numbers, not links."""
    given = {text.partition("=")[0]: text.partition("=")[2] for text in overrides if "=" in text}
    followers = [f"{path}={given[key]}" for path, key in links.items() if key in given and path not in given]
    return overrides + followers


def load_bounded(file: Path) -> dict[str, Any]:
    """Read YAML from a folder that may be a stranger's: bounded in size, without aliases, plain data only."""
    if file.stat().st_size > MAX_BYTES:
        raise CheckpointProblem(f"{file} has {file.stat().st_size} bytes; a config has at most {MAX_BYTES}.")
    text = file.read_text(encoding="utf-8")
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader)):
            raise CheckpointProblem(f"{file} uses YAML aliases, which a saved config never has.")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise CheckpointProblem(f"{file} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise CheckpointProblem(f"{file} is no configuration.")
    return content


def set_value(content: dict[str, Any], text: str, table: dict[str, Any]) -> None:
    """Apply one `key=value` to plain data. Raises UserError for an unknown key, or a word of a group."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"`{text}` is not `key=value`. Write the key, `=` and the value.")
    if key not in table:
        raise UserError(f"`{key}` is no key of this run (its words stay as they are).{nearest(key, table)}")
    *parents, last = key.split(".")
    node = content
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = _read_value(value)
    check_value(table[key], node[last])


def _read_value(text: str) -> Any:
    """A value as the command line means it; YAML alone would take 1e-3 for a text."""
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
