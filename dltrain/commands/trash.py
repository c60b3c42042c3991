"""`dltrain trash RUN…`: move runs and sweeps to the trash; only `dltrain trash --empty` deletes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dltrain import text
from dltrain.commands.archive import MOVED, put, report
from dltrain.commands.asked import TEXT, document_schema, object_schema, print_json, read_options
from dltrain.errors import UserError, typed
from dltrain.screen.table import Column, lines, write
from dltrain.storage.folder_names import OUTPUT
from dltrain.storage.index import Entry, Index
from dltrain.storage.query import when
from dltrain.storage.shelves import discarded, empty, shelf_of, trashes
from dltrain.text import counted, short_path

HELP = """
    The folders move to .dltrain/trash beside the output folder; `dltrain restore` brings them back. Nothing is deleted, and
    nothing is replaced. A run that is training stays, and a sweep moves as a whole.

  --list [OUTPUT]     list the trash beside an output folder; by default, beside outputs
  --empty [OUTPUT]    delete the whole trash beside an output folder permanently, with all that --list shows; asks first,
                      and keeps what comes meanwhile
  --yes               do not ask
  --json              one JSON document on standard output

Examples
  dltrain trash outputs/digits_mlp/2026-01-31_12-00-00-abcd
  dltrain trash abcd 12ef
  dltrain trash --list
  dltrain trash --empty
"""
ITEM = object_schema(path=TEXT, when=TEXT, status=TEXT)
SCHEMA: dict[str, Any] = document_schema(moved=MOVED)
SCHEMA["oneOf"] += [
    object_schema(trash={"type": "array", "items": ITEM}),
    object_schema(deleted={"type": "array", "items": TEXT}),
]
# status of what lies in the trash and is neither run nor sweep
NO_RUN = "no run"
_ANSWER = "delete"


def run(arguments: list[str]) -> int:
    """Move runs to the trash, list it, or empty it."""
    rest, given = read_options("trash", arguments, flags=("--list", "--empty", "--yes"))
    as_json = "--json" in given
    if "--yes" in given and "--empty" not in given:
        raise UserError("`--yes` goes with --empty; nothing else asks first. Leave it out")
    if "--list" in given or "--empty" in given:
        check_alone(rest, given)
        base = base_of(rest)
        if "--empty" in given:
            check_no_link(Path(rest[0]) if rest else OUTPUT)
            delete(base, "--yes" in given, as_json, typed("trash", "--empty", *rest, "--yes"))
        else:
            show(base, as_json)
    else:
        report(put("trash", rest, "trash"), as_json)
    return 0


def trash(*runs: Any) -> list[Path]:
    """Move runs and sweeps to the trash beside their output folder, and return where they are now.

    Raises CheckpointProblem for what is no run, FolderInUse for one that is training: none of them is moved then.
    """
    return [to for _, to in put("trash", runs, "trash")]


def check_alone(rest: Sequence[str], given: dict[str, str]) -> None:
    if "--list" in given and "--empty" in given:
        raise UserError("`--list` and `--empty` are two commands. Write one of them")
    if len(rest) > 1:
        raise UserError(f"`{rest[1]}`: --list and --empty take one output folder, and no runs")


def check_no_link(folder: Path) -> None:
    """Refuse an output folder that is, or lies behind, a link: in somebody else's project it may lead to another one of the user's."""
    real = os.path.realpath(folder)
    if real != os.path.abspath(folder):
        is_link = "is" if folder.is_symlink() else "lies behind"
        raise UserError(
            f"{folder} {is_link} a link to {real}, and what lies in the trash of that folder would be deleted. "
            f"Name it: {typed('trash', '--empty', real)}"
        )


def base_of(rest: Sequence[str]) -> Path:
    """Return the folder that holds an output folder and `.dltrain`."""
    return shelf_of(Path(rest[0]) if rest else OUTPUT, "trash").parents[2]


def contents(base: Path) -> list[tuple[Path, Entry]]:
    """Return all that lies in the trash with the trash that it is in, the oldest first; what is no run has no facts."""
    found = []
    for trash in trashes(base):
        known = {entry.path: entry for entry in Index(trash, cached=False, whole=True).entries}
        found += [
            (trash, known[path] if is_run else Entry(path, facts={"status": NO_RUN}))
            for path, is_run in discarded(trash)
        ]
    return sorted(found, key=lambda item: (when(item[1]), item[1].path))


def show(base: Path, as_json: bool) -> None:
    found = contents(base)
    items = [
        {"path": str(trash / entry.path), "when": when(entry), "status": _status(entry)}
        for trash, entry in found
    ]
    if as_json:
        print_json({"trash": items})
        return
    if not items:
        write("The trash is empty.")
        return
    heads = {"path": [short_path(Path(item["path"])) for item in items]}
    heads |= {name: [item[name] for item in items] for name in ("when", "status")}
    for line in lines([Column(name, cells, least=20 * (name == "path")) for name, cells in heads.items()]):
        write(line)


def _status(entry: Entry) -> str:
    return "sweep" if entry.is_sweep else str(entry.facts.get("status"))


def delete(base: Path, sure: bool, as_json: bool, command: str) -> None:
    """Delete the trash, if the user is sure; `command` does not ask."""
    items = [trash / path for trash in trashes(base) for path, _ in discarded(trash)]
    if items and not sure:
        confirm([*map(str, items)], what_of(items), command)
    # the kind of a deleted item cannot be looked at
    folders = {item for item in items if item.is_dir()}
    gone = empty(base, items)
    if as_json:
        print_json({"deleted": [*map(str, gone)]})
        return
    what = counted(len(gone), "folder" if {*gone} <= folders else "item")
    left = sum(1 for trash in trashes(base) for _ in discarded(trash))
    write(f"{what} deleted for good" if items else "The trash is empty.")
    if left:
        write(f"Left in the trash, since it came meanwhile: {counted(left, 'item')}")


def what_of(items: Sequence[Path]) -> str:
    return counted(len(items), "folder" if all(map(os.path.isdir, items)) else "item")


def confirm(paths: Sequence[str], what: str, command: str) -> None:
    """Ask for confirmation. Raises UserError if the answer is another one, or standard input is no terminal."""
    if not sys.stdin.isatty():
        raise UserError(f"`trash --empty` deletes {what} for good. To do it: {command}")
    for path in paths[:10]:
        text.show(short_path(Path(path)), file=sys.stderr)
    more = f" (and {len(paths) - 10} more)" if len(paths) > 10 else ""
    sys.stderr.write(f"{what} deleted for good{more}? Type {_ANSWER}: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip() != _ANSWER:
        raise UserError("nothing was deleted")
