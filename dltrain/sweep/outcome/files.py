"""The files of a sweep beside its report: results.csv, results.parquet, best.yaml."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from importlib.util import find_spec
from multiprocessing import connection
from pathlib import Path
from typing import Any

from dltrain.config.catalogue import Catalogue
from dltrain.config.compose import plain_value
from dltrain.config.grammar import check_lengths
from dltrain.direction import BETTER
from dltrain.errors import typed
from dltrain.sweep.jobs import Job, write
from dltrain.sweep.outcome.ranking import Row
from dltrain.sweep.plan.plan import Plan
from dltrain.sweep.plan.space import parse_one
from dltrain.text import as_cell, first_line


def write_csv(plan: Plan, jobs: list[Job], file: Path) -> None:
    """Write one line a job: number, axes, state, objective, best epoch, the best row's scores, reason."""
    axes = [axis.name for axis in plan.axes]
    scores = sorted({name for job in jobs for name in job.summary.get("best") or {} if "/" in name})
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    head = ["job", *axes, "status", "objective", "best_epoch", "seconds", *scores, "reason", "folder"]
    out.writerow([as_cell(name) for name in head])
    for job in sorted(jobs, key=lambda job: job.number):
        best = job.summary.get("best") or {}
        cells = (
            [job.number, *(job.chosen.get(name, "") for name in axes), job.state]
            + ["" if job.objective is None else repr(job.objective), job.summary.get("best_epoch", "")]
            + [f"{job.seconds:.3f}", *(best.get(name, "") for name in scores)]
            + [job.reason if job.failed else "", str(job.folder)]
        )
        out.writerow([as_cell(cell) for cell in cells])
    write(file, text.getvalue())


def has_parquet() -> bool:
    return find_spec("pyarrow") is not None


def write_parquet(table: Path, channel: connection.Connection) -> None:
    """Write the same table as .parquet beside the .csv, with its types, and send why it failed, or "".

    It runs in a separate process, since pyarrow takes 100 MB.
    """
    reason = ""
    try:
        _convert(table)
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(str(error))[:200]}"
    channel.send(reason)
    channel.close()
    os._exit(0)


def _convert(table: Path) -> None:
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    # pyarrow takes names in UTF-8 only
    with open(table, "rb") as stream:
        content = arrow_csv.read_csv(
            stream,
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),  # reasons may have several lines
            convert_options=arrow_csv.ConvertOptions(strings_can_be_null=True),
        )
    beside = table.with_name(".results.parquet.tmp")
    # a folder of somebody else may hold a link of that name
    beside.unlink(missing_ok=True)
    with open(beside, "xb") as stream:
        parquet.write_table(content, stream)
    os.replace(beside, table.with_suffix(".parquet"))


def write_best(plan: Plan, row: Row, catalogue: Catalogue, file: Path) -> None:
    """Write best.yaml: the best configuration as a recipe for `experiment=`, without what tells its repetitions apart."""
    import yaml

    overrides = plan.overrides(row.chosen)
    recipe = recipe_of(overrides, catalogue)
    if any("fold" in one for one in plan.replicates):
        # a number of folds says nothing without the fold, which tells the repetitions apart; a recipe may set it
        recipe["folds"] = None
    head = "\n".join(
        [
            "# @package _global_",
            f"# {_what(plan)} of {len(plan.search_axes)} {'axis' if len(plan.search_axes) == 1 else 'axes'}: {' '.join(overrides)}",
            *_objectives(plan, row),
            f"# result: {plan.metric} {_result(row)} ({BETTER[plan.mode]})",
            f"# command: cp this file to conf/experiment/best.yaml, then: {typed(*plan.options, 'experiment=best')}",
        ]
    )
    body = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True) if recipe else ""
    write(file, f"{head}\n{body}")


def _what(plan: Plan) -> str:
    return (
        f"One of the trade-offs between {' and '.join(plan.objectives)}," if plan.objectives else "The best"
    )


def _objectives(plan: Plan, row: Row) -> list[str]:
    """Return a line with the objectives of a configuration, where there are several; the others are in the report."""
    pairs = zip(plan.objectives, row.objectives, plan.modes, strict=True) if plan.objectives else ()
    texts = [f"{name} {value:.6g} ({BETTER[mode]})" for name, value, mode in pairs]
    return [f"# objectives: {', '.join(texts)}; the other trade-offs: report.html"] if texts else []


def recipe_of(overrides: Sequence[str], catalogue: Catalogue) -> dict[str, Any]:
    """Return the overrides of a job as the content of a recipe: words as `defaults`, and keys with their values.

    Raises UserError for those of a record that cannot be read.
    """
    import yaml

    check_lengths(overrides)
    words: list[dict[str, Any]] = []
    values: dict[str, Any] = {}
    parents: list[str] = []
    for text in overrides:
        override = parse_one(text)
        key, value = override.key_or_group, override.value()
        if key == "experiment":
            parents.append(str(value))
        elif key in catalogue.words:
            words.append({f"override /{key}": yaml.safe_load(text.partition("=")[2])})
        elif key not in ("evaluation.test", "output", "name", "quiet") and not key.startswith("hydra"):
            _nest(values, key.lstrip("+"), plain_value(parse_one(text).value()))
    body: dict[str, Any] = {}
    if words or parents:
        body["defaults"] = [*parents, *words] if not parents else [*parents, "_self_", *words]
    return body | values


def _result(row: Row) -> str:
    """Return the objective of a configuration: of its one run, or the mean of its repetitions with a 95 % interval."""
    if len(row.values) < 2:
        return f"{row.mean:.6g} at epoch {row.jobs[0].summary.get('best_epoch', 0):g}"
    parts = f" on {len(row.units)} folds and splits" if len(row.units) < len(row.values) else ""
    return f"{row.mean:.6g} ± {row.half_width:.2g}, the mean of {len(row.values)} runs{parts} and its 95 % interval"


def _nest(node: dict[str, Any], key: str, value: object) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = value
