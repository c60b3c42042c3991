"""`dltrain runs [FOLDER] [key=value …]`: list runs and sweeps, filtered by any key or score."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltrain.commands import listing
from dltrain.commands.asked import (
    NUMBER,
    TEXT,
    TEXTS,
    document_schema,
    note,
    object_schema,
    print_json,
    read_options,
    run_folder,
)
from dltrain.commands.columns import OBJECTIVE, differing
from dltrain.commands.columns import columns_of as table_of
from dltrain.commands.configurations import objective_of
from dltrain.direction import NO_RANK
from dltrain.errors import CheckpointProblem, UserError, typed
from dltrain.screen.table import cell, is_colored, lines, one_line, styled, terminal_width, write
from dltrain.storage import query
from dltrain.storage.folder_names import OUTPUT, is_run
from dltrain.storage.index import Index, no_garbage, number_of
from dltrain.storage.shelves import shelf_of

if TYPE_CHECKING:
    from dltrain.run.table import Table

HELP = """
    FOLDER is outputs by default; a sweep's folder lists its jobs. Every condition must hold. Conditions with <, > or a
    space need quotes. Keys are those of the command line (optimizer, lr, model.hidden), scores (val/loss, test/accuracy,
    objective), and name, when, status, seconds, tag, run, sweep. Texts may have wildcards: name=digits*

  'key=value' 'key!=value' 'key<number' 'key<=number' 'key>number' 'key>=number'
  --sort KEY | --sort -KEY    smallest first, largest first; objective puts the best first; by default the oldest first
  --columns a,b,c             these columns
  --limit N                   at most N rows: the first after --sort, else the newest; 0 shows all; 30 by default
  --jobs                      the jobs of sweeps one by one, in place of the sweeps
  --archived                  what `dltrain archive` moved away
  --json                      one JSON document on standard output, with all rows unless --limit is given

    The other verbs take a run by its folder, or by the name in the first column.

Examples
  dltrain runs
  dltrain runs optimizer=adam 'lr<0.01' --sort objective --limit 10
  dltrain runs 'test/accuracy>=0.95' status=completed --columns optimizer,lr,seed,test/accuracy
  dltrain runs --jobs 'when>=2026-01-31' --sort -seconds
  dltrain runs when=today 'when>=15:00'
  dltrain runs status=failed --columns stop_reason
  dltrain runs tag=paper --json
