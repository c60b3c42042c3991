"""`dltrain archive RUN…`: move runs and sweeps out of sight; `dltrain restore` brings them back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dltrain.commands.asked import TEXT, document_schema, object_schema, print_json, read_options, run_folders
from dltrain.errors import CheckpointProblem, UserError, typed_on_one_line
from dltrain.screen.table import one_line, write
from dltrain.storage.shelves import HOME, Place, Shelf, check_move, move, place_of
from dltrain.text import short_path

# from where to where
Move = tuple[Path, Path]

HELP = """
    The folders move to .dltrain/archive beside the output folder, where listings and TensorBoard do not see them. Nothing is
    deleted, and nothing is replaced. A run that is training stays, and a sweep moves as a whole.

  --json    one JSON document on standard output

    To list them: dltrain runs --archived

Examples
  dltrain archive outputs/digits_mlp/2026-01-31_12-00-00-abcd
  dltrain archive abcd 12ef
  dltrain archive outputs/first_tries/*
"""
MOVED = {"type": "array", "items": object_schema(**{"from": TEXT, "to": TEXT})}
SCHEMA = document_schema(moved=MOVED)


def run(arguments: list[str]) -> int:
    """Move the runs, and print where they are now."""
    rest, given = read_options("archive", arguments)
    report(put("archive", rest, "archive"), "--json" in given)
    return 0


def archive(*runs: Any) -> list[Path]:
    """Move runs and sweeps to the archive beside their output folder, and return where they are now.

    Raises CheckpointProblem for what is no run, FolderInUse for one that is training: none of them is moved then.
    """
    return [to for _, to in put("archive", runs, "archive")]


def put(verb: str, runs: Sequence[Any], shelf: Shelf) -> list[Move]:
    """Move runs to a shelf; all are checked before the first is moved."""
    places = [place_of(folder) for folder in run_folders(verb, runs)]
    for place in places:
        if place.shelf == shelf:
            raise CheckpointProblem(f"{place.folder} is in the {shelf} already.")
    return carry(places, shelf)


def carry(places: Sequence[Place], shelf: Shelf | None) -> list[Move]:
    """Move runs from where they lie to a shelf, or to their output folder, and return from where to where."""
    moves = [(place, place.on(shelf)) for place in dict.fromkeys(places)]
    for place, target in moves:
        check_move(place, target)
    done: list[Move] = []
    for place, target in moves:
        try:
            move(place, target)
        except UserError as error:
            raise type(error)(f"{error}\n{len(done)} of {len(moves)} were moved before.") from None
        done.append((place.folder, target.folder))
    return done


def report(moves: Sequence[Move], as_json: bool) -> None:
    """Print what was moved, and the command that undoes it."""
    if as_json:
        print_json({"moved": [{"from": str(source), "to": str(target)} for source, target in moves]})
        return
    for source, target in moves:
        write(f"{one_line(short_path(source))} → {one_line(short_path(target))}")
    if moves and HOME in moves[0][1].parts:
        undone = [short_path(target) for _, target in moves]
        most = undone if len(undone) <= 3 else undone[:1]
        write(
            f"{'To undo' if most == undone else 'To undo the first'}: {typed_on_one_line('restore', *most)}"
        )
