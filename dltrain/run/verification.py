"""Check the records of a run against their hashes and against each other, without training.

The file is long because each record has its check, and the checks are read as one list.
"""

from __future__ import annotations

import csv
import json
import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Container, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from dltrain.config import saved
from dltrain.config.door import Door
from dltrain.config.groups import GROUPS
from dltrain.config.keys import LENGTH, REPLICATES, is_safe
from dltrain.config.repeated import compared
from dltrain.config.schema import Config
from dltrain.data.contract import Contract
from dltrain.data.prepare import fingerprint_of
from dltrain.data.synthetic import none
from dltrain.defaults import DEFAULT_EPOCHS
from dltrain.direction import resolved_modes
from dltrain.errors import CheckpointProblem, DataProblem, UserError, split_command, typed
from dltrain.loggers.events import EARLIER, EVENT_FILES, Best
from dltrain.metrics.report import CONFUSION, PER_CLASS, per_class_csv
from dltrain.metrics.targets import PER_TARGET, SCORES
from dltrain.report.record import read_targets
from dltrain.run.data import build_data
from dltrain.storage import checkpoint, manifest
from dltrain.storage.event_log import EVENTS, SAVED, read_events
from dltrain.storage.folder_names import METRICS, SWEEP_RECORD, check_files
from dltrain.storage.run_folder import read_contract, read_statistics
from dltrain.storage.summary import (
    ENDED,
    FINISHED,
    MAX_TABLE_BYTES,
    column_of,
    opened,
    read_rows,
    read_summary,
    read_text,
)
from dltrain.storage.tensors import load_tensors
from dltrain.text import first_line

# what the version that wrote no manifest of a run, commit caa09af, wrote neither: keys of summary.json, files, keys of the
# manifests of checkpoints
SINCE_HASHES = frozenset(("format", "metric", "mode", "constant", "config", "processor"))
FILES_SINCE_HASHES = ("data.json", EVENTS, CONFUSION, PER_CLASS)
FACTS_SINCE_HASHES = frozenset(("metrics", "processor"))
# what a summary holds of a run that has finished only
OF_FINISHED = ("test", "objective", "best", "best_epoch")
# overrides that are named as not compared
MOST_OPEN = 5
# files that loggers write, which are no records of results
UNCOVERED = ("run.log", f"{EVENT_FILES}.*", EARLIER)
LOCKS = ("run.lock", "sweep.lock", ".tags.lock")


@dataclass(frozen=True)
class Finding:
    """What is wrong with a file: what was found, and what was expected."""

    where: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.where}: {self.found}; expected {self.expected}"


@dataclass
class Verdict:
    """What was checked, what is wrong, and what could not be checked."""

    path: Path
    checked: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    # whether its records could be compared with hashes, and not with each other alone
    hashed: bool = True

    def as_json(self) -> dict[str, Any]:
        return {
            "run": str(self.path),
            "sound": not self.findings,
            "hashed": self.hashed,
            "findings": [vars(finding) for finding in self.findings],
            "checked": self.checked,
            "not checked": self.open,
        }