"""
LIMIT = 30
ROW = object_schema(
    run=TEXT,
    path=TEXT,
    kind={"enum": ["run", "job", "sweep"]},
    name=TEXT,
    when=TEXT,
    status=TEXT,
    metric={"type": ["string", "null"]},
    objective=NUMBER,
    scores={"type": "object", "additionalProperties": NUMBER},
    seconds=NUMBER,
    tags=TEXTS,
    jobs={"type": "integer", "minimum": 0},
    values={"type": "object"},
)
SCHEMA = document_schema(folder=TEXT, matching={"type": "integer"}, runs={"type": "array", "items": ROW})


@dataclass
class Listing:
    """Rows of a folder, and how many there are in all."""

    root: Path
    rows: list[listing.Row]
    matching: int
    columns: list[str] = field(default_factory=list)
    sort: str = ""
    problem: str = ""
    hint: str = ""

    def document(self) -> dict[str, Any]:
        found = [listing.document_of(row, self.root, self.columns) for row in self.rows]
        return {"folder": str(self.root), "matching": self.matching, "runs": found}


@no_garbage()
def run(arguments: list[str]) -> int:
    """Print the table."""
    valued = {"--sort": "KEY", "--columns": "a,b,c", "--limit": "N"}
    rest, given = read_options("runs", arguments, valued, ("--jobs", "--archived"))
    as_json = "--json" in given
    folders = [text for text in rest if Path(text).is_dir() or not set(text) & set("=<>")]
    if len(folders) > 1:
        raise UserError(f"`{folders[1]}`: one folder is listed at a time. {_filter_hint()}")
    found = listed(
        place_of(folders[0]) if folders else OUTPUT,
        [text for text in rest if text not in folders],
        sort=given.get("--sort"),
        columns=columns_of(given.get("--columns")),
        limit=limit_of(given.get("--limit"), None if as_json else LIMIT),
        jobs="--jobs" in given,
        archived="--archived" in given,
    )
    note(found.problem)
    kept = [*rest, *(option for option in ("--jobs", "--archived") if option in given)]
    by_score = found.sort == OBJECTIVE or "/" in found.sort
    note(mixed(found.rows, kept, given["--sort"]) if by_score else "")
    if as_json:
        print_json(found.document())
    else:
        show(found, empty_text(rest, folders, "--archived" in given), "--archived" in given)
    return 0


def place_of(text: str) -> Path:
    """Return the folder that a text names; of a sweep also by the end of its name, as for the other verbs."""
    if not Path(text).is_dir():
        with suppress(CheckpointProblem):
            return run_folder(text)
    return Path(text)


def columns_of(text: str | None) -> list[str]:
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not names:
        raise UserError(f"`--columns` is {text}, which names none: --columns optimizer,lr,val/loss")
    return names


def _filter_hint() -> str:
    return "A condition is 'key=value', 'key<number' or 'key>=number', in quotes"


def runs(
    folder: Any = OUTPUT,
    *filters: str,
    sort: str | None = None,
    columns: Sequence[str] = (),
    limit: int | None = None,
    jobs: bool = False,
    archived: bool = False,
) -> Table:
    """Return a table of the runs below a folder, as `dltrain runs` lists them.

    Args:
        folder: the folder of the runs, or of a sweep
        filters: conditions that must all hold: `"optimizer=adam"`, `"lr<0.01"`, `"val/accuracy>=0.9"`
        sort: a key, smallest first; `-key` largest first; `objective` the best first
        columns: keys, scores and fields to return beside the path
        limit: the most rows; None for all
        jobs: the jobs of sweeps one by one
        archived: what `dltrain archive` moved away
    """
    from dltrain.run.table import Table

    found = listed(folder, filters, sort, columns, limit, jobs, archived)
    fields = (
        ("path",) if columns else ("path", "kind", "name", "when", "status", "metric", "objective", "seconds")
    )
    rows = found.document()["runs"]
    return Table.of_rows([{key: row[key] for key in fields} | row["values"] for row in rows])


def listed(
    folder: Any,
    filters: Sequence[str] = (),
    sort: str | None = None,
    columns: Sequence[str] = (),
    limit: int | None = None,
    jobs: bool = False,
    archived: bool = False,
) -> Listing:
    """Return the rows of a folder. Raises UserError for a mistake in what is asked, CheckpointProblem for no folder."""
    conditions = [query.read_filter(text) for text in filters]
    root = Path(folder)
    if archived:
        root = shelf_of(root, "archive")
        if not root.is_dir():
            return Listing(root, [], 0)
    if not root.is_dir() and root == OUTPUT:
        # nothing was trained here yet
        return Listing(root, [], 0)
    if not root.is_dir():
        raise CheckpointProblem(
            f"{root} is no folder. Runs lie in outputs: dltrain runs, or dltrain runs FOLDER"
        )
    if is_run(root):
        raise CheckpointProblem(f"{root} is one run. What is in it: {typed('show', root)}")
    # in somebody else's project the shelf may be a link to a folder of the user, into which no cache belongs
    is_linked = archived and os.path.realpath(root) != str(root)
    index = Index(root, cached=not is_linked, whole=archived)
    names = [*columns, *([sort.removeprefix("-")] if sort else [])]
    if unread(index, [*(c.key for c in conditions), *names]):
        missing = sum(entry.base is None for entry in index.entries)
        note(f"reading config.yaml of {missing:,} older runs, once" if missing > 200 else "")
        index.fill(index.entries, read_config)
    query.check(conditions, names, index.entries)
    rows = listing.rows_of(index, conditions, jobs or any(e.is_sweep and not e.path for e in index.entries))
    matching = len(rows)
    if sort:
        listing.sort_rows(rows, sort)
    if limit:
        rows = rows[:limit] if sort else rows[-limit:]
    listing.label_rows(rows, index.entries, root)
    if not columns:
        index.fill([row.entry for row in rows], read_config)
        sweeps = {row.entry.sweep.removeprefix(".") for row in rows if row.entry.sweep}
        axes = [
            str(a)
            for e in index.entries
            if e.is_sweep and e.path in sweeps
            for a in e.facts.get("axes") or []
        ]
        listing.tell_apart(rows, axes)
    hint = "" if rows else query.hint(conditions, index.entries)
    name = (sort or "").removeprefix("-")
    return Listing(root, rows, matching, list(columns), name, index.problem, hint)


def mixed(rows: Sequence[listing.Row], kept: Sequence[str], sort: str) -> str:
    """Return why objectives, or values of a score, do not compare, and the filter that separates them; "" for those of one kind.

    Args:
        kept: the folder, conditions and options of the present command
        sort: the score by which they are sorted, with `-` for the highest first
    """
    score = sort.removeprefix("-")
    is_objective = score == OBJECTIVE
    scored = [
        row
        for row in rows
        if (objective_of(row.shown) if is_objective else number_of(row.value(score))) is not None
    ]
    if is_objective and len(scored) > 1 and all(row.value("metric") == "gap" for row in scored):
        return f"{NO_RANK}. By the loss: {typed('runs', *kept, '--sort', 'val/loss')}"
    values = differing(scored, score) if len(scored) > 1 else {}
    if not values:
        return ""
    alike = [f"{key}={cell(found[0])}" for key, found in values.items() if found[0] is not None]
    only = typed("runs", *kept, *alike, "--sort", sort)
    what = "objectives" if is_objective else f"values of {score}"
    return f"the {what} of these runs do not compare: they differ in {' and '.join(values)}. Those of one kind: {only}"


def unread(index: Index, keys: Sequence[str]) -> bool:
    """Return whether a key is known to no summary, so that configurations of earlier versions have to be read."""
    missing = [entry for entry in index.entries if entry.base is None and not entry.is_sweep]
    facts = {*query.PLACE, *(name for entry in missing for name in entry.facts)}
    return bool(missing) and any(key not in facts for key in keys)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the flat config.yaml of a run; empty where it cannot be read."""
    from dltrain.config.saved import flat, load_bounded

    try:
        return flat(load_bounded(folder / "config.yaml"))
    except (OSError, CheckpointProblem):
        return {}


