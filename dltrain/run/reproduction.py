"""Train a run again, whole or in stretches between its checkpoints, and compare every record on the way.

The file is long because a repetition, what differs and the likely cause are one argument.
"""

from __future__ import annotations

import platform
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, get_args

import torch

import dltrain
from dltrain.config.door import Door
from dltrain.config.own_code import changed_since
from dltrain.config.rules import parse_rule
from dltrain.config.schema import Config
from dltrain.data.changes import data_changes
from dltrain.errors import CheckpointProblem, DataProblem, typed
from dltrain.metrics.report import CONFUSION, PER_CLASS
from dltrain.ranges import Threads
from dltrain.run import experiment as runs
from dltrain.run.built import Experiment
from dltrain.run.deviation import deviation, difference
from dltrain.run.git import git_state
from dltrain.run.record import processor
from dltrain.run.resume import restore
from dltrain.run.verification import Records
from dltrain.storage import checkpoint
from dltrain.storage.run_folder import STATISTICS, RunFolder, read_statistics
from dltrain.storage.summary import MAX_TABLE_BYTES, WHOLE, read_text
from dltrain.storage.tensors import load_tensors
from dltrain.text import first_line
from dltrain.training.trainer import Trainer

# what no two runs share
TIMES = ("seconds", "images_per_second")
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Stretch:
    """Steps from a checkpoint, or from the initial weights at 0, to the next checkpoint or the last record."""

    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.start:,}–{self.end:,}"


@dataclass
class Comparison:
    """What was replayed of a run, and how it compares.

    Args:
        same: places compared so far: rows, checkpoints, scores
        deviation: the largest relative one; 0 for equal bits
        where: the first difference beyond the tolerance; empty for none
        causes: what differs between then and now
    """

    path: Path
    total: int
    replayed: list[Stretch] = field(default_factory=list)
    same: dict[str, int] = field(default_factory=dict)
    deviation: float = 0.0
    step: int | None = None
    where: str = ""
    causes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        if self.where:
            return "different"
        return "same bits" if self.deviation == 0 else "same within noise"

    @property
    def share(self) -> float:
        """Return the share of the steps that were replayed: the probability that a forged step was among them."""
        return sum(s.end - s.start for s in self.replayed) / max(self.total, 1)

    def as_json(self) -> dict[str, Any]:
        return {
            "run": str(self.path),
            "verdict": self.verdict,
            "first_different_step": self.step,
            "difference": self.where,
            "likely_causes": self.causes,
            "deviation": self.deviation,
            "replayed": [[s.start, s.end] for s in self.replayed],
            "replayed_share": self.share,
            "compared": self.same,
        }


class Different(Exception):
    """The first difference between a run and its replay: the comparison says where."""


def reproduce(
    path: Path, config: Config, door: Door, replay: int | None = None, tolerance: float = TOLERANCE
) -> Comparison:
    """Train a run again in a temporary folder; `replay` is a number of random stretches, None for all steps.

    Bits must be equal where versions, threads and processor are those of the run. Where they differ, deviations up to
    `tolerance` are noise. Raises CheckpointProblem for a run with nothing to compare.
    """
    records = Records(path, config)
    check_types(records)
    ends = [c.manifest["step"] for c in records.checkpoints] + [int(row["step"]) for row in records.rows]
    if not ends:
        raise CheckpointProblem(
            f"{path} has neither rows nor checkpoints, so there is nothing to compare. To see what is missing: {typed('verify', path)}"
        )
    comparison = Comparison(path, max(ends))
    # its checkpoints are not those of the run: a full disk of temporary files is no reason to stop
    config = replace(config, logger={}, quiet=True, checkpoint=replace(config.checkpoint, unsaved="continue"))
    torch.set_num_threads(int(records.summary.get("threads") or torch.get_num_threads()))
    for stretch in chosen(stretches(records, max(ends), replay), replay):
        with TemporaryDirectory(prefix="dltrain-reproduce-") as folder:
            built = runs.prepare(config, door, "", [], {}, _earlier(path, stretch))
            comparison.causes = causes(records, built)
            noise = tolerance if may_deviate(records, built, comparison.causes) else 0.0
            comparison.replayed.append(stretch)
            try:
                _replay(
                    records, built, stretch, Path(folder) / "replay", Comparing(records, comparison, noise)
                )
            except Different:
                break
    return comparison


def check_types(records: Records) -> None:
    """Raise CheckpointProblem for values that no run wrote, where the comparison needs them."""
    said = records.summary
    wrong = [key for key in ("versions", "git", "best", "test") if not isinstance(said.get(key) or {}, dict)]
    threads = said.get("threads")
    if threads is not None and not parse_rule(f"int {get_args(Threads)[1]}").accepts(threads):
        wrong.append("threads")
    if wrong:
        raise CheckpointProblem(
            f"{records.path}/summary.json: `{wrong[0]}` is {str(said[wrong[0]])[:60]!r}, which no run wrote.\n"
            f"To list all problems: {typed('verify', records.path)}"
        )
    if not all(row["step"].is_integer() for row in records.rows):
        raise CheckpointProblem(
            f"{records.path}/metrics.csv has a step that is no whole number, which no run wrote.\n"
            f"To list all problems: {typed('verify', records.path)}"
        )


