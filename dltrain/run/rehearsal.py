"""Two trial steps with the user's parts before a run begins: an error in one of them is reported, and nothing is created.

The real trainer takes the steps, on a copy of all parts. A run with parts of `dltrain` alone is not tried. Errors that come
later are reported in the same form (`run.failures`).
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dltrain.config.door import TRACEBACK, Fault, fault_of, is_shipped
from dltrain.config.groups import BY_NAME, Group
from dltrain.config.schema import Config, Node
from dltrain.data.batches import ResidentSplit
from dltrain.data.errors import DataError
from dltrain.errors import UserError
from dltrain.optimizers.stepping import chain_of
from dltrain.seams import interface_of, methods_of, written
from dltrain.text import first_line, say
from dltrain.training.guard import NonFinite
from dltrain.training.parts import Parts, Plan
from dltrain.training.trainer import Trainer

STEPS = 2
# samples of val
SAMPLES = 64


class Scratch:
    """A run folder that keeps nothing: a trial leaves no trace."""

    def append_row(self, row: Mapping[str, float]) -> None: ...
    def save_checkpoint(self, *parts: object) -> None: ...
    def wait(self) -> None: ...
    def check_saved(self) -> None: ...
    def newest_checkpoint(self) -> None: ...
    def note_problem(self, problem: str) -> None: ...
    def seconds_since_checkpoint(self) -> float:
        return 0.0


def rehearse(parts: Parts, plan: Plan, config: Config) -> None:
    """Take two steps with copies of all parts. Raises UserError with part, file, line and interface where that fails."""
    own = own_parts(config.plain)
    if not own:
        return
    with unchanged(parts, plan.device):
        try:
            copied = copy_of(parts)
        except Exception:
            # some objects cannot be copied; what is wrong with them shows in the run
            return
        for key, target in own.items():
            check_returns(key, target, copied, plan, config)
        short = replace(plan, total_steps=min(STEPS, plan.total_steps), evaluate_every=STEPS, log_every=None,
                        checkpoint_every=None, checkpoint_seconds=None, compile=False)  # fmt: skip
        before = [parameter.detach().clone() for parameter in copied.model.parameters()]
        try:
            with told(own):
                trainer = Trainer(copied, short, Scratch())  # type: ignore[arg-type]
                trainer.fit()
                norm = trainer.grad_norm()
        except (NonFinite, MemoryError, torch.OutOfMemoryError):
            # the run itself ends by its own rules, and keeps what it has
            return
    after = copied.model.parameters()
    if "optimizer" in own and norm > 0 and trainer.rates.lr > 0 and all(map(torch.equal, before, after)):
        say(
            f"optimizer={config.words['optimizer']} changed no weight in {short.total_steps} trial steps, though the "
            "gradient is not zero; does its `step` use `p.grad`?"
        )


def own_parts(plain: Node) -> dict[str, str]:
    """Return the targets that are no code of ours or of torch's optimizers, by the key of their word."""
    groups = [group for group in BY_NAME.values() if group.interfaces and group.name in plain]
    nodes = {
        f"{group.name}.{word}" if group.several else group.name: node
        for group in groups
        for word, node in (plain[group.name] if group.several else {"": plain[group.name]}).items()
    }
    targets = {key: str((node or {}).get("_target_") or "") for key, node in nodes.items()}
    return {
        key: target
        for key, target in targets.items()
        if target and not key.startswith(("logger.", "dataset")) and not is_shipped(target)
    }


def copy_of(parts: Parts) -> Parts:
    """Return a copy of all parts with the same data, of which val is a few samples."""
    data = (parts.train, parts.val, parts.test, parts.contract, parts.spec)
    memo: dict[int, Any] = {id(item): item for item in data}
    for optimizer in reversed(list(chain_of(parts.optimizer))):
        if isinstance(optimizer, torch.optim.Optimizer):
            copy_optimizer(optimizer, memo)
    copied = copy.deepcopy(parts, memo)
    if parts.val is not None:
        few = torch.arange(min(len(parts.val), SAMPLES))
        batch = next(iter(parts.val.batches(few, len(few))))
        copied.val = ResidentSplit(batch.inputs, batch.targets)
    return copied


def copy_optimizer(optimizer: torch.optim.Optimizer, memo: dict[int, Any]) -> None:
    """Copy an optimizer with all its attributes into `memo`: `deepcopy` keeps those only that torch's pickle has."""
    copied = memo[id(optimizer)] = object.__new__(type(optimizer))
    vars(copied).update(copy.deepcopy(vars(optimizer), memo))


@contextmanager
def unchanged(parts: Parts, device: torch.device) -> Iterator[None]:
    """Restore afterwards the generators, and the weights, which a function of the user's may hold beside the copy."""
    tensors = [*parts.model.parameters(), *parts.model.buffers()]
    before, state = [tensor.detach().clone() for tensor in tensors], random.getstate()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(state)
        with torch.no_grad():
            for tensor, then in zip(tensors, before, strict=True):
                if not torch.equal(tensor, then):
                    tensor.copy_(then)
        for parameter in parts.model.parameters():
            parameter.grad = None


