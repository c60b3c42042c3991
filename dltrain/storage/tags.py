"""tags.json of a run folder: the tags that were added to, or removed from, those that the run was begun with.

The run itself writes summary.json, so that tags given afterwards have a file of their own.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

from dltrain.errors import CheckpointProblem
from dltrain.storage.files import replace
from dltrain.storage.lock import Lock
from dltrain.storage.summary import TAGS, read_json, texts

FORMAT = 1
# a run may hold run.lock while it is tagged
LOCK = ".tags.lock"
# seconds until another `dltrain tag` has written
PATIENCE = 10.0


def write_tags(folder: Path, own: Any, add: Iterable[str], remove: Iterable[str]) -> list[str]:
    """Change the tags of a run, and return them; nothing is written where they stay as they are.

    Args:
        folder: the run folder
        own: the tags in its summary.json

    Raises CheckpointProblem where tags.json cannot be read: it is not replaced then.
    """
    # dicts keep the order and answer at once: a stranger's file may hold hundreds of thousands of tags
    new, gone, known = dict.fromkeys(add), dict.fromkeys(remove), dict.fromkeys(texts(own))
    lock = Lock(folder, PATIENCE, LOCK)
    try:
        # of a process that was killed
        for left in folder.glob(f".{TAGS}.*.tmp"):
            left.unlink(missing_ok=True)
        content = read_changes(folder)
        removed = _without(content.get("removed", []), new) | {tag: None for tag in gone if tag in known}
        added = _without(content.get("added", []), gone) | {tag: None for tag in new if tag not in known}
        wanted = {"format": FORMAT, "added": [*added], "removed": [*removed]}
        if wanted != {"format": FORMAT, "added": [], "removed": []} | content:
            replace(folder / TAGS, json.dumps(wanted, indent=1).encode() + b"\n")
    finally:
        lock.release()
    return [*_without(known, removed), *added]


def _without(tags: Iterable[str], others: Container[str]) -> dict[str, None]:
    return {tag: None for tag in tags if tag not in others}


def read_changes(folder: Path) -> dict[str, Any]:
    """Return the content of tags.json, checked; empty where there is none. Raises CheckpointProblem."""
    file = folder / TAGS
    try:
        content = read_json(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointProblem(f"{file} cannot be read: {str(error)[:200]}\nMove it away first.") from None
    if content.get("format") != FORMAT:
        raise CheckpointProblem(
            f"{file} has format {str(content.get('format'))[:20]}, and this version knows {FORMAT}."
        )
    return {"format": FORMAT, **{key: texts(content.get(key)) for key in ("added", "removed")}}
