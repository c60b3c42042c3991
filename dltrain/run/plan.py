"""The plan of a run: batch size and durations in steps."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from dltrain.batch_norm import batch_norms, leaves_one, micro_batches, samples_needed, smallest_piece
from dltrain.config.schema import Config
from dltrain.data.prepare import Splits, free_memory
from dltrain.defaults import DEFAULT_BATCH_SIZE, DEFAULT_EPOCHS
from dltrain.errors import ResourceProblem, UserError
from dltrain.run.machine import choose_precision
from dltrain.screen.numbers import in_bytes
from dltrain.training.parts import Plan


def make_plan(
    config: Config, device: torch.device, batch_size: int, steps_per_epoch: int, samples_needed: int = 1
) -> Plan:
    """Convert every duration to steps; a micro-batch has at least `samples_needed`."""
    if config.accumulate > batch_size:
        raise UserError(
            f"`accumulate` is {config.accumulate}, more than the {batch_size} samples of a batch. Use at most that."
        )
    total = config.steps or (config.epochs or DEFAULT_EPOCHS) * steps_per_epoch

    def steps(node: Any) -> int | None:
        return node.every_steps or (node.every_epochs * steps_per_epoch if node.every_epochs else None)

    return Plan(
        seed=config.seed,
        device=device,
        precision=choose_precision(config.precision, device),
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
        accumulate=config.accumulate,
        evaluate_every=steps(config.evaluation) or total,
        evaluation_batch_size=evaluation_batch_size(config, batch_size),
        checkpoint_every=steps(config.checkpoint),
        checkpoint_seconds=config.checkpoint.every_minutes * 60 if config.checkpoint.every_minutes else None,
        log_every=config.log.every_steps,
        compile=config.compile,
        non_finite=config.non_finite,
        samples_needed=samples_needed,
    )


def steps_of_an_epoch(samples: int, batch_size: int, model: nn.Module) -> int:
    """Count the batches, including a ragged last one, unless it is a single sample and the model has batch norm."""
    dropped = bool(batch_norms(model)) and leaves_one(samples, batch_size)
    return math.ceil(samples / batch_size) - dropped


def evaluation_batch_size(config: Config, batch_size: int) -> int:
    """Return the number of samples that are evaluated at once."""
    return config.evaluation.batch_size or max(batch_size, 1024)


def choose_batch_size(asked: int | str | None, num_train: int) -> int:
    """Return the batch size in samples. Raises UserError for one above the training split."""
    if asked is None:
        return min(DEFAULT_BATCH_SIZE, num_train)
    if asked == "full":
        return num_train
    if int(asked) > num_train:
        raise UserError(
            f"`batch_size` is {asked}, and the training split has {num_train} samples: it must be at most that. "
            f"Use batch_size={num_train} or batch_size=full."
        )
    return int(asked)


# samples that an initializer looks at (`dltrain.run.build.sample_batch`)
INITIALIZER_SAMPLES = 512


def check_memory(config: Config, samples: int, shape: tuple[int, ...]) -> None:
    """Raise ResourceProblem where a batch of what is read from files takes more than the memory: the system would kill the run."""
    train = min(config.dataset["limit"] or samples, samples)
    asked = config.batch_size if isinstance(config.batch_size, int) else DEFAULT_BATCH_SIZE
    batch = min(train, max(asked, INITIALIZER_SAMPLES))
    evaluated = min(samples // 10, evaluation_batch_size(config, asked))
    # floats made of bytes
    needed, free = 5 * max(batch, evaluated) * math.prod(shape), free_memory(torch.device("cpu"))
    if needed > free:
        smaller = "dataset.image_size=224" if "image_size" in config.dataset else "smaller samples"
        raise ResourceProblem(
            f"{max(batch, evaluated):,} samples of shape {'×'.join(map(str, shape))} are held at once, which takes "
            f"{in_bytes(needed)}, and {in_bytes(free)} of memory are free.\nUse {smaller}."
        )


def samples_for_batch_norm(model: nn.Module, splits: Splits) -> int:
    """Return how many samples the model's batch norms need in a batch; a model that does not fit the data is refused later."""
    batch = next(iter(splits.train.batches(torch.arange(min(2, len(splits.train))), 2)))
    with suppress(RuntimeError, ValueError, TypeError):
        return samples_needed(model, batch.inputs)
    return 1


def check_batch_norm(config: Config, plan: Plan, samples: int) -> None:
    """Raise UserError if a batch or micro-batch has too few samples for batch norm, which would end the run later."""
    needed, size = plan.samples_needed, min(plan.batch_size, samples)
    rule = f"{needed} samples: the variance of a single value is not defined"
    other_norm = "model.norm=layer" if config.model.get("norm") == "batch" else "another model"
    if size < needed:
        cure = f"batch_size={needed}, or {other_norm}" if samples >= needed else other_norm
        raise UserError(
            f"`batch_size` is {plan.batch_size}, and the batch norm of model={config.words['model']} needs at least {rule}. "
            f"Use {cure}."
        )
    if smallest_piece(size, plan.accumulate) < needed:
        pieces = micro_batches(size, plan.accumulate, needed)
        largest = math.ceil(size / math.ceil(size / pieces))  # what torch.chunk makes of it
        raise UserError(
            f"`accumulate` is {plan.accumulate}, which leaves {smallest_piece(size, plan.accumulate)} of the {size} samples of a "
            f"batch for the smallest micro-batch.\nThe batch norm of model={config.words['model']} needs at least {rule}. "
            f"Use accumulate={largest}, a larger batch_size, or {other_norm}."
        )
