"""The training loop, in the order of the mathematics.

The file is long because a step and what is due after it share one state: the loop reads in one place, top to bottom.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from dltrain.batch_norm import batch_norms, micro_batches
from dltrain.data.errors import DataError
from dltrain.data.spec import Batch
from dltrain.devices import is_asynchronous
from dltrain.loggers.events import Loggers, Progress
from dltrain.optimizers.stepping import take_step
from dltrain.storage.run_folder import RunFolder
from dltrain.training.clock import Clock
from dltrain.training.diagnosis import Change, Diagnosis
from dltrain.training.forward import Forward
from dltrain.training.guard import DeviceGuard, HostGuard, gradients_of, norm_of
from dltrain.training.long_steps import LongSteps
from dltrain.training.objective import Objective, Streams, Terms
from dltrain.training.parts import Parts, Plan
from dltrain.training.planned import wait
from dltrain.training.policy import POLICIES
from dltrain.training.rates import Rates, set_rates
from dltrain.training.running_means import RunningMeans
from dltrain.training.signals import Overdue, Signals
from dltrain.training.state import Checkpoints, State
from dltrain.training.validation import Validation

# receives each row of metrics.csv with the best objective so far; a reason from it ends the run as pruned
Watch = Callable[[dict[str, float], float | None], str | None]
# times the loss of the first batch: a run with a higher mean training loss diverged; the second, where the validation loss is
# below that of the first batch, which a few samples may reach by chance
DIVERGED, CONTRADICTED = 1000.0, 100.0


class Trainer:
    """Train the parts of one experiment by their plan. Loggers observe; they cannot change a result."""

    def __init__(
        self,
        parts: Parts,
        plan: Plan,
        folder: RunFolder,
        loggers: Iterable[object] = (),
        watch: Watch | None = None,
    ) -> None:
        self.parts, self.plan, self.folder, self.watch = parts, plan, folder, watch
        self.loggers = Loggers(folder.note_problem)
        for logger in loggers:
            self.loggers.add(logger)
        # including frozen ones, which may thaw
        self.parameters = list(parts.model.parameters())
        self.state, self.rates = State(), Rates()
        self.clock, self.signals = Clock(), Signals()
        self.running = RunningMeans(parts.metrics, parts.objective, plan.device)
        # to skip single steps, the host must check each of them
        on_device = is_asynchronous(plan.device) and plan.non_finite == "stop"
        self.guard = (DeviceGuard if on_device else HostGuard)(parts.model, parts.optimizer)
        self.policy = POLICIES[plan.non_finite](parts, plan, folder, self.state, self.running)
        self.long_steps = LongSteps(parts, plan, self.state, self.running, self.signals)
        self.change = Change(parts, self.parameters)
        # a step and the norm of its gradient before the rules for gradients
        self.norm: tuple[int, Tensor] | None = None
        self.validation = Validation(parts, plan)
        self.diagnosis = Diagnosis(parts, plan, folder, self.change)
        self.checkpoints = Checkpoints(parts, plan, folder, self.state, self.running, self.clock, self.guard)
        self.streams = Streams(plan)
        model = torch.compile(parts.model) if plan.compile else parts.model
        self.terms = Terms(
            forward=Forward(model, plan.device, plan.precision),
            loss=parts.loss,
            rules=parts.rules,
            optimizer=parts.optimizer,
            streams=self.streams,
            parameters=self.parameters,
            norms=batch_norms(parts.model),
            pieces=lambda samples: micro_batches(samples, plan.accumulate, plan.samples_needed),
            check=self.guard.before_update,
            record=self.record,
            before_rules=self.keep_norm,
        )

    @property
    def step(self) -> int:
        """Return the number of updates done."""
        return self.state.step

    # The loop -----------------------------------------------------------------------------------------------------

    def fit(self) -> None:
        """Train until the plan's end, early stopping or convergence; then restore the best weights."""
        self.begin()
        if self.state.unevaluated:
            self.resume_evaluation()
        while self.going:
            try:
                self.train_epoch(self.plan.epoch_of(self.step))
            except DataError:
                if self.signals.received is None:
                    raise
                # the signal reached the processes that read the data, too
                self.interrupt()
        self.end()

    @property
    def going(self) -> bool:
        return self.state.stop is None and self.step < self.plan.total_steps

    def train_epoch(self, epoch: int) -> None:
        """Train on one pass over the training split, or on the rest of it after a resume."""
        for part in self.parts.frozen:
            part.at(epoch)
        for batch in self.batches(epoch):
            self.set_rates()
            batch = self.augment(batch, epoch)
            # forward, loss, penalties, backward, gradient rules, decoupled decay: in this order, by the first call
            objective = Objective(batch, self.step, self.rates.penalty_scale, self.terms)
            evaluated = self.evaluates_at(self.step + 1)
            with self.policy(batch), self.change.measured(evaluated), self.long_steps(self.interrupt):
                take_step(self.parts.optimizer, objective, self.parameters)
                self.constrain(objective)
                self.average()
            self.state.step += 1
            self.observe()
            if not self.going:
                return

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch from this step on."""
        plan = self.plan
        start = self.step - epoch * plan.steps_per_epoch
        drawn = (
            self.parts.order.draws(epoch, plan.steps_per_epoch, plan.samples_needed)
            if self.parts.order_draws
            else None
        )
        order, sizes = drawn or (
            self.parts.order.order(epoch)[: plan.steps_per_epoch * plan.batch_size],
            plan.batch_size,
        )
        batches: Iterator[Batch] = self.parts.train.batches(order, sizes, start)
        return batches

    def set_rates(self) -> None:
        """Set learning rate, momentum and strength of the penalties, which are functions of the step."""
        self.rates = set_rates(self.parts, self.step)

    def augment(self, batch: Batch, epoch: int) -> Batch:
        """Augment a batch with draws that depend on (seed, step) only."""
        inputs, targets, indices = batch
        if self.parts.augmentation is not None:
            generator = self.streams.augment.at(self.step)
            inputs, targets = self.parts.augmentation(inputs, targets, generator, indices, epoch)
        if inputs.dim() == 4:
            # convolutions on a CPU run at 1.4 times the speed
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return Batch(inputs, targets, indices)

    def record(self, batch: Batch, outputs: Tensor, losses: Tensor, total: Tensor) -> None:
        """Add a micro-batch to the running means, and show its losses to an order that depends on them."""
        self.running.add(total, outputs, batch.targets)
        if self.step == 0 and self.state.first_loss is None:
            self.state.first_loss = total.detach() / len(batch.targets)
        if self.parts.order_observes:
            self.parts.order.observe(batch.indices, losses)

    def keep_norm(self) -> None:
        """Keep the norm of the gradient that clipping, noise or decay is about to change, at the steps that show it."""
        if self.change.needs_norm or self.evaluates_at(self.step + 1) or self.logs_at(self.step + 1):
            self.norm = self.step + 1, norm_of(gradients_of(self.parameters))

    def constrain(self, objective: Objective) -> None:
        """Apply what holds after every update: decay that had to wait, proximal steps, max-norm."""
        objective.decay()
        self.guard.after_update()
        for rule in self.parts.rules.weights:
            rule.after_update(self.parts.optimizer.param_groups, self.rates.penalty_scale)

    def average(self) -> None:
        """Add the weights to their average, if averaging is on."""
        if self.parts.averaging is not None:
            self.parts.averaging.update(self.step + 1)

    # Start and end ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the clocks."""
        self.parts.model.train()
        self.progress = Progress(
            1, self.step, self.plan.total_steps, self.rates.lr, self.plan.batch_size, None, "train"
        )
        self.clock.start(self.step)

    def resume_evaluation(self) -> None:
        """Evaluate the step whose evaluation was ended by a signal."""
        for part in self.parts.frozen:
            part.at(self.plan.epoch_of(self.step - 1))
        self.rates = set_rates(self.parts, self.step - 1)
        saved = self.state.unevaluated
        for parameter, gradient in zip(self.parameters, saved["gradients"], strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        self.change.norm = saved["change_norm"]
        self.change.tensors = [tensor.to(self.plan.device) for tensor in saved["change"]]
        self.norm = saved.get("norm")
        self.conclude_step()

    def end(self) -> None:
        """Save the end of the run, and restore the best weights."""
        self.save_end()
        self.folder.wait()
        if self.state.best_weights:
            self.parts.model.load_state_dict(self.state.best_weights)

    def save_end(self) -> None:
        """Decide how the run ended, and save its last step."""
        self.state.stop = self.state.stop or ("completed", f"all {self.plan.total_steps} steps done")
        self.checkpoints.save_once()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Save and raise Interrupted inside, once a signal has waited for `GRACE` seconds: at a forward pass, or as the clock says."""
        try:
            with self.signals.ending(self.parts.model):
                yield
        except Overdue:
            self.interrupt()

    def interrupt(self) -> None:
        """Save this step, and end the run. Raises Interrupted."""
        self.checkpoints.save_once()
        self.folder.wait()
        raise self.signals.interruption(self.step, self.folder.path)

    # Between steps ------------------------------------------------------------------------------------------------

    def observe(self) -> None:
        """Log, evaluate and save if this step is the time for it."""
        self.log()
        self.conclude_step()

    def conclude_step(self) -> None:
        """Evaluate and save if this step is the time for it, and look whether the run ends."""
        if self.evaluates_at(self.step):
            self.evaluate_and_judge()
        stopping = self.parts.early_stopping
        if self.change.norm is not None and self.state.stop is None and stopping.converged(self.change.norm):
            self.state.stop = ("converged", stopping.stop_reason or "")
        # the weights at which it stops may be the best, and the only ones
        if self.has_converged and self.state.last_row.get("step") != self.step:
            self.evaluate_and_judge()
        if self.checkpoints.due():
            self.checkpoints.save()
        self.folder.check_saved()
        if self.signals.received is not None and self.going:
            self.interrupt()

    @property
    def has_converged(self) -> bool:
        return self.state.stop is not None and self.state.stop[0] == "converged"

    def log(self) -> None:
        """Show the step to the loggers; at log points with the means since the one before, or since an evaluation that came later."""
        plan, step, progress = self.plan, self.step, self.progress
        progress.step, progress.lr = step, self.rates.lr
        progress.epoch = 1 + (step - 1) // plan.steps_per_epoch
        progress.values = None
        if self.logs_at(step):
            # between evaluations, the only place where the host waits for the device
            self.guard.read()
            progress.values = {
                **self.running.take_recent(),
                "grad_norm": self.grad_norm(),
                "lr": self.rates.lr,
            }
        self.loggers.stepped(progress)
        if progress.values is not None:
            self.loggers.tell("step_logged", {"step": float(step), **progress.values})

    def logs_at(self, step: int) -> bool:
        every = self.plan.log_every
        return every is not None and step % every == 0

    def evaluates_at(self, step: int) -> bool:
        return step % self.plan.evaluate_every == 0 or step >= self.plan.total_steps

    def evaluate_and_judge(self) -> None:
        """Validate, write the row, and show it to early stopping and plateau schedules."""
        self.guard.read()
        steps_per_second = self.clock.end_lap(self.step)
        self.state.unevaluated = {
            "gradients": [parameter.grad for parameter in self.parameters],
            "change": self.change.tensors,
            "change_norm": self.change.norm,
            "norm": self.norm,
        }
        with self.interruptible():
            row = self.evaluated()
        self.state.unevaluated = {}
        row["images_per_second"] = steps_per_second * len(self.parts.order) / self.plan.steps_per_epoch
        row["seconds"] = self.clock.lap
        self.running.reset()
        self.state.last_row = row
        self.judge(row)
        self.folder.append_row(row)
        self.loggers.tell("evaluated", row)
        self.clock.start_lap(self.step)

    def evaluated(self) -> dict[str, float]:
        """Return the row of this step: running means, scores, and what rules and diagnostics measure."""
        epoch = self.step / self.plan.steps_per_epoch
        row = {"epoch": epoch, "step": float(self.step), "lr": self.rates.lr}
        row |= {f"train/{name}": value for name, value in self.running.means().items()}
        self.progress.phase = "val"
        row |= {f"val/{name}": value for name, value in self.validate().items()}
        self.progress.phase = "train"
        row["grad_norm"] = self.grad_norm()
        row |= self.validation.zero_share(self.step)
        if self.policy.counts:
            row["bad_steps"] = float(self.state.bad_steps)
        with self.validation.own_statistics(self.step):
            return row | self.diagnosis.columns(self.rates.lr)

    def validate(self) -> dict[str, float]:
        """Return the scores of the validation split."""
        return self.validation.scores(self.step)

    def grad_norm(self) -> float:
        """Return the norm of the last step's gradient, before clipping, noise and decay; NaN if that step was skipped."""
        gradients = gradients_of(self.parameters)
        if not gradients:
            return math.nan
        # without rules for gradients nothing was kept, and the gradient is still that of the loss
        step, norm = self.norm or (-1, None)
        return float(norm if norm is not None and step == self.step else norm_of(gradients))

    def grown_loss(self, row: Mapping[str, float]) -> str:
        """Return that the training loss of an evaluation has grown so far that the run diverged; "" otherwise.

        A model whose outputs explode may still have a val/loss of 0, on a few samples that it gets right. A first loss below
        1 counts as 1, since fine-tuning may begin near 0.
        """
        name, first = f"train/{self.parts.objective}", self.state.first_loss
        if first is None:
            return ""
        now, begun = row.get(name, math.nan), max(1.0, abs(float(first)))
        contradicted = row.get(f"val/{self.parts.objective}", math.inf) < begun
        if not now > (CONTRADICTED if contradicted else DIVERGED) * begun:
            return ""
        return f"{name} is {now:.3g} at the best evaluation, and was {float(first):.3g} in the first batch"

    def judge(self, row: dict[str, float]) -> None:
        """Keep the weights of the best evaluation, and decide whether to stop."""
        state, stopping = self.state, self.parts.early_stopping
        if stopping.observe(row, self.step):
            state.best_row, state.best_weights = row, self.validation.weights(self.step)
            self.checkpoints.improved = True
        wait(stopping, self.parts.planned, self.step)
        for plateau in self.parts.plateaus:
            plateau.observe(row[plateau.metric], self.step)
        if stopping.stop_reason and state.stop is None:
            state.stop = ("early_stopped", stopping.stop_reason)
        reason = self.watch(row, stopping.best) if self.watch is not None else None
        # after the last step nothing is left to prune
        if reason and self.going:
            state.stop = ("pruned", reason)
