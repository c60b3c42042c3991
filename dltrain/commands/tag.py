"""`dltrain tag RUN… +WORD -WORD`: add tags to runs, or remove them; without words print them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dltrain.commands.asked import (
    TEXT,
    TEXTS,
    document_schema,
    is_sweep,
    note,
    object_schema,
    print_json,
    read_options,
    run_folders,
)
from dltrain.errors import UserError
from dltrain.screen.table import one_line, write
from dltrain.storage.index import read_entry
from dltrain.storage.summary import read_json
from dltrain.storage.tags import write_tags

HELP = """
    Tags are words to find runs by: dltrain runs tag=WORD. Those of a finished run, of a running one and of a sweep can change:
    they are kept in its tags.json, beside those that the run was begun with (tags=[a,b]).

  --json    one JSON document on standard output

Examples
  dltrain tag outputs/digits_mlp/2026-01-31_12-00-00-abcd +paper +table2
  dltrain tag abcd 12ef +paper -draft
  dltrain tag abcd
"""
SCHEMA = document_schema(runs={"type": "array", "items": object_schema(path=TEXT, tags=TEXTS)})
# a tag can be typed, and found by tag=WORD
_WORD = re.compile(r"[\w.:/@#-]{1,64}")


def run(arguments: list[str]) -> int:
    """Change the tags and print them."""
    rest, given = read_options("tag", arguments, signed=True)
    signs = [text for text in rest if text[:1] in "+-" and not Path(text).is_dir()]
    folders = run_folders("tag", [text for text in rest if text not in signs])
    former = {folder: set(tags_of(folder, [], [])) for folder in folders}
    found = changed(
        folders,
        [text[1:] for text in signs if text.startswith("+")],
        [text[1:] for text in signs if text.startswith("-")],
    )
    for folder in folders:
        absent = [text[1:] for text in signs if text.startswith("-") and text[1:] not in former[folder]]
        note(f"{folder} has no tag {' '.join(absent)}" if absent else "")
    if "--json" in given:
        print_json({"runs": [{"path": str(path), "tags": tags} for path, tags in found.items()]})
        return 0
    for path, tags in found.items():
        write(f"{one_line(path)}: {one_line(' '.join(tags)) or '(no tags)'}")
    return 0


def tag(*runs: Any, add: Iterable[str] = (), remove: Iterable[str] = ()) -> dict[Path, list[str]]:
    """Add tags to runs, or remove them, and return the tags of each.

    Args:
        runs: runs, sweeps, or their folders
        add: tags that are added
        remove: tags that are removed
    """
    folders = run_folders("tag", runs)
    return changed(folders, list(add), list(remove))


def changed(folders: list[Path], add: list[str], remove: list[str]) -> dict[Path, list[str]]:
    for word in (*add, *remove):
        if not _WORD.fullmatch(word):
            raise UserError(
                f"`{word}` is no tag: it has 1 to 64 letters, digits and . : / @ # _ -, such as +paper"
            )
    if both := set(add) & set(remove):
        raise UserError(f"`{min(both)}` is added and removed. Write one of them")
    return {folder: tags_of(folder, add, remove) for folder in folders}


def tags_of(folder: Path, add: list[str], remove: list[str]) -> list[str]:
    if not add and not remove:
        entry = read_entry(folder, "", is_sweep(folder), ())
        return list(entry.facts["tags"])
    try:
        own = read_json(folder / "summary.json").get("tags")
    except (OSError, ValueError):
        own = []
    return write_tags(folder, own, add, remove)
