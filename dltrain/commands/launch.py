"""`launch=slurm`: one run that trains where a sweep's jobs would, as the only job of a sweep on that backend."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from dltrain.errors import UserError, listing, nearest, typed

LAUNCH, BACKEND = "launch", "sweep.backend"
_LAUNCH = re.compile(r"\+*launch(?P<key>\.[^=]*)?=(?P<value>.*)", re.DOTALL)


def launched(overrides: list[str], multirun: bool, words: list[str]) -> list[str] | None:
    """Return the overrides of a sweep of one job for those of a run with `launch=WORD`; None without one.

    words: those of the group sweep.backend. Raises UserError where `launch` is no choice for this command.
    """
    found = {text: match for text in overrides if (match := _LAUNCH.fullmatch(text))}
    if not found:
        return None
    if multirun:
        text, match = next(iter(found.items()))
        instead = f"{BACKEND}{match['key'] or ''}={match['value']}"
        raise UserError(f"`{text}` is for one run. With -m, write {instead}")
    chosen = [match["value"] for match in found.values() if not match["key"]]
    if not chosen:
        text = next(iter(found))
        raise UserError(f"`{text}` is a key of a place to train, and none is chosen. Add launch=slurm")
    if chosen[-1] not in words:
        raise UserError(
            f"`launch={chosen[-1]}` is no place to train.{nearest(chosen[-1], words)}\n{listing('There are', words)}"
        )
    return [
        f"{BACKEND}{match['key'] or ''}={match['value']}" if (match := found.get(text)) else text
        for text in overrides
    ]


@contextmanager
def as_launch() -> Iterator[None]:
    """Let the refusals inside name `launch` and its keys, which were typed, in place of those of the sweep's backend."""
    try:
        yield
    except UserError as error:
        # a command for the sweep keeps them
        if "-m" not in str(error).split():
            error.args = (str(error).replace(BACKEND, LAUNCH), *error.args[1:])
        raise


def refuse_beside(option: str, overrides: list[str]) -> None:
    """Raise UserError for `launch` beside an option of Hydra that shows a configuration, which says nothing of where it trains."""
    left = [text for text in overrides if not _LAUNCH.fullmatch(text)]
    if len(left) < len(overrides):
        raise UserError(
            f"`launch` says where a run trains, and {option} shows its configuration. Leave it out:\n{typed(*left)}"
        )
