"""Python arguments as the `key=value` texts of the command line, so that there is one way in."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dltrain.config.groups import BY_NAME
from dltrain.errors import UserError

Quote = Callable[[str], str]

# texts that stand for themselves in Hydra's grammar and in YAML
_BARE = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)
_NOT_TEXT = ("null", "true", "false", "inf", "nan", "yes", "no", "on", "off", "y", "n")


def override_texts(words: tuple[Any, ...], knobs: Mapping[str, Any]) -> list[str]:
    """Return the overrides of a call such as `train("optimizer=adam", lr=1e-3)`.

    Raises UserError for an argument that is no text, an option of the command line, or a value without a text.
    """
    return [*_checked(words), *(f"{key}={_text(key, value, _quoted)}" for key, value in knobs.items())]


def axis_texts(words: tuple[Any, ...], knobs: Mapping[str, Any]) -> list[str]:
    """Return the overrides of a sweep: a list, a range or an array gives the values of an axis, a tuple is one value."""
    texts = _checked(words)
    for key, value in knobs.items():
        value = list(value) if isinstance(value, range) else _plain(value)
        values = value if isinstance(value, list) else [value]
        if not values:
            raise UserError(f"`{key}` is an empty list, and an axis needs values. Write {key}=[a, b]")
        texts.append(f"{key}={','.join(_text(key, item, _quoted) for item in values)}")
    return texts


@contextmanager
def lists_as_axes(knobs: Mapping[str, Any]) -> Iterator[None]:
    """Replace the cure of a refused key that was given a list, whose items are the values of an axis, by a tuple."""
    try:
        yield
    except UserError as error:
        for key, value in knobs.items():
            rule = re.match(rf"`{re.escape(key)}` (?:is .*; it )?must be: (list [^.;]*)", str(error))
            if isinstance(value, list) and rule is not None:
                raise UserError(
                    f"`{key}` must be: {rule[1]}. In dltrain.sweep a list gives the values of an axis. "
                    f"Write {key}={tuple(value)!r} for one value that is a list, and a list of such tuples for several"
                ) from None
        raise


def change_texts(words: tuple[Any, ...], knobs: Mapping[str, Any]) -> list[str]:
    """Return changes of a saved configuration, whose values are read as YAML."""
    return [*_checked(words), *(f"{key}={_text(key, value, json.dumps)}" for key, value in knobs.items())]


def _checked(words: tuple[Any, ...]) -> list[str]:
    for word in words:
        if not isinstance(word, str):
            cure = (
                "unpack it: **{…}"
                if isinstance(word, Mapping)
                else 'write "optimizer=adam", or optimizer="adam"'
            )
            raise UserError(f"{_shown(word)} is no `key=value`: a word is given as text; {cure}")
        if word.startswith("-"):
            cures = {"-m": "call dltrain.sweep(…)", "--multirun": "call dltrain.sweep(…)"}
            cure = cures.get(
                word, "for a folder of words, write config_dir=FOLDER" if "-c" in word else "leave it out"
            )
            raise UserError(f"`{word}` is an option of the command line. From Python, {cure}.")
    return list(words)


def _text(key: str, value: Any, quote: Quote) -> str:
    """Return a value as the command line has it."""
    value = _plain(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, str):
        is_bare = _BARE.fullmatch(value) and value.lower() not in _NOT_TEXT
        return value if is_bare else quote(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(_text(key, item, quote) for item in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}: {_text(key, item, quote)}" for name, item in value.items()) + "}"
    raise _no_value(key, value)


def _plain(value: Any) -> Any:
    """Return numbers and arrays of numpy, torch and pandas as Python's own, and paths as text."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.tolist() if hasattr(value, "tolist") and not isinstance(value, type) else value


def _no_value(key: str, value: Any) -> UserError:
    rule = "a word is expected" if key in BY_NAME else "a number, text, bool, None, list or dict is expected"
    if key not in BY_NAME:
        return UserError(f"`{key}` is {_shown(value)}; {rule}.")
    own = value if isinstance(value, type) or hasattr(value, "__qualname__") else type(value)
    return UserError(
        f"`{key}` is {_shown(value)}; {rule}, such as those of: dltrain {key} --help\n"
        f"A class of your own becomes a word by a file conf/{key}/NAME.yaml with the line "
        f"_target_: {own.__module__}.{own.__qualname__}"
    )


def _shown(value: Any) -> str:
    """Return what an object is, without its whole content."""
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    text = " ".join(repr(value).split())
    return f"{text if len(text) <= 60 else text[:60] + '…'} ({type(value).__name__})"


def _quoted(text: str) -> str:
    """Quote text for Hydra: a backslash counts only before a quote."""
    # the backslashes are looked at once, from the first one
    escaped = re.sub(r"(?<!\\)(\\*)'", lambda found: found[1] * 2 + r"\'", text)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{chr(92) * trailing}'"
