"""`dltrain show RUN`: print what was asked of a run, what came out, and the files it left.

The file is long because its schema, its page in the terminal and its document are the same facts, side by side.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dltrain.commands import columns, listing
from dltrain.commands.asked import (
    NUMBER,
    TEXT,
    TEXTS,
    document_schema,
    is_sweep,
    object_schema,
    print_json,
    read_options,
    run_folder,
)
from dltrain.commands.configurations import objective_of
from dltrain.commands.runs import ROW, Listing, listed, read_config
from dltrain.config.asked import Sources
from dltrain.config.catalogue import Catalogue
from dltrain.config.groups import OVERLAYS
from dltrain.config.keys import ELSEWHERE
from dltrain.config.search_path import catalogue_dir, user_dirs
from dltrain.direction import BETTER
from dltrain.errors import UserError, split_command
from dltrain.errors import typed as command
from dltrain.loggers.events import shown_name
from dltrain.screen.numbers import in_bytes
from dltrain.screen.table import (
    duration,
    is_colored,
    lines,
    number,
    one_line,
    styled,
    terminal_width,
    typed,
    write,
)
from dltrain.storage.folder_names import size_of
from dltrain.storage.index import KILLED, number_of
from dltrain.storage.lock import is_held
from dltrain.storage.progress import with_progress
from dltrain.storage.summary import WHOLE, read_json, read_summary, texts
from dltrain.text import counted

HELP = """
    Of a run: the choices that are not the defaults; objective, scores and, beside those of the test split, a constant
    guess; data, versions, commit, warnings, files. Of a sweep: its axes and its configurations, the best first: of runs that
    differ in seed, fold and split seed alone, the mean.

  --json    one JSON document on standard output

Examples
  dltrain show outputs/digits_mlp/2026-01-31_12-00-00-abcd
  dltrain show abcd
  dltrain show d61b/3                  job 3 of a sweep
  dltrain show abcd --json