def _earlier(path: Path, stretch: Stretch) -> Path | None:
    """Return the folder whose statistics of the inputs are used; None for a replay from the start, which computes them."""
    return path if stretch.start else None


def stretches(records: Records, last: int, replay: int | None) -> list[Stretch]:
    """Return the stretches between checkpoints, or all steps as one."""
    if replay is None:
        return [Stretch(0, last)]
    bounds = sorted({0, *(c.manifest["step"] for c in records.checkpoints), last})
    return [Stretch(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]


def chosen(found: list[Stretch], replay: int | None) -> list[Stretch]:
    """Draw stretches that nobody can foresee, in order."""
    if replay is None or replay >= len(found):
        return found
    return sorted(random.SystemRandom().sample(found, replay), key=lambda stretch: stretch.start)


# What differs between then and now -----------------------------------------------------------------------------------


def causes(records: Records, built: Experiment) -> list[str]:
    """Return what differs between the run and this process: versions, threads, processor, device, data, code."""
    said, facts = records.summary, records.checkpoints[-1].manifest if records.checkpoints else {}
    then = {
        **(said.get("versions") or {}),
        "threads": said.get("threads"),
        "processor": said.get("processor") or facts.get("processor"),
        "device": str(said.get("device") or facts.get("device")).split(":")[0].split(" ")[0],
    }
    now = {
        "dltrain": dltrain.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "device": built.plan.device.type,
    }
    found = [f"{name} {then[name]} → {now[name]}" for name in now if then.get(name) not in (None, now[name])]
    return [*found, *_data_changes(records, built), *_code_changes(said)]


def _data_changes(records: Records, built: Experiment) -> Iterator[str]:
    known, present = records.contract, built.parts.contract
    if changed := data_changes(known, present):
        yield f"data ({changed})"


def _code_changes(said: Mapping[str, Any]) -> Iterator[str]:
    edits = changed_since(said.get("code"))
    if edits:
        yield f"code {', '.join(edits)}"
    then, now = said.get("git") or {}, git_state()
    if then and now and then.get("commit") != now.get("commit"):
        yield f"code {str(then.get('commit'))[:10]} → {str(now.get('commit'))[:10]}"
    elif not edits and not said.get("code") and (then.get("dirty") or (then and now.get("dirty"))):
        yield "code that was not committed"


def may_deviate(records: Records, built: Experiment, found: Sequence[str]) -> bool:
    """Return whether bits may differ without a fault: another machine or version, a GPU, or a job of a stack."""
    elsewhere = any(not cause.startswith(("data", "code")) for cause in found)
    return elsewhere or built.plan.device.type != "cpu" or bool(records.summary.get("stacked"))


# The comparison ------------------------------------------------------------------------------------------------------


class Comparing:
    """Compare what a replay computes with the records of the run, and stop at the first difference."""

    def __init__(self, records: Records, comparison: Comparison, tolerance: float) -> None:
        self.records, self.comparison, self.tolerance = records, comparison, tolerance
        self.rows = {int(row["step"]): timeless(row) for row in records.rows}
        self.checkpoints = {int(c.manifest["step"]): c for c in records.checkpoints}
        self.seen: set[int] = set()  # steps of rows

    def compare(self, kind: str, step: int, where: str, then: Any, now: Any) -> None:
        """Count a place of a kind as the same, or raise Different."""
        found = deviation(then, now)
        if found > self.tolerance:
            self.differ(step, f"{where}: {difference(then, now)}")
        self.comparison.deviation = max(self.comparison.deviation, found)
        if kind:
            self.comparison.same[kind] = self.comparison.same.get(kind, 0) + 1

    def differ(self, step: int, where: str) -> NoReturn:
        """Raise Different for a place that cannot be compared."""
        self.comparison.step, self.comparison.where = step, where
        raise Different

    def row(self, step: int, row: Mapping[str, float]) -> None:
        self.seen.add(step)
        self.compare("rows", step, "metrics.csv", self.rows.get(step, {}), timeless(row))

    def checkpoint(self, step: int, trainer: Trainer) -> None:
        """Compare weights, averages and state with the checkpoint of this step."""
        known = self.checkpoints[step]
        name = f"checkpoints/{known.folder.name}"
        try:
            checkpoint.verified(known.folder)
            then, weights = known.state(), known.weights()
        except CheckpointProblem as error:
            self.differ(step, f"{name}: {first_line(error)}")
        self.compare("", step, f"{name}/weights", weights, trainer.parts.model.state_dict())
        state = trainer.checkpoints.content()
        best = [timeless(then["best_row"]), timeless(state["best_row"])]
        self.compare("", step, f"{name}/state.pt, best row", *best)
        unlike = ("seconds", "stop", "best_row")
        pair = [{key: value for key, value in s.items() if key not in unlike} for s in (then, state)]
        self.compare("checkpoints", step, f"{name}/state.pt", *pair)

    def ending(self, step: int, trainer: Trainer, folder: Path, test: Mapping[str, float]) -> None:
        """Compare how the run ended: its status, best weights, test scores and reports."""
        said, path = self.records.summary, self.records.path
        assert trainer.state.stop is not None
        self.compare("status", step, "summary.json, status", said["status"], trainer.state.stop[0])
        said_best = timeless(said.get("best") or {})
        self.compare("scores", step, "summary.json, best", said_best, timeless(trainer.state.best_row))
        objective = trainer.parts.early_stopping.best
        self.compare("scores", step, "summary.json, objective", said.get("objective"), objective)
        best = path / "checkpoints" / "best.safetensors"
        if best.is_file():
            at = int(trainer.state.best_row.get("step", step))
            self.compare(
                "best weights",
                at,
                "checkpoints/best.safetensors",
                load_tensors(best),
                trainer.state.best_weights,
            )
        self.compare("scores", step, "summary.json, test", said.get("test") or {}, dict(test))
        for name in (PER_CLASS, CONFUSION):
            if (path / name).is_file() and (folder / name).is_file() and not self.tolerance:
                then, now = (read_text(at / name, MAX_TABLE_BYTES) for at in (path, folder))
                self.compare("reports", step, name, then, now)


def timeless(row: Mapping[str, float]) -> dict[str, float]:
    """Return a row without its time columns."""
    return {name: value for name, value in row.items() if name not in TIMES}


# The replay ----------------------------------------------------------------------------------------------------------


class Replay(Trainer):
    """The trainer of a replay: it compares instead of deciding when to end."""

    comparing: Comparing
    until: int

    @property
    def going(self) -> bool:
        return super().going and self.step < self.until

    def observe(self) -> None:
        super().observe()
        if self.step in self.comparing.checkpoints:
            self.comparing.checkpoint(self.step, self)

    def evaluate_and_judge(self) -> None:
        super().evaluate_and_judge()
        self.comparing.row(self.step, self.state.last_row)

    def replay(self) -> None:
        """Train up to the end of the stretch."""
        self.begin()
        while self.going:
            self.train_epoch(self.plan.epoch_of(self.step))


def _replay(records: Records, built: Experiment, stretch: Stretch, path: Path, comparing: Comparing) -> None:
    """Train a stretch in a new folder, which begins with the checkpoint at its start."""
    path.mkdir()
    begin(records, stretch, path)
    folder = runs.open_folder(built, path)
    try:
        trainer = Replay(built.parts, built.plan, folder)
        trainer.comparing, trainer.until = comparing, stretch.end
        if stretch.start:
            resume(trainer, comparing, stretch.start)
        else:
            then = read_statistics(records.path)
            comparing.compare(
                "statistics", 0, STATISTICS, then or built.parts.statistics, built.parts.statistics
            )
        trainer.replay()
        for step in sorted(comparing.rows.keys() - comparing.seen):
            if stretch.start < step <= trainer.step:
                comparing.differ(step, "metrics.csv: a row of a step at which the run is not evaluated")
        conclude(built, trainer, folder, comparing)
    finally:
        folder.close()


def resume(trainer: Replay, comparing: Comparing, step: int) -> None:
    """Load the checkpoint at the start of a stretch; one that does not fit the data or the configuration differs."""
    try:
        restore(trainer)
    except (CheckpointProblem, DataProblem) as error:
        comparing.differ(step, first_line(error))


def conclude(built: Experiment, trainer: Replay, folder: RunFolder, comparing: Comparing) -> None:
    """Compare the end of a run that was trained to its end, and that the replay has reached."""
    status = comparing.records.summary["status"]
    if trainer.step < comparing.comparison.total or status not in WHOLE:
        if trainer.step < trainer.until:
            stop = trainer.state.stop
            comparing.differ(
                trainer.step,
                f"the run went on to step {trainer.until}; the replay ended ({stop[1] if stop else ''})",
            )
        return
    trainer.end()
    result = runs.conclude(built, trainer)
    comparing.ending(trainer.step, trainer, folder.path, result.test)


def begin(records: Records, stretch: Stretch, path: Path) -> None:
    """Copy the checkpoint at the start of a stretch, with that of its best weights and the rows up to it."""
    if not stretch.start:
        return
    first = next(c for c in records.checkpoints if c.manifest["step"] == stretch.start)
    (path / "checkpoints").mkdir()
    for step in {stretch.start, int(first.manifest["best_step"])} - {0}:
        name = f"checkpoints/step-{step:08d}"
        shutil.copytree(records.path / name, path / name)
    if (records.path / "metrics.csv").is_file():
        shutil.copy(records.path / "metrics.csv", path / "metrics.csv")
