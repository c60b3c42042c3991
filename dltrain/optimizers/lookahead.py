"""Lookahead, a wrap around any optimizer, and Ranger."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dltrain.declare import declares
from dltrain.optimizers.groups import Closure, ParamGroup, Params, State, SteppingOptimizer
from dltrain.optimizers.stepping import call_step, needs_of
from dltrain.ranges import Count, Fraction, NonNegative, Part, Positive


class Lookahead:
    """Lookahead: slow weights that follow the weights of an inner optimizer every few steps.

        every k steps: φ ← φ + α(θ − φ), θ ← φ

    The inner optimizer keeps its state. Between two updates of φ the model holds the fast weights θ.

    Symbols: α = alpha; θ = fast weights, updated by the inner optimizer; φ = slow weights
    Use: around any optimizer whose steps are too large or noisy.
    Defaults: k and alpha of the paper.
    Paper: Zhang et al. 2019, arXiv:1907.08610
    Lecture: L3

    Args:
        k: fast steps per slow step
        alpha: fraction of the distance that the slow weights move; 1 leaves the inner optimizer unchanged
    """

    gives = frozenset({"slow weights"})
    # the key whose number of steps passes between two actions
    interval = "k"

    def __init__(self, optimizer: SteppingOptimizer, k: Count = 5, alpha: Part = 0.5) -> None:
        self.optimizer, self.k, self.alpha = optimizer, k, alpha
        self.steps = 0
        self.slow = [parameter.detach().clone() for parameter in self._fast()]

    def _fast(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    @property
    def needs(self) -> frozenset[str]:
        return needs_of(self.optimizer)

    @property
    def param_groups(self) -> list[ParamGroup]:
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
        """Take a fast step, and after every k-th one a slow step."""
        loss = call_step(self.optimizer, closure)
        self.steps += 1
        if self.steps % self.k == 0:
            fast = self._fast()
            torch._foreach_lerp_(self.slow, fast, self.alpha)
            torch._foreach_copy_(fast, self.slow)
        return loss

    def state_dict(self) -> State:
        slow = [tensor.clone() for tensor in self.slow]
        return {"optimizer": self.optimizer.state_dict(), "slow": slow, "steps": self.steps}

    def load_state_dict(self, state_dict: State) -> None:
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.steps = state_dict["steps"]
        for tensor, saved in zip(self.slow, state_dict["slow"], strict=True):
            tensor.copy_(saved)


@declares(gives={"slow weights"}, instead={"slow weights": "optimizer=radam"})
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

        θ by radam
        every k steps: φ ← φ + α(θ − φ), θ ← φ

    Symbols: α = alpha; θ = fast weights; φ = slow weights
    Use: Adam without a warm-up and with less noisy weights.
    Defaults: k and alpha of lookahead; lr from benchmarks/default_lr.md.
    Paper: Wright 2019; Liu et al. 2020, arXiv:1908.03265; Zhang et al. 2019, arXiv:1907.08610
    Lecture: L3

    Args:
        lr: step size of the fast weights
        betas: decay rates of the first and second moment
        eps: added to the root of the second moment
        weight_decay: λ of the penalty λ/2·‖w‖², whose gradient is added to g unless decoupled
        decoupled_weight_decay: apply weight_decay as adamw does
        k: fast steps per slow step
        alpha: fraction of the distance that the slow weights move
    """
    inner = torch.optim.RAdam(
        params,
        lr=lr,
        betas=tuple(betas),  # type: ignore[arg-type]
        eps=eps,
        weight_decay=weight_decay,
        decoupled_weight_decay=decoupled_weight_decay,
        # three times as fast as torch's default on a CPU
        foreach=True,
    )
    return Lookahead(inner, k, alpha)


# as the class declares it
vars(ranger).update(interval=Lookahead.interval)