class Records:
    """The records of a run folder, each read once."""

    def __init__(self, path: Path, config: Config | UserError) -> None:
        self.path = path
        target = config.early_stopping["_target_"] if isinstance(config, Config) else ""
        # a class of the user's own may keep other weights
        self.rule_is_known = str(target).startswith("dltrain.")
        self.config = config

    @cached_property
    def hashes(self) -> dict[str, str] | None:
        """The manifest of the run; None where there is none."""
        return manifest.read(self.path) if (self.path / manifest.NAME).is_file() else None

    @cached_property
    def is_of_present_version(self) -> bool:
        """Whether something of the run is what a version without a manifest did not write, whichever part was removed."""
        facts = [found.manifest for found in self.checkpoints]
        return (
            not SINCE_HASHES.isdisjoint(self.summary)
            or any((self.path / name).exists() for name in FILES_SINCE_HASHES)
            or any(not FACTS_SINCE_HASHES.isdisjoint(known) for known in facts)
        )

    def is_unwritten(self, name: str) -> bool:
        """Return whether the run itself says that it could not write a file, as on a full disk."""
        said = self.summary.get("problems")
        problems = map(str, said) if isinstance(said, list) else ()
        beginnings = (f"{name} could not be written (", f"/{name} could not be written (")
        return any(beginning in f" {problem}" for problem in problems for beginning in beginnings)

    def is_lost(self, step: float) -> bool:
        """Return whether a step comes after the last row of a metrics.csv that could not be written to its end."""
        last = self.rows[-1]["step"] if self.rows else 0
        return step > last and self.is_unwritten(METRICS)

    @property
    def rule(self) -> Best:
        """How evaluations are compared; a summary of an earlier version does not say it."""
        said = self.summary
        if isinstance(self.config, Config) and "metric" not in said:
            mode = resolved_modes(self.config.plain)["early_stopping.mode"]
            return Best(str(self.config.early_stopping["metric"]), "max" if mode == "max" else "min")
        return Best(said["metric"], said["mode"])

    @cached_property
    def summary(self) -> dict[str, Any]:
        return read_summary(self.path)

    @cached_property
    def rows(self) -> Sequence[dict[str, float]]:
        return read_rows(self.path / "metrics.csv")

    @cached_property
    def contract(self) -> Contract | None:
        return read_contract(self.path)

    @cached_property
    def checkpoints(self) -> list[checkpoint.Checkpoint]:
        """The checkpoints whose manifests can be read, the oldest first."""
        found = []
        for folder in self.checkpoint_folders:
            try:
                found.append(checkpoint.Checkpoint(folder, checkpoint.read_manifest(folder)))
            except CheckpointProblem:
                continue
        return sorted(found, key=lambda found: int(found.manifest["step"]))

    @cached_property
    def checkpoint_folders(self) -> list[Path]:
        """The folders of checkpoints, those included that `resume` would restore."""
        parent = self.path / "checkpoints"
        return [*checkpoint.folders(parent), *checkpoint.put_aside(parent)]

    def name(self, file: Path) -> str:
        return file.relative_to(self.path).as_posix()


# what is raised for values that no run wrote; torch and safetensors say why a file of theirs is none
DAMAGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError, csv.Error, SafetensorError)  # fmt: skip
Check = Callable[[Records, Verdict], Iterator[Finding]]


def verify(path: Path, config: Config | UserError, door: Door | UserError, data: bool = True) -> Verdict:
    """Check a run folder; `data` compares the dataset, too.

    `config` is its configuration, and `door` builds from it; or why it cannot be read, or built.
    """
    verdict, records = Verdict(path), Records(path, config)
    try:
        check_files(path)
    except CheckpointProblem as error:
        verdict.findings.append(Finding(".", first_line(error), "regular files and folders only"))
        return verdict
    for name, check in CHECKS.items():
        _run(name, check, records, verdict)
    if (path / SWEEP_RECORD).exists():
        verdict.findings.append(
            Finding(SWEEP_RECORD, "the record of a sweep", "none in the folder of a run, which is no sweep")
        )
    verdict.findings += configuration(records, verdict, config)
    if isinstance(config, Config) and isinstance(door, Door) and data:
        verdict.findings += dataset(records, verdict, config, door)
    elif data:
        reason = door if isinstance(config, Config) else "without the configuration they cannot be read"
        verdict.open.append(f"the data: {first_line(reason)}")
    verdict.open += [f"{name} (written by loggers)" for name in UNCOVERED if any(path.glob(name))]
    if beside := uncovered(records):
        verdict.open.append(f"{', '.join(beside)} (not among the hashes)")
    return verdict


def _run(name: str, check: Check, records: Records, verdict: Verdict) -> None:
    """Add what a check finds; a file that cannot be read is a finding."""
    before = len(verdict.findings) + len(verdict.open)
    try:
        verdict.findings += check(records, verdict)
    except CheckpointProblem as error:
        verdict.findings.append(Finding(name, first_line(error), "a file that a run wrote"))
    except OSError as error:
        verdict.findings.append(
            Finding(name, f"{error.filename}: {error.strerror}", "a file that can be read")
        )
    except DAMAGE as error:
        reason = f"a value has another type ({type(error).__name__}: {str(error)[:80]})"
        verdict.findings.append(Finding(name, reason, "a file that a run wrote"))
    if len(verdict.findings) + len(verdict.open) == before:
        verdict.checked.append(name)


