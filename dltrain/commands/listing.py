"""The rows of a listing: runs and sweeps that satisfy filters, with the choices in which they differ."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dltrain.commands.configurations import configurations_of, shown_entry
from dltrain.config.keys import REPLICATES, differences, keys_given
from dltrain.storage.index import DAMAGED, KILLED, Entry, Index, finite, number_of
from dltrain.storage.job_names import job_label, job_number
from dltrain.storage.query import PLACE, Filter, name_of, value_of, when

STYLES = {"failed": "red", "diverged": "red", DAMAGED: "red", KILLED: "red", "running": "green", "interrupted": "yellow",
          "degraded": "yellow", "unfinished": "yellow"}  # fmt: skip
# keys by which --sort puts the best first, whatever the direction of the metric
_BEST_FIRST = ("objective",)
ARROWS = {"min": "↓", "max": "↑"}


@dataclass
class Row:
    """A line of a listing: a run, a job, a configuration with its jobs, or a sweep with those that satisfy the filters."""

    entry: Entry
    label: str = ""
    jobs: list[Entry] = field(default_factory=list)
    all_jobs: list[Entry] = field(default_factory=list)
    choices: dict[str, Any] = field(default_factory=dict)
    # of the choices, those that most rows have, and that this one did not ask for: a table leaves them out
    usual: set[str] = field(default_factory=set)

    @cached_property
    def shown(self) -> Entry:
        """Return the run whose result is shown: of a sweep, the mean over the repetitions of its best configuration."""
        return shown_entry(self.entry, self.jobs) if self.entry.is_sweep else self.entry

    @property
    def kind(self) -> str:
        return "sweep" if self.entry.is_sweep else "job" if self.entry.sweep else "run"

    @property
    def status(self) -> str:
        status = self.entry.facts.get("status")
        if len(self.jobs) > 1 and not self.entry.is_sweep:
            states = Counter(str(job.facts.get("status")) for job in self.jobs)
            return (
                ", ".join(f"{n} {state}" for state, n in states.items()) if len(states) > 1 else str(status)
            )
        if not self.entry.is_sweep or status == DAMAGED:
            return str(status)
        if any(job.facts.get("status") == "running" for job in self.all_jobs):
            return "running"
        return "finished" if self.entry.facts.get("finished") else "unfinished"

    @property
    def seconds(self) -> float | None:
        own = (
            number_of(self.entry.facts.get("seconds")) if len(self.jobs) < 2 or self.entry.is_sweep else None
        )
        if own is not None or not self.jobs:
            return own
        # an unfinished sweep and a configuration have the time of their jobs
        return sum(number_of(job.facts.get("seconds")) or 0.0 for job in self.jobs)

    @property
    def tags(self) -> list[str]:
        return (
            [str(tag) for tag in self.entry.facts.get("tags") or []]
            if self.entry.sweep == "."
            else self.entry.tags
        )

    def value(self, key: str) -> Any:
        """Return a field, a score or a key; of a sweep, of its best configuration."""
        if key == "status":
            return self.status
        if key == "seconds":
            return self.seconds
        found = value_of(self.entry, key)
        return value_of(self.shown, key) if found in (None, []) else found


def objective(entry: Entry) -> float | None:
    """Return the objective of a run, also of one that failed later; None where it diverged or is not finite."""
    return None if _diverged(entry) else finite(entry.facts.get("objective"))


def _diverged(entry: Entry) -> bool:
    return entry.facts.get("status") == "diverged"


def rank_of(entry: Entry) -> tuple[str, bool, float]:
    """Return a sort key: the best objective first, runs with the same metric together, those without a value last."""
    value = objective(entry)
    metric = str(entry.facts.get("metric") or "~")
    return (
        metric,
        value is None,
        0.0 if value is None else -value if entry.facts.get("mode") == "max" else value,
    )


def rows_of(index: Index, filters: Sequence[Filter], jobs: bool = False) -> list[Row]:
    """Return the rows that satisfy all filters, the oldest first: of a sweep, itself by its place, or some of its jobs."""
    members: dict[str, list[Entry]] = {}
    for entry in index.entries:
        if entry.sweep:
            members.setdefault(entry.sweep, []).append(entry)
    matching = {id(e) for e in index.entries if not e.is_sweep and all(f.holds(e) for f in filters)}
    rows = []
    for entry in index.entries:
        if entry.is_sweep:
            whole = members.get(entry.path or ".", [])
            own = all(f.key in PLACE and f.holds(entry) for f in filters)
            inside = whole if own else [job for job in whole if id(job) in matching]
            if (inside or own) and not jobs:
                rows.append(Row(entry, jobs=inside, all_jobs=whole))
        elif id(entry) in matching and (jobs or not entry.sweep):
            rows.append(Row(entry))
    rows.sort(
        key=lambda row: (
            when(row.entry),
            row.entry.sweep,
            job_number(row.entry.folder_name) or 0,
            row.entry.path,
        )
    )
    return rows


def configuration_rows(rows: Sequence[Row]) -> list[Row]:
    """Return a row for each configuration of the jobs of a sweep, the best mean first."""
    by_path = {row.entry.path: row for row in rows}
    found = []
    for one in configurations_of(row.entry for row in rows):
        labels = [by_path[job.path].label for job in one.jobs]
        choices = by_path[one.jobs[0].path].choices
        if len(labels) > 1:
            choices = {key: value for key, value in choices.items() if key not in REPLICATES}
        label = labels[0] if len(labels) == 1 else f"{labels[0]} … {labels[-1]}"
        found.append(Row(one.entry(), label, one.jobs, choices=choices))
    return found


def sort_rows(rows: list[Row], key: str) -> None:
    """Sort by a key, or by `-key` the other way round; `objective` puts the best first.

    Rows without a value come last, and by a score those of runs that diverged, which may be 0 by chance.
    """
    name = key.removeprefix("-")
    values = {id(row): row.value(name) for row in rows}
    present = [
        row
        for row in rows
        if values[id(row)] not in (None, "", []) and not ("/" in name and _diverged(row.shown))
    ]
    if name in _BEST_FIRST:
        present = [row for row in rows if objective(row.shown) is not None]
        present.sort(key=lambda row: rank_of(row.shown), reverse=key != name)
    else:
        present.sort(key=lambda row: _order(values[id(row)]), reverse=key != name)
    kept = {id(row) for row in present}
    rows[:] = present + [row for row in rows if id(row) not in kept]


def _order(value: Any) -> tuple[bool, float, str]:
    """Return a sort key: numbers by size, texts after them."""
    number = number_of(value)
    if number is None:
        return True, 0.0, str(value)
    return False, -math.inf if math.isnan(number) else number, ""


def label_rows(rows: Sequence[Row], entries: Iterable[Entry], root: Path) -> None:
    """Give each row the shortest name by which the verbs find it: the end of the folder's name, if no other has it."""
    sweep = root.absolute().name.rpartition("-")[2]
    ends = Counter(entry.folder_name.rpartition("-")[2] for entry in entries if not entry.sweep)
    for row in rows:
        path = row.entry.path
        whole, _, job = path.rpartition("/") if row.entry.sweep not in ("", ".") else (path, "", "")
        folder = whole.rpartition("/")[2]
        end = folder.rpartition("-")[2]
        if row.entry.sweep == ".":
            row.label = f"{sweep}/{job_label(path)}"
            continue
        row.label = f"{end if ends[end] == 1 and end else folder}{'/' * bool(job)}{job_label(job)}"


