"""Check the records of a sweep against their hashes and against its jobs."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from dltrain.config.catalogue import Catalogue
from dltrain.config.keys import REPLICATES
from dltrain.config.saved import MAX_SAVED_BYTES
from dltrain.config.yaml_files import SafeLoader, check_bounds
from dltrain.errors import CheckpointProblem, UserError
from dltrain.run.verification import Finding, Verdict, beside, changed_files
from dltrain.storage import manifest
from dltrain.storage.folder_names import check_file
from dltrain.storage.job_names import is_job_folder, job_copies, job_folders, job_number
from dltrain.storage.summary import ENDED, MAX_TABLE_BYTES, UNRANKED, check_names, read_summary, read_text
from dltrain.sweep.outcome.files import recipe_of
from dltrain.sweep.outcome.ranking import rank, winner
from dltrain.sweep.record import RECORD, read_record
from dltrain.sweep.report_again import read_sweep
from dltrain.sweep.sweep import Source
from dltrain.text import first_line


def jobs_of(folder: Path) -> list[Path]:
    """Return the folders of a sweep's jobs that have begun, by number."""
    return [path for path in job_folders(folder).values() if (path / "config.yaml").is_file()]


def verify_sweep(folder: Path, source: Source) -> Verdict:
    """Check the sweep's own files; its jobs are checked like other runs."""
    verdict = Verdict(folder)
    checks: tuple[tuple[str, Callable[[Path, Verdict], Iterator[Finding]]], ...] = (
        ("hashes", hashes),
        (RECORD, record),
        ("results.csv", results),
        ("best.yaml", partial(best, catalogue=source.catalogue)),
        ("the best job", partial(ranking, source=source)),
    )
    for name, check in checks:
        before = len(verdict.findings) + len(verdict.open)
        try:
            verdict.findings += check(folder, verdict)
        except (
            UserError,
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            csv.Error,
            yaml.YAMLError,
        ) as error:
            reason = first_line(error) or type(error).__name__
            verdict.findings.append(Finding(name, reason, "a file that a sweep wrote"))
        if len(verdict.findings) + len(verdict.open) == before:
            verdict.checked.append(name)
    try:
        covered = {manifest.NAME, *(manifest.read(folder) if verdict.hashed else manifest.SWEEP_RECORDS)}
    except CheckpointProblem:
        # a finding of `hashes`
        return verdict
    if others := beside(folder, lambda name: name in covered or is_job_folder(name)):
        verdict.open.append(f"{', '.join(others)} (not among the hashes)")
    return verdict


def hashes(folder: Path, verdict: Verdict) -> Iterator[Finding]:
    """Compare every file with its SHA-256."""
    if not (folder / manifest.NAME).is_file():
        verdict.hashed = False
        said = read_record(folder)
        # commit caa09af wrote neither these keys, nor hashes of jobs
        is_present = not {"stages", "modes", "first"}.isdisjoint(said) or any(
            (path / manifest.NAME).exists() for path in jobs_of(folder)
        )
        if said.get("finished") and is_present:
            yield Finding(manifest.NAME, "it is missing", "the hashes that a sweep writes when it ends")
            return
        verdict.open.append(
            "hashes of the sweep's own files: it has none, since it has not ended, or is of an earlier dltrain"
        )
        return
    known = manifest.read(folder)
    for name in {*known, *manifest.SWEEP_RECORDS}:
        # a pipe, a link out of the folder, or a hole of a terabyte would be read
        if os.path.lexists(folder / name):
            check_file(folder / name)
    yield from changed_files(folder, known)
    for name in manifest.SWEEP_RECORDS:
        if name not in known and (name in manifest.SWEEP_NEEDED or (folder / name).is_file()):
            yield Finding(
                name, "it is not among the hashes", "each record of a sweep, whose hash it writes last"
            )


def record(folder: Path, verdict: Verdict) -> Iterator[Finding]:
    """Check that no job has two folders, and that a finished sweep has no job that did not end."""
    for path in job_copies(folder):
        yield Finding(
            f"{path.name}/", "another folder of the same job", f"one folder of job {job_number(path.name)}"
        )
    if not read_record(folder).get("finished"):
        verdict.open.append("completeness: the sweep has not finished")
        return
    for path in jobs_of(folder):
        status = read_summary(path)["status"]
        if status not in ENDED:
            yield Finding(
                f"{path.name}/summary.json", f"status {status}", "a job that has ended, as the sweep has"
            )