# The checks ----------------------------------------------------------------------------------------------------------


def hashes(records: Records, verdict: Verdict) -> Iterator[Finding]:
    """Compare every record with the SHA-256 of the run's manifest."""
    path, known = records.path, records.hashes
    if known is None:
        verdict.hashed = False
        ended = records.summary["status"] in (*FINISHED, "interrupted")
        if ended and records.is_of_present_version:
            cure = f"those of one that was killed before: {typed('resume', path)}"
            yield Finding(
                manifest.NAME, "it is missing", f"the hashes that a run writes when it ends; {cure}"
            )
        elif not records.is_of_present_version:
            verdict.open.append("hashes of the records: an earlier dltrain wrote none")
        else:
            verdict.open.append(
                "hashes of the records: they are written when the run ends, which a killed one cannot"
            )
        return
    yield from changed_files(path, known)
    for name in manifest.covered(path):
        if name not in known and (path / name).is_file():
            yield Finding(name, "it is not among the hashes", "only files that were there when the run ended")
    if records.summary["status"] == "running":
        yield Finding("summary.json", "status running", "the status of a run that has ended")


def changed_files(folder: Path, known: Mapping[str, str]) -> Iterator[Finding]:
    """Yield a finding for each file that is missing or whose SHA-256 is not the known one."""
    for name, sha256 in known.items():
        file = folder / name
        if not file.is_file():
            yield Finding(name, "it is missing", f"SHA-256 {sha256[:12]}…")
        elif (found := manifest.digest(file)) != sha256:
            yield Finding(name, f"SHA-256 {found[:12]}…", f"{sha256[:12]}…")


def checkpoints(records: Records, verdict: Verdict) -> Iterator[Finding]:
    """Compare the files of each checkpoint with its hashes, and their contents with its manifest."""
    for folder in records.checkpoint_folders:
        try:
            for name in checkpoint.unknown_files(folder):
                yield Finding(records.name(folder / name), "a file that its manifest does not name", "none")
            found = checkpoint.verified(folder)
            state = found.state()
            yield from _contents(records, found, state)
        except (CheckpointProblem, OSError, *DAMAGE) as error:
            where = records.name(folder)
            yield Finding(where, first_line(error), "the files and hashes of its manifest")


def _contents(records: Records, found: checkpoint.Checkpoint, state: dict[str, Any]) -> Iterator[Finding]:
    where, step = records.name(found.folder), int(found.manifest["step"])
    if state["step"] != step:
        yield Finding(f"{where}/state.pt", f"step {state['step']}", f"step {step}")
    if not same_row(dict(state["best_row"]), found.manifest["best"]):
        yield Finding(f"{where}/manifest.json", "its best row is another", "the best row of state.pt")
    for name, tensor in found.weights().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            yield Finding(f"{where}/weights.safetensors", f"{name} is not finite", "finite weights")
    lines = found.manifest.get("metrics")
    if lines is not None and not manifest.begins_with(records.path / "metrics.csv", lines):
        yield Finding(
            "metrics.csv", "its first rows have another SHA-256", f"the rows of the checkpoint of step {step}"
        )


def table(records: Records, verdict: Verdict) -> Iterator[Finding]:
    """Check the epochs of metrics.csv, and that it has the best row of each checkpoint; its steps are checked as it is read."""
    rows = records.rows
    steps = column_of(rows, "step")
    per_epoch: set[float] = set()
    for step, epoch in zip(steps, column_of(rows, "epoch", 0.0), strict=True):
        if epoch and len(per_epoch) < 2:
            per_epoch.add(round(step / epoch, 6))
    if len(per_epoch) > 1:
        yield Finding("metrics.csv", f"epochs of {sorted(per_epoch)[:2]} steps", "epochs of equal length")
    if records.is_lost(math.inf):
        verdict.open.append(f"{METRICS}: it could not be written to its end")
    bests = [(found, found.manifest["best"]) for found in records.checkpoints]
    by_step = rows_of(rows, {best["step"] for _, best in bests if best})
    for found, best in bests:
        where = records.name(found.folder)
        if best and not records.is_lost(best["step"]) and not is_row(by_step.get(best["step"], {}), best):
            yield Finding(
                f"metrics.csv, step {best['step']:.0f}", "another row, or none", f"the best row of {where}"
            )


