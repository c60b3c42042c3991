"""Hessian-free Newton's method."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dltrain.devices import is_asynchronous
from dltrain.optimizers.curvature import Vector, dot, hessian_vector, losses_with_graph, trainable
from dltrain.optimizers.groups import Params
from dltrain.ranges import Count, NonNegative, Positive


class NewtonCG(torch.optim.Optimizer):
    """Hessian-free Newton's method: conjugate gradients solve the linear system.

        w ← w + lr·d
        (H + δI)d = −g, solved by CG

    CG ends after max_iter iterations, at the tolerance, or at a direction without positive curvature, and
    returns its current solution, or −g if there is none. If adaptive, the loss of the same batch is evaluated
    after the step. A step that increases it is divided by 4 up to three times, then rejected. δ is multiplied
    by 4 (to at least 1e-3) after such a step, by 3/2 if the loss decreased by less than a quarter of the
    predicted decrease, and by 2/3 if by more than three quarters. A step costs a gradient and max_iter
    Hessian-vector products; if adaptive, one more product and one to four more gradients. Only on a CPU are
    values read on the host, to end early; the result is the same.

    Symbols: δ = damping, adapted by the Levenberg-Marquardt rule if adaptive
    Use: small problems with full batches; one step solves a quadratic (damping 0). A step costs about
        2·max_iter gradients.
    Defaults: lr 1 is Newton's step.
    Paper: Martens 2010; truncated CG: Nash 1984; products: Pearlmutter 1994
    Lecture: L2

    Args:
        lr: factor of the step
        damping: added to the curvature; the initial value if adaptive
        adaptive: adapt the damping, and reduce or reject steps that increase the loss
        max_iter: largest number of Hessian-vector products of CG
        tolerance: CG ends when the residual is not above this fraction of ‖g‖
    """

    needs = frozenset({"own evaluations", "second derivatives", "one loss", "own iterates"})

    def __init__(
        self,
        params: Params,
        lr: Positive = 1.0,
        damping: NonNegative = 1e-2,
        adaptive: bool = True,
        max_iter: Count = 20,
        tolerance: NonNegative = 1e-3,
    ) -> None:
        settings = {"damping": damping, "adaptive": adaptive, "max_iter": max_iter, "tolerance": tolerance}
        super().__init__(params, {"lr": lr, **settings})

    @torch.no_grad()
    def step(self, closure: Any) -> Tensor:  # type: ignore[override]
        parameters, lrs = trainable(self.param_groups)
        loss, graph = losses_with_graph(closure, parameters, "newton_cg")
        grads, damping = [grad.detach() for grad in graph], self._damping(parameters[0])

        def product(vector: Vector) -> Vector:
            return torch._foreach_add(  # type: ignore[return-value]
                hessian_vector(graph, parameters, vector), torch._foreach_mul(vector, damping)
            )

        direction = conjugate_gradients(product, grads, self.defaults["max_iter"], self.defaults["tolerance"])
        step = [d * lr for d, lr in zip(direction, lrs, strict=True)]
        if not self.defaults["adaptive"]:
            torch._foreach_add_(parameters, step)
            return loss.detach()
        promised = -(dot(grads, step) + 0.5 * dot(step, hessian_vector(graph, parameters, step)))
        gained = self._back_off(closure, parameters, step, loss.detach())
        _adapt(damping, gained, promised)
        return loss.detach()

    def _damping(self, first: Tensor) -> Tensor:
        state = self.state[first]
        if "damping" not in state:
            # not torch.tensor, whose copy to a device waits
            state["damping"] = first.new_full((), self.defaults["damping"])
        return state["damping"]

    def _back_off(self, closure: Any, parameters: Vector, step: Vector, loss: Tensor) -> Tensor:
        """Take the longest scaled step that does not increase the loss; return the decrease of the full step."""
        before = [parameter.clone() for parameter in parameters]
        taken, gains = torch.zeros_like(loss, dtype=torch.bool), []
        for part in _PARTS:
            for parameter, old, whole in zip(parameters, before, step, strict=True):
                parameter.copy_(torch.where(taken, parameter, old + part * whole))
            gains.append(loss - closure.gradients(parameters, create_graph=False)[0].detach())
            # false for a loss of NaN
            taken = taken | (gains[-1] >= 0)
            if not is_asynchronous(taken.device) and bool(taken):
                break
        for parameter, old in zip(parameters, before, strict=True):
            parameter.copy_(torch.where(taken, parameter, old))
        return gains[0]


_PARTS = (1.0, 1 / 4, 1 / 16, 1 / 64)


def _adapt(damping: Tensor, gained: Tensor, promised: Tensor) -> None:
    """Update the damping in place from the actual and the predicted decrease of the loss (Marquardt's rule)."""
    ratio = gained / promised
    factor = torch.where(ratio > 0.75, 2 / 3, torch.where(ratio < 0.25, 1.5, 1.0))
    harmed = (damping * 4).clamp(min=1e-3)
    damping.copy_(torch.where(gained >= 0, damping * factor, harmed))


class _Search(NamedTuple):
    """State of conjugate gradients; `squared` is ‖residual‖², `ended` a boolean tensor."""

    solution: Vector
    residual: Vector
    direction: Vector
    squared: Tensor
    ended: Tensor


def conjugate_gradients(product: Any, grads: Vector, max_iter: int, tolerance: float) -> Vector:
    """Solve A d = -g for a symmetric A given as a product with a vector; `NewtonCG` documents when it ends."""
    residual = [-grad for grad in grads]
    squared = dot(residual, residual)
    target = squared * tolerance**2
    zeros = [torch.zeros_like(grad) for grad in grads]
    search = _Search(zeros, residual, residual, squared, squared == 0)
    for iteration in range(max_iter):
        search = _advance(search, product(search.direction), target, first=iteration == 0)
        if not is_asynchronous(search.ended.device) and bool(search.ended):
            break
    return search.solution


def _advance(search: _Search, product: Vector, target: Tensor, first: bool) -> _Search:
    """Compute one iteration; a search that has ended is left unchanged, so that no value is read on the host."""
    curvature = dot(search.direction, product)
    flat = ~(curvature > 0)
    stay = search.ended | flat
    alpha = torch.where(stay, 0.0, search.squared / curvature)
    step = torch.where(flat & ~search.ended, 1.0, alpha) if first else alpha
    solution = [x + step * p for x, p in zip(search.solution, search.direction, strict=True)]
    residual = [r - alpha * q for r, q in zip(search.residual, product, strict=True)]
    squared = dot(residual, residual)
    beta = torch.where(stay, 0.0, squared / search.squared)
    direction = [r + beta * p for r, p in zip(residual, search.direction, strict=True)]
    return _Search(solution, residual, direction, squared, stay | (squared <= target))