def results(folder: Path, verdict: Verdict) -> Iterator[Finding]:
    """Compare the rows of results.csv with the summaries of the jobs."""
    file = folder / "results.csv"
    if not file.exists():
        return
    rows = csv.DictReader(read_text(file, MAX_TABLE_BYTES).splitlines(keepends=True))
    check_names(rows.fieldnames or ())
    listed: dict[str, dict[Any, Any]] = {}
    for line in rows:
        if line["job"] in listed:
            yield Finding(f"results.csv, job {line['job']}"[:80], "a second row", "one row for each job")
        listed[line["job"]] = line
    begun = {str(job_number(path.name)): path for path in jobs_of(folder)}
    for name in sorted(listed.keys() - begun.keys(), key=int):
        if listed[name]["status"] in ENDED and listed[name]["status"] not in UNRANKED:
            yield Finding(f"{name}/", "it is missing", "the folder of a job in results.csv")
    for name, path in begun.items():
        summary, row = read_summary(path), listed.get(name)
        if row is None:
            yield Finding("results.csv", f"no row of job {name}", "a row for each job")
        elif (
            row["status"] not in UNRANKED
            and row["objective"]
            and float(row["objective"]) != summary.get("objective")
        ):
            expected = f"{summary.get('objective')}, as in {path.name}/summary.json"
            yield Finding(f"results.csv, job {name}", f"objective {row['objective']}", expected)
        else:
            yield from _scores(name, row, summary)


def _scores(name: str, row: dict[str, str], summary: dict[str, Any]) -> Iterator[Finding]:
    """Compare the columns of a row with the best row of the job's summary."""
    known = summary.get("best")
    for column, value in known.items() if isinstance(known, dict) else ():
        if "/" in column and row.get(column) and float(row[column]) != value == value:
            expected = f"{value}, as in its summary.json"[:80]
            yield Finding(f"results.csv, job {name}", f"{column} {row[column]}"[:80], expected)


def best(folder: Path, verdict: Verdict, catalogue: Catalogue) -> Iterator[Finding]:
    """Compare best.yaml with what the best job was asked to do; seed, fold and split seed are those of a repetition."""
    file = folder / "best.yaml"
    if not file.exists():
        return
    said = read_record(folder)
    if "best" not in said and not said.get("finished"):
        # of an earlier end of a sweep that goes on
        verdict.open.append("best.yaml: the sweep has not finished")
        return
    number = job_number(str(said.get("best")))
    path = None if number is None else job_folders(folder).get(number)
    if path is None:
        yield Finding("best.yaml", "a recipe", "none, since sweep.json names no best job that is there")
        return
    check_bounds(file, aliases=False, max_bytes=MAX_SAVED_BYTES)
    found = yaml.load(read_text(file, MAX_SAVED_BYTES), Loader=SafeLoader) or {}
    wanted = recipe_of([str(text) for text in read_summary(path).get("overrides") or []], catalogue)
    for recipe in (found, wanted):
        for key in REPLICATES:
            recipe.pop(key, None)
    if found != wanted:
        differing = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
        yield Finding(
            "best.yaml", f"other values of {', '.join(differing)}"[:80], f"those of {path.name}/summary.json"
        )


def ranking(folder: Path, verdict: Verdict, source: Source) -> Iterator[Finding]:
    """Rank the jobs by their summaries, and compare the first with the best job that sweep.json names."""
    said = read_record(folder)
    if not said.get("finished"):
        return
    try:
        plan, jobs = read_sweep(folder, source)
    except UserError as error:
        verdict.open.append(f"the ranking of its jobs: {first_line(error)}")
        return
    for job in jobs:
        # what the books say of it may be a stranger's
        job.read()
    rows = rank(plan, jobs)
    first, named = winner(plan, rows), job_number(str(said.get("best")))
    wanted = (
        "no best job" if first is None else f"{first.folder.name}, the first by the summaries of its jobs"
    )
    # of equal ones either is right
    good = {job.number for row in rows if row.complete and row.mean == rows[0].mean for job in row.jobs}
    if (named is None) == bool(good) or (named is not None and named not in good):
        yield Finding(f"{RECORD}, best", str(said.get("best"))[:80], wanted)