"""
_SCORES: dict[str, Any] = {"type": "object", "additionalProperties": NUMBER}
_HEAD = {"path": TEXT, "command": TEXT, "status": TEXT, "tags": TEXTS}
_RUN = object_schema(
    run=TEXT,
    **_HEAD,
    reason=TEXT,
    asked={"type": "object"},
    metric={"type": ["string", "null"]},
    mode={"type": ["string", "null"]},
    objective=NUMBER,
    best_epoch=NUMBER,
    best={"type": "object", "additionalProperties": NUMBER},
    test={"type": "object", "additionalProperties": NUMBER},
    guess={"type": "object", "additionalProperties": NUMBER},
    cost={"type": "object"},
    data={"type": "object"},
    versions={"type": "object"},
    git={"type": "object"},
    code={"type": "object"},
    notes=TEXT,
    warnings=TEXTS,
    files={"type": "object", "additionalProperties": {"type": "integer"}},
)
_SWEEP = object_schema(
    sweep=TEXT,
    **_HEAD,
    extended=TEXT,
    axes=TEXTS,
    configurations={
        "type": "array",
        "items": object_schema(choices={"type": "object"}, runs=TEXTS, objective=NUMBER, scores=_SCORES),
    },
    jobs={"type": "array", "items": ROW},
)
SCHEMA: dict[str, Any] = document_schema(run=TEXT)
SCHEMA["oneOf"][:1] = [_RUN, _SWEEP]
_ENDS = {"failed": "it failed", "diverged": "it diverged", "pruned": "it was pruned"}
# configurations of a sweep that a terminal shows
_SHOWN = 10
_COST = (
    "epochs",
    "steps",
    "seconds",
    "images_per_second",
    "peak_memory_bytes",
    "parameters",
    "device",
    "threads",
)


def run(arguments: list[str]) -> int:
    """Print one run or sweep."""
    rest, given = read_options("show", arguments)
    if len(rest) != 1:
        raise UserError("Name one run: dltrain show outputs/NAME/DATE_TIME-xxxx\nThe runs: dltrain runs")
    folder = run_folder(rest[0])
    document, lines_of = shown(folder)
    if "--json" in given:
        print_json(document)
    else:
        write("\n".join(lines_of))
    return 0


def show(run: Any) -> dict[str, Any]:
    """Return what `dltrain show` prints of a run or a sweep: what was asked, what came out, data, versions, files."""
    folder = run_folder(run)
    return shown(folder)[0]


def shown(folder: Path) -> tuple[dict[str, Any], Iterator[str]]:
    """Return the document of a run or a sweep, and the lines of its page."""
    if not is_sweep(folder):
        document = document_of(folder)
        return document, page(document)
    found = listed(folder, sort="objective")
    rows = listing.configuration_rows(found.rows)
    document = sweep_document(folder, found, rows)
    return document, sweep_page(document, folder, rows, len(found.rows))


# What is shown ----------------------------------------------------------------------------------------------------


def document_of(folder: Path) -> dict[str, Any]:
    """Return the records of a run as plain data."""
    summary = with_progress(folder, read_summary(folder))
    saved = summary.get("config")
    config = saved if isinstance(saved, dict) else read_config(folder)
    data = _read(folder / "data.json")
    status = summary["status"]
    if status == "running" and not is_held(folder / "run.lock"):
        status = KILLED
    return {
        "run": folder.name,
        "path": str(folder),
        "command": str(summary.get("command") or ""),
        "status": status,
        "reason": str(summary.get("stop_reason") or ""),
        "asked": asked_for(config, summary.get("overrides"), str(summary.get("command") or "")),
        "metric": _text(summary.get("metric")),
        "mode": _text(summary.get("mode")),
        "objective": number_of(summary.get("objective")),
        "best_epoch": number_of(summary.get("best_epoch")),
        "best": {key: value for key, value in _numbers(summary.get("best")).items() if "/" in key},
        "test": _numbers(summary.get("test")),
        "guess": _numbers(summary.get("constant")) or uniform_guess(data),
        "cost": {key: summary[key] for key in _COST if isinstance(summary.get(key), int | float | str)},
        "data": {
            key: data[key]
            for key in ("task", "input_shape", "outputs", "sizes", "fingerprint")
            if key in data
        },
        "versions": _object(summary.get("versions")),
        "git": _object(summary.get("git")),
        "code": _object(summary.get("code")),
        "tags": [str(tag) for tag in summary.get("tags") or []]
        if isinstance(summary.get("tags"), list)
        else [],
        "notes": str(summary.get("notes") or ""),
        "warnings": warnings_of(summary, status, folder),
        "files": files_of(folder),
    }


def sweep_document(folder: Path, found: Listing, rows: list[listing.Row]) -> dict[str, Any]:
    """Return the record of a sweep and the summaries of its jobs as plain data."""
    labels = {row.entry.path: row.label for row in found.rows}
    record = _read(folder / "sweep.json")
    (row,) = listed_sweep(folder)
    return {
        "sweep": folder.name,
        "path": str(folder),
        "command": str(record.get("command") or ""),
        "extended": extension_of(record),
        "status": row.status,
        "axes": [str(axis) for axis in row.entry.facts.get("axes") or []],
        "tags": row.tags,
        "configurations": [
            {
                "choices": row.choices,
                "runs": [labels[job.path] for job in row.jobs],
                "objective": objective_of(row.entry),
                "scores": listing.scores_of(row.entry.facts),
            }
            for row in rows
        ],
        "jobs": found.document()["runs"],
    }


def extension_of(record: Mapping[str, Any]) -> str:
    """Return the command of all that a sweep was asked for, where that grew after it had begun; "" where it did not."""
    try:
        begun = split_command(record.get("command"))
    except ValueError:
        return ""
    asked = texts(record.get("overrides"))
    return command("-m", *asked) if "-m" in begun and not {*asked} <= {*begun} else ""


def listed_sweep(folder: Path) -> list[listing.Row]:
    from dltrain.storage.index import Index

    index = Index(folder, cached=False)
    return [row for row in listing.rows_of(index, []) if row.entry.is_sweep][:1]


def asked_for(config: Mapping[str, Any], overrides: Any, command: str = "") -> dict[str, Any]:
    """Return the words and keys of a configuration that are not the defaults, and that overrides, recipes or a primary file set.

    overrides: those of the run; None where they are not known, and all that is not the default is returned
    """
    catalogue = Catalogue(catalogue_dir(), user_dirs())
    chosen = {group: _names(config[group]) for group in catalogue.words if group in config}
    asked = {
        group: config[group]
        for group, names in chosen.items()
        if names != [word for word in catalogue.default_words(group) if word != "none"]
    }
    words = [
        catalogue.words[g][n]
        for g, names in chosen.items()
        for n in names
        if n in catalogue.words[g] and g not in OVERLAYS
    ]
    known = {g: [n for n in names if n in catalogue.words[g]] for g, names in chosen.items()}
    defaults = {path: param.value for path, param in catalogue.params(known).items()}
    defaults |= {path: param.value for word in words for path, param in word.everything.items()}
    # a key that follows another one is not listed beside it
    links = {
        path for word in words for path, key in word.links.items() if config.get(path) == config.get(key)
    }
    for key, value in config.items():
        if key in ELSEWHERE and key != "lr" or key == "quiet":
            continue
        if key in defaults and key not in links and key not in chosen and not _same(value, defaults[key]):
            asked[key] = value
    if not isinstance(overrides, list):
        return asked
    sources = Sources.of(list(map(str, overrides)), chosen, catalogue, command)
    return {key: value for key, value in asked.items() if sources.of_key(key)}


def _names(value: Any) -> list[str]:
    return [
        str(name) for name in (value if isinstance(value, list) else [value]) if name not in (None, "none")
    ]


def _same(value: Any, default: Any) -> bool:
    return value == default or (isinstance(default, list | tuple) and list(default) == value)


def uniform_guess(data: Mapping[str, Any]) -> dict[str, float]:
    """Return the accuracy and the cross entropy of equal probabilities for all classes."""
    classes = data.get("outputs")
    if data.get("task") != "classification" or not isinstance(classes, int) or not 1 < classes < 10**6:
        return {}
    return {"accuracy": 1 / classes, "loss": math.log(classes)}


def warnings_of(summary: Mapping[str, Any], status: str, folder: Path) -> list[str]:
    """Return warnings about the results, such as an unfinished run."""
    found = []
    if status in (KILLED, "interrupted"):
        found.append(f"it is not finished: {command('resume', folder)}")
    elif status not in (*WHOLE, "running"):
        found.append(_ENDS.get(status, f"it is {status}"))
    for key in ("problems", "remarks", "inferred", "loaded"):
        value = summary.get(key)
        found += [str(item) for item in (value if isinstance(value, list) else [value] if value else [])]
    if _object(summary.get("git")).get("dirty"):
        found.append("the working folder had changes that were not committed")
    return found


def files_of(folder: Path) -> dict[str, int]:
    """Return the bytes of the files in a run folder, and of the folders in it, by name; links are not followed."""
    sizes: dict[str, int] = {}
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            sizes[f"{path.name} (link)"] = 0
        elif path.is_dir():
            sizes[f"{path.name}/"] = size_of(path)
        else:
            name = shown_name(path.name)
            sizes[name] = sizes.get(name, 0) + path.lstat().st_size
    return sizes


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except (OSError, ValueError):
        return {}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _numbers(value: Any) -> dict[str, float]:
    return {str(key): n for key, item in _object(value).items() if (n := number_of(item)) is not None}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


# The page ---------------------------------------------------------------------------------------------------------


def page(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines about a run."""
    yield heading(document["run"], document["status"])
    yield from entry("ended", document["reason"])
    yield from entry("folder", document["path"], whole=True)
    yield from entry("command", document["command"])
    yield from entry(
        "asked", *(f"{key}={typed(value)}" for key, value in document["asked"].items()), gap="  "
    )
    if not document["asked"]:
        yield from entry("asked", "the defaults")
    yield from entry("result", _result(document))
    yield from entry("best", *(f"{name} {number(value)}" for name, value in document["best"].items()))
    yield from entry("test", *(f"{name} {number(value)}" for name, value in document["test"].items()))
    if document["test"]:
        shown = {name: value for name, value in document["guess"].items() if name in document["test"]}
        yield from entry("  a guess", *(f"{name} {number(value)}" for name, value in shown.items()))
    yield from entry("cost", *_cost(document["cost"]))
    yield from entry("data", *_data(document["data"]))
    yield from entry("versions", *(f"{name} {value}" for name, value in document["versions"].items()))
    if commit := document["git"].get("commit"):
        yield from entry("code", f"commit {str(commit)[:12]}")
    yield from entry("tags", " ".join(document["tags"]))
    yield from entry("notes", document["notes"])
    for warning in document["warnings"]:
        yield from entry("note", warning)
    yield from entry("files", *(f"{name} {in_bytes(size)}" for name, size in document["files"].items()))