def events(records: Records, verdict: Verdict) -> Iterator[Finding]:
    """Compare the evaluations of events.jsonl with metrics.csv; a run of an earlier version has no events."""
    if records.hashes is None:
        # a kill may come between a row and its event, and a resumed run writes both again
        return
    found, end = False, dict[str, Any]()
    told, saved = array("q"), set[int]()
    steps = column_of(records.rows, "step")
    try:
        for event in read_events(records.path):
            found = True
            if event["event"] == "evaluated":
                told.append(event["step"])
                place = bisect_left(steps, event["step"])
                row = records.rows[place] if place < len(steps) else {}
                yield from _values(event, row if row.get("step") == event["step"] else {}, "metrics.csv")
            elif event["event"] == SAVED:
                saved.add(event["step"])
            elif event["event"] == "run_ended":
                end = event
    except (ValueError, OverflowError) as error:
        yield Finding(EVENTS, str(error)[:100], "one JSON object a line")
        return
    if records.summary["status"] in FINISHED and not records.is_unwritten(EVENTS):
        yield from _values(end, _scores(records.summary), "summary.json")
    kept, told = array("q", map(int, steps)), array("q", (k for k in told if not records.is_lost(k)))
    # the first rows of a run of an earlier version that was resumed have no events
    if records.is_unwritten(EVENTS):
        verdict.open.append(f"{EVENTS}: it could not be written to its end")
    elif found and told != kept[len(kept) - len(told) :]:
        yield Finding(
            EVENTS,
            f"evaluations of the steps {told[-3:].tolist()}",
            f"those of metrics.csv, {kept[-3:].tolist()}",
        )
    told_of = saved and not records.is_unwritten(EVENTS)
    for unsaved in [one for one in records.checkpoints if told_of and int(one.manifest["step"]) not in saved]:
        yield Finding(records.name(unsaved.folder), "no event says that it was saved", f"one in {EVENTS}")


def _values(event: Mapping[str, Any], known: Mapping[str, Any], where: str) -> Iterator[Finding]:
    """Compare the values of an event with those of the same names in another record; JSON has no NaN."""
    for name in event.keys() & known.keys() - {"step"}:
        then, now = event[name], known[name]
        if then != now and not (then is None and isinstance(now, float) and not math.isfinite(now)):
            expected = f"{str(now)[:40]}, as in {where}"
            yield Finding(f"{EVENTS}, step {event['step']}", f"{name} {str(then)[:40]}"[:80], expected)


