"""Shampoo: full-matrix Adagrad in Kronecker factors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dltrain.optimizers.groups import (
    Closure,
    Params,
    evaluate,
    require,
    require_decay,
    require_lr,
    with_gradient,
)


class Shampoo(torch.optim.Optimizer):
    """w ← w - lr m, m ← μ m + (1 - μ) G ×₁ H₁^(-1/2k) … ×ₖ Hₖ^(-1/2k) (Gupta et al. 2018, arXiv:1802.09568;
    L0).

    Each of the k axes longer than 1 sums its own second moments, Hᵢ = eps I + Σ GᵢGᵢᵀ with Gᵢ the gradient
    unfolded along it; a vector's is full-matrix Adagrad. An axis longer than `max_size` keeps the diagonal
    only, as in the paper. With `beta` < 1 the sum is a moving average that forgets. Roots are renewed in the
    first `update_every` steps and then every `update_every` steps, by eigenvalues, at a cost of about 10 n³
    for an axis of length n, and a host sync on a GPU. A direction that is new since then would be stretched
    by eps^(-1/2): in between, the update is shortened to √(size / longest axis), the length that fresh roots
    do not exceed.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 0.1,
        momentum: float = 0.9,
        beta: float = 1.0,
        eps: float = 1e-4,
        update_every: int = 20,
        max_size: int = 256,
        weight_decay: float = 0.0,
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
            for parameter in with_gradient(group):
                self._move(parameter, group)
        return loss

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        grad = (
            parameter.grad.add(parameter, alpha=group["weight_decay"])
            if group["weight_decay"]
            else parameter.grad
        )
        state = self.state[parameter]
        axes = [axis for axis, length in enumerate(grad.shape) if length > 1] or [0]
        grad = grad.reshape(1) if grad.ndim == 0 else grad
        if not state:
            state.update({"steps": 0, "momentum": torch.zeros_like(parameter)})
            for axis in axes:
                state[f"moments{axis}"] = _initial(grad, axis, group["eps"], group["max_size"])
        renew = state["steps"] < group["update_every"] or state["steps"] % group["update_every"] == 0
        state["steps"] += 1
        update = grad
        for axis in axes:
            moments = state[f"moments{axis}"]
            _accumulate(moments, grad, axis, group["beta"])
            if renew:
                state[f"root{axis}"] = _inverse_root(moments, 2 * len(axes), group["eps"])
            update = _apply(update, state[f"root{axis}"], axis)
        update = update if renew else _shorten(update)
        state["momentum"].lerp_(update.reshape(parameter.shape), 1 - group["momentum"])
        parameter.sub_(state["momentum"], alpha=group["lr"])


def _initial(grad: Tensor, axis: int, eps: float, max_size: int) -> Tensor:
    length = grad.shape[axis]
    if length > max_size:
        return grad.new_full((length,), eps)
    return torch.eye(length, dtype=grad.dtype, device=grad.device) * eps


def _accumulate(moments: Tensor, grad: Tensor, axis: int, beta: float) -> None:
    """H ← β H + (1 - β) GGᵀ, or H + GGᵀ for β = 1; for a long axis its diagonal only."""
    unfolded = grad.movedim(axis, 0).flatten(1) if grad.ndim > 1 else grad[:, None]
    weight = 1 - beta if beta < 1 else 1.0
    if moments.ndim == 1:
        moments.mul_(beta).add_(unfolded.square().sum(1), alpha=weight)
    else:
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


def _apply(update: Tensor, root: Tensor, axis: int) -> Tensor:
    if root.ndim == 1:
        shape = [1] * update.ndim
        shape[axis] = -1
        return update * root.view(shape)
    return torch.tensordot(update, root, dims=([axis], [0])).movedim(-1, axis)


def _shorten(update: Tensor) -> Tensor:
    longest = (update.numel() / max(update.shape)) ** 0.5
    return update * (longest / torch.linalg.vector_norm(update)).clamp(max=1.0)
