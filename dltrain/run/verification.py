"""Check the records of a run against their hashes and against each other, without training.

The file is long because each record has its check, and the checks are read as one list.
"""

from __future__ import annotations

import csv
import io
import math
from array import array
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dltrain.config import saved
from dltrain.config.door import Door
from dltrain.config.schema import Config
from dltrain.data.contract import Contract
from dltrain.errors import CheckpointProblem, DataProblem, UserError
from dltrain.loggers.events import EARLIER, EVENT_FILES, Best
from dltrain.metrics.report import CONFUSION, PER_CLASS, per_class_csv
from dltrain.run.data import build_data
from dltrain.storage import checkpoint, manifest
from dltrain.storage.event_log import EVENTS, SAVED, read_events
from dltrain.storage.folder_names import check_files
from dltrain.storage.run_folder import read_contract, read_statistics
from dltrain.storage.summary import (
    ENDED,
    FINISHED,
    MAX_TABLE_BYTES,
    column_of,
    read_rows,
    read_summary,
    read_text,
)
from dltrain.text import first_line

# files that loggers write, which are no records of results
UNCOVERED = ("run.log", f"{EVENT_FILES}.*", EARLIER)


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

    def as_json(self) -> dict[str, Any]:
        return {
            "run": str(self.path),
            "sound": not self.findings,
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

    @cached_property
    def hashes(self) -> dict[str, str] | None:
        """The manifest of the run; None where there is none."""
        return manifest.read(self.path) if (self.path / manifest.NAME).is_file() else None

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
    verdict.findings += configuration(records, verdict, config)
    if isinstance(config, Config) and isinstance(door, Door) and data:
        verdict.findings += dataset(records, verdict, config, door)
    elif data:
        reason = door if isinstance(config, Config) else "without the configuration they cannot be read"
        verdict.open.append(f"the data: {first_line(reason)}")
    verdict.open += [f"{name} (written by loggers)" for name in UNCOVERED if any(path.glob(name))]
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
        ended = records.summary["status"] in (*ENDED, "interrupted")
        if ended and "format" in records.summary:
            yield Finding(manifest.NAME, "it is missing", "the hashes that a run writes when it ends")
        elif ended:
            verdict.open.append("hashes of the records: an earlier dltrain wrote none")
        else:
            verdict.open.append("hashes of the records: they are written when the run ends")
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
    """Check the steps and epochs of metrics.csv, and that it has the best row of each checkpoint."""
    rows = records.rows
    steps = column_of(rows, "step")
    if not all(before < step for before, step in pairwise(steps)):
        yield Finding("metrics.csv", "steps that do not grow", "one row for each evaluation")
    per_epoch: set[float] = set()
    for step, epoch in zip(steps, column_of(rows, "epoch", 0.0), strict=True):
        if epoch and len(per_epoch) < 2:
            per_epoch.add(round(step / epoch, 6))
    if len(per_epoch) > 1:
        yield Finding("metrics.csv", f"epochs of {sorted(per_epoch)[:2]} steps", "epochs of equal length")
    bests = [(found, found.manifest["best"]) for found in records.checkpoints]
    by_step = rows_of(rows, {best["step"] for _, best in bests if best})
    for found, best in bests:
        where = records.name(found.folder)
        if best and not is_row(by_step.get(best["step"], {}), best):
            yield Finding(
                f"metrics.csv, step {best['step']:.0f}", "another row, or none", f"the best row of {where}"
            )


def events(records: Records, verdict: Verdict) -> Iterator[Finding]:
    """Compare the evaluations of events.jsonl with metrics.csv; a run of an earlier version has no events."""
    if records.hashes is None:
        # a kill may come between a row and its event, and a resumed run writes both again
        return
    found = False
    told, saved = array("q"), set[int]()
    try:
        for event in read_events(records.path):
            found = True
            if event["event"] == "evaluated":
                told.append(event["step"])
            elif event["event"] == SAVED:
                saved.add(event["step"])
    except (ValueError, OverflowError) as error:
        yield Finding(EVENTS, str(error)[:100], "one JSON object a line")
        return
    kept = array("q", map(int, column_of(records.rows, "step")))
    # the first rows of a run of an earlier version that was resumed have no events
    if found and told != kept[len(kept) - len(told) :]:
        yield Finding(
            EVENTS,
            f"evaluations of the steps {told[-3:].tolist()}",
            f"those of metrics.csv, {kept[-3:].tolist()}",
        )
    for unsaved in [one for one in records.checkpoints if saved and int(one.manifest["step"]) not in saved]:
        yield Finding(records.name(unsaved.folder), "no event tells that it was saved", f"one in {EVENTS}")


def summary(records: Records, verdict: Verdict) -> Iterator[Finding]:
    """Compare the summary with the rows and the checkpoints."""
    said, rows = records.summary, records.rows
    where, best = "summary.json", said.get("best") or {}
    if best and not is_row(rows_of(rows, {best["step"]}).get(best["step"], {}), best):
        yield Finding(f"{where}, best", "a row that metrics.csv does not have", "its best row")
    if best and said.get("objective") is not None and records.rule_is_known:
        yield from _objective(said, rows, best)
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


def _objective(
    said: dict[str, Any], rows: Sequence[dict[str, float]], best: dict[str, float]
) -> Iterator[Finding]:
    """Compare the best row with the best of the rows, by the rule of early stopping."""
    rule = Best(said["metric"], said["mode"])
    first = rule.of(rows)
    if first and first["step"] != best["step"]:
        wanted = f"{said['metric']} {rule.score:g} at step {first['step']:.0f}, as in metrics.csv"
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
            found = load_file(file)
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
        return
    for found in records.checkpoints:
        if found.manifest.get("fingerprint") != known.fingerprint:
            expected = f"{found.manifest.get('fingerprint')}, that of {records.name(found.folder)}"
            yield Finding("data.json", f"fingerprint {known.fingerprint}", expected)


def reports(records: Records, verdict: Verdict) -> Iterator[Finding]:
    """Compare the confusion matrix with the report by class, the size of the split and the accuracy."""
    file = records.path / CONFUSION
    if not file.is_file():
        return
    (_, *names), *lines = csv.reader(io.StringIO(read_text(file, MAX_TABLE_BYTES), newline=""))
    counts = torch.tensor([[int(cell) for cell in line[1:]] for line in lines])
    if read_text(records.path / PER_CLASS, MAX_TABLE_BYTES) != per_class_csv(counts, names):
        yield Finding(PER_CLASS, "other scores", f"those that follow from {CONFUSION}")
    scores = records.summary.get("test") or {}
    known = records.contract
    if scores and known is not None and int(counts.sum()) != known.sizes["test"]:
        yield Finding(CONFUSION, f"{int(counts.sum())} samples", f"{known.sizes['test']}, as in data.json")
    accuracy = float(counts.diagonal().sum() / counts.sum())
    if "accuracy" in scores and not math.isclose(scores["accuracy"], accuracy, rel_tol=1e-5):
        yield Finding(
            "summary.json, test", f"accuracy {scores['accuracy']:g}", f"{accuracy:g}, by {CONFUSION}"
        )


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


def configuration(records: Records, verdict: Verdict, config: Config | UserError) -> Iterator[Finding]:
    """Compare config.yaml with what the checkpoints were made with, and with the seed of the summary."""
    if not isinstance(config, Config):
        if is_whole(records, "config.yaml"):  # a word of the user that is missing here
            verdict.open.append(f"config.yaml against the checkpoints: {first_line(config)}")
        else:
            yield Finding("config.yaml", first_line(config), "a configuration of the present catalogue")
        return
    for found in records.checkpoints:
        try:
            saved.check_same(records.path, found.manifest.get("config"), saved.binding(config))
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
