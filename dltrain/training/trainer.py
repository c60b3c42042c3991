"""The loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dltrain.averaging import recompute_batch_norm
from dltrain.batch_norm import batch_norms, micro_batches, size_without_rest
from dltrain.data.errors import DataError
from dltrain.data.spec import Batch
from dltrain.diagnostics.probe import Diagnostic, Probe, still
from dltrain.optimizers.stepping import take_step
from dltrain.seeding import GlobalStream, Stream, sample_positions
from dltrain.training.callbacks import Callback, Progress
from dltrain.training.closure import Closure
from dltrain.training.evaluation import autocast, evaluate
from dltrain.training.guard import (
    DeviceGuard,
    HostGuard,
    NonFinite,
    all_finite,
    first_in_forward,
    first_non_finite,
    gradient_norm,
    gradients_of,
)
from dltrain.training.parts import Parts, Plan
from dltrain.training.run_folder import RunFolder
from dltrain.training.running_means import RunningMeans
from dltrain.training.signals import Signals

SKIPS_IN_A_ROW, ROLLBACKS = 10, 3  # beyond these the run is past help, and stops
_log = logging.getLogger(__name__)

SMALLEST_MOMENTUM = 1e-30
# What the batch-norm statistics of averaged weights come from: all training samples up to this number, else a random
# sample, in batches large enough for their own statistics to be near those of the sample.
STATISTICS_SAMPLES, STATISTICS_BATCH = 10_000, 256


class Trainer:
    """Fits the parts of one experiment by their plan. Callbacks observe; they cannot change a result."""

    def __init__(
        self,
        parts: Parts,
        plan: Plan,
        folder: RunFolder,
        callbacks: list[Callback],
        watch: Callable[[dict[str, float], float | None], str | None] | None = None,
    ) -> None:
        self.parts, self.plan, self.folder, self.callbacks = parts, plan, folder, callbacks
        # sees each evaluation with the best so far; a reason from it ends the run as pruned
        self.watch = watch
        self.parameters = list(parts.model.parameters())  # the frozen ones too: they may thaw
        self.batch_norms = batch_norms(parts.model)
        # of the averaged weights, with the step that they were computed at
        self.averaged_statistics: tuple[int, list[Tensor]] | None = None
        self.forward = torch.compile(parts.model) if plan.compile else parts.model
        # to leave single steps out, the host must look at each of them
        on_device = plan.device.type == "cuda" and plan.non_finite == "stop"
        self.guard = (DeviceGuard if on_device else HostGuard)(parts.model, parts.optimizer)
        self.autocast = autocast(plan.device, plan.precision)
        self.augment = Stream(plan.seed, "augment", plan.device)
        self.noise = Stream(plan.seed, "noise", plan.device)
        self.dropout = GlobalStream(plan.seed, "dropout", plan.device)
        self.running = RunningMeans(parts.metrics, parts.objective, plan.device)
        self.kept_shares: tuple[int, Tensor] | None = None
        self.step = 0
        self.lr = 0.0
        self.penalty_scale = 1.0
        self.best_row: dict[str, float] = {}
        self.last_row: dict[str, float] = {}
        self.best_weights: dict[str, Tensor] = {}
        self.stop: tuple[str, str] | None = None  # status and reason, once it is decided
        self.images_per_second = 0.0
        self.clock = _Clock()
        self.improved = False  # since the last checkpoint
        self.saved_step = -1  # of the newest checkpoint
        self.bad_steps = 0  # left out, or gone back from, because they were not finite
        self.bad_in_a_row = 0
        self.signals = Signals()
        self.update: list[Tensor] = []  # W_{t+1} − W_t of the last step, where somebody looks at it
        for diagnostic in parts.diagnostics.values():
            if hasattr(diagnostic, "begin"):
                diagnostic.begin(parts.model)

    # The loop, in the order of the mathematics --------------------------------------------------------------------

    def fit(self) -> None:
        """Train until the plan's end, early stopping or convergence; then put back the best weights."""
        self.begin()
        while self.stop is None and self.step < self.plan.total_steps:
            try:
                self.train_epoch(self.plan.epoch_of(self.step))
            except DataError:
                if self.signals.received is None:
                    raise
                self.interrupt()  # the signal reached the readers of the data, too
        self.end()

    def begin(self) -> None:
        """Start the clocks."""
        self.parts.model.train()
        self.progress = Progress(
            1, self.step, self.plan.total_steps, self.lr, self.plan.batch_size, None, "train"
        )
        self.clock.start(self.step, self.clock.earlier)

    def end(self) -> None:
        """Save what is not saved yet, and put back the best weights."""
        self.save_end()
        self.folder.wait()
        self.restore_best()

    def save_end(self) -> None:
        """Decide how the run ended, and save what is not saved yet."""
        self.stop = self.stop or ("completed", f"all {self.plan.total_steps} steps done")
        if self.saved_step != self.step:
            self.save_checkpoint()

    def train_epoch(self, epoch: int) -> None:
        """One pass over the training split, or what is left of it after a resume."""
        plan, parts = self.plan, self.parts
        for part in parts.frozen:
            part.at(epoch)
        start = self.step - epoch * plan.steps_per_epoch
        order = parts.order.order(epoch)[: plan.steps_per_epoch * plan.batch_size]
        for batch in parts.train.batches(order, plan.batch_size, start):
            self.set_rates()
            inputs, targets = self.transform(batch, epoch)
            # loss + penalties → gradient → clipping → decay
            closure = Closure(self, inputs, targets, batch.indices)
            with self.tolerating(closure, batch), self.before_and_after() as update_norm:
                take_step(parts.optimizer, closure, self.parameters)
                closure.decay()
                self.guard.after_update()
                for rule in parts.rules.weights:
                    rule.after_update(parts.optimizer.param_groups, self.penalty_scale)
                if parts.averaging is not None:
                    parts.averaging.update(self.step + 1)
            self.step += 1
            self.observe(update_norm)
            if self.stop is not None or self.step >= plan.total_steps:
                return

    def set_rates(self) -> None:
        """Learning rate, momentum and strength of the penalties as functions of the step."""
        parts = self.parts
        factor = parts.schedule(self.step)
        for group in parts.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        first = parts.optimizer.param_groups[0]
        self.lr = first["lr"] / first.get("lr_scale", 1.0)
        if parts.momentum_schedule is not None:
            set_momentum(parts.optimizer, parts.momentum_schedule(self.step))
        if parts.penalty_schedule is not None:
            self.penalty_scale = parts.penalty_schedule(self.step)

    def transform(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """Augment a batch with draws that depend on (seed, step) alone."""
        inputs, targets, indices = batch
        if self.parts.augmentation is not None:
            inputs, targets = self.parts.augmentation(
                inputs, targets, self.augment.at(self.step), indices, epoch
            )
        if inputs.dim() == 4:
            # 1.4 times the speed of convolutions on a CPU
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs, targets

    # What happens between steps -----------------------------------------------------------------------------------

    def observe(self, update_norm: list[Tensor]) -> None:
        """Log, evaluate and save where this step is a point for it."""
        plan, step = self.plan, self.step
        last = step >= plan.total_steps
        self.progress.step, self.progress.lr = step, self.lr
        self.progress.epoch = 1 + (step - 1) // plan.steps_per_epoch
        self.progress.values = self.log_point() if plan.log_every and step % plan.log_every == 0 else None
        self.notify("on_step_end", self.progress)
        if self.evaluates_at(step):
            self.evaluate_and_judge()
        if update_norm and self.stop is None and self.parts.early_stopping.converged(float(update_norm[0])):
            self.stop = ("converged", self.parts.early_stopping.stop_reason or "")
        if self.checkpoint_is_due():
            self.save_checkpoint()
        self.folder.check_saved()
        if self.signals.received is not None and self.stop is None and not last:
            self.interrupt()

    def evaluates_at(self, step: int) -> bool:
        return step % self.plan.evaluate_every == 0 or step >= self.plan.total_steps

    def interrupt(self) -> None:
        """Save where we are, at a step boundary, and leave. Raises Interrupted."""
        if self.saved_step != self.step:
            self.save_checkpoint()
        self.folder.wait()
        raise self.signals.interruption(self.step, self.folder.path)

    def notify(self, event: str, news: Any) -> None:
        """Tell the callbacks; one that cannot write is left out from here on, and the run is `degraded`."""
        for callback in tuple(self.callbacks):
            try:
                getattr(callback, event)(news)
            except OSError as error:
                self.callbacks.remove(callback)
                self.folder.note_problem(f"{type(callback).__name__} could not be written ({error.strerror})")

    def log_point(self) -> dict[str, float]:
        """The running means of this interval; the one place between evaluations where the host reads the device."""
        self.guard.read()
        return {**self.running.means(), "grad_norm": self.grad_norm(), "lr": self.lr}

    def evaluate_and_judge(self) -> None:
        """Validate, write the row, and let early stopping and plateau schedules see it."""
        self.guard.read()
        steps_per_second = self.clock.end_lap(self.step)
        row = {"epoch": self.step / self.plan.steps_per_epoch, "step": float(self.step), "lr": self.lr}
        row |= {f"train/{name}": value for name, value in self.running.means().items()}
        self.progress.phase = "val"
        row |= {f"val/{name}": value for name, value in self.validate().items()}
        self.progress.phase = "train"
        row["grad_norm"] = self.grad_norm()
        row |= self.extra_columns() | self.look()
        self.images_per_second = steps_per_second * len(self.parts.order) / self.plan.steps_per_epoch
        row |= {"images_per_second": self.images_per_second, "seconds": self.clock.lap}
        self.running.reset()
        self.last_row = row
        self.judge(row)
        self.folder.append_row(row)
        self.notify("on_epoch_end", row)
        self.clock.start_lap(self.step)

    def judge(self, row: dict[str, float]) -> None:
        """Keep the weights of the best evaluation, and decide whether to stop."""
        stopping = self.parts.early_stopping
        if stopping.observe(row, self.step):
            self.best_row, self.improved = row, True
            self.best_weights = self.evaluated_weights()
        for plateau in self.parts.plateaus:
            plateau.observe(row[plateau.metric])
        if stopping.stop_reason and self.stop is None:
            self.stop = ("early_stopped", stopping.stop_reason)
        reason = self.watch(row, stopping.best) if self.watch is not None else None
        if reason and self.stop is None:
            self.stop = ("pruned", reason)

    def validate(self) -> dict[str, float]:
        """The scores of the validation split, with the averaged weights where averaging is on."""
        if self.parts.val is None:
            return {}
        with self.averaged():
            return self.score(self.parts.val)

    def score(self, split: Any) -> dict[str, float]:
        parts, plan = self.parts, self.plan
        return evaluate(
            parts.model,
            split,
            parts.metrics,
            plan.evaluation_batch_size,
            plan.device,
            plan.precision,
            parts.measures,
        )

    def grad_norm(self) -> float:
        """The norm of the last step's gradient, as it went into the update; read at log points only."""
        return float(gradient_norm(gradients_of(self.parameters)))

    def extra_columns(self) -> dict[str, float]:
        """What the rules can tell of themselves, such as the share of exact zeros."""
        shares = [rule.zero_share() for rule in self.parts.rules.weights if hasattr(rule, "zero_share")]
        columns = {"zero_share": float(shares[0])} if shares else {}
        return columns | ({"bad_steps": float(self.bad_steps)} if self.plan.non_finite != "stop" else {})

    # Weights ------------------------------------------------------------------------------------------------------

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model with its averaged weights inside, where averaging is on and has begun.

        Batch-norm statistics belong to weights: those of the averaged ones are recomputed, and put back with the weights.
        """
        averaging = self.parts.averaging
        if averaging is None or not averaging.started:
            yield
            return
        with averaging.swapped():
            self.set_averaged_statistics()
            yield

    def set_averaged_statistics(self) -> None:
        """Give the batch norms the statistics of the averaged weights, computed once for each step."""
        buffers = [buffer for norm in self.batch_norms for buffer in norm.buffers()]
        if not buffers:
            return
        if self.averaged_statistics is not None and self.averaged_statistics[0] == self.step:
            torch._foreach_copy_(buffers, self.averaged_statistics[1])
            return
        with autocast(self.plan.device, self.plan.precision):
            recompute_batch_norm(self.parts.model, self.plain_inputs)
        self.averaged_statistics = self.step, [buffer.detach().clone() for buffer in buffers]

    def plain_inputs(self) -> Iterator[Tensor]:
        """Yield training samples without augmentation, the same at every evaluation, in batches of at least two."""
        plan, train = self.plan, self.parts.train
        chosen = sample_positions(len(train), STATISTICS_SAMPLES, plan.seed, "statistics")
        size = size_without_rest(len(chosen), max(plan.batch_size // plan.accumulate, STATISTICS_BATCH))
        for batch in train.batches(chosen, size):
            yield batch.inputs

    def evaluated_weights(self) -> dict[str, Tensor]:
        """A copy of the weights that were just validated."""
        with self.averaged():
            return {name: tensor.detach().clone() for name, tensor in self.parts.model.state_dict().items()}

    def restore_best(self) -> None:
        if self.best_weights:
            self.parts.model.load_state_dict(self.best_weights)

    @contextmanager
    def before_and_after(self) -> Iterator[list[Tensor]]:
        """Measures ‖W_{t+1} − W_t‖ where a tolerance asks for it, at the cost of a copy of the weights a step.

        Where diagnostics look after this step, it keeps W_{t+1} − W_t for them.
        """
        norm: list[Tensor] = []
        measured = self.parts.early_stopping.tolerance is not None
        shown = bool(self.parts.diagnostics) and self.evaluates_at(self.step + 1)
        if not (measured or shown):
            yield norm
            return
        before = [p.detach().clone() for p in self.parameters]
        yield norm
        moved = torch._foreach_sub([p.detach() for p in self.parameters], before)
        self.update = list(moved) if shown else []
        if measured:
            norm.append(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(moved))))

    # Diagnostics --------------------------------------------------------------------------------------------------

    def look(self) -> dict[str, float]:
        """What the diagnostics see in the weights of this step; they leave no trace in the run."""
        return {
            f"{word}/{name}": value
            for word, diagnostic in self.parts.diagnostics.items()
            for name, value in self.shown(diagnostic, diagnostic.measure).items()
        }

    def draw(self) -> None:
        """Let the diagnostics that draw do so, of the best weights; a file that cannot be written costs no result."""
        for diagnostic in self.parts.diagnostics.values():
            if hasattr(diagnostic, "draw"):
                try:
                    self.shown(diagnostic, partial(diagnostic.draw, folder=self.folder.path))
                except OSError as error:
                    self.folder.note_problem(f"{error.filename} could not be written ({error.strerror})")

    def shown(self, diagnostic: Diagnostic, look: Callable[[Probe], Any]) -> Any:
        """The look's answer, on training samples that are the same for the whole run."""
        parts, train = self.parts, self.parts.train
        drawn = sample_positions(len(train), diagnostic.samples, self.plan.seed, "diagnostics")
        batch = next(iter(train.batches(drawn, diagnostic.samples)))
        with still(parts.model):
            return look(Probe(parts.model, parts.loss, batch.inputs, batch.targets, self.lr, self.update))

    def pieces(self, samples: int) -> int:
        """The number of micro-batches that a batch is cut into."""
        return micro_batches(samples, self.plan.accumulate, self.plan.samples_needed)

    def clear_gradients(self) -> None:
        """By hand: `zero_grad` looks up each group's options, at 0.5 % of a small step."""
        for parameter in self.parameters:
            parameter.grad = None

    def shares(self, losses: Tensor, size: int) -> Tensor:
        """1/size for each loss (B,): one tensor for as long as shapes stay the same (to fill it costs 0.2 % of a step)."""
        kept = self.kept_shares
        if kept is None or kept[0] != size or kept[1].shape != losses.shape:
            kept = self.kept_shares = size, torch.full_like(losses, 1 / size)
        return kept[1]

    # Numbers that are not finite ----------------------------------------------------------------------------------

    @contextmanager
    def tolerating(self, closure: Closure, batch: Batch) -> Iterator[None]:
        """A step that is not finite ends the run, is left out or taken back to the last checkpoint, by the plan."""
        if self.plan.non_finite == "stop":
            try:
                yield
            except NonFinite as error:
                raise self.explained(error, closure, batch) from None
            return
        kept = (self.running.state(), [buffer.clone() for buffer in self.parts.model.buffers()])
        try:
            yield
            self.bad_in_a_row = 0
        except NonFinite as error:
            explained = self.explained(error, closure, batch)
            self.running.load(kept[0])
            for buffer, before in zip(self.parts.model.buffers(), kept[1], strict=True):
                buffer.copy_(before)
            self.bad_steps += 1
            self.bad_in_a_row += 1
            _log.warning(
                "step %d is not finite (%s): %s", self.step + 1, explained.first, self.plan.non_finite
            )
            self.leave_out() if self.plan.non_finite == "skip" else self.roll_back()
            if self.bad_in_a_row > SKIPS_IN_A_ROW or (self.rolled_back and self.bad_steps > ROLLBACKS):
                raise explained from None

    @property
    def rolled_back(self) -> bool:
        return self.plan.non_finite == "rollback"

    def leave_out(self) -> None:
        self.clear_gradients()

    def roll_back(self) -> None:
        """Weights, optimizer and averages of the newest checkpoint; the samples go on from here. None yet: left out."""
        self.leave_out()
        self.folder.wait()
        checkpoint = self.folder.newest_checkpoint()
        if checkpoint is None:
            return
        state = checkpoint.state()
        self.parts.model.load_state_dict(checkpoint.weights())
        self.parts.optimizer.load_state_dict(state["optimizer"])
        if self.parts.averaging is not None:
            self.parts.averaging.load_state_dict(state["averaging"])

    def explained(self, error: NonFinite, closure: Closure, batch: Batch) -> NonFinite:
        """The error with the samples of its step and the first tensor, in the order of computation."""
        first = first_non_finite(self.parts.model)
        if first is None or not first.startswith("the weight"):
            first = first_in_forward(self.parts.model, closure.inputs) or first
        indices = batch.indices.tolist()
        shown = ", ".join(map(str, indices[:8])) + (", …" if len(indices) > 8 else "")
        return NonFinite(error.step, error.loss, first, shown)

    # Checkpoints --------------------------------------------------------------------------------------------------

    def checkpoint_is_due(self) -> bool:
        plan = self.plan
        if self.improved or (plan.checkpoint_every and self.step % plan.checkpoint_every == 0):
            return True
        return (
            plan.checkpoint_seconds is not None
            and self.folder.seconds_since_checkpoint() >= plan.checkpoint_seconds
        )

    def save_checkpoint(self) -> None:
        """Save model, best weights and state; the best evaluation always has a checkpoint of its own."""
        self.guard.read()
        if not all_finite(
            [p.detach() for p in self.parameters]
        ):  # a checkpoint of NaN would take the place of a good one
            raise NonFinite(self.step - 1, float("nan"), first_non_finite(self.parts.model))
        averaged = self.best_weights if self.improved and self.parts.averaging is not None else None
        self.folder.save_checkpoint(self.step, self.state(), self.parts.model.state_dict(), averaged)
        self.improved = False
        self.saved_step = self.step

    def state(self) -> dict[str, Any]:
        """All that resuming needs, as plain data and tensors (the streams need none: they follow from seed and step)."""
        parts = self.parts
        stateful = {
            "early_stopping": parts.early_stopping,
            "averaging": parts.averaging,
            "order": parts.order,
        }
        return {
            "step": self.step,
            "sums": self.running.state(),
            "seconds": self.clock.seconds,
            "best_row": dict(self.best_row),
            "stop": list(self.stop) if self.stop else None,
            "bad_steps": [self.bad_steps, self.bad_in_a_row],
            "optimizer": parts.optimizer.state_dict(),
            "plateaus": [plateau.state_dict() for plateau in parts.plateaus],
            **{name: part.state_dict() for name, part in stateful.items() if hasattr(part, "state_dict")},
        }

    def load_state(
        self, state: dict[str, Any], weights: dict[str, Tensor], best_weights: dict[str, Tensor]
    ) -> None:
        """Take up a checkpoint: everything is built already, and state is loaded last."""
        parts = self.parts
        parts.model.load_state_dict(weights)
        parts.optimizer.load_state_dict(state["optimizer"])
        for plateau, saved in zip(parts.plateaus, state["plateaus"], strict=True):
            plateau.load_state_dict(saved)
        for name, part in {
            "early_stopping": parts.early_stopping,
            "averaging": parts.averaging,
            "order": parts.order,
        }.items():
            if name in state and part is not None:
                part.load_state_dict(state[name])
        self.running.load(state["sums"])
        self.step, self.clock.earlier, self.best_row = (
            state["step"],
            state["seconds"],
            dict(state["best_row"]),
        )
        self.best_weights = {name: tensor.to(self.plan.device) for name, tensor in best_weights.items()}
        stop = state["stop"]  # a run that was completed may be given more epochs
        self.stop = tuple(stop) if stop and stop[0] != "completed" else None
        self.bad_steps, self.bad_in_a_row = state.get(
            "bad_steps", (0, 0)
        )  # absent from the first format's beginnings
        self.saved_step = self.step


def set_momentum(optimizer: Any, momentum: float) -> None:
    """Set the momentum of an optimizer, which Adam's family calls its first beta.

    Never to 0 exactly: torch's optimizers would then forget the velocity, or ask for one that they did not begin.
    """
    for group in optimizer.param_groups:
        if "momentum" in group:
            group["momentum"] = max(momentum, SMALLEST_MOMENTUM)
        else:
            group["betas"] = (momentum, *group["betas"][1:])


class _Clock:
    """Training time, by a clock that cannot jump; `seconds` counts all sessions of a run."""

    def __init__(self) -> None:
        self.earlier = 0.0
        self.begun = self.lap_begun = time.monotonic()
        self.lap_step, self.lap = 0, 0.0

    def start(self, step: int, earlier: float = 0.0) -> None:
        self.earlier, self.begun = earlier, time.monotonic()
        self.start_lap(step)

    def start_lap(self, step: int) -> None:
        self.lap_begun, self.lap_step = time.monotonic(), step

    def end_lap(self, step: int) -> float:
        """Steps a second since the lap began."""
        self.lap = time.monotonic() - self.lap_begun
        return (step - self.lap_step) / max(self.lap, 1e-9)

    @property
    def seconds(self) -> float:
        return self.earlier + time.monotonic() - self.begun
