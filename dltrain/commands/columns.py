"""The columns of a listing, as the terminal shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from dltrain.commands import listing
from dltrain.config.comparable import changes
from dltrain.config.keys import SCORED_ON, is_of_problem, label, may_change_data, text_of
from dltrain.screen.table import Column, duration, number, terminal_width, typed
from dltrain.storage.index import DAMAGED, Entry, number_of
from dltrain.storage.job_names import job_label
from dltrain.storage.query import name_of, when
from dltrain.storage.summary import UNRANKED
from dltrain.text import counted

OBJECTIVE = "objective"
# what objectives must agree in to compare, with their direction
KIND = (*SCORED_ON, "metric")


def columns_of(rows: Sequence[listing.Row], wanted: Sequence[str] = (), sort: str = "") -> list[Column]:
    """Return the columns of a table of rows; `wanted` columns take the place of those that are shown by default.

    sort: key by which the rows are sorted, whose column is always among those of the default
    """
    labels = Column("run", [row.label for row in rows])
    if wanted:
        return [labels, *(_column(rows, name) for name in wanted if name != "run")]
    best = {id(row) for row in best_of(rows)}
    moments = [moment(when(row.entry)) for row in rows]
    metrics = {str(row.shown.facts["metric"]) for row in rows if row.shown.facts.get("metric")}
    test = test_score(rows)
    found = {
        "run": labels,
        "name": Column("name", [name_of(row.entry) for row in rows], least=10, rank=2),
        "when": Column("when", moments if len(set(moments)) > 1 or len(rows) == 1 else [], rank=4),
        "choices": Column("choices", [choices_of(row) for row in rows], least=max(14, min(terminal_width() // 3, 36))),
        "objective": Column(
            head_of(rows, metrics),
            [score_of(row, len(metrics) > 1) for row in rows],
            right=len(metrics) <= 1,
            styles=["bold" if id(row) in best else "" for row in rows],
        ),
        f"test/{test}": Column(
            f"test {test}",
            [number(row.shown.facts.get(f"test/{test}")) for row in rows],
            right=True,
            rank=3,
        ),
        "status": Column(
            "status", [row.status for row in rows], rank=1, styles=[listing.STYLES.get(row.status, "dim") for row in rows]
        ),
        "seconds": Column("time", [duration(row.seconds) if row.seconds else "" for row in rows], right=True, rank=6),
        "tag": Column("tags", [tags_of(row) for row in rows], least=4, rank=5, styles=["cyan"] * len(rows)),
    }  # fmt: skip
    if sort in found:
        found[sort].rank = 0
    elif sort and metrics != {sort}:
        found[sort] = _column(rows, sort)
    return list(found.values())


def _column(rows: Sequence[listing.Row], name: str) -> Column:
    values = [row.value(name) for row in rows]
    numbers = all(number_of(value) is not None for value in values if value is not None)
    cells = [number(value) if "/" in name else shown(value) for value in values]
    return Column(name, cells, right=numbers, least=0 if numbers else 8)


def shown(value: Any) -> str:
    """Return a value of a column: scores with four digits, the rest as it is typed."""
    if value is None:
        return ""
    return " ".join(map(typed, value)) if isinstance(value, list) else typed(value)


def head_of(rows: Sequence[listing.Row], metrics: set[str]) -> str:
    if len(metrics) != 1:
        return "objective"
    modes = {row.shown.facts.get("mode") for row in rows if row.shown.facts.get("metric")}
    arrow = listing.ARROWS.get(str(next(iter(modes))), "") if len(modes) == 1 else ""
    return f"{next(iter(metrics))} {arrow}".rstrip()


def score_of(row: listing.Row, named: bool) -> str:
    value = number(listing.objective(row.shown))
    return f"{value} {row.shown.facts.get('metric')}" if named and value else value


def best_of(rows: Sequence[listing.Row]) -> list[listing.Row]:
    """Return the rows with the best objective, where several rows have the same metric on the same data."""
    scored = [row for row in rows if listing.objective(row.shown) is not None]
    if len(scored) < 2 or differing(scored) or len({str(row.value("mode")) for row in scored}) > 1:
        return []
    best = min(listing.rank_of(row.shown) for row in scored)
    return [row for row in scored if listing.rank_of(row.shown) == best]


def kind_of(score: str) -> tuple[str, ...]:
    """Return the keys in which runs must agree for a score, or their objectives, to compare."""
    return KIND if score == OBJECTIVE else SCORED_ON


def differing(rows: Sequence[listing.Row], score: str = OBJECTIVE) -> dict[str, list[Any]]:
    """Return the keys whose different values make a score incomparable, with the values of the rows that have them."""
    values = {key: [row.value(key) for row in rows] for key in (*kind_of(score), *computed_by(rows, score))}
    found = {key: own for key, own in values.items() if len(set(map(text_of, own))) > 1}
    return found if "dataset" in found else {**found, **_own_keys(rows)}


def _own_keys(rows: Sequence[listing.Row]) -> dict[str, list[Any]]:
    """Return the keys that differ and may change what is scored, with the values of the rows that have them.

    They are those of the dataset, and of a run without samples those of its model.
    """
    bases = {id(row.shown.base): row.shown.base or {} for row in rows}
    keys = {key for base in bases.values() for key in base}.difference(KIND)
    dataset = rows[0].value("dataset") if rows else None
    found = {}
    for key in sorted(key for key in keys if key.startswith("dataset.") or is_of_problem(key, dataset)):
        own = [row.value(key) for row in rows if key in (row.shown.base or {})]
        if len(set(map(text_of, own))) > 1 and (may_change_data(key, own) or is_of_problem(key, dataset)):
            found[key] = own
    return found


def computed_by(rows: Sequence[listing.Row], score: str = OBJECTIVE) -> list[str]:
    """Return the keys by which rows with the same metric on the same data compute it, or another score, differently."""
    alike: dict[str, list[listing.Row]] = {}
    for row in rows:
        alike.setdefault(repr([row.value(key) for key in kind_of(score)]), []).append(row)
    found = (
        changes(
            str(part[0].value("metric")) if score == OBJECTIVE else score, [row.shown.config for row in part]
        )
        for part in alike.values()
    )
    return list(dict.fromkeys(key for keys in found for key in keys))


def test_score(rows: Sequence[listing.Row]) -> str:
    """Return the score of the test split that most rows have: the metric's own unless that is the loss."""
    names = Counter(
        name.removeprefix("test/") for row in rows for name in row.shown.facts if name.startswith("test/")
    )
    own = Counter(str(row.shown.facts.get("metric")).rpartition("/")[2] for row in rows)
    names.pop("loss", None) if len(names) > 1 else None
    return max(names, key=lambda name: (names[name], own[name], name == "accuracy"), default="")


