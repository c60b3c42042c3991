"""Continue a run from its newest checkpoint."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from dltrain.config import saved
from dltrain.config.door import Door
from dltrain.config.keys import lengths
from dltrain.config.schema import Config
from dltrain.errors import CheckpointProblem, DataProblem, UserError, typed
from dltrain.run.build import build_schedule
from dltrain.run.built import Experiment
from dltrain.run.plan import make_plan
from dltrain.run.weights import say_of_code
from dltrain.storage.checkpoint import Checkpoint
from dltrain.storage.folder_names import METRICS
from dltrain.storage.run_folder import RunFolder
from dltrain.storage.summary import read_rows, read_summary, texts
from dltrain.text import say
from dltrain.training.parts import Plan
from dltrain.training.trainer import Trainer

_log = logging.getLogger(__name__)


def restore(trainer: Trainer) -> None:
    """Load the newest complete checkpoint, and drop the rows after it.

    Raises DataProblem for other data, CheckpointProblem for another configuration or a state that does not fit it.
    """
    checkpoint = trainer.folder.newest_checkpoint()
    if checkpoint is not None:
        say_of_code(trainer.folder.path, "and it goes on with the present code")
        check_same_run(trainer.folder, checkpoint.manifest)
        check_planned(trainer.folder.path, int(checkpoint.manifest["step"]), trainer.plan)
        load(trainer, checkpoint)
        trainer.folder.check_rows(checkpoint.manifest)
    trainer.folder.rewind_rows(trainer.step)


def check_same_run(folder: RunFolder, manifest: Mapping[str, object]) -> None:
    """Raise DataProblem for other data, CheckpointProblem for another configuration; warn of another machine."""
    if manifest.get("fingerprint") != folder.facts["fingerprint"]:
        raise DataProblem(
            f"{folder.path}: the data are not those that the run was trained on. Put the former ones back, or start "
            f"another run with these: {typed('rerun', folder.path)}"
        )
    saved.check_same(folder.path, manifest.get("config"), folder.facts["config"])
    if manifest.get("class_counts") != folder.facts.get("class_counts"):
        raise DataProblem(
            f"{folder.path}: dataset.limit kept other samples of the training split in the version that began the run. Start it "
            f"again: {typed('rerun', folder.path)}"
        )
    warn_of_other_machine(manifest, folder.facts)


def check_planned(path: Path, step: int, plan: Plan) -> None:
    """Raise CheckpointProblem for a checkpoint beyond the planned end: no uninterrupted run of the configuration has its steps.

    A job of a sweep has one where `resume` with more epochs was stopped, since the sweep plans its own number.
    """
    if step <= plan.total_steps:
        return
    # the record may be somebody else's: nothing of it is proposed but numbers
    told = lengths(texts(read_summary(path).get("longer")))
    longer = [text for text in told if text.partition("=")[2].isdecimal()] or [
        f"epochs={math.ceil(step / plan.steps_per_epoch)}"
    ]
    # on one line, as a sweep shows the first line of a failure
    raise CheckpointProblem(
        f"{path} has trained {step} steps, and its configuration plans {plan.total_steps}; a `resume` with more was stopped. "
        f"To complete that: {typed('resume', path, *longer)}"
    )


def load(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Load a checkpoint. Raises CheckpointProblem with the reason if its files do not fit the configuration."""
    path = trainer.folder.path
    try:
        best = trainer.folder.best_weights(int(checkpoint.manifest["best_step"]))
        state, weights = checkpoint.state(), checkpoint.weights()
        check_yardstick(path, state, trainer)
        load_state(trainer, state, weights, best)
    except (
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        OSError,
        SafetensorError,
    ) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise CheckpointProblem(
            f"{checkpoint.folder} does not fit this configuration ({type(error).__name__}: {reason})"
        ) from None


def check_yardstick(path: Path, state: Mapping[str, Any], trainer: Trainer) -> None:
    """Refuse a run whose `loss` is still the training objective: its best and its rows compare with no new evaluation.

    Such a checkpoint holds no sum of the column `objective`. Raises CheckpointProblem.
    """
    if len(state["sums"]) == len(trainer.running.sums) - 1:
        raise CheckpointProblem(
            f"{path} was trained by an earlier version, whose val/loss depends on the kind of loss, label smoothing and "
            "class weights; it no longer does, so that a resumed run would mix two scales.\n"
            f"Train again: {typed('rerun', path)}"
        )


