"""tags.json of a run folder: the tags that were added to, or removed from, those that the run was begun with.

The run itself writes summary.json, so that tags given afterwards have a file of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dltrain.errors import CheckpointProblem
from dltrain.storage.files import replace
from dltrain.storage.summary import TAGS, read_json, texts

FORMAT = 1


def write_tags(folder: Path, own: Any, add: Iterable[str], remove: Iterable[str]) -> list[str]:
    """Change the tags of a run, and return them; nothing is written where they stay as they are.

    Args:
        folder: the run folder
        own: the tags in its summary.json

    Raises CheckpointProblem where tags.json cannot be read: it is not replaced then.
    """
    content = read_changes(folder)
    removed = [tag for tag in content.get("removed", []) if tag not in add]
    added = [tag for tag in content.get("added", []) if tag not in remove]
    known = texts(own)
    added += [tag for tag in dict.fromkeys(add) if tag not in (*known, *added)]
    removed += [tag for tag in dict.fromkeys(remove) if tag in known and tag not in removed]
    wanted = {"format": FORMAT, "added": added, "removed": removed}
    if wanted != {"format": FORMAT, "added": [], "removed": []} | content:
        replace(folder / TAGS, json.dumps(wanted, indent=1).encode() + b"\n")
    return [tag for tag in known if tag not in removed] + added


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
