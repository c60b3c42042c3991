"""Records of a run: manifest, summary, the description for loggers, and the log."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO, cast

import torch
from torch import Tensor

import dltrain
from dltrain.config import saved
from dltrain.config.keys import ELSEWHERE, is_safe, keys_of
from dltrain.config.schema import Config
from dltrain.early_stopping import Patience
from dltrain.loggers.events import Best, Result, RunInfo
from dltrain.run.built import Experiment
from dltrain.run.git import git_state
from dltrain.run.layer_use import use_fields
from dltrain.screen.table import typed
from dltrain.seeding import Stream, sample_positions
from dltrain.storage.files import open_appending
from dltrain.storage.folder_names import SWEEP_RECORD
from dltrain.storage.run_folder import RunFolder
from dltrain.training.parts import Parts, Plan
from dltrain.training.planned import counts_from

# of summary.json; a run with a format has a manifest of its records
FORMAT = 1


def manifest_facts(experiment: Experiment) -> dict[str, object]:
    """Return what a checkpoint's manifest holds about its run: versions, machine, data, and what may not change in a resume."""
    # which samples a limit keeps follows from a rule, which was another one in earlier versions
    counts = experiment.parts.spec.class_counts if experiment.config.dataset.get("limit") else ()
    return {
        **({"class_counts": list(counts)} if counts else {}),
        "dltrain": dltrain.__version__,
        "torch": torch.__version__,
        "device": experiment.plan.device.type,
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "fingerprint": experiment.parts.fingerprint,
        "config": saved.binding(experiment.config),
    }


def facts(experiment: Experiment) -> dict[str, object]:
    """Return the fields of summary.json that do not depend on the result."""
    config, parts, plan = experiment.config, experiment.parts, experiment.plan
    return {
        "startup": experiment.startup,
        "parameters": sum(p.numel() for p in parts.model.parameters()),
        **use_fields(parts.model),
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
        "config": saved.flat(saved.as_saved(config)),
        **({"code": experiment.code} if experiment.code else {}),
        **({"edited": list(experiment.edited)} if experiment.edited else {}),
        **({"longer": list(experiment.longer)} if experiment.longer else {}),
        **({"searched": list(experiment.searched)} if experiment.searched else {}),
        **({"first_weights": experiment.weights} if experiment.weights else {}),
        "processor": processor(),
        **({"stacked": True} if experiment.stacked else {}),
        "format": FORMAT,
        "written": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def summary_of(result: Result) -> dict[str, object]:
    """Return the fields of summary.json about the result; metrics under `test` have no prefix."""
    names = "status stop_reason best_epoch best test objective epochs steps seconds images_per_second peak_memory_bytes"
    constant = {"constant": result.constant} if result.constant else {}
    remarks = {"remarks": list(result.remarks)} if result.remarks else {}
    return {name: getattr(result, name) for name in names.split()} | constant | remarks


def peak_memory(device: torch.device) -> int:
    """Return the most memory held so far, in bytes: of the GPU, or of the process on a CPU; 0 if the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # on Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def processor() -> str:
    """Return what decides the last bits of a CPU's results: architecture and instruction set, such as x86_64 AVX512."""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def device_name(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def base_lr(parts: Parts) -> float:
    """Return the learning rate of parameters that no pattern scales."""
    first = parts.optimizer.param_groups[0]
    return float(first["initial_lr"] / first.get("lr_scale", 1.0))


def describe(
    experiment: Experiment, path: Path, step: int, kept: Sequence[dict[str, float]] | None
) -> RunInfo:
    """Return what the loggers are told before the first step; `kept` are the rows of a run that is resumed."""
    config, parts, plan, words = experiment.config, experiment.parts, experiment.plan, experiment.config.words
    images, labels = sample_images(parts, plan)
    best = Best(parts.early_stopping.metric, parts.early_stopping.mode)
    waits = isinstance(parts.early_stopping, Patience)
    stopping = (
        getattr(parts.early_stopping, "note", ""),
        counts_from(parts.planned, plan.evaluate_every) if waits else "",
    )
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
        lr=base_lr(parts),
        resumed_step=step,
        best_row=best.of(kept or []),
        metric=parts.early_stopping.metric,
        mode=parts.early_stopping.mode,
        early_stopping=str(words["early_stopping"]),
        stopping=" · ".join(filter(None, stopping)),
        rules=rules_of(experiment),
        plateaus=tuple(plateau.metric for plateau in parts.plateaus),
        hparams=hparams(config, parts, plan, experiment.overrides),
        config=saved.as_saved(config),
        sample_images=images,
        sample_labels=labels,
        loaded=parts.loaded,
        inferred=parts.spec.notes,
        resumed=kept is not None,
        sweep=path.absolute().parent.name if (path.absolute().parent / SWEEP_RECORD).is_file() else "",
    )


