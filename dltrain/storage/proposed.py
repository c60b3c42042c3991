"""Which texts of a record may be part of a command that a message proposes: on the command line they have the user's rights."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from dltrain.errors import split_command

# what a record decides nothing of: code, where a run is sent, how a sweep runs
_ROOTS = ("hydra", "trust", "sweep", "logger")
_KEY = re.compile(r"\+{0,2}[A-Za-z][\w-]*(\.[A-Za-z0-9][\w-]*)*")
_NAME = re.compile(r"\w[\w.-]*")
_PATHS = ("output", "name", "notes", "tags")  # of the keys without a dot, those that are no words
_LONGEST = 60  # letters of a text that a message names


def options_of(command: str) -> tuple[str, str]:
    """Return the values of `--config-name` and `--config-dir` in a command; "" where it has none, or is damaged."""
    try:
        arguments = split_command(command)
    except ValueError:
        return "", ""
    found = {"-cn": "", "-cd": ""}
    short = {"--config-name": "-cn", "--config-dir": "-cd"}
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        option, equals, value = argument.partition("=")
        option = short.get(option, option)
        if option in found:
            found[option] = value if equals else following
    return found["-cn"], found["-cd"]


def is_rerun(command: str) -> bool:
    """Return whether a command repeats a run, so that its overrides are changes of that one's configuration."""
    return command.startswith("dltrain rerun ")


def beyond_record(overrides: Sequence[str], command: str) -> list[str]:
    """Return the overrides and options of a record that only the user may give, shortened for a message.

    These are the ones that `sweep.resume` and `rerun` do not take from a record (`trust`, Hydra's node, a `_target_`, loggers),
    and files of configuration.
    """
    name, folder = options_of(command)
    found = [text for text in overrides if not _is_plain(text)]
    if folder:
        found.append(f"--config-dir={folder}")
    if name and not _NAME.fullmatch(name):
        found.append(f"--config-name={name}")
    return [text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…" for text in found]


def name_option(command: str) -> list[str]:
    """Return `--config-name` of a recorded command with its value; empty where it has none."""
    name, _ = options_of(command)
    return ["--config-name", name] if name else []


def _is_plain(text: str) -> bool:
    """Return whether an override sets a value, or a word of the catalogue, and nothing that names code or a file of it."""
    key, _, value = text.partition("=")
    path = key.lstrip("+")
    # no logger at all names no code
    if (path, value) in (("logger", "none"), ("logger", "[]")):
        return True
    return (
        _KEY.fullmatch(key) is not None
        and path.partition(".")[0] not in _ROOTS
        and not re.search(r"[{$]|_target_", value)
        and not ("." not in path and path not in _PATHS and "/" in value)
    )
