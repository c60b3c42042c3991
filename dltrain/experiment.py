"""One run: build, fit, score, summarise."""

from __future__ import annotations

import logging
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

import dltrain
from dltrain.build import build, build_schedule, make_plan
from dltrain.config import saved
from dltrain.config.door import Door
from dltrain.config.schema import Config
from dltrain.data.errors import DataError
from dltrain.data.prepare import Splits
from dltrain.errors import CheckpointProblem, DataProblem, NumericalFailure, ResourceProblem, UserError
from dltrain.seeding import Stream, sample_positions
from dltrain.training.callbacks import Best, Callback, Result, RunInfo
from dltrain.training.evaluation import confusion
from dltrain.training.git import git_state
from dltrain.training.guard import NonFinite
from dltrain.training.parts import Parts, Plan
from dltrain.training.run_folder import RunFolder, read_contract, read_statistics
from dltrain.training.run_log import RunLog
from dltrain.training.signals import Interrupted
from dltrain.training.tensorboard import TensorBoard
from dltrain.training.terminal import Terminal
from dltrain.training.trainer import Trainer
from dltrain.tuning import settle

_log = logging.getLogger(__name__)

# Sees each row of metrics.csv with the best objective so far; a reason from it ends the run as pruned.
Watch = Callable[[dict[str, float], float | None], str | None]


@dataclass
class Experiment:
    """A built run: nothing is on the disk yet, and nothing is trained."""

    config: Config
    parts: Parts
    plan: Plan
    command: str = ""
    overrides: tuple[str, ...] = ()
    startup: dict[str, float] = field(
        default_factory=dict
    )  # seconds from the start of the process to each milestone


def prepare(
    config: Config,
    door: Door,
    command: str,
    overrides: list[str],
    startup: Mapping[str, float],
    earlier: Path | None = None,
    splits: Splits | None = None,
) -> Experiment:
    """Build everything of a run. What the data or the machine refuse is refused here, before the folder exists.

    `earlier` is the folder of a run to be taken up, whose data are normalised as they were; `splits` are the data of
    another run of this process over the same dataset.
    """
    begun = time.perf_counter()
    config = settle(config, door)
    statistics, contract = (
        (None, None) if earlier is None else (read_statistics(earlier), read_contract(earlier))
    )
    parts, plan = build(config, door, statistics, splits, contract)
    timings = {**startup, "build": round(time.perf_counter() - begun, 4)}
    return Experiment(config, parts, plan, command, tuple(overrides), timings)


def run(
    experiment: Experiment, path: Path, resume: bool = False, watch: Watch | None = None, strict: bool = False
) -> float | None:
    """Train in a folder and leave everything there; returns the objective. `watch` may prune the run.

    Raises NumericalFailure, ResourceProblem and UserError after the summary says `failed`, Interrupted after a signal,
    and ResourceProblem at the end of a run that is done but could not write all of its logs (`degraded`).
    """
    folder = open_folder(experiment, path, strict)
    try:
        trainer = Trainer(experiment.parts, experiment.plan, folder, [], watch)
        if resume:
            take_up(trainer)
        # before the summary says `running`, which a signal must not leave behind
        with trainer.signals, watched_logs(folder):
            info = begin(experiment, trainer, resume)
            return _fit(experiment, trainer, info)
    finally:
        folder.close()


def open_folder(experiment: Experiment, path: Path, strict: bool = False) -> RunFolder:
    """The run's folder, locked until it is closed."""
    keeping = experiment.config.checkpoint
    return RunFolder(
        path, keeping.keep, manifest_facts(experiment), keeping.background, keeping.unsaved, strict
    )


def begin(experiment: Experiment, trainer: Trainer, resume: bool = False) -> RunInfo:
    """Write down what is known before the first step, and call the observers."""
    folder = trainer.folder
    saved.write(experiment.config, folder.path / "config.yaml")
    if not resume or not folder.has_statistics:  # killed before they were written
        # the statistics last: where they are, a resumed run takes the contract for written, too
        if experiment.parts.contract is not None:
            folder.write_contract(experiment.parts.contract)
        folder.write_statistics(experiment.parts.statistics)
    info = describe(experiment, folder.path, trainer.step, folder.rows() if resume else [])
    trainer.callbacks += observers(experiment.config, folder.path, trainer.step if resume else None)
    folder.write_summary({"status": "running", **facts(experiment)})
    return info