# What a part must return ------------------------------------------------------------------------------------------


def check_returns(key: str, target: str, parts: Parts, plan: Plan, config: Config) -> None:
    """Call a part alone, where its result would be used by code that does not know the part."""
    group = key.partition(".")[0]
    with told({key: target}):
        wrong = RETURNS[group](key, parts, plan, config) if group in RETURNS else ""
    if wrong:
        raise UserError(f"`{key}` gives {wrong}.\n{expected(BY_NAME[group], '')}")


def _augmentation(key: str, parts: Parts, plan: Plan, config: Config) -> str:
    assert parts.augmentation is not None
    transform = parts.augmentation.transforms[list(config.augmentation).index(key.partition(".")[2])]
    order = torch.arange(min(len(parts.train), plan.batch_size))
    batch = next(iter(parts.train.batches(order, len(order))))
    generator = torch.Generator(plan.device).manual_seed(0)
    result = transform(batch.inputs.clone(), batch.targets.clone(), generator)
    if not (isinstance(result, tuple | list) and len(result) == 2):
        return f"{shown(result)}, and must give two tensors, inputs and targets"
    for name, one, given in zip(("inputs", "targets"), result, batch, strict=False):
        if not isinstance(one, Tensor) or len(one) != len(given):
            return f"{shown(one)} for the {name}, which are {shown(given)}"
    return ""


def _schedule(key: str, parts: Parts, plan: Plan, config: Config) -> str:
    schedule = getattr(parts, key)
    for step in sorted({0, 1, plan.total_steps // 2, plan.total_steps - 1}):
        value = schedule(step)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"{shown(value)} for step {step}, and must give a number"
    return ""


def _sampler(key: str, parts: Parts, plan: Plan, config: Config) -> str:
    order = parts.order.order(0)
    if not isinstance(order, Tensor) or order.dim() != 1 or order.is_floating_point():
        return f"{shown(order)}, and `order` must give the positions of samples, whole numbers of shape (M,)"
    if len(order) != len(parts.order) or not 0 <= int(order.min()) <= int(order.max()) < len(parts.train):
        return (
            f"{len(order)} positions from {int(order.min())} to {int(order.max())}; they must be len(self) = "
            f"{len(parts.order)}, from 0 to {len(parts.train) - 1}"
        )
    return ""


def _regularization(key: str, parts: Parts, plan: Plan, config: Config) -> str:
    for rule in parts.rules.penalties:
        value = rule.penalty()
        if not isinstance(value, Tensor) or value.dim():
            return f"{shown(value)} as penalty of {type(rule).__name__}, and must give a tensor without dimensions"
    return ""


RETURNS = {
    "augmentation": _augmentation,
    "schedule": _schedule,
    "momentum_schedule": _schedule,
    "penalty_schedule": _schedule,
    "sampler": _sampler,
    "regularization": _regularization,
}


def shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return (
        f"{type(value).__name__} {str(value)[:60]}"
        if isinstance(value, int | float | str)
        else f"a {type(value).__name__}"
    )


# What went wrong --------------------------------------------------------------------------------------------------


@contextmanager
def told(own: Mapping[str, str]) -> Iterator[None]:
    """Turn an error in parts of the user's own into a UserError; what is wrong with the data or the memory passes."""
    try:
        yield
    except (UserError, DataError, NonFinite, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        fault = fault_of(error)
        key = owner(fault, own)
        said = fault.told() if fault else f"{type(error).__name__}: {first_line(error)}"
        names = f"`{key}`" if key else " or ".join(f"`{name}`" for name in own)
        interface = (
            expected(BY_NAME[key.partition(".")[0]], fault.function if fault else "") + "\n" if key else ""
        )
        raise UserError(f"{names} fails in a trial step: {said}\n{interface}{TRACEBACK}") from error


def owner(fault: Fault | None, own: Mapping[str, str]) -> str:
    """Return the key of the part in which an error occurred; empty where it is unknown."""
    if len(own) == 1:
        ((key, target),) = own.items()
        # a dataset or a logger of the user's may be elsewhere
        roots = {file.parts[0].removesuffix(".py") for file, _ in fault.calls} if fault is not None else set()
        return key if fault is None or target.partition(".")[0] in roots else ""
    for file, function in reversed(fault.calls) if fault is not None else ():
        for key, target in own.items():
            module, _, name = target.rpartition(".")
            if file.stem == module.rpartition(".")[2] and function.split(".")[0] == name:
                return key
    return ""


def expected(group: Group, function: str) -> str:
    """Return the sentence that states the interface: the method in which the error occurred, or all of them."""
    name = function.rpartition(".")[2]
    methods = {
        method: written(method, value)
        for path in group.interfaces
        for method, value in methods_of(interface_of(path)).items()
    }
    if name not in methods and group.called:
        text = f"f({', '.join(group.called)}, …)"
    else:
        text = methods.get(name) or "`, `".join(list(methods.values())[:4])
    return (
        f"The interface of {group.name}: `{text}`; docs/extending.md has an example"
        if text
        else "See docs/extending.md"
    )
