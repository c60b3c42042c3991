"""`sweep.backend=stacked` and `auto`: jobs that differ in numbers only train together as one stacked model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence

from dltrain.config.schema import Config
from dltrain.direction import TIMES
from dltrain.errors import UserError
from dltrain.sweep.backends import pool
from dltrain.sweep.backends.local import Local, Running
from dltrain.sweep.backends.pool import Worker
from dltrain.sweep.backends.protocol import Event, Sweep
from dltrain.sweep.backends.slots import Slot
from dltrain.sweep.backends.stack import StackTask, work_together
from dltrain.sweep.backends.worker import work
from dltrain.sweep.jobs import Job, has_checkpoint
from dltrain.text import counted

LARGEST = 32  # jobs of a stack; 64 cost 12 % more each, out of the cache, and lose more when their process is killed
MODELS = frozenset(f"dltrain.models.mlp.{name}" for name in ("MLP", "Linear", "DeepLinear"))
# Their steps take the gradient once, at the present weights. A file may name torch's class, or our function for it.
OPTIMIZERS = frozenset(
    [
        *(
            f"torch.optim.{n}"
            for n in "SGD Adam AdamW RMSprop Adagrad Adadelta Adamax NAdam RAdam Rprop".split()
        ),
        *(
            f"dltrain.optimizers.torch_optimizers.{name}"
            for name in "gd sgd momentum nesterov adam amsgrad adamw rmsprop adagrad adadelta adamax nadam radam rprop".split()
        ),
        "dltrain.optimizers.lion.Lion",
    ]
)
# Keys that may differ within a stack.
OWN = frozenset(
    "lr seed epochs steps shuffle optimizer schedule momentum_schedule penalty_schedule regularization initializer "
    "early_stopping logger name tags notes output threads quiet trust log checkpoint parameters".split()
)


def why_alone(config: Config) -> str:
    """Return why a run must have its own process; empty where it can share one."""
    model, words = config.model, config.words
    refused = {
        f"device={config.device}": config.device not in ("auto", "cpu"),
        "precision=bf16": config.precision == "bf16",
        "accumulate": config.accumulate != 1,
        "shuffle=bernoulli, whose batches differ in size": config.shuffle == "bernoulli",
        "compile": config.compile,
        "wrap": bool(config.wrap),
        "diagnostics": bool(config.diagnostics),
        f"averaging={words.get('averaging')}": bool(config.averaging.get("_target_")),
        "secrets": bool(config.secrets),
        "log.profile": config.log.profile,
        f"non_finite={config.non_finite}": config.non_finite != "stop",
        "lr=auto or batch_size=auto": "auto" in (config.lr, config.batch_size),
        "frozen parameters": bool(config.parameters.freeze or config.initializer.get("freeze")),
        f"optimizer={words.get('optimizer')}": config.optimizer["_target_"] not in OPTIMIZERS,
        f"sampler={words.get('sampler')}": config.sampler["_target_"] == "dltrain.sampling.Hard",
        "a regularization of your own": not all(
            str(node["_target_"]).startswith(("dltrain.", "None")) for node in config.regularization.values()
        ),
        f"model={words.get('model')}": model["_target_"] not in MODELS,
        f"model.norm={model.get('norm')}": model.get("norm", "none") not in ("none", "layer"),
        "model.residual": bool(model.get("residual")),
    }
    return ", ".join(name for name, found in refused.items() if found)


def stack_key(config: Config) -> str | None:
    """Return a key that runs of one stack share; None for a run that must have its own process."""
    if why_alone(config):
        return None
    shared = {key: value for key, value in config.plain.items() if key not in OWN}
    # the jobs of a stack learn from one training split
    shared["bootstrap"] = config.dataset.get("bootstrap") and config.seed
    shared["model"] = {**config.model, "dropout": bool(config.model.get("dropout"))}
    return json.dumps(shared, sort_keys=True, default=str)


class Stacked(Local):
    """Trains jobs whose models have equal shapes as one stacked model, and other jobs as `local` does.

    Args:
        always: stack also where the arithmetic of a step outweighs what a stack saves
    """

    def __init__(self, sweep: Sweep, always: bool) -> None:
        super().__init__(sweep)
        self.always = always
        # the median pruner compares with ended jobs, and in a stack no job ends before the others
        self.stacks = always or sweep.settings.get("pruner") != "median"
        # the time and memory of a job of a stack are those of the stack
        if costs := {*TIMES} & {*map(str, sweep.settings.get("objectives") or ())}:
            if always:
                raise UserError(
                    f"`sweep.backend=stacked` trains jobs together, and `sweep.objectives` names {min(costs)}, which is that of the whole "
                    "stack then. Use sweep.backend=local"
                )
            self.stacks = False
        if self.stacks:
            # a full stack in each slot, and as many jobs from which to make the next one
            self.capacity = 2 * LARGEST * self.places
        self.slow: set[str] = set()  # keys of stacks that were not faster, or died
        self.solo: set[int] = set()  # jobs that must have their own process
        self.keys: dict[int, str | None] = {}  # of waiting and running jobs

    def next_group(self) -> list[Job]:
        """Remove the next job and this slot's share of those that can train with it."""
        job = self.waiting.popleft()
        if not self.stacks or (key := self.key(job)) is None:
            return [job]
        equal = [other for other in self.waiting if self.key(other) == key]
        share = min(LARGEST, math.ceil((len(equal) + 1) / len(self.free)))
        for peer in equal[: share - 1]:
            self.waiting.remove(peer)
        return [job, *equal[: share - 1]]

    def key(self, job: Job) -> str | None:
        """Return what a job has in common with those that can share a stack with it; None where it runs alone."""
        # a job that was begun continues as a run of its own
        if job.number in self.solo or job.retried or has_checkpoint(job.folder):
            return None
        if job.number not in self.keys:
            assert job.config is not None
            self.keys[job.number] = stack_key(job.config)
        key = self.keys[job.number]
        return None if key in self.slow else key

    def start(self, jobs: Sequence[Job], slot: Slot) -> Worker:
        if len(jobs) == 1:
            return pool.start(work, self.task(jobs[0], slot, self.why_alone(jobs[0])))
        tasks = tuple(self.task(job, slot) for job in jobs)
        log = jobs[0].folder.parent.resolve() / "stacks.log"
        return pool.start(work_together, StackTask(tasks, log, self.always))

    def left(self, process: Running, code: int) -> Iterator[Event]:
        """Run the jobs that a stack did not end again, each alone: it was not faster, or its process died."""
        if process.canceled or not process.stacked:
            yield from super().left(process, code)
            return
        for job in process.jobs.values():
            if (key := self.key(job)) is not None:
                self.slow.add(key)
            self.solo.add(job.number)
            del self.keys[job.number]
        self.waiting.extendleft(reversed(process.jobs.values()))

    def why_alone(self, job: Job) -> str:
        """Return the reason for the job's log."""
        assert job.config is not None
        if job.number in self.solo or job.retried:
            return "its stack ended without it, see stacks.log, or it ran out of memory"
        if (why := why_alone(job.config)) or self.key(job) is None:
            return why or "it was begun already, or its stack was not faster"
        return (
            "no other job was left to share it with, or sweep.pruner=median compares with jobs that are done"
        )

    def preview(self, jobs: Sequence[Job]) -> list[str]:
        """Return which jobs can train together as one model, and why others cannot."""
        together: dict[str, list[Job]] = {}
        alone: dict[str, list[Job]] = {}
        for job in jobs:
            assert job.config is not None
            key = stack_key(job.config)
            (alone if key is None else together).setdefault(key or why_alone(job.config), []).append(job)
        return [
            f"{counted(len(members), 'job')} can train together as one model: {numbers(members)}"
            for members in together.values()
            if len(members) > 1
        ] + [
            f"{counted(len(members), 'job')} in processes of their own, for {why}: {numbers(members)}"
            for why, members in alone.items()
        ]


def auto(sweep: Sweep) -> Stacked:
    """As `stacked` where that is faster, which is for small models on a CPU; else as `local`.

        stacked where the overhead of a step > its arithmetic (docs/speed.md), else local

    Use: the default.
    """
    return Stacked(sweep, always=False)


def stacked(sweep: Sweep) -> Stacked:
    """Jobs whose models have equal shapes train as one stacked model; others run as `local`.

        outputs_j = inputs_j @ weights_j for all jobs j of a stack at once, up to 32 in a process

    Use: many small networks on a CPU.
    """
    return Stacked(sweep, always=True)


def numbers(jobs: Sequence[Job]) -> str:
    """Return the numbers of jobs, neighbors joined: 0–3, 8."""
    spans: list[list[int]] = []
    for number in sorted(job.number for job in jobs):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}–{high}" for low, high in spans)
