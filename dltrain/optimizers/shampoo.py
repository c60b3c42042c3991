"""Shampoo: full-matrix Adagrad in Kronecker factors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dltrain.optimizers.groups import (
    Closure,
    Params,
    buffers,
    evaluate,
    require,
    require_decay,
    require_lr,
    with_gradient,
)
from dltrain.ranges import Count, Fraction, NonNegative, Part, Positive


class Shampoo(torch.optim.Optimizer):
    """Shampoo: full-matrix Adagrad in Kronecker factors.

        Hᵢ ← βHᵢ + GᵢGᵢᵀ
        m ← μm + (1−μ)·G ×₁H₁^(−1/2k) … ×ₖHₖ^(−1/2k)
        w ← w − lr·m

    w ← w - lr m, m ← μ m + (1 - μ) G ×₁ H₁^(-1/2k) … ×ₖ Hₖ^(-1/2k) (Gupta et al. 2018, arXiv:1802.09568; L0).

    Each of the k axes longer than 1 sums its own second moments, Hᵢ = eps I + Σ GᵢGᵢᵀ with Gᵢ the gradient
    unfolded along it; a vector's is full-matrix Adagrad. An axis longer than `max_size` keeps the diagonal
    only, as in the paper. With `beta` < 1 the sum is a moving average that forgets. Roots are renewed in the
    first `update_every` steps and then every `update_every` steps, by eigenvalues, at a cost of about 10 n³
    for an axis of length n, and a host sync on a GPU. A sum changes ever more slowly: with `beta` = 1 the
    period doubles with the number of steps from 20 `update_every` on, and stays within a tenth of it. A
    direction that is new since then would be stretched by eps^(-1/2): in between, the update is shortened to
    √(size / longest axis), the length that fresh roots do not exceed.

    Symbols: Gᵢ = gradient unfolded along axis i of k; β = beta; μ = momentum; Hᵢ starts at eps·I
    Use: where correlations between weights matter more than the time of a step.
    Defaults: beta 1 of the paper; momentum 0.9; axes above 128 keep a diagonal, which holds its cost down; lr
        from benchmarks/default_lr.md.
    Paper: Gupta et al. 2018, arXiv:1802.09568
    Lecture: L0

    Args:
        lr: step size
        momentum: share of the last step that is kept
        beta: share of the moments that is kept; 1 sums, below 1 the new enter with 1 − β
        eps: start and smallest eigenvalue of the moments
        update_every: steps between two computations of the roots
        max_size: longer axes keep a diagonal
        weight_decay: λ of λ/2·‖w‖², added to the gradient
    """

    def __init__(
        self,
        params: Params,
        lr: Positive = 0.1,
        momentum: Fraction = 0.9,
        beta: Part = 1.0,
        eps: Positive = 1e-4,
        update_every: Count = 20,
        max_size: Count = 128,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        require_lr(lr)
        require_decay(weight_decay)
        require(0 <= momentum < 1, "momentum", momentum, "in [0, 1)", "0.9 is usual")
        require(0 < beta <= 1, "beta", beta, "in (0, 1]", "1 sums as in the paper, 0.99 forgets")
        require(eps > 0, "eps", eps, "a number > 0", "1e-4 is usual")
        require(update_every >= 1, "update_every", update_every, "an integer >= 1", "10 to 100 is usual")
        require(
            max_size >= 1, "max_size", max_size, "an integer >= 1", "longer axes keep a diagonal: 256 to 8192"
        )
        statistics = {"beta": beta, "eps": eps, "update_every": update_every, "max_size": max_size}
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, **statistics})

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor | None:  # type: ignore[override]
        loss = evaluate(closure)
        for group in self.param_groups:
            parameters = with_gradient(group)
            if not parameters:
                continue
            updates = [self._precondition(parameter, group) for parameter in parameters]
            states = [self.state[parameter] for parameter in parameters]
            _shorten([u for u, s in zip(updates, states, strict=True) if not _is_fresh(s["steps"], group)])
            for state in states:
                state["steps"] += 1
            momenta = buffers(self, parameters, "momentum")
            torch._foreach_lerp_(momenta, updates, 1 - group["momentum"])
            torch._foreach_add_(parameters, momenta, alpha=-group["lr"])
        return loss

    def _precondition(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """A new tensor in the parameter's shape: its gradient times the roots, which this step may renew."""
        grad = parameter.grad
        assert grad is not None
        if group["weight_decay"]:
            grad = grad.add(parameter, alpha=group["weight_decay"])
        grad = grad.reshape(1) if grad.ndim == 0 else grad
        state = self.state[parameter]
        axes = [axis for axis, length in enumerate(grad.shape) if length > 1] or [0]
        if "steps" not in state:
            state["steps"] = 0
            for axis in axes:
                state[f"moments{axis}"] = _initial(grad, axis, group["eps"], group["max_size"])
        diagonal = any(state[f"moments{axis}"].ndim == 1 for axis in axes)
        work = grad.square() if diagonal else grad
        update = grad
        for axis in axes:
            moments = state[f"moments{axis}"]
            _accumulate(moments, grad, work, axis, group["beta"])
            if _is_fresh(state["steps"], group):
                state[f"root{axis}"] = _inverse_root(moments, 2 * len(axes), group["eps"])
        for axis in axes:  # the squares have done their work; new memory is twice as slow on a CPU
            update = _apply(update, state[f"root{axis}"], axis, work)
        return update.view_as(parameter)


