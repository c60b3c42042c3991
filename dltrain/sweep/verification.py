"""Check the records of a sweep against their hashes and against its jobs."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from dltrain.config.catalogue import Catalogue, leaves
from dltrain.config.keys import REPLICATES
from dltrain.config.saved import MAX_SAVED_BYTES
from dltrain.config.yaml_files import SafeLoader, check_bounds
from dltrain.errors import CheckpointProblem, UserError
from dltrain.run.verification import Finding, Verdict, beside, changed_files, keys_of_command
from dltrain.storage import manifest
from dltrain.storage.folder_names import SWEEP_STUDY, check_file
from dltrain.storage.job_names import is_job_folder, job_copies, job_folders, job_number
from dltrain.storage.summary import ENDED, MAX_TABLE_BYTES, UNRANKED, check_names, read_summary, read_text
from dltrain.sweep.begun import OtherJob, check_number
from dltrain.sweep.jobs import Job
from dltrain.sweep.outcome.files import recipe_of, write_csv
from dltrain.sweep.outcome.ranking import Row, rank, winner
from dltrain.sweep.plan.plan import Plan
from dltrain.sweep.record import RECORD, key_of, read_record
from dltrain.sweep.report_again import NoStudy, read_sweep
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
        ("the jobs", partial(ranking, source=source)),
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
    if others := beside(folder, covered, is_job_folder):
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
    # of a sweep that goes on, the table is that of its former end
    is_finished = read_record(folder).get("finished") is True
    for name in sorted(listed.keys() - begun.keys(), key=int):
        if listed[name]["status"] in ENDED and listed[name]["status"] not in UNRANKED:
            yield Finding(f"{name}/", "it is missing", "the folder of a job in results.csv")
    for name, path in begun.items():
        summary, row = read_summary(path), listed.get(name)
        if row is None:
            yield Finding("results.csv", f"no row of job {name}", "a row for each job")
        elif is_finished and row["status"] != summary["status"]:
            expected = f"{summary['status']}, as in {path.name}/summary.json"
            yield Finding(f"results.csv, job {name}", f"status {row['status']}"[:80], expected[:80])
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
    found, wanted = without_repetition(found), without_repetition(wanted)
    if found != wanted:
        differing = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
        yield Finding(
            "best.yaml", f"other values of {', '.join(differing)}"[:80], f"those of {path.name}/summary.json"
        )


def without_repetition(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe without the keys whose values are repetitions, such as `dataset.split_seed`, and without their number."""
    return {path: value for path, value in leaves(recipe) if path not in (*REPLICATES, "folds")}


def ranking(folder: Path, verdict: Verdict, source: Source) -> Iterator[Finding]:
    """Compare the sweep's own files with what follows from its overrides and from the summaries of its jobs."""
    said = read_record(folder)
    if not said.get("finished"):
        return
    try:
        plan, jobs = read_sweep(folder, source)
        for job in jobs:
            # what the books say of it may be a stranger's
            job.read()
            if plan.configurations is not None:
                check_number(job)
    except OtherJob as error:
        yield Finding(RECORD, first_line(error), "the overrides of its jobs")
        return
    except NoStudy:
        yield Finding(
            SWEEP_STUDY, "it is missing", f"the list of jobs that are no grid by the overrides in {RECORD}"
        )
        return
    except UserError as error:
        verdict.open.append(f"the ranking of its jobs: {first_line(error)}")
        return
    if (folder / "results.parquet").is_file():
        verdict.open.append("results.parquet against results.csv, with which it was written")
    rows = rank(plan, jobs)
    yield from _plan(said, plan, jobs)
    yield from _best_job(said, plan, rows)
    wrong = {finding.where for finding in verdict.findings}
    yield from (finding for finding in _cells(folder, plan, jobs) if finding.where not in wrong)
    if rows:
        yield from _result(folder, plan, rows[0])


