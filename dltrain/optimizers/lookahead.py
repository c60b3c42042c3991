"""Lookahead: slow weights that follow the fast ones every few steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dltrain.optimizers.groups import Closure, Params, SteppingOptimizer, require
from dltrain.optimizers.stepping import call_step, needs_of
from dltrain.ranges import Count, Fraction, NonNegative, Part, Positive


class Lookahead:
    """Lookahead: slow weights follow the fast ones every few steps.

        every k steps φ ← φ + α(θ − φ), θ ← φ

    Every k steps φ ← φ + alpha (θ - φ) and θ ← φ, around any optimizer (Zhang et al. 2019, arXiv:1907.08610;
    L3).

    The inner optimizer keeps its state. Looks like an optimizer; between two synchronisations the model holds
    the fast weights θ.

    Symbols: α = alpha; θ = fast weights, by the optimizer; φ = slow weights
    Use: around any optimizer whose steps are too wild.
    Defaults: k 5 and alpha 0.5 of the paper.
    Paper: Zhang et al. 2019, arXiv:1907.08610
    Lecture: L3

    Args:
        k: fast steps to one slow step
        alpha: how far the slow weights follow
    """

    def __init__(self, optimizer: SteppingOptimizer, k: Count = 5, alpha: Part = 0.5) -> None:
        require(k >= 1, "k", k, "an integer >= 1", "5 to 10 fast steps are usual")
        require(0 < alpha <= 1, "alpha", alpha, "in (0, 1]", "0.5 is usual, 1 leaves the optimizer as it is")
        self.optimizer, self.k, self.alpha = optimizer, k, alpha
        self.steps = 0
        self.slow = [parameter.detach().clone() for parameter in self._fast()]

    def _fast(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    @property
    def needs(self) -> frozenset[str]:
        return needs_of(self.optimizer)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:
        return self.optimizer.state  # type: ignore[attr-defined]

    @property
    def defaults(self) -> dict[str, Any]:
        return self.optimizer.defaults  # type: ignore[attr-defined]

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor | None:
        """One fast step, and at every k-th the slow one."""
        loss = call_step(self.optimizer, closure)
        self.steps += 1
        if self.steps % self.k == 0:
            fast = self._fast()
            torch._foreach_lerp_(self.slow, fast, self.alpha)
            torch._foreach_copy_(fast, self.slow)
        return loss

    def state_dict(self) -> dict[str, Any]:
        slow = [tensor.clone() for tensor in self.slow]
        return {"optimizer": self.optimizer.state_dict(), "slow": slow, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.steps = state_dict["steps"]
        for tensor, saved in zip(self.slow, state_dict["slow"], strict=True):
            tensor.copy_(saved)


def ranger(
    params: Params,
    lr: Positive = 0.009,
    betas: tuple[Fraction, Fraction] = (0.9, 0.999),
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.0,
    decoupled_weight_decay: bool = False,
    k: Count = 5,
    alpha: Part = 0.5,
) -> Lookahead:
    """Ranger: RAdam inside Lookahead.

        θ by radam; every k steps φ ← φ + α(θ − φ), θ ← φ

    RAdam (Liu 2020) inside Lookahead (Zhang 2019), as Wright's Ranger (2019; L3).

    Symbols: α = alpha; φ = slow weights
    Use: Adam without a warm-up and with calmer weights.
    Defaults: k 5 and alpha 0.5 of Lookahead; lr from benchmarks/default_lr.md.
    Paper: Wright 2019; Liu et al. 2020, arXiv:1908.03265; Zhang et al. 2019, arXiv:1907.08610
    Lecture: L3

    Args:
        lr: step size of the fast weights
        betas: decay of the first and second moment
        eps: added to the root of the second moment
        weight_decay: λ, added to the gradient unless decoupled
        decoupled_weight_decay: decay as adamw
        k: fast steps to one slow step
        alpha: how far the slow weights follow
    """
    inner = torch.optim.RAdam(
        params,
        lr=lr,
        betas=tuple(betas),  # type: ignore[arg-type]
        eps=eps,
        weight_decay=weight_decay,
        decoupled_weight_decay=decoupled_weight_decay,
        foreach=True,  # three times as fast as torch's own choice on a CPU
    )
    return Lookahead(inner, k, alpha)
