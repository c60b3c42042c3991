"""Check the records of a sweep against their hashes and against its jobs."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from dltrain.errors import CheckpointProblem
from dltrain.run.verification import Finding, Verdict, changed_files
from dltrain.storage import manifest
from dltrain.storage.job_names import job_folders, job_number
from dltrain.storage.summary import ENDED, MAX_TABLE_BYTES, UNRANKED, read_summary, read_text
from dltrain.sweep.record import RECORD, read_record
from dltrain.text import first_line


def jobs_of(folder: Path) -> list[Path]:
    """Return the folders of a sweep's jobs that have begun, by number."""
    return [path for path in job_folders(folder).values() if (path / "config.yaml").is_file()]


def verify_sweep(folder: Path) -> Verdict:
    """Check the sweep's own files; its jobs are checked like other runs."""
    verdict = Verdict(folder)
    for name, check in (("hashes", hashes), (RECORD, record), ("results.csv", results)):
        before = len(verdict.findings) + len(verdict.open)
        try:
            verdict.findings += check(folder, verdict)
        except (CheckpointProblem, OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            reason = first_line(error) or type(error).__name__
            verdict.findings.append(Finding(name, reason, "a file that a sweep wrote"))
        if len(verdict.findings) + len(verdict.open) == before:
            verdict.checked.append(name)
    return verdict


def hashes(folder: Path, verdict: Verdict) -> Iterator[Finding]:
    """Compare every file with its SHA-256."""
    if not (folder / manifest.NAME).is_file():
        verdict.open.append(
            "hashes of the sweep's own files: it has none, since it has not ended, or is of an earlier dltrain"
        )
        return
    yield from changed_files(folder, manifest.read(folder))


def record(folder: Path, verdict: Verdict) -> Iterator[Finding]:
    """Check that a finished sweep has no job that did not end."""
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
    listed = {row["job"]: row for row in rows}
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