def load_state(trainer: Trainer, state: Any, weights: dict[str, Tensor], best: dict[str, Tensor]) -> None:
    """Load the state; the message of a part that refuses it gets the run's folder and a cure."""
    try:
        trainer.checkpoints.load(state, weights, best)
    except CheckpointProblem as error:
        path = trainer.folder.path
        raise CheckpointProblem(
            f"{path} cannot be continued: {error}\nTo start it again: {typed('rerun', path)}"
        ) from None


def check_longer(path: Path, experiment: Experiment, before: Config, door: Door) -> None:
    """Raise UserError if more epochs would change the past: schedules must be the same functions up to the former end."""
    plan = experiment.plan
    former = make_plan(before, plan.device, plan.batch_size, plan.steps_per_epoch)
    if plan.total_steps < former.total_steps:
        raise UserError(
            f"`epochs` or `steps` can only grow in a resumed run: {former.total_steps} steps were planned, now {plan.total_steps}."
        )
    again = typed("rerun", path, length_of(experiment.config))
    for group in ("schedule", "momentum_schedule", "penalty_schedule"):
        then, now = (build_schedule(experiment.config, door, group, p) for p in (former, plan))
        if (
            then is not None
            and now is not None
            and any(then(step) != now(step) for step in range(former.total_steps))
        ):
            word = experiment.config.words[group]
            raise UserError(
                f"`epochs` or `steps` cannot change in this run: {group}={word} depends on the total number of steps, so the "
                f"steps that are done would have had other rates.\nFor a new run: {again}"
            )
    check_averaging(experiment.config, door, former, plan, again)
    check_last_evaluation(path, former, plan, again)


def length_of(config: Config) -> str:
    """Return the length of a run as the command line takes it."""
    return f"epochs={config.epochs}" if config.steps is None else f"steps={config.steps}"


def check_last_evaluation(path: Path, former: Plan, plan: Plan, again: str) -> None:
    """Raise UserError if the run was evaluated at its former end, where a run of the new length is not.

    That evaluation ended a window of the training means, and counts for early stopping, plateau schedules and the best weights.
    """
    end, every = former.total_steps, plan.evaluate_every
    if end == plan.total_steps or end % every == 0:
        return
    rows = read_rows(path / METRICS)
    # a run that was ended before its last evaluation or before the checkpoint after it goes on from an earlier step
    if not rows or rows[-1]["step"] < end or not (path / "checkpoints" / f"step-{end:08d}").is_dir():
        return
    raise UserError(
        f"`epochs` or `steps` cannot change in this run: it was evaluated at its end, step {end}, where a longer one is not "
        f"(it is evaluated every {every} steps). Its rows, early stopping and best weights would differ from those of a run of "
        f"this length.\nFor a new run: {again}"
    )


def check_averaging(config: Config, door: Door, former: Plan, plan: Plan, again: str) -> None:
    """Raise UserError if another total number of steps would have averaged other weights up to the former end."""
    if not config.averaging.get("_target_"):
        return
    # 25 µs a step
    if former.total_steps > 40_000:
        say("comparing the averaged steps of the two lengths")
    # the average of a single weight that differs in each step shows which steps are taken
    models = [nn.Linear(1, 1, bias=False) for _ in range(2)]
    averagings = [
        door.build(config.averaging, "averaging", model, p.total_steps, p.steps_per_epoch)
        for model, p in zip(models, (former, plan), strict=True)
    ]
    averages = []
    for model, averaging in zip(models, averagings, strict=True):
        for step in range(1, former.total_steps + 1):
            nn.init.constant_(model.weight, math.sin(step))
            averaging.update(step)
        with averaging.swapped():
            averages.append(model.weight.item())
    if averages[0] != averages[1]:
        raise UserError(
            f"`epochs` or `steps` cannot change in this run: averaging={config.words['averaging']} chooses the averaged steps by "
            "the total number, so that its average holds other steps than a run of this length.\n"
            f"For a new run: {again}"
        )


def warn_of_other_machine(then: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Warn where device, thread count or torch differ: results are equal to the last bit for the same ones only."""
    for key in ("device", "threads", "torch", "processor"):
        if key in then and then[key] != now[key]:
            text = f"{key} was {then[key]} and is {now[key]}: the run goes on, but not equal to the last bit"
            _log.warning("%s", text)
            say(text)
