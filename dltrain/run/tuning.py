"""`lr=auto` and `batch_size=auto`: numbers found by trying, before the run begins, and then written into its config."""

from __future__ import annotations

import copy
import inspect
import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from dltrain.config.door import Door
from dltrain.config.schema import Config, to_config
from dltrain.data.prepare import free_memory
from dltrain.early_stopping import KeepBest
from dltrain.errors import UserError
from dltrain.optimizers.stepping import ONE_LOSS
from dltrain.run.build import build
from dltrain.run.rehearsal import Scratch
from dltrain.storage.summary import read_json, texts
from dltrain.text import first_line, say
from dltrain.training.guard import NonFinite
from dltrain.training.parts import Parts, Plan
from dltrain.training.trainer import Trainer

# 1e-4 … 1, log-spaced, as `find-lr` tries them
CANDIDATES = tuple(float(f"{10 ** (exponent / 2):.2g}") for exponent in range(-8, 1))
TRIAL_STEPS = 100
TRIAL_SAMPLES = 4096
MEMORY_SHARE = 0.5  # of what is free now: optimizer state, fragmentation and evaluation need the rest
_log = logging.getLogger(__name__)


def resolve_auto(config: Config, door: Door, given: Collection[str] = ()) -> Config:
    """Replace every `auto` that needs a trial by its number, and leave the CPU threads as they were.

    `given` are the keys of the command line, which the first trial refuses where they change nothing (`build`).
    The trials take smaller steps than the run, so that the threads chosen for them are not those of the run.
    """
    threads = torch.get_num_threads()
    try:
        return _resolve(config, door, given)
    finally:
        torch.set_num_threads(threads)


def searched_keys(config: Config, earlier: Path | None = None) -> tuple[str, ...]:
    """Return the keys that trials have to find, since they are `auto`; of a run to resume, those that it recorded."""
    if earlier is None:
        return tuple(key for key in ("lr", "batch_size") if getattr(config, key) == "auto")
    try:
        return tuple(texts(read_json(earlier / "summary.json").get("searched")))
    except (OSError, ValueError):
        return ()


def _resolve(config: Config, door: Door, given: Collection[str]) -> Config:
    if config.batch_size == "auto":
        config = with_values(
            config,
            batch_size=find_batch_size(
                with_values(config, batch_size=None, lr=_some_lr(config)), door, given
            ),
        )
    if config.lr == "auto":
        own = own_lr(config, door)
        # where nothing is given it is the default of a study problem
        if own is not None and not config.quiet and "lr" in given:
            say(f"lr=auto makes no search: {finds_its_steps(config, own)}")
        config = with_values(config, lr=own or find_lr(config, door, given))
    return config


def finds_its_steps(config: Config, lr: float) -> str:
    """Return that an optimizer needs no search for its rate, for which `own_lr` returns one."""
    return f"optimizer={config.words['optimizer']} finds the length of its steps itself: lr={lr:g}, its default, is right"


def own_lr(config: Config, door: Door) -> float | None:
    """Return the default rate of an optimizer that finds the size of its step itself, None for others.

    For an exact step or a line search, which need all evaluations to be of one loss, lr is a factor that is 1 in theory:
    the best of a few short trials would replace the method by another one.
    """
    target = door.locate(config.optimizer["_target_"], "optimizer")
    if ONE_LOSS not in getattr(target, "needs", ()):
        return None
    return float(inspect.signature(target).parameters["lr"].default)


def _some_lr(config: Config) -> float | str | None:
    return CANDIDATES[0] if config.lr == "auto" else config.lr


def with_values(config: Config, **values: object) -> Config:
    """Return the configuration with other knobs; `lr` goes to the optimizer, too."""
    plain = copy.deepcopy(config.plain)
    plain |= values
    if "lr" in values:
        plain["optimizer"]["lr"] = values["lr"]
    # `quiet` may be set for a job beside what its file says
    return replace(to_config(plain, config.words, config.secrets), quiet=config.quiet)