def choices_of(row: listing.Row) -> str:
    """Return the choices that distinguish a row, in one line."""
    if row.entry.is_sweep:
        return sweep_line(row)
    told = {key: value for key, value in row.choices.items() if key not in row.usual}
    return label(told, listing.overridden(row.entry))


def tags_of(row: listing.Row) -> str:
    """Return the tags of a row; of a sweep that is listed for some of its jobs, also theirs, with the number of a job."""
    held = (
        Counter(tag for job in row.jobs for tag in job.tags)
        if len(row.jobs) < len(row.all_jobs)
        else Counter()
    )
    of_jobs = [f"{tag} ({_holders(row.jobs, tag, held[tag])})" for tag in held if tag not in row.tags]
    return " ".join([*row.tags, *of_jobs])


def _holders(jobs: Sequence[Entry], tag: str, number: int) -> str:
    if number > 1:
        return counted(number, "job")
    return f"job {next(job_label(job.folder_name) for job in jobs if tag in job.tags)}"


def sweep_line(row: listing.Row) -> str:
    """Return how many jobs a sweep has, over which axes, and how many failed."""
    whole = len(row.all_jobs)
    jobs = counted(whole, "job") if len(row.jobs) == whole else f"{len(row.jobs)} of {whole} jobs"
    if len(row.jobs) == 1 < whole:
        jobs = f"job {job_label(row.jobs[0].folder_name)} of {whole}"
    axes = row.entry.facts.get("axes") or []
    states = Counter(str(job.facts.get("status")) for job in row.jobs)
    lost = [f"{states[state]} {state}" for state in (*UNRANKED, DAMAGED) if states[state]]
    # a run that was launched elsewhere has no axis
    return ", ".join([f"{jobs}: {' × '.join(map(str, axes))}" if axes else jobs, *lost])


def moment(text: str) -> str:
    """Return a time as 26 Nov 06:39, or 2025-11-26 if it is in another year."""
    try:
        then = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{then.day:2} {then:%b %H:%M}" if then.year == datetime.now().year else f"{then:%Y-%m-%d}"
