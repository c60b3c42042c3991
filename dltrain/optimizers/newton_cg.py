"""Newton's method without a Hessian: the linear system is solved by conjugate gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dltrain.optimizers.curvature import Vector, dot, hessian_vector, losses_with_graph, trainable
from dltrain.optimizers.groups import Params, require, require_lr
from dltrain.ranges import Count, NonNegative, Positive


class NewtonCG(torch.optim.Optimizer):
    """Newton's method, Hessian-free: the system is solved by conjugate gradients.

        w ← w + lr·d, (H + δI)d = −g by CG, ended at negative curvature

    w ← w + lr d, with (H + damping) d = -g solved by at most `max_iter` steps of conjugate gradients (L2).

    Hessian-free (Martens 2010; truncated as in Nash 1984): CG ends when the residual is below `tolerance`
    times ‖g‖, or at a direction of curvature that is not positive, with what it has so far, or -g if it has
    nothing. With `adaptive` the loss of the same batch is computed again: a step that raises it is cut to a
    quarter, up to three times, and else taken back; and the damping follows Levenberg and Marquardt: it grows
    by 3/2 (by 4 after harm) where less than a quarter of the promised gain came, and shrinks by 2/3 where
    more than three quarters did. One step solves a quadratic (damping 0). Costs a gradient, `max_iter`
    Hessian-vector products and, if adaptive, one more product and one to four gradients. It reads values on
    the host on a CPU only, where it ends as soon as it may; the result is the same.

    Symbols: δ = damping, by Levenberg and Marquardt's rule if adaptive
    Use: small problems with full batches; one step solves a quadratic (damping 0). A step costs about
        2·max_iter gradients.
    Defaults: lr 1 is Newton's step; damping 0.01 at first.
    Paper: Martens 2010; Nash 1984; Pearlmutter 1994
    Lecture: L2

    Args:
        lr: multiplies the step
        damping: added to the curvature
        adaptive: adapt the damping, and take back steps that raise the loss
        max_iter: Hessian-vector products per step, at most
        tolerance: CG ends when the residual is below this share of ‖g‖
    """

    needs = frozenset({"own evaluations", "second derivatives", "one loss"})

    def __init__(
        self,
        params: Params,
        lr: Positive = 1.0,
        damping: NonNegative = 1e-2,
        adaptive: bool = True,
        max_iter: Count = 20,
        tolerance: NonNegative = 1e-3,
    ) -> None:
        require_lr(lr)
        require(damping >= 0, "damping", damping, "a number >= 0", "0 trusts the curvature fully, try 1e-2")
        require(max_iter >= 1, "max_iter", max_iter, "an integer >= 1", "10 to 50 products a step are usual")
        require(
            tolerance >= 0, "tolerance", tolerance, "a number >= 0", "1e-3 is usual, 0 uses all iterations"
        )
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
            state["damping"] = torch.tensor(self.defaults["damping"], dtype=first.dtype, device=first.device)
        return state["damping"]

    def _back_off(self, closure: Any, parameters: Vector, step: Vector, loss: Tensor) -> Tensor:
        """Take the longest of the step and a few parts of it that does no harm; what the whole one gained."""
        before = [parameter.clone() for parameter in parameters]
        taken, gains = torch.zeros_like(loss, dtype=torch.bool), []
        for part in _PARTS:
            for parameter, old, whole in zip(parameters, before, step, strict=True):
                parameter.copy_(torch.where(taken, parameter, old + part * whole))
            gains.append(loss - closure.gradients(parameters, create_graph=False)[0].detach())
            taken = taken | (gains[-1] >= 0)  # a loss of NaN is harmful
            if not taken.is_cuda and bool(taken):
                break
        for parameter, old in zip(parameters, before, strict=True):
            parameter.copy_(torch.where(taken, parameter, old))
        return gains[0]


_PARTS = (1.0, 1 / 4, 1 / 16, 1 / 64)


def _adapt(damping: Tensor, gained: Tensor, promised: Tensor) -> None:
    """Trust the model more where it kept its promise, less where it did not (Marquardt's rule)."""
    ratio = gained / promised
    factor = torch.where(ratio > 0.75, 2 / 3, torch.where(ratio < 0.25, 1.5, 1.0))
    harmed = (damping * 4).clamp(min=1e-3)
    damping.copy_(torch.where(gained >= 0, damping * factor, harmed))


class _Search(NamedTuple):
    """Where conjugate gradients stand: solution, residual, direction, ‖residual‖², and whether they have
    ended.
    """

    solution: Vector
    residual: Vector
    direction: Vector
    squared: Tensor
    ended: Tensor


def conjugate_gradients(product: Any, grads: Vector, max_iter: int, tolerance: float) -> Vector:
    """Solve A d = -g for a symmetric A given as a product with a vector; see `NewtonCG` for where it ends."""
    residual = [-grad for grad in grads]
    squared = dot(residual, residual)
    target = squared * tolerance**2
    zeros = [torch.zeros_like(grad) for grad in grads]
    search = _Search(zeros, residual, residual, squared, squared == 0)
    for iteration in range(max_iter):
        search = _advance(search, product(search.direction), target, first=iteration == 0)
        if not search.ended.is_cuda and bool(search.ended):
            break
    return search.solution


def _advance(search: _Search, product: Vector, target: Tensor, first: bool) -> _Search:
    """One iteration; a search that has ended stays as it is, so that no value need be read on the host."""
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
