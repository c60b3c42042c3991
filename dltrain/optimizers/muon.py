"""Muon: momentum made orthogonal, for the matrices inside a network; AdamW for everything else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dltrain.optimizers.groups import (
    Closure,
    Params,
    buffers,
    evaluate,
    gradients,
    require,
    require_betas,
    require_decay,
    require_lr,
    with_gradient,
)
from dltrain.ranges import Count, Fraction, NonNegative, Positive

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic, chosen by Jordan for the steepest slope at 0


class Muon(torch.optim.Optimizer):
    """Muon: momentum made orthogonal for hidden matrices, AdamW for the rest.

        m ← μm + (1−μ)g
        w ← w − lr·(0.2·√max(rows, columns)·NS((1−μ)g + μm) + λw), NS(USVᵀ) ≈ UVᵀ

    m ← μ m + (1 - μ) g; w ← w - lr (0.2 √max(rows, columns) NS((1 - μ) g + μ m) + λ w) (Jordan et al. 2024).

    NS is a Newton-Schulz iteration towards UVᵀ of the singular value decomposition. The factor 0.2 √max (Liu
    et al. 2025, arXiv:2502.16982) gives the update the size of AdamW's, so that one lr serves both. Weights
    with two or more axes are flattened to (first axis, rest); the last of them, which makes the logits, and
    all others (biases, norms) take AdamW with `betas` and `eps`, unless `last` is true. Torch's Muon takes
    matrices only. NS runs in bfloat16 on a GPU and in the parameters' dtype on a CPU. Cost for r × c with r ≤
    c: `ns_steps` (4 r²c + 2 r³) operations, or on a CPU where c ≥ 1.5 r about 4 r²c + 8 `ns_steps` r³,
    whatever the batch: little beside the gradient of a large batch (4 to 6 r c a sample), much beside a small
    one.

    Symbols: μ = momentum; λ = weight_decay
    Use: matrices and convolutions (flattened) of large batches; biases, norms and the last layer take AdamW
        at the same lr.
    Defaults: momentum 0.95 and 5 iterations of the paper; lr from benchmarks/default_lr.md.
    Paper: Jordan et al. 2024; the factor: Liu et al. 2025, arXiv:2502.16982

    Args:
        lr: step size of both parts
        momentum: share of the last step that is kept
        nesterov: the gradient counts as if taken one step ahead
        ns_steps: iterations towards the orthogonal matrix
        last: the last layer too
        betas: of AdamW
        eps: of AdamW
        weight_decay: share of the weights taken off per step, times lr
    """

    def __init__(
        self,
        params: Params,
        lr: Positive = 1e-3,
        momentum: Fraction = 0.95,
        nesterov: bool = True,
        ns_steps: Count = 5,
        last: bool = False,
        betas: tuple[Fraction, Fraction] = (0.9, 0.999),
        eps: Positive = 1e-8,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        require_lr(lr)
        require_betas(betas)
        require_decay(weight_decay)
        require(0 <= momentum < 1, "momentum", momentum, "in [0, 1)", "0.95 is usual")
        require(ns_steps >= 1, "ns_steps", ns_steps, "an integer >= 1", "5 is usual")
        require(eps > 0, "eps", eps, "a number > 0", "1e-8 is usual")
        settings = {"momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps}
        adamw = {"betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {"lr": lr, **settings, **adamw, "steps": 0})
        matrices = [p for group in self.param_groups for p in group["params"] if p.ndim >= 2]
        self.hidden = {id(parameter) for parameter in (matrices if last else matrices[:-1])}

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor | None:  # type: ignore[override]
        loss = evaluate(closure)
        for group in self.param_groups:
            parameters = with_gradient(group)
            group["steps"] += 1
            if parameters and group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            self._step_hidden([p for p in parameters if id(p) in self.hidden], group)
            self._step_adam([p for p in parameters if id(p) not in self.hidden], group)
        return loss

    def _step_hidden(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        if not parameters:
            return
        grads, momenta = gradients(parameters), buffers(self, parameters, "momentum")
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        ahead = torch._foreach_lerp(grads, momenta, group["momentum"]) if group["nesterov"] else momenta
        for parameter, direction in zip(parameters, ahead, strict=True):
            matrix = direction.flatten(1)
            update = orthogonalize(matrix, group["ns_steps"]).view_as(parameter)
            parameter.add_(update, alpha=-group["lr"] * 0.2 * max(matrix.shape) ** 0.5)

    def _step_adam(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        if not parameters:
            return
        (beta1, beta2), steps, grads = group["betas"], group["steps"], gradients(parameters)
        means, squares = buffers(self, parameters, "mean"), buffers(self, parameters, "square")
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, value=1 - beta2)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, (1 - beta2**steps) ** 0.5)
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_addcdiv_(parameters, means, roots, value=-group["lr"] / (1 - beta1**steps))


def orthogonalize(matrix: Tensor, steps: int) -> Tensor:
    """U S' Vᵀ of a (rows, columns) matrix U S Vᵀ, with singular values S' near 1 (0.7 to 1.2 after five
    steps).
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(torch.bfloat16 if matrix.is_cuda else matrix.dtype)
    x = x / (torch.linalg.matrix_norm(x) + 1e-7)  # Frobenius: no singular value is above 1
    # bfloat16 has too few digits for the squares of singular values
    by_gram = x.shape[1] >= 1.5 * x.shape[0] and x.dtype is not torch.bfloat16
    x = _by_gram_matrix(x, steps) if by_gram else _by_itself(x, steps)
    return (x.T if tall else x).to(matrix.dtype)


def _by_itself(x: Tensor, steps: int) -> Tensor:
    """X ← (a + b XXᵀ + c (XXᵀ)²) X, `steps` times: 2 products with X and one of its smaller side each."""
    a, b, c = _COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _by_gram_matrix(x: Tensor, steps: int) -> Tensor:
    """The same, with G = XXᵀ in place of X: P = a + b G + c G²; Q ← Q P; G ← G P²; at last Q X.

    2 products with X in all, and 4 of its smaller side a step: less where X is wide.
    """
    a, b, c = _COEFFICIENTS
    gram = x @ x.T
    total = torch.eye(len(x), dtype=x.dtype, device=x.device)
    for step in range(steps):
        rest = torch.addmm(gram, gram, gram, beta=b, alpha=c)  # P - a
        total = torch.addmm(total, total, rest, beta=a) if step else rest + a * total
        if step < steps - 1:
            gram = torch.addmm(gram, gram, rest, beta=a)
            gram = torch.addmm(gram, gram, rest, beta=a)
    return total @ x