def heading(name: str, status: str) -> str:
    colored = is_colored()
    style = listing.STYLES.get(status, "green")
    return f"{styled(one_line(name), 'bold', colored)}  {styled(one_line(status), style, colored)}"


def entry(head: str, *facts: object, gap: str = " · ", whole: bool = False) -> Iterator[str]:
    """Yield facts after their head, folded between facts; a path stays `whole`, to be copied."""
    texts = [one_line(fact) for fact in facts if fact not in ("", None)]
    if not texts:
        return
    room = max(terminal_width() - 13, 20)
    rows: list[str] = []
    for text in texts:
        if rows and len(rows[-1]) + len(gap) + len(text) <= room:
            rows[-1] += gap + text
        else:
            rows += textwrap.wrap(text, room, break_on_hyphens=False, break_long_words=not whole) or [""]
    yield f"  {head:<10} {rows[0]}"
    yield from (f"  {'':<10} {row}" for row in rows[1:])


def _result(document: Mapping[str, Any]) -> str:
    value = document["objective"]
    if value is None or document["metric"] is None:
        return ""
    mode = BETTER["max" if document["mode"] == "max" else "min"]
    epoch = document["best_epoch"]
    at = f" at epoch {epoch:g}" if epoch is not None else ""
    return f"{document['metric']} {number(value)}{at} ({mode})"