def find_lr(config: Config, door: Door, given: Collection[str] = ()) -> float:
    """Return the learning rate with the lowest validation loss of log-spaced ones, each tried as `losses_of` does.

    Raises UserError when none of them stays finite.
    """
    losses = {}
    for lr, loss in losses_of(CANDIDATES, config, door, given=given):
        losses[lr] = loss
        _log.info("lr=auto: %.1e gives a validation loss of %.4f", lr, loss)
    best = min(losses, key=lambda lr: losses[lr])
    if not math.isfinite(losses[best]):
        raise UserError(
            "`lr` is auto, and none of 1e-4 … 1 gives a finite loss. Look at the data and the model: debug=overfit"
        )
    beyond = {CANDIDATES[0]: ("lowest", 0.3), CANDIDATES[-1]: ("highest", 3)}
    # of a default that nobody chose, as that of a study problem, no more is told than the rate
    if best in beyond and "lr" in given and not config.quiet:
        side, step = beyond[best]
        say(
            f"lr=auto: {best:g} is the {side} rate that it tries, and one beyond may be better, such as lr={step * best:g}"
        )
    return best


def losses_of(
    rates: Iterable[float], config: Config, door: Door, steps: int = TRIAL_STEPS, given: Collection[str] = ()
) -> Iterator[tuple[float, float]]:
    """Yield each learning rate with the validation loss after a short run; infinite where it diverges.

    All start from the same weights and see the same batches of at most 4096 samples. Nothing is kept of them.
    """
    # a trial sets it
    given = [key for key in given if key != "dataset.limit" or config.dataset.get("limit")]
    for number, lr in enumerate(rates):
        short = with_values(config, lr=lr, steps=steps, epochs=None)
        short.dataset["limit"] = min(config.dataset.get("limit") or TRIAL_SAMPLES, TRIAL_SAMPLES)
        first = number == 0
        make = partial(build, door=door, trial=first, given=given if first else ())
        try:
            built = make(short)
        except UserError as error:
            raise _of_trials(error, steps, partial(make, with_values(config, lr=lr))) from None
        yield lr, _loss_after(*built)


def _of_trials(error: UserError, steps: int, make: Callable[[], tuple[Parts, Plan]]) -> UserError:
    """Return the refusal of a trial: that of the run itself, or that its length is the reason, where `make` builds the run."""
    try:
        _, plan = make()
    except UserError:
        return error
    # without the cure, which is for a run of that length
    why = first_line(error).partition(". ")[0].rstrip(".")
    return UserError(
        f"Each rate is tried in a run of {steps} steps, in which this does not fit: {why}.\n"
        f"Choose a rate by longer runs, with your words: dltrain find-lr --steps {plan.total_steps}; or set lr"
    )


class _NoStopping(KeepBest):
    """Train a trial to its last step: losses compare after the same number of steps only, and no weights are kept."""

    def observe(self, row: Mapping[str, float], step: int) -> bool:
        return False


def _loss_after(parts: Parts, plan: Plan) -> float:
    """Return the validation loss after the plan's steps; infinite for a run that diverges."""
    parts = replace(parts, early_stopping=_NoStopping())
    trainer = Trainer(parts, plan, Scratch())  # type: ignore[arg-type]
    try:
        trainer.fit()
    except NonFinite:
        return math.inf
    row = trainer.state.last_row
    loss = row.get("val/loss", row["train/loss"])
    return loss if math.isfinite(loss) and not trainer.grown_loss(row) else math.inf


def find_batch_size(config: Config, door: Door, given: Collection[str] = ()) -> int:
    """Return the largest power of two whose activations fit in half of the free memory, at most the training split.

    What a sample needs is counted from the tensors that autograd keeps for the backward pass of a small batch.
    """
    parts, plan = build(config, door, given=given)
    needed = bytes_per_sample(parts)
    largest = int(MEMORY_SHARE * free_memory(plan.device) / max(needed, 1))
    size = 2 ** int(math.log2(max(min(largest, len(parts.train)), 1)))
    _log.info("batch_size=auto: %d bytes a sample, so %d samples", needed, size)
    return size


def bytes_per_sample(parts: Parts, samples: int = 4) -> int:
    """Return the bytes that one sample keeps alive between forward and backward pass."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    samples = min(samples, len(parts.train))
    batch = next(iter(parts.train.batches(torch.arange(samples), samples)))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        parts.loss(parts.model(batch.inputs), batch.targets).mean()
    weights = {p.untyped_storage().data_ptr() for p in parts.model.parameters()}
    return sum(size for pointer, size in kept.items() if pointer not in weights) // samples