def _plan(said: dict[str, Any], plan: Plan, jobs: Sequence[Job]) -> Iterator[Finding]:
    """Compare what sweep.json says of the sweep with what its overrides ask for, and what its command says with these."""
    known, identity = json.loads(json.dumps(plan.identity())), said["identity"]
    settings = known["settings"].keys() & identity["settings"].keys()
    for name in ("sweep", "axes", "fixed", "test"):
        if identity.get(name) != known.get(name):
            yield Finding(f"{RECORD}, {name}", str(identity.get(name))[:80], "that of its overrides")
    for name in sorted(settings):
        if identity["settings"][name] != known["settings"][name]:
            yield Finding(f"{RECORD}, {name}", str(identity["settings"][name])[:80], "that of its overrides")
    if said.get("modes", plan.modes) != list(plan.modes):
        yield Finding(f"{RECORD}, modes", str(said["modes"])[:80], str(list(plan.modes)))
    if said.get("loss", "plain") != "plain":
        yield Finding(f"{RECORD}, loss", str(said["loss"])[:80], "plain")
    # a sweep that was extended keeps the command of its beginning, and another command may say how it runs
    asked = {key_of(text): text for text in said["overrides"]}
    for text in keys_of_command(said.get("command")) if not said.get("stages") else ():
        other = asked.get(key_of(text), text)
        if other != text and not key_of(text).startswith("sweep"):
            yield Finding(f"{RECORD}, command", text[:80], f"{other[:80]}, as in its overrides")
            break
    if plan.configurations is not None and len(jobs) < plan.total:
        yield Finding("jobs", f"{len(jobs)} folders", f"{plan.total}, as many as the sweep has")


def _best_job(said: dict[str, Any], plan: Plan, rows: list[Row]) -> Iterator[Finding]:
    """Compare the best job that sweep.json names with the first by the summaries."""
    first, named = winner(plan, rows), job_number(str(said.get("best")))
    wanted = (
        "no best job" if first is None else f"{first.folder.name}, the first by the summaries of its jobs"
    )
    # of equal ones either is right
    good = {job.number for row in rows if row.complete and row.mean == rows[0].mean for job in row.jobs}
    if (named is None) == bool(good) or (named is not None and named not in good):
        yield Finding(f"{RECORD}, best", str(said.get("best"))[:80], wanted)


def _cells(folder: Path, plan: Plan, jobs: list[Job]) -> Iterator[Finding]:
    """Compare results.csv with the table that the summaries give; of the folders, which may have moved, the names."""
    file = folder / "results.csv"
    if not file.exists():
        return
    with TemporaryDirectory() as beside:
        write_csv(plan, jobs, Path(beside) / file.name)
        wanted, found = (table_of(path) for path in (Path(beside) / file.name, file))
    known = {column for row in wanted.values() for column in row}
    for column in sorted({column for row in found.values() for column in row} - known):
        yield Finding("results.csv", f"a column {column}"[:80], "the columns of a sweep")
    for number, row in found.items():
        for column, value in wanted.get(number, {}).items():
            cell = row.get(column)
            # the driver knows why a job failed where its summary does not
            if cell is None or cell == value or column == "seconds" or (column == "reason" and value):
                continue
            name = PurePath(cell).name
            # `record` reports a second folder of a job
            if column != "folder" or str(job_number(name)) != number or not (folder / name).is_dir():
                yield Finding(
                    f"results.csv, job {number}"[:80],
                    f"{column} {cell or 'without a value'}"[:80],
                    f"{value or 'no value'}, as in its records"[:80],
                )
                break


def table_of(file: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a results.csv by job."""
    lines = read_text(file, MAX_TABLE_BYTES).splitlines(keepends=True)
    return {row["job"]: row for row in csv.DictReader(lines)}


def _result(folder: Path, plan: Plan, row: Row) -> Iterator[Finding]:
    """Compare the result in the head of best.yaml with that of the best configuration."""
    file = folder / "best.yaml"
    said = (
        re.search(r"^# result: (\S+) (\S+)", read_text(file, MAX_SAVED_BYTES), re.M)
        if file.exists()
        else None
    )
    wanted = (plan.metric, f"{row.mean:.6g}")
    if said is not None and said.groups() != wanted:
        yield Finding("best.yaml, result", " ".join(said.groups())[:80], " ".join(wanted))