def _cost(cost: Mapping[str, Any]) -> list[str]:
    """Return time, length, size and machine."""
    forms: dict[str, Callable[[Any], str]] = {
        "seconds": duration,
        "epochs": lambda v: f"{v:g} epochs" if number_of(v) is not None else "",
        "steps": lambda v: f"{v:,} steps" if number_of(v) is not None else "",
        "parameters": lambda v: f"{v:,} parameters" if number_of(v) is not None else "",
        "peak_memory_bytes": lambda v: f"{in_bytes(v)} of memory" if number_of(v) is not None else "",
        "device": str,
        "threads": lambda v: f"{v} thread{'s' * (v != 1)}",
    }
    return [form(cost[key]) for key, form in forms.items() if key in cost]


def _data(data: Mapping[str, Any]) -> list[str]:
    sizes = _object(data.get("sizes"))
    shape = data.get("input_shape")
    return [
        str(data.get("task") or ""),
        "×".join(map(str, shape)) if isinstance(shape, list) and shape else "",
        *(f"{name} {count:,}" for name, count in sizes.items() if isinstance(count, int)),
        f"fingerprint {data['fingerprint']}" if data.get("fingerprint") else "",
    ]


def sweep_page(
    document: Mapping[str, Any], folder: Path, rows: list[listing.Row], jobs: int
) -> Iterator[str]:
    """Yield the lines about a sweep."""
    yield heading(document["sweep"], document["status"])
    yield from entry("folder", document["path"], whole=True)
    yield from entry("command", document["command"])
    yield from entry("extended", document["extended"])
    yield from entry("axes", *document["axes"])
    yield from entry("tags", " ".join(document["tags"]))
    report = folder / "report.html"
    yield from entry("report", str(report) if report.is_file() else "", whole=True)
    yield ""
    yield from lines(columns.columns_of(rows[:_SHOWN])) if rows else ()
    notes = []
    counting = sum(len(row.jobs) for row in rows)
    if len(rows) < counting:
        means = f"{counted(len(rows), 'configuration')} by the mean of their runs"
        notes.append(f"{means}; intervals and tests: {command('compare', folder)}")
    if counting < jobs:
        have = "has" if jobs - counting == 1 else "have"
        copies = f"{counted(jobs - counting, 'job')} {have} the configuration, seed, fold and split"
        notes.append(f"{copies} of another one, which counts once")
    if jobs > min(len(rows), _SHOWN):
        more = command("runs", folder, "--sort", "objective")
        notes.append(f"{counted(jobs, 'job')} in all: {more}")
    for text in notes:
        yield from textwrap.wrap(text, terminal_width(), break_on_hyphens=False, break_long_words=False)
