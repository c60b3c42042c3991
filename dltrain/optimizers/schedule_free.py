"""The schedule-free optimizer."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dltrain.optimizers.groups import (
    Closure,
    ParamGroup,
    Params,
    buffers,
    by_start,
    evaluate,
    gradients,
)
from dltrain.ranges import Fraction, NonNegative, Positive


class ScheduleFree(torch.optim.Optimizer):
    """Schedule-free learning: an average of the iterates replaces the learning rate schedule.

        y = (1−β₁)z + β₁x
        z ← z − γ(u(y) + λy)
        x ← (1−c)x + cz, c = γ²/Σγ²

    Between steps the model holds the average x, which is evaluated and saved; it holds y only inside the
    closure. Changes that the closure makes to the weights, such as a decoupled decay of y, are also applied to
    z. `step` raises ValueError without a closure.

    The batch-norm statistics of training are those of y. Before each evaluation, those of x are computed from up to 10,000
    training samples, as for averaging: one pass, or one for each batch norm where there are up to four. Models without
    batch norm have no such cost.

    Symbols: (β₁, β₂) = betas; ε = eps; λ = weight_decay; form adamw: u = g/(√v + ε), γ = lr·√(1−β₂ᵗ), v as in
        adam; form sgd: u = g, γ = lr
    Use: training of unknown length, with schedule=constant; a warm-up helps.
    Defaults: betas of the paper; lr from benchmarks/default_lr.md.
    Paper: Defazio et al. 2024, arXiv:2405.15682

    Args:
        lr: step size
        betas: weight of x in y; decay rate of the second moment
        eps: added to the root of the second moment
        weight_decay: fraction of y subtracted from z per step, times γ
        form: scale by second moments (adamw) or not (sgd)
    """

    needs = frozenset({"own evaluations", "own iterates", "own average"})

    def __init__(
        self,
        params: Params,
        lr: Positive = 2.5e-3,
        betas: tuple[Fraction, Fraction] = (0.9, 0.999),
        eps: Positive = 1e-8,
        weight_decay: NonNegative = 0.0,
        form: Literal["adamw", "sgd"] = "adamw",
    ) -> None:
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "form": form}
        super().__init__(params, {**defaults, "steps": 0, "total_weight": 0.0})

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor | None:  # type: ignore[override]
        """Take one step. Raises ValueError without a closure, since the gradient is needed at other weights."""
        if closure is None:
            raise ValueError("optimizer=schedule_free got no closure; it must be called as step(closure)")
        averages = [[p.clone() for p in group["params"]] for group in self.param_groups]
        bases = [self._bases(group["params"]) for group in self.param_groups]
        for group, base in zip(self.param_groups, bases, strict=True):
            torch._foreach_lerp_(group["params"], base, 1 - group["betas"][0])
        loss = evaluate(closure)
        for group, average, base in zip(self.param_groups, averages, bases, strict=True):
            self._update(group, average, base)
        return loss

    def _bases(self, parameters: list[Tensor]) -> list[Tensor]:
        """Return the iterates z, which start at the weights."""
        states = [self.state[parameter] for parameter in parameters]
        for state, parameter in zip(states, parameters, strict=True):
            if "base" not in state:
                state["base"] = parameter.clone()
        return [state["base"] for state in states]

    def _update(self, group: ParamGroup, average: list[Tensor], base: list[Tensor]) -> None:
        """Update z and x of a group, whose parameters hold y, and store x in the parameters."""
        parameters, starts = group["params"], by_start(self, group, "square")
        group["steps"] += 1
        # y before the closure
        moved = torch._foreach_lerp(average, base, 1 - group["betas"][0])
        torch._foreach_sub_(moved, parameters)
        torch._foreach_sub_(base, moved)
        for start, places in starts.items():
            members, rate = [parameters[i] for i in places], self._rate(group, group["steps"] - start)
            self._move_base(group, members, rate, {parameters[i]: moved[i] for i in places})
            share = self._share(group, members, start, rate)
            for i in places:
                torch.lerp(average[i], base[i], share, out=parameters[i])

    def _rate(self, group: ParamGroup, steps: int) -> float:
        """Return γ of the step with this number."""
        rate: float = group["lr"]
        if group["form"] == "adamw":
            rate *= (1 - group["betas"][1] ** steps) ** 0.5
        return rate

    def _share(self, group: ParamGroup, members: list[Tensor], start: int, rate: float) -> float:
        """Add γ² to Σγ² and return c. Parameters that started later have a separate sum."""
        holder = self.state[members[0]] if start else group
        total: float = holder.get("total_weight", 0.0) + rate**2
        for place in map(self.state.__getitem__, members) if start else (group,):
            place["total_weight"] = total
        return rate**2 / total if total else 0.0

    def _move_base(
        self, group: ParamGroup, members: list[Tensor], rate: float, work: dict[Tensor, Tensor]
    ) -> None:
        """Update z ← z - γ (u + λ y); `work` is scratch memory: an allocation takes twice as long on a CPU."""
        parameters = [parameter for parameter in members if parameter.grad is not None]
        if not parameters:
            return
        base, grads = self._bases(parameters), gradients(parameters)
        if group["weight_decay"]:
            torch._foreach_add_(base, parameters, alpha=-rate * group["weight_decay"])
        if group["form"] == "sgd":
            torch._foreach_add_(base, grads, alpha=-rate)
            return
        beta2, squares = group["betas"][1], buffers(self, parameters, "square")
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, value=1 - beta2)
        roots = [torch.sqrt(square, out=work[p]) for p, square in zip(parameters, squares, strict=True)]
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_addcdiv_(base, grads, roots, value=-rate)