def tell_apart(rows: Sequence[Row], always: Sequence[str] = ()) -> None:
    """Set the choices of each row: the words and keys in which the rows differ, and those that are shown `always`."""
    single = [row for row in rows if not row.entry.is_sweep and row.entry.base is not None]
    keys = [
        *changing_keys([row.entry for row in single]),
        *always,
        *(["optimizer.lr"] if "lr" in always else []),
    ]
    configs = [
        {key: value for key in keys if (value := row.entry.value_of_config(key)) is not None}
        for row in single
    ]
    own = [overridden(row.entry) for row in single]
    given = set().union(*own)
    for row, choices in zip(single, differences(configs, given, always), strict=True) if single else ():
        row.choices = {key: value for key, value in choices.items() if not _is_in_name(row, key, value)}
    usual = usual_values([row.choices for row in single])
    for row, keys_of_row in zip(single, own, strict=True):
        common = {key for key, value in row.choices.items() if key in usual and usual[key] == str(value)}
        row.usual = common - keys_of_row - set(always)


def usual_values(choices: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the value of each choice that more than half of the rows have, as text."""
    counts: dict[str, Counter[str]] = {}
    for one in choices:
        for key, value in one.items():
            counts.setdefault(key, Counter())[str(value)] += 1
    most = {key: count.most_common(1)[0] for key, count in counts.items()}
    return {key: value for key, (value, number) in most.items() if 2 * number > len(choices)}


def _is_in_name(row: Row, key: str, value: Any) -> bool:
    """Return whether the name of a folder contains a choice: digits_mlp."""
    return key in ("dataset", "model") and str(value) in name_of(row.entry)


def overridden(entry: Entry) -> set[str]:
    texts = entry.facts.get("overrides")
    return keys_given(texts) if isinstance(texts, list) else set()


def changing_keys(entries: Sequence[Entry]) -> list[str]:
    """Return the keys of configurations that may differ: those of the changes, and those that not all bases have alike."""
    bases = list({id(entry.base): entry.base or {} for entry in entries}.values())
    keys = dict.fromkeys(key for base in bases for key in base)
    shared = bases[0] if bases else {}
    uneven = {key for key in keys for base in bases if base.get(key) != shared.get(key)}
    changed = {key for entry in entries for key in entry.changes}
    return [key for key in keys if key in uneven or key in changed]


def document_of(row: Row, root: Path, columns: Sequence[str] = ()) -> dict[str, Any]:
    """Return a row as plain data, for `--json` and from Python."""
    facts = row.shown.facts
    return {
        "run": row.label,
        "path": _inside(str(root), row.entry.path),
        "kind": row.kind,
        "name": name_of(row.entry),
        "when": when(row.entry),
        "status": row.status,
        "metric": facts.get("metric"),
        "objective": objective(row.shown),
        "scores": scores_of(facts),
        "seconds": row.seconds,
        "tags": row.tags,
        "jobs": len(row.jobs),
        "values": {key: row.value(key) for key in columns} if columns else row.choices,
    }


def _inside(folder: str, path: str) -> str:
    """Return `str(Path(folder) / path)` without a Path for each of thousands of rows."""
    if not path:
        return folder
    return path if folder == "." else os.path.join(folder, path)


def scores_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if "/" in key}
