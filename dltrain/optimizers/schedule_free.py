"""Schedule-free learning: an average of the iterates in place of a schedule."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from dltrain.optimizers.groups import (
    Closure,
    Params,
    buffers,
    evaluate,
    gradients,
    require,
    require_betas,
    require_decay,
    require_lr,
    with_gradient,
)
from dltrain.ranges import Fraction, NonNegative, Positive


class ScheduleFree(torch.optim.Optimizer):
    """Schedule-free learning: an average of the iterates in place of a schedule.

        y = (1−β₁)z + β₁x
        z ← z − γ(u(y) + λy)
        x ← (1−c)x + cz, c = γ²/Σγ²

    y = (1 - β₁) z + β₁ x; g at y; z ← z - γ (u + λ y); x ← (1 - c) x + c z (Defazio 2024, arXiv:2405.15682).

    u = g and γ = lr for form="sgd"; u = g/(√v + ε) and γ = lr √(1 - β₂ᵗ) for form="adamw"; c = γₜ²/Σγᵢ².
    Between steps the model holds x, the average, which is what to evaluate and to keep; y exists only while
    the closure runs. So training needs no other mode for evaluation, and `step` needs its closure. What the
    closure does to the weights besides (a decoupled decay of y) is carried over to z.

    Symbols: (β₁, β₂) = betas; λ = weight_decay; form adamw: u = g/(√v + ε), γ = lr·√(1−β₂ᵗ); form sgd: u = g,
        γ = lr
    Use: when the length of training is not known beforehand; with schedule=constant, a warm-up helps.
    Defaults: betas of the paper, lr from benchmarks/default_lr.md; the model holds x outside the step.
    Paper: Defazio et al. 2024, arXiv:2405.15682

    Args:
        lr: step size
        betas: between z and x; decay of the second moment
        eps: added to the root of the second moment
        weight_decay: share of the weights taken off per step, times lr
        form: with or without second moments
    """

    needs = frozenset({"own evaluations"})

    def __init__(
        self,
        params: Params,
        lr: Positive = 2.5e-3,
        betas: tuple[Fraction, Fraction] = (0.9, 0.999),
        eps: Positive = 1e-8,
        weight_decay: NonNegative = 0.0,
        form: Literal["adamw", "sgd"] = "adamw",
    ) -> None:
        require_lr(lr)
        require_betas(betas)
        require_decay(weight_decay)
        require(eps > 0, "eps", eps, "a number > 0", "1e-8 is usual")
        require(form in ("adamw", "sgd"), "form", form, "adamw or sgd", "adamw is the one to try first")
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "form": form}
        super().__init__(params, {**defaults, "steps": 0, "total_weight": 0.0})

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor | None:  # type: ignore[override]
        """One step. Raises ValueError without a closure, since the gradient is taken at other weights."""
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
        """The iterates z, which start at the weights."""
        states = [self.state[parameter] for parameter in parameters]
        for state, parameter in zip(states, parameters, strict=True):
            if "base" not in state:
                state["base"] = parameter.clone()
        return [state["base"] for state in states]

    def _update(self, group: dict[str, Any], average: list[Tensor], base: list[Tensor]) -> None:
        """Move z and x of a group, whose parameters hold y, and leave x in them."""
        group["steps"] += 1
        rate = group["lr"]
        if group["form"] == "adamw":
            rate *= (1 - group["betas"][1] ** group["steps"]) ** 0.5
        moved = torch._foreach_lerp(average, base, 1 - group["betas"][0])  # y as it was before the closure
        torch._foreach_sub_(moved, group["params"])
        torch._foreach_sub_(base, moved)
        self._move_base(group, rate, dict(zip(group["params"], moved, strict=True)))
        group["total_weight"] += rate**2
        share = rate**2 / group["total_weight"] if group["total_weight"] else 0.0
        for parameter, x, z in zip(group["params"], average, base, strict=True):
            torch.lerp(x, z, share, out=parameter)

    def _move_base(self, group: dict[str, Any], rate: float, work: dict[Tensor, Tensor]) -> None:
        """z ← z - γ (u + λ y); `work` is memory for it: new memory is twice as slow on a CPU."""
        parameters = with_gradient(group)
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
