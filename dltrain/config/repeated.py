"""Compare what a record says was asked of a run, which somebody would repeat, with its saved configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from typing import Any, NamedTuple

import yaml
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, RangeSweep, Sweep

from dltrain.config.catalogue import GROUPS, OVERLAYS, leaves
from dltrain.config.compose import parse, plain_value
from dltrain.config.keys import ELSEWHERE, LENGTH, is_safe
from dltrain.config.saved import FORMER, flat, read_value
from dltrain.errors import UserError

# letters of an override, and of all of them, that are compared: Hydra's parser reads about 8,000 a second of the worst kind
MOST_LETTERS, MOST_IN_ALL = 1000, 10_000
_LINK = re.compile(r"\$\{([\w.]+)\}")


class Said(NamedTuple):
    """What was compared of one override: what is `wrong` with it, or why it is left `open`; neither where it holds."""

    text: str
    wrong: str = ""
    open: str = ""


def compared(
    content: Mapping[str, Any], texts: Sequence[str], several: bool = False, paths: bool = False
) -> Iterator[Said]:
    """Yield the overrides of a run, `key=value`, that its saved configuration contradicts, or that cannot be compared.

    Keys that a resumed run may change are left out, and values that the run replaces by others, such as auto.

    Args:
        several: whether a key may have several values, of which the configuration has one: the command of a sweep
        paths: whether paths, which may have a `=`, may be among them
    """
    known = flat(content)
    last = {text.lstrip("+").partition("=")[0]: text for text in texts}
    letters = 0
    for key, text in sorted(last.items(), key=lambda item: len(item[1])):
        free = key in LENGTH or (key in ELSEWHERE and key != "lr") or (is_safe(key) and key != "trust")
        if free or key.partition(".")[0] == "sweep":
            continue
        letters += len(text)
        if len(text) > MOST_LETTERS or letters > MOST_IN_ALL:
            yield Said(text, open="too long to compare")
        elif text.startswith("~") or "@" in key or key.partition(".")[0] == "hydra":
            yield Said(text, open="config.yaml does not say")
        else:
            yield _compared(key, text, known, several, paths)


def _compared(key: str, text: str, known: Mapping[str, Any], several: bool, paths: bool) -> Said:
    below = {
        path.removeprefix(f"{key}."): value for path, value in known.items() if path.startswith(f"{key}.")
    }
    if key not in known and not below:
        is_former = any(key.rpartition(".")[2] in names for names in FORMER.values())
        if several or paths or is_former or key in GROUPS:
            return Said(text, open="config.yaml does not say")
        return Said(text, wrong="a key of config.yaml")
    try:
        (override,) = parse([text], None)
        value = override.value()
    except UserError:
        # `rerun` takes YAML that Hydra's grammar does not, such as %d/%m/%Y
        try:
            value = read_value(text.partition("=")[2])
        except (yaml.YAMLError, ValueError, RecursionError):
            return Said(text, open="it cannot be read")
    now = known.get(key, below)
    if isinstance(value, Sweep | Glob) and not several:
        return Said(text, wrong="one value, as each run has")
    value = plain_value(value)
    if key == "trust":
        holds = _is_trusted(value, known)
    elif isinstance(value, dict) and below:
        holds = all(path in below and _may_be(one, below[path], "", known) for path, one in leaves(value))
    elif key in known:
        values = value.list if isinstance(value, ChoiceSweep) else [value]
        holds = any(_may_be(plain_value(one), now, key, known) for one in values)
    else:
        holds = value is None
    return Said(text) if holds else Said(text, wrong=f"{str(now)[:80]}, the value in config.yaml")


def _is_trusted(asked: Any, known: Mapping[str, Any]) -> bool:
    """Return whether modules are those that a configuration trusts, or that it names: a resumed run may trust others."""
    names = list(map(str, asked)) if isinstance(asked, list) else [str(asked)]
    trusted = known.get("trust")
    used = [value for value in known.values() if isinstance(value, str)]
    return all(
        name in (trusted if isinstance(trusted, list) else [trusted])
        or any(value == name or value.startswith(f"{name}.") for value in used)
        for name in names
    )


def _may_be(asked: Any, now: Any, key: str, known: Mapping[str, Any]) -> bool:
    """Return whether a value of a saved configuration may be the one that was asked for."""
    if isinstance(asked, Glob):
        return any(fnmatch(name, pattern) for name in _names(now) for pattern in asked.include)
    if isinstance(asked, RangeSweep | IntervalSweep):
        return _is_within(asked, now)
    if key in GROUPS or key in OVERLAYS:
        # keys of a word are compared by their own names
        return not isinstance(asked, str | list) or _names(asked) == _names(now)
    if isinstance(asked, list):
        return (
            isinstance(now, list)
            and len(asked) == len(now)
            and all(_may_be(one, other, "", known) for one, other in zip(asked, now, strict=True))
        )
    if isinstance(asked, dict):
        return isinstance(now, dict) and asked.keys() == now.keys()
    if isinstance(asked, str) and "${" in asked:
        return _may_follow(asked, now, known)
    if asked is None or asked == "auto":
        # the run replaces them
        return True
    if isinstance(asked, str) and isinstance(now, int | float):
        # a text may stand for a number
        with suppress(ValueError):
            return float(asked) == now
        return True
    if isinstance(now, str):
        return str(asked).lower() == now.lower() if not isinstance(asked, str) else asked == now
    return bool(asked == now or (asked != asked and now != now))


def _may_follow(asked: str, now: Any, known: Mapping[str, Any]) -> bool:
    """Return whether a value may be that of an expression: of the environment is saved as it is."""
    if "oc.env" in asked:
        return isinstance(now, str) and "oc.env" in now
    link = _LINK.fullmatch(asked)
    return link is None or link[1] not in known or known[link[1]] == now


def _is_within(asked: RangeSweep | IntervalSweep, now: Any) -> bool:
    stop = asked.stop if isinstance(asked, RangeSweep) else asked.end
    if not isinstance(now, int | float) or asked.start is None or stop is None:
        return False
    return bool(min(asked.start, stop) <= now <= max(asked.start, stop))


def _names(words: Any) -> list[Any]:
    return [name for name in (words if isinstance(words, list) else [words]) if name not in ("none", None)]