def _scores(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a summary says of the end of a run, by the names that the event of the end has."""
    scores = {
        f"{group}/{name}": v for group in ("best", "test") for name, v in (said.get(group) or {}).items()
    }
    names = ("objective", "best_epoch", "epochs", "steps", "stop_reason")
    return scores | {name: said[name] for name in names if name in said}


def summary(records: Records, verdict: Verdict) -> Iterator[Finding]:
    """Compare the summary with the rows and the checkpoints."""
    said, rows = records.summary, records.rows
    where, best = "summary.json", said.get("best") or {}
    if said["status"] not in (*ENDED, "running", "interrupted"):
        yield Finding(f"{where}, status", str(said["status"])[:80], "one that a run writes")
    if said["status"] not in FINISHED and records.hashes is None:
        for name in (name for name in OF_FINISHED if said.get(name) not in (None, {})):
            yield Finding(
                f"{where}, {name}",
                f"a value in a run that is {said['status']}"[:80],
                "none before it has finished",
            )
    if best and records.is_lost(best["step"]):
        verdict.open.append(f"{where}, best: its row could not be written to {METRICS}")
    elif best and not is_row(rows_of(rows, {best["step"]}).get(best["step"], {}), best):
        yield Finding(f"{where}, best", "a row that metrics.csv does not have", "its best row")
    is_comparable = best and said.get("objective") is not None and records.rule_is_known
    if is_comparable and not records.is_lost(best["step"]):
        yield from _objective(said, rows, best, records.rule)
    yield from _length(records)
    newest = records.checkpoints[-1:]
    if said["status"] in FINISHED and newest and said["steps"] != newest[0].manifest["step"]:
        yield Finding(
            f"{where}, steps", str(said["steps"]), f"{newest[0].manifest['step']}, the last checkpoint"
        )
    if said["status"] in FINISHED and best:
        wanted = best["epoch"]
        if not math.isclose(said["best_epoch"], wanted, rel_tol=1e-6):
            yield Finding(
                f"{where}, best_epoch", str(said["best_epoch"]), f"{wanted:g}, that of its best row"
            )


def _length(records: Records) -> Iterator[Finding]:
    """Check that the run trained no further than its configuration plans."""
    config = records.config
    if not isinstance(config, Config):
        return
    key, planned = ("steps", config.steps) if config.steps else ("epochs", config.epochs or DEFAULT_EPOCHS)
    found = {f"summary.json, {key}": records.summary.get(key) or 0}
    if records.rows:
        found[f"metrics.csv, {key}"] = records.rows[-1].get(key[:-1], 0)
    for where, number in found.items():
        if number > planned * (1 + 1e-9):
            yield Finding(where, f"{number:g}", f"at most {planned}, as in config.yaml")


def _objective(
    said: dict[str, Any], rows: Sequence[dict[str, float]], best: dict[str, float], rule: Best
) -> Iterator[Finding]:
    """Compare the best row with the best of the rows, by the rule of early stopping."""
    first = rule.of(rows)
    if first and first["step"] != best["step"]:
        wanted = f"{rule.metric} {rule.score:g} at step {first['step']:.0f}, as in metrics.csv"
        yield Finding("summary.json, best", f"the row of step {best['step']:.0f}", wanted)
    elif said["objective"] != rule.score:
        yield Finding(
            "summary.json, objective", str(said["objective"])[:80], f"{rule.score:g}, as in metrics.csv"
        )


def weights(records: Records, verdict: Verdict) -> Iterator[Finding]:
    """Compare the best weights with the checkpoint of the best evaluation, and check the statistics of the inputs."""
    file = records.path / "checkpoints" / "best.safetensors"
    if file.is_file():
        try:
            found = load_tensors(file)
        except SafetensorError as error:
            yield Finding(records.name(file), f"it cannot be read ({error})", "the best weights")
            return
        for known in records.checkpoints:
            is_best = known.manifest["step"] == (records.summary.get("best") or {}).get("step")
            if is_best and not equal_tensors(found, known.weights(averaged=True)):
                yield Finding(records.name(file), "other weights", f"those of {records.name(known.folder)}")
    elif records.summary.get("best") and records.summary["status"] in FINISHED:
        yield Finding(records.name(file), "it is missing", "the best weights")
    statistics = read_statistics(records.path)
    for name, tensor in (statistics or {}).items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            yield Finding("checkpoints/normalization.safetensors", f"{name} is not finite", "finite numbers")


def contract(records: Records, verdict: Verdict) -> Iterator[Finding]:
    """Compare data.json with the checkpoints."""
    known = records.contract
    if known is None:
        # objectives have no data, and a fingerprint of their own
        without = (None, "", fingerprint_of(none()))
        for found in records.checkpoints:
            known_data = found.manifest.get("fingerprint") not in without
            if not FACTS_SINCE_HASHES.isdisjoint(found.manifest) and known_data:
                yield Finding("data.json", "it is missing", f"that of {records.name(found.folder)}")
                return
        return
    for found in records.checkpoints:
        if found.manifest.get("fingerprint") != known.fingerprint:
            expected = f"{found.manifest.get('fingerprint')}, that of {records.name(found.folder)}"
            yield Finding("data.json", f"fingerprint {known.fingerprint}", expected)


def reports(records: Records, verdict: Verdict) -> Iterator[Finding]:
    """Compare the confusion matrix with the report by class, the size of the split and the accuracy."""
    yield from by_target(records)
    there = [name for name in (CONFUSION, PER_CLASS) if (records.path / name).is_file()]
    for name in (name for name in (CONFUSION, PER_CLASS) if there and name not in there):
        if not records.is_unwritten(name):
            yield Finding(name, "it is missing", f"a report of the same samples as {there[0]}")
        else:
            verdict.open.append(f"{name}: it could not be written when the run ended")
    if CONFUSION not in there:
        return
    names, counts = read_confusion(records.path / CONFUSION)
    if PER_CLASS in there and read_text(records.path / PER_CLASS, MAX_TABLE_BYTES) != per_class_csv(
        counts, names
    ):
        yield Finding(PER_CLASS, "other scores", f"those that follow from {CONFUSION}")
    said, known, split = records.summary, records.contract, _reported_split(records)
    if said["status"] not in FINISHED and not said.get("test"):
        # of an earlier end of a run that was continued
        return
    if known is not None and int(counts.sum()) != known.sizes[split]:
        yield Finding(CONFUSION, f"{int(counts.sum())} samples", f"{known.sizes[split]}, as in data.json")
    accuracy = float(counts.diagonal().sum() / counts.sum())
    place, scores = ("test", said.get("test") or {}) if split == "test" else ("best", said.get("best") or {})
    score = scores.get("accuracy" if split == "test" else "val/accuracy")
    if score is not None and not math.isclose(score, accuracy, rel_tol=1e-5):
        yield Finding(f"summary.json, {place}", f"accuracy {score:g}", f"{accuracy:g}, by {CONFUSION}")


def by_target(records: Records) -> Iterator[Finding]:
    """Compare the means of the report by target with the scores of the same split."""
    if not (records.path / PER_TARGET).is_file():
        return
    rows, said = read_targets(records.path / PER_TARGET), records.summary
    place, prefix = ("test", "") if _reported_split(records) == "test" else ("best", "val/")
    for name in SCORES:
        score, mean = (said.get(place) or {}).get(prefix + name), sum(row[name] for row in rows) / len(rows)
        if score is not None and not math.isclose(score, mean, rel_tol=1e-5, abs_tol=1e-6):
            yield Finding(PER_TARGET, f"mean {name} {mean:g}", f"{score:g}, by summary.json, {place}")


def _reported_split(records: Records) -> str:
    """Return the split of the reports: that of the winner of a sweep is the validation split, also with test scores.

    Its job does not score the test split; the sweep does.
    """
    is_asked = not isinstance(records.config, Config) or records.config.evaluation.test
    return "test" if is_asked and records.summary.get("test") else "val"


def read_confusion(file: Path) -> tuple[list[str], Tensor]:
    """Return the classes and the (C, C) counts of a confusion matrix. Raises ValueError for a table that is not square."""
    cells = array("q")
    with opened(file, MAX_TABLE_BYTES) as stream:
        lines = csv.reader(stream)
        _, *names = next(lines)
        # a digit and a comma for each cell: a head that no table can follow is refused before the table is read
        if 2 * len(names) ** 2 > file.stat().st_size:
            raise ValueError(f"it has {len(names)} columns, and no room for as many rows")
        for line in lines:
            if len(line) != 1 + len(names):
                raise ValueError("it is not square")
            if line[0] != names[min(len(cells) // len(names), len(names) - 1)]:
                raise ValueError("its rows and its columns are of other classes")
            cells.extend(map(int, line[1:]))
    return names, torch.tensor(cells, dtype=torch.int64).view(len(names), len(names))


def uncovered(records: Records) -> list[str]:
    """Return the names of files and folders in a run folder that no hash covers, the logs aside."""
    covered = {manifest.NAME, *(records.hashes or manifest.RECORDS)}
    # `checkpoints` names what is in them and not in their manifests
    covered |= {records.name(folder) for folder in records.checkpoint_folders}
    return beside(records.path, covered, lambda name: any(fnmatch(name, log) for log in UNCOVERED))


def beside(folder: Path, covered: Set[str], known: Callable[[str], bool]) -> list[str]:
    """Return the paths below a folder that are neither covered by a hash nor known, folders with a `/`; locks are no records."""
    parents = {parent.as_posix() for name in covered for parent in PurePosixPath(name).parents}
    found: list[str] = []
    folders = [folder]
    for place in folders:
        for entry in place.iterdir():
            name = entry.relative_to(folder).as_posix()
            if name in covered or name in LOCKS or known(name):
                continue
            if name in parents and entry.is_dir():
                folders.append(entry)
            else:
                found.append(name + "/" * entry.is_dir())
    return sorted(found)


CHECKS: dict[str, Check] = {
    "hashes": hashes,
    "checkpoints": checkpoints,
    "metrics.csv": table,
    EVENTS: events,
    "summary.json": summary,
    "weights": weights,
    "data.json": contract,
    "reports by class": reports,
}


def contradiction(records: Records) -> Finding | None:
    """Return the first finding of the checks that compare the records with each other; None where they agree."""
    for name, check in CHECKS.items():
        verdict = Verdict(records.path)
        if check is not hashes:
            _run(name, check, records, verdict)
        if verdict.findings:
            return verdict.findings[0]
    return next(configuration(records, Verdict(records.path), records.config), None)


def configuration(records: Records, verdict: Verdict, config: Config | UserError) -> Iterator[Finding]:
    """Compare config.yaml with what the checkpoints were made with, and with the seed of the summary."""
    if not isinstance(config, Config):
        if is_whole(records, "config.yaml"):  # a word of the user that is missing here
            verdict.open.append(f"config.yaml against the checkpoints: {first_line(config)}")
        else:
            yield Finding("config.yaml", first_line(config), "a configuration of the present catalogue")
        return
    for found in records.checkpoints:
        then = found.manifest.get("config")
        if then is None and not FACTS_SINCE_HASHES.isdisjoint(found.manifest):
            yield Finding(
                f"{records.name(found.folder)}/manifest.json", "no `config`", "the configuration of its run"
            )
            return
        try:
            saved.check_same(records.path, then, saved.binding(config))
        except CheckpointProblem as error:
            changes = first_line(error).partition("made with: ")[2]
            yield Finding("config.yaml", changes, f"the values of {records.name(found.folder)}")
            return
    try:
        seed = records.summary.get("seed", config.seed)
    except CheckpointProblem:
        return
    if seed != config.seed:
        yield Finding("summary.json, seed", str(seed)[:80], f"{config.seed}, as in config.yaml")
    yield from _shown_configuration(records)
    yield from _asked_for(records, verdict)


def _asked_for(records: Records, verdict: Verdict) -> Iterator[Finding]:
    """Compare what the summary says was asked of the run, which is what somebody would repeat, with config.yaml."""
    said = records.summary
    overrides = said.get("overrides")
    texts = [text for text in overrides if isinstance(text, str)] if isinstance(overrides, list) else []
    # a sweep chooses a word's equal for a job that it takes over, and the repetitions of its jobs
    left_out = (GROUPS if said.get("reused") else (), REPLICATES)
    saved_values = saved.load_bounded(records.path / "config.yaml")
    command = said.get("command")
    words = words_of_command(command)
    options = [word for word in words if word.startswith("-")]
    # a verb, such as rerun, and the folder of a run
    has_paths = any("=" not in word for word in words if word not in options)
    for name, asked, free in (
        ("overrides", texts, left_out[0]),
        ("command", keys_of_command(command), (*left_out[0], *left_out[1])),
    ):
        kept = [text for text in asked if text.lstrip("+").partition("=")[0] not in free]
        several = name == "command" and not {"-m", "--multirun"}.isdisjoint(options)
        found = list(compared(saved_values, kept, several, name == "command" and has_paths))
        verdict.open += _first([f"{name}: {text[:80]} ({why})" for text, _, why in found if why], name)
        for text, expected, _ in found:
            if expected:
                yield Finding(f"summary.json, {name}", text[:80], expected)
                return
    of_files = [option for option in options if option.startswith(("-c", "--config", "--exp"))]
    verdict.open += _first(
        [f"command: {option[:80]} (config.yaml does not say)" for option in of_files], "command"
    )


def _first(lines: list[str], name: str) -> list[str]:
    more = [f"{name}: {len(lines) - MOST_OPEN} more"] if len(lines) > MOST_OPEN else []
    return [*lines[:MOST_OPEN], *more]


def words_of_command(command: object) -> list[str]:
    """Return the words after the program of a command line of dltrain."""
    try:
        program, *words = split_command(command)
    except ValueError:
        return []
    return words if program == "dltrain" else []


def keys_of_command(command: object) -> list[str]:
    """Return the `key=value` of a command line of dltrain."""
    return [word for word in words_of_command(command) if "=" in word and not word.startswith("-")]


def _shown_configuration(records: Records) -> Iterator[Finding]:
    """Compare the configuration in the summary, which listings and reports show, with config.yaml."""
    shown = records.summary.get("config")
    if not isinstance(shown, dict):
        if shown is not None:
            yield Finding("summary.json, config", str(shown)[:80], "the values of config.yaml")
        return
    saved_values = saved.flat(saved.load_bounded(records.path / "config.yaml"))
    known = json.loads(json.dumps(saved_values, default=str))
    for key in sorted({*known, *shown}):
        if records.hashes is None and (is_safe(key) or key in LENGTH):
            # a kill may come between the two files of a run that is resumed with a change
            continue
        then, now = shown.get(key), known.get(key)
        if then != now and (then == then or now == now):
            yield Finding(
                f"summary.json, config, {key}"[:80], str(then)[:80], f"{str(now)[:80]}, as in config.yaml"
            )
            return


def dataset(records: Records, verdict: Verdict, config: Config, door: Door) -> Iterator[Finding]:
    """Load the dataset, without the network, and compare it with data.json."""
    try:
        known = records.contract
    except CheckpointProblem:
        return
    if known is None:
        verdict.open.append("the data: there is no data.json")
        return
    changes = {"download": False} if "download" in config.dataset else {}
    offline = replace(config, dataset=config.dataset | changes, workers=0)
    try:
        splits = build_data(offline, door, torch.device("cpu"), None, known)
    except (DataProblem, UserError, OSError) as error:
        verdict.open.append(f"the data: {first_line(error)}")
        return
    except DAMAGE as error:
        yield Finding(
            "data.json", f"its rules do not fit the data ({str(error)[:80]})", "the rules of the run"
        )
        return
    now = splits.contract
    if now is None:
        return
    for name in (
        "fingerprint",
        "content",
        "files",
        "sizes",
        "input_shape",
        "class_names",
        "columns",
        "targets",
    ):
        then, found = getattr(known, name), getattr(now, name)
        if then != found and (name not in ("content", "files") or (then and found)):
            yield Finding("the data", f"{name} {str(found)[:80]}", f"{str(then)[:80]}, as in data.json")
    verdict.checked.append(
        f"the data ({'every sample' if known.content else 'all targets, and a few of the samples'})"
    )


def is_whole(records: Records, name: str) -> bool:
    """Return whether a file is known to be as the run left it."""
    try:
        known = (records.hashes or {}).get(name)
        return known is not None and manifest.digest(records.path / name) == known
    except (CheckpointProblem, OSError):
        return False


# Comparison ----------------------------------------------------------------------------------------------------------


def rows_of(rows: Sequence[dict[str, float]], steps: Container[float]) -> dict[float, dict[str, float]]:
    """Return the rows of some steps by step."""
    return {step: rows[k] for k, step in enumerate(column_of(rows, "step")) if step in steps}


def same_row(one: dict[str, float], other: dict[str, float]) -> bool:
    """Return whether two rows are equal; NaN equals itself."""
    return one.keys() == other.keys() and all(
        a == b or (a != a and b != b) for a, b in zip(one.values(), map(other.get, one), strict=True)
    )


def is_row(row: dict[str, float], best: dict[str, float]) -> bool:
    """Return whether a row of metrics.csv is the best one; a run of an earlier version keeps its columns, and gets metrics beside them."""
    return bool(row) and same_row(row, {name: value for name, value in best.items() if name in row})


def equal_tensors(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Return whether tensors are equal to the last bit, by name."""
    return one.keys() == other.keys() and all(
        tensor.dtype == other[name].dtype
        and tensor.shape == other[name].shape
        and torch.equal(tensor, other[name])
        for name, tensor in one.items()
    )