def _is_fresh(steps: int, group: dict[str, Any]) -> bool:
    """Whether roots are renewed after so many steps."""
    every = group["update_every"]
    if group["beta"] == 1:
        every <<= max((steps // (10 * every)).bit_length() - 1, 0)
    return steps < group["update_every"] or steps % every == 0


def _initial(grad: Tensor, axis: int, eps: float, max_size: int) -> Tensor:
    length = grad.shape[axis]
    if length > max_size:
        return grad.new_full((length,), eps)
    return torch.eye(length, dtype=grad.dtype, device=grad.device) * eps


def _accumulate(moments: Tensor, grad: Tensor, square: Tensor, axis: int, beta: float) -> None:
    """H ← β H + (1 - β) GGᵀ, or H + GGᵀ for β = 1; for a long axis its diagonal only, from the squares."""
    weight = 1 - beta if beta < 1 else 1.0
    if moments.ndim == 1:
        others = [other for other in range(grad.ndim) if other != axis]
        moments = moments.mul_(beta) if beta < 1 else moments
        moments.add_(square.sum(others) if others else square, alpha=weight)
    else:
        unfolded = grad.movedim(axis, 0).flatten(1) if grad.ndim > 1 else grad[:, None]
        moments.addmm_(unfolded, unfolded.T, beta=beta, alpha=weight)


def _inverse_root(moments: Tensor, order: int, eps: float) -> Tensor:
    """H^(-1/order), with eigenvalues below eps lifted to it: by rounding, or forgetting with beta < 1, some
    fall.
    """
    if moments.ndim == 1:
        return moments.clamp(min=eps) ** (-1 / order)
    full = moments.to(torch.promote_types(moments.dtype, torch.float32))  # eigenvalues exist from float32 on
    finite = full.nan_to_num(0.0, 0.0, 0.0)  # a run that diverges is the trainer's to report, not LAPACK's
    values, vectors = torch.linalg.eigh(finite)
    return ((vectors * values.clamp(min=eps) ** (-1 / order)) @ vectors.T).to(moments.dtype)


def _apply(update: Tensor, root: Tensor, axis: int, out: Tensor) -> Tensor:
    """The update times a root along its axis; a diagonal one writes into `out`."""
    if root.ndim == 1:
        shape = [1] * update.ndim
        shape[axis] = -1
        return torch.mul(update, root.view(shape), out=out)
    if axis == 0:  # contiguous as it comes
        return (root @ update.flatten(1)).view_as(update) if update.ndim > 1 else root @ update
    return torch.tensordot(update, root, dims=([axis], [0])).movedim(-1, axis)


def _shorten(updates: list[Tensor]) -> None:
    """Each to √(size / longest axis) at most, in place."""
    if not updates:
        return
    scales = torch._foreach_reciprocal(torch._foreach_norm(updates))
    torch._foreach_mul_(scales, [(u.numel() / max(u.shape, default=1)) ** 0.5 for u in updates])
    torch._foreach_clamp_max_(scales, 1.0)
    torch._foreach_mul_(updates, scales)
