"""One run: build, fit, score, summarize."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dltrain.config import saved
from dltrain.config.door import Door
from dltrain.config.keys import keys_of
from dltrain.config.own_code import digests_of
from dltrain.config.schema import Config
from dltrain.data.batches import Split
from dltrain.data.contract import target_names
from dltrain.data.prepare import Splits
from dltrain.loggers.event_lines import EventLines, end_events
from dltrain.loggers.events import Result, RunInfo
from dltrain.loggers.run_log import RunLog
from dltrain.loggers.terminal import Terminal
from dltrain.metrics.report import CONFUSION, PER_CLASS, confusion_csv, per_class_csv
from dltrain.metrics.targets import PER_TARGET, TargetRow, per_target_csv, target_rows
from dltrain.processors import cores
from dltrain.run.build import build
from dltrain.run.built import Experiment
from dltrain.run.constant import constant_scores
from dltrain.run.data import check_resumed
from dltrain.run.destinations import build_loggers
from dltrain.run.failures import explain, never_finite, problem_of
from dltrain.run.layer_use import former_use
from dltrain.run.lineage import digest_of_weights
from dltrain.run.record import describe, facts, manifest_facts, peak_memory, summary_of, watched_logs
from dltrain.run.resume import restore
from dltrain.run.tuning import resolve_auto, searched_keys
from dltrain.storage import manifest
from dltrain.storage.files import replace
from dltrain.storage.lock import Lock
from dltrain.storage.run_folder import RunFolder, checked_statistics, read_contract
from dltrain.storage.summary import read_summary
from dltrain.text import say, utf8
from dltrain.training.evaluation import confusion, evaluating, outputs_of
from dltrain.training.parts import Parts
from dltrain.training.planned import remarks
from dltrain.training.signals import Interrupted
from dltrain.training.trainer import Trainer, Watch

_log = logging.getLogger(__name__)


def prepare(
    config: Config,
    door: Door,
    command: str,
    overrides: list[str],
    startup: Mapping[str, float],
    earlier: Path | None = None,
    splits: Splits | None = None,
    trial: bool = True,
    longer: tuple[str, ...] = (),
) -> Experiment:
    """Build everything of a run. What the data or the machine refuse is refused here, before the folder exists.

    `earlier` is the folder of a run to resume, whose normalization is used; `splits` are the data of another run of this
    process over the same dataset. With `trial`, parts of the user's own are tried before a new run. `longer` are the overrides by
    which a run to resume was lengthened.
    """
    begun = time.perf_counter()
    # before the code is imported
    flat = saved.flat(saved.as_saved(config))
    code = digests_of(flat)
    weights = digest_of_weights(config, earlier)
    searched = searched_keys(config, earlier)
    config = resolve_auto(config, door, keys_of(overrides) if earlier is None else ())
    contract = None if earlier is None else read_contract(earlier)
    statistics = None if earlier is None else checked_statistics(earlier, contract)
    new = earlier is None
    parts, plan = build(
        with_former_threads(config, earlier),
        door,
        statistics,
        splits,
        contract,
        trial and new,
        keys_of(overrides) if new else (),
        None if earlier is None else former_use(earlier),
    )
    if earlier is not None:
        check_resumed(earlier, contract, parts.contract)
    if earlier is None:
        config = with_threads(config, torch.get_num_threads())
    loggers = build_loggers(config, door)
    timings = {**startup, "build": round(time.perf_counter() - begun, 4)}
    return Experiment(
        config,
        parts,
        plan,
        command,
        tuple(overrides),
        timings,
        loggers,
        code=code,
        longer=longer,
        weights=weights,
        searched=searched,
    )


def with_former_threads(config: Config, earlier: Path | None) -> Config:
    """Return the configuration with the threads of the run to resume, which a run of an earlier version did not save.

    A summary of somebody else may hold any number: as many as this machine has cores are used at most, and a line says so.
    """
    if earlier is None or config.threads is not None:
        return config
    threads = read_summary(earlier).get("threads")
    if type(threads) is not int or threads < 1:
        return config
    most = cores()
    if threads > most:
        say(f"{earlier}/summary.json: `threads` is {threads}; {most} are used, one for each core")
    return with_threads(config, min(threads, most))


def with_threads(config: Config, threads: int) -> Config:
    """Return the configuration with a number of threads, which is also that of config.yaml."""
    return dataclasses.replace(config, threads=threads, plain={**config.plain, "threads": threads})


def run(
    experiment: Experiment,
    path: Path,
    resume: bool = False,
    watch: Watch | None = None,
    strict: bool = False,
    lock: Lock | None = None,
) -> float | None:
    """Train in a folder, and return the objective. `watch` may prune the run; `lock` is that of the folder, if it is held already.

    Raises NumericalFailure, ResourceProblem and UserError after the summary says `failed`, Interrupted after a signal
    (InterruptedWhenDone where the run could be completed all the same), and ResourceProblem at the end of a run that is done
    but could not write all of its logs (`degraded`).
    """
    folder = open_folder(experiment, path, strict, lock)
    try:
        trainer = Trainer(experiment.parts, experiment.plan, folder, observers(experiment, folder), watch)
        if resume:
            restore(trainer)
        # before the summary says `running`, which a signal must not leave behind
        with trainer.signals, watched_logs(folder):
            info = begin(experiment, trainer, resume)
            objective = _fit(experiment, trainer, info)
            trainer.signals.check_done(path)
            return objective
    finally:
        folder.close()


def open_folder(
    experiment: Experiment, path: Path, strict: bool = False, lock: Lock | None = None
) -> RunFolder:
    """Open the folder of a run; it is locked until it is closed."""
    keeping = experiment.config.checkpoint
    return RunFolder(
        path, keeping.keep, manifest_facts(experiment), keeping.background, keeping.unsaved, strict, lock
    )


def begin(experiment: Experiment, trainer: Trainer, resume: bool = False) -> RunInfo:
    """Write what is known before the first step."""
    folder = trainer.folder
    # of the run before it was resumed
    manifest.remove(folder.path)
    saved.write(experiment.config, folder.path / "config.yaml")
    # a resumed run has none if it was killed before they were written; they come last, so that the contract is there, too
    if not resume or not folder.has_statistics:
        if experiment.parts.contract is not None:
            folder.write_contract(experiment.parts.contract)
        folder.write_statistics(experiment.parts.statistics)
    info = describe(experiment, folder.path, trainer.step, folder.rows() if resume else None)
    folder.write_summary({"status": "running", **facts(experiment)})
    return info


def _fit(experiment: Experiment, trainer: Trainer, info: RunInfo) -> float | None:
    """Fit, score and report; the summary says how it ended, also after an error."""
    try:
        trainer.loggers.tell("run_started", info)
        trainer.fit()
        with trainer.interruptible(), trainer.signals.last_phase():
            result = finish(experiment, trainer)
    except BaseException as error:
        report = explain(error, experiment)
        close(experiment, trainer, report)
        if report is error:
            raise
        raise report from error
    problem = problem_of(trainer.folder, result)
    if problem is not None:
        raise problem
    return result.objective


def finish(experiment: Experiment, trainer: Trainer) -> Result:
    """Score, tell the loggers, and write the summary."""
    result = conclude(experiment, trainer)
    trainer.loggers.tell("run_ended", result)
    problems = trainer.folder.problems
    status = result.status if result.status == "diverged" else "degraded"
    ending = {"status": status, "problems": problems} if problems else {}
    summary = {**summary_of(result), **ending, **facts(experiment)}
    trainer.folder.write_summary(summary)
    end_events(trainer.folder.events, result, str(summary["status"]))
    trainer.folder.write_manifest()
    return result


def close(experiment: Experiment, trainer: Trainer, report: BaseException) -> None:
    """Write the reason why a run ended early to the summary, run.log and the loggers; no failure here hides the first."""
    interrupted = isinstance(report, KeyboardInterrupt | Interrupted)
    ending = ("interrupted" if interrupted else "failed", str(report))
    summary = {
        "status": ending[0],
        "stop_reason": ending[1],
        "error": f"{type(report).__name__}: {report}",
        "steps": trainer.step,
        "problems": trainer.folder.problems,
        **facts(experiment),
    }
    with suppress(OSError, ValueError):
        trainer.folder.write_ending(summary)
    result = result_of(experiment, trainer, ending, error=type(report).__name__)
    with suppress(OSError, ValueError):
        trainer.folder.finish_saving()
        end_events(trainer.folder.events, result, ending[0])
        trainer.folder.write_manifest()
    if interrupted:
        _log.info("%s", report)
    else:
        _log.exception("the run ended with an error")
    trainer.loggers.tell("run_ended", result)


def observers(experiment: Experiment, folder: RunFolder) -> list[object]:
    """Return everything that observes a run: the chosen loggers, and what always does."""
    always = (RunLog(), EventLines(folder.events))
    found = [Terminal(experiment.config.quiet), *experiment.loggers.values(), *always]
    if experiment.config.log.profile:
        from dltrain.loggers.profiler import Profiler

        found.append(Profiler(folder.path))
    return found


def conclude(experiment: Experiment, trainer: Trainer) -> Result:
    """Score the test split once, with the best weights, and return the result."""
    config, parts, plan = experiment.config, experiment.parts, experiment.plan
    assert trainer.state.stop is not None
    if not trainer.state.best_weights and trainer.state.last_row:
        raise never_finite(parts.early_stopping.metric)
    test = trainer.validation.score(parts.test) if parts.test is not None and config.evaluation.test else {}
    scored = parts.test if test else parts.val
    table = None
    if parts.spec.task == "classification" and scored is not None:
        table = confusion(
            parts.model,
            parts.loss,
            scored,
            parts.spec.num_classes,
            plan.evaluation_batch_size,
            plan.device,
            plan.precision,
        )
    by_target = () if scored is None else target_scores(experiment, scored)
    if trainer.state.best_weights:
        trainer.folder.write_best(trainer.state.best_weights)
    if table is not None:
        write_report(trainer.folder, table, parts.spec.class_names)
    if by_target:
        write_tables(trainer.folder, {PER_TARGET: per_target_csv(by_target)})
    trainer.diagnosis.draw(trainer.rates.lr)
    constant = constant_guess(parts, scored) if scored is not None else {}
    ending = trainer.state.stop
    if grown := trainer.grown_loss(trainer.state.best_row):
        ending = ("diverged", grown)
    left = remarks(parts.planned, trainer.step, int(trainer.state.best_row.get("step", 0)))
    left += [
        f"{edit} before a resume: earlier evaluations are of the former code" for edit in experiment.edited
    ]
    scores = {"test": test, "confusion": table, "constant": constant}
    return result_of(experiment, trainer, ending, remarks=tuple(left), **scores)


def result_of(experiment: Experiment, trainer: Trainer, ending: tuple[str, str], **scores: Any) -> Result:
    """Return what came out: how the run ended (status and reason), and the scores of its last weights, if there are any."""
    plan, state = experiment.plan, trainer.state
    return Result(
        status=ending[0],
        stop_reason=ending[1],
        best_epoch=state.best_row.get("step", 0.0) / plan.steps_per_epoch,
        best=dict(state.best_row),
        objective=experiment.parts.early_stopping.best,
        epochs=trainer.step / plan.steps_per_epoch,
        steps=trainer.step,
        seconds=trainer.clock.seconds,
        images_per_second=state.last_row.get("images_per_second", 0.0),
        peak_memory_bytes=peak_memory(plan.device),
        **{"test": {}, "confusion": None, **scores},
    )


def write_report(folder: RunFolder, counts: Tensor, class_names: tuple[str, ...]) -> None:
    """Write the report by class and the confusion matrix."""
    tables = {PER_CLASS: per_class_csv(counts, class_names), CONFUSION: confusion_csv(counts, class_names)}
    write_tables(folder, tables)


def target_scores(experiment: Experiment, split: Split) -> tuple[TargetRow, ...]:
    """Return the scores of each target of a regression on several, in its units."""
    parts, plan = experiment.parts, experiment.plan
    if parts.spec.task != "regression" or split.targets.ndim != 2 or split.targets.shape[1] < 2:
        return ()
    with evaluating(parts.model):
        batches = outputs_of(parts.model, split, plan.evaluation_batch_size, plan.device, plan.precision)
        found, true = (parts.spec.in_units(torch.cat(values)) for values in zip(*batches, strict=True))
    return target_rows(found, true, target_names(parts.contract))


def write_tables(folder: RunFolder, tables: Mapping[str, str]) -> None:
    """Write tables by the name of their file; what cannot be written costs no result."""
    for name, text in tables.items():
        try:
            replace(folder.path / name, utf8(text))
        except OSError as error:
            folder.note_problem(f"{name} could not be written ({error.strerror})")


def constant_guess(parts: Parts, split: Split) -> dict[str, float]:
    """Return the scores of a constant output on a split: the mean of the training targets, or the fractions of their classes."""
    # without a contract the dataset is an objective
    if parts.contract is None or split.targets.ndim > 2:
        return {}
    return constant_scores(parts.spec, parts.metrics, parts.measures, parts.train.targets, split.targets)
