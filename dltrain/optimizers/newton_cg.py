"""Newton's method without a Hessian: the linear system is solved by conjugate gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dltrain.optimizers.curvature import Vector, dot, hessian_vector, losses_with_graph, trainable
from dltrain.optimizers.groups import Params, require, require_lr


class NewtonCG(torch.optim.Optimizer):
    """w ← w + lr d, with (H + damping) d = -g solved by at most `max_iter` steps of conjugate gradients (L2).

    Hessian-free (Martens 2010; truncated as in Nash 1984): CG ends when the residual is below `tolerance` times
    ‖g‖, or at a direction of curvature that is not positive, with what it has so far, or -g if it has nothing.
    With `adaptive` the damping follows Levenberg and Marquardt: the loss of the same batch is computed again, a
    step that raises it is taken back, and damping grows by 3/2 where the model promised over four times what came,
    and shrinks by 2/3 where it promised less than 4/3 of it. One step solves a quadratic (damping 0).
    Costs a gradient, `max_iter` Hessian-vector products and, if adaptive, a loss; it reads no value on the host
    except on a CPU, where CG ends as soon as it may (the result is the same).
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1.0,
        damping: float = 1e-2,
        adaptive: bool = True,
        max_iter: int = 20,
        tolerance: float = 1e-3,
    ) -> None:
        require_lr(lr)
        require(damping >= 0, "damping", damping, "a number >= 0", "0 trusts the curvature fully, try 1e-2")
        require(max_iter >= 1, "max_iter", max_iter, "an integer >= 1", "10 to 50 products a step are usual")
        require(tolerance >= 0, "tolerance", tolerance, "a number >= 0", "1e-3 is usual, 0 uses all iterations")
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

        direction = conjugate_gradients(
            product, grads, self.defaults["max_iter"], self.defaults["tolerance"]
        )
        step = [d * lr for d, lr in zip(direction, lrs, strict=True)]
        before = [parameter.clone() for parameter in parameters]
        torch._foreach_add_(parameters, step)
        if self.defaults["adaptive"]:
            promised = -(dot(grads, step) + 0.5 * dot(step, product(step)))
            self._judge(closure, parameters, before, loss.detach(), promised, damping)
        return loss.detach()

    def _damping(self, first: Tensor) -> Tensor:
        state = self.state[first]
        if "damping" not in state:
            state["damping"] = torch.tensor(self.defaults["damping"], dtype=first.dtype, device=first.device)
        return state["damping"]

    def _judge(
        self, closure: Any, parameters: Vector, before: Vector, loss: Tensor, promised: Tensor, damping: Tensor
    ) -> None:
        """Compare the change of the loss with the model's, adapt the damping, take back a step that did harm."""
        gained = loss - closure.gradients(parameters, create_graph=False)[0].detach()
        harmful = ~(gained >= 0)  # a loss of NaN is harmful too
        for parameter, old in zip(parameters, before, strict=True):
            parameter.copy_(torch.where(harmful, old, parameter))
        ratio = gained / promised
        factor = torch.where(ratio > 0.75, 2 / 3, torch.where(ratio < 0.25, 1.5, 1.0))
        damping.mul_(torch.where(harmful, 4.0, factor))


class _Search(NamedTuple):
    """Where conjugate gradients stand: solution, residual, direction, ‖residual‖², and whether they have ended."""

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
