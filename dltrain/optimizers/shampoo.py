"""The Shampoo optimizer."""

from __future__ import annotations

import torch
from torch import Tensor

from dltrain.optimizers.groups import (
    Closure,
    ParamGroup,
    Params,
    buffers,
    evaluate,
    with_gradient,
)
from dltrain.ranges import Count, Fraction, NonNegative, Part, Positive


class Shampoo(torch.optim.Optimizer):
    """Shampoo: full-matrix Adagrad with a Kronecker-factored preconditioner.

        Hᵢ ← βHᵢ + GᵢGᵢᵀ
        m ← μm + (1−μ)·G ×₁H₁^(−1/2k) … ×ₖHₖ^(−1/2k)
        w ← w − lr·m

    The k axes are those longer than 1; for a vector this is full-matrix Adagrad. An axis longer than max_size
    keeps the diagonal of Hᵢ. Roots are computed in the first update_every steps, then every update_every
    steps, from eigenvalues, at about 10n³ operations for an axis of length n and with a host sync on a GPU.
    With β = 1, Hᵢ changes more and more slowly: after 20·update_every steps the period doubles with the
    number of steps and stays within a tenth of it. With outdated roots a new direction would be scaled up by
    eps^(−1/2): the norm of the update is then limited to √(size/longest axis), which current roots never
    exceed.

    Symbols: G = the gradient; Gᵢ = G unfolded along axis i of k; β = beta; μ = momentum; Hᵢ starts at eps·I
    Use: problems where correlations between weights matter more than the time per step.
    Defaults: beta of the paper; max_size limits the cost; lr from benchmarks/default_lr.md.
    Paper: Gupta et al. 2018, arXiv:1802.09568
    Lecture: L0

    Args:
        lr: step size
        momentum: decay rate of m
        beta: decay rate of the moments; 1 is a sum, below 1 new moments are weighted by 1 − β
        eps: initial diagonal and smallest eigenvalue of the moments
        update_every: steps between two computations of the roots
        max_size: largest length of an axis with a full matrix
        weight_decay: λ of the penalty λ/2·‖w‖², whose gradient is added to G
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

    def _precondition(self, parameter: Tensor, group: ParamGroup) -> Tensor:
        """Return the gradient times the roots, a new tensor in the parameter's shape; update the roots when due."""
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
        # the squares are no longer needed; an allocation takes twice as long on a CPU
        for axis in axes:
            update = _apply(update, state[f"root{axis}"], axis, work)
        return update.view_as(parameter)


def _is_fresh(steps: int, group: ParamGroup) -> bool:
    """Return whether the roots are computed after this number of steps."""
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
    """Update H ← β H + (1 - β) GGᵀ, or H + GGᵀ for β = 1; for a long axis its diagonal only, from the squares."""
    weight = 1 - beta if beta < 1 else 1.0
    if moments.ndim == 1:
        others = [other for other in range(grad.ndim) if other != axis]
        moments = moments.mul_(beta) if beta < 1 else moments
        moments.add_(square.sum(others) if others else square, alpha=weight)
    else:
        unfolded = grad.movedim(axis, 0).flatten(1) if grad.ndim > 1 else grad[:, None]
        moments.addmm_(unfolded, unfolded.T, beta=beta, alpha=weight)


def _inverse_root(moments: Tensor, order: int, eps: float) -> Tensor:
    """Compute H^(-1/order), with eigenvalues raised to at least eps.

    Rounding, or beta < 1, can lower them below it.
    """
    if moments.ndim == 1:
        return moments.clamp(min=eps) ** (-1 / order)
    # eigh needs at least float32
    full = moments.to(torch.promote_types(moments.dtype, torch.float32))
    # LAPACK raises for values that are not finite; the trainer reports a diverged run
    finite = full.nan_to_num(0.0, 0.0, 0.0)
    values, vectors = torch.linalg.eigh(finite)
    return ((vectors * values.clamp(min=eps) ** (-1 / order)) @ vectors.T).to(moments.dtype)


def _apply(update: Tensor, root: Tensor, axis: int, out: Tensor) -> Tensor:
    """Multiply the update by a root along its axis; a diagonal root writes into `out`."""
    if root.ndim == 1:
        shape = [1] * update.ndim
        shape[axis] = -1
        return torch.mul(update, root.view(shape), out=out)
    # contiguous without a transposition
    if axis == 0:
        return (root @ update.flatten(1)).view_as(update) if update.ndim > 1 else root @ update
    return torch.tensordot(update, root, dims=([axis], [0])).movedim(-1, axis)


def _shorten(updates: list[Tensor]) -> None:
    """Limit the norm of each update to √(size / longest axis), in place."""
    if not updates:
        return
    scales = torch._foreach_reciprocal(torch._foreach_norm(updates))
    torch._foreach_mul_(scales, [(u.numel() / max(u.shape, default=1)) ** 0.5 for u in updates])
    torch._foreach_clamp_max_(scales, 1.0)
    torch._foreach_mul_(updates, scales)