def manifest_facts(experiment: Experiment) -> dict[str, Any]:
    """What a checkpoint's manifest tells of its run: versions, machine, data, and what may not change in a resume."""
    return {
        "dltrain": dltrain.__version__,
        "torch": torch.__version__,
        "device": experiment.plan.device.type,
        "threads": torch.get_num_threads(),
        "fingerprint": experiment.parts.fingerprint,
        "config": saved.binding(experiment.config),
    }


@contextmanager
def watched_logs(folder: RunFolder) -> Iterator[None]:
    """A log that cannot be written is a problem of the run, and no traceback on the terminal."""
    handlers = [h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]
    for handler in handlers:
        note_failures(handler, folder)
    try:
        yield
    finally:
        for handler in handlers:
            handler.__dict__.pop("handleError", None)


def note_failures(handler: logging.FileHandler, folder: RunFolder) -> None:
    """From now on, what a log could not write is among the problems of the run."""

    def note(record: logging.LogRecord) -> None:
        problem = f"{handler.baseFilename} could not be written"
        if problem not in folder.problems:
            folder.problems.append(problem)

    handler.handleError = note  # type: ignore[method-assign]


def _fit(experiment: Experiment, trainer: Trainer, info: RunInfo) -> float | None:
    """Fit, score and report; whatever happens, the summary says how it ended."""
    try:
        trainer.notify("on_fit_start", info)
        trainer.fit()
        result = finish(experiment, trainer)
    except BaseException as error:
        report = explain(error, experiment)
        close(experiment, trainer, report)
        if report is error:
            raise
        raise report from error
    if (problem := complaint(trainer.folder)) is not None:
        raise problem
    return result.objective


def complaint(folder: RunFolder) -> ResourceProblem | None:
    """What to raise where a run is done, but something beside its weights could not be written."""
    if not folder.problems:
        return None
    return ResourceProblem("The run is done, but not all of its records:\n" + "\n".join(folder.problems[:2]))


def finish(experiment: Experiment, trainer: Trainer) -> Result:
    """Score, tell the observers, and write the summary."""
    result = conclude(experiment, trainer)
    trainer.notify("on_fit_end", result)
    problems = trainer.folder.problems
    ending = {"status": "degraded", "problems": problems} if problems else {}
    trainer.folder.write_summary({**summary_of(result), **ending, **facts(experiment)})
    return result


def close(experiment: Experiment, trainer: Trainer, report: BaseException) -> None:
    """Say in the summary, in run.log and to the callbacks that a run was cut short; no failure here hides the first."""
    interrupted = isinstance(report, KeyboardInterrupt | Interrupted)
    summary = {
        "status": "interrupted" if interrupted else "failed",
        "stop_reason": str(report),
        "error": f"{type(report).__name__}: {report}",
        "steps": trainer.step,
        "problems": trainer.folder.problems,
        **facts(experiment),
    }
    with suppress(OSError):
        trainer.folder.write_summary(summary)
    if interrupted:
        _log.info("%s", report)
    else:
        _log.exception("the run ended with an error")
    with suppress(OSError):
        trainer.notify("on_exception", report)


