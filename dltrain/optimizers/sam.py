"""Sharpness-aware minimization, a wrap around first-order optimizers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dltrain.optimizers.groups import Closure, ParamGroup, State, SteppingOptimizer, gradients, with_gradient
from dltrain.optimizers.stepping import ONE_LOSS, Objective, needs_of, take_step
from dltrain.ranges import Positive


class SAM:
    """SAM: sharpness-aware minimization, with the gradient at the worst nearby point.

        w ← w − step(∇L(w + ρ·g/‖g‖))
        adaptive: ∇L(w + ρ·w²g/‖w·g‖)

    The closure is called twice per step; the returned loss is the first one, at w. Gradient rules (clipping,
    noise, decay) act once, on the second gradient, with the weights back at w. Raises ValueError around an
    optimizer that uses curvature or a line search, since its gradient and loss must belong to the same
    function.

    Symbols: ρ = rho
    Use: flatter minima at the cost of two passes per step; around first-order optimizers only.
    Defaults: rho of the paper; adaptive needs a rho about ten times larger.
    Paper: Foret et al. 2021, arXiv:2010.01412; adaptive: Kwon et al. 2021, arXiv:2102.11600

    Args:
        rho: distance to the worst point
        adaptive: scale the distance of each weight by its size
    """

    gives = frozenset({"gradients elsewhere"})

    needs = frozenset({"own evaluations"})

    def __init__(self, optimizer: SteppingOptimizer, rho: Positive = 0.05, adaptive: bool = False) -> None:
        _require_first_order(optimizer)
        self.optimizer, self.rho, self.adaptive = optimizer, rho, adaptive

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

    def step(self, closure: Closure | None = None) -> Tensor | None:
        """Take one step from the gradient of two passes. Raises ValueError without a closure."""
        if closure is None:
            raise ValueError(
                "wrap=[sam] got no closure; it must be called as step(closure): it needs a second pass"
            )

        whole = closure if isinstance(closure, Objective) else None
        evaluate = closure if whole is None else whole.loss_gradient

        def at_the_worst_point_nearby() -> Tensor:
            loss = evaluate()
            with torch.no_grad():
                parameters = [parameter for group in self.param_groups for parameter in with_gradient(group)]
                kept = [parameter.clone() for parameter in parameters]
                torch._foreach_add_(parameters, self._ascent(parameters))
            evaluate()
            with torch.no_grad():
                torch._foreach_copy_(parameters, kept)
            if whole is not None:
                whole.finish_gradient()
            return loss

        every = [parameter for group in self.param_groups for parameter in group["params"]]
        return take_step(self.optimizer, at_the_worst_point_nearby, every)

    def _ascent(self, parameters: list[Tensor]) -> list[Tensor]:
        grads = gradients(parameters)
        if self.adaptive:
            scales = torch._foreach_abs(parameters)
            grads = list(torch._foreach_mul(grads, scales))
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        ascent = torch._foreach_mul(grads, self.rho / (norm + 1e-12))
        return list(torch._foreach_mul(ascent, scales) if self.adaptive else ascent)

    def state_dict(self) -> State:
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: State) -> None:
        self.optimizer.load_state_dict(state_dict["optimizer"])


def _require_first_order(optimizer: object) -> None:
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    if ONE_LOSS in needs_of(optimizer):
        raise ValueError(
            f"wrap=[sam] is around {type(optimizer).__name__}, which uses curvature or a line search; it "
            "must be around a first-order optimizer: choose another, such as "
            "optimizer=momentum, or leave sam out"
        )