def limit_of(text: str | None, default: int | None) -> int | None:
    if text is None:
        return default
    if not text.isdecimal() or len(text) > 9:
        raise UserError(f"`--limit` is {text}; it must be a whole number: --limit 10, or 0 for all")
    return int(text) or None


def empty_text(rest: Sequence[str], folders: Sequence[str], archived: bool) -> str:
    """Return what a listing without rows says."""
    if len(rest) > len(folders):
        return "no run satisfies all conditions"
    if archived:
        return "nothing is archived"
    return "no run" if folders else "no run yet. The first: dltrain"


def show(found: Listing, empty: str, archived: bool = False) -> None:
    """Print the table and a line with the number of rows, or why there are none."""
    colored = is_colored()
    if not found.rows:
        write(f"{one_line(found.root)}: {empty}{one_line(found.hint)}")
        return
    for line in lines(table_of(found.rows, found.columns, found.sort), colored=colored):
        write(line)
    shown = f" ({len(found.rows)} shown; all: --limit 0)" if len(found.rows) < found.matching else ""
    jobs = " · jobs of sweeps: --jobs" if any(row.entry.is_sweep for row in found.rows) else ""
    last = found.rows[-1]
    place = os.path.relpath(found.root / (last.entry.sweep or last.entry.path))
    back = f" · back: {typed('restore', place)}" if archived else ""
    more = typed("show", nameable(found.root, last))
    count = f"{found.matching:,} in {found.root}{shown} · more of one: {more}{jobs}{back}"
    for line in textwrap.wrap(one_line(count), terminal_width()):
        write(styled(line, "dim", colored))


def nameable(root: Path, row: listing.Row) -> str:
    """Return what the verbs find a run by: its label below `outputs`, elsewhere the path of its folder."""
    here = os.path.realpath(OUTPUT)
    folder = os.path.realpath(root / row.entry.path)
    return row.label if folder.startswith(here + os.sep) else os.path.relpath(root / row.entry.path)
