"""Train a run again, whole or in stretches between its checkpoints, and compare every record on the way.

The file is long because a repetition, what differs and the likely cause are one argument.
"""

from __future__ import annotations

import platform
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, get_args

import torch
from torch import Tensor

import dltrain
from dltrain.config.door import Door
from dltrain.config.own_code import changed_since
from dltrain.config.rules import parse_rule
from dltrain.config.schema import Config
from dltrain.data.changes import data_changes
from dltrain.errors import CheckpointProblem, DataProblem, NumericalFailure, typed
from dltrain.loggers.events import Result
from dltrain.metrics.report import CONFUSION, PER_CLASS
from dltrain.metrics.targets import PER_TARGET
from dltrain.ranges import Threads
from dltrain.run import experiment as runs
from dltrain.run.built import Experiment
from dltrain.run.deviation import deviation, difference
from dltrain.run.git import git_state
from dltrain.run.lineage import digest_of_weights
from dltrain.run.record import processor, summary_of
from dltrain.run.resume import restore
from dltrain.run.verification import DAMAGE, OF_FINISHED, Records, contradiction, read_confusion
from dltrain.storage import checkpoint
from dltrain.storage.index import number_of
from dltrain.storage.run_folder import STATISTICS, read_statistics
from dltrain.storage.summary import FINISHED, MAX_TABLE_BYTES, WHOLE, read_text
from dltrain.storage.tensors import load_tensors
from dltrain.text import first_line
from dltrain.training.guard import NonFinite
from dltrain.training.trainer import Trainer
from dltrain.training.validation import evaluates_other_tensors

