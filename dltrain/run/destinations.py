"""Loggers that send a run elsewhere: to a server, or into a store outside the run folder.

Where they send to is for the user to say, on a command line or in a word of the user's own `conf/`. The record of a run does
not count, since it may be a stranger's. So that the user's own runs keep their loggers when they are resumed, what the user
said is remembered on this machine, as hashes beside the caches; on another machine one more key says it again.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dltrain.config.door import Door, hash_of_node
from dltrain.config.schema import Config, Node
from dltrain.data.cache_folder import folder
from dltrain.errors import assigned
from dltrain.storage.files import replace
from dltrain.storage.summary import read_text
from dltrain.text import say

# hashes of the settings of loggers, one a line
REMEMBERED = "loggers.txt"
MAX_BYTES = 1_000_000


def build_loggers(config: Config, door: Door) -> dict[str, Any]:
    """Build the loggers of a run; of a record, leave out those that would send where no command of the user's said.

    A logger sends elsewhere where its class has a static method `destination` that returns the key and the value, of its keys, that
    say where.
    """
    say_left_out(config, door)
    unknown = {word for word, *_ in left_out(config, door)}
    kept = {word: node for word, node in config.logger.items() if word not in unknown}
    for word, node in kept.items():
        if destination_of(node, f"logger.{word}", door):
            remember(node)
    return {word: door.build(node, f"logger.{word}") for word, node in kept.items()}


def left_out(config: Config, door: Door) -> list[tuple[str, str, Any]]:
    """Return the loggers that a record alone names, each with the key and the value that say where it sends."""
    if door.local:
        return []
    return [
        (word, *where)
        for word, node in config.logger.items()
        if (where := destination_of(node, f"logger.{word}", door)) and not is_known(word, node, door)
    ]


def destination_of(node: Node, key: str, door: Door) -> tuple[str, Any] | None:
    """Return the key and the value that say where a logger sends; None for one that writes into the run folder."""
    ask = getattr(door.locate(node.get("_target_"), key), "destination", None)
    found: tuple[str, Any] | None = ask(node) if callable(ask) else None
    return found


def is_known(word: str, node: Mapping[str, Any], door: Door) -> bool:
    """Return whether the user named a logger of a record: now, in a word of `conf/`, or in an earlier command on this machine."""
    return word in door.asked or hash_of_node(node) in door.own or hash_of_node(node) in remembered()


def say_left_out(config: Config, door: Door, again: str = "") -> None:
    """Say which loggers were left out, and what to add; `again`: what to type where no key can be added."""
    for word, key, value in left_out(config, door):
        add = f"add: {shlex.quote(assigned(f'logger.{word}.{key}', value))}"
        say(
            f"logger.{word} is left out: its `{key}` is {str(value)[:80]} in the record, and no command of yours on this machine "
            f"named that.\nIf the run is to be sent there, {again or add}"
        )


def file() -> Path:
    return folder() / REMEMBERED


def remembered() -> set[str]:
    """Return the hashes of what the user's commands named on this machine."""
    with suppress(OSError, ValueError, RuntimeError):
        return set(read_text(file(), MAX_BYTES).split())
    return set()


def remember(node: Mapping[str, Any]) -> None:
    """Remember a logger that the user named; where that cannot be written, a later `resume` asks for it again."""
    known = remembered()
    if (found := hash_of_node(node)) in known:
        return
    with suppress(OSError, RuntimeError):
        os.makedirs(file().parent, exist_ok=True)
        replace(file(), "".join(f"{text}\n" for text in sorted({*known, found})).encode())
