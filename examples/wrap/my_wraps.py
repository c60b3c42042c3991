"""A wrap of a user's own: a change to the steps of any optimizer."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor


class Cautious:
    """Leave out the components of a step that go against the gradient (Liang et al. 2024, arXiv:2411.16085).

    Args:
        kept: fraction of such a component that is kept
    """

    def __init__(self, optimizer: torch.optim.Optimizer, kept: Annotated[float, "in [0, 1]"] = 0.0) -> None:
        self.optimizer, self.kept = optimizer, kept

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Return those of the optimizer inside, into which the schedules write `lr` and momentum."""
        return self.optimizer.param_groups

    def step(self, closure: Any = None) -> Any:
        """Let the optimizer take its step, then undo the components that go uphill."""
        weights = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        before = [p.detach().clone() for p in weights]
        loss = self.optimizer.step(closure)
        with torch.no_grad():
            for p, old in zip(weights, before, strict=True):
                p.copy_(old + self.filtered(p - old, p.grad))
        return loss

    def filtered(self, step: Tensor, gradient: Tensor) -> Tensor:
        """Return the step with the components scaled by `kept` that have the sign of the gradient."""
        return torch.where(step * gradient > 0, self.kept * step, step)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state_dict)