def rules_of(experiment: Experiment) -> tuple[str, ...]:
    """Return the augmentation, wrappers and regularization, and the momentum and strengths of the first and last step, where they are scheduled."""
    parts, words = experiment.parts, experiment.config.words
    facts = []
    for group in ("augmentation", "wrap", "regularization"):
        chosen = words.get(group) or ()
        used = [word for word in ([chosen] if isinstance(chosen, str) else chosen) if word != "none"]
        facts += [f"{group} {', '.join(used)}"] if used else []
    facts += [f"averaging {words['averaging']}"] if parts.averaging is not None else []
    facts += [f"{part.key} {part.thaw_epoch}" for part in parts.frozen]
    named = (
        ("momentum", "momentum_schedule", parts.momentum_schedule),
        ("strengths ×", "penalty_schedule", parts.penalty_schedule),
    )
    for noun, group, schedule in named:
        if schedule is None:
            continue
        if schedule in parts.plateaus:
            facts.append(f"{noun} {schedule(0):.3g} until a plateau of {cast(Any, schedule).metric}")
        else:
            facts.append(
                f"{noun} {schedule(0):.3g} → {schedule(experiment.plan.total_steps - 1):.3g} ({words[group]})"
            )
    return tuple(facts)


def hparams(
    config: Config, parts: Parts, plan: Plan, overrides: Sequence[str] = ()
) -> dict[str, int | float | str | bool]:
    """Return the choices of a run, flat, for TensorBoard's HParams tab: words, main numbers, and every key that was given."""
    words = {
        g: w if isinstance(w, str) else ",".join(w) or "none"
        for g, w in config.words.items()
        if g not in ("debug", "experiment", "logger")
    }
    numbers = {
        "lr": base_lr(parts),
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
    known = saved.flat(saved.as_saved(config))
    given = {
        key: value if isinstance(value := known[key], int | float | str) else typed(value)
        for key in sorted(keys_of(overrides) & known.keys())
        if not is_safe(key) and key not in ELSEWHERE
    }
    shown = {**given, **words, **numbers, **keys, **rules}
    if "optimizer.lr" in config.secrets:
        del shown["lr"]
    return {name: value for name, value in shown.items() if name not in config.secrets}


@torch.no_grad()
def sample_images(parts: Parts, plan: Plan, count: int = 15) -> tuple[Tensor | None, tuple[str, ...]]:
    """Return a few random training images as the model sees them, augmented, in [0, 1], and their labels."""
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


class _Log(logging.FileHandler):
    """Write run.log of a folder, which may be somebody else's: no link is followed."""

    def _open(self) -> TextIO:  # type: ignore[override]
        return open_appending(Path(self.baseFilename))


def log_of(path: Path) -> logging.FileHandler:
    """Return the handler that writes run.log of a folder."""
    handler = _Log(path / "run.log", encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))
    return handler


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Log to run.log of a folder, as Hydra does for the runs that it starts: the course of the run, too."""
    handler, logger = log_of(path), logging.getLogger()
    former = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(former)
        logger.removeHandler(handler)
        handler.close()
        # of a new run that could write nothing, as on a full disk
        with suppress(OSError):
            if not os.listdir(path):
                path.rmdir()


@contextmanager
def watched_logs(folder: RunFolder) -> Iterator[None]:
    """Turn failures of the logs into problems of the run; logging would print a traceback on the terminal."""
    handlers = [h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]
    for handler in handlers:
        note_failures(handler, folder)
    try:
        yield
    finally:
        for handler in handlers:
            handler.__dict__.pop("handleError", None)


def note_failures(handler: logging.FileHandler, folder: RunFolder) -> None:
    """Add failures of a log to the problems of the run from now on."""

    def note(record: logging.LogRecord) -> None:
        problem = f"{handler.baseFilename} could not be written"
        if problem not in folder.problems:
            folder.problems.append(problem)

    handler.handleError = note  # type: ignore[method-assign]