def explain(error: BaseException, experiment: Experiment) -> BaseException:
    """The words for what can go wrong while training; other errors are returned as they are."""
    plan = experiment.plan
    if isinstance(error, NonFinite):
        return non_finite(error, experiment)
    if isinstance(error, DataError):
        return DataProblem(str(error))
    if isinstance(error, RuntimeError) and str(error).startswith("derivative for"):
        words = experiment.config.words
        looks = [w for w in experiment.config.diagnostics if w in ("curvature", "prediction")]
        asks, cure = f"optimizer={words['optimizer']}", "Use a first-order optimizer, such as optimizer=adam"
        if looks:
            asks, cure = f"diagnostics=[{','.join(looks)}]", "Leave that out"
        return UserError(
            f"{asks} needs the second derivative of model={words['model']}, and torch has none of "
            f"{str(error).split()[2]}.\n{cure}, or use another model."
        )
    if is_out_of_memory(error):
        half = max(plan.batch_size // 2, 1)
        return ResourceProblem(
            f"The memory of {plan.device} is not enough for batch_size={plan.batch_size}. "
            f"Try batch_size={half}, or accumulate={plan.accumulate * 2} for the same steps in smaller parts, "
            "or batch_size=auto."
        )
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        return ResourceProblem(
            f"{error.filename or 'A file of the run'} could not be written ({error.strerror or error}). "
            "Mend that, and `dltrain resume` the run."
        )
    return error


def non_finite(error: NonFinite, experiment: Experiment) -> NumericalFailure:
    """Where it happened, to which samples, in which tensor first; and what to try."""
    first = f" First of all: {error.first}." if error.first else ""
    samples = f", samples {error.samples}" if error.samples else ""
    return NumericalFailure(
        f"The loss or a gradient is not finite at step {error.step + 1} (loss {error.loss:g}{samples}); "
        f"the checkpoints before it are kept.{first}\n"
        f"Most often lr is too large: lr is {experiment.parts.optimizer.param_groups[0]['lr']:g}. Try a tenth of it, or "
        "regularization=[gradient_clipping].\nnon_finite=skip leaves such a step out."
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Of the GPU, of Python, or of torch's allocator on the CPU (which raises a plain RuntimeError)."""
    words = ("not enough memory", "can't allocate memory", "Cannot allocate memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in words)
    )


def take_up(trainer: Trainer) -> None:
    """Load the newest complete checkpoint, and drop the rows that come after it.

    Raises DataProblem for other data, CheckpointProblem for another configuration or a state that does not fit it.
    """
    folder = trainer.folder
    checkpoint = folder.newest_checkpoint()
    step = 0
    if checkpoint is not None:
        manifest = checkpoint.manifest
        if manifest.get("fingerprint") != folder.facts["fingerprint"]:
            raise DataProblem(
                f"{folder.path}: the data are not those that the run was trained on. Put the former ones back, or start a "
                f"run of its own with these: dltrain rerun {folder.path}"
            )
        saved.check_same(folder.path, manifest.get("config"), folder.facts["config"])
        warn_of_other_machine(manifest, folder.facts)
        step = int(manifest["step"])
        try:
            best = folder.best_weights(int(manifest["best_step"]))
            state, weights = checkpoint.state(), checkpoint.weights()
            check_yardstick(folder.path, state, trainer)
            load(trainer, state, weights, best)
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
    folder.rewind_rows(step)


def check_yardstick(path: Path, state: Mapping[str, Any], trainer: Trainer) -> None:
    """Refuse a run whose `loss` is still what was minimized: its best and its rows compare with no new evaluation.

    Such a checkpoint holds no sum of the column `objective`. Raises CheckpointProblem.
    """
    if len(state["sums"]) == len(trainer.running.sums) - 1:
        raise CheckpointProblem(
            f"{path} was trained by an earlier version, whose val/loss depends on the kind of loss, label smoothing and "
            "class weights; it no longer does, so that a resumed run would mix two scales.\n"
            f"Train again: dltrain rerun {path}"
        )


def load(trainer: Trainer, state: Any, weights: dict[str, Tensor], best: dict[str, Tensor]) -> None:
    """Load a checkpoint's content; the reason of a part that refuses it gets the run's folder and a cure."""
    try:
        trainer.checkpoints.load(state, weights, best)
    except CheckpointProblem as error:
        path = trainer.folder.path
        raise CheckpointProblem(
            f"{path} cannot be continued: {error}\nTo start it again: dltrain rerun {path}"
        ) from None


def check_longer(experiment: Experiment, before: Config, door: Door) -> None:
    """More epochs must not change the past: every schedule must be the same function of the step up to the former end."""
    plan = experiment.plan
    former = make_plan(before, plan.device, plan.batch_size, plan.steps_per_epoch)
    if plan.total_steps < former.total_steps:
        raise UserError(
            f"`epochs` or `steps` can only grow in a resumed run: {former.total_steps} steps were planned, now {plan.total_steps}."
        )
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
                "steps that are done would have had other rates.\nFor a new run: dltrain rerun RUN epochs=…"
            )


def warn_of_other_machine(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Equality to the last bit is promised for the same device, thread count and torch only: say so where one differs."""
    for key in ("device", "threads", "torch"):
        if key in then and then[key] != now[key]:
            text = f"{key} was {then[key]} and is {now[key]}: the run goes on, but not equal to the last bit"
            _log.warning("%s", text)
            print(f"dltrain: {text}", file=sys.stderr)


def observers(config: Config, path: Path, resumed_step: int | None) -> list[Callback]:
    """Who watches this run."""
    purge_step = None if resumed_step is None else resumed_step + 1
    callbacks: list[Callback] = [Terminal(config.quiet), TensorBoard(path, purge_step), RunLog()]
    if config.log.profile:
        from dltrain.training.profiler import Profiler

        callbacks.append(Profiler(path))
    return callbacks


def conclude(experiment: Experiment, trainer: Trainer) -> Result:
    """Score the test split once, with the best weights, and put the result together."""
    config, parts, plan = experiment.config, experiment.parts, experiment.plan
    assert trainer.state.stop is not None
    test = trainer.validation.score(parts.test) if parts.test is not None and config.evaluation.test else {}
    scored = parts.test if test else parts.val
    table = None
    if parts.spec.task == "classification" and scored is not None:
        table = confusion(
            parts.model,
            scored,
            parts.spec.num_classes,
            plan.evaluation_batch_size,
            plan.device,
            plan.precision,
        )
    if trainer.state.best_weights:
        trainer.folder.write_best(trainer.state.best_weights)
    trainer.diagnosis.draw(trainer.rates.lr)
    best_step = trainer.state.best_row.get("step", 0.0)
    return Result(
        status=trainer.state.stop[0],
        stop_reason=trainer.state.stop[1],
        best_epoch=best_step / plan.steps_per_epoch,
        best=dict(trainer.state.best_row),
        test=test,
        objective=parts.early_stopping.best,
        epochs=trainer.step / plan.steps_per_epoch,
        steps=trainer.step,
        seconds=trainer.clock.seconds,
        images_per_second=trainer.state.last_row.get("images_per_second", 0.0),
        peak_memory_bytes=peak_memory(plan.device),
        confusion=table,
        constant=constant_guess(parts, scored) if scored is not None else {},
    )


def constant_guess(parts: Parts, split: Any) -> dict[str, float]:
    """Return what the same output for every sample scores on a split: the mean of the training targets, or the shares of
    their classes. Of tables only.
    """
    if parts.contract is None or not parts.contract.columns:
        return {}
    known, targets = parts.train.targets, split.targets
    if parts.spec.task == "classification":
        outputs = torch.bincount(known, minlength=parts.spec.num_classes).clamp(min=1).log()
    else:
        outputs = known.double().mean(0)
    outputs = outputs.expand(len(targets), -1)
    reported = {name: metric for name, metric in parts.metrics.items() if name != "objective"}
    return {name: float(metric(outputs, targets).double().mean()) for name, metric in reported.items()}


def peak_memory(device: torch.device) -> int:
    """The most memory held so far, in bytes: of the GPU, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


# The summary and what describes a run -----------------------------------------------------------------------------


def summary_of(result: Result) -> dict[str, Any]:
    """summary.json's fields about the result; metrics without their split's prefix under `test`."""
    names = "status stop_reason best_epoch best test objective epochs steps seconds images_per_second peak_memory_bytes"
    constant = {"constant": result.constant} if result.constant else {}
    return {name: getattr(result, name) for name in names.split()} | constant


def facts(experiment: Experiment) -> dict[str, Any]:
    """What is known of a run whatever comes of it."""
    config, parts, plan = experiment.config, experiment.parts, experiment.plan
    return {
        "startup": experiment.startup,
        "parameters": sum(p.numel() for p in parts.model.parameters()),
        **({"loaded": parts.loaded} if parts.loaded else {}),
        **({"inferred": list(parts.spec.notes)} if parts.spec.notes else {}),
        "seed": plan.seed,
        "metric": parts.early_stopping.metric,
        "mode": parts.early_stopping.mode,
        "overrides": list(experiment.overrides),
        "command": experiment.command,
        "name": config.secrets.get("name", config.name),
        "tags": config.secrets.get("tags", config.tags),
        "notes": config.secrets.get("notes", config.notes),
        "git": git_state(),
        "versions": {
            "dltrain": dltrain.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "device": device_name(plan.device),
        "threads": torch.get_num_threads(),
        "written": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def device_name(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def describe(experiment: Experiment, path: Path, step: int, rows: list[dict[str, float]]) -> RunInfo:
    """What the header, TensorBoard and the report say of the run before its first step; `rows` were kept by a resume."""
    config, parts, plan, words = experiment.config, experiment.parts, experiment.plan, experiment.config.words
    images, labels = sample_images(parts, plan)
    best = Best(parts.early_stopping.metric, parts.early_stopping.mode)
    return RunInfo(
        name=config.name or "",
        folder=path,
        command=experiment.command,
        overrides=experiment.overrides,
        **{group: str(words[group]) for group in ("dataset", "model", "optimizer", "schedule")},
        sizes={
            name: len(split)
            for name, split in (("train", parts.train), ("val", parts.val), ("test", parts.test))
            if split is not None
        },
        input_shape=parts.spec.input_shape,
        num_classes=parts.spec.num_classes,
        task=parts.spec.task,
        class_names=parts.spec.class_names,
        parameters=sum(p.numel() for p in parts.model.parameters()),
        device=device_name(plan.device),
        precision=plan.precision,
        threads=torch.get_num_threads(),
        seed=plan.seed,
        max_epochs=-(-plan.total_steps // plan.steps_per_epoch),
        total_steps=plan.total_steps,
        steps_per_epoch=plan.steps_per_epoch,
        batch_size=plan.batch_size,
        lr=parts.optimizer.param_groups[0]["initial_lr"],
        resumed_step=step,
        best_row=([{}] + [row for row in rows if best.improves(row)])[-1],
        metric=parts.early_stopping.metric,
        mode=parts.early_stopping.mode,
        early_stopping=str(words["early_stopping"]),
        hparams=hparams(config, parts, plan),
        sample_images=images,
        sample_labels=labels,
        loaded=parts.loaded,
        inferred=parts.spec.notes,
    )


def hparams(config: Config, parts: Parts, plan: Plan) -> dict[str, int | float | str | bool]:
    """The choices of a run, flat, for TensorBoard's HParams tab."""
    words = {
        g: w if isinstance(w, str) else ",".join(w) or "none"
        for g, w in config.words.items()
        if g not in ("debug", "experiment")
    }
    numbers = {
        "lr": parts.optimizer.param_groups[0]["initial_lr"],
        "batch_size": plan.batch_size,
        "seed": plan.seed,
    }
    keys = {
        f"optimizer.{key}": value
        for key, value in config.optimizer.items()
        if isinstance(value, int | float) and key != "lr"
    }
    rules = {
        f"regularization.{w}.{k}": v
        for w, node in config.regularization.items()
        for k, v in node.items()
        if isinstance(v, int | float)
    }
    shown = {**words, **numbers, **keys, **rules}
    if "optimizer.lr" in config.secrets:
        del shown["lr"]
    return {name: value for name, value in shown.items() if name not in config.secrets}


@torch.no_grad()
def sample_images(parts: Parts, plan: Plan, count: int = 15) -> tuple[Tensor | None, tuple[str, ...]]:
    """A few random training images as the model will see them, augmented with draws of their own, in [0, 1]."""
    if len(parts.spec.input_shape) != 3 or parts.spec.input_shape[0] not in (1, 3):
        return None, ()
    order = sample_positions(len(parts.train), count, plan.seed, "pictures")
    inputs, targets, indices = next(iter(parts.train.batches(order, count)))
    labels = (
        tuple(parts.spec.class_names[int(t)] for t in targets)
        if parts.spec.class_names and targets.dim() == 1
        else ()
    )
    if parts.augmentation is not None:
        inputs, _ = parts.augmentation(
            inputs, targets, Stream(plan.seed, "samples", plan.device).at(0), indices, 0
        )
    raw = inputs.float() * parts.spec.std.to(inputs.device) + parts.spec.mean.to(inputs.device)
    return raw.clamp(0, 1).cpu(), labels


def log_of(path: Path) -> logging.FileHandler:
    """What writes run.log of a folder."""
    handler = logging.FileHandler(path / "run.log", encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))
    return handler


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Log to run.log of a folder, as Hydra does for the runs that it starts."""
    handler = log_of(path)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