# what no two runs share
TIMES = ("seconds", "images_per_second")
TOLERANCE = 1e-3
# of numbers that follow from weights which are equal to the last bit
ROUNDING = 1e-5
# keys of summary.json that every run has, and those of one that has finished, beside OF_FINISHED
FACTS = ("parameters", "metric", "mode", "seed")
ENDING = ("epochs", "steps", "constant")
# fields of data.json that earlier versions did not write, and texts for people
NEWER, TOLD = ("content", "files", "outputs", "value_range"), ("left_out", "skipped")


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
        left_out: what the record says and no replay can show, or this one did not reach
    """

    path: Path
    total: int
    replayed: list[Stretch] = field(default_factory=list)
    same: dict[str, int] = field(default_factory=dict)
    deviation: float = 0.0
    step: int | None = None
    where: str = ""
    causes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

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
            "not_compared": self.left_out,
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
            built = prepare(records, config, door, _earlier(path, stretch))
            comparison.causes = causes(records, built)
            noise = tolerance if may_deviate(records, built, comparison.causes) else 0.0
            comparison.replayed.append(stretch)
            try:
                _replay(
                    records, built, stretch, Path(folder) / "replay", Comparing(records, comparison, noise)
                )
            except Different:
                return comparison
    conclude_records(records, comparison)
    return comparison


def prepare(records: Records, config: Config, door: Door, earlier: Path | None) -> Experiment:
    """Build the run, with the test split also for the winner of a sweep, whose scores the sweep adds to those of the job."""
    wanted = replace(config.evaluation, test=config.evaluation.test or bool(records.summary.get("test")))
    built = runs.prepare(replace(config, evaluation=wanted), door, "", [], {}, earlier)
    return replace(built, config=replace(built.config, evaluation=config.evaluation))


def conclude_records(records: Records, comparison: Comparison) -> None:
    """Compare the records that follow from others with these, once the others are known to be those of the run."""
    found = contradiction(records)
    if found is not None:
        comparison.step, comparison.where = comparison.total, str(found)
    if comparison.replayed[0].start:
        comparison.left_out.append("data.json (the beginning was not replayed)")
    if comparison.replayed[-1].end < comparison.total:
        comparison.left_out.append("scores, best weights and reports (the end was not replayed)")


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
    return [*found, *_data_changes(records, built), *_weights_changes(said, built), *_code_changes(said)]


def _data_changes(records: Records, built: Experiment) -> Iterator[str]:
    known, present = records.contract, built.parts.contract
    if changed := data_changes(known, present):
        yield f"data ({changed})"


def _weights_changes(said: Mapping[str, Any], built: Experiment) -> Iterator[str]:
    if (known := said.get("first_weights")) and known != digest_of_weights(built.config):
        yield f"data (the file of the first weights, initializer.path={built.config.initializer.get('path')}, is another one)"


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
        # the largest deviation of weights, and the step up to which they were compared
        self.weights, self.weights_until = 0.0, -1
        # step and place of the first deviation beyond rounding
        self.deviating: tuple[int, str] | None = None
        self.best_file = records.path / "checkpoints" / "best.safetensors"
        # whether it has been the best of an evaluation
        self.best_is_known = False

    def compare(self, kind: str, step: int, where: str, then: Any, now: Any) -> None:
        """Count a place of a kind as the same, or raise Different."""
        found = deviation(then, now)
        if found > self.tolerance:
            self.differ(step, f"{where}: {difference(then, now)}")
        self.comparison.deviation = max(self.comparison.deviation, found)
        if found > ROUNDING and self.deviating is None:
            self.deviating = step, f"{where}: {difference(then, now)}"
        if kind:
            self.comparison.same[kind] = self.comparison.same.get(kind, 0) + 1

    def differ(self, step: int, where: str) -> NoReturn:
        """Raise Different for a place that cannot be compared."""
        self.comparison.step, self.comparison.where = step, where
        raise Different

    def check_noise(self) -> None:
        """Raise Different where rows or scores deviate and the weights do not: they were not computed from these."""
        if self.deviating is None or self.weights or self.weights_until < self.deviating[0]:
            return
        step, where = self.deviating
        self.differ(
            step, f"{where}, and the weights up to step {self.weights_until} are equal to the last bit"
        )

    def beginning(self, built: Experiment) -> None:
        """Compare what is computed from the data before the first step."""
        then, now = self.records.contract, built.parts.contract
        for name in vars(now) if then is not None and now is not None else ():
            value = getattr(then, name)
            if (value or name not in NEWER) and not (name in TOLD and self.tolerance):
                known, found = (as_plain(getattr(contract, name)) for contract in (then, now))
                self.compare("", 0, f"data.json, {name}", known, found)
        found = built.parts.statistics
        known = read_statistics(self.records.path) or found
        # earlier versions did not write the average of images that are not centered
        found = {name: value for name, value in found.items() if name in known or name != "average"}
        self.compare("statistics", 0, STATISTICS, known, found)

    def row(self, step: int, row: Mapping[str, float], trainer: Trainer) -> None:
        self.seen.add(step)
        if step not in self.rows and step == self.comparison.total and self.is_unevaluated(step):
            # a signal ended the evaluation
            return
        self.compare("rows", step, "metrics.csv", self.rows.get(step, {}), timeless(row))
        if trainer.state.best_row.get("step") == step and not self.best_is_known:
            self.best_is_known = self.is_best(trainer.state.best_weights)

    def is_best(self, weights: Mapping[str, Tensor]) -> bool:
        """Return whether best.safetensors holds these weights."""
        try:
            return deviation(load_tensors(self.best_file), weights) <= self.tolerance
        except (OSError, *DAMAGE):
            return False

    def is_unevaluated(self, step: int) -> bool:
        """Return whether the checkpoint of a step was saved by a signal, before the evaluation of the step had ended."""
        try:
            return step in self.checkpoints and bool(self.checkpoints[step].state().get("unevaluated"))
        except CheckpointProblem:
            return False

    def saved(self, step: int, trainer: Trainer) -> None:
        """Compare weights, averages and state with the checkpoint of this step."""
        name = f"checkpoints/{self.checkpoints[step].folder.name}"
        try:
            known = checkpoint.verified(self.checkpoints[step].folder)
            self._saved(step, name, known, trainer)
        except (CheckpointProblem, OSError, *DAMAGE) as error:
            self.differ(step, f"{name}: {first_line(error)}")

    def _saved(self, step: int, name: str, known: checkpoint.Checkpoint, trainer: Trainer) -> None:
        then, weights = known.state(), known.weights()
        now = trainer.parts.model.state_dict()
        self.compare("", step, f"{name}/weights", weights, now)
        self.weights, self.weights_until = max(self.weights, deviation(weights, now)), step
        state = trainer.checkpoints.content()
        best = [timeless(then["best_row"]), timeless(state["best_row"])]
        self.compare("", step, f"{name}/state.pt, best row", *best)
        unlike = ("seconds", "stop", "best_row")
        pair = [{key: value for key, value in s.items() if key not in unlike} for s in (then, state)]
        self.compare("", step, f"{name}/state.pt", *pair)
        best_step = int(state["best_row"].get("step", 0))
        self.compare("", step, f"{name}/manifest.json, best step", known.manifest["best_step"], best_step)
        # the checkpoint of the best evaluation has its averages, and `resume` takes them for the best weights
        has_averages = evaluates_other_tensors(trainer.parts) and best_step == step
        averages = trainer.state.best_weights if has_averages else {}
        found = known.weights(averaged=True) if known.has_averages else {}
        self.compare("checkpoints", step, f"{name}/{checkpoint.AVERAGED}", found, averages)

    def ended(self, trainer: Trainer, total_steps: int) -> None:
        """Take over from the record an end that follows from no step: by the sweep that pruned the run."""
        said, step = self.records.summary, trainer.step
        status = said["status"]
        if trainer.state.stop is not None or (status != "pruned" and step >= total_steps):
            return
        if status in WHOLE:
            self.differ(step, f"summary.json, status: {status!r}, after {step:,} of {total_steps:,} steps")
        trainer.state.stop = ("pruned", str(said.get("stop_reason")))

    def status(self, step: int, result: Result) -> None:
        """Compare how the run ended, as far as that follows from its steps."""
        said = self.records.summary
        then, now = said["status"], result.status
        if then not in FINISHED:
            self.leave_out(f"status {then} (the steps before are compared)")
            return
        if then == "degraded" and said.get("problems") and now != "diverged":
            self.leave_out("status degraded (what could not be written)")
            return
        self.compare("status", step, "summary.json, status", then, now)
        if then == "pruned":
            self.leave_out("status pruned (decided by the sweep)")
        elif not self.tolerance:
            reasons = said.get("stop_reason"), result.stop_reason
            self.compare("", step, "summary.json, stop_reason", *reasons)
            if "remarks" in said:
                self.compare("", step, "summary.json, remarks", said["remarks"], result.remarks)

    def reached(self, step: int) -> None:
        """Raise Different where a run that a signal ended, and so saved its last step, says that it went further."""
        said = self.records.summary
        if said["status"] == "interrupted" and (number_of(said.get("steps")) or 0) > step:
            self.differ(
                step, f"summary.json, steps: {said['steps']!s:.80}, and the last record is of step {step}"
            )

    def leave_out(self, what: str) -> None:
        self.comparison.left_out.append(what)

    def facts(self, step: int, built: Experiment) -> None:
        """Compare what the summary says of the run, however it ended."""
        said, now = self.records.summary, runs.facts(built)
        for name in (name for name in FACTS if name in said):
            self.compare("", step, f"summary.json, {name}", said[name], now[name])

    def ending(self, step: int, result: Result) -> None:
        """Compare scores, and what else the summary says of the end; a run that has not finished need not say it."""
        said, now = self.records.summary, summary_of(result)
        needed = ("best", "objective", "test") if said["status"] in FINISHED else ()
        for name in (*OF_FINISHED, *ENDING):
            if name in needed or said.get(name) not in (None, {}):
                then, found = (
                    timeless(v) if isinstance(v, dict) else v for v in (said.get(name), now.get(name))
                )
                self.compare("scores", step, f"summary.json, {name}", then or {}, found or {})

    def best_weights(self, trainer: Trainer) -> None:
        """Compare best.safetensors, which every verb that uses the model reads."""
        row, name = trainer.state.best_row, "checkpoints/best.safetensors"
        step = int(row.get("step", trainer.step))
        if not self.best_file.is_file():
            if trainer.state.best_weights:
                self.differ(step, f"{name}: it is missing")
            return
        try:
            found = load_tensors(self.best_file)
        except (OSError, *DAMAGE) as error:
            self.differ(step, f"{name}: {first_line(error)}")
        self.compare("best weights", step, name, found, trainer.state.best_weights)
        # the scores follow from them
        if self.deviating is not None and deviation(found, trainer.state.best_weights) == 0:
            then, where = self.deviating
            if self.weights_until < then and (then <= step or where.startswith("summary.json")):
                self.differ(then, f"{where}, and the best weights are equal to the last bit")

    def former_best_weights(self, trainer: Trainer, stretch: Stretch) -> None:
        """Compare best.safetensors of a run that has not finished: of an evaluation, since the run had ended and was continued."""
        name = "checkpoints/best.safetensors"
        if not self.best_file.is_file() or self.best_is_known:
            return
        if stretch.start == 0:
            self.differ(trainer.step, f"{name}: weights that no evaluation found to be the best")
        self.leave_out(f"{name} (of an evaluation before the stretch)")

    def reports(self, step: int, folder: Path) -> None:
        """Compare the reports by class or target with those of the replay."""
        for name in (PER_CLASS, CONFUSION, PER_TARGET):
            then, now = self.records.path / name, folder / name
            if not then.is_file() and not now.is_file():
                continue
            if not then.is_file() and (
                not self.records.is_of_present_version or self.records.is_unwritten(name)
            ):
                self.leave_out(f"{name} (it was not written)")
                continue
            if not then.is_file() or not now.is_file():
                self.differ(step, f"{name}: it is {'missing' if now.is_file() else 'no report of this run'}")
            if not self.tolerance:
                texts = (read_text(file, MAX_TABLE_BYTES) for file in (then, now))
                self.compare("reports", step, name, *texts)
            elif name == CONFUSION:
                # the report by class follows from it, which is checked with the other records
                self.compare("reports", step, name, *map(read_confusion, (then, now)))


def as_plain(value: Any) -> Any:
    """Return a field of data.json as lists, dicts and numbers."""
    if isinstance(value, tuple):
        return [as_plain(item) for item in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


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
        if self.step in self.comparing.checkpoints and not self.comparing.is_unevaluated(self.step):
            self.comparing.saved(self.step, self)

    def evaluated(self) -> dict[str, float]:
        if self.comparing.is_unevaluated(self.step):
            self.comparing.saved(self.step, self)
        return super().evaluated()

    def evaluate_and_judge(self) -> None:
        super().evaluate_and_judge()
        self.comparing.row(self.step, self.state.last_row, self)

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
            comparing.beginning(built)
        train(trainer, comparing)
        for step in sorted(comparing.rows.keys() - comparing.seen):
            if stretch.start < step <= trainer.step:
                comparing.differ(step, "metrics.csv: a row of a step at which the run is not evaluated")
        conclude(built, trainer, stretch, comparing)
        comparing.check_noise()
    finally:
        folder.close()


def train(trainer: Replay, comparing: Comparing) -> None:
    """Train up to the end of the stretch; what ends the training before differs, since the run went on."""
    try:
        trainer.replay()
    except NonFinite as error:
        comparing.differ(
            error.step + 1, "the loss or a gradient of the replay is not finite, and the run went on"
        )
    if trainer.step < trainer.until:
        stop = trainer.state.stop
        reason = stop[1] if stop else ""
        comparing.differ(
            trainer.step, f"the run went on to step {trainer.until}; the replay ended ({reason})"
        )


def resume(trainer: Replay, comparing: Comparing, step: int) -> None:
    """Load the checkpoint at the start of a stretch; one that does not fit the data or the configuration differs."""
    try:
        restore(trainer)
    except (CheckpointProblem, DataProblem) as error:
        comparing.differ(step, first_line(error))


def conclude(built: Experiment, trainer: Replay, stretch: Stretch, comparing: Comparing) -> None:
    """Compare what the records say of the end, once the replay has reached it.

    A run that has not finished says nothing of it, unless somebody wrote it into the records.
    """
    said, step = comparing.records.summary, trainer.step
    if step < comparing.comparison.total:
        return
    comparing.facts(step, built)
    is_finished = said["status"] in FINISHED
    if not is_finished:
        comparing.former_best_weights(trainer, stretch)
        if not any(said.get(name) not in (None, {}) for name in (*OF_FINISHED, "epochs", "constant")):
            comparing.reached(step)
            comparing.leave_out(f"status {said['status']} (the steps before are compared)")
            return
    comparing.ended(trainer, built.plan.total_steps)
    trainer.end()
    try:
        result = runs.conclude(built, trainer)
    except NumericalFailure as error:
        comparing.differ(
            step, f"summary.json, status: {said['status']!r}, and the replay ended: {first_line(error)}"
        )
    if said.get("test") and not result.test and built.parts.test is not None:
        # of the winner of a sweep
        result = replace(result, test=trainer.validation.score(built.parts.test))
    comparing.status(step, result)
    comparing.ending(step, result)
    if is_finished:
        comparing.best_weights(trainer)
        comparing.reports(step, trainer.folder.path)


def begin(records: Records, stretch: Stretch, path: Path) -> None:
    """Copy the checkpoint at the start of a stretch, with that of its best weights and the rows up to it."""
    if not stretch.start:
        return
    first = next(c for c in records.checkpoints if c.manifest["step"] == stretch.start)
    (path / "checkpoints").mkdir()
    needed = {stretch.start, int(first.manifest["best_step"])}
    for known in (known for known in records.checkpoints if known.manifest["step"] in needed):
        shutil.copytree(known.folder, path / "checkpoints" / f"step-{known.manifest['step']:08d}")
    if (records.path / "metrics.csv").is_file():
        shutil.copy(records.path / "metrics.csv", path / "metrics.csv")
