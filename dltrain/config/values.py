"""Checks of single values against the rules of their keys; messages name key, value, rule, meaning and what to write."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import yaml

from dltrain.config.catalogue import OVERLAYS, Catalogue, Param, Word, written
from dltrain.config.conflicts import value as at
from dltrain.config.groups import BY_NAME
from dltrain.config.rules import LONGEST_PART, LONGEST_PATH, Rule
from dltrain.config.user_files import lineage
from dltrain.config.yaml_files import place
from dltrain.errors import UserError, nearest


def as_function(path: str) -> str:
    """Return what a function must take to be a part itself: one that takes less has its arguments as keys."""
    called = BY_NAME[path.split(".")[0]].called if path.split(".")[0] in BY_NAME else ()
    return f"\nA function of {path.split('.')[0]} takes ({', '.join(called)}, …)" if called else ""


def fits_rule(param: Param, value: Any) -> bool:
    return value != "???" and (param.rule is None or param.rule.accepts(value))


def check_value(param: Param, value: Any, asked: Any = None, where: str = "") -> None:
    """Check one value against its rule; the message names its place in a file, key, value, rule, meaning and the nearest word."""
    if isinstance(value, str) and value == "???":
        meaning = f": {param.meaning}" if param.meaning else ""
        raise UserError(
            f"`{param.path}` must be given{meaning}. Write {param.path}=VALUE{as_function(param.path)}"
        )
    if param.rule is None or param.rule.accepts(value):
        return
    if asked is not None:
        raise UserError(_from_environment(param, asked))
    shown = "nan" if isinstance(value, float) and math.isnan(value) else value
    kind = (
        f" (the text {value!r})"
        if isinstance(value, str) and re.fullmatch(r"[-+.\deE]+|true|false|null", value)
        else ""
    )
    hint = nearest(str(value), param.rule.words) if isinstance(value, str) else ""
    hint = hint or _written_otherwise(param, value, bool(where))
    if isinstance(value, str) and value and "path" in param.rule.text.split(" or "):
        hint = f" A path has at most {LONGEST_PATH:,} bytes, each of its parts at most {LONGEST_PART}, and no NUL."
    # a file of a word may set the very value that is refused
    fits = param.default not in ("", "null") and (param.rule.accepts(param.value) or "${" in param.default)
    default = f" Leave it out for {param.default}." if fits else ""
    meaning = f"{param.path}: {param.meaning}." if param.meaning else ""
    rule = re.sub(r"( or cuda:\d)+", " or cuda:N", param.rule.text)
    raise UserError(
        f"{where + ': ' if where else ''}`{param.path}` is {shown}{kind}; it must be: {rule}.{hint}\n{meaning}{default}".strip()
    )


def _from_environment(param: Param, asked: Any) -> str:
    """Return the message for a value that comes from the environment, which may be a secret: it arrives as a text."""
    assert param.rule is not None
    name = re.search(r"\$\{oc\.env:\s*(\w+)", str(asked))
    cure = f' To let the shell put it in: {param.path}="${name[1]}"' if name else ""
    return f"`{param.path}` is the text of {asked}; it must be: {param.rule.text}.{cure}\n{param.path}: {param.meaning}."


def _written_otherwise(param: Param, value: Any, in_file: bool = False) -> str:
    """Return how to write a value of the right content and the wrong type; empty where the content is wrong, too."""
    assert param.rule is not None
    key = param.path.rpartition(".")[2]
    number = _as_yaml(value) if isinstance(value, str) and re.fullmatch(r"[-+.\deE]+", value) else None
    if param.rule.accepts([value]):
        return f" Write `{key}: [{value}]`" if in_file else f" Write {param.path}=[{value}]"
    if isinstance(value, int | float) and param.rule.accepts(str(value)):
        text = str(value).lower() if isinstance(value, bool) else value
        return f' Write `{key}: "{text}"`' if in_file else f" Write '{param.path}=\"{text}\"'"
    if number is not None and param.rule.accepts(number):
        return f" Write `{key}: {value}`" if in_file else f" Write {param.path}={value}"
    if isinstance(value, float) and value.is_integer() and param.rule.accepts(int(value)):
        return f" Write `{key}: {int(value)}`" if in_file else f" Write {param.path}={int(value)}"
    items = re.fullmatch(r"-(\S+(?: -\S+)*)", str(value))
    listed = [_as_yaml(item) for item in items[1].split(" -")] if items else []
    if in_file and listed and param.rule.accepts(listed):
        return f" A dash is followed by a space. Write `{key}: [{', '.join(map(str, listed))}]`"
    return ""


def spread(param: Param | None, key: str, values: Sequence[Any]) -> tuple[str, str]:
    """Return the values of an axis, each in the form that the rule of its key accepts, and the list of all of them.

    Both are overrides as bash takes them; empty where the rule accepts none. A `param` of None is a group of several words.
    """
    rule = param.rule if param is not None else None
    texts = [_in_form(rule, value) for value in values]
    each = f"{key}={','.join(texts)}" if all(texts) else ""
    listed = rule is None or rule.accepts(list(values))
    whole = f"{key}=[{','.join(map(written, values))}]" if listed else ""
    return shlex.quote(each) if each else "", shlex.quote(whole) if whole else ""


def _in_form(rule: Rule | None, value: Any) -> str:
    """Return a value as a rule accepts it: as it is, as a list of one, or as a text; empty where it accepts none of them."""
    text = written(value)
    if rule is None or rule.accepts(value) or "${" in str(value):
        return text
    return f"[{text}]" if rule.accepts([value]) else f'"{text}"' if rule.accepts(text) else ""


def chosen_words(choices: dict[str, list[str]], catalogue: Catalogue) -> Iterator[Word]:
    """Yield the chosen words and those that they build upon; recipes first, since they are merged last."""
    for group in (*reversed(OVERLAYS), *(name for name in choices if name not in OVERLAYS)):
        for name in choices.get(group, ()):
            if name in catalogue.words.get(group, {}):
                yield from lineage(catalogue.words[group][name], catalogue)


def setters(path: str, choices: dict[str, list[str]], catalogue: Catalogue) -> Iterator[tuple[str, Any]]:
    """Yield the place and the value of a key in the files of the chosen words, the one that holds first."""
    for word in chosen_words(choices, catalogue):
        keys = path.split(".")[0 if word.is_global else len(word.prefix.split(".")) :]
        if any(path == key or key.startswith(path + ".") for key in word.given):
            content = dict(word.content if word.is_global else word.node)
            yield place(word.file, *keys), at(content, ".".join(keys))


def source_of(path: str, choices: dict[str, list[str]], catalogue: Catalogue) -> str:
    """Return the place where a file sets a key; empty where none does."""
    return next((where for where, _ in setters(path, choices, catalogue)), "")


def refuse_value(
    param: Param, value: Any, asked: Any, choices: dict[str, list[str]], catalogue: Catalogue
) -> None:
    """Refuse a value with the place of the file that sets it, or with the value that the key has in a file without it."""
    found_in = list(setters(param.path, choices, catalogue))
    where = next((where for where, found in found_in if found == value), "")
    if found_in and not where:
        param = replace(param, value=found_in[0][1])
    check_value(param, value, asked, where)


def _as_yaml(text: str) -> Any:
    """Return the value of a text in YAML; None for text that is none."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return None
